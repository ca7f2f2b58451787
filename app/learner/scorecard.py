"""How well the routers' predictions hold, how the sides of a split compare, what exploring costs. Pure but for reading.

A run's prediction is the mean of P(success) of the models that its calls were sent to; it is compared with how the run
was judged. Runs of which nobody spoke are left out: that a call completed says little of whether it was any good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import duckdb

from app.core.feedback import Feedback
from app.core.runs import CallPace, Run, run_of
from app.learner.measures import wilson
from app.stores.traces_runs import calls_by_run

BINS = 10
DAY_S = 86_400
_MORE = """coalesce(route, ''), coalesce(router, ''), coalesce(assigned, ''), share, propensity,
    [c.p_success for c in candidates if c.model = chosen][1], explored, instead_of"""


class Sent(CallPace, frozen=True):
    """A call with how it was decided. `p`: the decider's P(success) of what was chosen. `explored`: it was drawn, to
    learn from it; `instead_of`: where it would have gone otherwise, None the same way."""

    route: str = ""
    router: str = ""
    assigned: str = ""
    share: float | None = None
    propensity: float | None = None
    p: float | None = None
    explored: bool | None = None
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A run with its calls in order."""

    run: Run
    calls: tuple[Sent, ...]

    @property
    def router(self) -> str:
        """The one that decided first, or the two together (`gateway/sobered`), without versions."""
        return "&".join(name.partition("@")[0] for name in self.calls[0].router.split("&"))

    @property
    def predicted(self) -> float | None:
        """None where no router scored what was chosen."""
        found = [call.p for call in self.calls if call.p is not None]
        return fmean(found) if found else None


def decided_since(
    db: duckdb.DuckDBPyConnection, since_s: float, words: Mapping[str, Sequence[Feedback]]
) -> Iterator[Decided]:
    """The runs since then, over the view `traces`. Raises TracesError."""
    for calls in calls_by_run(db, since_s, Sent, more=_MORE):
        ordered = tuple(sorted(calls, key=lambda call: (call.created_s, call.request_id)))
        yield Decided(run_of(ordered, words), ordered)


def scorecard(runs: Sequence[Decided]) -> dict[str, Any]:
    """Everything of these runs that the Learning view shows."""
    judged = [one for one in runs if one.run.judged and one.run.passed is not None]
    return {
        "runs": len(runs),
        "judged": len(judged),
        "calibration": calibration(judged),
        "splits": splits(runs),
        "exploration": exploration([call for one in runs for call in one.calls]),
    }


def calibration(judged: Sequence[Decided]) -> list[dict[str, Any]]:
    """For each router predicted against observed success, in ten bins; the error expected over all bins, and Brier's
    score (https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2)."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for one in judged:
        if (p := one.predicted) is not None and one.router:
            found.setdefault(one.router, []).append((p, bool(one.run.passed)))
    return [_calibrated(router, pairs) for router, pairs in sorted(found.items(), key=lambda item: -len(item[1]))]


def _calibrated(router: str, pairs: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, passed in pairs:
        bins.setdefault(min(int(p * BINS), BINS - 1), []).append((p, passed))
    shown = [_bin(at, bins[at]) for at in sorted(bins)]
    return {
        "router": router,
        "runs": len(pairs),
        "error": sum(abs(one["predicted"] - one["observed"]) * one["runs"] for one in shown) / len(pairs),
        "brier": fmean((p - passed) ** 2 for p, passed in pairs),
        "predicted": fmean(p for p, _ in pairs),
        "observed": fmean(passed for _, passed in pairs),
        "bins": shown,
    }


def _bin(at: int, pairs: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    passed = sum(passed for _, passed in pairs)
    observed = wilson(passed, len(pairs))
    return {
        "from": at / BINS,
        "to": (at + 1) / BINS,
        "runs": len(pairs),
        "predicted": fmean(p for p, _ in pairs),
        "observed": passed / len(pairs),
        "low": observed.low,
        "high": observed.high,
    }


def splits(runs: Sequence[Decided]) -> list[dict[str, Any]]:
    """The sides of each split route: a task keeps its side, so runs are what is compared."""
    found: dict[tuple[str, str], list[Decided]] = {}
    for one in runs:
        first = one.calls[0]
        if first.share is not None:
            found.setdefault((first.route, first.assigned), []).append(one)
    return [_side(route, router, sides) for (route, router), sides in sorted(found.items())]


def _side(route: str, router: str, sides: Sequence[Decided]) -> dict[str, Any]:
    counted = [one.run for one in sides if one.run.passed is not None]
    passed = [run for run in counted if run.passed]
    usd = sum(one.run.cost_usd or 0.0 for one in sides)
    rate = wilson(len(passed), len(counted)) if counted else None
    return {
        "route": route,
        "router": router,
        "share": sides[-1].calls[0].share,
        "calls": sum(len(one.calls) for one in sides),
        "runs": len(sides),
        "counted": len(counted),
        "passed": len(passed),
        "success_rate": len(passed) / len(counted) if counted else None,
        "low": rate.low if rate else None,
        "high": rate.high if rate else None,
        "cost_usd": usd,
        "cost_per_success_usd": usd / len(passed) if passed else None,
        "to_success_ms": median(run.time_to_success_ms for run in passed) if passed else None,
    }


def exploration(calls: Sequence[Sent]) -> dict[str, Any]:
    """What was spent on calls that went elsewhere to learn from them; `drawn` counts those too that chance sent where
    they would have gone anyhow."""
    elsewhere = [call for call in calls if call.instead_of is not None]
    days: dict[int, float] = {}
    models: dict[tuple[str, str], list[Sent]] = {}
    for call in elsewhere:
        day = int(call.created_s // DAY_S) * DAY_S
        days[day] = days.get(day, 0.0) + (call.cost_usd or 0.0)
        models.setdefault((call.model, call.instead_of or ""), []).append(call)
    return {
        "of_calls": len(calls),
        "drawn": sum(call.explored is True for call in calls),
        "calls": len(elsewhere),
        "usd": sum(call.cost_usd or 0.0 for call in elsewhere),
        "of_usd": sum(call.cost_usd or 0.0 for call in calls),
        "days": sorted(days.items()),
        "models": [
            {"model": model, "instead_of": other, "calls": len(some), "usd": sum(c.cost_usd or 0.0 for c in some)}
            for (model, other), some in sorted(models.items(), key=lambda item: -len(item[1]))
        ],
    }
