"""An embeddings call: priced and capped like any other, its cost being its input; one JSON reply, no stream."""

from __future__ import annotations

import time
from functools import partial

from app.core.errors import BadRequest, BudgetContended, BudgetExceeded, BursarError, RateLimited, TaskStopped, Unpriced
from app.core.mend import in_utf8
from app.core.meter import Meter
from app.core.money import tokens_cost
from app.core.policy import Candidate, Key
from app.core.types import Outcome, Provenance
from app.dialects.base import BadEvent
from app.dialects.openai_chat.decode import decode_usage
from app.dialects.openai_chat.embeddings import EmbeddingsRequest
from app.dialects.openai_chat.errors import stopped_error
from app.dialects.openai_chat.whole import with_cost
from app.gateway import verdict
from app.gateway.attempt_record import AttemptRecord, total_nano
from app.gateway.calls import Downstream, Stop, Stopped
from app.gateway.copies import in_turn
from app.gateway.fees import unpriced_error
from app.gateway.limits import ClientCaps
from app.gateway.owned import OwnedCall
from app.gateway.plan import Mode, Plan
from app.gateway.purse import Purse
from app.gateway.record import CallRecord
from app.gateway.services import Services
from app.gateway.target import resolve
from app.gateway.unpriced import refuse_unpriced
from app.gateway.upstream import ConnectionBroken, NotConnected
from app.gateway.verdict import Move, Verdict

INPUT_MARGIN = 1.25
"""Embedding inputs are reserved a quarter above their estimate: usage, which is always sent, settles them exactly."""


