"""An edited policy is replayed on recorded traffic before it is taken into force, where the policy says so.

In a process aside, for a bounded time: calls are served meanwhile by the policy that is in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from app.aside import BURSAR, run_aside
from app.core.policy import Policy, ReplayRules
from app.gateway.metrics import Metrics
from app.settings import Settings

log = structlog.get_logger()

MOST = 10_000
"""The latest traces that are replayed: about 5 s of one CPU."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cost_rise`: the estimated change of dollars per decision, as a share; `success_change`: of the success rate.
    None where that cannot be told, and `untold` says why. `refused`: why the policy is not taken, or None."""

    cost_rise: float | None = None
    success_change: float | None = None
    untold: str | None = None
    refused: str | None = None

    @property
    def result(self) -> str:
        """What became of it, in a word for metrics."""
        return "refused" if self.refused else "untold" if self.untold else "accepted"


class ReplayCheck:
    """Replays a policy that would replace another; the reason to refuse it, or None. The rules are those of the policy
    in force, so that an edit cannot do away with them unseen; where it has none, the new one's."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics

    async def __call__(self, old: Policy, new: Policy) -> str | None:
        """Raises nothing but what ends the gateway."""
        rules = old.require_replay or new.require_replay
        if rules is None:
            return None
        try:
            verdict = judged(await self._replayed(new, rules), rules)
        except TimeoutError:
            verdict = untold(f"it took longer than {rules.max_s:g} s", rules)
        except (OSError, msgspec.DecodeError) as error:
            verdict = untold(f"traces could not be replayed ({type(error).__name__})", rules)
        self._show(verdict)
        log.info(
            "a policy was replayed on recorded traffic",
            version=new.version,
            since=rules.since,
            cost_rise=verdict.cost_rise,
            success_change=verdict.success_change,
            untold=verdict.untold,
            result=verdict.result,
        )
        return verdict.refused

    async def _replayed(self, new: Policy, rules: ReplayRules) -> Mapping[str, Any]:
        asked = ("--policy", new.source, "--since", rules.since, "--most", str(MOST))
        command = (*BURSAR, "replay", "--json", *asked)
        found: dict[str, Any] = msgspec.json.decode(
            await run_aside(self._settings, command, limit_s=rules.max_s, keep=True)
        )
        return found

    def _show(self, verdict: Verdict) -> None:
        self._metrics.policy_replays.labels(verdict.result).inc()
        for what, change in (("cost", verdict.cost_rise), ("success", verdict.success_change)):
            self._metrics.policy_replay_change.labels(what).set(float("nan") if change is None else change)


def judged(found: Mapping[str, Any], rules: ReplayRules) -> Verdict:
    """A replay as JSON, by the rules. Where success cannot be told but dollars can, dollars alone decide."""
    cost, success = found["all"]["cost_usd"], found["all"]["success"]
    if cost["refusal"] is not None:
        return untold(cost["refusal"], rules)
    before, change = cost["recorded"]["value"], cost["change"]["value"]
    rise = change / before if before > 0 else 0.0 if change <= 0 else float("inf")
    drop = None if success["refusal"] is not None else -success["change"]["value"]
    missing = None if drop is not None else f"success: {success['refusal']}"
    told = Verdict(rise, None if drop is None else -drop, missing)
    if rise > rules.max_cost_rise:
        return _refused(told, f"it would cost {rise:+.1%} per decision", f"{rules.max_cost_rise:.1%}", rules)
    if drop is not None and drop > rules.max_success_drop:
        return _refused(told, f"it would succeed {-drop:+.1%} of the time", f"-{rules.max_success_drop:.1%}", rules)
    return untold(missing, rules, told) if missing is not None else told


def untold(why: str, rules: ReplayRules, told: Verdict | None = None) -> Verdict:
    """What becomes of a policy that cannot be judged."""
    known = told or Verdict()
    refused = None
    if rules.untold == "refuse":
        refused = (
            f"require_replay: what it would come to on the traffic of the last {rules.since} cannot be told: {why}"
        )
    return Verdict(known.cost_rise, known.success_change, why, refused)


def _refused(told: Verdict, what: str, most: str, rules: ReplayRules) -> Verdict:
    why = f"require_replay: on the traffic of the last {rules.since} {what}, and {most} is allowed"
    return Verdict(told.cost_rise, told.success_change, told.untold, why)
