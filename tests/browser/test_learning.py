"""Learning: predictions against what came of them, splits, exploration, snapshots."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.conftest import Screen, Seeded


def test_calibration_and_splits(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("learning")
    judged = len(kept.past.words)
    calibration = screen.sheet("Calibration")
    assert f"{judged} of " in calibration.inner_text()
    calibration.locator("summary").click()
    rows = calibration.locator("tbody tr").all_inner_texts()
    assert {row.split()[0] for row in rows} == {"learned", "heuristic"}
    runs = [int(row.split()[-1]) for row in rows]
    assert sum(runs) == judged
    splits = screen.sheet("A/B splits").locator("tbody tr").all_inner_texts()
    assert [row.split()[0] for row in splits] == ["heuristic", "learned"]
    assert "auto, 80% of its tasks" in splits[1]
    screen.check()


def test_exploration_and_snapshots(screens: Callable[..., Screen], kept: Seeded) -> None:
    elsewhere = [record for record in kept.past.records if record["decision"]["instead_of"] is not None]
    screen = screens(kept.gateway, key="boss")
    screen.go("learning")
    exploration = screen.sheet("Exploration")
    assert f"in {len(elsewhere)} of " in exploration.inner_text()
    exploration.locator("summary").click()
    rows = exploration.locator("tbody tr").all_inner_texts()
    assert sum(int(row.split()[-2]) for row in rows) == len(elsewhere)
    assert all("instead of" in row for row in rows)
    snapshots = screen.sheet("Snapshots").locator("tbody tr").all_inner_texts()[-3:]
    assert [row.split()[0] for row in snapshots] == ["#3", "#2", "#1"]
    assert "in force" in snapshots[0]
    assert "refused" in snapshots[1]
    assert "no better on held-out outcomes" in snapshots[1]
    assert "0.4290" in snapshots[0]
    (alarm,) = screen.sheet("Drift alarms").locator("tbody tr").all_inner_texts()
    assert alarm.startswith("gpt-4.1-mini")
    assert "math, since" in alarm
    assert "81%" in alarm
    assert "54%" in alarm, "81 % less 27"
    assert "kept from it" in alarm
    screen.check()
