"""The same request again, with the same `Idempotency-Key`: answered with the first one's reply, and charged once.

A reply is kept for a while, whole or streamed, where its call ended well (or was cut: asking again must not spend
more). A second request that comes while the first is under way waits for it, in this process or another: gateways that
share a ledger share replies (`stores/replays.py`). The header's meaning is that of
https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import asyncio
import hashlib
import time

import structlog

from app.core.errors import BadRequest
from app.core.types import Outcome
from app.http.asgi import AsgiDownstream, Head, Send
from app.http.wire import Cycle, WireDownstream
from app.stores.replays import (
    KEPT_S,
    MAX_KEPT_BYTES,
    RENEW_S,
    Claim,
    Kept,
    Origin,
    ReplaysUnavailable,
    SharedReplays,
)

log = structlog.get_logger()

WAIT_S = 660.0
"""A little more than the hard timeout of a call."""
MAX_KEPT = 2_000
MAX_ALL_BYTES = 64 * 1024 * 1024
FIRST_LOOK_S, LAST_LOOK_S = 0.05, 0.5
"""How often another process's claim is looked at, at first and in the end."""
MAX_KEY_CHARS = 255
REPLAYED: Head = [(b"x-bursar-replayed", b"true")]
_KEPT_OUTCOMES = frozenset({Outcome.COMPLETED, Outcome.COST_KILLED})


