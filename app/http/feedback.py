"""`POST /v1/feedback`: how a call or a task turned out, said by whoever knows; `GET` shows what is on record.

Feedback may come at any time: long after the call, before its record is written, after its record has gone. It is
kept all the same, and matched by whoever learns from it. What is said is evidence of its speaker's, not the truth:
`app/learner` weighs it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import BadRequest, FeedbackDown, Forbidden, NotFound, SaidTooOften
from app.core.feedback import Correction, Feedback, Speaker, Turned, task_thing
from app.core.policy import Key
from app.dialects.openai_chat.parse import checked_task_id
from app.gateway.limits import task_scope
from app.gateway.services import Services
from app.http.asking import as_json, caller, is_operator, may_see
from app.http.bodies import bounded_body, read_json
from app.http.hot import key_name
from app.http.replays import MAX_KEY_CHARS
from app.http.routes import Routes
from app.stores.budgets import LedgerUnavailable
from app.stores.outcomes import OtherWord, Outcomes, OutcomesUnavailable, Put
from app.stores.traces import arrived_ms

MAX_BODY_BYTES = 16 * 1024
MAX_COMMENT_CHARS = 2_000
BURST, PER_S = 200.0, 20.0
"""Words that one key may say at once, and in each second after that, to one gateway process."""
MAX_KEY_NAME_CHARS = 200
_CHOICES = {"outcome": Turned, "source": Speaker, "correction": Correction}


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    outcome: Turned
    source: Speaker
    request_id: str | None = None
    task_id: str | None = None
    score: float | None = None
    correction: Correction | None = None
    comment: str | None = None


_body = msgspec.json.Decoder(_Body)


class Pace:
    """How often each key may speak: a bucket of BURST words that fills by PER_S a second. In this process."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str, now_s: float) -> float:
        """Take one word's room; 0.0, or how many seconds to wait until there is some."""
        left, at_s = self._left.get(who, (BURST, now_s))
        left = min(left + max(now_s - at_s, 0.0) * PER_S, BURST)
        self._left[who] = (left - 1.0, now_s) if left >= 1.0 else (left, now_s)
        return 0.0 if left >= 1.0 else (1.0 - left) / PER_S


def serve_feedback(api: Routes, services: Services, outcomes: Outcomes) -> None:
    """Add the routes of feedback."""
    pace = Pace()

    @api.post("/v1/feedback")
    async def say(request: Request) -> Response:
        key = caller(services, request, judging=True)
        wait_s = pace.take(key_name(key), time.monotonic())
        if wait_s:
            raise SaidTooOften(
                "This key sends feedback too fast; wait for the time in Retry-After.",
                headers={"retry-after": str(int(wait_s) + 1)},
            )
        raw = await bounded_body(request, MAX_BODY_BYTES)
        repeat_key = _repeat_key(request)
        word = await _word(services, key, _decoded(raw), _asked_owner(request, key))
        if not outcomes.keeps_comments:
            word = dataclasses.replace(word, comment=None)
        try:
            put = await outcomes.put(word, repeat_key=repeat_key, digest=hashlib.sha256(raw).digest())
        except OtherWord:
            raise BadRequest(
                "This Idempotency-Key was used for other feedback; use a new one.", param="Idempotency-Key"
            ) from None
        except OutcomesUnavailable:
            raise _down() from None
        if put is not Put.REPEATED:  # nothing was stored, and a learner has nothing to take in
            services.metrics.feedback.labels(word.source, word.outcome).inc()
            services.metrics.unlearned.heard()
        told = {"object": "feedback", "status": put.value, **shown(word)}
        return as_json(told if word.matched else {**told, "note": _unmatched(word)})

    @api.get("/v1/feedback")
    async def said(request: Request) -> Response:
        key = caller(services, request)
        things = await _things(services, key, request)
        try:
            words = await outcomes.about(things)
        except OutcomesUnavailable:
            raise _down() from None
        found = [shown(word) for word in words if _may_see(key, word)]
        return as_json({"object": "list", "data": found})


def _decoded(raw: bytes) -> _Body:
    """The body, checked. Raises BadRequest naming what is wrong."""
    body = read_json(_body, raw, _CHOICES)
    if (body.request_id is None) == (body.task_id is None):
        raise BadRequest("Give either request_id or task_id, not both.", param="request_id")
    if body.request_id is not None and arrived_ms(body.request_id) is None:
        raise _bad_request_id()
    if body.task_id is not None:
        checked_task_id(body.task_id, "task_id")
    if body.score is not None and not 0.0 <= body.score <= 1.0:
        raise BadRequest("The parameter score must be between 0 and 1.", param="score")
    if body.comment is not None and len(body.comment) > MAX_COMMENT_CHARS:
        raise BadRequest(f"The comment is longer than {MAX_COMMENT_CHARS} characters.", param="comment")
    return body


