"""Budgets: windows and tasks as the ledger has them, how they burn down, and when they run out."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.conftest import Screen, Seeded


def test_windows_tasks_and_forecasts(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("budgets")
    windows = screen.sheet("Everybody, teams and keys")
    windows.get_by_role("button", name="Show all").click()
    rows = windows.locator("tbody tr").all_inner_texts()
    assert rows[0].startswith("Everybody")
    alice = [row for row in rows if row.startswith("alice") and "this month" in row]
    spent = float(alice[0].split("$")[1].split()[0].replace(",", ""))
    month = [r for r in kept.past.records if r["key"] == "alice"]
    assert 0 < spent <= sum(r["cost_usd"] for r in month) + 0.01
    assert "$150.00" in alice[0]
    web = [row for row in rows if row.startswith("Team web") and "this month" in row]
    assert "$250.00" in web[0]
    assert float(web[0].split("$")[1].split()[0].replace(",", "")) >= spent
    assert "a day" in windows.inner_text()
    assert "pace: the last 24 hours" in windows.inner_text()
    tasks = screen.sheet("Tasks")
    tasks.get_by_role("button", name="Show all").click()
    cut = tasks.locator("tbody tr", has_text="fix-cut").inner_text()
    assert "cut" in cut
    assert "$2.00" in cut
    screen.check()


def test_the_burn_down_of_a_team(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("budgets")
    burn = screen.sheet("Burn-down")
    screen.page.get_by_role("button", name="burn-down of Team web, this month").click()
    screen.until(lambda: "Team web, this month" in burn.inner_text())
    assert "of $250.00 left" in burn.inner_text()
    burn.locator("summary").click()
    left = [float(row.rsplit("$", 1)[1]) for row in burn.locator("tbody tr").all_inner_texts()]
    assert left[0] == 250
    assert len(left) > 2
    assert left == sorted(left, reverse=True)
    screen.check()


def test_the_burn_down_of_a_window(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("budgets")
    burn = screen.sheet("Burn-down")
    screen.until(lambda: "Everybody, today" in burn.inner_text())
    screen.page.get_by_role("button", name="burn-down of alice, this month").click()
    screen.until(lambda: "alice, this month" in burn.inner_text())
    assert "of $150.00 left" in burn.inner_text()
    burn.locator("summary").click()
    assert burn.locator("tbody tr").first.inner_text().endswith("$150.00")
    screen.check()
