"""CPU microseconds of the gateway's parts, each alone and in this process: where a request's time goes."""

from __future__ import annotations

import datetime as dt
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from app.core.budget import Claim, Granted, Reserve, Settle, Settled
from app.core.meter import Meter
from app.core.policy import HEURISTIC, Candidate, ChatHabits, Policy
from app.core.sse import Frame, SseParser
from app.core.types import ChatRequest
from app.core.windows import moment_of
from app.dialects.openai_chat.decode import decode_event, decode_whole
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.openai_chat.relay import ChatRelay
from app.dialects.openai_chat.render import render_chat
from app.gateway.decide import decide, view_of
from app.gateway.limits import ClientCaps, limits_for
from app.gateway.plan import plan_attempt
from app.gateway.target import resolve
from app.gateway.view import View
from app.stores.budgets import Budgets
from app.stores.budgets_redis import RedisBudgets
from app.stores.budgets_sqlite import SqliteBudgets
from app.stores.policy_file import build_policy
from app.stores.policy_yaml import Source
from app.stores.prices import Catalogue
from routers.features import extract
from routers.heuristic import HeuristicRouter
from tests.bench.canned import CHUNKS, EVENTS, ROUTE, TEXT_EVENT, WHOLE_BODY, chat_body, stamped
from tests.bench.systems import policy_text, running_store

BATCH_S = 0.05
BATCHES = 7
LEDGER_BATCHES = (1, 8, 32)
LEDGER_CALLS = 2048
INPUT_TOKENS = 500


class Part(msgspec.Struct, frozen=True):
    """What one part costs, in microseconds of CPU (all threads of this process); `per`: of what."""

    name: str
    per: str
    cpu_us: float
    wall_us: float | None = None


def cpu_us(work: Callable[[], object], *, per: int = 1, batch_s: float = BATCH_S) -> float:
    """The median CPU time of one call, divided by `per`."""
    work()
    began_s = time.perf_counter()
    work()
    rounds = max(int(batch_s / max(time.perf_counter() - began_s, 1e-7)), 1)
    took = []
    for _ in range(BATCHES):
        before_ns = time.process_time_ns()
        for _ in range(rounds):
            work()
        took.append((time.process_time_ns() - before_ns) / rounds)
    return round(statistics.median(took) / per / 1000, 2)


def policy_with(candidates: int) -> Policy:
    """The benchmark's policy, compiled."""
    text = policy_text("http://127.0.0.1:9/v1", candidates=candidates)
    return build_policy([Source("bench.yaml", text.encode())], source="bench.yaml", env={}, catalogue=Catalogue(b"{}"))


def request_parts(batch_s: float = BATCH_S) -> Iterator[Part]:
    """What is done once for a request."""
    for size, prompt_bytes in (("2 kB", 2_000), ("100 kB", 100_000)):
        body = chat_body(prompt_bytes=prompt_bytes, stream=False, pace_ms=None)
        request = parse_chat(body)
        yield Part(f"parse, {size}", "request", cpu_us(partial(parse_chat, body), batch_s=batch_s))
        for arms in (3, 10):
            view = View(policy_with(arms), {HEURISTIC: HeuristicRouter()}, Catalogue(b"{}"))
            yield Part(f"features and score, {arms} arms, {size}", "request", _scoring_us(request, view, batch_s))
            yield Part(f"decide, {arms} candidates, {size}", "request", _deciding_us(request, view, batch_s))
        candidate = view.policy.models["m1"]
        yield Part(
            f"limits and plan, {size}", "request", cpu_us(_planning(request, view.policy, candidate), batch_s=batch_s)
        )
        yield Part(f"render, {size}", "request", cpu_us(partial(_render, request), batch_s=batch_s))
    yield Part("decode a whole reply", "request", cpu_us(lambda: decode_whole(WHOLE_BODY), batch_s=batch_s))


def _scoring_us(request: ChatRequest, view: View, batch_s: float) -> float:
    arms = [view.arm(candidate) for candidate in view.policy.models.values()]
    return cpu_us(lambda: view.routers[HEURISTIC].score(extract(view_of(request)), arms), batch_s=batch_s)


def _deciding_us(request: ChatRequest, view: View, batch_s: float) -> float:
    def work() -> object:
        return decide(
            request,
            resolve(view, ROUTE),
            view,
            unit="task",
            input_tokens=lambda _: INPUT_TOKENS,
            available=lambda _: True,
            capped=lambda _: True,
        )

    return cpu_us(work, batch_s=batch_s)


