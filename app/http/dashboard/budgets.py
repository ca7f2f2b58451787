"""The budgets as they stand: windows of everybody, teams and keys, tasks, and when each runs out at its pace; and how
full the present minute is where rates are limited."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from app.core.budget import Balance
from app.core.caps import Windows
from app.core.errors import TracesDown
from app.core.forecast import Forecast, forecast
from app.core.money import nano_from_usd, usd_float
from app.core.policy import Policy
from app.core.windows import Window, began_at, moment_of, refills_at, scope_in
from app.gateway.limits import ANONYMOUS, MODEL_PART
from app.gateway.services import Services
from app.http.dashboard.ask import Ask, FiguresUnavailable, Pace
from app.http.task_json import task_json, window_json

DAY_S = 86_400.0
LEAST_PACE_S = 3_600.0
"""A pace over less than this would make a trend of one call."""
OWNERS_LOOKED_AT = 1_000
TASKS_LOOKED_AT = 1_000
TASKS_SHOWN = 100
ASKED_AT_ONCE = 500
"""Scopes: thousands of keys are asked for in a few questions, none of which holds the ledger up."""
MONEY: Final[tuple[Window, ...]] = ("hour", "day", "month", "total")

Paces = Mapping[str, tuple[int, float]]
"""For each owner of windows: nano-dollars, and the seconds they were spent in."""
EVERYBODY = "global"
"""An owner of windows is what their scopes begin with: this, `team:NAME` or `key:NAME`."""


class Reading(Protocol):
    """The two questions that are asked of a ledger here, as `stores/budgets.py` has them."""

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        """The balances of these scopes, in order."""

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        """The latest used scopes with a prefix."""


async def budgets_json(services: Services, ask: Ask) -> dict[str, Any]:
    """Everything of the view. Raises LedgerUnavailable; without traces the forecasts are by window."""
    now = dt.datetime.now(dt.UTC)
    try:
        answer = msgspec.json.decode(await ask(Pace(now.timestamp() // 10 * 10 - DAY_S)))
        paces: Paces | None = paces_of(answer, now.timestamp())
    except (FiguresUnavailable, TracesDown):
        paces = None
    return await budgets_of(services.ledger.budgets, services.view.policy, paces, now)


async def budgets_of(ledger: Reading, policy: Policy, paces: Paces | None, now: dt.datetime) -> dict[str, Any]:
    """Windows, rates and tasks. Raises LedgerUnavailable."""
    owners = await _owners(ledger, policy)
    moment = moment_of(now)
    named = [
        (owner, windows, window, scope_in(owner, window, moment))
        for owner, windows in owners
        for window in (*MONEY, *(("minute",) if windows.finest == "minute" else ()))
    ]
    balances = await _balances(ledger, [scope for *_, scope in named])
    rows, rates = [], []
    for (owner, limits, window, scope), balance in zip(named, balances, strict=True):
        if window == "minute":
            rates.append(rate_row(owner, limits, balance or Balance(), now))
            continue
        limit, at_a_time = _limit(limits, window), limits.parallel if window == "total" else None
        if limit is not None or at_a_time is not None or balance is not None:
            row = window_row(owner, window, scope, balance or Balance(), limit, now, paces)
            rows.append({**row, "max_parallel_requests": at_a_time})
    found = await ledger.scopes("task:", TASKS_LOOKED_AT)
    tasks = [task_row(scope, balance, now) for scope, balance in found if MODEL_PART not in scope][:TASKS_SHOWN]
    return {
        "as_of_s": now.timestamp(),
        "pace": "day" if paces is not None else "window",
        "windows": rows,
        "rates": rates,
        "tasks": tasks,
    }


async def _owners(ledger: Reading, policy: Policy) -> list[tuple[str, Windows]]:
    """Whoever has windows, with what the policy allows them."""
    keys = policy.named_keys()
    teams = await known_owners(ledger, "team", policy.teams)
    of_teams = [(f"team:{name}", policy.team_windows(name) if name in policy.teams else Windows()) for name in teams]
    names = await known_owners(ledger, "key", keys)
    of_keys = [(f"key:{name}", policy.key_windows(keys[name]) if name in keys else Windows()) for name in names]
    return [(EVERYBODY, policy.caps.everyone), *of_teams, *of_keys]


async def _balances(ledger: Reading, scopes: Sequence[str]) -> list[Balance | None]:
    found: list[Balance | None] = []
    for at in range(0, len(scopes), ASKED_AT_ONCE):
        found += await ledger.balances(scopes[at : at + ASKED_AT_ONCE])
    return found


def paces_of(answer: Mapping[str, Any], now_s: float) -> Paces:
    """From the answer to Pace."""

    def paced(row: Mapping[str, Any]) -> tuple[int, float]:
        return nano_from_usd(row["usd"]), max(now_s - row["first_s"], LEAST_PACE_S)

    keys = {f"key:{row['name']}": paced(row) for row in answer["keys"]}
    teams = {f"team:{row['name']}": paced(row) for row in answer["teams"]}
    total, longest = sum(nano for nano, _ in keys.values()), max((s for _, s in keys.values()), default=LEAST_PACE_S)
    return {**keys, **teams, EVERYBODY: (total, longest)}


def _limit(windows: Windows, window: Window) -> int | None:
    limits = {
        "hour": windows.hour_nano,
        "day": windows.day_nano,
        "month": windows.month_nano,
        "total": windows.total_nano,
    }
    return limits[window]


def rate_row(owner: str, windows: Windows, balance: Balance, now: dt.datetime) -> dict[str, Any]:
    """How full this minute is: the calls that began in it, with their input's tokens, and once they ended with all."""
    refills = refills_at("minute", now)
    return {
        **_whose(owner),
        "calls": balance.calls,
        "max_calls": windows.minute_calls,
        "tokens": balance.tokens,
        "max_tokens": windows.minute_tokens,
        "refills_s": refills.timestamp() if refills else None,
    }


