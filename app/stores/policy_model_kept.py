"""What a policy may have kept of what clients ask and models say, and sent to people: nothing, unless it says so."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.core.notices import NoticeRules
from app.core.secret import Secret
from app.core.stored import StoreRules
from app.stores.policy_types import NotBool, Spec, Webhook

MB = 1024 * 1024


class CacheSpec(Spec):
    """Whole replies are kept, and given again, free of charge, to requests of the same key that are the same byte for
    byte."""

    ttl_secs: Annotated[float, Field(gt=0, le=30 * 86_400), NotBool] = Field(
        description="How long each is kept. An edit of the policy empties the cache."
    )


class StoredResponsesSpec(Spec):
    """Responses and their requests are stored, unless the request says `store: false`, so that `previous_response_id`
    and `item_reference` work with every provider. A key can refer to its own only."""

    ttl_secs: Annotated[float, Field(gt=0, le=365 * 86_400), NotBool] = Field(
        default=30 * 86_400.0, description="How long each is kept after it was made, or after a later one continued it."
    )
    max_mb: Annotated[int, Field(ge=1, le=1_000_000), NotBool] = Field(
        default=256,
        description=(
            "The size of all of them, compressed. If it is reached, those that would be forgotten first are removed."
        ),
    )

    @property
    def rules(self) -> StoreRules:
        """As the policy in force has it."""
        return StoreRules(self.ttl_secs, self.max_mb * MB)


class NoticesSpec(Spec):
    """Budgets that are nearly spent, and tasks that were cut, are told by a webhook."""

    webhook: Webhook = Field(
        description="Where they are posted as JSON: Slack's, Mattermost's or Discord's webhook, or a program of yours. "
        "Write it as ${VARIABLE}."
    )
    at: list[Annotated[float, Field(gt=0, le=1), NotBool]] = Field(
        default=[0.8, 1.0],
        min_length=1,
        max_length=10,
        description="The shares of each capped hour, day, month and total at which it is told, once each. 1: it is "
        "spent, or a call was cut at it.",
    )
    tasks: bool = Field(default=True, description="Tell of tasks that were cut at their cap in dollars.")

    @property
    def rules(self) -> NoticeRules:
        """As the policy in force has it."""
        return NoticeRules(Secret(self.webhook), tuple(sorted(set(self.at))), self.tasks)
