"""`bursar probe` as a client: each probe is asked once, judged by what the gateway has on record, and reported."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from app.commands.ending import Refused
from app.commands.probe_checks import TooSlow, is_right
from app.commands.probe_set import Probe, digest
from app.commands.probe_state import Answered, Journal, Told
from app.commands.terminal import visible
from app.core.money import NANO_PER_USD, nano_from_usd, usd_text
from app.core.raw import UNREADABLE
from app.core.types import Outcome

CALL_S: Final = 660.0
"""A little more than a call's own hard timeout."""
ASK_S: Final = 30.0
TRIES: Final = 8
PAUSE_S: Final = (0.25, 30.0)
"""The first pause before asking the gateway again, which doubles, and the longest."""
WAITS: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
RECORD_TRIES, FEW = 40, 4
RECORD_PAUSE_S: Final = 0.05
"""A call's record is written some milliseconds after its answer."""
MARGIN: Final = 4
"""How many times as dear as the dearest so far a call may be for several at a time to stay clear of a cap."""
MESSAGE_CHARS: Final = 200
TAG: Final = "probe"
NAMES_MODEL: Final = "X-Bursar-Probe"


GIVE_UP: Final = 20


class NoAnswer(Exception):
    """The gateway did not answer, however often it was asked; the message says how."""


