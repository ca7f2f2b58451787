"""How much of each capped window is spent is shown before its cap is reached."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.core.budget import Balance
from app.core.windows import moment_of
from app.gateway import windows_used
from app.gateway.windows_used import WindowsUsed, capped_windows
from app.stores.budgets import LedgerUnavailable
from tests.http.live import LiveGateway, sha256
from tests.http.test_http_metrics import series
from tests.upstream import ScriptedUpstream

USD = 1_000_000_000
MOMENT = "2026-02-28T12:00"
ALICE = {"x-api-key": "sk-alice"}


def policy(upstream: ScriptedUpstream) -> str:
    return f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{small: {{provider: a, pricing: {{input_per_1k: 1, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
caps: {{global: {{day: {{max_cost_usd: 10}}}}, key: {{day: {{max_cost_usd: 5}}}}}}
teams: {{lab: {{caps: {{month: {{max_cost_usd: 4}}}}}}}}
keys:
  - {{name: alice, sha256: {sha256("sk-alice")}, team: lab, caps: {{total: {{max_cost_usd: 2}}}}}}
  - {{name: bob, sha256: {sha256("sk-bob")}}}
"""


def used(page: str, scope: str, name: str) -> float | None:
    return series(page).get(f'bursar_window_used_ratio{{name="{name}",scope="{scope}"}}')


@pytest.fixture
def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(policy(upstream), tmp_path) as live:
        yield live


def test_windows_without_a_cap_are_left_out(gateway: LiveGateway) -> None:
    windows = capped_windows(gateway.gateway.policies.current, MOMENT)
    assert {labels: (claim.scope, claim.limit_nano) for labels, claim in windows.items()} == {
        ("global_day", ""): ("global:day:2026-02-28", 10 * USD),
        ("team_month", "lab"): ("team:lab:month:2026-02", 4 * USD),
        ("key_total", "alice"): ("key:alice:total", 2 * USD),
        ("key_day", "bob"): ("key:bob:day:2026-02-28", 5 * USD),
    }


def test_what_is_spent_of_each_is_shown_until_the_policy_caps_it_no_more(gateway: LiveGateway) -> None:
    services = gateway.gateway.services
    assert services is not None
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    watching, moment = WindowsUsed(services), moment_of(dt.datetime.now(dt.UTC))
    watching.show(gateway.run(watching.read(moment)))
    page = gateway.metrics()
    assert used(page, "key_total", "alice") == pytest.approx(cost / 2)
    assert used(page, "team_month", "lab") == pytest.approx(cost / 4)
    assert used(page, "global_day", "") == pytest.approx(cost / 10)
    assert (used(page, "key_day", "bob"), used(page, "key_day", "alice")) == (0.0, None)
    watching.show({("global_day", ""): 0.5})
    page = gateway.metrics()
    assert used(page, "global_day", "") == 0.5
    assert math.isnan(used(page, "key_total", "alice") or 0.0)


def test_of_very_many_those_nearest_to_their_caps(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    services = gateway.gateway.services
    assert services is not None
    gateway.chat(ALICE)
    monkeypatch.setattr(windows_used, "MOST_SHOWN", 2)
    monkeypatch.setattr(windows_used, "ASKED_AT_ONCE", 3)
    found = gateway.run(WindowsUsed(services).read(moment_of(dt.datetime.now(dt.UTC))))
    assert list(found) == [("key_total", "alice"), ("team_month", "lab")]


def test_it_goes_on_when_the_ledger_answers_again(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    services = gateway.gateway.services
    assert services is not None
    asked = 0

    async def balances(scopes: Sequence[str]) -> list[Balance | None]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise LedgerUnavailable("not now")
        again.set()
        return [None for _ in scopes]

    async def watched() -> None:
        keeping = asyncio.ensure_future(WindowsUsed(services).keep(every_s=0.001))
        await again.wait()
        keeping.cancel()

    again = asyncio.Event()
    monkeypatch.setattr(services.ledger.budgets, "balances", balances)
    gateway.run(watched())
