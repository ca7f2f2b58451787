"""`bursar spend`: what the ledger says was spent, read beside a running gateway and without taking part in it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from app.commands.ending import ending
from app.commands.policy import read_settings
from app.commands.terminal import complain, heading, say, say_json, table
from app.core.budget import Balance
from app.core.money import usd_text
from app.core.users import user_hash
from app.core.windows import moment_of, scope_in
from app.gateway.limits import ANONYMOUS, MODEL_PART, task_scope, user_owner
from app.http.dashboard.budgets import Reading, known_owners
from app.http.task_json import balance_json
from app.settings import Settings
from app.stores import sqlite_tables
from app.stores.budgets import Budgets, LedgerUnavailable
from app.stores.opening import make_snapshots
from app.stores.snapshots import SnapshotsUnavailable

LATEST_TASKS = 20
MODELS_OF_TASK = 100

of_the_ledger = ending(LedgerUnavailable, sqlite3.Error, what="the ledger cannot be used: ")
"""For a command that asks the ledger."""

Rows = list[tuple[str, Balance]]


class _SqliteReading:
    """The embedded ledger, looked at: no owner is registered and no dead one's hold is ended."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        found = sqlite_tables.load_balances(self._db, scopes)
        return [found.get(scope) for scope in scopes]

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        return sqlite_tables.list_scopes(self._db, prefix, limit)


@of_the_ledger
def spend(*, task: str | None, key: str | None, team: str | None, user: str | None, as_json: bool) -> int:
    """Print the money of a task, of a key, of a team, of an end user, or of everybody; the exit code."""
    return asyncio.run(_spend(read_settings(), task, key, team, user, as_json))


@contextlib.asynccontextmanager
async def open_reading(settings: Settings) -> AsyncIterator[Reading]:
    """The ledger of these settings; LedgerUnavailable where there is none."""
    if settings.redis_url is not None:
        from app.stores.budgets_redis import RedisBudgets  # noqa: PLC0415  (redis-py costs 60 ms to import)

        budgets = RedisBudgets(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)
        try:
            yield budgets
        finally:
            await budgets.close()
        return
    with contextlib.closing(sqlite_tables.connect(embedded_ledger(settings))) as db:
        yield _SqliteReading(db)


def embedded_ledger(settings: Settings) -> Path:
    """The file of the embedded ledger. Raises LedgerUnavailable where no gateway ever made one."""
    path = (settings.data_dir / "ledger.sqlite").absolute()
    if not path.is_file():
        raise LedgerUnavailable(f"there is none at {path}; BURSAR_DATA_DIR says where to look")
    return path


async def _spend(
    settings: Settings, task: str | None, key: str | None, team: str | None, user: str | None, as_json: bool
) -> int:
    async with open_reading(settings) as ledger:
        if user is not None:
            return await _show_user(ledger, await _salt(settings), user, key, as_json)
        if task is not None:
            return await _show_task(ledger, task, key, as_json)
        if key is not None:
            return await _show_key(ledger, key, as_json)
        if team is not None:
            return await _show_team(ledger, team, as_json)
        return await _show_all(ledger, as_json)


async def _show_task(ledger: Reading, task: str, key: str | None, as_json: bool) -> int:
    keys = [key] if key is not None else await key_names(ledger)
    names = [task_scope(name, task) for name in keys]
    found = [(name, b) for name, b in zip(names, await ledger.balances(names), strict=True) if b is not None]
    if not found:
        complain(
            f"no task '{task}' is on record; a call without a task id is a task of its own, which the gateway shows:"
            " GET /v1/decisions/REQUEST_ID"
        )
        return 1
    parts = [await ledger.scopes(name + MODEL_PART, MODELS_OF_TASK) for name, _ in found]
    if as_json:
        say_json([_task_json(name, balance, models) for (name, balance), models in zip(found, parts, strict=True)])
        return 0
    for (name, balance), models in zip(found, parts, strict=True):
        heading(_task_title(name))
        rows = [("all models", balance), *((n.rpartition(MODEL_PART)[2], b) for n, b in models)]
        _table("model", rows)
    return 0


async def _show_key(ledger: Reading, key: str, as_json: bool) -> int:
    windows = await _windows(ledger, f"key:{key}")
    tasks = await _tasks(ledger, f"task:{key}:")
    if not windows and not tasks:
        complain(f"nothing is on record for the key '{key}'")
        return 1
    if as_json:
        say_json({"key": key, "windows": _windows_json(windows), "tasks": [_task_json(*t, []) for t in tasks]})
        return 0
    heading(f"Key {key}, windows in UTC")
    _table("window", windows)
    _latest(tasks)
    return 0


async def _show_team(ledger: Reading, team: str, as_json: bool) -> int:
    windows = await _windows(ledger, f"team:{team}")
    if not windows:
        complain(f"nothing is on record for the team '{team}'")
        return 1
    if as_json:
        say_json({"team": team, "windows": _windows_json(windows)})
        return 0
    heading(f"Team {team}, windows in UTC")
    _table("window", windows)
    return 0


