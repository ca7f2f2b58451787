"""What has no price is refused under a cap that only the ledger knows."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.policy import Candidate
from app.gateway.fallbacks import unpriced_fallbacks_error
from app.gateway.fees import unpriced_error
from app.gateway.purse import Purse


async def refuse_unpriced(
    purse: Purse, candidate: Candidate, tools: Sequence[str], fallbacks: tuple[str, ...] = ()
) -> None:
    """Raise Unpriced where a cap binds and the model, these tools of its provider's or these models that may answer in
    its place have no price. The decision has refused what it could see: an amended cap, or that of a task above, only
    the ledger knows."""
    if purse.capped and (candidate.price is None or tools or fallbacks):
        await purse.settle(0)
        raise unpriced_fallbacks_error(fallbacks) if fallbacks else unpriced_error(tools)