class EmbeddingsCall(OwnedCall):
    """One `POST /v1/embeddings`, to the model it names or to a route's candidates in order."""

    def __init__(
        self,
        services: Services,
        request: EmbeddingsRequest,
        downstream: Downstream,
        *,
        key: Key | None,
        caps: ClientCaps,
        record: CallRecord,
    ) -> None:
        super().__init__(services, downstream, key=key, caps=caps, record=record)
        self._request = request
        self._task_s = float("inf")

    async def serve(self) -> None:
        """Ask the candidates that embed, in order."""
        target = resolve(self.view, self._request.model, self.key).of_task(None)
        candidates = [
            c for c in (*target.candidates, *target.fallback) if c.capabilities.embeddings or not target.route
        ]
        if not candidates:
            raise BadRequest("No candidate of this route makes embeddings.", param="model")
        denial: BursarError | None = None
        failure: BursarError | None = None
        available = partial(self.services.health.available, now_s=self.now_s())
        each = {c.name: c for c in candidates}.values()
        every = [copy for c in each for copy in in_turn(c, self.record.request_id, available)]
        for candidate in [c for c in every if available(c.circuit)] or every:
            try:
                failed = await self._attempt(candidate)
            except (BudgetExceeded, BudgetContended, Unpriced) as error:
                denial = denial or error
                if isinstance(error, TaskStopped | RateLimited) or (
                    isinstance(error, BudgetExceeded) and self.took_it_itself(error, candidate)
                ):
                    raise
                continue
            self._note_health(candidate, failed)
            if failed is None:
                return
            failure = failed.error
            if failed.move is Move.REJECT or self.waits.is_over():
                break
        ending = failure or denial
        assert ending is not None
        raise ending

    async def _attempt(self, candidate: Candidate) -> Verdict | None:
        limits = self.record.limits = self.limits(candidate)
        if candidate.price is None and limits.capped:
            raise unpriced_error(())
        tokens = int(self._request.input_estimate * INPUT_MARGIN) + 1
        meter = Meter(candidate.price, tokens, 1000)
        purse = Purse(
            self.services.ledger,
            self.view.policy.ledger,
            self._plan(candidate, tokens),
            limits,
            meter,
            self.next_call_id(),
        )
        try:
            await purse.reserve(None, stopped=self.waits.is_over)
        except (BudgetExceeded, BudgetContended) as error:
            self.note_denial(candidate, error)
            raise
        await refuse_unpriced(purse, candidate, ())
        self.services.health.of(candidate.circuit).sent(self.now_s())
        self.note_overhead()
        record = AttemptRecord(candidate, purse, mode=Mode.PLAIN)
        self.attempts.append(record)
        sent = False
        try:
            self.waits.clear_late()  # that was the time of what came before
            sent = self.waits.stopped is None
            return await self._carry(candidate, purse, record)
        except Stopped:
            late = self.waits.stopped is Stop.LATE
            out_of_time = late and self.now_s() >= self._task_s
            self.waits.clear_late()
            record.outcome = Outcome.TIMEOUT if late else Outcome.CLIENT_GONE
            await self._settle(purse, record, meter.cost_nano if sent else 0, Provenance.ESTIMATED)
            if out_of_time:
                record.outcome = Outcome.TASK_TIMEOUT
                raise stopped_error("time") from None
            return verdict.too_late()
        finally:
            await purse.settle(meter.cost_nano or 0)

    def _note_health(self, candidate: Candidate, failed: Verdict | None) -> None:
        """What this says of the candidate's circuit; of nothing but the client where that has left."""
        breaker = self.services.health.of(candidate.circuit)
        if failed is None:
            breaker.succeeded()
        elif failed.unhealthy and not self.waits.is_over():
            breaker.failed(self.now_s(), failed.retry_after_s, failed.why)

    @staticmethod
    def _plan(candidate: Candidate, tokens: int) -> Plan:
        nano = tokens_cost(tokens, candidate.price.rates(tokens).dearest_input) if candidate.price is not None else 0
        return Plan(Mode.PLAIN, True, tokens, nano, 0, 0, nano, nano, nano)

    async def _carry(self, candidate: Candidate, purse: Purse, record: AttemptRecord) -> Verdict | None:
        provider, meter = candidate.provider, purse.meter
        now = self.now_s
        self._task_s = float("inf") if purse.ms_left is None else now() + purse.ms_left / 1000
        self.waits.deadline_s = min(now() + candidate.budget.hard_timeout_s, self._task_s)
        body = self._request.render(candidate.upstream_model)
        try:
            reply = await self.waits.io(self.upstreams.open(provider, "/embeddings", body))
            record.status = reply.status
            data = in_utf8(await self.waits.io(reply.read_all()))
            reply.release()
        except NotConnected as error:
            return await self._failed(purse, record, verdict.not_connected(str(error)))
        except ConnectionBroken as error:
            return await self._failed(purse, record, verdict.broken(str(error)))
        if not 200 <= reply.status < 300:
            return await self._failed(purse, record, verdict.of_status(reply.status, reply.headers, data, time.time()))
        try:
            usage = decode_usage(data)
        except BadEvent:
            return await self._failed(purse, record, verdict.garbled())
        if usage is not None:
            meter.report(usage)
        purse.answered = True
        await self._settle(purse, record, meter.cost_nano, Provenance.METERED if meter.exact else Provenance.ESTIMATED)
        record.outcome = Outcome.COMPLETED
        shown = with_cost(data, meter, total_nano(self.attempts))
        self.started = True
        self.waits.deadline_s = now() + provider.deadlines.write_s
        self.waits.last_word()
        try:
            await self.waits.io(self.downstream.reply(200, self.headers(record, purse, b"application/json"), shown))
        except Stopped:  # it is paid for, whoever takes it
            if self.waits.stopped is Stop.CLIENT_GONE:
                record.outcome = Outcome.CLIENT_GONE
        return None

    async def _failed(self, purse: Purse, record: AttemptRecord, what: Verdict) -> Verdict:
        record.outcome, record.error, record.cause = what.outcome, what.error.message, what.cause or None
        await self._settle(purse, record, purse.meter.cost_nano if what.charged else 0, Provenance.ESTIMATED)
        return what

    @staticmethod
    async def _settle(purse: Purse, record: AttemptRecord, cost_nano: int | None, provenance: Provenance) -> None:
        record.charge(cost_nano, provenance)
        usage = purse.meter.usage
        record.usage = {"input_tokens": usage.input if usage else purse.meter.input_tokens, "output_tokens": 0}
        await purse.settle(cost_nano or 0)