def _whose(owner: str) -> dict[str, str | None]:
    kind, _, name = owner.partition(":")
    return {"key": name if kind == "key" else None, "team": name if kind == "team" else None}


def window_row(
    owner: str, window: Window, scope: str, balance: Balance, limit: int | None, now: dt.datetime, paces: Paces | None
) -> dict[str, Any]:
    """One window: the policy's limit now, which its ledger's row may not have seen yet."""
    refills, since = refills_at(window, now), began_at(window, now)
    if paces is not None:
        pace_nano, pace_s = paces.get(owner, (0, LEAST_PACE_S))
    else:
        pace_nano, pace_s = balance.spent_nano, (now - since).total_seconds() if since else 0.0
    told = forecast(
        balance.spent_nano + balance.held_nano,
        limit,
        pace_nano,
        pace_s,
        now.timestamp(),
        refills.timestamp() if refills else None,
    )
    return {
        **_whose(owner),
        "window": window,
        "scope": scope,
        **window_json(balance, limit),
        "since_s": since.timestamp() if since else None,
        "refills_s": refills.timestamp() if refills else None,
        "forecast": forecast_json(told),
    }


def task_row(scope: str, balance: Balance, now: dt.datetime) -> dict[str, Any]:
    """One task, forecast by what it has spent since its first call."""
    age_s = balance.age_ms(int(now.timestamp() * 1000)) / 1000
    limit = balance.effective_limit_nano
    spent = balance.spent_nano + balance.held_nano
    told = forecast(spent, limit, balance.spent_nano, max(age_s, 60.0), now.timestamp(), None)
    began_s = balance.began_ms / 1000 if balance.began_ms else None
    return {**task_json(scope, balance), "scope": scope, "began_s": began_s, "forecast": forecast_json(told)}


def forecast_json(told: Forecast) -> dict[str, Any]:
    """A forecast in dollars."""
    return {"verdict": told.verdict, "per_day_usd": usd_float(told.per_day_nano), "at_s": told.at_s}


async def known_owners(ledger: Reading, kind: str, named: Collection[str]) -> list[str]:
    """The keys or teams that the policy names, and those that have spent and are in it no more."""
    spent = [scope.split(":")[1] for scope, _ in await ledger.scopes(f"{kind}:", OWNERS_LOOKED_AT)]
    return [name for name in dict.fromkeys((*named, *spent)) if name != ANONYMOUS]
