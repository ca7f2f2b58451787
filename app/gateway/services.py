"""What calls share in one process, wired by `app/main.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from app.core.health import Circuit, Health
from app.core.money import usd_float
from app.core.tokens import Calibration
from app.gateway.attempt_record import AttemptRecord
from app.gateway.calls import Calls
from app.gateway.decide import Decision
from app.gateway.explore import Explorer
from app.gateway.explore_budget import SharedBudget
from app.gateway.ledger import Ledger
from app.gateway.loops import Loops
from app.gateway.metrics import Metrics, label_of
from app.gateway.metrics_files import exposition, several_workers
from app.gateway.record import CallRecord
from app.gateway.refusals import Refusals
from app.gateway.repeats import Repeats
from app.gateway.sent_again import SentAgain
from app.gateway.tally import Kind, Tally
from app.gateway.upstream import Upstreams
from app.gateway.view import View
from app.stores.responses import StoredResponses
from app.stores.task_memory import TaskMemory
from app.stores.traces import Traces

log = structlog.get_logger()

MAX_CALIBRATIONS = 4096
NO_ROUTE = NO_ROUTER = "-"
FOLD_EVERY_S = 0.25


@dataclass(slots=True)
class Services:
    """One per process. `view` is replaced whole when policy, prices or router change. `salt`: what hashes of requests
    are salted with, None while the store that has it has not answered."""

    view: View
    ledger: Ledger
    upstreams: Upstreams
    traces: Traces
    metrics: Metrics
    memory: TaskMemory
    responses: StoredResponses
    salt: bytes | None = None
    tally: Tally = field(init=False)
    calls: Calls = field(default_factory=Calls)
    health: Health = field(default_factory=Health)
    refusals: Refusals = field(default_factory=Refusals)
    repeats: Repeats = field(init=False)
    loops: Loops = field(init=False)
    sent_again: SentAgain = field(init=False)
    explorer: Explorer = field(init=False)
    explore_budget: SharedBudget = field(init=False)
    _calibrations: dict[str, Calibration] = field(default_factory=dict)
    _left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tally = Tally(self.metrics)
        self.repeats, self.loops = Repeats(self.memory), Loops(self.memory)
        self.sent_again = SentAgain(self.memory)
        self.explore_budget = SharedBudget(self.ledger)
        self.explorer = Explorer(self.explore_budget)
        self._keep_tasks()

    def _keep_tasks(self) -> None:
        self.ledger.budgets.task_retention_s = self.view.policy.caps.task_idle_days * 86_400

    def calibration(self, candidate: str) -> Calibration:
        """What has been learnt about a candidate's token counts."""
        known = self._calibrations.get(candidate)
        if known is None:
            if len(self._calibrations) >= MAX_CALIBRATIONS:
                self._calibrations.clear()
            known = self._calibrations[candidate] = Calibration.fresh()
        return known

    def swap(self, view: View) -> None:
        """Take a new view into force: calls under way keep theirs."""
        for name in self.health.breakers.keys() - view.circuits.keys():
            if (gone := self.view.circuits.get(name)) is not None:
                self.metrics.circuit.labels(*label_of(gone)).set(Circuit.CLOSED)  # else an alert would ring for ever
        self.view = view
        self._keep_tasks()
        self.health.keep(frozenset(view.circuits))

    async def give_back(self) -> None:
        """At the end: give back what is held for exploring, write what is owed and what was counted."""
        await self.explore_budget.close()
        await self.ledger.pay_owed()
        self.fold_metrics()

    def show_circuits(self) -> None:
        """Bring this process's part of the gauge of circuit states up to date, since some change with time alone, and
        log once when a model begins to be left out, and when it answers again."""
        now_s = asyncio.get_running_loop().time()
        self._left_out &= self.health.breakers.keys()
        for name, breaker in self.health.breakers.items():
            candidate = self.view.circuits.get(name)
            if candidate is None:
                continue
            state, provider = breaker.state(now_s), candidate.provider.name
            self.metrics.circuit.labels(*label_of(candidate)).set(state)
            if state is Circuit.OPEN and name not in self._left_out:
                self._left_out.add(name)
                why = breaker.left_out_for
                log.warning("a model is left out because its provider fails", model=name, provider=provider, why=why)
            elif state is Circuit.CLOSED and name in self._left_out:
                self._left_out.remove(name)
                log.warning("a model answers again", model=name, provider=provider)

    def fold_metrics(self) -> None:
        """Bring what calls have counted into the metrics."""
        self.tally.fold(len(self.calls))

    async def shown_metrics(self) -> bytes:
        """The metrics as text, with all that was counted until now by any worker of this gateway."""
        self.show_circuits()
        if several_workers():
            await asyncio.sleep(1.2 * FOLD_EVERY_S)  # by then each of them has folded
        self.fold_metrics()
        return await asyncio.to_thread(exposition, self.metrics.registry)

    async def keep_metrics(self) -> None:
        """For the other workers of this gateway, which show this one's metrics too; runs until cancelled."""
        while True:
            await asyncio.sleep(FOLD_EVERY_S)
            self.fold_metrics()

    def count(self, record: CallRecord, attempts: list[AttemptRecord]) -> None:
        """Metrics and warnings of a finished call."""
        cost_nano = 0
        for attempt in attempts:
            cost_nano += attempt.charged_nano or 0
            self.tally.attempts[(*label_of(attempt.candidate), attempt.outcome)] += 1
        decision = record.decision
        route = decision.route if decision is not None and decision.route is not None else NO_ROUTE
        last = attempts[-1] if attempts else None
        model, provider = label_of(last.candidate) if last is not None else ("-", "-")
        if decision is None:
            kind = Kind(route, model, provider, record.outcome)
        else:
            router, chosen, split = decision.assigned or NO_ROUTER, decision.order[0], decision.share is not None
            kind = Kind(
                route, model, provider, record.outcome,
                router, decision.task_type, label_of(chosen)[0], decision.deferred, split,
            )  # fmt: skip
            if decision.rules is not None and decision.rules.explore is not None:
                self._count_exploring(decision, route, cost_nano, attempts)
        sums = self.tally.of(kind)
        sums.calls += 1
        sums.cost_nano += cost_nano
        sums.durations.append(record.duration_s)
        if last is None:
            return
        sums.input_tokens += last.usage.get("input_tokens", 0)
        sums.output_tokens += last.usage.get("output_tokens", 0)
        if last.ttft_s is not None:
            sums.ttfts.append(last.ttft_s)
        if last.cut is not None:
            self.metrics.cuts.labels(last.cut["scope"]).inc()
            log.info("a call was cut at its cap", request_id=record.request_id, model=model, **last.cut)
        self.warn_if_slow(record, last, record.duration_s)

    def _count_exploring(
        self, decision: Decision, route: str, cost_nano: int, attempts: Sequence[AttemptRecord]
    ) -> None:
        """What the caps have left, for whoever explores next; what exploring cost, in the place of what it might."""
        for attempt in attempts:
            if attempt.purse is not None and (settled := attempt.purse.settled) is not None:
                self.explorer.note_left(settled.scope, settled.remaining_nano)
        if decision.instead_of is None:
            return
        expected = next(seen.expected_nano or 0 for seen in decision.usable if seen.candidate is decision.chosen)
        self.explore_budget.spend(route, cost_nano - expected)
        self.metrics.explored.labels(route, label_of(decision.chosen)[0]).inc()
        self.metrics.explored_cost.labels(route).inc(usd_float(cost_nano))

    def warn_if_slow(self, record: CallRecord, attempt: AttemptRecord, elapsed_s: float) -> None:
        """Log and count, once each, that a call under way or ended has passed a time that its model is expected to
        keep. It only warns."""
        budget, ttft_s = attempt.candidate.budget, attempt.ttft_s
        solution_s = budget.expected_ttf_solution_s
        if elapsed_s <= budget.expected_ttft_s and (solution_s is None or elapsed_s <= solution_s):
            return  # nearly all
        first_s = elapsed_s if ttft_s is None else ttft_s
        times = (("ttft", first_s, budget.expected_ttft_s), ("ttf_solution", elapsed_s, solution_s))
        for kind, took_s, expected_s in times:
            if expected_s is None or took_s <= expected_s or kind in record.slow:
                continue
            record.slow += (kind,)
            self.metrics.slow.labels(*label_of(attempt.candidate), kind).inc()
            log.warning(
                "a call is slower than expected",
                kind=kind,
                expected_s=expected_s,
                request_id=record.request_id,
                model=attempt.candidate.name,
            )
