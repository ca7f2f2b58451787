"""The efficiency block: the figures of shared PARTS.md, and what holds for any runs."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.efficiency import Efficiency, efficiency_of, group_of, grouped, p90, success_rate
from app.core.runs import NOT_MEASURED, Run

FIELDS = [
    "median_time_to_first_attempt_ms",
    "median_time_to_success_ms",
    "median_turns_to_success",
    "median_tokens_per_sec",
    "p90_cost_per_success",
    "speed_efficiency_score",
    "cost_killed_count",
]
RUN = Run(
    key="ci",
    task_id="t",
    began_s=1_795_176_000.0,
    duration_ms=6000.0,
    model="small",
    harness="codex",
    task_type="code",
    outcome="completed",
    passed=True,
    judged=True,
    calls=3,
    turns=3,
    first_token_ms=100.0,
    first_attempt_ms=900.0,
    success_ms=NOT_MEASURED,
    tokens_per_sec=50.0,
    cost_usd=0.01,
    killed_usd=None,
)


def test_the_block_has_exactly_these_fields_always() -> None:
    assert list(msgspec.to_builtins(efficiency_of([]))) == FIELDS
    assert efficiency_of([]) == Efficiency()
    failed = replace(RUN, passed=False, killed_usd=1.0)
    assert efficiency_of([failed]) == Efficiency(cost_killed_count=1)


def test_three_of_three_at_six_seconds() -> None:
    """Shared PARTS.md: 0.90909."""
    block = efficiency_of([RUN, RUN, RUN])
    assert block.speed_efficiency_score == pytest.approx(0.90909, abs=5e-6)
    assert block.median_time_to_success_ms == 6000.0


def test_medians_are_of_passed_runs_only() -> None:
    slow = replace(RUN, passed=False, duration_ms=600_000.0, turns=90, tokens_per_sec=1.0, cost_usd=9.0)
    noise = replace(slow, passed=None)
    block = efficiency_of([RUN, replace(RUN, duration_ms=8000.0, turns=6), slow, noise])
    assert block.median_time_to_success_ms == 7000.0
    assert block.median_turns_to_success == 4.5
    assert block.p90_cost_per_success == 0.01
    assert block.speed_efficiency_score == pytest.approx((2 / 3) / (1 + 7 / 60))


def test_success_time_falls_back_to_duration() -> None:
    assert efficiency_of([replace(RUN, success_ms=2500.0)]).median_time_to_success_ms == 2500.0
    for old in (0.0, NOT_MEASURED):
        assert efficiency_of([replace(RUN, success_ms=old)]).median_time_to_success_ms == 6000.0


def test_what_was_never_measured_does_not_drag_a_median_down() -> None:
    old = replace(RUN, first_attempt_ms=0.0, tokens_per_sec=0.0)
    block = efficiency_of([old, old, RUN])
    assert (block.median_time_to_first_attempt_ms, block.median_tokens_per_sec) == (900.0, 50.0)
    assert efficiency_of([old]).median_time_to_first_attempt_ms == 0.0


@pytest.mark.parametrize(("n", "index"), [(1, 0), (2, 1), (9, 8), (10, 9), (11, 9), (20, 18), (100, 90)])
def test_p90_is_the_value_at_its_index(n: int, index: int) -> None:
    assert p90([float(value) for value in reversed(range(n))]) == float(index)


def test_kills_are_counted_over_all_runs_passed_or_not() -> None:
    kills = [replace(RUN, killed_usd=0.5, passed=passed) for passed in (True, False, None)]
    assert efficiency_of([*kills, RUN]).cost_killed_count == 3


def test_unknown_cost_is_left_out() -> None:
    group = group_of([replace(RUN, cost_usd=None), replace(RUN, cost_usd=0.5)], {})
    assert (group.efficiency.p90_cost_per_success, group.cost_usd, group.cost_per_success_usd) == (0.5, 0.5, 0.25)
    assert group_of([replace(RUN, passed=False)], {}).cost_per_success_usd is None


def test_groups_by_one_name_and_by_several() -> None:
    runs = [RUN, replace(RUN, model="large"), replace(RUN, harness="pi", passed=None)]
    by_model = grouped(runs, ["model"])
    assert [(g.of, g.runs, g.counted, g.passed) for g in by_model] == [
        ({"model": "small"}, 2, 1, 1),
        ({"model": "large"}, 1, 1, 1),
    ]
    both = grouped(runs, ["day", "harness"])
    assert [g.as_json()["harness"] for g in both] == ["codex", "pi"]
    assert both[0].as_json()["day"] == "2026-11-20"
    assert list(both[0].as_json()["efficiency"]) == FIELDS


runs_of_any_kind = st.lists(
    st.builds(
        replace,
        st.just(RUN),
        passed=st.sampled_from([True, False, None]),
        duration_ms=st.floats(0, 1e7),
        success_ms=st.sampled_from([NOT_MEASURED, 0.0, 1.0, 5e5]),
        first_attempt_ms=st.floats(0, 1e6),
        turns=st.integers(0, 500),
        tokens_per_sec=st.floats(0, 1e4),
        cost_usd=st.none() | st.floats(0, 100),
        killed_usd=st.none() | st.floats(0, 100),
        model=st.sampled_from("ab"),
    ),
    max_size=40,
)


@given(runs_of_any_kind)
def test_what_holds_for_any_runs(runs: list[Run]) -> None:
    block, passed = efficiency_of(runs), [run for run in runs if run.passed]
    assert 0.0 <= block.speed_efficiency_score <= success_rate(runs) <= 1.0
    assert block.cost_killed_count <= len(runs)
    costs = [run.cost_usd for run in passed if run.cost_usd is not None]
    assert block.p90_cost_per_success in (costs or [0.0])
    assert sum(cost <= block.p90_cost_per_success for cost in costs) >= 0.9 * len(costs)
    times = [run.time_to_success_ms for run in passed]
    assert min(times, default=0.0) <= block.median_time_to_success_ms <= max(times, default=0.0)
    assert efficiency_of(runs[::-1]) == block
    groups = grouped(runs, ["model"])
    assert sum(group.runs for group in groups) == len(runs)
    assert sum(group.efficiency.cost_killed_count for group in groups) == block.cost_killed_count


@given(runs_of_any_kind)
def test_runs_that_count_neither_way_change_only_the_kills(runs: list[Run]) -> None:
    noise = replace(RUN, passed=None, killed_usd=None, duration_ms=1e9)
    assert efficiency_of([*runs, noise]) == efficiency_of(runs)
