"""Speed: radar, frontier, trend with a menu, regressions, error codes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser import seed
from tests.browser.conftest import DESK, PHONE, Screen, Seeded, seeded
from tests.browser.test_format import module
from tests.upstream import ScriptedUpstream


def test_radar_frontier_trend_and_codes(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("speed")
    radar = screen.sheet("Speed Radar")
    radar.locator("summary").click()
    rows = radar.locator("tbody tr").all_inner_texts()
    assert {row.split()[0] for row in rows} == set(seed.MODELS)
    assert rows[-1].startswith("llama-3.3-70b")
    assert "Beyond the edge at" in radar.inner_text()
    assert "llama-3.3-70b," in radar.inner_text().split("Beyond the edge at")[1]
    assert f"{seed.HOSTILE} (1)" in radar.inner_text()
    frontier = screen.sheet("Cost-Speed Frontier")
    frontier.locator("summary").click()
    told = frontier.locator("tbody tr").all_inner_texts()
    assert any("nobody: on the frontier" in row for row in told)
    beaten = [row for row in told if "nobody: on the frontier" not in row]
    assert beaten
    assert all(" in " in row.split("\t")[-1] for row in beaten), "a dominated point names its dominator"
    codes = screen.sheet("Top error codes").inner_text()
    outcomes = [record["outcome"] for record in kept.past.records]
    for code in ("cost_killed", "timeout", "api_error", "rate_limit"):
        assert code in codes
        assert str(outcomes.count(code)) in codes.split(code)[1].split("\n")[1]
    screen.check()


def test_the_radar_clips_and_tells_the_real_value(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("speed")
    radar = screen.sheet("Speed Radar")
    radar.locator("summary").click()
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in radar.locator("tbody tr").all_inner_texts()}
    real, shown = (rows["llama-3.3-70b"][at].strip() for at in (0, 1))
    assert real != shown
    assert f"Beyond the edge at {shown}: llama-3.3-70b, {real}." in radar.inner_text()
    radar.locator("summary").click()
    (points,) = screen.points("Speed Radar")
    (outlier,) = [point for point in points if point["name"].startswith("llama-3.3-70b")]
    told = screen.told("Speed Radar", outlier)
    assert told.startswith("llama-3.3-70b ")
    assert f" {real} in " in told
    assert "clipped" in told
    (other,) = [point for point in points if point["name"].startswith("gpt-5.2")]
    assert "clipped" not in screen.told("Speed Radar", other)
    assert outlier["fill"] != other["fill"]


@pytest.fixture
def untouched(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[Seeded]:
    """A past of its own: a single quick and cheap call of another test beats all that is in it."""
    yield from seeded(tmp_path_factory.mktemp("untouched"), upstream, keys=True)


def test_the_frontier_is_drawn_as_it_is_told(screens: Callable[..., Screen], untouched: Seeded) -> None:
    """Both axes logarithmic, size success, colour the program, stairs through those that nobody beats."""
    screen = screens(untouched.gateway, key="boss")
    screen.go("speed")
    *programs, stairs = screen.points("Cost-Speed Frontier")
    axes = (
        screen.sheet("Cost-Speed Frontier")
        .locator("canvas")
        .evaluate("(canvas) => Object.values(Chart.getChart(canvas).scales).map((scale) => [scale.id, scale.type])")
    )
    assert dict(axes) == {"x": "logarithmic", "y": "logarithmic"}
    assert {points[0]["label"] for points in programs} == set(seed.HARNESSES)
    assert len({points[0]["fill"] for points in programs}) == len(programs)
    assert all(len({one["fill"] for one in points}) == 1 for points in programs)
    drawn = sorted((one for points in programs for one in points), key=lambda one: one["point"]["success_rate"])
    sizes = [one["r"] for one in drawn]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    best = sorted((one for one in drawn if one["point"]["dominated_by"] is None), key=lambda one: one["x"])
    assert len(best) >= 2
    corners = [(round(one["x"]), round(one["y"])) for one in stairs]
    assert set(corners) >= {(round(one["x"]), round(one["y"])) for one in best}
    steps = list(itertools.pairwise(corners))
    assert all(one[0] == other[0] or one[1] == other[1] for one, other in steps), "stairs go along or down"
    assert all(other[0] >= one[0] and other[1] >= one[1] for one, other in steps), "to the right, and down the screen"
    alone = next(one for one in drawn if one["point"]["dominated_by"] and all(apart(one, other) for other in drawn))
    told = screen.told("Cost-Speed Frontier", alone)
    assert told.startswith(f"{alone['point']['model']} in {alone['point']['harness']}")
    assert f"beaten by {alone['point']['dominated_by']}" in told
    screen.check()


def apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """It is the same, or does not lie under the mouse that is on the one."""
    return one is other or abs(one["x"] - other["x"]) + abs(one["y"] - other["y"]) > other["r"] + 2


def test_a_regression_is_flagged(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("speed")
    alarm = screen.page.get_by_role("region", name="Speed regressions").inner_text()
    assert "gpt-4.1-mini is" in alarm
    assert "slower since" in alarm
    assert "slower" in screen.sheet("Efficiency").locator("tbody tr", has_text="gpt-4.1-mini").inner_text()


def test_the_trends_menu(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("speed")
    trend = screen.sheet("Trend by model")
    menu = screen.page.get_by_label("What the trend shows")
    assert menu.locator("option").all_inner_texts() == ["Time to success", "Success rate", "Cost of a success"]
    for wanted in ("Success rate", "Cost of a success"):
        menu.select_option(label=wanted)
        assert trend.locator("canvas").get_attribute("aria-label").startswith(f"{wanted} by model")
    trend.locator("summary").click()
    assert "$" in trend.locator("tbody tr").first.inner_text()
    screen.check()


def test_runs_are_those_of_the_past(screens: Callable[..., Screen], kept: Seeded) -> None:
    tasks = {(r["key"], r["task_id"] or r["request_id"]) for r in kept.past.records}
    screen = screens(kept.gateway, key="boss")
    screen.go("speed")
    shown = int(screen.sheet("Efficiency").inner_text().split(" runs")[0].split()[-1])
    assert abs(shown - len(tasks)) <= 3  # other tests' calls are runs too


@pytest.mark.parametrize("size", [DESK, PHONE])
@pytest.mark.parametrize("models", [5, 60])
def test_many_models_with_long_names_leave_room_for_the_radar(
    screens: Callable[..., Screen], kept: Seeded, size: dict[str, int], models: int
) -> None:
    """Labels of whole names left none; the figure was empty. Shortened, they were all the same."""
    screen = screens(kept.gateway, key="boss")
    screen.page.set_viewport_size(size)
    screen.go("speed")
    name = "provider/with-quite-a-long-name/of-a-model-instruct-turbo-quantised-2026-preview-"
    row = {"ms": 900, "shown_ms": 900, "passed": 10, "outlier": False}
    rows = [{**row, "model": f"{name}{n}", "runs": 12 + n} for n in range(models)]
    draw = """async ([url, figure]) => {
      const { radarFigure } = await import(url);
      const place = document.querySelector("section.sheet.half");
      place.replaceChildren(...radarFigure(figure).flat());
      while (!Chart.getChart(place.querySelector("canvas"))) await new Promise(requestAnimationFrame);
      const { scales, width, data } = Chart.getChart(place.querySelector("canvas"));
      return [(2 * scales.r.drawingArea) / width, data.labels];
    }"""
    figure = {"rows": rows, "clip_ms": 30_000, "least_runs": 10, "few": rows}
    share, labels = screen.page.evaluate(draw, [module(screen, "views/speed_radar"), figure])
    assert share > 0.5
    assert labels == [str(number + 1) for number in range(min(models, 16))]
    names = screen.page.locator("ol.spokes li").all_inner_texts()
    assert [re.split(r"\s+", told)[:2] for told in names] == [
        [str(at + 1), row["model"]] for at, row in enumerate(rows[-16:] if models > 16 else rows)
    ]
    shown = screen.page.locator("section.sheet.half").first.inner_text()
    assert ("and 52 more" in shown) == ("16 with the most runs of 60 models" in shown) == (models == 60)
