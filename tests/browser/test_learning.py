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
    assert "Nothing yet: no call of this time was chosen by chance" in screen.sheet("Exploration").inner_text()
    screen.check()
