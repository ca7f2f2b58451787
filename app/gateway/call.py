"""A chat call: decide, then ask candidates in order until one answers. The hot path on one screen."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import math
import random
from collections.abc import Iterator
from functools import cached_property, partial

from app.core.errors import BudgetContended, BudgetExceeded, BursarError, Unpriced, UpstreamError
from app.core.landing import Landing, note_of
from app.core.meter import Meter
from app.core.money import Usage
from app.core.policy import Candidate, Key
from app.core.tokens import estimate_input
from app.core.types import ChatRequest, Outcome
from app.dialects.base import Counts, Dialect
from app.dialects.notes import noted
from app.dialects.openai_chat.errors import stopped_error
from app.dialects.registry import GEMINI, dialect_named
from app.gateway.approach import approach_in
from app.gateway.attempt import Attempt
from app.gateway.calls import Downstream, Stopped
from app.gateway.copies import in_turn
from app.gateway.decide import Decision, decide
from app.gateway.explore import explored
from app.gateway.fallbacks import with_fallbacks
from app.gateway.fees import service_price, unpriced_tools
from app.gateway.limits import ClientCaps, task_scope
from app.gateway.loops import loop_of
from app.gateway.metrics import label_of
from app.gateway.owned import OwnedCall
from app.gateway.placement import placed
from app.gateway.plan import plan_attempt
from app.gateway.purse import Purse
from app.gateway.record import CallRecord
from app.gateway.sent_again import name_of, tries_of
from app.gateway.services import Services
from app.gateway.streamed import EVENT_STREAM
from app.gateway.target import Target, followed_by, resolve
from app.gateway.unpriced import refuse_unpriced
from app.gateway.verdict import Move, Verdict
from routers.base import Arm

NO_RETRY = (None, "0")
"""What `x-stainless-retry-count` says of a request that is sent for the first time."""
TOLD_BY = 1_000
"""Characters at the beginning of a conversation that tell it from others."""
KEEPALIVE_S = 15.0
"""Less than the idle timeouts of proxies on the way (nginx and AWS: 60 s), and what OpenRouter does."""


class ChatCall(OwnedCall):
    """One `POST /v1/chat/completions`. `soft_cut`: the client's wish for a cut's ending; None: the policy's."""

    def __init__(
        self,
        services: Services,
        request: ChatRequest,
        downstream: Downstream,
        *,
        key: Key | None,
        caps: ClientCaps,
        soft_cut: bool | None,
        record: CallRecord,
    ) -> None:
        super().__init__(services, downstream, key=key, caps=caps, record=record)
        self.request = request
        self.array = request.array
        if request.stream and request.dialect != GEMINI:  # whose clients break on comments (shared WIRE.md)
            self.quiet_until_s = self.now_s() + KEEPALIVE_S
        self.refusals = services.refusals
        self.soft_cut = bool(soft_cut)
        self._asked_softness = soft_cut
        prompt = request.prompt
        self._raw_input = estimate_input(prompt.text_bytes, prompt.messages, prompt.attachments)
        self._as_sent = request
        self._tries = 0  # of the same request before this one
        self._failure: BursarError | None = None  # the latest of a provider's

    @property
    def key_name(self) -> str:
        """Whose call it is."""
        return self.record.key_name

    @property
    def salt(self) -> bytes | None:
        """What hashes of its request are salted with, where that is known."""
        return self.services.salt

    @property
    def _name(self) -> bytes:
        record = self.record
        owner = record.key_name if record.user is None else f"{record.key_name}:{record.user}"
        return name_of(self._as_sent, owner, record.task_id)

    @property
    def dialect(self) -> Dialect:
        return dialect_named(self.request.dialect)

    async def show_life(self, now_s: float) -> None:
        """A comment, and the head before it, while the first event is awaited; failures are told in the stream then.

        Nothing where that would have to wait: this is called for all calls in turn, by what keeps their deadlines.
        """
        if self.started or self.waits.is_over():
            self.quiet_until_s = float("inf")
        elif self.attempts and self.purse is not None and self.downstream.writable:
            self.quiet_until_s = now_s + KEEPALIVE_S
            await self.downstream.start(200, self.headers(self.attempts[-1], self.purse, EVENT_STREAM))
            await self.downstream.write(b": keepalive\n\n")

    async def _tell(self, error: BursarError) -> None:
        if not self.downstream.opened:
            return await super()._tell(error)
        writer = self.dialect.writer(self.request)
        input_tokens = self.purse.meter.input_tokens if self.purse is not None else 0
        cost_nano = sum(attempt.charged_nano or 0 for attempt in self.attempts)
        counts = Counts(Usage(input_tokens, 0), exact=False, cost_nano=cost_nano)
        hard = isinstance(error, BudgetExceeded)
        await self.downstream.finish(writer.cut(error, counts) if hard else writer.broken(error))

    async def serve(self) -> None:
        """Ask candidates in order; budgets may pass over one, failures go on to the next."""
        if self.record.retry_count not in NO_RETRY:
            self._tries = tries_of(self.record.retry_count or "")
            self.before = await self.services.sent_again.spent(self._name, self._tries)
        if self.view.policy.caps.task_repeats is not None and self.record.probe is None:
            await self._refuse_circles(self.view.policy.caps.task_repeats)
        target = await self._target()
        if len(self.services.calls) > 1:
            await asyncio.sleep(0)  # calls that decide one after another find code and tables in the processor's caches
        decision = self._decide(target)
        denial: BursarError | None = None
        for candidate in self._in_order(decision):
            try:
                verdict = await self._ask(candidate, decision)
            except (BudgetExceeded, BudgetContended, Unpriced) as error:
                self.note_denial(candidate, error)
                final = isinstance(error, BudgetExceeded | BudgetContended) and error.final
                denial = error if final else denial or error
                if isinstance(error, BudgetExceeded) and self.took_it_itself(error, candidate):
                    denial, self._failure = error, None
                if final:
                    break
                continue
            if verdict is None:
                return
            self._failure = verdict.error
            if verdict.move is Move.REJECT or self.waits.is_over():
                break
            self.services.metrics.fallbacks.labels(*label_of(self.attempts[-1].candidate)).inc()
        ending = self._failure or denial
        assert ending is not None
        raise ending

    async def _refuse_circles(self, most: int) -> None:
        """A task that keeps sending the same request is stopped; what an SDK sends again by itself is not counted."""
        record = self.record
        if record.task_id is None or record.retry_count not in NO_RETRY:
            return
        scope, keep_s = task_scope(record.key_name, record.task_id), self.view.policy.caps.task_idle_days * 86_400
        if await self.services.repeats.count(scope, self.request, keep_s) > most:
            raise stopped_error("repeats")

    async def _target(self) -> Target:
        """What may be asked: less where a tool loop is open, and cheaper where the task lands."""
        target, probe = resolve(self.view, self.request.model, self.key), self.record.probe
        if probe is not None:
            return target.probed(probe, in_tool_loop=self.request.prompt.in_tool_loop)
        if self.request.others:
            target = followed_by(target, self.view, self.request.others, self.key)
        rules = self.view.policy.landing_on(target.route)
        if rules is not None and self.record.task_id is not None:
            await self._look_ahead(rules)
        approach, in_loop = self.record.approach, self.request.prompt.in_tool_loop
        if in_loop and not (approach is not None and approach.rules.switch_in_tool_loop):
            choosing = target.rules
            if choosing is None or choosing.switch_in_tool_loop or len(target.every) == 1:
                return target  # nothing to choose, or nothing that holds
            kept = await self.services.loops.model_of(self._loop)
            return target if kept is None else target.held_to(kept)
        if approach is not None and approach.rules.cheaper:
            return target.landing(approach.rules.adequacy)
        return target

    async def _look_ahead(self, rules: Landing) -> None:
        """Note how near the task is to its limits, for what follows and, where the policy wants it, for the model."""
        record = self.record
        scope = task_scope(record.key_name, record.task_id or "")
        approach = record.approach = await approach_in(self.services.ledger, scope, rules)
        if approach is not None and rules.note:
            note = note_of(approach.nearest)
            self.request = noted(self.request, note)
            self._raw_input += estimate_input(len(note), 1, 0)

    def _decide(self, target: Target) -> Decision:
        services, view, record = self.services, self.view, self.record
        if self._asked_softness is None:
            route = view.policy.routes.get(target.route or "")
            wanted = (route.on_cut if route is not None else None) or view.policy.on_cut
            self.soft_cut = wanted == "length"
        now_s, raw_input, calibration = self.now_s(), self._raw_input, services.calibration
        try:
            decision = decide(
                self.request,
                target,
                view,
                unit=f"{record.key_name}:{record.task_id or record.request_id}",
                input_tokens=lambda c: calibration(c.name).input_tokens(raw_input),
                available=partial(services.health.available, now_s=now_s),
                capped=lambda candidate: self.limits(candidate).capped,
            )
        except UpstreamError as error:  # all circuits are open
            circuits = [one.circuit for c in target.every for one in c.copies or (c,)]
            wait_s = services.health.wait_s(circuits, now_s)
            error.headers["retry-after"] = str(max(math.ceil(wait_s), 1))
            raise
        rules, risky = decision.rules, record.approach is not None or self._tries > 0
        if rules is not None and rules.explore is not None and not risky:
            decision = self._explored(decision, target.arms)
        record.decision = decision
        return decision

    def _explored(self, decision: Decision, arms: tuple[Arm, ...]) -> Decision:
        record = self.record
        return explored(
            decision,
            arms,
            self.view,
            self.services.explorer,
            unit=f"{record.key_name}:{record.task_id or record.request_id}",
            in_tool_loop=self.request.prompt.in_tool_loop,
            limits=self.limits(decision.chosen),
            today=dt.date.fromisoformat(self.moment[:10]),
        )

    def _in_order(self, decision: Decision) -> Iterator[Candidate]:
        """The fallback chain; then, only if nothing but a budget stood in the way, cheaper candidates."""
        yield from decision.order
        if not self.attempts:
            yield from decision.spare

    async def _ask(self, candidate: Candidate, decision: Decision) -> Verdict | None:
        """One candidate, wherever it is served, and again after a wait where that may help. None: the client has its
        answer."""
        if candidate.copies:
            if self.request.prompt.placement is not None:
                tokens = self.services.calibration(candidate.name).input_tokens(self._raw_input)
                candidate = placed(self.request, candidate, tokens)
            available = partial(self.services.health.available, now_s=self.now_s())
            *others, candidate = in_turn(candidate, self._keeps_together, available)
            for copy in others:
                try:
                    verdict = await self._attempt(copy)
                except (BudgetExceeded, BudgetContended, Unpriced) as error:  # another provider may take less
                    alike = all(one.price == copy.price for one in (*others, candidate))
                    if not isinstance(error, Unpriced) and (error.final or alike):
                        raise
                    self.note_denial(copy, error)
                    continue
                if verdict is None or verdict.move is Move.REJECT or self.waits.is_over():
                    return verdict
                self._failure = verdict.error
                self.services.metrics.fallbacks.labels(*label_of(copy)).inc()
        retries = decision.retries
        for round_ in range(retries.attempts + 1):
            verdict = await self._attempt(candidate)
            if verdict is None or verdict.move is not Move.AGAIN or round_ == retries.attempts:
                return verdict
            pause = random.uniform(0, retries.base_s * 2**round_)  # noqa: S311  (full jitter, not a secret)
            if verdict.retry_after_s is not None:
                if verdict.retry_after_s > retries.max_wait_s:
                    return verdict
                pause += verdict.retry_after_s
            try:
                self.waits.clear_late()
                await self.waits.io(asyncio.sleep(min(pause, retries.max_wait_s)))
            except Stopped:
                return verdict
        return verdict

    async def _attempt(self, candidate: Candidate) -> Verdict | None:
        services, now_s, prompt = self.services, self.now_s, self.request.prompt
        unpriced = unpriced_tools(self.request, candidate)
        if prompt.service_tier is not None:
            candidate = dataclasses.replace(candidate, price=service_price(self.request, candidate))
        if candidate.price is not None and (prompt.hears or prompt.speaks):
            price = candidate.price.for_media(hears=prompt.hears, speaks=prompt.speaks)
            candidate = dataclasses.replace(candidate, price=price)
        calibration = services.calibration(candidate.name)
        input_tokens = calibration.input_tokens(self._raw_input)
        fallbacks: tuple[str, ...] = ()
        if prompt.fallbacks:
            candidate, fallbacks = with_fallbacks(self.request, candidate, self.view, self.key, input_tokens)
        limits = self.record.limits = self.limits(candidate)
        plan = plan_attempt(self.request, candidate, limits, input_tokens)
        meter = Meter(candidate.price, input_tokens, calibration.output_permille, plan.sure_tools)
        rules = self.view.policy.ledger
        purse = Purse(services.ledger, rules, plan, limits, meter, self.next_call_id(), self.record.approach)
        await purse.reserve(self.request, stopped=self.waits.is_over)
        self.purse, self.record.limits = purse, purse.limits
        await refuse_unpriced(purse, candidate, unpriced, fallbacks)
        breaker = services.health.of(candidate.circuit)
        breaker.sent(now_s())
        self.note_overhead()
        attempt = Attempt(self, candidate, purse)
        attempt.record.unpriced_tools = unpriced
        self.attempts.append(attempt.record)
        # Noted before it answers: the next step may come, elsewhere, as soon as it has.
        verdict = await attempt.run(self._note_loop(candidate) if prompt.tools and len(self.attempts) == 1 else None)
        outcome = attempt.record.outcome
        if verdict is not None and verdict.unhealthy:
            breaker.failed(now_s(), verdict.retry_after_s, verdict.why)
        elif verdict is None and outcome in (Outcome.API_ERROR, Outcome.TIMEOUT):
            breaker.failed(now_s(), why=attempt.record.error or outcome)
        elif outcome in (Outcome.COMPLETED, Outcome.COST_KILLED, Outcome.THRASH_KILLED):
            breaker.succeeded()
            await self._learn(attempt)
        return verdict

    @property
    def _keeps_together(self) -> str:
        """What goes to one copy of a model: a task, else a conversation, as far as that can be told: from its second
        turn on, or where it has tools, from its first."""
        record, prompt = self.record, self.request.prompt
        if record.task_id is None and prompt.turns < 2 and not prompt.tools:
            return record.request_id
        said = record.task_id or f"{prompt.system[:TOLD_BY]}{prompt.first_user[:TOLD_BY]}"
        return f"{record.key_name}:{said}"

    @cached_property
    def _loop(self) -> bytes:
        return loop_of(self.request, self.record.key_name, self.record.task_id)

    async def _note_loop(self, candidate: Candidate) -> None:
        """Whoever answers keeps a tool loop; there is none without tools."""
        await self.services.loops.note(self._loop, candidate.name, open_=self.request.prompt.in_tool_loop)

    async def note_failure(self) -> None:
        limits = self.record.limits
        if limits is not None and limits.call_nano is not None and self.attempts:
            spent = {model: nano for model, nano in self.spent.items() if nano}
            if spent or self.services.sent_again.any:  # as a rule neither: then there is nothing to forget either
                await self.services.sent_again.note(self._name, self._tries, spent)

    async def _learn(self, attempt: Attempt) -> None:
        """Exact usage teaches the estimates of the next call; who answered in another's place keeps a tool loop."""
        if len(self.attempts) > 1 and self.request.prompt.tools:
            await self._note_loop(attempt.candidate)
        usage = attempt.meter.usage
        if usage is not None and attempt.meter.exact:
            self.services.calibration(attempt.candidate.name).learn(
                out_pieces=attempt.meter.pieces,
                out_tokens=usage.output - usage.reasoning,
                in_estimate=self._raw_input,
                in_tokens=usage.input,
            )
