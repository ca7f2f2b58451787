"""A cut while the ledger cannot be asked how its cap stands: no task is closed in which others hold money."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.core.budget import Balance
from app.stores.budgets import LedgerUnavailable
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words


async def silent(scopes: Sequence[str]) -> list[Balance | None]:
    raise LedgerUnavailable("too many ask at once")


@pytest.mark.parametrize("others", [True, False], ids=["others hold money", "nobody else"])
async def test_a_task_is_closed_only_where_nothing_may_come_back(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, others: bool
) -> None:
    cap_nano, gate = 50 * INPUT_NANO + 160 * OUTPUT_NANO, Gate()
    holding, story = Script.of(words("One two three."), gate=gate), Script.of(words("a story " * 200), delay_s=0.001)
    scripts = iter([holding, story, Script.of(words("It goes on."))] if others else [story])
    upstream.source = lambda _: next(scripts)
    rules = policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap_nano)}})
    async with Live(tmp_path, rules, ledger_url) as live:
        if others:
            first = asyncio.ensure_future(live.chat(task="t1", max_tokens=90))
            await upstream.until(lambda u: u.requests)
        budgets = live.services.ledger.budgets
        balances, budgets.balances = budgets.balances, silent  # type: ignore[method-assign]
        cut = await live.chat(task="t1", stream=True)
        assert cut.error_code == "budget_exceeded"
        budgets.balances = balances  # type: ignore[method-assign]
        if others:
            gate.open()
            assert (await first).status == 200
        assert (await live.balance("task:t1")).exhausted == (not others)
        assert (await live.chat(task="t1", max_tokens=5)).status == (200 if others else 402)
