"""A key asks what it may still spend: its own windows and its team's; an operator those of any key, and everybody's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import LiveGateway, sha256
from tests.upstream import ScriptedUpstream

ALICE, BOB, BOSS = ({"authorization": f"Bearer sk-{name}"} for name in ("alice", "bob", "boss"))


def policy(upstream: ScriptedUpstream, keys: str) -> str:
    return f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{small: {{provider: a, pricing: {{input_per_1k: 1, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
caps: {{global: {{day: {{max_cost_usd: 10}}}}}}
teams: {{lab: {{caps: {{month: {{max_cost_usd: 4}}}}}}}}
keys: {keys}
"""


KEYS = f"""
  - {{name: alice, sha256: {sha256("sk-alice")}, team: lab, caps: {{day: {{max_cost_usd: 2}}}}}}
  - {{name: bob, sha256: {sha256("sk-bob")}}}
  - {{name: boss, sha256: {sha256("sk-boss")}, admin: true}}
"""


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with LiveGateway(policy(shared_upstream, KEYS), tmp_path_factory.mktemp("budgets")) as live:
        yield live


def rows(gateway: LiveGateway, headers: dict[str, str] | None = None, query: str = "") -> dict[str, dict[str, Any]]:
    answer = gateway.ask("GET", f"/v1/budgets{query}", headers=headers)
    assert (answer.status, answer.json["object"]) == (200, "list")
    return {row["scope"]: row for row in answer.json["data"]}


def test_a_key_sees_its_own_windows_and_its_teams(gateway: LiveGateway) -> None:
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    found = rows(gateway, ALICE)
    assert list(found) == ["key_day", "key_month", "key_total", "team_day", "team_month", "team_total"]
    day, month, total = found["key_day"], found["team_month"], found["key_total"]
    assert (day["name"], day["limit_usd"], day["spent_usd"], day["calls"]) == ("alice", 2.0, cost, 1)
    assert day["remaining_usd"] == pytest.approx(2 - cost)
    assert dt.datetime.fromisoformat(day["resets_at"]).utctimetuple()[3:6] == (0, 0, 0)
    assert (month["name"], month["limit_usd"], month["remaining_usd"]) == ("lab", 4.0, pytest.approx(4 - cost))
    assert dt.datetime.fromisoformat(month["resets_at"]).day == 1
    assert (total["limit_usd"], total["remaining_usd"], total["resets_at"]) == (None, None, None)


def test_a_rate_is_shown_with_what_is_used_of_it(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gateway.owned.moment_at", "gateway.windows_used.moment_of", "http.budgets.moment_of"):
        monkeypatch.setattr(f"app.{name}", lambda _: "2026-11-30T17:44")
    caps = "{hour: {max_cost_usd: 3}, minute: {max_calls: 7}}"
    limited = f"[{{name: bob, sha256: {sha256('sk-bob')}, caps: {caps}}}]"
    with LiveGateway(policy(upstream, limited), tmp_path) as gateway:
        minute = rows(gateway, BOB)["key_minute"]
        assert (minute["max_calls"], minute["max_tokens"], minute["calls"], minute["limit_usd"]) == (7, None, 0, None)
        assert dt.datetime.fromisoformat(minute["resets_at"]).second == 0
        gateway.chat(BOB)
        found = rows(gateway, BOB)
        assert (found["key_minute"]["calls"], found["key_hour"]["calls"], found["key_hour"]["limit_usd"]) == (1, 1, 3.0)
        assert found["key_minute"]["tokens"] > 0
        assert dt.datetime.fromisoformat(found["key_hour"]["resets_at"]).minute == 0


def test_rates_of_a_team_and_of_everybody(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("app.gateway.owned.moment_at", "app.http.budgets.moment_of"):
        monkeypatch.setattr(name, lambda _: "2026-11-30T17:44")
    rules = policy(upstream, KEYS).replace("{day: {max_cost_usd: 10}}", "{minute: {max_calls: 9}}")
    rules = rules.replace("month: {max_cost_usd: 4}", "minute: {max_tokens: 5000}")
    with LiveGateway(rules, tmp_path) as gateway:
        assert [gateway.chat(who).status for who in (ALICE, ALICE, BOB)] == [200, 200, 200]
        team = rows(gateway, ALICE)["team_minute"]
        assert (team["name"], team["calls"], team["max_calls"], team["max_tokens"]) == ("lab", 2, None, 5000)
        assert 0 < team["tokens"] < 5000
        everybody = rows(gateway, BOSS)["global_minute"]
        assert (everybody["name"], everybody["calls"], everybody["max_calls"]) == (None, 3, 9)
        assert not {"global_minute", "team_minute"} & rows(gateway, BOB).keys()


def test_a_window_that_is_neither_limited_nor_used_is_left_out(gateway: LiveGateway) -> None:
    assert rows(gateway, BOB) == {}


def test_an_operator_sees_any_keys_and_everybodys(gateway: LiveGateway) -> None:
    found = rows(gateway, BOSS, "?key=alice")
    assert {"key_day", "team_month", "global_day"} <= found.keys()
    assert (found["global_day"]["name"], found["global_day"]["limit_usd"]) == (None, 10.0)
    assert "key_day" not in rows(gateway, BOSS)


def test_others_windows_are_not_shown(gateway: LiveGateway) -> None:
    for headers, query, status in (
        (BOB, "?key=alice", 404), (BOB, "?key=nobody", 404), (BOSS, "?key=nobody", 404), (None, "", 401),
    ):  # fmt: skip
        assert gateway.ask("GET", f"/v1/budgets{query}", headers=headers).status == status


def test_without_keys_everybodys(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(policy(upstream, "[]"), tmp_path) as gateway:
        assert rows(gateway)["global_day"]["remaining_usd"] == 10.0