def _bad_request_id() -> BadRequest:
    return BadRequest(
        "The parameter request_id must be what a reply's X-Bursar-Request-Id header says.", param="request_id"
    )


def _repeat_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not 0 < len(given) <= MAX_KEY_CHARS:
        raise BadRequest("The header Idempotency-Key must not be empty or very long.", param="Idempotency-Key")
    return given


def _asked_owner(request: Request, key: Key | None) -> str:
    """Whose task is meant: the caller's own, or, for who may speak of others', that of `?key=`."""
    own = key_name(key)
    owner = request.query_params.get("key", own)
    if owner != own and not _speaks_of_all(key):
        raise Forbidden("This key may give feedback on its own calls only.", param="key")
    if len(owner) > MAX_KEY_NAME_CHARS:
        raise BadRequest("The name of the key is too long.", param="key")
    return owner


def _speaks_of_all(key: Key | None) -> bool:
    """Whether a key may say how any key's calls turned out."""
    return is_operator(key) or (key is not None and key.judges)


async def _word(services: Services, key: Key | None, body: _Body, owner: str) -> Feedback:
    """What was said, with whose it is. Raises NotFound for a call of another key's."""
    by, thing = key_name(key), ""
    if body.request_id is not None:
        thing = body.request_id
        record = await _record(services, thing)
        owner = by if record is None else record["key"]
        if not (_speaks_of_all(key) or may_see(key, owner)):
            raise NotFound("No such request is on record.", param="request_id")
        matched = record is not None
    else:
        assert body.task_id is not None
        thing, matched = task_thing(owner, body.task_id), await _has_task(services, owner, body.task_id)
    return Feedback(
        thing=thing,
        by=by,
        source=body.source,
        outcome=body.outcome,
        said_s=time.time(),
        key=owner,
        admin=key is not None and _speaks_of_all(key),
        score=body.score,
        correction=body.correction,
        comment=body.comment,
        matched=matched,
    )


async def _record(services: Services, request_id: str) -> dict[str, Any] | None:
    """The record of a call; None also where records cannot be read now: feedback is kept, and matched later."""
    try:
        return await services.traces.get(request_id)
    except LedgerUnavailable:
        return None


async def _has_task(services: Services, owner: str, task_id: str) -> bool:
    try:
        (balance,) = await services.ledger.budgets.balances([task_scope(owner, task_id)])
    except LedgerUnavailable:
        return False
    return balance is not None


async def _things(services: Services, key: Key | None, request: Request) -> list[str]:
    """What is asked about: a call with its task, or a task."""
    request_id, task_id = request.query_params.get("request_id"), request.query_params.get("task_id")
    if (request_id is None) == (task_id is None):
        raise BadRequest("Give either request_id or task_id, not both.", param="request_id")
    if task_id is not None:
        return [task_thing(_asked_owner(request, key), checked_task_id(task_id, "task_id"))]
    assert request_id is not None
    if arrived_ms(request_id) is None:
        raise _bad_request_id()
    record = await _record(services, request_id)
    if record is None or record["task_id"] is None:
        return [request_id]
    return [request_id, task_thing(record["key"], record["task_id"])]


def _may_see(key: Key | None, word: Feedback) -> bool:
    return may_see(key, word.by) or may_see(key, word.key)


def shown(word: Feedback) -> dict[str, Any]:
    """A word as JSON shows it."""
    of_task = word.thing.removeprefix(task_thing(word.key, "")) if word.thing.startswith("task:") else None
    about = {"request_id": word.thing} if of_task is None else {"task_id": of_task, "key": word.key}
    given = {"score": word.score, "correction": word.correction, "comment": word.comment}
    return {
        **about,
        "outcome": word.outcome,
        "source": word.source,
        "by": word.by,
        "said_s": word.said_s,
        "matched": word.matched,
        **{name: value for name, value in given.items() if value is not None},
    }


def _unmatched(word: Feedback) -> str:
    """What to make of a word on what is not on record."""
    if not word.thing.startswith("task:"):
        return "No such request is on record now; this counts if its record comes, for the key that made it."
    return (
        f"No call of a task of this name is on record for the key {word.key}; this counts if one comes. A key speaks "
        "of its own tasks; an admin key, or one that judges, of another's with ?key=NAME."
    )


def _down() -> FeedbackDown:
    return FeedbackDown("The store of outcomes does not answer; send the feedback again.")
