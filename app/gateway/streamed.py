"""What an attempt streams: reads relayed under the meter, and their end: complete, cut, broken, or to nobody."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from app.core.errors import BodyTimeout, BursarError, Draining, LedgerDown, UpstreamError, UpstreamTimeout
from app.core.money import usd_text
from app.core.sse import Frame, SseOverflow, SseParser
from app.core.types import Outcome
from app.dialects.base import BadEvent
from app.dialects.openai_chat.errors import budget_error, stopped_error
from app.gateway import verdict
from app.gateway.calls import Stop, Stopped
from app.gateway.limits import CUT_OUTCOMES, scope_kind, scope_word
from app.gateway.upstream import ConnectionBroken, Reply
from app.gateway.verdict import Verdict

if TYPE_CHECKING:  # the two are one object's halves
    from app.gateway.attempt import Attempt

DRAIN_S = 1.0
ALONE_S = 0.25
"""Gemini's clients know a bare error only in a read of its own: what was sent before must have been read by then
(Node's streams join what waits: https://nodejs.org/api/stream.html#readablereadsize)."""
CATCH_UP_S, CAUGHT_UP_S = 0.7, 0.02
"""How long the meter reads on after a client that did not, and how long a silence shows that it has read all."""
EVENT_STREAM = b"text/event-stream; charset=utf-8"
ARRAY = b"application/json; charset=UTF-8"
"""A stream that is one JSON array, as Google marks it."""


class Streamed:
    """One streamed reply of one attempt, which settles and answers for it; `run` ends it."""

    def __init__(self, attempt: Attempt, reply: Reply) -> None:
        self._attempt = attempt
        self._reply = reply
        self._parser = SseParser()
        self._session, self._purse, self._record = attempt.session, attempt.purse, attempt.record
        self._relay, self._pace, self._folds = attempt.relay, attempt.pace, attempt.folds
        self._now_s = attempt.session.now_s
        self._deadlines = attempt.candidate.provider.deadlines
        self._stalled = False
        self._late = b""  # metered, and not sent: it waits for the client, or a wait was over before
        self._kind = ARRAY if attempt.session.request.array else EVENT_STREAM

    async def run(self) -> Verdict | None:
        """Relay reads until the stream ends, is cut, breaks, or nobody listens."""
        session, relay = self._session, self._relay
        try:
            while True:
                with session.waits:
                    await self._pump()
                if not relay.blocked:
                    break
                if not self._purse.overrun and await self._purse.extend(ended=relay.ended):
                    continue
                if self._purse.out_of_tokens or not await self._pays_for_all():
                    await self._cut("tokens" if self._purse.out_of_tokens else "budget")
                    return None
                break
        except SseOverflow:
            relay.broken = "an event is too large"
        except ConnectionBroken:
            relay.broken = "the connection died"
        except LedgerDown as error:
            await self._unfunded(error)
            return None
        except Stopped:
            return await self._stopped()
        if relay.hollow:
            relay.broken = "[DONE] came where nothing had been finished"
        if relay.broken is None and (relay.done or relay.whole):
            why = "tokens" if self._purse.clamped_by_tokens else "budget"
            exchange = self._attempt.exchange
            if not session.started and not relay.clamped and exchange.misspoken and (self._folds or exchange.no_end):
                self._reply.close()
                return await self._attempt.failed(verdict.misspoken())
            if exchange.no_end and not relay.clamped:
                relay.broken = "the model failed to call a tool"
                return await self._broke()
            if not relay.clamped:
                await self._complete()
            elif self._purse.clamped_to_land and not relay.in_tool:
                # Shorter than the model would have it, and all that was asked for: the task goes on.
                self._attempt.exchange.heard.finish = ""  # says nothing of the model
                await self._complete()
            else:
                await self._cut(why)
            return None
        return await self._broke()

    async def _pump(self) -> None:
        """Forward what comes until the stream is over, or blocked because its money is used up."""
        relay, purse, session = self._relay, self._purse, self._session
        waits, push = session.waits, session.downstream.push
        parser, pace = self._parser, self._pace
        idle_s, hard_s, now_s = self._deadlines.idle_s, self._attempt.hard_s, self._now_s
        relay.allowance_nano = purse.allowance_nano
        timing = pace.awaited
        self._late, over = relay.resume() if relay.blocked else b"", False

        def take(data: bytes) -> bool:
            """One read; True where the next can come without waiting for anyone."""
            nonlocal timing, over
            out = relay.feed(parser.feed(data) if data else self._last_frames())
            if relay.blocked:
                out += relay.resume()  # exact usage in the same read may have lowered the cost
            if timing:
                timing = pace.note(opened=relay.opened)
            if out and not (session.started and not self._folds and push(out)):
                self._late = out
            if relay.done or relay.broken is not None or not data:
                over = True
                return False
            running = purse.meter.running_nano
            if purse.runs_short(running):
                purse.flush()
            relay.allowance_nano = purse.allowance_nano
            if purse.overruns(running) and not relay.ended:
                relay.blocked = purse.overrun = True
            if relay.opened:
                until_s = now_s() + idle_s
                waits.deadline_s = until_s if until_s < hard_s else hard_s
            return not (self._late or relay.blocked)

        while True:
            if self._late:
                await self._send()
                if relay.opened:
                    waits.deadline_s = min(now_s() + idle_s, hard_s)
            if over or relay.done or relay.blocked:
                return
            await self._reply.pour(take)

    def _last_frames(self) -> list[Frame]:
        """What ended without its blank line. Where it is the whole reply as JSON, by whatever name it came, as the
        stream that would have said it."""
        frames = self._parser.close()
        if not self._relay.opened and frames and frames[0].data is None and frames[0].raw.startswith(b"{"):
            with contextlib.suppress(BadEvent):
                return self._parser.feed(self._attempt.exchange.as_stream(self._relay, frames[0].raw))
        return frames

    async def _send(self) -> None:
        """Forward to the client what is late; the head goes out with the first real event."""
        session = self._session
        session.waits.deadline_s = self._now_s() + self._deadlines.write_s
        if not session.started:
            self._pace.first_event()
            session.started = True
            await session.downstream.start(200, session.headers(self._record, self._purse, self._kind))
        self._stalled = True
        await session.downstream.write(self._late)
        self._stalled, self._late = False, b""

    async def _complete(self) -> None:
        await self._attempt.settle(self._purse.meter.cost_nano, self._attempt.provenance())
        self._record.outcome = Outcome.COMPLETED
        self._attempt.note_choices(self._relay.came)
        if self._folds:
            self._pace.all_at_once()
            await self._attempt.answer(200, self._relay.folded(self._attempt.call_cost_nano, None))
        else:
            await self._end(self._relay.end_complete(self._attempt.call_cost_nano))
        await self._drain()

    async def _drain(self) -> None:
        """Read past `[DONE]` to the end, so that the connection can serve again; not for long."""
        self._session.waits.deadline_s = self._now_s() + DRAIN_S
        try:
            while await self._session.waits.io(self._reply.read()):
                pass
            self._reply.release()
        except (ConnectionBroken, Stopped):
            self._reply.close()

    async def _pays_for_all(self) -> bool:
        """No more is to be had: send on what is paid for of all that came at once. True where that is a whole reply."""
        relay = self._relay
        if not (relay.done or relay.ended):
            self._cancel()
        relay.allowance_nano = await self._purse.payable_nano()
        self._late += relay.resume()
        return not relay.blocked and relay.broken is None and (relay.done or relay.whole)

    async def _cut(self, why: str = "budget") -> None:
        """The cap is reached: stop the upstream at once, settle, tell the client as its protocol wants it told."""
        purse, session = self._purse, self._session
        if not (self._relay.done or self._relay.ended):
            self._cancel()
        shows = session.started or bool(self._late)
        scope = purse.binding_scope if why == "budget" else None
        word = "task" if scope is None else scope_word(scope)
        cost_nano, provenance = self._attempt.stopped_cost()
        await self._attempt.settle(cost_nano, provenance, killed=scope)
        call_nano = self._attempt.call_cost_nano
        self._record.outcome = CUT_OUTCOMES[why]
        self._record.cut = {
            "scope": word,
            "reason": why,
            "by": "clamp" if self._relay.clamped else "clock" if why == "time" else "meter",
            "killed_at_usd": usd_text(call_nano or 0),
            "in_tool_call": self._relay.in_tool,
        }
        error = stopped_error(why) if scope is None else budget_error(scope_kind(scope), purse.cut_headers)
        soft = session.soft_cut and not self._relay.in_tool and (shows or self._folds)
        killed_at = self._record.cut["killed_at_usd"]
        cut = f'{{"scope":"{word}","killed_at_usd":{killed_at}}}'.encode()
        if self._folds and soft:
            await self._attempt.answer(200, self._relay.folded(call_nano, cut))
        elif not shows:
            await session.fail(error)
        elif soft:
            await self._end(self._relay.end_cut_softly(cut, call_nano))
        else:
            await self._end(self._relay.end_cut(error, call_nano))
        if self._relay.done or self._relay.ended:
            await self._drain()

    async def _broke(self) -> Verdict | None:
        """The upstream died or talked nonsense. After the first event that is an honest error, without `[DONE]`."""
        self._reply.close()
        if not self._session.started:
            what = verdict.garbled() if self._relay.broken and not self._relay.error else verdict.broken()
            if self._relay.error is not None:
                what = verdict.of_stream_error(self._relay.error)
            # What a folded reply had said before its error is billed, as in a stream that its client has seen.
            meter = self._purse.meter
            unseen = self._relay.error is None or bool(meter.pieces) or meter.usage is not None
            return await self._attempt.failed(what, unseen=unseen)
        await self._attempt.settle_stopped()
        self._record.outcome = Outcome.API_ERROR
        self._record.error = self._relay.broken or "the stream ended before it was finished"
        error = UpstreamError("The provider's stream broke off before it was finished.")
        await self._end(self._relay.end_broken(error))
        return None

    async def _stopped(self) -> Verdict | None:
        """A wait was interrupted in mid-stream: the client left, a deadline passed, or the gateway shuts down."""
        waits = self._session.waits
        if self._stalled:
            await self._catch_up()
        if self._attempt.out_of_time:
            waits.clear_late()
            await self._cut("time")
            return None
        for _ in range(2):  # the event loop looks at its sockets, then reads them: what has come by now is billed
            await asyncio.sleep(0)
        self._cancel()
        if not self._session.started:
            return await self._attempt.stopped_early()
        await self._attempt.settle_stopped()
        if waits.stopped is Stop.CLIENT_GONE:
            self._record.outcome = Outcome.CLIENT_GONE
            return None
        error: BursarError
        if waits.stopped is not Stop.LATE:
            self._record.outcome, self._record.error = Outcome.GATEWAY_ERROR, "the gateway was shut down"
            error = Draining("The gateway is shutting down.")
        elif self._stalled:  # by its client, for which no provider is to blame
            self._record.outcome, self._record.error = Outcome.CLIENT_GONE, "the client did not read"
            error = BodyTimeout("The reply was not read in time.")
        else:
            self._record.outcome, self._record.error = Outcome.TIMEOUT, "a deadline passed"
            error = UpstreamTimeout("The provider took too long.")
        waits.clear_late()
        waits.stopped = None
        waits.deadline_s = self._now_s() + DRAIN_S
        try:
            await self._end(self._relay.end_broken(error))
        except Stopped:
            self._record.outcome = Outcome.CLIENT_GONE
        return None

    async def _catch_up(self) -> None:
        """The client did not read, so nor did we: meter what lies in the buffers on the way, for it is billed."""
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while True:
                    async with asyncio.timeout(CAUGHT_UP_S):
                        data = await self._reply.read()
                    if not data:
                        return
                    self._late += self._relay.feed(self._parser.feed(data))
        except (TimeoutError, ConnectionBroken, SseOverflow):
            return

    def _cancel(self) -> None:
        """Stop the upstream at once. What has arrived has been billed, whether anyone still reads it or not."""
        with contextlib.suppress(SseOverflow):
            self._late += self._relay.feed(self._parser.feed(self._reply.buffered()))
        self._reply.close()

    async def _unfunded(self, error: LedgerDown) -> None:
        """In mid-stream the ledger gives no answer: no cap is reached, and yet nothing more may be spent."""
        self._cancel()
        await self._attempt.settle_stopped()
        self._record.outcome, self._record.error = Outcome.LEDGER_DOWN, error.message
        if self._session.started:
            await self._end(self._relay.end_broken(error))
        else:
            await self._session.fail(error)

    async def _end(self, tail: bytes) -> None:
        session, began = self._session, self._session.started
        session.waits.deadline_s = self._now_s() + self._deadlines.write_s
        if not began:
            self._pace.first_event()
            session.started = True
            await self._attempt.unless_gone(
                session.downstream.start(200, session.headers(self._record, self._purse, self._kind))
            )
        if self._late:  # events are numbered in some dialects: none may be missing
            await self._attempt.unless_gone(session.downstream.write(self._late))
        if tail.startswith(b'{"error"'):
            await self._attempt.unless_gone(asyncio.sleep(ALONE_S))
        await self._attempt.unless_gone(session.downstream.finish(tail))
