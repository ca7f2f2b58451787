"""Where connections go, and which of those that are idle may be used again."""

from __future__ import annotations

import asyncio
import functools
import re
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.gateway.pool_connection import Connection

IDLE_S = 60.0
MAX_IDLE = 128
PEEK_AFTER_S = 0.5
"""Idle for less than this, a connection is not asked whether it was closed: servers wait for at least a second."""
_KEEP_ALIVE_TIMEOUT = re.compile(r"\btimeout\s*=\s*(\d{1,9})", re.ASCII | re.IGNORECASE)


class Origin:
    """Scheme, host and port, and the connections to them that wait for another exchange.

    The one used last is taken first, so that what a burst opened grows old and is closed.
    """

    __slots__ = ("host", "idle", "port", "tls")

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.idle: list[Connection] = []

    def take(self, now_s: float) -> Connection | None:
        """An idle connection that is still good; None if there is none."""
        while self.idle:
            connection = self.idle.pop()
            if is_good(connection, now_s):
                return connection
            connection.abort()
        return None

    def put(self, connection: Connection, now_s: float) -> None:
        """Keep a connection whose exchange is over; close it where enough are idle."""
        if len(self.idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since_s = now_s
        connection.idle_until_s = now_s + idle_limit_s(connection.headers.get("keep-alive"))
        self.idle.append(connection)

    def sweep(self, now_s: float) -> None:
        """Close what has been idle for too long."""
        for connection in [known for known in self.idle if now_s >= known.idle_until_s]:
            self.idle.remove(connection)
            connection.abort()


def is_good(connection: Connection, now_s: float) -> bool:
    """Whether an idle connection can be used again: neither old, nor closed, nor with an EOF waiting unread."""
    if connection.closed or now_s >= connection.idle_until_s:
        return False
    return now_s - connection.idle_since_s < PEEK_AFTER_S or not _readable(connection.transport)


@functools.lru_cache(maxsize=64)
def idle_limit_s(keep_alive: str | None) -> float:
    """How long to keep an idle connection: a second less than the provider says it will, where it says so.

    Source of the header: https://www.rfc-editor.org/rfc/rfc2068#section-19.7.1.1
    """
    found = _KEEP_ALIVE_TIMEOUT.search(keep_alive or "")
    return IDLE_S if found is None else min(IDLE_S, float(found[1]) - 1.0)


if sys.platform == "linux":
    import fcntl
    import termios

    def has_unacknowledged(transport: asyncio.Transport, lost: Exception | None) -> bool:
        """Whether the other side's machine has not acknowledged all that was written: then nobody has read it all.

        What ends a connection in order (`lost` is None, or a broken pipe: a reset behind such an end) acknowledges what
        had come by then, and SIOCOUTQ tells what was not (https://man7.org/linux/man-pages/man7/tcp.7.html). Any other
        loss tells nothing: of a reset Linux does not look at what it acknowledges, and what was read right before it,
        on a connection that was used before, was as a rule not acknowledged either. Over TLS this is asked when the
        other side's close_notify has come, before one's own goes out, which would count as well.
        """
        if transport.get_write_buffer_size():
            return True
        if lost is not None and not isinstance(lost, BrokenPipeError):
            return False
        sock = transport.get_extra_info("socket")
        if sock is None:  # closed by now: uvloop's TLS tells only then of an end without a close_notify
            return False
        try:
            queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return False
        return int.from_bytes(queued, sys.byteorder, signed=True) > 0

else:

    def has_unacknowledged(transport: asyncio.Transport, lost: Exception | None) -> bool:
        """Whether something was not even sent: what was acknowledged cannot be known here."""
        return transport.get_write_buffer_size() > 0


if sys.platform == "win32":

    def _readable(transport: asyncio.Transport) -> bool:
        return False

else:

    def _readable(transport: asyncio.Transport) -> bool:
        """Whether something, which on an idle connection is its end, has come that the event loop has yet to see."""
        poller = select.poll()
        poller.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poller.poll(0))
