"""`bursar task`: look at tasks and change them, straight in the ledger, beside a running gateway."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from app.commands.ending import Refused
from app.commands.policy import read_settings
from app.commands.spend import MODELS_OF_TASK, embedded_ledger, key_names, of_the_ledger, open_reading
from app.commands.terminal import complain, heading, say, say_json, table
from app.core.amend import Amend, Amended
from app.core.budget import Balance
from app.core.money import nano_from_usd, usd_text
from app.core.terms import PLAIN, State
from app.gateway.limits import MODEL_PART, in_ms, task_scope
from app.http.task_json import balance_json, limits_json, task_json, task_of
from app.settings import Settings
from app.stores.budgets import Budgets
from app.stores.budgets_sqlite import SqliteBudgets

LOOKED_AT = 5_000


class Raise(msgspec.Struct, frozen=True):
    """New limits of a task; None leaves one as it is."""

    usd: float | None = None
    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    parallel: int | None = None


def show(task: str, key: str | None, *, as_json: bool) -> int:
    """Print all that the ledger knows of a task; the exit code."""
    return _run(lambda settings: _show(settings, task, key, as_json))


def listed(state: str | None, limit: int, *, as_json: bool) -> int:
    """Print the latest used tasks; the exit code."""
    return _run(lambda settings: _list(settings, state, limit, as_json))


def amend(task: str, key: str | None, *, limits: Raise | None = None, state: State | None = None) -> int:
    """Change a task as its operator; the exit code."""
    return _run(lambda settings: _amend(settings, task, key, limits or Raise(), state))


@of_the_ledger
def _run(work: Callable[[Settings], Awaitable[int]]) -> int:
    async def answered(settings: Settings) -> int:
        return await work(settings)

    return asyncio.run(answered(read_settings()))


@contextlib.asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[Budgets]:
    """The ledger of these settings, to write to. Raises LedgerUnavailable where there is none."""
    budgets: Budgets
    if settings.redis_url is None:
        budgets = SqliteBudgets(embedded_ledger(settings))
    else:
        from app.stores.budgets_redis import RedisBudgets  # noqa: PLC0415  (redis-py costs 60 ms to import)

        budgets = RedisBudgets(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)
    await budgets.start()
    try:
        yield budgets
    finally:
        await budgets.close()


async def _show(settings: Settings, task: str, key: str | None, as_json: bool) -> int:
    async with open_reading(settings) as ledger:
        names = [task_scope(name, task) for name in ([key] if key is not None else await key_names(ledger))]
        found = [(n, b) for n, b in zip(names, await ledger.balances(names), strict=True) if b is not None]
        parts = {name: await ledger.scopes(name + MODEL_PART, MODELS_OF_TASK) for name, _ in found}
    if not found:
        complain(f"no task '{task}' is on record")
        return 1
    if as_json:
        models = {s: {n.rpartition(MODEL_PART)[2]: balance_json(b) for n, b in rows} for s, rows in parts.items()}
        say_json([{**task_json(name, balance), "models": models[name]} for name, balance in found])
        return 0
    for name, balance in found:
        _describe(name, balance)
    return 0


def _describe(scope: str, balance: Balance) -> None:
    shown, terms = task_json(scope, balance), balance.terms or PLAIN
    heading(f"Task {shown['id']}" + ("" if shown["key"] == "-" else f" of {shown['key']}"))
    family = {"parent": " < ".join(map(task_of, terms.above)), "children": ", ".join(map(task_of, terms.below))}
    killed = balance.killed_at_nano
    facts = {
        "state": terms.state + ("" if killed is None else f", cut at ${usd_text(killed)}"),
        "began": f"{shown['began_at'].replace('T', ' ')[:19]} UTC" if shown["began_at"] else "not yet",
        "spent": f"${usd_text(balance.spent_nano)}, reserved ${usd_text(balance.held_nano)}",
        "calls": f"{balance.calls}, {balance.running} under way" if balance.running else str(balance.calls),
        "tokens": str(balance.tokens),
        **family,
    }
    table(("", ""), [(name, text) for name, text in facts.items() if text])
    limits = limits_json(balance)
    if limits:
        who = ("binding", "policy", "client", "amended")
        rows = [(name, *(decimal(of[w]) if w in of else "-" for w in who)) for name, of in limits.items()]
        table(("limit", *who), rows, right=who)


def decimal(number: float) -> str:
    """A limit as people write it: 0.00002, 1234567, 90."""
    return str(number) if isinstance(number, int) else f"{number:.9f}".rstrip("0").rstrip(".")


async def _list(settings: Settings, state: str | None, limit: int, as_json: bool) -> int:
    async with open_reading(settings) as ledger:
        scopes = await ledger.scopes("task:", LOOKED_AT)
    tasks = [(name, balance) for name, balance in scopes if MODEL_PART not in name]
    kept = [(name, b) for name, b in tasks if state in (None, (b.terms or PLAIN).state)][:limit]
    if as_json:
        say_json([task_json(name, balance) for name, balance in kept])
        return 0
    if not kept:
        say("no such task is on record")
        return 0
    columns = ("task", "key", "state", "spent $", "limit $", "calls", "tokens", "parent")
    table(columns, [_row(name, balance) for name, balance in kept], right=columns[3:7])
    return 0


def _row(scope: str, balance: Balance) -> tuple[str, ...]:
    terms, limit = balance.terms or PLAIN, balance.effective_limit_nano
    return (
        task_of(scope),
        scope.split(":", 2)[1],
        "cut" if balance.exhausted and terms.state == "open" else terms.state,
        usd_text(balance.spent_nano),
        "none" if limit is None else usd_text(limit),
        str(balance.calls),
        str(balance.tokens),
        task_of(terms.above[0]) if terms.above else "",
    )


async def _amend(settings: Settings, task: str, key: str | None, limits: Raise, state: State | None) -> int:
    try:
        nano = None if limits.usd is None else nano_from_usd(limits.usd)
    except ValueError as error:
        raise Refused(f"--max-cost: {error}") from None
    async with open_ledger(settings) as ledger:
        keys = [key] if key is not None else await key_names(ledger)
        names = [task_scope(name, task) for name in keys]
        known = [n for n, b in zip(names, await ledger.balances(names), strict=True) if b is not None]
        if key is None and len(known) != 1:
            problem = f"several keys have a task '{task}'" if known else f"no task '{task}' is on record"
            complain(f"{problem}; say with --key whose task is meant ('-' where the policy sets no keys)")
            return 1
        scope = names[0] if key is not None else known[0]
        ms = in_ms(limits.seconds)
        op = Amend(
            f"amend {secrets.token_hex(8)}",
            scope,
            nano,
            limits.calls,
            limits.tokens,
            ms,
            state,
            max_parallel=limits.parallel,
        )
        result = await ledger.apply(op)
        assert isinstance(result, Amended)
        (balance,) = await ledger.balances([scope])
    assert balance is not None
    _describe(scope, balance)
    return 0
