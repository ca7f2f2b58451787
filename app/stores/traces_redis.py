"""Records in Redis, so that any gateway can show what another one did: one expiring key a call.

A stream names the calls in order, for those who read them all (`traces_stream`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import structlog

from app.stores.budgets import LedgerUnavailable
from app.stores.redis_link import Desk, Link, Script, open_server
from app.stores.traces import FLUSH_EVERY_S, KEEP_DAYS, SEEN_AFTER_S, Lost, Make, Record, is_of_task
from app.stores.traces_stream import COMPACTORS, oldest_entry, record_prefix, stream_key
from app.stores.traces_waiting import Waiting, decoded, task_needle

log = structlog.get_logger()

DEADLINE_S = 2.0
AGAIN_S = 1.0
"""After a failed write the next one is tried this much later."""
TURN_S = 100.0
"""Of all gateways only one is told in so long that compaction is due."""
BATCH = 64
"""Records made and sent in one go: under a millisecond of the event loop."""
LOOK, MAX_LOOKED = 250, 50_000
"""Records looked at in one go, which stops nobody for long, and in all, for the calls of one task."""
SKEW_MS = 2_000
_SCRIPT = Script(
    """
    if ARGV[1] == 'get' then return redis.call('GET', KEYS[1]) end

    if ARGV[1] == 'ids' then return redis.call('XREVRANGE', KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4]) end

    if ARGV[1] == 'with' then
        local found = {}
        for _, body in ipairs(redis.call('MGET', unpack(KEYS))) do
            if body and string.find(body, ARGV[2], 1, true) then found[#found + 1] = body end
        end
        return found
    end

    if ARGV[1] == 'due' then
        if redis.call('XLEN', KEYS[1]) == 0 then return 0 end
        local function field(list, name)
            for i = 1, #list, 2 do if list[i] == name then return list[i + 1] end end
        end
        local last = field(redis.call('XINFO', 'STREAM', KEYS[1]), 'last-generated-id')
        for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
            if field(group, 'name') == ARGV[2] and field(group, 'pending') == 0
                and field(group, 'last-delivered-id') == last then
                return 0
            end
        end
        return redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[3]) and 1 or 0
    end

    -- A batch may come twice, where the first reply was lost.
    for i = 2, #KEYS do
        if redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2], 'NX') then
            redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[3], '*', 'id', string.match(KEYS[i], '[^:]*$'))
        end
    end
    return #KEYS
    """
)


class RedisTraces:
    """Records wait in memory, bounded, and go out in batches every FLUSH_EVERY_S while there are any."""

    def __init__(self, url: str, *, namespace: str = "bursar", lost: Lost = bool) -> None:
        self._server = open_server(url, _SCRIPT, DEADLINE_S)
        self._prefix, self._stream = record_prefix(namespace), stream_key(namespace)
        self._waiting = Waiting(lost)
        self._desk = Desk(self._server, "the store of traces", LedgerUnavailable)
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin writing; Redis may come later."""
        self._writer = asyncio.get_running_loop().create_task(self._write_all())

    def append(self, request_id: str, make: Make) -> None:
        if self._waiting.add(request_id, make):
            self._wake.set()

    async def get(self, request_id: str) -> Record | None:
        if (waiting := self._waiting.get(request_id)) is not None:
            return waiting
        for wait_s in (0.0, SEEN_AFTER_S, 2 * SEEN_AFTER_S):  # another gateway may hold it for one flush more
            await asyncio.sleep(wait_s)
            found = await self._desk.ask([self._prefix + request_id], ["get"])
            if found is not None:
                return decoded(found)
        return None

    async def of_task(self, key: str, task_id: str, began_s: float) -> tuple[list[Record], bool]:
        needle, found = task_needle(task_id), self._waiting.of_task(key, task_id)
        oldest, before = f"{max(int(began_s * 1000) - SKEW_MS, 0)}-0", "+"
        for _ in range(MAX_LOOKED // LOOK):
            entries = await self._desk.ask([self._stream], ["ids", before, oldest, LOOK])
            if not entries:
                return list(found.values()), True
            names = [self._prefix + entry[1][1].decode() for entry in entries]
            for body in await self._desk.ask(names, ["with", needle]):
                record = decoded(body)
                if is_of_task(record, key, task_id):
                    found[record["request_id"]] = record
            before = f"({entries[-1][0].decode()}"
        return list(found.values()), False

    async def due(self) -> bool:
        keys = [self._stream, self._stream + ":turn"]
        return bool(await self._desk.ask(keys, ["due", COMPACTORS, int(TURN_S * 1000)]))

    async def close(self) -> None:
        self._closing.set()
        self._wake.set()
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=2 * DEADLINE_S)
            self._writer.cancel()
        self._waiting.give_up()
        await self._server.close()

    async def _write_all(self) -> None:
        link = self._server.link()
        while not self._closing.is_set() or len(self._waiting):
            await self._wake.wait()
            await self._pause(FLUSH_EVERY_S)
            self._wake.clear()
            while len(self._waiting):
                if await self._write(link):
                    continue
                if self._closing.is_set():
                    return
                while self._waiting.make(BATCH):  # once, not anew for each who asks for a task meanwhile
                    await self._pause(FLUSH_EVERY_S)
                await self._pause(AGAIN_S)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not on while the store is being closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _write(self, link: Link) -> bool:
        """Write the oldest records; False where Redis did not take them, and they go on waiting."""
        self._waiting.make(BATCH)
        batch = list(itertools.islice(self._waiting.lines.items(), BATCH))
        if not batch:
            return True
        try:
            keys = [self._stream, *[self._prefix + request_id for request_id, _ in batch]]
            await link.call(keys, ["set", KEEP_DAYS * 86_400, oldest_entry(), *[body for _, body in batch]])
        except LedgerUnavailable as error:
            log.warning("records could not be written yet", error=str(error), waiting=len(self._waiting))
            return False
        for request_id, _ in batch:
            self._waiting.written(request_id)
        return True
