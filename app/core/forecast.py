"""When a budget runs out at the pace it is being spent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["spent", "runs_out", "lasts", "idle", "unlimited"]
"""spent: nothing is left; runs_out: before it refills; lasts: it refills first; idle: nothing is being spent."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """`at_s` is when it runs out (Unix time), where it does at this pace, also where it refills before that."""

    verdict: Verdict
    per_day_nano: int = 0
    at_s: float | None = None


def forecast(
    spent_nano: int, limit_nano: int | None, pace_nano: int, pace_s: float, now_s: float, refills_s: float | None
) -> Forecast:
    """At `pace_nano` in `pace_s` seconds, from now on; `refills_s` is when the window ends (None: it never does)."""
    per_day = round(pace_nano * 86_400 / pace_s) if pace_s > 0 else 0
    if limit_nano is None:
        return Forecast("unlimited", per_day)
    if spent_nano >= limit_nano:
        return Forecast("spent", per_day, now_s)
    if per_day <= 0:
        return Forecast("idle")
    at_s = now_s + (limit_nano - spent_nano) * 86_400 / per_day
    return Forecast("runs_out" if refills_s is None or at_s < refills_s else "lasts", per_day, at_s)
