"""Feedback as the settings say where it is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from app.core.feedback import Feedback
from app.settings import Settings
from app.stores.opening import make_outcomes
from app.stores.outcomes import Outcomes
from app.stores.traces_runs import every_word


async def feedback_of(settings: Settings) -> dict[str, list[Feedback]]:
    """All feedback on record, by the thing it was said of. Raises OutcomesUnavailable or OSError."""
    async with open_outcomes(settings) as outcomes:
        return {} if outcomes is None else await every_word(outcomes)


@contextlib.asynccontextmanager
async def open_outcomes(settings: Settings) -> AsyncIterator[Outcomes | None]:
    """The feedback on record; None where none was ever given."""
    if settings.redis_url is None and not (settings.data_dir / "outcomes.sqlite").exists():
        yield None
        return
    outcomes = make_outcomes(settings)
    await outcomes.start()
    try:
        yield outcomes
    finally:
        await outcomes.close()