def _planning(request: ChatRequest, policy: Policy, candidate: Candidate) -> Callable[[], object]:
    key, moment = next(iter(policy.keys.values())), moment_of(dt.datetime(2025, 1, 1, tzinfo=dt.UTC))

    def work() -> object:
        limits = limits_for(policy, candidate, key, "task", ClientCaps(), moment)
        return plan_attempt(request, candidate, limits, INPUT_TOKENS)

    return work


def _render(request: ChatRequest) -> bytes:
    return render_chat(request, upstream_model="bench-1", limit_tokens=900, habits=ChatHabits(), stream=False)


def stream_parts(batch_s: float = BATCH_S) -> Iterator[Part]:
    """What is done for every chunk; `read` says how the chunks come from the upstream."""
    events = [stamped(event, time.monotonic_ns()) for event in EVENTS]
    frames = SseParser().feed(b"".join(events))
    data = stamped(TEXT_EVENT, time.monotonic_ns())[len(b"data: ") :].strip()
    price = policy_with(1).models["m1"].price

    def relay() -> ChatRelay:
        made = ChatRelay(Meter(price, INPUT_TOKENS, 1000), choices=1, show_usage=True, clamp_tokens=None)
        made.allowance_nano = 10**12
        return made

    def parse(reads: list[bytes]) -> None:
        parser = SseParser()
        for read in reads:
            parser.feed(read)

    def forward(reads: list[list[Frame]]) -> None:
        made = relay()
        for read in reads:
            made.feed(read)
        assert made.done

    yield Part("decode a chunk", "chunk", cpu_us(lambda: decode_event(data), batch_s=batch_s))
    for how, reads in (("one a read", events), ("all in one read", [b"".join(events)])):
        taken = [frames] if len(reads) == 1 else [[frame] for frame in frames]
        yield Part(f"SSE feed, {how}", "chunk", cpu_us(partial(parse, reads), per=CHUNKS, batch_s=batch_s))
        yield Part(f"relay, {how}", "chunk", cpu_us(partial(forward, taken), per=CHUNKS, batch_s=batch_s))


async def ledger_parts(budgets: Budgets, store: str, calls: int = LEDGER_CALLS) -> list[Part]:
    """Reserve and settle, so many calls in one tick of the event loop; Redis's own CPU is not counted."""
    claims = tuple(Claim(scope, 10**15) for scope in ("key:b:day:2025-01-01", "key:b:month:2025-01", "key:b:total"))
    numbers = itertools.count()
    found = []
    for together in LEDGER_BATCHES:
        await _spend(budgets, claims, numbers, together)
        cpu, wall = [], []
        for _ in range(BATCHES):
            rounds = max(calls // together // BATCHES, 1)
            cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
            for _ in range(rounds):
                await _spend(budgets, claims, numbers, together)
            cpu.append((time.process_time_ns() - cpu_ns) / rounds / together / 1000)
            wall.append((time.perf_counter_ns() - wall_ns) / rounds / 1000)
        name = f"reserve and settle, {store}, {together} in a tick"
        found.append(Part(name, "call", round(statistics.median(cpu), 1), round(statistics.median(wall), 1)))
    return found


async def _spend(budgets: Budgets, claims: tuple[Claim, ...], numbers: Iterator[int], together: int) -> None:
    ids = [f"bench-{next(numbers)}" for _ in range(together)]
    own = [(*claims, Claim(f"task:b:{call_id}", 10**9)) for call_id in ids]
    held = [
        budgets.apply(Reserve(call_id, budgets.owner, scopes, 1_000, 100_000, 50_000, 1))
        for call_id, scopes in zip(ids, own, strict=True)
    ]
    for granted in held:
        assert isinstance(await granted, Granted)
    for settled in [budgets.apply(Settle(call_id, 40_000)) for call_id in ids]:
        assert isinstance(await settled, Settled)


async def _with_ledger(budgets: Budgets, store: str) -> list[Part]:
    await budgets.start()
    try:
        return await ledger_parts(budgets, store)
    finally:
        await budgets.close()


def all_parts(say: Callable[[str], None]) -> list[Part]:
    """Everything there is."""
    gc.collect()
    gc.freeze()  # as the gateway does
    say("parts of a request")
    parts = list(request_parts())
    say("parts of a stream")
    parts += stream_parts()
    say("the ledger on SQLite")
    with tempfile.TemporaryDirectory(prefix="bursar-bench-") as folder:
        parts += uvloop.run(_with_ledger(SqliteBudgets(Path(folder) / "ledger.sqlite"), "SQLite"))
    say("the ledger on Redis")
    with running_store("redis") as url:
        assert url is not None
        parts += uvloop.run(_with_ledger(RedisBudgets(url), "Redis"))
    return parts
