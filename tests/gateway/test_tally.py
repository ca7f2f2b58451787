"""What calls add up and fold is what each of them would have counted by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from app.core.types import Outcome
from app.gateway.metrics import Metrics
from app.gateway.tally import Kind, Tally, observe_all

KINDS = (
    Kind("auto", "small", "a", Outcome.COMPLETED, "learned", "code", "small"),
    Kind("auto", "large", "b", Outcome.API_ERROR, "learned", "code", "small", deferred=True, split=True),
    Kind("-", "-", "-", Outcome.BAD_REQUEST),
)
SECONDS = st.floats(0, 1000, allow_nan=False)
CALLS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 10**12), SECONDS, st.none() | SECONDS), max_size=30)


def series(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return series(metrics).get((name, tuple(sorted(labels.items()))), 0.0)


@given(CALLS, st.integers(0, 30))
def test_folding_twice_is_folding_once_and_loses_nothing(
    calls: list[tuple[Kind, int, float, float | None]], at: int
) -> None:
    metrics = Metrics()
    tally = Tally(metrics)
    for number, (kind, cost_nano, duration_s, ttft_s) in enumerate(calls):
        if number == at:
            tally.fold(number)
        sums = tally.of(kind)
        sums.calls += 1
        sums.cost_nano += cost_nano
        sums.output_tokens += 7
        sums.durations.append(duration_s)
        if ttft_s is not None:
            sums.ttfts.append(ttft_s)
        tally.overheads.append(duration_s)
        tally.attempts[(kind.model, kind.provider, kind.outcome)] += 1
    tally.fold(3)
    once = series(metrics)
    tally.fold(3)
    assert series(metrics) == once
    assert value(metrics, "bursar_requests_in_flight") == 3
    assert value(metrics, "bursar_overhead_seconds_count") == len(calls)
    for kind in KINDS:
        mine = [call for call in calls if call[0] is kind]
        route, where = {"route": kind.route}, {"model": kind.model, "provider": kind.provider}
        counted = value(metrics, "bursar_requests_total", **route, **where, outcome=kind.outcome)
        assert counted == len(mine)
        spent = value(metrics, "bursar_cost_usd_total", **route, **where)
        assert abs(spent - sum(call[1] for call in mine) / 10**9) < 1e-6
        assert value(metrics, "bursar_tokens_total", **where, kind="output") == 7 * len(mine)
        assert value(metrics, "bursar_request_duration_seconds_count", **where) == len(mine)
        firsts = [call for call in mine if call[3] is not None]
        assert value(metrics, "bursar_time_to_first_token_seconds_count", **where) == len(firsts)
        assert value(metrics, "bursar_upstream_attempts_total", **where, result=kind.outcome) == len(mine)
    deferred = [call for call in calls if call[0].deferred]
    assert value(metrics, "bursar_router_deferrals_total", route="auto", router="learned") == len(deferred)
    decided = value(metrics, "bursar_decisions_total", route="auto", router="learned", task_type="code", model="small")
    assert decided == len([call for call in calls if call[0].router is not None])


@given(st.lists(st.floats(0, 100, allow_nan=False) | st.sampled_from((0.05, 0.5, 5.0, float("inf")))))
def test_observing_many_is_observing_each(values: list[float]) -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    buckets = (0.05, 0.5, 5.0)
    together = Histogram("h", "h", buckets=buckets, registry=one)
    each = Histogram("h", "h", buckets=buckets, registry=other)
    observe_all(together, values)
    for observed in values:
        each.observe(observed)
    found, wanted = ([s for f in registry.collect() for s in f.samples] for registry in (one, other))
    assert [(s.name, s.labels) for s in found] == [(s.name, s.labels) for s in wanted]
    assert all(abs(a.value - b.value) < 1e-6 or a.value == b.value for a, b in zip(found, wanted, strict=True))


def test_what_has_not_happened_yet_is_0() -> None:
    metrics = Metrics()
    tally = Tally(metrics)
    tally.of(KINDS[0]).calls += 1
    tally.fold(0)
    shown = {
        labels for name, labels in series(metrics) if name == "bursar_requests_total" and ("model", "small") in labels
    }
    assert len(shown) == len(Outcome)


def test_a_failure_while_folding_counts_nothing_again() -> None:
    metrics = Metrics()
    tally = Tally(metrics)
    tally.of(KINDS[0]).calls += 1
    tally.of(KINDS[1]).cost_nano = -1  # no counter takes it
    with pytest.raises(ValueError, match="non-negative"):
        tally.fold(0)
    tally.fold(0)
    labels = {"route": "auto", "model": "small", "provider": "a", "outcome": Outcome.COMPLETED}
    assert value(metrics, "bursar_requests_total", **labels) == 1
