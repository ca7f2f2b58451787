"""A model that is kept from one kind of work, because it became worse at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

MODEL, PROVIDER, TRAFFIC = "model", "provider", "traffic"


class Quarantined(msgspec.Struct, frozen=True):
    """`level`: its success there before, `drop`: how much of it is gone. `cause`: what that is laid to: the MODEL, its
    PROVIDER (whose other models fell as well), or TRAFFIC: the work has become harder for all, and nothing is kept
    from it. `paired`: the part of the evidence that requests gave which had come before."""

    model: str
    task_type: str
    since_s: float
    level: float
    drop: float
    cause: str = MODEL
    paired: float = 0.0

    @property
    def left(self) -> float:
        """Its success since it fell."""
        return min(max(self.level - self.drop, 0.0), 1.0)


Fell = tuple[float, float]
"""A model's success before it fell, and since."""


def kept_from(found: Iterable[Quarantined]) -> Mapping[str, Mapping[str, Fell]]:
    """By task type, the models that are kept from it."""
    down: dict[str, dict[str, Fell]] = {}
    for one in found:
        if one.cause != TRAFFIC:
            down.setdefault(one.task_type, {})[one.model] = one.level, one.left
    return down
