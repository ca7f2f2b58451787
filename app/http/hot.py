"""What hot routes share: raw ASGI handlers that read, check, start an owned call, and then only listen for the
client to leave."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial

import msgspec
import structlog

from app.core.errors import BursarError, Draining, TooLarge
from app.core.policy import Key
from app.core.types import Outcome
from app.dialects.base import Dialect
from app.dialects.gemini.paths import wants_array
from app.dialects.openai_chat.fields import MAX_MODEL_CHARS
from app.dialects.openai_chat.parse import asking_for, members_of
from app.dialects.registry import CHAT, dialect_named
from app.gateway.cached import cached_trace, origin_of
from app.gateway.calls import Stop
from app.gateway.limits import ANONYMOUS
from app.gateway.owned import OwnedCall, id_headers
from app.gateway.record import CallRecord
from app.gateway.services import Services
from app.http.asgi import PATIENT, AsgiDownstream, Head, Message, Patience, Receive, Scope, Send, next_piece
from app.http.auth import KeyRing
from app.http.caps import join_repeated
from app.http.encodings import decoded
from app.http.end_users import HEADER as USER_HEADER
from app.http.end_users import user_of
from app.http.header_text import meant
from app.http.replays import REPLAYED, RecordingDownstream, RecordingWire, Replays, Reply, replay
from app.http.reply_cache import CACHED, FROM, ReplyCache
from app.http.tags import HEADER as TAGS
from app.http.tags import tags_of
from app.http.whose import Whose, task_of
from app.http.wire import WIRE, Cycle, WireDownstream

log = structlog.get_logger()

NO_PATH: Mapping[str, str] = {}
PROBED = "x-bursar-probe"
DEPLOYMENT = "deployment"
"""What of a path names the model, in the place of the body."""
TRACEPARENT_CHARS = 55
"""https://www.w3.org/TR/trace-context/#traceparent-header (version 00)"""
READ_AWAY_S = 5.0
"""How long a body that is too large may go on arriving before its connection is closed."""


class Incoming(msgspec.Struct):
    """A request that passed the gate. `path_task`: the task that its base URL names; `path`: what else its URL says."""

    headers: dict[str, str]
    body: bytes
    key: Key | None
    downstream: AsgiDownstream
    path_task: str | None
    path: Mapping[str, str]


class ClientLeft(Exception):
    """The client closed the connection before its request was complete."""


def new_request_id() -> str:
    """An id that no other request has; ids sort by time, so that stores append rather than scatter."""
    return f"req_{time.time_ns() // 1_000_000:011x}{_ids.getrandbits(64):016x}"


def new_id_headers(dialect: Dialect) -> Head:
    """A new request's id, as every answer carries it."""
    return id_headers(new_request_id(), dialect)


_ids = random.Random()  # noqa: S311  (seeded by the system; an id is no secret: records are guarded by keys)


