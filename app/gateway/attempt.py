"""One attempt at one candidate: open, relay under the meter, and end it one of six ways, always settled.

Before the first event a failure is returned as a Verdict, and the call may go elsewhere; from then on the
attempt answers the client itself: complete, cut, broken, or to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from functools import cached_property
from typing import Any, Protocol

from app.core.errors import BadRequest, BursarError, Draining, LedgerDown, UpstreamError
from app.core.meter import Meter
from app.core.money import usd_text
from app.core.policy import Candidate
from app.core.sse import SseOverflow, SseParser
from app.core.types import ChatRequest, Outcome, Provenance
from app.dialects.base import BadEvent
from app.dialects.openai_chat.errors import budget_error, stopped_error
from app.gateway import verdict
from app.gateway.attempt_record import AttemptRecord
from app.gateway.calls import Downstream, Stop, Stopped, Waits
from app.gateway.exchange import Relay, exchange_for
from app.gateway.limits import CUT_OUTCOMES, scope_kind, scope_word
from app.gateway.plan import Mode
from app.gateway.purse import Purse
from app.gateway.seen import seen_of
from app.gateway.unstreamed import UnstreamedReply
from app.gateway.upstream import ConnectionBroken, NotConnected, Reply, Upstreams
from app.gateway.verdict import Verdict
from app.gateway.view import View

MAX_ERROR_BYTES = 64 * 1024
DRAIN_S = 1.0
ALONE_S = 0.25
"""Gemini's clients know a bare error only in a read of its own: what was sent before must have been read by then
(Node's streams join what waits: https://nodejs.org/api/stream.html#readablereadsize)."""
CATCH_UP_S, CAUGHT_UP_S = 0.7, 0.02
"""How long the meter reads on after a client that did not, and how long a silence shows that it has read all."""
EVENT_STREAM = b"text/event-stream; charset=utf-8"


class Session(Protocol):
    """What an attempt needs of its call."""

    request: ChatRequest
    view: View
    waits: Waits
    downstream: Downstream
    upstreams: Upstreams
    started: bool
    soft_cut: bool
    arrived_s: float  # perf_counter: uvloop's own clock ticks in whole milliseconds

    def headers(self, attempt: AttemptRecord, purse: Purse, content_type: bytes) -> list[tuple[bytes, bytes]]:
        """The reply's headers."""

    async def fail(self, error: BursarError) -> None:
        """Answer with an error where nothing was sent yet."""


class Attempt:
    """Owns one reservation and one upstream reply; `run` ends both."""

    def __init__(self, session: Session, candidate: Candidate, purse: Purse) -> None:
        self.session = session
        self.candidate = candidate
        self.purse = purse
        self.meter: Meter = purse.meter
        self.record = AttemptRecord(candidate, purse, mode=purse.plan.mode, clamp_tokens=purse.clamp_tokens)
        self._loop = asyncio.get_running_loop()
        budget = candidate.budget
        self._write_s = candidate.provider.deadlines.write_s
        now_s = self._loop.time()
        self._task_s = float("inf") if purse.ms_left is None else now_s + purse.ms_left / 1000
        self._hard_s = min(now_s + budget.hard_timeout_s, self._task_s)
        self._folds = purse.plan.mode is Mode.FOLD
        writing = session.view.policy.writing_tools
        self._exchange = exchange_for(session.request, candidate.provider, writing, time.time())
        self._sent = False
        self._stalled = False
        self._asked_s = time.perf_counter()
        self._began_s: float | None = None
        self._began_pieces = 0

    @cached_property
    def relay(self) -> Relay:
        """The stream's state; a plain reply needs none."""
        purse = self.purse
        relay = self._exchange.relay(self.meter, purse.clamp_tokens, folds=self._folds)
        relay.heard = self._exchange.heard
        relay.kill_nano = purse.limits.call_nano if purse.allowance_nano is not None else None
        return relay

    async def run(self, before: Awaitable[None] | None = None) -> Verdict | None:
        """Carry the attempt to its end; `before` is awaited first. A Verdict: it failed before the first event, is
        settled, and sent nothing."""
        try:
            if before is not None:
                await before
            return await self._carry()
        finally:
            # Only a defect gets here unsettled; then the estimate stands, and the hold is not leaked.
            if not self.purse.closed:
                await self._settle(*self._stopped_cost())
            if self.record.outcome is Outcome.COMPLETED:
                session = self.session
                self.record.seen = seen_of(session.request, self._exchange.heard, self.candidate, session.view)

    async def _carry(self) -> Verdict | None:
        reply: Reply | None = None
        try:
            reply = await self._open()
            self.record.status = reply.status
            self.record.note_id(reply.headers)
            if reply.status != 200:
                body = (await self._read_error(reply))[:MAX_ERROR_BYTES]
                if self._exchange.mends(body):
                    reply.release()
                    return await self._carry()
                return await self._failed(verdict.of_status(reply.status, reply.headers, body, time.time()))
            kind = reply.headers.get("content-type", "")
            if self.purse.plan.mode is Mode.PLAIN and "event-stream" not in kind:
                return await self._whole(reply)
            if "json" in kind:
                body = await self.session.waits.io(reply.read_all())
                reply.release()
                reply = UnstreamedReply(reply.status, reply.headers, self._exchange.as_stream(self.relay, body))
            return await self._stream(reply)
        except BadRequest as error:
            return await self._failed(verdict.not_carried(error))
        except BadEvent:
            return await self._failed(verdict.garbled())
        except NotConnected:
            return await self._failed(verdict.not_connected())
        except ConnectionBroken:
            return await self._failed(verdict.broken(), unseen=reply is not None)
        except Stopped:
            if reply is not None:
                reply.close()
            return await self._stopped_early()

    async def _open(self) -> Reply:
        session, plan = self.session, self.purse.plan
        provider = self.candidate.provider
        asked = self._exchange.request(
            self.candidate.upstream_model, self.purse.clamp_tokens, stream=plan.mode is not Mode.PLAIN
        )
        # A plain reply has no first event to wait for: only the hard timeout bounds it.
        self._await_until(None if plan.mode is Mode.PLAIN else provider.deadlines.ttft_s)
        if session.waits.stopped is not None:
            raise Stopped
        self._sent = True
        return await session.waits.io(session.upstreams.open(provider, asked.path, asked.body, asked.headers))

    def _await_until(self, seconds: float | None) -> None:
        hard = self._hard_s
        self.session.waits.deadline_s = hard if seconds is None else min(self._loop.time() + seconds, hard)

    async def _read_error(self, reply: Reply) -> bytes:
        try:
            return await self.session.waits.io(reply.read_all())
        except ConnectionBroken:
            return b""

    async def _whole(self, reply: Reply) -> Verdict | None:
        """One JSON reply: exact usage, one settlement, one answer."""
        body = await self.session.waits.io(reply.read_all())
        reply.release()
        try:
            self._exchange.read_whole(body, self.meter)
        except BadEvent:
            return await self._failed(verdict.garbled())
        self._all_at_once()
        await self._settle(self.meter.cost_nano, self._provenance())
        self.record.outcome = Outcome.COMPLETED
        await self._answer(200, self._exchange.shown(body, self.meter, self.record.charged_nano))
        return None

    async def _stream(self, reply: Reply) -> Verdict | None:
        """Relay reads until the stream ends, is cut, breaks, or nobody listens."""
        session, relay = self.session, self.relay
        parser = SseParser()
        try:
            while True:
                with session.waits:
                    await self._pump(reply, parser)
                if not relay.blocked:
                    break
                if self.purse.overrun or not await self.purse.extend():
                    await self._cut(reply, parser, "tokens" if self.purse.out_of_tokens else "budget")
                    return None
        except SseOverflow:
            relay.broken = "an event is too large"
        except ConnectionBroken:
            relay.broken = "the connection died"
        except LedgerDown as error:
            await self._unfunded(reply, parser, error)
            return None
        except Stopped:
            return await self._stopped(reply, parser)
        if relay.broken is None and (relay.done or relay.ended):
            why = "tokens" if self.purse.clamped_by_tokens else "budget"
            if not relay.clamped:
                await self._complete(reply)
            elif self.purse.clamped_to_land and not relay.in_tool:
                # Shorter than the model would have it, and all that was asked for: the task goes on.
                self._exchange.heard.finish = ""  # says nothing of the model
                await self._complete(reply)
            else:
                await self._cut(reply, parser, why)
            return None
        return await self._broke(reply)

    async def _pump(self, reply: Reply, parser: SseParser) -> None:
        """Forward what comes until the stream is over, or blocked because its money is used up."""
        relay, purse, session = self.relay, self.purse, self.session
        waits, push = session.waits, session.downstream.push
        idle_s, loop_time = self.candidate.provider.deadlines.idle_s, self._loop.time
        relay.allowance_nano = purse.allowance_nano
        timing = self._began_s is None or self.record.first_attempt_s is None
        unsent, over = relay.resume() if relay.blocked else b"", False

        def take(data: bytes) -> bool:
            """One read; True where the next can come without waiting for anyone."""
            nonlocal timing, unsent, over
            out = relay.feed(parser.feed(data) if data else parser.close())
            if relay.blocked:
                out += relay.resume()  # exact usage in the same read may have lowered the cost
            if timing:
                timing = self._note_firsts()
            if out and not (session.started and not self._folds and push(out)):
                unsent = out
            if relay.done or relay.broken is not None or not data:
                over = True
                return False
            running = purse.meter.running_nano
            if purse.runs_short(running):
                purse.flush()
            relay.allowance_nano = purse.allowance_nano
            if (purse.overruns(running) or purse.out_of_tokens) and not relay.ended:
                relay.blocked = purse.overrun = True
            if relay.opened:
                waits.deadline_s = min(loop_time() + idle_s, self._hard_s)
            return not (unsent or relay.blocked)

        while True:
            if unsent:
                await self._send(unsent)
                unsent = b""
                if relay.opened:
                    waits.deadline_s = min(loop_time() + idle_s, self._hard_s)
            if over or relay.done or relay.blocked:
                return
            await reply.pour(take)

    async def _send(self, out: bytes) -> None:
        """Forward to the client; the head goes out with the first real event."""
        session = self.session
        if self._folds or not self.relay.opened:
            return
        session.waits.deadline_s = self._loop.time() + self._write_s
        if not session.started:
            self._first_event()
            session.started = True
            await session.downstream.start(200, session.headers(self.record, self.purse, EVENT_STREAM))
        self._stalled = True
        await session.downstream.write(out)
        self._stalled = False

    def _first_event(self) -> None:
        if self.record.ttft_s is None:
            self.record.ttft_s = time.perf_counter() - self.session.arrived_s

    def _all_at_once(self) -> None:
        """The client sees the whole answer at one moment, which is its first token and its first attempt."""
        self._first_event()
        if self._exchange.heard.attempted:
            self.record.first_attempt_s = self.record.ttft_s

    def _note_firsts(self) -> bool:
        """Called after a read: when the answer began, and made its first attempt; True while one is to come."""
        record = self.record
        if self._began_s is None and self.relay.opened:
            self._began_s, self._began_pieces = time.perf_counter(), self.meter.pieces
        if record.first_attempt_s is None and self._exchange.heard.attempted and not self._folds:
            record.first_attempt_s = time.perf_counter() - self.session.arrived_s
        return self._began_s is None or record.first_attempt_s is None

    def _generation_s(self) -> float:
        """How long the output took: from the first token, where most of it was seen to come after that; else from
        when it was asked for, since it was generated unseen (one read brought it all, or the model thinks hidden)."""
        meter, now_s = self.meter, time.perf_counter()
        seen = 2 * (meter.pieces - self._began_pieces) >= max(meter.pieces, meter.output_tokens)
        return now_s - (self._began_s if self._began_s is not None and seen else self._asked_s)

    async def _complete(self, reply: Reply) -> None:
        await self._settle(self.meter.cost_nano, self._provenance())
        self.record.outcome = Outcome.COMPLETED
        if self._folds:
            self._all_at_once()
            await self._answer(200, self.relay.folded(self.record.charged_nano, None))
        else:
            await self._end(self.relay.end_complete(self.record.charged_nano))
        await self._drain(reply)

    async def _drain(self, reply: Reply) -> None:
        """Read past `[DONE]` to the end, so that the connection can serve again; not for long."""
        self.session.waits.deadline_s = self._loop.time() + DRAIN_S
        try:
            while await self.session.waits.io(reply.read()):
                pass
            reply.release()
        except (ConnectionBroken, Stopped):
            reply.close()

    async def _cut(self, reply: Reply, parser: SseParser, why: str = "budget") -> None:
        """The cap is reached: stop the upstream at once, settle, tell the client as its protocol wants it told."""
        purse, session = self.purse, self.session
        if not (self.relay.done or self.relay.ended):
            self._cancel(reply, parser)
        scope = purse.binding_scope if why == "budget" else None
        word = "task" if scope is None else scope_word(scope)
        cost_nano, provenance = self._stopped_cost()
        await self._settle(cost_nano, provenance, killed=scope)
        self.record.outcome = CUT_OUTCOMES[why]
        self.record.cut = {
            "scope": word,
            "reason": why,
            "by": "clamp" if self.relay.clamped else "clock" if why == "time" else "meter",
            "killed_at_usd": usd_text(self.record.charged_nano or 0),
            "in_tool_call": self.relay.in_tool,
        }
        error = stopped_error(why) if scope is None else budget_error(scope_kind(scope), purse.cut_headers)
        soft = session.soft_cut and not self.relay.in_tool and (self.record.ttft_s is not None or self._folds)
        killed_at = self.record.cut["killed_at_usd"]
        cut = f'{{"scope":"{word}","killed_at_usd":{killed_at}}}'.encode()
        if self._folds and soft:
            await self._answer(200, self.relay.folded(self.record.charged_nano, cut))
        elif not session.started:
            await session.fail(error)
        elif soft:
            await self._end(self.relay.end_cut_softly(cut, self.record.charged_nano))
        else:
            await self._end(self.relay.end_cut(error, self.record.charged_nano))
        if self.relay.done or self.relay.ended:
            await self._drain(reply)

    async def _broke(self, reply: Reply) -> Verdict | None:
        """The upstream died or talked nonsense. After the first event that is an honest error, without `[DONE]`."""
        reply.close()
        if not self.session.started:
            what = verdict.garbled() if self.relay.broken and not self.relay.error else verdict.broken()
            if self.relay.error is not None:
                what = verdict.of_stream_error(self.relay.error)
            return await self._failed(what, unseen=self.relay.error is None)
        await self._settle(*self._stopped_cost())
        self.record.outcome = Outcome.API_ERROR
        self.record.error = self.relay.broken or "the stream ended before it was finished"
        error = UpstreamError("The provider's stream broke off before it was finished.")
        await self._end(self.relay.end_broken(error))
        return None

    async def _stopped(self, reply: Reply, parser: SseParser) -> Verdict | None:
        """A wait was interrupted in mid-stream: the client left, a deadline passed, or the gateway shuts down."""
        waits = self.session.waits
        if self._stalled:
            await self._catch_up(reply, parser)
        if self._out_of_time:
            waits.clear_late()
            await self._cut(reply, parser, "time")
            return None
        self._cancel(reply, parser)
        if not self.session.started:
            return await self._stopped_early()
        await self._settle(*self._stopped_cost())
        if waits.stopped is Stop.CLIENT_GONE:
            self.record.outcome = Outcome.CLIENT_GONE
            return None
        late = waits.stopped is Stop.LATE
        self.record.outcome = Outcome.TIMEOUT if late else Outcome.GATEWAY_ERROR
        self.record.error = "a deadline passed" if late else "the gateway was shut down"
        waits.clear_late()
        waits.stopped = None
        waits.deadline_s = self._loop.time() + DRAIN_S
        error = UpstreamError("The provider took too long." if late else "The gateway is shutting down.")
        try:
            await self._end(self.relay.end_broken(error))
        except Stopped:
            self.record.outcome = Outcome.CLIENT_GONE
        return None

    @property
    def _out_of_time(self) -> bool:
        """True when it was the task's own clock that stopped the wait."""
        return self.session.waits.stopped is Stop.LATE and self._loop.time() >= self._task_s

    async def _catch_up(self, reply: Reply, parser: SseParser) -> None:
        """The client did not read, so nor did we: meter what lies in the buffers on the way, for it is billed."""
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while True:
                    async with asyncio.timeout(CAUGHT_UP_S):
                        data = await reply.read()
                    if not data:
                        return
                    self.relay.feed(parser.feed(data))
        except (TimeoutError, ConnectionBroken, SseOverflow):
            return

    def _cancel(self, reply: Reply, parser: SseParser) -> None:
        """Stop the upstream at once. What has arrived has been billed, whether anyone still reads it or not."""
        with contextlib.suppress(SseOverflow):
            self.relay.feed(parser.feed(reply.buffered()))
        reply.close()

    async def _unfunded(self, reply: Reply, parser: SseParser, error: LedgerDown) -> None:
        """In mid-stream the ledger gives no answer: no cap is reached, and yet nothing more may be spent."""
        self._cancel(reply, parser)
        await self._settle(*self._stopped_cost())
        self.record.outcome, self.record.error = Outcome.LEDGER_DOWN, error.message
        if self.session.started:
            await self._end(self.relay.end_broken(error))
        else:
            await self.session.fail(error)

    async def _stopped_early(self) -> Verdict | None:
        """Interrupted before anything was sent."""
        waits = self.session.waits
        if self._out_of_time:
            waits.clear_late()
            await self._settle(*self._stopped_cost())
            self.record.outcome = CUT_OUTCOMES["time"]
            killed_at = usd_text(self.record.charged_nano or 0)
            self.record.cut = {"scope": "task", "reason": "time", "by": "clock", "killed_at_usd": killed_at}
            await self.session.fail(stopped_error("time"))
            return None
        if waits.stopped is Stop.LATE:
            waits.clear_late()
            return await self._failed(verdict.too_late(), unseen=True)
        await self._settle(*self._stopped_cost())
        gone = waits.stopped is Stop.CLIENT_GONE
        self.record.outcome = Outcome.CLIENT_GONE if gone else Outcome.GATEWAY_ERROR
        if not gone:
            await self.session.fail(Draining("The gateway is shutting down.", headers={"retry-after": "1"}))
        return None

    async def _failed(self, what: Verdict, *, unseen: bool = False) -> Verdict:
        """Settle a failed attempt: zero where the provider cannot have billed, else at the estimate of what was seen.

        `unseen`: it may have gone on, or have generated what never arrived.
        """
        if unseen:
            await self._settle(*self._stopped_cost())
        elif what.charged:
            await self._settle(self.meter.cost_nano, self._provenance())
        else:
            await self._settle(0, Provenance.METERED)
        self.record.outcome = what.outcome
        self.record.error = what.error.message
        return what

    def _provenance(self) -> Provenance:
        if self.meter.cost_nano is None:
            return Provenance.UNKNOWN
        if self.meter.price is not None and not self.meter.cost_nano and self.meter.price.free:
            return Provenance.FREE
        return Provenance.METERED if self.meter.exact and not self.meter.unpriced else Provenance.ESTIMATED

    def _stopped_cost(self) -> tuple[int | None, Provenance]:
        """What to charge when the stream did not end by itself."""
        cost = self.meter.cost_nano
        if not self._sent:
            return 0, Provenance.METERED
        over = self.relay.ended or self.relay.done
        if cost is None or (self.meter.exact and (over or not self.candidate.provider.bills_after_cancel)):
            return cost, self._provenance()
        if self.purse.plan.strict and self.purse.plan.output_rate:
            # It goes on billing, or generates unseen: all that it may cost was set aside, and nothing comes back.
            return self.purse.conservative_nano(), Provenance.CONSERVATIVE
        return cost, self._provenance()

    async def _settle(self, cost_nano: int | None, provenance: Provenance, *, killed: str | None = None) -> None:
        if self.meter.pieces or self.meter.usage is not None:
            self.record.generation_s = self._generation_s()
        await self.purse.settle(cost_nano or 0, killed=killed)
        self.record.charged_nano, self.record.provenance = cost_nano, provenance
        if self.purse.lands and self.purse.plan.mode is not Mode.PLAIN:
            self.relay.left_nano = self.purse.remaining_nano
        usage, meter = self.meter.usage, self.meter
        self.record.usage = {
            "input_tokens": usage.input if usage else meter.input_tokens,
            "output_tokens": meter.output_tokens,
            "cache_read_tokens": usage.cache_read if usage else 0,
            "reasoning_tokens": usage.reasoning if usage else 0,
            **{f"{tool}_uses": times for tool, times in meter.tools},
        }

    async def _answer(self, status: int, body: bytes) -> None:
        session = self.session
        session.started = True
        session.waits.deadline_s = self._loop.time() + self._write_s
        await self._unless_gone(
            session.downstream.reply(status, session.headers(self.record, self.purse, b"application/json"), body)
        )

    async def _end(self, tail: bytes) -> None:
        session = self.session
        session.waits.deadline_s = self._loop.time() + self._write_s
        if not session.started:
            self._first_event()
            session.started = True
            await self._unless_gone(
                session.downstream.start(200, session.headers(self.record, self.purse, EVENT_STREAM))
            )
        elif tail.startswith(b'{"error"'):
            await self._unless_gone(asyncio.sleep(ALONE_S))
        await self._unless_gone(session.downstream.finish(tail))

    async def _unless_gone(self, sending: Any) -> None:
        """The answer is settled: whether the client still takes it changes no money."""
        try:
            await self.session.waits.io(sending)
        except Stopped:
            if self.session.waits.stopped is Stop.CLIENT_GONE and self.record.outcome is Outcome.COMPLETED:
                self.record.outcome = Outcome.CLIENT_GONE