class Reply:
    """One reply as it was sent, or is being sent. `claim`: the name under which other processes know of it in `shared`;
    it is kept for `keep_s`, `for_all`: only where it is whole, and as anybody's would be who asks the same."""

    def __init__(
        self,
        fingerprint: bytes,
        now_s: float,
        shared: SharedReplays | None = None,
        *,
        for_all: bool = False,
        keep_s: float = KEPT_S,
    ) -> None:
        self.fingerprint = fingerprint
        self._shared, self._for_all, self._keep_s = shared, for_all, keep_s
        self.began_s = now_s
        self.ended = asyncio.Event()
        self.good = self.whole = False
        self.status = 0
        self.headers: Head = []
        self.parts: list[bytes] = []
        self.size = 0
        self.claim: str | None = None
        self.origin: Origin | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it was sent without its length."""
        return not any(name == b"content-length" for name, _ in self.headers)

    def fill(self, kept: Kept) -> None:
        """With what was answered elsewhere, or before."""
        self.status, self.headers = kept.status, kept.headers
        self.parts, self.size, self.origin = [kept.body], len(kept.body), kept.origin
        self.good = True
        self.ended.set()

    def end(self, outcome: Outcome, origin: Origin | None = None, *, as_asked: bool = True) -> None:
        """The call is over: its reply stands, or the next request has to try again. One whose client left while its
        end was settled has no end. `as_asked`: no lack of money has shaped it, and what it says holds."""
        stands = outcome is Outcome.COMPLETED and as_asked if self._for_all else outcome in _KEPT_OUTCOMES
        self.good = stands and self.whole and self.size <= MAX_KEPT_BYTES
        self.ended.set()
        if self.claim is not None and self._shared is not None:
            kept = Kept(self.status, self.headers, b"".join(self.parts), origin) if self.good else None
            self._shared.keep(self.claim, kept, self._keep_s)
            self.claim = None

    def add(self, data: bytes) -> None:
        """More of it; nothing of what has become too large to be kept."""
        self.size += len(data)
        if self.size <= MAX_KEPT_BYTES:
            self.parts.append(data)
        else:
            self.parts.clear()


class _Recording(AsgiDownstream):
    """Keeps what it sends."""

    __slots__ = ()
    _reply: Reply

    async def start(self, status: int, headers: Head) -> None:
        if not self.opened:
            self._reply.status, self._reply.headers = status, headers
        await super().start(status, headers)

    async def write(self, data: bytes) -> None:
        self._reply.add(data)
        await super().write(data)

    async def finish(self, data: bytes) -> None:
        self._reply.add(data)
        self._reply.whole = True
        await super().finish(data)


class RecordingDownstream(_Recording):
    """By ASGI messages."""

    __slots__ = ("_reply",)

    def __init__(self, send: Send, reply: Reply) -> None:
        super().__init__(send)
        self._reply = reply


class RecordingWire(_Recording, WireDownstream):
    """Without them."""

    __slots__ = ("_reply",)

    def __init__(self, cycle: Cycle, reply: Reply) -> None:
        WireDownstream.__init__(self, cycle)
        self._reply = reply

    def push(self, data: bytes) -> bool:
        pushed = super().push(data)
        if pushed:
            self._reply.add(data)
        return pushed

    async def reply(self, status: int, headers: Head, body: bytes) -> None:
        reply = self._reply
        reply.status, reply.headers, reply.whole = status, [*headers, (b"content-length", b"%d" % len(body))], True
        reply.add(body)
        await super().reply(status, headers, body)


class Replays:
    """Replies by whose request and which key; the oldest and those past their time are forgotten. One per process;
    `shared`: what other processes know, asked for keys that this one does not."""

    def __init__(self, shared: SharedReplays | None = None) -> None:
        self._replies: dict[tuple[str, str], Reply] = {}
        self._shared = shared

    async def take(self, whose: str, key: str, path: str, body: bytes, user: str = "") -> tuple[Reply, bool]:
        """The reply to an earlier request with this key, and False; or a new one to be recorded and `end`ed, and True.
        `user`: the end user whom a header names, for what was said to one is no reply to another.

        Raises BadRequest for a key that is none, or that another request has used.
        """
        if not key or len(key) > MAX_KEY_CHARS:
            raise BadRequest("The header Idempotency-Key must not be empty or very long.", param="Idempotency-Key")
        fingerprint = hashlib.sha256(f"{path}\0{user}\0".encode() + body).digest()
        while True:
            self._forget(time.monotonic())
            reply = self._replies.get((whose, key))
            if reply is None:
                break
            if reply.fingerprint != fingerprint:
                raise _used()
            async with asyncio.timeout(WAIT_S):
                await reply.ended.wait()
            if reply.good:
                return reply, False
            if self._replies.get((whose, key)) is reply:
                del self._replies[whose, key]
        reply = self._replies[whose, key] = Reply(fingerprint, time.monotonic(), self._shared)
        try:
            return reply, await self._is_mine(f"{whose}:{key}", reply)
        except BaseException:
            reply.ended.set()  # those who wait for it here go on by themselves
            raise

    async def _is_mine(self, name: str, reply: Reply) -> bool:
        """Whether this process is to serve the request; else the reply is filled with what another one answered."""
        if self._shared is None:
            return True
        pause_s, give_up_s = FIRST_LOOK_S, time.monotonic() + WAIT_S
        while True:
            try:
                found = await self._shared.claim(name, reply.fingerprint)
            except ReplaysUnavailable as error:
                log.warning("an Idempotency-Key holds within this process only", error=str(error))
                return True
            if isinstance(found, Kept):
                reply.fill(found)
                return False
            if found is Claim.OTHER:
                raise _used()
            if found is Claim.MINE:
                reply.claim = name
                return True
            if time.monotonic() > give_up_s:
                raise TimeoutError
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_LOOK_S)

    def _forget(self, now_s: float) -> None:
        size = sum(reply.size for reply in self._replies.values())
        for name, reply in list(self._replies.items()):
            over = len(self._replies) > MAX_KEPT or size > MAX_ALL_BYTES or now_s - reply.began_s > KEPT_S
            if not over or not reply.ended.is_set():
                break
            size -= reply.size
            del self._replies[name]


async def tend(shared: SharedReplays) -> None:
    """Keep this process's claims alive, until cancelled: a call may take longer than they last."""
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            await shared.renew()
        except ReplaysUnavailable as error:
            log.warning("claims on replies could not be renewed", error=str(error))


def _used() -> BadRequest:
    return BadRequest("This Idempotency-Key was used for another request; use a new one.", param="Idempotency-Key")


async def replay(reply: Reply, downstream: AsgiDownstream, mark: Head = REPLAYED) -> None:
    """Send a reply again, marked as such. `mark` goes before the reply's own headers."""
    marked = {b"content-length", *(name for name, _ in mark)}
    headers = [*((name, value) for name, value in reply.headers if name not in marked), *mark]
    if not reply.is_stream:
        await downstream.reply(reply.status, headers, b"".join(reply.parts))
        return
    await downstream.start(reply.status, headers)
    await downstream.finish(b"".join(reply.parts))