class HotRoute(ABC):
    """One route; one per process. Subclasses say what call a body makes."""

    def __init__(self, services: Services, *, max_body_bytes: int) -> None:
        self.services = services
        self._max_body_bytes = max_body_bytes
        self._keys = KeyRing(services.view.policy)
        self.replays = Replays()  # a process's routes are given one in common
        self.cache: ReplyCache | None = None  # and so they are of this
        self.patience = PATIENT

    @property
    def dialect(self) -> Dialect:
        """In whose words errors are told."""
        return dialect_named(CHAT)

    @abstractmethod
    async def serve(self, incoming: Incoming) -> OwnedCall | None:
        """The call that a request begins, None where it is answered. Raises BadRequest."""

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path_task: str | None = None,
        path: Mapping[str, str] = NO_PATH,
    ) -> None:
        """One request."""
        # Taken out: a cycle has its scope, and each would keep the other for the garbage collector to find.
        cycle: Cycle | None = scope["extensions"].pop(WIRE, None) if "extensions" in scope else None
        downstream = AsgiDownstream(send) if cycle is None else WireDownstream(cycle)
        kept: Reply | None = None
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if len(headers) != len(scope["headers"]):
                join_repeated(headers, scope["headers"])
            if "key" in path:
                headers.setdefault("x-goog-api-key", path["key"])
            key, body = await self._key_and_body(headers, receive, cycle, path)
            view = self.services.view
            may_repeat = "idempotency-key" in headers or view.policy.cache_s is not None
            if may_repeat and (before := await self._came_before(headers, key, _asked_at(scope["path"], path), body)):
                reply, is_new, mark = before
                if not is_new:
                    if mark is CACHED:
                        await self._give_again(reply, Incoming(headers, body, key, downstream, path_task, path))
                    else:
                        await replay(reply, downstream, mark)
                    return
                kept = reply
                downstream = RecordingDownstream(send, kept) if cycle is None else RecordingWire(cycle, kept)
            if self.services.view is not view:  # or while it was looked for
                key = self._gate(headers)
            call = await self.serve(Incoming(headers, body, key, downstream, path_task, path))
        except BursarError as error:
            if kept is not None:
                kept.end(Outcome.BAD_REQUEST)
            self.services.metrics.errors.labels(error.label).inc()
            if isinstance(error, TooLarge):
                await read_away(headers, receive, cycle)
            await refuse(downstream, error, self.dialect, path)
            return
        except ClientLeft:
            return
        except Exception:
            log.exception("a request failed unexpectedly")
            if kept is not None:
                kept.end(Outcome.GATEWAY_ERROR)
            self.services.metrics.errors.labels(BursarError.label).inc()
            await refuse(downstream, BursarError("The gateway failed to serve the request."), self.dialect, path)
            return
        if call is None:
            if kept is not None:
                kept.end(Outcome.COMPLETED)
            return
        if cycle is None:
            await self._listen(call, receive, downstream, kept)
        else:
            await self._run(call, cycle, downstream, kept)

    async def _key_and_body(
        self, headers: dict[str, str], receive: Receive, cycle: Cycle | None, path: Mapping[str, str]
    ) -> tuple[Key | None, bytes]:
        """Who asks, by the view in force once the body is here, and the body. Raises BursarError or ClientLeft."""
        view, key = self.services.view, self._gate(headers)
        body = await read_body(headers, receive, self._max_body_bytes, self.patience, cycle)
        if "content-encoding" in headers:
            body = decoded(headers["content-encoding"], body, self._max_body_bytes)
        if DEPLOYMENT in path:
            body = asking_for(path[DEPLOYMENT], body)
        if self.services.view is not view:  # the policy was edited meanwhile: one view a request
            key = self._gate(headers)
        return key, body

    async def _came_before(
        self, headers: dict[str, str], key: Key | None, path: str, body: bytes
    ) -> tuple[Reply, bool, Head] | None:
        """The reply to the same request before this one, and False; one to be recorded, and True; None where neither is
        wanted. With what marks a reply as given again. Raises BadRequest."""
        if (again := headers.get("idempotency-key")) is not None:
            user = headers.get(USER_HEADER, "")
            return *await self.replays.take(key_name(key), again, path, body, user), REPLAYED
        if self.cache is None or self.services.view.policy.cache_s is None:
            return None
        found = await self.cache.find(key_name(key), headers, path, body)
        return None if found is None else (*found, CACHED)

    def whose(self, incoming: Incoming) -> Whose:
        """Whose a request is that another's reply answers. Raises BadRequest."""
        return task_of(incoming.headers, None, incoming.path_task)

    async def _give_again(self, reply: Reply, incoming: Incoming) -> None:
        """Answer with a reply of the cache. It is a call of its own, and has its record. Raises BadRequest."""
        origin, downstream = reply.origin, incoming.downstream
        if origin is None:  # tokens were counted: that is no call
            await replay(reply, downstream, [*new_id_headers(self.dialect), *CACHED])
            return
        whose = self.whose(incoming)
        record = self.new_record(incoming, whose, model=origin.requested_model, stream=reply.is_stream)
        if record.view.counts_users:
            self.note_user(record, incoming, members_of(incoming.body))
        if PROBED in incoming.headers:  # who may send none has no such reply
            record.probe = meant(incoming.headers[PROBED])
        record.created_s -= time.monotonic() - reply.began_s
        ids = [*id_headers(record.request_id, self.dialect), (FROM, origin.request_id.encode())]
        await replay(reply, downstream, [*ids, *CACHED])
        record.outcome, record.duration_s = Outcome.COMPLETED, time.monotonic() - reply.began_s
        self.services.traces.append(record.request_id, partial(cached_trace, record, origin))

    async def _run(self, call: OwnedCall, cycle: Cycle, downstream: AsgiDownstream, kept: Reply | None) -> None:
        """In this task, which outlives its client: the connection tells when that one leaves."""

        def on_left() -> None:
            if not downstream.finished:
                call.waits.stop(Stop.CLIENT_GONE)

        cycle.on_left = on_left
        if cycle.disconnected:
            on_left()
        try:
            await self.services.calls.run(call)
        finally:  # cancelled or not: whoever waits for this reply must not wait for ever
            cycle.on_left = None
            if kept is not None:
                _end(kept, call, downstream)

    async def _listen(self, call: OwnedCall, receive: Receive, downstream: AsgiDownstream, kept: Reply | None) -> None:
        """Under another server: the call is a task of its own, and this one listens for the client to leave."""
        task = self.services.calls.spawn(call)
        if kept is not None:
            task.add_done_callback(lambda _: _end(kept, call, downstream))
        while (await receive())["type"] != "http.disconnect":
            pass
        if not downstream.finished:
            call.waits.stop(Stop.CLIENT_GONE)

    def _gate(self, headers: dict[str, str]) -> Key | None:
        if self.services.calls.draining:
            raise Draining("The gateway is shutting down.", headers={"retry-after": "1"})
        policy = self.services.view.policy
        if self._keys.policy is not policy:
            self._keys = KeyRing(policy)
        return self._keys.authenticate(headers)

    def note_user(self, record: CallRecord, incoming: Incoming, members: Mapping[str, msgspec.Raw]) -> None:
        """Note for which end user a call is, where the policy tells those of its key apart. Raises BadRequest or
        LedgerDown."""
        users = record.view.policy.users_of(incoming.key)
        if users is not None:
            record.user = user_of(incoming.headers, members, self.dialect, users, self.services.salt)

    def new_record(self, incoming: Incoming, whose: Whose, *, model: str, stream: bool) -> CallRecord:
        """The record of a call that begins now, on the view in force. Raises BadRequest."""
        headers, key = incoming.headers, incoming.key
        return CallRecord(
            request_id=new_request_id(),
            created_s=time.time(),
            key_name=key_name(key),
            task_id=whose.task_id,
            parent_id=whose.parent_id,
            harness=whose.harness,
            requested_model=model[:MAX_MODEL_CHARS],
            stream=stream,
            view=self.services.view,
            client_request_id=headers.get("x-request-id", "")[:200] or None,
            retry_count=headers.get("x-stainless-retry-count", "")[:10] or None,
            team=None if key is None else key.team,
            traceparent=headers.get("traceparent", "")[:TRACEPARENT_CHARS] or None,
            tags=tags_of(headers[TAGS]) if TAGS in headers else (),
        )


