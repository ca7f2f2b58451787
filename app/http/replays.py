"""The same request again, with the same `Idempotency-Key`: answered with the first one's reply, and charged once.

A reply is kept for a while in this process, whole or streamed, where its call ended well (or was cut: asking again must
not spend more). A second request that comes while the first is under way waits for it. Behind several gateways this
holds for those that reach the same one. The header's meaning is that of
https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import asyncio
import hashlib
import time

from app.core.errors import BadRequest
from app.core.types import Outcome
from app.http.asgi import AsgiDownstream, Head, Send

KEPT_S = 600.0
WAIT_S = 660.0
"""A little more than the hard timeout of a call."""
MAX_KEPT = 2_000
MAX_KEPT_BYTES = 64 * 1024 * 1024
MAX_KEY_CHARS = 255
_KEPT_OUTCOMES = frozenset({Outcome.COMPLETED, Outcome.COST_KILLED})


class Reply:
    """One reply as it was sent, or is being sent."""

    def __init__(self, fingerprint: bytes, now_s: float) -> None:
        self.fingerprint = fingerprint
        self.began_s = now_s
        self.ended = asyncio.Event()
        self.good = False
        self.status = 0
        self.headers: Head = []
        self.parts: list[bytes] = []
        self.size = 0

    def end(self, outcome: Outcome) -> None:
        """The call is over: its reply stands, or the next request has to try again."""
        self.good = outcome in _KEPT_OUTCOMES and bool(self.status) and self.size <= MAX_KEPT_BYTES // 8
        self.ended.set()


class RecordingDownstream(AsgiDownstream):
    """Keeps what it sends."""

    __slots__ = ("_reply",)

    def __init__(self, send: Send, reply: Reply) -> None:
        super().__init__(send)
        self._reply = reply

    async def start(self, status: int, headers: Head) -> None:
        if not self.opened:
            self._reply.status, self._reply.headers = status, headers
        await super().start(status, headers)

    async def write(self, data: bytes) -> None:
        self._keep(data)
        await super().write(data)

    async def finish(self, data: bytes) -> None:
        self._keep(data)
        await super().finish(data)

    def _keep(self, data: bytes) -> None:
        self._reply.parts.append(data)
        self._reply.size += len(data)


class Replays:
    """Replies by whose request and which key; the oldest and those past their time are forgotten."""

    def __init__(self) -> None:
        self._replies: dict[tuple[str, str], Reply] = {}

    async def find(self, whose: str, key: str, body: bytes) -> Reply | None:
        """The reply to an earlier request with this key; None where there is none to be had, and `begin` is next.

        Raises BadRequest for a key that is none, or that another request has used.
        """
        if not key or len(key) > MAX_KEY_CHARS:
            raise BadRequest("The header Idempotency-Key must not be empty or very long.", param="Idempotency-Key")
        fingerprint = hashlib.sha256(body).digest()
        while True:
            self._forget(time.monotonic())
            reply = self._replies.get((whose, key))
            if reply is None:
                return None
            if reply.fingerprint != fingerprint:
                raise BadRequest("That Idempotency-Key belongs to another request.", param="Idempotency-Key")
            async with asyncio.timeout(WAIT_S):
                await reply.ended.wait()
            if reply.good:
                return reply
            self._replies.pop((whose, key), None)

    def begin(self, whose: str, key: str, body: bytes) -> Reply:
        """Note that the request with this key is being served."""
        reply = self._replies[whose, key] = Reply(hashlib.sha256(body).digest(), time.monotonic())
        return reply

    def _forget(self, now_s: float) -> None:
        size = sum(reply.size for reply in self._replies.values())
        for name, reply in list(self._replies.items()):
            over = len(self._replies) > MAX_KEPT or size > MAX_KEPT_BYTES or now_s - reply.began_s > KEPT_S
            if not over or not reply.ended.is_set():
                break
            size -= reply.size
            del self._replies[name]


async def replay(reply: Reply, downstream: AsgiDownstream) -> None:
    """Send a reply again, marked as such; its request id is the first one's, for there was one call."""
    headers = [(name, value) for name, value in reply.headers if name != b"content-length"]
    whole = len(headers) < len(reply.headers)
    headers.append((b"x-bursar-replayed", b"true"))
    if whole:
        await downstream.reply(reply.status, headers, b"".join(reply.parts))
        return
    await downstream.start(reply.status, headers)
    await downstream.finish(b"".join(reply.parts))
