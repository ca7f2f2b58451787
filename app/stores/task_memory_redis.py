"""What is known in common of tasks, in Redis, for all gateways that share it: one expiring key each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.stores.redis_link import Arg, Desk, Script, open_server
from app.stores.task_memory import MemoryUnavailable

DEADLINE_S = 2.0
_SCRIPT = Script(
    """
    local op = ARGV[1]
    if op == 'count' then
        local times = redis.call('INCR', KEYS[1])
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return times
    end
    if op == 'get' then
        for _, word in ipairs(redis.call('MGET', unpack(KEYS))) do
            if word then return word end
        end
        return nil
    end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 'done'
    """
)


class RedisTaskMemory:
    """See `stores/task_memory.py`."""

    def __init__(self, url: str, *, namespace: str = "bursar") -> None:
        self._desk = Desk(open_server(url, _SCRIPT, DEADLINE_S), "the memory of tasks", MemoryUnavailable)
        self._prefix = f"{{{namespace}}}:task:"

    async def count(self, name: bytes, keep_s: float) -> int:
        return int(await self._call("repeats", [name], "count", int(keep_s * 1000)))

    async def word(self, *names: bytes) -> str | None:
        found = await self._call("word", names, "get")
        return None if found is None else found.decode()

    async def note(self, name: bytes, word: str, keep_s: float) -> None:
        await self._call("word", [name], "set", word, int(keep_s * 1000))

    async def close(self) -> None:
        await self._desk.close()

    async def _call(self, kind: str, names: Sequence[bytes], op: str, *more: Arg) -> Any:
        return await self._desk.ask([f"{self._prefix}{kind}:{name.hex()}" for name in names], [op, *more])
