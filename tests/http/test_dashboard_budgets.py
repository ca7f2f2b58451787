"""The budgets as the dashboard shows them: windows with forecasts, and how full this minute is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pytest

from app.core.budget import Balance
from app.core.caps import Caps, Windows
from app.core.policy import Key, Team
from app.http.dashboard.budgets import ASKED_AT_ONCE, budgets_of, paces_of
from tests.gateway.policy_values import model, policy

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
USD, HOUR_S = 10**9, 3_600.0


class Spent:
    """A ledger that knows what was spent in total, by owner."""

    def __init__(self, **nano: int) -> None:
        self._balances = {f"{owner}:{name}:total": Balance(spent) for owner in ("team", "key") for name, spent in
                          nano.items()}  # fmt: skip

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        return [self._balances.get(scope) for scope in scopes]

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        return [(scope, balance) for scope, balance in self._balances.items() if scope.startswith(prefix)][:limit]


async def test_owners_that_the_policy_names_no_more_have_spent_and_have_no_limits() -> None:
    caps = Caps(key=Windows(total_nano=10**9), team=Windows(total_nano=2 * 10**9))
    keys = {"0" * 64: Key("here", "0" * 64, team="here")}
    rules = policy([model("m")], caps=caps, keys=keys, teams={"here": Team("here")})
    shown = (await budgets_of(Spent(here=5, gone=7), rules, None, NOW))["windows"]
    assert [(row["team"], row["key"], row["limit_usd"]) for row in shown] == [
        ("here", None, 2.0),
        ("gone", None, None),
        (None, "here", 1.0),
        (None, "gone", None),
    ]


class Known(Spent):
    """A ledger with these balances; `asked`: how many scopes each question named."""

    def __init__(self, **balances: Balance) -> None:
        self._balances = balances
        self.asked: list[int] = []

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        self.asked.append(len(scopes))
        return await super().balances(scopes)


def minute(owner: str, calls: int, tokens: int) -> dict[str, Balance]:
    return {f"{owner}:minute:2026-11-20T12:00": Balance(calls=calls, tokens=tokens)}


async def test_this_minute_is_shown_where_rates_are_limited() -> None:
    caps = Caps(everyone=Windows(minute_calls=100), team=Windows(minute_tokens=9_000))
    keys = {
        "0" * 64: Key("ann", "0" * 64, caps=Windows(minute_calls=10, minute_tokens=500)),
        "1" * 64: Key("bo", "1" * 64),
    }
    rules = policy([model("m")], caps=caps, keys=keys, teams={"lab": Team("lab")})
    ledger = Known(**minute("global", 42, 4_200), **minute("key:ann", 7, 450), **minute("key:bo", 35, 3_750))
    found = await budgets_of(ledger, rules, None, NOW)
    assert {row.pop("refills_s") for row in found["rates"]} == {NOW.timestamp() + 60}
    assert [tuple(row.values()) for row in found["rates"]] == [
        (None, None, 42, 100, 4_200, None),
        (None, "lab", 0, None, 0, 9_000),
        ("ann", None, 7, 10, 450, 500),
    ]
    assert list(found["rates"][0]) == ["key", "team", "calls", "max_calls", "tokens", "max_tokens"]
    assert found["windows"] == [], "a minute is no window that runs out"


async def test_how_many_run_at_a_time_is_shown_where_that_is_limited() -> None:
    rules = policy(
        [model("m")], caps=Caps(everyone=Windows(parallel=9)), teams={"lab": Team("lab", Windows(parallel=2))}
    )
    ledger = Known(**{"global:total": Balance(calls=40, running=7), "global:day:2026-11-20": Balance(calls=3)})
    found = await budgets_of(ledger, rules, None, NOW)
    shown = [(r["team"], r["window"], r["running"], r["max_parallel_requests"]) for r in found["windows"]]
    assert shown == [(None, "day", 0, None), (None, "total", 7, 9), ("lab", "total", 0, 2)]


async def test_many_keys_are_asked_for_in_few_questions() -> None:
    keys = {f"{n:064d}": Key(f"k{n}", f"{n:064d}") for n in range(600)}
    ledger = Known()
    await budgets_of(ledger, policy([model("m")], keys=keys), None, NOW)
    assert sum(ledger.asked) == 4 * (len(keys) + 1)
    assert max(ledger.asked) <= ASKED_AT_ONCE
    assert len(ledger.asked) == 5


@pytest.mark.parametrize(
    ("limit", "spent", "held", "verdict", "runs_out_h"),
    [
        # $3 in the six hours since the first call: $0.5 an hour.
        (5, 3, 0, "runs_out", 4),
        (5, 3, 1, "runs_out", 2),  # what calls hold is not left
        (5, 5, 0, "spent", 0),
        (10, 3, 0, "lasts", 14),  # it refills in 12
    ],
)
async def test_when_a_window_runs_out_at_the_pace_of_the_day(
    limit: int, spent: int, held: int, verdict: str, runs_out_h: float
) -> None:
    rules = policy([model("m")], caps=Caps(everyone=Windows(day_nano=limit * USD)))
    ledger = Known(**{"global:day:2026-11-20": Balance(spent * USD, held * USD)})
    first_s = NOW.timestamp() - 6 * HOUR_S
    keys = [{"name": "a", "usd": 2.0, "first_s": first_s}, {"name": "b", "usd": 1.0, "first_s": first_s + HOUR_S}]
    (row,) = (await budgets_of(ledger, rules, paces_of({"keys": keys, "teams": []}, NOW.timestamp()), NOW))["windows"]
    told = row["forecast"]
    assert (told["verdict"], told["per_day_usd"]) == (verdict, 12.0)
    assert told["at_s"] == pytest.approx(NOW.timestamp() + runs_out_h * HOUR_S)


async def test_without_traces_the_pace_is_the_windows_own() -> None:
    """$6 since midnight, twelve hours ago: the other $4 of ten last eight more."""
    rules = policy([model("m")], caps=Caps(everyone=Windows(day_nano=10 * USD)))
    ledger = Known(**{"global:day:2026-11-20": Balance(6 * USD)})
    found = await budgets_of(ledger, rules, None, NOW)
    assert found["pace"] == "window"
    told = found["windows"][0]["forecast"]
    assert (told["verdict"], told["per_day_usd"]) == ("runs_out", 12.0)
    assert told["at_s"] == pytest.approx(NOW.timestamp() + 8 * HOUR_S)


@pytest.mark.parametrize(
    ("spent", "held", "age_s", "verdict", "runs_out_s"),
    [
        (0.5, 0.0, 3_600, "runs_out", 3 * 3_600),  # $0.50 in an hour, $1.50 are left
        (0.5, 0.5, 3_600, "runs_out", 2 * 3_600),
        (0.01, 0.0, 5, "runs_out", 199 * 60),  # no pace over less than a minute
        (2.0, 0.0, 3_600, "spent", 0),
        (0.0, 0.0, 3_600, "idle", None),
    ],
)
async def test_when_a_task_runs_out_at_the_pace_since_its_first_call(
    spent: float, held: float, age_s: float, verdict: str, runs_out_s: float | None
) -> None:
    began_ms = int((NOW.timestamp() - age_s) * 1000)
    balance = Balance(int(spent * USD), int(held * USD), limit_nano=2 * USD, began_ms=began_ms)
    found = await budgets_of(Known(**{"task:a:job": balance}), policy([model("m")]), None, NOW)
    (task,) = found["tasks"]
    assert (task["id"], task["key"], task["forecast"]["verdict"]) == ("job", "a", verdict)
    told = task["forecast"]["at_s"]
    assert told == (None if runs_out_s is None else pytest.approx(NOW.timestamp() + runs_out_s, abs=1))
