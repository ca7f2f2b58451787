"""Now: what runs with its cost against its cap, live; what was spent, cut and denied; how providers are."""

from __future__ import annotations

import re
import secrets
import statistics
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from app.http.dashboard.now import host_and_port
from tests.browser import seed
from tests.browser.conftest import Screen, Seeded
from tests.http.live import SAY, LiveGateway, contract
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

DAY_S = 86_400.0


def test_what_was_spent_cut_and_denied(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    day = [record for record in kept.past.records if record["created_s"] >= kept.now_s - DAY_S + 60]
    spent = sum(record["cost_usd"] for record in day)
    shown = screen.text("main")
    told = screen.sheet("Spending").inner_text()
    amount, calls = told.split("$")[1].split(" calls")[0].split(" for ")
    assert abs(float(amount) - spent) < 0.02 * spent
    assert abs(int(calls.replace(",", "")) - len(day)) <= 6  # those that leave the window meanwhile
    cut = sum(1 for record in day if record["outcome"] == "cost_killed")
    assert f"Cut at a cap {cut} in 24 hours" in shown
    assert "Denied 1 in 24 hours" in shown
    own = [record["timings"]["overhead_ms"] for record in day]
    told_ms = re.search(r"Own overhead (\d\.\d\d) ms median, p99 (\d\.\d\d) ms", shown)
    assert told_ms is not None
    assert abs(float(told_ms[1]) - statistics.median(own)) < 0.05
    assert float(told_ms[2]) > statistics.median(own)
    assert "Spent today $" in shown
    assert "of $40.00" in shown
    assert "fix-cut" in screen.sheet("Cut and denied").inner_text()
    assert "cut at its cap" in screen.sheet("How calls ended").inner_text()
    providers = screen.sheet("Providers").inner_text()
    assert all(name in providers for name in seed.MODELS)
    assert "healthy" in providers
    screen.check()


def test_figures_behind_the_chart(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    spending = screen.sheet("Spending")
    spending.get_by_role("button", name="Model").click()
    spending.locator("summary").click()
    rows = spending.locator("tbody tr")
    assert rows.count() >= len(seed.MODELS)
    day = [r for r in kept.past.records if r["created_s"] >= kept.now_s - DAY_S + 60 and r["model"] == "gpt-5.2"]
    (row,) = [text for text in rows.all_inner_texts() if text.startswith("gpt-5.2")]
    assert abs(float(row.split("$")[1]) - sum(r["cost_usd"] for r in day)) < 0.1
    spending.get_by_role("button", name="Task").click()
    spending.locator("summary").click()
    tasks = rows.all_inner_texts()
    assert tasks[0].startswith("fix-cut")
    assert tasks[-1].startswith("all others"), "the rest is one"
    assert (
        abs(
            sum(float(task.split("$")[1]) for task in tasks)
            - sum(r["cost_usd"] for r in kept.past.records if r["created_s"] >= kept.now_s - DAY_S + 60)
        )
        < 0.2
    )
    screen.check(axe_too=False)


def test_a_call_under_way_appears_grows_and_goes(screens: Callable[..., Screen], kept: Seeded) -> None:
    """Server-sent events, seen: nothing is loaded again."""
    gate = Gate()
    kept.upstream.source = Script.of(words("word " * 400), gate=gate)
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    calls = screen.sheet("Calls under way")
    screen.until(lambda: "No call is under way" in calls.inner_text())
    headers = {"authorization": "Bearer alice", "x-bursar-max-cost-usd": "0.006"}
    body = {"model": "claude-sonnet-4-5", "messages": SAY, "stream": True, "max_tokens": 390}
    gate.release(10)
    task = f"{seed.HOSTILE_TASK} of now"
    stream = kept.gateway.stream("POST", f"/t/{quote(task, safe='')}/v1/chat/completions", body, headers)
    screen.until(lambda: task in calls.inner_text())
    assert "alice" in calls.inner_text()
    cost = calls.locator("tbody td").nth(4)
    before = cost.inner_text()
    calls.locator("tbody a").focus()
    gate.release(200)
    screen.until(lambda: cost.inner_text() > before)
    assert "$0.006" in calls.inner_text()
    assert calls.locator("tbody a").evaluate("(link) => link === document.activeElement"), "an update took the focus"
    used = calls.locator(".meter").get_attribute("aria-label")
    assert used is not None
    assert "of $0.006" in used
    gate.open()
    stream.rest()
    screen.until(lambda: "No call is under way" in calls.inner_text())
    screen.check()


def test_nobody_watching_costs_nothing(screens: Callable[..., Screen], kept: Seeded) -> None:
    gateway = kept.gateway
    screen = screens(gateway, key="boss")
    screen.go("now")
    screen.until(lambda: screen.text("#state-text") == "live")
    screen.page.close()
    assert gateway.gateway.dashboard is not None
    live = gateway.gateway.dashboard.live
    gateway.until(lambda: live.viewers == 0)


def test_calls_of_another_gateway_are_seen(screens: Callable[..., Screen], tmp_path: Path) -> None:
    shared = {"redis_url": shared_server().url, "redis_namespace": f"t{secrets.token_hex(6)}"}
    gate = Gate()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with (
        ScriptedUpstream(Script.of(words("word " * 50), gate=gate)) as upstream,
        LiveGateway(contract(upstream), folders[0], port=8001, **shared) as here,
        LiveGateway(contract(upstream), folders[1], port=8002, **shared) as there,
    ):
        screen = screens(here)
        screen.go("now")
        screen.until(lambda: "in 2 gateways" in screen.text("main"))
        gate.release(10)
        task = {"x-bursar-task-id": "elsewhere"}
        stream = there.stream("POST", "/v1/chat/completions", {"model": "small", "messages": SAY, "stream": True}, task)
        calls, gateways = screen.sheet("Calls under way"), screen.sheet("Gateways")
        screen.until(lambda: f"at {host_and_port(8002)}" in calls.inner_text())
        assert "elsewhere" in calls.inner_text()
        rows = {row.split()[0]: row.split()[1:] for row in gateways.locator("tbody tr").all_inner_texts()}
        assert rows == {host_and_port(8001): ["serving", "1", "0"], host_and_port(8002): ["serving", "1", "1"]}
        assert there.gateway.services is not None
        there.gateway.services.calls.leaving = True
        screen.until(lambda: "draining" in gateways.inner_text())
        screen.check()
        gate.open()
        stream.rest()


def test_a_model_that_is_left_out_comes_first_and_says_why(screens: Callable[..., Screen], tmp_path: Path) -> None:
    with ScriptedUpstream(Script.failure(401, "no", code="invalid_api_key")) as upstream:
        names = [f"m{n:02d}" for n in range(20)]
        models = "\n".join(f"  {name}: {{provider: p, pricing: free}}" for name in names)
        policy = f'version: 1\nproviders: {{p: {{base_url: "{upstream.url}"}}}}\nmodels:\n{models}\n'
        with LiveGateway(policy, tmp_path) as gateway:
            for _ in range(3):
                assert gateway.chat(model="m17").status == 502
            screen = screens(gateway)
            screen.go("now")
            providers = screen.sheet("Providers")
            screen.until(lambda: "left out" in providers.inner_text() or "trying again" in providers.inner_text())
            rows = providers.locator("tbody tr")
            assert rows.first.inner_text().startswith("m17")
            assert "(status 401, invalid_api_key)" in rows.first.inner_text()
            assert rows.count() == 12
            providers.get_by_role("button", name="Show all 20").click()
            screen.until(lambda: rows.count() == 20)
            screen.check()
