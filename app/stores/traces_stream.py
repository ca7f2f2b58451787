"""Records in Redis as a stream that groups of consumers read: each batch of a group is one consumer's, for good.

A consumer takes once, and its name is the batch's. What was taken stays pending under that name until it is
acknowledged, so that whoever finds a batch left alone gets the very records that its dead owner had.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.stores.redis_link import Script, open_server
from app.stores.traces import KEEP_DAYS

DEADLINE_S = 5.0
COMPACTORS = "compactors"
"""The group that brings records into Parquet."""
BATCH = 4000
LEFT_AFTER_S = 60.0
"""A batch that nobody has touched for so long was left alone. If it was not, it is only done twice, to the same end."""
MAX_WAITING = 50_000
_CHUNK = 250

_SCRIPT = Script(
    """
    local verb, stream, group = ARGV[1], KEYS[1], ARGV[2]

    local function field(list, name)
        for i = 1, #list, 2 do if list[i] == name then return list[i + 1] end end
    end

    local function find_group()
        if redis.call('EXISTS', stream) == 0 then return nil end
        for _, one in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
            if field(one, 'name') == group then return one end
        end
    end

    local function read(consumer, from, count)
        local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', stream, from)
        return reply and reply[1] and reply[1][2] or {}
    end

    if verb == 'bodies' then return redis.call('MGET', unpack(KEYS)) end

    if verb == 'take' then
        if not find_group() then redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM') end
        local taken = read(ARGV[3], '>', ARGV[4])
        if #taken == 0 then redis.call('XGROUP', 'DELCONSUMER', stream, group, ARGV[3]) end
        return taken
    end

    if verb == 'left' then
        local names = {}
        if not find_group() then return names end
        for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
            if field(one, 'pending') > 0 and field(one, 'idle') >= tonumber(ARGV[3]) then
                names[#names + 1] = field(one, 'name')
            end
        end
        return names
    end

    if verb == 'again' then return find_group() and read(ARGV[3], '0', ARGV[4]) or {} end

    if verb == 'ack' then
        if not find_group() then return 0 end
        local count = redis.call('XACK', stream, group, unpack(ARGV, 4))
        if #redis.call('XPENDING', stream, group, '-', '+', 1, ARGV[3]) == 0 then
            redis.call('XGROUP', 'DELCONSUMER', stream, group, ARGV[3])
        end
        return count
    end

    if verb == 'latest' then return redis.call('XREVRANGE', stream, '+', '-', 'COUNT', ARGV[3]) end

    if verb == 'since' then return redis.call('XRANGE', stream, '(' .. ARGV[3], '+', 'COUNT', ARGV[4]) end

    if verb == 'waiting' then
        local one = find_group()
        if not one then return {'0-0', {}, redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[3])} end
        local last, first = field(one, 'last-delivered-id'), redis.call('XPENDING', stream, group)
        if first[1] == 0 then return {last, {}, redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', ARGV[3])} end
        local pending = redis.call('XPENDING', stream, group, '-', '+', ARGV[3])
        return {last, pending, redis.call('XRANGE', stream, first[2], '+', 'COUNT', ARGV[3])}
    end
    """
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some entries of the stream, and the calls they name."""

    name: str
    entries: tuple[bytes, ...]
    request_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The calls that a group has not done, at one moment; `batches`: under whose names some of them are."""

    request_ids: tuple[bytes, ...]
    batches: frozenset[str]
    all: bool


class TraceStream:
    """The stream as one group reads it. Every verb raises LedgerUnavailable where Redis does not answer."""

    def __init__(self, url: str, *, namespace: str = "bursar", group: str = COMPACTORS) -> None:
        """Raises ValueError for a URL that cannot be used."""
        self._server = open_server(url, _SCRIPT, DEADLINE_S)
        self._link = self._server.link()
        self._group = group
        self._stream, self._prefix = stream_key(namespace), record_prefix(namespace)

    async def take(self, count: int = BATCH) -> Batch | None:
        """The next records nobody in the group has had, as a batch of a new name; None where there are none."""
        name = f"{int(time.time() * 1000):011x}-{secrets.token_hex(4)}"
        return _batch(name, await self._link.call([self._stream], ["take", self._group, name, count]))

    async def left(self, after_s: float = LEFT_AFTER_S) -> list[str]:
        """The batches that were taken, never acknowledged, and not touched for so long."""
        names = await self._link.call([self._stream], ["left", self._group, int(after_s * 1000)])
        return sorted(name.decode() for name in names)

    async def again(self, name: str) -> Batch | None:
        """All of a batch that was taken; None where it is acknowledged by now."""
        return _batch(name, await self._link.call([self._stream], ["again", self._group, name, 10 * BATCH]))

    async def acknowledge(self, batch: Batch) -> None:
        """The batch is done: nobody in the group gets it again."""
        await self._link.call([self._stream], ["ack", self._group, batch.name, *batch.entries])

    async def waiting(self) -> Waiting:
        """What the group has not done yet, without taking it; the oldest MAX_WAITING at most."""
        last, pending, entries = await self._link.call([self._stream], ["waiting", self._group, MAX_WAITING])
        owned = {entry: consumer for entry, consumer, *_ in pending}
        ids = tuple(fields[1] for entry, fields in entries if entry in owned or _order(entry) > _order(last))
        batches = frozenset(consumer.decode() for consumer in owned.values())
        return Waiting(ids, batches, len(entries) < MAX_WAITING and len(pending) < MAX_WAITING)

    async def latest(self, count: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The calls of the last entries, whatever group has had them, and the last entry."""
        entries = await self._link.call([self._stream], ["latest", self._group, max(count, 1)])
        ids = tuple(fields[1] for _, fields in reversed(entries[:count]))
        return (entries[0][0] if entries else b"0-0"), ids

    async def since(self, entry: bytes, count: int = BATCH) -> tuple[bytes, tuple[bytes, ...]]:
        """The calls of the entries after one, and the last of those."""
        entries = await self._link.call([self._stream], ["since", self._group, entry, count])
        return (entries[-1][0] if entries else entry), tuple(fields[1] for _, fields in entries)

    async def bodies(self, request_ids: Sequence[bytes]) -> list[bytes]:
        """The records of these calls as JSON; fewer, where some have expired (KEEP_DAYS)."""
        found: list[bytes] = []
        for start in range(0, len(request_ids), _CHUNK):
            keys = [self._prefix + request_id.decode() for request_id in request_ids[start : start + _CHUNK]]
            found += [body for body in await self._link.call(keys, ["bodies", self._group]) if body is not None]
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._server.close()


def record_prefix(namespace: str) -> str:
    """Before a request id, the key of its record."""
    return f"{{{namespace}}}:trace:"


def stream_key(namespace: str) -> str:
    """The stream of request ids; with the records in one slot of a cluster."""
    return f"{{{namespace}}}:traces"


def oldest_entry() -> str:
    """The id before which entries may go: their records have expired."""
    return str(int((time.time() - KEEP_DAYS * 86_400) * 1000))


def _batch(name: str, entries: Sequence[tuple[bytes, list[bytes] | None]]) -> Batch | None:
    """An entry that was trimmed while it was pending has no fields."""
    if not entries:
        return None
    return Batch(name, tuple(entry for entry, _ in entries), tuple(fields[1] for _, fields in entries if fields))


def _order(entry: bytes) -> tuple[int, int]:
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number)
