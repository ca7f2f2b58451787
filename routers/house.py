"""What a house's own traffic has taught, as a part of the weights: where belief begins there, instead of from nothing.

The weights' other parts stay as they are, so that what a request demands is read the same way with it and without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from routers.base import Arm
from routers.belief import Belief, Own

PART: Final = "house"


@dataclass(frozen=True)
class House:
    """`belief`: what is believed after the labels of all calls that arrived until `until_s` (Unix time)."""

    belief: Belief
    until_s: float

    def arrays(self) -> dict[str, Any]:
        """As the artifact holds it, under `PART`. Single precision hides what the order of a sum changes."""
        own, size = list(self.belief.own.values()), len(self.belief.mean)
        found: dict[str, Any] = {
            "until_s": np.float64(self.until_s),
            "mean": self.belief.mean.astype(np.float32),
            "cov": self.belief.cov.astype(np.float32),
            "arms": np.array([msgspec.json.encode(one.arm).decode() for one in own], dtype=np.str_),
            "labels": np.array([one.labels for one in own], dtype=np.float32),
        }
        for name in ("slope", "cov"):
            stacked = np.array([getattr(one, name) for one in own], dtype=np.float32)
            found[f"own_{name}"] = stacked.reshape(len(own), size, size)
        for name in ("base", "prior"):
            found[f"own_{name}"] = np.array([getattr(one, name) for one in own], dtype=np.float32).reshape(-1, size)
        return {f"{PART}/{name}": value for name, value in found.items()}

    @classmethod
    def of(cls, part: Mapping[str, Any], size: int) -> House | None:
        """The house of an artifact's part; None where it has none. Raises ValueError where it is of other coordinates
        than `size`."""
        if not part:
            return None
        if len(part["mean"]) != size:
            raise ValueError("what the house's traffic taught is of another version; train on the traces again")
        kept = {name: np.asarray(part[name], np.float64) for name in part if name != "arms"}
        arms = [msgspec.json.decode(str(text), type=Arm) for text in part["arms"]]
        own = {
            arm.name: Own(
                arm, kept["own_slope"][at], kept["own_base"][at], kept["own_cov"][at], kept["own_prior"][at],
                float(kept["labels"][at]),
            )
            for at, arm in enumerate(arms)
        }  # fmt: skip
        return cls(Belief(kept["mean"], kept["cov"], own), float(kept["until_s"]))
