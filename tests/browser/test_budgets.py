"""Budgets: windows and tasks as the ledger has them, how they burn down, and when they run out."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Screen, Seeded
from tests.browser.test_format import module
from tests.http.live import LiveGateway, sha256
from tests.upstream import ScriptedUpstream

RATED = """
version: 1
providers: {{p: {{base_url: "{url}"}}}}
models: {{small: {{provider: p, pricing: free}}}}
caps: {{global: {{minute: {{max_calls: 20}}}}, key: {{minute: {{max_calls: 3, max_tokens: 100000}}}}}}
keys:
  - {{name: alice, sha256: "{alice}"}}
  - {{name: boss, sha256: "{boss}", admin: true}}
"""


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


@pytest.mark.parametrize(
    ("verdict", "in_s", "written"),
    [
        ("runs_out", 7_300, r"runs out in 2\.0 h .*, at \$12\.00 a day"),
        ("spent", 0, r"nothing left refills Dec 1, .*"),
        ("lasts", 900_000, r"lasts at \$12\.00 a day, until it refills Dec 1, .*"),
        ("idle", None, "nothing is being spent"),
        ("unlimited", None, r"\$12\.00 a day, no limit"),
    ],
)
def test_a_forecast_in_words(
    screens: Callable[..., Screen], kept: Seeded, verdict: str, in_s: float | None, written: str
) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("policy")
    ask = """([url, verdict, in_s, refills_s]) => import(url).then(({ forecast }) => {
      const at_s = in_s === null ? null : Date.now() / 1000 + in_s;
      const told = [forecast({ forecast: { verdict, per_day_usd: 12, at_s }, refills_s })].flat();
      return told.filter(Boolean).map((part) => part.textContent).join(" ");
    })"""
    refills_s = dt.datetime(2025, 12, 1, 12, tzinfo=dt.UTC).timestamp()  # any day but today
    said = screen.page.evaluate(ask, [module(screen, "views/budgets"), verdict, in_s, refills_s])
    assert re.fullmatch(written, said), said


def test_a_burn_down_goes_on_to_where_it_runs_out(screens: Callable[..., Screen], kept: Seeded) -> None:
    """$10 of which $4 are left, at $24 a day: nothing is left in four hours."""
    screen = screens(kept.gateway, key="boss")
    screen.go("policy")
    draw = """async ([url]) => {
      const { burnChart } = await import(url);
      const now = 1_795_200_000;
      const row = { key: "a", team: null, window: "day", spent_usd: 6, limit_usd: 10, refills_s: now + 36_000,
                    forecast: { per_day_usd: 24, at_s: now + 4 * 3600 } };
      document.querySelector("main").replaceChildren(...burnChart(row, [[now - 3600, 5]], now - 7200, now));
      const canvas = document.querySelector("main canvas");
      while (!Chart.getChart(canvas)) await new Promise(requestAnimationFrame);
      return Chart.getChart(canvas).data.datasets.map((set) => set.data.map(({ x, y }) => [(x - now) / 3600, y]));
    }"""
    past, ahead = screen.page.evaluate(draw, [module(screen, "views/budgets")])
    assert past == [[-2, 10], [-1, 5], [0, 4]]
    assert ahead == [[0, 4], [4, 0], [10, 0]]
    assert "$4.00 of $10.00 left." in screen.text()


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


def test_how_full_this_minute_is(
    screens: Callable[..., Screen], upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gateway.owned.moment_at", "http.dashboard.budgets.moment_of"):  # else a minute might end meanwhile
        monkeypatch.setattr(f"app.{name}", lambda _: "2026-11-30T17:44")
    policy = RATED.format(url=upstream.url, alice=sha256("alice"), boss=sha256("boss"))
    with LiveGateway(policy, tmp_path) as gateway:
        statuses = [gateway.chat({"authorization": "Bearer alice"}).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        screen = screens(gateway, key="boss")
        screen.go("budgets")
        rates = screen.sheet("Rates, this minute")
        screen.until(lambda: rates.locator("tbody tr").count() == 3)
        rows = rates.locator("tbody tr")
        told = [row.split("\t") for row in rows.all_inner_texts()]
        assert [row[0] for row in told] == ["alice", "Everybody", "boss"], "the fullest first"
        assert [row[1].strip() for row in told] == ["3 of 3", "3 of 20", "0 of 3"]
        assert told[0][2].strip().endswith("of 100K")
        assert "no limit" in told[1][2]
        meters = rows.nth(0).locator(".meter")
        assert meters.first.get_attribute("aria-label") == "3 of 3 used, 100%"
        assert "over" in meters.first.get_attribute("class").split()
        assert "then from 0 again" in rates.inner_text()
        screen.check()


def test_no_rates_no_sheet_of_them(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("budgets")
    assert not screen.sheet("Rates, this minute").is_visible()
