"""The learned router's weights, as commands read them."""

from __future__ import annotations

from app.commands.ending import Refused
from app.settings import Settings
from routers.learned import LearnedRouter, load


def read_weights(settings: Settings) -> LearnedRouter:
    """The weights that the settings name. Raises Refused."""
    try:
        return load(settings.router_weights)
    except (OSError, ValueError) as error:
        raise Refused(f"the learned router's weights cannot be used: {error}") from None
