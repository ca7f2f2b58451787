"""Getting to Redis: a URL becomes a `Server`, a server gives `Link`s, a link runs one script with a deadline.

redis-py connects, authenticates, discovers (Sentinel, Cluster) and parses (hiredis). On a single server and
behind Sentinel a link keeps one of its connections and drives it directly, since the client's `execute_command`
costs more CPU than all of the ledger's own work (tests/bench); on a Cluster redirections are worth that price.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis
from redis.asyncio import Connection, ConnectionPool, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from app.stores.budgets import LedgerUnavailable
from app.stores.causes import unreachable

IDLE_S = 0.25
"""A connection unused for longer is asked for a PING first, so that a restarted server costs no verb."""
DEFAULT_PORT = 6379
TLS_OPTIONS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
"""What a rediss URL may say behind its `?`, in redis-py's words."""
DEFAULT_SENTINEL_PORT = 26379
FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)

Arg = bytes | str | int

_pack: Callable[[tuple[Arg, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; servers know it by the SHA-1 of its text."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class Link(Protocol):
    """One way to the server; carries one call at a time."""

    async def call(self, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run the script; LedgerUnavailable after an error or the deadline, the effect is then unknown."""


class Server(Protocol):
    """What a URL stands for. `timeout_s`: the deadline of each call."""

    timeout_s: float

    def link(self) -> Link:
        """A new link; it connects when first used, and again after each failure."""

    async def close(self) -> None:
        """Close all links."""


def open_server(url: str, script: Script, timeout_s: float) -> Server:
    """The server of a URL, not yet connected; ValueError (without the URL, it may hold a password) for a bad one.

    Schemes: redis:// rediss:// unix:// as redis-py reads them; redis+sentinel://[user:password@]h1:p,h2:p/service[/db]
    and redis+cluster://[user:password@]h1:p,h2:p; either with rediss+ for TLS, then with TLS_OPTIONS. Sentinels that
    ask for a password of their own get `?sentinel_username=&sentinel_password=`.
    """
    options: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": timeout_s, "protocol": 2}
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis+cluster", "rediss+cluster"):
            return _cluster(url, script, timeout_s, options)
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _sentinel(url, script, timeout_s, options)
        if scheme in ("redis", "rediss", "unix"):
            pool = ConnectionPool.from_url(url, **options)
            pool.connection_class(**pool.connection_kwargs)  # an option that it does not know shows only here
            return PooledServer(pool, script, timeout_s)
    except (ValueError, TypeError, RedisError):
        pass
    raise ValueError(
        "the Redis URL is not valid: it needs one of the schemes redis, rediss, unix, redis+sentinel and redis+cluster,"
        " known options, and a password whose special characters are percent-encoded (@ is %40)"
    )


def check_url(url: str) -> None:
    """Raises ValueError, without the URL, for one that no server has; nothing is connected."""
    open_server(url, Script(""), 1.0)


def _addresses(url: str, default_port: int) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options: dict[str, Any] = {"username": unquote(user) or None, "password": unquote(password) or None}
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    addresses = []
    for host in hosts.split(","):
        name, colon, port = host.rpartition(":")
        if not (name if colon else host):
            raise ValueError("a host is missing")
        addresses.append((name.strip("[]"), int(port)) if colon else (host, default_port))
    return addresses, options


def _options(url: str, known: Sequence[str] = ()) -> dict[str, Any]:
    """What the URL says behind its `?`; ValueError for an option that nobody would heed."""
    parts = urlsplit(url)
    found: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    if found.keys() - {*known, *(TLS_OPTIONS if parts.scheme.startswith("rediss") else ())}:
        raise ValueError("unknown options")
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = found["ssl_check_hostname"].lower() not in ("0", "f", "false", "n", "no")
    return found


def _cluster(url: str, script: Script, timeout_s: float, options: Mapping[str, Any]) -> Server:
    addresses, login = _addresses(url, DEFAULT_PORT)
    nodes = [ClusterNode(host, port) for host, port in addresses]
    # No retries: the effect of a verb that timed out is unknown. Redirections are followed all the same.
    retry = Retry(NoBackoff(), 0)
    sockets = {**options, **_options(url), "socket_timeout": timeout_s}
    return ClusterServer(RedisCluster(startup_nodes=nodes, retry=retry, **login, **sockets), script, timeout_s)


def _sentinel(url: str, script: Script, timeout_s: float, options: Mapping[str, Any]) -> Server:
    addresses, login = _addresses(url, DEFAULT_SENTINEL_PORT)
    parts = urlsplit(url)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of the service is missing")
    tls = _options(url, ("sentinel_username", "sentinel_password"))
    own_login = {name: tls.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    # Several sentinels must fit into the deadline of one call, a dead one first.
    wait_s = timeout_s / (len(addresses) + 1)
    to_sentinels = {
        "socket_timeout": wait_s,
        "socket_connect_timeout": wait_s,
        "ssl": bool(login.get("ssl")),
        "retry": Retry(NoBackoff(), 0),
        **own_login,
        **tls,
    }
    sentinel = Sentinel(addresses, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call]
    master = {**login, **options, **tls, "db": int(db or 0)}
    pool = SentinelConnectionPool(service, sentinel, **master)  # type: ignore[no-untyped-call]
    return PooledServer(pool, script, timeout_s, sentinel)


class PooledServer:
    """A single server, or the master that Sentinel names."""

    def __init__(
        self, pool: ConnectionPool, script: Script, timeout_s: float, sentinel: Sentinel | None = None
    ) -> None:
        self._pool = pool
        self._script = script
        self.timeout_s = timeout_s
        self._sentinel = sentinel

    def link(self) -> Link:
        return PooledLink(self._pool, self._script, self.timeout_s)

    async def close(self) -> None:
        await self._pool.disconnect()
        for client in self._sentinel.sentinels if self._sentinel else ():
            await client.aclose()


class PooledLink:
    """One connection of a pool, kept."""

    def __init__(self, pool: ConnectionPool, script: Script, timeout_s: float) -> None:
        self._pool = pool
        self._script = script
        self._timeout_s = timeout_s
        self._connection: Connection | None = None
        self._used_at = 0.0

    async def call(self, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        tail = (len(keys), *keys, *args)
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._ready()
                try:
                    reply = await self._roundtrip(connection, ("EVALSHA", self._script.sha, *tail))
                except NoScriptError:  # a restarted or newly promoted server: nothing was carried out
                    reply = await self._roundtrip(connection, ("EVAL", self._script.text, *tail))
        except BaseException as error:
            # A reply that comes late must not be taken for the next one's; a demoted master must be left.
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            if isinstance(error, FAILURES):
                raise unavailable(error) from error
            raise
        self._used_at = asyncio.get_running_loop().time()
        return reply

    async def _ready(self) -> Connection:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        elif not connection.is_connected:
            await connection.connect()  # type: ignore[no-untyped-call]
        elif asyncio.get_running_loop().time() - self._used_at > IDLE_S:
            try:
                await self._roundtrip(connection, ("PING",))
            except (RedisError, OSError):
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    async def _roundtrip(self, connection: Connection, command: tuple[Arg, ...]) -> Any:
        await connection.send_packed_command(_pack(command), check_health=False)
        return await connection.read_response()


class ClusterServer:
    """A Redis Cluster; all keys of a ledger live in one slot, the client follows it as it moves."""

    def __init__(self, cluster: RedisCluster, script: Script, timeout_s: float) -> None:
        self._cluster = cluster
        self._script = script
        self.timeout_s = timeout_s

    def link(self) -> Link:
        return self

    async def call(self, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        tail = (len(keys), *keys, *args)
        try:
            async with asyncio.timeout(self.timeout_s):
                try:
                    return await self._cluster.execute_command("EVALSHA", self._script.sha, *tail)
                except NoScriptError:
                    return await self._cluster.execute_command("EVAL", self._script.text, *tail)
        except FAILURES as error:
            raise unavailable(error) from error

    async def close(self) -> None:
        await self._cluster.aclose()


class Desk:
    """A server, asked one thing at a time. None waits longer than twice its deadline, however many are in line.

    `down` makes the error that askers get, of words that say that `what` did not answer, and why."""

    def __init__(self, server: Server, what: str, down: Callable[[str], Exception]) -> None:
        self._server = server
        self._link = server.link()
        self._turn = asyncio.Lock()
        self._what, self._down = what, down

    async def ask(self, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run the script. Raises what `down` makes after an error or the deadline; the effect is then unknown."""
        try:
            async with asyncio.timeout(2 * self._server.timeout_s), self._turn:
                return await self._link.call(keys, args)
        except (LedgerUnavailable, TimeoutError) as error:
            raise self._down(_unanswered(self._what, error.__cause__ or error)) from error

    async def close(self) -> None:
        """Close the server."""
        await self._server.close()


def unavailable(error: BaseException) -> LedgerUnavailable:
    """The error as callers of the ledger know it."""
    return LedgerUnavailable(_unanswered("the ledger", error))


def _unanswered(what: str, error: BaseException) -> str:
    """The error's kind and cause and no more: messages of redis-py may quote commands."""
    if isinstance(error, MasterNotFoundError):
        why = "no sentinel answers, or none knows a master of that name"
    else:
        why = "it took too long" if isinstance(error, TimeoutError) else unreachable(error)
    return f"{what} on Redis did not answer ({type(error).__name__}{f': {why}' if why else ''})"
