"""One attempt at one candidate: ask it, carry its answer under the meter, and end one of six ways, always settled.

Before the first event a failure is returned as a Verdict, and the call may go elsewhere; from then on the
attempt answers the client itself: complete, cut, broken, or to nobody. What is streamed is `streamed.py`'s.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Protocol

from app.core.errors import BadRequest, BursarError, Draining
from app.core.mend import in_utf8, readable
from app.core.meter import Meter
from app.core.money import usd_text
from app.core.policy import Candidate
from app.core.sse import is_stream
from app.core.types import ChatRequest, Outcome, Provenance
from app.dialects.base import BadEvent, UpstreamRequest
from app.dialects.openai_chat.errors import stopped_error
from app.dialects.server_tools import with_uses
from app.gateway import verdict
from app.gateway.attempt_record import AttemptRecord, total_nano
from app.gateway.calls import Downstream, Stop, Stopped, Waits
from app.gateway.exchange import Relay, exchange_for
from app.gateway.fees import unseen_fee_nano
from app.gateway.limits import CUT_OUTCOMES
from app.gateway.pace import Pace
from app.gateway.plan import Mode
from app.gateway.purse import Purse
from app.gateway.refusals import Refusals, Whose, whose
from app.gateway.seen import seen_of
from app.gateway.streamed import Streamed
from app.gateway.unstreamed import UnstreamedReply
from app.gateway.upstream import ConnectionBroken, NotConnected, Reply, Upstreams
from app.gateway.verdict import Verdict
from app.gateway.view import View

MAX_ERROR_BYTES = 64 * 1024
MOST_MENDINGS = 8
"""A request that is refused again and again, each time for something else, is sent so many times more at the most."""
MAX_NAME_CHARS = 200


class Session(Protocol):
    """What an attempt needs of its call."""

    request: ChatRequest
    view: View
    waits: Waits
    downstream: Downstream
    upstreams: Upstreams
    refusals: Refusals
    started: bool
    soft_cut: bool
    attempts: list[AttemptRecord]
    arrived_s: float  # perf_counter: uvloop's own clock ticks in whole milliseconds
    now_s: Callable[[], float]  # the event loop's clock

    @property
    def key_name(self) -> str:
        """Whose call it is."""

    @property
    def salt(self) -> bytes | None:
        """What hashes of its request are salted with, where that is known."""

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
        self.folds = not session.request.stream  # in plain mode too: some servers stream whatever they were asked
        self.record = AttemptRecord(candidate, purse, mode=purse.plan.mode, clamp_tokens=purse.clamp_tokens)
        self._before_nano = total_nano(session.attempts)
        request = session.request
        if purse.clamp_uses is not None:
            request, self.record.clamp_uses = with_uses(request, purse.clamp_uses), purse.clamp_uses
        self._now_s = session.now_s
        now_s = self._now_s()
        self._task_s = float("inf") if purse.ms_left is None else now_s + purse.ms_left / 1000
        self.hard_s = min(now_s + candidate.budget.hard_timeout_s, self._task_s)
        writing = session.view.policy.writing_tools
        self.exchange = exchange_for(request, candidate, writing, time.time())
        self.pace = Pace(self.record, self.exchange.heard, self.meter, session.arrived_s, folds=self.folds)
        self._sent = False
        self._mended = 0
        self._refusals: list[bytes] = []  # of what no such request can have

    @cached_property
    def relay(self) -> Relay:
        """The stream's state; a plain reply needs none."""
        purse = self.purse
        relay = self.exchange.relay(self.meter, purse.clamp_tokens, folds=self.folds)
        relay.heard = self.exchange.heard
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
                await self.settle_stopped()
            if self.record.outcome is Outcome.COMPLETED:
                session, heard = self.session, self.exchange.heard
                self.record.seen = seen_of(session.request, heard, self.candidate, session.view, session.salt)

    async def _carry(self) -> Verdict | None:
        reply: Reply | None = None
        try:
            reply = await self._open()
            self.record.status = reply.status
            self.record.note_headers(reply.headers)
            if not 200 <= reply.status < 300:  # frameworks answer a POST with 201
                body = (await self._read_error(reply))[:MAX_ERROR_BYTES]
                if self._mends(body):
                    reply.release()
                    return await self._carry()
                return await self.failed(verdict.of_status(reply.status, reply.headers, body, time.time()))
            if self._refusals:
                self.session.refusals.note(self._whose, self._refusals, self._now_s())
            kind = reply.headers.get("content-type", "").lower()
            if self.purse.plan.mode is Mode.PLAIN and "event-stream" not in kind:
                return await self._whole(reply)
            if "json" in kind:
                body = in_utf8(await self.session.waits.io(reply.read_all()))
                reply.release()
                stream = body if is_stream(body) else self.exchange.as_stream(self.relay, body)
                reply = UnstreamedReply(reply.status, reply.headers, stream)
            return await Streamed(self, reply).run()
        except BadRequest as error:
            return await self.failed(verdict.not_carried(error))
        except BadEvent:
            return await self.failed(verdict.garbled())
        except NotConnected as error:
            return await self.failed(verdict.not_connected(str(error)))
        except ConnectionBroken as error:
            return await self.failed(verdict.broken(str(error)), unseen=reply is not None)
        except Stopped:
            if reply is not None:
                reply.close()
            return await self.stopped_early()

    async def _open(self) -> Reply:
        session, plan = self.session, self.purse.plan
        provider = self.candidate.provider
        session.waits.clear_late()  # that was the time of what came before
        asked = self._asked()
        if session.refusals and not self._mended and self._mends_as_before(asked.body):
            asked = self._asked()
        # A plain reply has no first event to wait for: only the hard timeout bounds it.
        self.await_until(None if plan.mode is Mode.PLAIN else provider.deadlines.ttft_s)
        if session.waits.stopped is not None:
            raise Stopped
        self._sent = True
        return await session.waits.io(session.upstreams.open(provider, asked.path, asked.body, asked.headers))

    def _asked(self) -> UpstreamRequest:
        stream = self.purse.plan.mode is not Mode.PLAIN
        return self.exchange.request(self.candidate.upstream_model, self._limit_tokens(), stream=stream)

    def _mends_as_before(self, body: bytes) -> bool:
        """Whether the request is to be sent without what was refused of others like it."""
        known = self.session.refusals.known(self._whose, self._now_s())
        names = [name for refusal in known for name in self.exchange.mends(refusal, lambda: body).names]
        self._note_left_out(names)
        return bool(names)

    def _note_left_out(self, names: list[str]) -> None:
        self.record.left_out += [name[:MAX_NAME_CHARS] for name in names]

    @property
    def _whose(self) -> Whose:
        session = self.session
        return whose(session.key_name, session.request, self.candidate)

    def _limit_tokens(self) -> int | None:
        """The output limit to send: our clamp; or the longest answer of a model that the client has not named, where
        it asks for a longer one, which would be refused; None: the client's own."""
        clamp, request, candidate = self.purse.clamp_tokens, self.session.request, self.candidate
        most, asked = candidate.capabilities.max_output_tokens, request.output_limit
        if clamp is not None or most is None or asked is None or asked <= most:
            return clamp
        return None if candidate.is_named(request.model) else most

    def await_until(self, seconds: float | None) -> None:
        """The next wait may take so long, and no longer than the whole attempt may."""
        hard = self.hard_s
        self.session.waits.deadline_s = hard if seconds is None else min(self._now_s() + seconds, hard)

    def _mends(self, refusal: bytes) -> bool:
        """Whether the request is to be sent once more, without what this error reply refuses, which bills nothing."""
        if self._mended == MOST_MENDINGS:
            return False
        mends = self.exchange.mends(refusal, lambda: self._asked().body)
        if not mends.names:
            return False
        self._mended += 1
        self._note_left_out(mends.names)
        if mends.undone:
            self.session.refusals.forget(self._whose)
        if mends.lasting:
            self._refusals.append(refusal)
        self._sent = False
        return True

    async def _read_error(self, reply: Reply) -> bytes:
        try:
            return await self.session.waits.io(reply.read_all())
        except ConnectionBroken:
            return b""

    async def _whole(self, reply: Reply) -> Verdict | None:
        """One JSON reply: exact usage, one settlement, one answer."""
        body = in_utf8(await self.session.waits.io(reply.read_all()))
        reply.release()
        if is_stream(body):
            return await Streamed(self, UnstreamedReply(reply.status, reply.headers, body)).run()
        try:
            came = self.exchange.read_whole(body, self.meter)
        except BadEvent:
            body = readable(body) or b""
            try:
                came = self.exchange.read_whole(body, self.meter)
            except BadEvent:
                return await self.failed(verdict.garbled())
        self.note_choices(came)
        if self.exchange.misspoken:
            return await self.failed(verdict.misspoken())
        self.pace.all_at_once()
        if self.purse.plan.whole and self.purse.plan.output_rate and not self.meter.exact:
            # What answers that nobody sees have cost is not told: all that they may cost was set aside.
            await self.settle(self.purse.conservative_nano(goes_on=False), Provenance.CONSERVATIVE)
        else:
            await self.settle(self.meter.cost_nano, self.provenance())
        self.record.outcome = Outcome.COMPLETED
        await self.answer(200, self.exchange.shown(body, self.meter, self.call_cost_nano))
        return None

    def note_choices(self, came: int) -> None:
        """Some providers answer with fewer than were asked for; what there is of them is whole."""
        if came < self.session.request.choices:
            self.record.choices = came

    @property
    def out_of_time(self) -> bool:
        """True when it was the task's own clock that stopped the wait."""
        return self.session.waits.stopped is Stop.LATE and self._now_s() >= self._task_s

    async def stopped_early(self) -> Verdict | None:
        """A wait was interrupted before anything was sent."""
        waits = self.session.waits
        if self.out_of_time:
            waits.clear_late()
            await self.settle_stopped()
            self.record.outcome = CUT_OUTCOMES["time"]
            killed_at = usd_text(self.call_cost_nano or 0)
            self.record.cut = {"scope": "task", "reason": "time", "by": "clock", "killed_at_usd": killed_at}
            await self.session.fail(stopped_error("time"))
            return None
        if waits.stopped is Stop.LATE:
            waits.clear_late()
            return await self.failed(verdict.too_late(), unseen=True)
        await self.settle_stopped()
        gone = waits.stopped is Stop.CLIENT_GONE
        self.record.outcome = Outcome.CLIENT_GONE if gone else Outcome.GATEWAY_ERROR
        if not gone:
            await self.session.fail(Draining("The gateway is shutting down.", headers={"retry-after": "1"}))
        return None

    async def failed(self, what: Verdict, *, unseen: bool = False) -> Verdict:
        """Settle a failed attempt: zero where the provider cannot have billed, else at the estimate of what was seen.

        `unseen`: it may have gone on, or have generated what never arrived.
        """
        if unseen:
            await self.settle_stopped()
        elif what.charged:
            await self.settle(self.meter.cost_nano, self.provenance())
        else:
            await self.settle(0, Provenance.METERED)
        self.record.outcome = what.outcome
        self.record.error, self.record.cause = what.error.message, what.cause or None
        return what

    @property
    def call_cost_nano(self) -> int | None:
        """What the call was charged, attempts before this one included; None where any of it is unknown."""
        charged, before = self.record.charged_nano, self._before_nano
        return None if charged is None or before is None else before + charged

    def provenance(self) -> Provenance:
        """Where the meter's cost comes from."""
        if self.meter.cost_nano is None:
            return Provenance.UNKNOWN
        if self.meter.price is not None and not self.meter.cost_nano and self.meter.price.free:
            return Provenance.FREE
        return Provenance.METERED if self.meter.exact and not self.meter.unpriced else Provenance.ESTIMATED

    def stopped_cost(self) -> tuple[int | None, Provenance]:
        """What to charge when the stream did not end by itself."""
        cost = self.meter.cost_nano
        if not self._sent:
            return 0, Provenance.METERED
        relay, plan = self.relay, self.purse.plan
        # An error of its own ends what it generates: nothing goes on that was cancelled.
        goes_on = self.candidate.provider.bills_after_cancel and relay.error is None
        told_all = relay.ended or relay.done or not (goes_on or plan.unseen_nano)
        if cost is None or (self.meter.exact and told_all):
            return cost, self.provenance()
        unseen = goes_on or self.candidate.capabilities.hidden_reasoning or plan.mode is Mode.PLAIN
        if plan.output_rate and unseen:
            # It goes on billing, or generates unseen: all that it may cost was set aside, and nothing comes back.
            return self.purse.conservative_nano(goes_on=goes_on), Provenance.CONSERVATIVE
        if plan.unseen_nano:  # tools may have run, and nobody will say so any more
            more_nano = unseen_fee_nano(self.session.request, self.candidate, self.meter.tools)
            return min(cost + more_nano, self.purse.conservative_nano(goes_on=True)), Provenance.CONSERVATIVE
        return cost, self.provenance()

    async def settle_stopped(self) -> None:
        """Charge what is to be charged where it did not end by itself."""
        await self.settle(*self.stopped_cost())

    async def settle(self, cost_nano: int | None, provenance: Provenance, *, killed: str | None = None) -> None:
        """Charge this, and end the hold; `killed` as in `Purse.settle`."""
        if self.meter.pieces or self.meter.usage is not None:
            self.record.generation_s = self.pace.generation_s()
        await self.purse.settle(cost_nano or 0, killed=killed)
        self.record.charge(cost_nano, provenance)
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

    async def answer(self, status: int, body: bytes) -> None:
        """The whole reply."""
        session = self.session
        session.started = True
        session.waits.deadline_s = self._now_s() + self.candidate.provider.deadlines.write_s
        await self.unless_gone(
            session.downstream.reply(status, session.headers(self.record, self.purse, b"application/json"), body)
        )

    async def unless_gone(self, sending: Any) -> None:
        """The answer is settled: whether the client still takes it changes no money."""
        waits = self.session.waits
        waits.last_word()
        try:
            await waits.io(sending)
        except Stopped:
            if waits.stopped is Stop.CLIENT_GONE and self.record.outcome is Outcome.COMPLETED:
                self.record.outcome = Outcome.CLIENT_GONE
