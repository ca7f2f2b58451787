"""What is known in common of tasks, in Redis, for all gateways that share it: one expiring key each."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from app.stores.budgets import LedgerUnavailable
from app.stores.redis_link import Arg, Script, open_server
from app.stores.task_memory import MODEL_KEPT_S, MemoryUnavailable

log = structlog.get_logger()

DEADLINE_S = 2.0
_SCRIPT = Script(
    """
    local op = ARGV[1]
    if op == 'count' then
        local times = redis.call('INCR', KEYS[1])
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return times
    end
    if op == 'get' then return redis.call('GET', KEYS[1]) end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 'done'
    """
)


class RedisTaskMemory:
    """See `stores/task_memory.py`."""

    def __init__(self, url: str, *, namespace: str = "bursar") -> None:
        self._server = open_server(url, _SCRIPT, DEADLINE_S)
        self._link = self._server.link()
        self._turn = asyncio.Lock()
        self._prefix = f"{{{namespace}}}:task:"

    async def count(self, name: bytes, keep_s: float) -> int:
        return int(await self._call("count", name, int(keep_s * 1000)))

    async def model_of(self, loop: bytes) -> str | None:
        found = await self._call("get", loop)
        return None if found is None else found.decode()

    async def note(self, loop: bytes, model: str) -> None:
        await self._call("set", loop, model, int(MODEL_KEPT_S * 1000))

    async def close(self) -> None:
        await self._server.close()

    async def _call(self, op: str, name: bytes, *more: Arg) -> Any:
        kind = "repeats:" if op == "count" else "loop:"
        async with self._turn:  # a link carries one call at a time
            try:
                return await self._link.call([f"{self._prefix}{kind}{name.hex()}"], [op, *more])
            except LedgerUnavailable as error:
                raise MemoryUnavailable("the memory of tasks on Redis did not answer") from error
