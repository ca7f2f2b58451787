"""A secret of the policy, which no log and no difference between policies shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that never prints itself."""

    value: str

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__
