"""What every call is, whatever it asks for: an owned task that answers, settles and records exactly once."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from functools import partial

import msgspec
import structlog

from app.core.budget import Claim
from app.core.errors import BadRequest, BudgetContended, BudgetExceeded, BursarError, LedgerDown, TaskStopped
from app.core.money import usd_text
from app.core.policy import Candidate, Key
from app.core.types import Outcome
from app.core.windows import moment_at
from app.dialects.base import Dialect
from app.dialects.registry import CHAT, MESSAGES, dialect_named
from app.gateway.approach import landing_headers
from app.gateway.attempt_record import AttemptRecord, total_nano
from app.gateway.calls import Downstream, Stop, Stopped, Waits
from app.gateway.limits import (
    CUT_OUTCOMES,
    NO_CAPS,
    NOTHING_USED,
    ClientCaps,
    Limits,
    Used,
    below,
    limits_for,
    scope_word,
    task_scope,
    user_claims,
)
from app.gateway.purse import Purse
from app.gateway.record import CallRecord
from app.gateway.sent_again import Spent
from app.gateway.services import Services

log = structlog.get_logger()

WRITE_ERROR_S = 10.0
WHOLE = b"application/json"
"""The content type of a reply that is no stream."""


class OwnedCall(ABC):
    """Runs one request to its end; `run` never raises and always leaves every reservation settled. `array`: the client
    reads one JSON array, of an error too. `now_s`: the event loop's clock."""

    array = False

    def __init__(
        self, services: Services, downstream: Downstream, *, key: Key | None, caps: ClientCaps, record: CallRecord
    ) -> None:
        self.services = services
        self.view = record.view
        self.downstream = downstream
        self.upstreams = services.upstreams
        self.waits = Waits()
        self.quiet_until_s = float("inf")
        self.started = False
        self.key = key
        self.caps = caps
        self.record = record
        self._plain = caps is NO_CAPS and record.task_id is None  # its limits are its key's, and its user's
        self.attempts: list[AttemptRecord] = []
        self.before: Spent = {}  # what the same request was charged before its SDK sent it again
        self.purse: Purse | None = None
        self._reservations = 0
        self.now_s = asyncio.get_running_loop().time
        self.arrived_s = time.perf_counter()  # uvloop's own clock ticks in whole milliseconds
        self.moment = self._moment()
        self._of_user = None if record.user is None else self._user_claims(record.user)

    def _user_claims(self, user: str) -> tuple[Claim, ...] | None:
        users = self.view.policy.users_of(self.key)
        return None if users is None else user_claims(self.record.key_name, user, users.windows, self.moment)

    def _moment(self) -> str:
        return moment_at(time.time())[: self.view.moment_chars]

    @property
    def dialect(self) -> Dialect:
        """In whose words errors are told."""
        return dialect_named(CHAT)

    @abstractmethod
    async def serve(self) -> None:
        """Answer the client, or raise a BursarError where nothing was sent yet."""

    async def run(self) -> None:
        """Serve the client."""
        try:
            if self.record.parent_id is not None:
                await self._hang_below(self.record.parent_id)
            try:
                await self.serve()
            finally:  # an attempt settles for itself; one that never began has cost nothing
                if self.purse is not None and not self.purse.closed:
                    await self.purse.settle(0)
        except BursarError as error:
            await self.fail(error)
        except Exception:
            log.exception("a call failed unexpectedly", request_id=self.record.request_id)
            self.record.error = "internal error"
            await self.fail(BursarError("The gateway failed to serve the request."))
        finally:
            self._finish()
        if self.record.outcome is not Outcome.COMPLETED:
            await self.note_failure()

    async def note_failure(self) -> None:  # noqa: B027  (whoever has nothing to remember)
        """Remember what must be known where the client sends its request again; it has its answer by then."""

    def limits(self, candidate: Candidate) -> Limits:
        """Every cap that binds this call's next attempt, at this candidate."""
        view, attempts = self.view, self.attempts
        usual = self._plain and not attempts and not self.before
        if attempts:  # it may have gone on into the next window, which is the one that a further attempt is of
            self.moment = self._moment()
        moment = self.moment
        if usual and (self.key is None or self.key is view.policy.keys.get(self.key.sha256)):  # the same all the while
            what = ("limits", candidate.circuit, self.record.key_name, moment)
            limits = view.once(what, lambda: limits_for(view.policy, candidate, self.key, None, NO_CAPS, moment))
            return limits if self._of_user is None else limits.beside(self._of_user)
        task_id, user = self.record.task_id, self.record.user
        limits = limits_for(view.policy, candidate, self.key, task_id, self.caps, moment, self._used(candidate), user)
        if task_id is not None and (above := self.services.ledger.above(limits.claims[0].scope)):
            return msgspec.structs.replace(limits, claims=below(limits.claims, limits.claims[0].scope, above))
        return limits

    def _used(self, candidate: Candidate) -> Used:
        """What this call's attempts so far have used of the caps that are its own."""
        attempts = self.attempts
        if not attempts and not self.before:
            return NOTHING_USED
        spent = self.spent
        return Used(
            sum(spent.values()),
            spent.get(candidate.name, 0),
            sum(a.purse.counted_tokens for a in attempts if a.purse is not None),
            int((time.perf_counter() - self.arrived_s) * 1000),
        )

    @property
    def spent(self) -> Spent:
        """What each model was charged for this request, before its SDK sent it again too."""
        found = dict(self.before)
        for attempt in self.attempts:
            found[attempt.candidate.name] = found.get(attempt.candidate.name, 0) + (attempt.charged_nano or 0)
        return found

    @property
    def cost_nano(self) -> int | None:
        """What all attempts of this call were charged; None where any of it is unknown."""
        return total_nano(self.attempts)

    @property
    def as_asked(self) -> bool:
        """Whether no budget has shaped the answer: none stood in a candidate's way or took searches from it, and no
        task was near its end."""
        free = not self.record.denials and self.record.approach is None
        return free and all(attempt.clamp_uses is None for attempt in self.attempts)

    def took_it_itself(self, error: BudgetExceeded, candidate: Candidate) -> bool:
        """Whether the money that this candidate lacks went into attempts that failed: a client that tried again would
        spend as much again. Where it costs more than the cap allows at any time, the failure is what there is to tell.
        """
        used = self._used(candidate)
        spent_nano = used.on_model_nano if error.headers.get("x-bursar-scope") == "model" else used.nano
        return bool(self.attempts) and spent_nano > 0 and (error.final or error.lacking_nano <= spent_nano)

    async def _hang_below(self, parent_id: str) -> None:
        """The parent that this request names for its task; the first one named stays. Raises BadRequest."""
        record = self.record
        assert record.task_id is not None
        scopes = [task_scope(record.key_name, task) for task in (record.task_id, parent_id)]
        if await self.services.ledger.hang(*scopes) == "depth":
            raise BadRequest("This task has too many tasks above it: the chain of parents is too long.", param="parent")

    def note_denial(self, candidate: Candidate, error: BursarError) -> None:
        """A budget stood in the way of this candidate: the record says which, and how it stood."""
        amounts = {
            name.removeprefix("x-bursar-").replace("-", "_"): value
            for name, value in error.headers.items()
            if name.startswith("x-bursar-")
        }
        self.record.denials.append({"model": candidate.name, **amounts})

    def flush(self) -> None:
        """Write the running cost of the attempt under way, where it has risen; warn where it is late."""
        if self.purse is not None and self.purse.unrecorded:
            self.purse.flush()
        if self.attempts:
            self.services.warn_if_slow(self.record, self.attempts[-1], time.perf_counter() - self.arrived_s)

    async def show_life(self, now_s: float) -> None:
        """Nothing, where one reply is all that the client waits for."""
        self.quiet_until_s = float("inf")

    def next_call_id(self) -> str:
        """The ledger's name for the next reservation; none has another's, for what is owed for one would end both."""
        self._reservations += 1
        return f"{self.record.request_id}.{self._reservations}"

    def note_overhead(self) -> None:
        """The gateway's own work is done: the upstream is asked now."""
        if self.record.overhead_s is None:
            self.record.overhead_s = time.perf_counter() - self.arrived_s
            self.services.tally.overheads.append(self.record.overhead_s)

    def headers(self, attempt: AttemptRecord, purse: Purse, content_type: bytes) -> list[tuple[bytes, bytes]]:
        """The reply's headers: what ran, where, what it cost if known, what is left."""
        asked = self.record.requested_model
        found = [
            (b"content-type", content_type),
            *self._id_headers(),
            *self._who_answered(attempt.candidate),
        ]
        if asked.isascii() and asked.isprintable():
            found.append((b"x-bursar-requested-model", asked.encode()))
        if attempt.upstream_id is not None:
            found.append((b"x-bursar-upstream-id", attempt.upstream_id.encode()))
        found += attempt.rate_limits
        if self.record.client_request_id is not None:
            found.append((b"x-client-request-id", self.record.client_request_id.encode("latin-1", "replace")))
        if content_type != WHOLE:
            found += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        elif (cost_nano := self.cost_nano) is not None:
            found.append((b"x-bursar-cost-usd", usd_text(cost_nano).encode()))
        if (left := purse.left) is not None:
            found.append((b"x-bursar-remaining-usd", usd_text(left[0]).encode()))
            if left[1]:
                found.append((b"x-bursar-scope", scope_word(left[1]).encode()))
        if self.record.task_id is not None:
            found.append((b"x-bursar-task-id", self.record.task_id.encode()))
        if self.record.approach is not None:
            found += landing_headers(self.record.approach)
        return found

    async def fail(self, error: BursarError) -> None:
        """Answer with an error where nothing was sent yet."""
        record, metrics = self.record, self.services.metrics
        if record.outcome is Outcome.GATEWAY_ERROR and not self.waits.is_over():
            # Which of the provider's faults it was, the last attempt knows best.
            blamed = self.attempts and error.blame == "provider"
            record.outcome = self.attempts[-1].outcome if blamed else outcome_of(error)
            record.error = record.error or error.message
        if self.started or self.waits.stopped is Stop.CLIENT_GONE:
            return
        self.started = True
        metrics.errors.labels(error.label).inc()
        was_cut = bool(self.attempts) and self.attempts[-1].cut is not None
        if isinstance(error, BudgetExceeded | BudgetContended) and not was_cut:
            scope = record.denied_scope = error.headers.get("x-bursar-scope")
            if scope in ("task", "model") and isinstance(error, BudgetExceeded) and not isinstance(error, TaskStopped):
                record.denied_at_usd = float(error.headers["x-bursar-spent-usd"]) or None
            metrics.denials.labels(record.denied_scope or "", error.label).inc()
        self.waits.last_word()
        self.waits.deadline_s = self.now_s() + WRITE_ERROR_S
        try:
            await self.waits.io(self._tell(error))
        except Stopped:
            log.debug("the client left before its error", request_id=record.request_id)

    async def _tell(self, error: BursarError) -> None:
        """An error as the reply, with what the call has cost all the same."""
        status, body = self.dialect.error_reply(error, array=self.array)
        headers = [(b"content-type", b"application/json"), *self._id_headers()]
        if self.attempts and (cost_nano := self.cost_nano) is not None:
            headers.append((b"x-bursar-cost-usd", usd_text(cost_nano).encode()))
            if self.attempts[-1].cut is not None:
                headers += self._who_answered(self.attempts[-1].candidate)
        headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
        await self.downstream.reply(status, headers, body)

    @staticmethod
    def _who_answered(candidate: Candidate) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-bursar-model", candidate.name.encode("latin-1", "replace")),
            (b"x-bursar-provider", candidate.provider.name.encode("latin-1", "replace")),
        ]

    def _id_headers(self) -> list[tuple[bytes, bytes]]:
        return id_headers(self.record.request_id, self.dialect)

    def _finish(self) -> None:
        """Count and record; the money is settled by now."""
        record, attempts = self.record, self.attempts
        record.duration_s = time.perf_counter() - self.arrived_s
        if attempts and (record.outcome is Outcome.GATEWAY_ERROR or attempts[-1].cut is not None):
            record.outcome, record.error = attempts[-1].outcome, attempts[-1].error or record.error
        if self.waits.stopped is Stop.CLIENT_GONE and record.outcome is Outcome.GATEWAY_ERROR:
            record.outcome = Outcome.CLIENT_GONE
        self.services.count(record, attempts)
        self.services.traces.append(record.request_id, partial(record.as_trace, attempts))


def id_headers(request_id: str, dialect: Dialect) -> list[tuple[bytes, bytes]]:
    """A request's id as its answer carries it: by the name that OpenAI's SDKs look for, and Anthropic's by theirs."""
    value = request_id.encode()
    found = [(b"x-request-id", value), (b"x-bursar-request-id", value)]
    if dialect.name == MESSAGES:
        found.append((b"request-id", value))
    return found


def outcome_of(error: BursarError) -> Outcome:
    """The outcome category of a call that ended in this error before any attempt answered."""
    if isinstance(error, TaskStopped):
        return CUT_OUTCOMES.get(error.reason, Outcome.DENIED)
    if isinstance(error, BudgetExceeded | BudgetContended):
        return Outcome.DENIED
    if isinstance(error, LedgerDown):
        return Outcome.LEDGER_DOWN
    by_blame = {"client": Outcome.BAD_REQUEST, "provider": Outcome.API_ERROR}
    return by_blame.get(error.blame, Outcome.GATEWAY_ERROR)
