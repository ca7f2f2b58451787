"""Whatever a call waits for: there its client may leave, and there its process may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import types
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from app.core.budget import Settle
from app.gateway.calls import Stop
from app.gateway.owned import OwnedCall
from app.gateway.plan import STEP_TOKENS
from app.stores import sqlite_book
from app.stores.budgets_sqlite import SqliteBudgets
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

CAP_NANO = 2_000_000
MOST_AWAITS = 100
UNREAD_NANO = 8 * OUTPUT_NANO
"""What may be on its way from the provider, and is seen by nobody any more, when a client leaves."""
LONG = "Tell me a story of a dragon. " * 20
SAY = [{"role": "user", "content": LONG}]
STORY = Script.of(words(" ".join(["word"] * 40)), obeys_limit=False, delay_s=0.001)
ASKED: dict[str, dict[str, Any]] = {
    "stream": {"messages": SAY, "stream": True},
    "cut": {"messages": SAY, "stream": True, "max_cost_usd": usd(250_000)},
    "folded": {"messages": SAY},
    "whole": {"messages": SAY, "max_tokens": 50},
    "failing first": {"model": "auto", "messages": SAY, "stream": True},
    "embeddings": {"path": "/v1/embeddings", "input": LONG},
}
Step = Callable[[OwnedCall, int], None]


@types.coroutine
def step_by_step(work: Coroutine[Any, Any, None], before: Callable[[int], None]) -> Generator[Any, Any, None]:
    """Carry it out; `before` is called with 1, 2, ... when it is about to wait."""
    go_on, given = work.send, None
    for await_ in range(1, MOST_AWAITS):
        try:
            waits_for = go_on(given)
        except StopIteration:
            return
        before(await_)
        try:
            go_on, given = work.send, (yield waits_for)
        except BaseException as error:
            go_on, given = work.throw, error
    raise AssertionError("it waits too often")


def at_each(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    """Have `step` called before each await of each call, as it begins to wait."""
    run = OwnedCall.run

    async def stepping(call: OwnedCall) -> None:
        await step_by_step(run(call), lambda await_: step(call, await_))

    monkeypatch.setattr(OwnedCall, "run", stepping)


def rules(upstream: ScriptedUpstream) -> dict[str, Any]:
    upstream.source = {"m": STORY, "bad": Script.failure(500)}
    models = {"bad": {"upstream_model": "bad"}, "a": {"provider": "a"}}
    routes = {"auto": {"candidates": ["bad"], "fallback": ["a"]}}
    caps = {"task": {"max_cost_usd": usd(CAP_NANO)}}
    return policy({"a": upstream, "bad": upstream}, models=models, routes=routes, caps=caps)


async def leave_at(live: Live, patch: pytest.MonkeyPatch, await_: int, **asked: Any) -> bool:
    """Ask, and leave where the call begins to wait for this time; False where it ends before."""
    left = asyncio.Event()

    def step(call: OwnedCall, at: int) -> None:
        if at == await_:
            asyncio.get_running_loop().call_soon(call.waits.stop, Stop.CLIENT_GONE)
            left.set()

    at_each(patch, step)
    asking, leaving = asyncio.ensure_future(live.chat(**asked)), asyncio.ensure_future(left.wait())
    await asyncio.wait([asking, leaving], return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if left.is_set():
        asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await live.idle()
    return left.is_set()


@pytest.mark.parametrize("how", ASKED)
async def test_a_client_that_leaves(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with Live(tmp_path, rules(upstream), ledger_url) as live:
        settled: list[str] = []
        budgets, apply = live.services.ledger.budgets, live.services.ledger.budgets.apply

        def noting(op: Any) -> Any:
            if isinstance(op, Settle):
                settled.append(op.call_id)
            return apply(op)

        monkeypatch.setattr(budgets, "apply", noting)
        spent: list[int] = []
        left = True
        while left:
            number = len(spent)
            with monkeypatch.context() as patch:
                left = await leave_at(live, patch, number + 1, task=f"t{number}", user=f"u{number}", **ASKED[how])
            assert await live.held() == {}
            (found,) = await budgets.balances([f"task:-:t{number}"])
            spent.append(0 if found is None else found.spent_nano)
        assert len(spent) > 4
        assert len(settled) == len(set(settled))
        await upstream.until(lambda u: all(request.state != "open" for request in u.requests))
        for number, nano in enumerate(spent):
            asked = [r for r in upstream.requests if (r.model, r.body["user"]) == ("m", f"u{number}")]
            assert nano >= sum(request.tokens.bill(PRICE) for request in asked) - UNREAD_NANO, number


@pytest.mark.parametrize("how", ASKED)
async def test_a_process_that_is_killed(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What a kill would leave in the ledger's file, at each await and at each answer of the ledger."""
    bills: list[int] = []
    ledger = tmp_path / "data" / "ledger.sqlite"

    def keep() -> None:
        bills.append(sum(r.tokens.bill(PRICE) for r in upstream.requests if r.model == "m"))
        with (
            contextlib.closing(sqlite3.connect(ledger)) as now,
            contextlib.closing(sqlite3.connect(tmp_path / f"killed-{len(bills)}.sqlite")) as kept,
        ):
            now.backup(kept)

    async with Live(tmp_path, rules(upstream)) as live:
        budgets, apply = live.services.ledger.budgets, live.services.ledger.budgets.apply

        def keeping(op: Any) -> Any:
            answer = apply(op)
            answer.add_done_callback(lambda _: keep())
            return answer

        monkeypatch.setattr(budgets, "apply", keeping)
        at_each(monkeypatch, lambda *_: keep())
        await live.chat(task="t1", **ASKED[how])
        await live.idle()
    assert len(bills) > 6
    monkeypatch.setattr(sqlite_book, "alive", lambda pid: False)
    most_unseen_nano = 300 * INPUT_NANO + STEP_TOKENS * OUTPUT_NANO
    for number, bill in enumerate(bills, start=1):
        restarted = SqliteBudgets(tmp_path / f"killed-{number}.sqlite")
        await restarted.start()
        try:
            for scope in ("task:-:t1", "global:total"):
                (found,) = await restarted.balances([scope])
                spent, held = (0, 0) if found is None else (found.spent_nano, found.held_nano)
                assert held == 0, (number, scope)
                assert bill <= spent <= bill + most_unseen_nano, (number, scope)
        finally:
            await restarted.close()