async def read_body(
    headers: dict[str, str],
    receive: Receive,
    max_bytes: int,
    patience: Patience = PATIENT,
    cycle: Cycle | None = None,
) -> bytes:
    """The whole request body. Raises TooLarge, before reading where the client declares it, ClientLeft, or BodyTimeout
    for one that stops arriving. `cycle`: where it is known, a body that has come needs no message and no clock."""
    body = None if cycle is None else cycle.whole_body()
    if body is not None and len(body) <= max_bytes:
        return body  # nearly all
    too_large = TooLarge("The body is larger than this gateway accepts.", headers={"connection": "close"})
    declared = headers.get("content-length", "")
    if body is not None or (declared.isdigit() and int(declared) > max_bytes):
        raise too_large
    message = await next_piece(receive, patience.idle_s)
    if message["type"] != "http.disconnect" and not message.get("more_body"):
        if len(piece := message.get("body", b"")) > max_bytes:
            raise too_large
        return bytes(piece)
    return await _read_on(message, receive, max_bytes, patience, too_large)


async def _read_on(
    message: Message, receive: Receive, max_bytes: int, patience: Patience, too_large: TooLarge
) -> bytes:
    """The rest of a body that comes in pieces, of which this is the first."""
    now_s = asyncio.get_running_loop().time
    until_s = now_s() + patience.whole_s
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise too_large
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await next_piece(receive, min(patience.idle_s, until_s - now_s()))


async def read_away(headers: dict[str, str], receive: Receive, cycle: Cycle | None = None) -> None:
    """Take what a client is still sending, for a while: closing on it would reset the connection, and the client
    would never read why. One that asked first (`Expect: 100-continue`) has sent nothing yet, one whose body is here
    nothing more."""
    if "expect" in headers or (cycle is not None and not cycle.more_body):
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_AWAY_S):
            while (message := await receive())["type"] != "http.disconnect" and message.get("more_body"):
                pass


async def refuse(
    downstream: AsgiDownstream, error: BursarError, dialect: Dialect, path: Mapping[str, str] = NO_PATH
) -> None:
    """An error reply for a request that never became a call; `path` is what its URL says."""
    status, body = dialect.error_reply(error, array=wants_array(path))
    headers = [(b"content-type", b"application/json"), *new_id_headers(dialect)]
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
    await downstream.reply(status, headers, body)


def _end(kept: Reply, call: OwnedCall, downstream: AsgiDownstream) -> None:
    """The call is over whose reply is recorded."""
    origin = origin_of(call.record, call.attempts, call.cost_nano)
    kept.end(call.record.outcome, origin, as_asked=call.as_asked and downstream.sound)


def _asked_at(url_path: str, path: Mapping[str, str]) -> str:
    """The path, and what the URL says of the reply's form beside it."""
    return f"{url_path} as an array" if wants_array(path) else url_path


def key_name(key: Key | None) -> str:
    """The name a key goes by in scopes and records."""
    return key.name if key is not None else ANONYMOUS
