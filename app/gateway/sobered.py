"""What the heuristic says where another router left it to decide, and what that one is sure of all the same. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.gateway.choose import Considered
from routers.base import Score


def sobered(said: Sequence[Considered], known: Sequence[Considered], least: float) -> tuple[list[Score], str] | None:
    """The scores that the heuristic gave (`said`), but of candidates of which another router is sure enough (`known`,
    the same candidates) and thinks less, that one's; and whose those are. None where there are none.

    That a router does not know the candidate that it would choose must not make the gateway forget what it knows of the
    others: else a model that has failed again and again would be chosen for ever, for the heuristic has heard of no
    failure.
    """
    scores, lowered = [], []
    for one, other in zip(said, known, strict=True):
        if other.score.confidence >= least and other.score.p_success < one.score.p_success:
            scores.append(other.score)
            lowered.append(one.candidate.name)
        else:
            scores.append(one.score)
    return (scores, " and ".join(lowered)) if lowered else None
