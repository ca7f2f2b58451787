"""Radar, frontier, trend and regressions, by shared PARTS.md's rules."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.efficiency import grouped
from app.core.runs import NOT_MEASURED, Run
from app.http.dashboard.speed import frontier, radar, regressions, speed, trend

DAY_S = 86_400.0


def run(
    model: str = "m",
    seconds: float = 6.0,
    *,
    passed: bool | None = True,
    usd: float | None = 0.01,
    harness: str = "codex",
    at_s: float = 0.0,
) -> Run:
    return Run(
        key="k", task_id=None, began_s=at_s, duration_ms=seconds * 1000, model=model, harness=harness, task_type="code",
        outcome="completed", passed=passed, judged=True, calls=1, turns=1, first_token_ms=100.0, first_attempt_ms=200.0,
        success_ms=NOT_MEASURED, tokens_per_sec=50.0, cost_usd=usd, killed_usd=None,
    )  # fmt: skip


def test_the_radar_has_models_with_ten_runs_and_clips_the_longest() -> None:
    runs = [run("a", 4)] * 10 + [run("b", 6)] * 10 + [run("c", 8)] * 12 + [run("slow", 400)] * 10 + [run("new", 1)] * 9
    found = radar(grouped(runs, ["model"]))
    # The median of 4, 6, 8 and 400 s is 7 s; 5 x 7 s is more than 30 s.
    assert found["clip_ms"] == 35_000
    assert [(row["model"], row["ms"], row["shown_ms"], row["outlier"]) for row in found["rows"]] == [
        ("a", 4_000, 4_000, False), ("b", 6_000, 6_000, False), ("c", 8_000, 8_000, False),
        ("slow", 400_000, 35_000, True),
    ]  # fmt: skip
    assert found["few"] == [{"model": "new", "runs": 9, "passed": 9}]


def test_the_radar_clips_at_thirty_seconds_where_all_are_quick() -> None:
    runs = [run("a", 1)] * 10 + [run("b", 2)] * 10 + [run("c", 31)] * 10
    found = radar(grouped(runs, ["model"]))
    assert (found["clip_ms"], found["rows"][-1]["outlier"]) == (30_000, True)


def test_a_model_that_never_succeeded_has_no_time() -> None:
    found = radar(grouped([run("a", passed=False)] * 20, ["model"]))
    assert (found["rows"], found["few"]) == ([], [{"model": "a", "runs": 20, "passed": 0}])


def test_dominated_points_name_their_dominator() -> None:
    runs = [
        run("cheap", 60, usd=0.01),
        run("middle", 30, usd=0.05),
        run("worse", 40, usd=0.06),
        run("dear", 10, usd=0.50),
        run("worst", 90, usd=0.02, harness="pi"),
        run("free", 5, usd=0.0),
        run("failed", 5, passed=False),
    ]
    found = frontier(grouped(runs, ["model", "harness"]))
    told = {point["model"]: point["dominated_by"] for point in found["points"]}
    assert told == {
        "cheap": None, "middle": None, "dear": None,
        "worse": "middle in codex", "worst": "cheap in codex",
    }  # fmt: skip
    assert [(one["model"], one["why"]) for one in found["off"]] == [("failed", "no run has passed"), ("free", "free")]


points = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=30)


@given(points)
def test_the_frontier_is_a_strict_staircase_and_every_other_point_is_beaten(made: list[tuple[int, int]]) -> None:
    runs = [run(f"m{n}", s, usd=usd / 100) for n, (usd, s) in enumerate(made)]
    found = frontier(grouped(runs, ["model", "harness"]))["points"]
    best = [point for point in found if point["dominated_by"] is None]
    assert all(one["usd"] < other["usd"] and one["s"] > other["s"] for one, other in itertools.pairwise(best))
    named = {f"{point['model']} in {point['harness']}": point for point in best}
    for point in found:
        if point["dominated_by"] is not None:
            by = named[point["dominated_by"]]
            assert by["usd"] <= point["usd"]
            assert by["s"] <= point["s"]


def test_a_trend_tells_each_part_of_the_time() -> None:
    runs = [run("a", 5, at_s=10), run("a", 15, at_s=20, passed=False), run("a", 9, at_s=DAY_S + 1), run("b", 1, at_s=5)]
    found = trend(runs, 0.0, 14 * DAY_S)
    assert found["step_s"] == DAY_S
    first, second = found["models"][0]["points"]
    assert (first["at_s"], first["success_rate"], first["ms"], first["usd"]) == (0, 0.5, 5_000, 0.02)
    assert (second["at_s"], second["success_rate"], second["ms"]) == (DAY_S, 1.0, 9_000)


@pytest.mark.parametrize(
    ("before", "after", "flagged"),
    [
        ([10.0] * 5, [12.0] * 5, True),
        ([10.0] * 5, [11.9] * 5, False),
        ([10.0] * 5, [30.0] * 4, False),
        ([10.0] * 4, [30.0] * 9, False),
        ([10.0] * 9, [5.0] * 9, False),
    ],
)
def test_a_fifth_slower_is_a_regression(before: list[float], after: list[float], flagged: bool) -> None:
    runs = [run("a", s, at_s=10) for s in before] + [run("a", s, at_s=80) for s in after]
    found = regressions(runs, 0.0, 100.0)
    assert bool(found) is flagged
    if flagged:
        assert (found[0]["model"], found[0]["before_ms"], found[0]["now_ms"]) == ("a", 10_000, 12_000)
        assert found[0]["slower"] == pytest.approx(0.2)


def test_nothing_has_an_answer_too() -> None:
    found: dict[str, Any] = speed([], 0.0, 100.0)
    assert (found["runs"], found["radar"]["rows"], found["frontier"]["points"], found["regressions"]) == (0, [], [], [])
