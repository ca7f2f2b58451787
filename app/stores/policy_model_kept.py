"""What a policy may have kept of what clients ask and models say: nothing, unless it says so."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.core.stored import StoreRules
from app.stores.policy_types import NotBool, Spec

MB = 1024 * 1024


class CacheSpec(Spec):
    """Whole replies are kept, and given again for nothing to requests that are the same byte for byte, of one key."""

    ttl_secs: Annotated[float, Field(gt=0, le=30 * 86_400), NotBool] = Field(
        description="How long each is good. An edit of the policy makes all of them void."
    )


class StoredResponsesSpec(Spec):
    """Responses are stored, with what they answer, unless their request says `store: false`: so `previous_response_id`
    and `item_reference` work with every provider. Each key refers to its own alone."""

    ttl_secs: Annotated[float, Field(gt=0, le=365 * 86_400), NotBool] = Field(
        default=30 * 86_400.0, description="How long after it was made, or a later one went on from it."
    )
    max_mb: Annotated[int, Field(ge=1, le=1_000_000), NotBool] = Field(
        default=256, description="Of all of them, compressed. Those that would be forgotten first make room."
    )

    @property
    def rules(self) -> StoreRules:
        """As the policy in force has it."""
        return StoreRules(self.ttl_secs, self.max_mb * MB)
