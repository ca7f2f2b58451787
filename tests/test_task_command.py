"""`bursar task`: reads and changes tasks straight in the ledger, beside a running gateway or without one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.commands.tree import cli
from app.core.budget import Claim, Denied, Granted, Reserve, Settle
from app.core.terms import TaskCaps
from app.stores.budgets import Budgets
from app.stores.budgets_redis import RedisBudgets
from app.stores.budgets_sqlite import SqliteBudgets
from tests.redis_server import shared_server

NANO = 10**9
CLAIM = Claim("task:ci:run:1", NANO, None, TaskCaps(calls=2))


@pytest.fixture(params=["sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Where a task of key ci has used up its dollar in one call."""
    env = {"BURSAR_DATA_DIR": str(tmp_path)}
    if request.param == "redis":
        env |= {"BURSAR_REDIS_URL": shared_server().url, "BURSAR_REDIS_NAMESPACE": tmp_path.name}
    asyncio.run(_spend(env))
    return env


def store(env: dict[str, str]) -> Budgets:
    if "BURSAR_REDIS_URL" in env:
        return RedisBudgets(env["BURSAR_REDIS_URL"], namespace=env["BURSAR_REDIS_NAMESPACE"])
    return SqliteBudgets(Path(env["BURSAR_DATA_DIR"]) / "ledger.sqlite")


async def _spend(env: dict[str, str]) -> None:
    budgets = store(env)
    await budgets.start()
    claims = (CLAIM, Claim("task:ci:run:1|model:m"), Claim("key:ci:total"))
    await budgets.apply(Reserve("c", budgets.owner, claims, NANO, NANO, 0, 1, 1_700_000_000_000))
    await budgets.apply(Settle("c", NANO, ("task:ci:run:1",), 42))
    await budgets.close()


async def _reserve(env: dict[str, str], claim: Claim) -> Granted | Denied:
    budgets = store(env)
    await budgets.start()
    try:
        result = await budgets.apply(Reserve("next", budgets.owner, (claim,), 1, 1, 0))
        await budgets.apply(Settle("next", 0))
    finally:
        await budgets.close()
    assert isinstance(result, Granted | Denied)
    return result


def task(env: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["task", *arguments], env=env)


def test_show_and_list(ledger: dict[str, str]) -> None:
    shown = task(ledger, "show", "run:1")
    assert shown.exit_code == 0
    for text in ("Task run:1 of ci", "cut at $1", "2023-11-14 22:13:20 UTC", "tokens", "42", "max_calls"):
        assert text in shown.stdout
    (found,) = json.loads(task(ledger, "show", "run:1", "--json").stdout)
    assert (found["id"], found["key"], found["calls"], found["models"]["m"]["spent_usd"]) == ("run:1", "ci", 1, 1.0)
    listed = task(ledger, "list")
    assert (listed.exit_code, "run:1" in listed.stdout, "|model:" in listed.stdout) == (0, True, False)
    assert json.loads(task(ledger, "list", "--state", "frozen", "--json").stdout) == []
    assert task(ledger, "list", "--state", "lost").exit_code == 2
    assert task(ledger, "show", "nothing").exit_code == 1


def test_a_cut_task_is_raised_and_takes_calls_again(ledger: dict[str, str]) -> None:
    assert asyncio.run(_reserve(ledger, CLAIM)).__class__ is Denied
    raised = task(ledger, "raise", "run:1", "--max-cost", "2.50", "--max-calls", "9")
    assert raised.exit_code == 0
    assert "2.5" in raised.stdout
    granted = asyncio.run(_reserve(ledger, CLAIM))
    assert isinstance(granted, Granted)
    assert granted.remaining_nano == 3 * NANO // 2 - 1
    assert task(ledger, "raise", "run:1").exit_code == 2
    assert task(ledger, "raise", "run:1", "--max-cost", "1e30").exit_code == 2


def test_frozen_thawed_closed(ledger: dict[str, str]) -> None:
    task(ledger, "raise", "run:1", "--max-cost", "5")
    for word, reason in (("freeze", "frozen"), ("close", "closed")):
        assert task(ledger, word, "run:1").exit_code == 0
        denied = asyncio.run(_reserve(ledger, CLAIM))
        assert isinstance(denied, Denied)
        assert denied.reason == reason
    assert task(ledger, "thaw", "run:1", "--key", "ci").exit_code == 0
    assert isinstance(asyncio.run(_reserve(ledger, CLAIM)), Granted)


def test_a_wrong_folder_gets_no_ledger(tmp_path: Path) -> None:
    for whose in ((), ("--key", "-")):
        done = task({"BURSAR_DATA_DIR": str(tmp_path / "none")}, "raise", "new", "--max-cost", "1", *whose)
        assert (done.exit_code, "BURSAR_DATA_DIR says where to look" in done.stderr) == (1, True)
    assert not (tmp_path / "none").exists()


def test_small_limits_are_written_out(ledger: dict[str, str]) -> None:
    shown = task(ledger, "raise", "run:1", "--max-cost", "0.00002", "--max-seconds", "90").stdout
    assert "0.00002" in shown
    assert "e-05" not in shown
    assert " 90 " in shown


def test_a_task_that_has_not_begun_needs_its_keys_name(ledger: dict[str, str]) -> None:
    refused = task(ledger, "raise", "new", "--max-cost", "0.5")
    assert (refused.exit_code, "--key" in refused.stderr) == (1, True)
    assert task(ledger, "raise", "new", "--max-cost", "0.5", "--key", "-").exit_code == 0
    granted = asyncio.run(_reserve(ledger, Claim("task:-:new", NANO)))
    assert isinstance(granted, Granted)
    assert granted.remaining_nano == NANO // 2 - 1