@dataclass
class Asking:
    """One run's way to the gateway. `left`: models that are asked no more, and why; `failed`: how often in a row
    nothing could be said of one. `mute`: feedback is not taken at the moment. `running`: calls under way;
    `dearest_nano`: of those that ended (None: none has); `left_nano`: what the tightest cap leaves (None: unknown)."""

    base: str
    key: str | None
    journal: Journal
    concurrency: int
    pause: Callable[[float], Any] = asyncio.sleep
    left: dict[str, str] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None
    mute: bool = False
    running: int = 0
    dearest_nano: int | None = None
    left_nano: int | None = None
    _turn: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def near(self) -> bool:
        """Whether calls go one by one: several at a time may together exceed a cap by a few tokens, one may not. So it
        is near the budget, and until it is known what a call costs."""
        if self.dearest_nano is None:
            return True
        return self.left_nano is not None and self.left_nano < MARGIN * self.concurrency * self.dearest_nano

    async def run(self, probes: Sequence[Probe], untold: dict[str, bool]) -> dict[str, bool]:
        """Say what earlier runs left unsaid, ask all that is not answered yet, in a random order, and report each;
        what could not be said."""
        begun, timeout = self.journal.begun, aiohttp.ClientTimeout(total=CALL_S)
        known = {name for name, answer in self.journal.answers.items() if answer.right is not None}
        due = [(m, p) for m in begun.models for p in probes if (m, p.name) not in known]
        random.SystemRandom().shuffle(due)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers()) as session:
            unsaid = await self._tell_all(session, {**untold, **self.journal.untold})
            await self._all(session, deque(due))
            self.mute = False
            return await self._tell_all(session, unsaid | self.journal.untold)

    async def _tell_all(self, session: aiohttp.ClientSession, words: Mapping[str, bool]) -> dict[str, bool]:
        """What of these could not be said."""
        return {call: right for call, right in words.items() if not await self._tell(session, call, right)}

    async def _all(self, session: aiohttp.ClientSession, due: deque[tuple[str, Probe]]) -> None:
        async def work() -> None:
            while due:
                model, probe = due.popleft()
                async with self._turn:
                    await self._turn.wait_for(lambda: not self.running or not self.near)
                    self.running += 1
                if model not in self.left:
                    await self._one(session, model, probe)
                async with self._turn:
                    self.running -= 1
                    self._turn.notify_all()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _one(self, session: aiohttp.ClientSession, model: str, probe: Probe) -> None:
        """Ask one, and report it. Raises Refused or NoAnswer."""
        begun = self.journal.begun
        headers = {
            NAMES_MODEL.lower(): model,
            "x-bursar-task-id": begun.run,
            "x-bursar-task-max-cost-usd": usd_text(begun.most_nano),
            "x-bursar-tags": TAG,
            "cache-control": "no-cache",
            "idempotency-key": f"{begun.run}:{digest(model, probe.name)}",
        }
        path = "/v1/chat/completions"
        status, said, answer = await self._ask(session, "POST", path, probe.request(begun.route), headers, TRIES)
        if status == HTTPStatus.PAYMENT_REQUIRED:
            self.left[model] = f"the budget is used up ({said.get('x-bursar-scope') or 'unknown'})"
            return
        call = said.get("x-bursar-request-id", "")
        record = await self._record(session, call, RECORD_TRIES if status == HTTPStatus.OK else FEW)
        if not record and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Refused(f"{probe.id}: the gateway refuses it: {status} {_message(answer)}")
        line = judged(model, probe, status, call, answer, record)
        self.journal.note(line)
        if _refused_member(answer) == NAMES_MODEL:  # it answers the next no better
            self.left[model] = "it is no candidate of this route"
        if line.cost_nano is not None:
            self.dearest_nano = max(self.dearest_nano or 0, line.cost_nano)
        if (remaining := said.get("x-bursar-remaining-usd")) is not None:
            self.left_nano = 0 if remaining.startswith("-") else nano_from_usd(remaining)
        self.failed[model] = 0 if line.right is not None else self.failed.get(model, 0) + 1
        if self.failed[model] >= GIVE_UP:
            self.left[model] = f"nothing could be said of the last {GIVE_UP}"
        if line.right is not None:
            await self._tell(session, call, line.right)

    async def _record(self, session: aiohttp.ClientSession, call: str, tries: int) -> Mapping[str, Any]:
        """What the gateway has on record of a call; {} for nothing."""
        for _ in range(tries if call else 0):
            status, _, found = await self._ask(session, "GET", f"/v1/decisions/{quote(call)}", None, {}, 1)
            if status == HTTPStatus.OK and isinstance(found, dict):
                return found
            await self.pause(RECORD_PAUSE_S)
        return {}

    async def _tell(self, session: aiohttp.ClientSession, call: str, right: bool) -> bool:
        """Say how a call went, however often it was said before; False where that cannot be done now."""
        if self.mute:
            return False
        word = {"request_id": call, "outcome": "success" if right else "failure", "source": "program"}
        headers = {"idempotency-key": f"probe:{call}"}
        try:
            body = msgspec.json.encode(word)
            status, _, answer = await self._ask(session, "POST", "/v1/feedback", body, headers, TRIES)
        except NoAnswer as error:
            self.say(f"what came of {call} could not be said: {error}")
            self.mute = True
            return False
        if status == HTTPStatus.NOT_FOUND:  # of another key, or long gone: it will not be there tomorrow either
            self.say(f"nobody wants to know what came of {call}: {_message(answer)}")
        elif status != HTTPStatus.OK:
            self.say(f"what came of {call} could not be said: {status} {_message(answer)}")
            self.mute = True
            return False
        self.journal.note(Told(call))
        return True

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, body: bytes | None, more: Mapping[str, str],
        tries: int,
    ) -> tuple[int, Mapping[str, str], Any]:  # fmt: skip
        """Status, headers and JSON, asked for again after a pause where waiting may help: a request that is repeated
        has the same Idempotency-Key, so that it costs nothing twice. Raises NoAnswer where nobody answers at all."""
        wait_s, wrong = PAUSE_S[0], 0
        for number in itertools.count(1):
            asked_s = 0.0
            try:
                async with session.request(method, self.base + path, data=body, headers=more) as reply:
                    headers = {name.lower(): value for name, value in reply.headers.items()}
                    raw = await reply.read()
                if reply.status not in WAITS or headers.get("x-should-retry") == "false" or number >= tries:
                    return reply.status, headers, _json(raw)
                asked_s = _seconds(headers.get("retry-after"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if (wrong := wrong + 1) >= TRIES:
                    raise NoAnswer(f"{self.base} does not answer: {type(error).__name__}: {error}") from None
            await self.pause(min(max(asked_s, random.uniform(wait_s / 2, wait_s)), PAUSE_S[1]))  # noqa: S311
            wait_s = min(2 * wait_s, PAUSE_S[1])
        raise AssertionError("it counts for ever")

    def _headers(self) -> dict[str, str]:
        found = {"content-type": "application/json", "user-agent": "bursar-probe"}
        return found | ({"authorization": f"Bearer {self.key}"} if self.key else {})


def judged(model: str, probe: Probe, status: int, call: str, answer: Any, record: Mapping[str, Any]) -> Answered:
    """What came of one probe. Only a call that is on record as complete, by this very model, is judged: what the
    gateway, a provider or a cap did to it is not the model's doing."""
    cost = record.get("cost_usd")
    cost_nano = None if cost is None else round(cost * NANO_PER_USD)
    work = (record.get("decision") or {}).get("task_type") or ""
    right, why = None, ""
    if not record:
        why = "no record of it" if status == HTTPStatus.OK else f"{status} {_message(answer)}"
    elif record.get("outcome") != Outcome.COMPLETED:
        why = f"{record.get('outcome')}: {_message(answer)}".removesuffix(": ")
    elif record.get("model") != model or not record.get("probe"):
        why = "another model answered"
    elif status != HTTPStatus.OK or (message := _said(answer)) is None:
        why = f"no chat completion: {status}"
    else:
        try:
            right = is_right(probe.check, message)
        except TooSlow:
            why = "the check takes too long"
    return Answered(call, model, probe.name, right, probe.kind or work, cost_nano, work, why)


def _said(answer: Any) -> dict[str, Any] | None:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None


def _message(answer: Any) -> str:
    """What an error says, fit for a terminal: a provider may have written it."""
    error = answer.get("error") if isinstance(answer, dict) else None
    said = str(error.get("message") or error.get("code")) if isinstance(error, dict) else ""
    return visible(said[:MESSAGE_CHARS])


def _refused_member(answer: Any) -> Any:
    """What of a request an error names; None for nothing."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return error.get("param") if isinstance(error, dict) else None


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE:
        return None


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() else 0.0
