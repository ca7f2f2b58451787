"""Why: any call and any task, found and explained; names that look like HTML stay text."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.browser import seed
from tests.browser.conftest import Screen, Seeded


def test_a_call_is_found_and_explained(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("why")
    page = screen.page
    page.get_by_label("Request or task").fill("fix-cut")
    page.keyboard.press("Enter")
    screen.until(lambda: screen.sheet("Calls").locator("tbody tr").count() == 6)
    screen.check()
    row = screen.sheet("Calls").locator("tbody tr").first
    assert "cut at its cap" in row.inner_text()
    row.locator("a").first.click()
    screen.until(lambda: "Why this call" in screen.text())
    shown = screen.text()
    assert "Cut by the task's cap at $0.48: the meter saw the running cost reach it." in shown
    route = screen.sheet("Route").inner_text()
    assert all(name in route for name in seed.MODELS)
    assert "Cheapest with P(success) at or above adequacy." in route
    assert "adequate from 80%" in route
    assert "task fix-cut" in screen.sheet("Caps that bound it").inner_text()
    attempts = screen.sheet("The money, attempt by attempt").inner_text()
    assert "$2.00" not in attempts
    assert "generating" in screen.sheet("Timeline").inner_text()
    screen.check()


def test_scores_with_intervals_prices_and_the_money_at_each_moment(
    screens: Callable[..., Screen], kept: Seeded
) -> None:
    record = next(
        r for r in kept.past.records if r["decision"]["router"] == "learned@3" and r["outcome"] == "completed"
    )
    screen = screens(kept.gateway, key="boss")
    screen.go(f"why/{record['request_id']}")
    rows = screen.sheet("Route").locator("tbody tr").all_inner_texts()
    for row, seen in zip(rows, record["decision"]["candidates"], strict=True):
        price, tier = seen["price_usd_per_1k"], seen["tier"]
        assert f"{seen['provider']}, tier {tier}" in row
        low, high = re.search(rf"{seen['p_success']:.1%} \((\d+)% to (\d+)%\)", row).groups()  # type: ignore[union-attr]
        assert int(low) <= round(100 * seen["p_success"]) <= int(high)
        assert f"${price['input']:.5f} / ${price['output']:.5f}" in row
    (attempt,) = record["attempts"]
    (told,) = screen.sheet("The money, attempt by attempt").locator("tbody tr").all_inner_texts()
    *_, held, left, charged, back, after, limit = (cell.strip() for cell in told.split("\t"))
    budget = attempt["budget"]
    moments = [budget["held_usd"], budget["remaining_usd"], attempt["cost_usd"], budget["refunded_usd"]]
    moments.append(budget["remaining_after_usd"])
    for written, dollars in zip((held, left, charged, back, after), moments, strict=True):
        assert float(written.removeprefix("$")) == pytest.approx(dollars, rel=0.06)
    assert limit == "none"
    times = screen.sheet("Timeline").locator("li").all_inner_texts()
    assert [time.split("\n")[0] for time in times] == ["our own work", "waiting for the first token", "generating"]
    assert "first token" in screen.text()


def test_the_filter_of_endings(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("why")
    screen.page.get_by_label("How it ended").select_option("denied")
    screen.until(lambda: screen.sheet("Calls").locator("tbody tr").count() == 1)
    assert "fix-denied" in screen.sheet("Calls").inner_text()
    screen.sheet("Calls").locator("a").first.click()
    screen.until(lambda: "Denied by the task's cap, before a provider was asked." in screen.text())
    assert "qwen3-8b was passed over: task's cap of $2.00" in screen.text()
    screen.check()


def test_a_task_on_its_way_to_its_cap(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("why/task/alice/fix-cut")
    shown = screen.text()
    assert "Spent $2.00" in shown
    assert "Calls 6" in shown
    assert "cut at $2.00" in shown
    assert screen.sheet("The way to the cap").locator("canvas").get_attribute("aria-label") == (
        "Money spent by the task, call by call. $2.00 after 6 calls, of $2.00."
    )
    assert screen.sheet("Calls, in their order").locator("tbody tr").count() == 6
    screen.check()


def test_an_old_call_is_explained_too(screens: Callable[..., Screen], kept: Seeded) -> None:
    record = kept.past.records[0]
    screen = screens(kept.gateway, key="boss")
    screen.go(f"why/{record['request_id']}")
    assert record["request_id"] in screen.text()
    assert record["task_id"] in screen.text()
    screen.check()


def test_hostile_names_stay_text(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("why")
    row = screen.sheet("Calls").locator("tbody tr", has_text="job-").filter(has_text="provider error")
    assert seed.HOSTILE_TASK in row.first.inner_text()
    assert seed.HOSTILE in row.first.inner_text()
    row.first.locator("a").first.click()
    screen.until(lambda: "Why this call" in screen.text())
    assert seed.HOSTILE in screen.text()
    screen.check()
    screen.go(f"why/task/alice/{quote(seed.HOSTILE_TASK, safe='')}")
    assert seed.HOSTILE_TASK in screen.text()
    screen.check()
    screen.go(f"why/{quote(seed.HOSTILE, safe='')}")
    screen.until(lambda: "No such request is on record." in screen.text())
    screen.faults.clear()  # a browser calls 404 an error
    assert screen.page.evaluate("window.pwned") is None