async def _salt(settings: Settings) -> bytes | None:
    """What users' names are hashed with; None where no gateway has made it yet. Raises LedgerUnavailable."""
    if settings.redis_url is None and not (settings.data_dir / "snapshots.sqlite").is_file():
        return None
    snapshots = make_snapshots(settings)
    try:
        return await snapshots.salt()
    except SnapshotsUnavailable as error:
        raise LedgerUnavailable(str(error)) from None
    finally:
        await snapshots.close()


async def _show_user(ledger: Reading, salt: bytes | None, user: str, key: str | None, as_json: bool) -> int:
    keys = [key] if key is not None else await key_names(ledger)
    named = None if salt is None else user_hash(user, salt)
    of_keys = {name: await _windows(ledger, user_owner(name, named)) for name in keys} if named is not None else {}
    found = {name: windows for name, windows in of_keys.items() if windows}
    if not found:
        complain(f"nothing is on record for the user '{user}'; users are told apart where the policy has caps.user")
        return 1
    if as_json:
        whose = {name: None if name == ANONYMOUS else name for name in found}
        say_json([{"user": user, "key": whose[name], "windows": _windows_json(rows)} for name, rows in found.items()])
        return 0
    for name, windows in found.items():
        heading(f"User {user}{'' if name == ANONYMOUS else f' of {name}'}, windows in UTC")
        _table("window", windows)
    return 0


async def _show_all(ledger: Reading, as_json: bool) -> int:
    windows = await _windows(ledger, "global")
    tasks = await _tasks(ledger, "task:")
    keys = [name for name in await key_names(ledger) if name != ANONYMOUS]
    of_keys = {name: await _windows(ledger, f"key:{name}") for name in keys}
    of_teams = {name: await _windows(ledger, f"team:{name}") for name in await known_owners(ledger, "team", ())}
    if as_json:
        say_json(
            {
                "global": _windows_json(windows),
                "teams": {name: _windows_json(rows) for name, rows in of_teams.items()},
                "keys": {name: _windows_json(rows) for name, rows in of_keys.items()},
                "tasks": [_task_json(*task, []) for task in tasks],
            }
        )
        return 0
    if not windows:
        say("nothing has been spent yet")
        return 0
    heading("Everybody, windows in UTC")
    _table("window", windows)
    for kind, owners in (("Team", of_teams), ("Key", of_keys)):
        for name, rows in owners.items():
            heading(f"{kind} {name}")
            _table("window", rows)
    _latest(tasks)
    return 0


async def key_names(ledger: Reading | Budgets) -> list[str]:
    """Every key that has spent, and the name that stands for no key."""
    return [ANONYMOUS, *await known_owners(ledger, "key", ())]


async def _windows(ledger: Reading, owner: str) -> Rows:
    """This hour (where it is capped), today, this month and all time of a key, a team or everybody, as far as anything
    was spent."""
    moment = moment_of(dt.datetime.now(dt.UTC))
    scopes = [scope_in(owner, window, moment) for window in ("hour", "day", "month", "total")]
    labels = [scope.removeprefix(f"{owner}:").replace(":", " ") for scope in scopes]
    return [(label, b) for label, b in zip(labels, await ledger.balances(scopes), strict=True) if b is not None]


async def _tasks(ledger: Reading, prefix: str) -> Rows:
    """The latest tasks. Their models' scopes stand among them, so more are asked for than are shown."""
    scopes = await ledger.scopes(prefix, LATEST_TASKS * 10)
    return [(name, balance) for name, balance in scopes if MODEL_PART not in name][:LATEST_TASKS]


def _latest(tasks: Rows) -> None:
    if tasks:
        heading("Latest tasks")
        _table("task", [(_task_title(name, short=True), balance) for name, balance in tasks])


def _task_title(scope: str, *, short: bool = False) -> str:
    _, key, task = scope.split(":", 2)
    whose = "" if key == ANONYMOUS else f" of {key}"
    return f"{task}{whose}" if short else f"Task {task}{whose}"


def _table(what: str, rows: Rows) -> None:
    columns = (what, "spent $", "reserved $", "limit $", "left $", "calls", "")
    table(columns, [(name, *_cells(balance)) for name, balance in rows], right=columns[1:6])


def _cells(balance: Balance) -> tuple[str, ...]:
    limit, killed = balance.effective_limit_nano, balance.killed_at_nano
    left = "-" if balance.room_nano is None else usd_text(max(balance.room_nano, 0))
    state = "" if killed is None else f"cut at ${usd_text(killed)}" + ("" if balance.exhausted else ", raised since")
    return (
        usd_text(balance.spent_nano),
        usd_text(balance.held_nano),
        "none" if limit is None else usd_text(limit),
        left,
        str(balance.calls),
        state,
    )


def _windows_json(rows: Rows) -> dict[str, Any]:
    return {label.partition(" ")[0]: balance_json(balance) for label, balance in rows}


def _task_json(scope: str, balance: Balance, models: Rows) -> dict[str, Any]:
    _, key, task = scope.split(":", 2)
    parts = {name.rpartition(MODEL_PART)[2]: balance_json(part) for name, part in models}
    return {"id": task, "key": None if key == ANONYMOUS else key, **balance_json(balance), "models": parts}
