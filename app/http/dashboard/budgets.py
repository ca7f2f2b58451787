"""The budgets as they stand: windows of everybody and of each key, tasks, and when each runs out at its pace."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from app.core.budget import Balance
from app.core.errors import TracesDown
from app.core.forecast import Forecast, forecast
from app.core.money import nano_from_usd, usd_float
from app.core.policy import Policy, Windows
from app.gateway.limits import ANONYMOUS, MODEL_PART, resets_at
from app.gateway.services import Services
from app.http.dashboard.ask import Ask, FiguresUnavailable, Pace
from app.http.task_json import balance_json, task_json

DAY_S = 86_400.0
LEAST_PACE_S = 3_600.0
"""A pace over less than this would make a trend of one call."""
KEYS_LOOKED_AT = 1_000
TASKS_LOOKED_AT = 1_000
TASKS_SHOWN = 100

Paces = Mapping[str, tuple[int, float]]
"""For each key, and None's stand-in EVERYBODY: nano-dollars, and the seconds they were spent in."""
EVERYBODY = ""


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
    """Windows and tasks. Raises LedgerUnavailable."""
    windows = await windows_json(ledger, EVERYBODY, policy.caps.everyone, now, paces)
    for name in await known_keys(ledger, policy):
        windows += await windows_json(ledger, name, _windows_of(policy, name), now, paces)
    found = await ledger.scopes("task:", TASKS_LOOKED_AT)
    tasks = [task_row(scope, balance, now) for scope, balance in found if MODEL_PART not in scope][:TASKS_SHOWN]
    return {
        "as_of_s": now.timestamp(),
        "pace": "day" if paces is not None else "window",
        "windows": windows,
        "tasks": tasks,
    }


def paces_of(answer: Mapping[str, Any], now_s: float) -> Paces:
    """From the answer to Pace."""
    rows = answer["keys"]
    spent = {row["key"]: (nano_from_usd(row["usd"]), max(now_s - row["first_s"], LEAST_PACE_S)) for row in rows}
    total, longest = sum(nano for nano, _ in spent.values()), max((s for _, s in spent.values()), default=LEAST_PACE_S)
    return {**spent, EVERYBODY: (total, longest)}


async def windows_json(
    ledger: Reading, owner: str, windows: Windows, now: dt.datetime, paces: Paces | None
) -> list[dict[str, Any]]:
    """Day, month and total of one owner, those that are limited or used."""
    day = now.date().isoformat()
    prefix = f"key:{owner}" if owner else "global"
    named = {
        "day": (f"{prefix}:day:{day}", windows.day_nano),
        "month": (f"{prefix}:month:{day[:7]}", windows.month_nano),
        "total": (f"{prefix}:total", windows.total_nano),
    }
    balances = await ledger.balances([scope for scope, _ in named.values()])
    return [
        window_row(owner, window, scope, balance or Balance(), limit, now, paces)
        for (window, (scope, limit)), balance in zip(named.items(), balances, strict=True)
        if balance is not None or limit is not None
    ]


def window_row(
    owner: str, window: str, scope: str, balance: Balance, limit: int | None, now: dt.datetime, paces: Paces | None
) -> dict[str, Any]:
    """One window: the policy's limit now, which its ledger's row may not have seen yet."""
    refills = resets_at(scope, now)
    since = _since(window, now)
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
    shown = {**balance_json(balance), "limit_usd": None if limit is None else usd_float(limit)}
    if limit is not None:
        shown["remaining_usd"] = usd_float(max(limit - balance.spent_nano - balance.held_nano, 0))
    return {
        "key": owner or None,
        "window": window,
        "scope": scope,
        **shown,
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


async def known_keys(ledger: Reading, policy: Policy) -> list[str]:
    """The keys of the policy, and those that have spent and are in it no more."""
    spent = [scope.split(":")[1] for scope, _ in await ledger.scopes("key:", KEYS_LOOKED_AT)]
    named = [key.name for key in policy.keys.values()]
    return [name for name in dict.fromkeys((*named, *spent)) if name != ANONYMOUS]


def _windows_of(policy: Policy, name: str) -> Windows:
    key = next((key for key in policy.keys.values() if key.name == name), None)
    return Windows() if key is None else policy.key_windows(key)


def _since(window: str, now: dt.datetime) -> dt.datetime | None:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return {"day": midnight, "month": midnight.replace(day=1)}.get(window)
