"""Words in Redis, for all processes of all gateways that share it: a key for who watches, a hash of words.

A word stands behind 13 digits, the Redis server's time in milliseconds. It is deflated: it is JSON that repeats itself,
and an append-only file takes each of them.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from typing import Any

from app.stores.budgets import LedgerUnavailable
from app.stores.redis_link import Arg, Desk, Script, open_server
from app.stores.words import FRESH_S

DEADLINE_S = 1.0
_FRESH_MS = int(FRESH_S * 1000)
_SCRIPT = Script(
    """
    local verb, watched, words = ARGV[1], KEYS[1], KEYS[2]
    if verb == 'watched' then return redis.call('EXISTS', watched) end
    local time, fresh_ms, own = redis.call('TIME'), tonumber(ARGV[2]), ARGV[3]
    local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
    if verb == 'tell' then
        redis.call('HSET', words, own, string.format('%013d', now_ms) .. ARGV[4])
        redis.call('PEXPIRE', words, fresh_ms)
        return 'ok'
    end
    if ARGV[4] == '1' then redis.call('SET', watched, '1', 'PX', fresh_ms) end
    local found, all = {}, redis.call('HGETALL', words)
    for i = 1, #all, 2 do
        if tonumber(string.sub(all[i + 1], 1, 13)) < now_ms - fresh_ms then
            redis.call('HDEL', words, all[i])
        elseif all[i] ~= own then
            found[#found + 1] = string.sub(all[i + 1], 14)
        end
    end
    return found
    """
)


class RedisWords:
    """See `stores/words.py`."""

    def __init__(self, url: str, *, namespace: str = "bursar", about: str = "words") -> None:
        self._desk = Desk(open_server(url, _SCRIPT, DEADLINE_S), "what others say", LedgerUnavailable)
        self._keys = [f"{{{namespace}}}:{about}:watched", f"{{{namespace}}}:{about}:told"]
        self._own = secrets.token_hex(8)

    async def watched(self) -> bool:
        return bool(await self._call("watched"))

    async def tell(self, word: bytes) -> None:
        squeezed = await asyncio.to_thread(zlib.compress, word, 1)
        await self._call("tell", _FRESH_MS, self._own, squeezed)

    async def heard(self, *, watching: bool = True) -> list[bytes]:
        found = await self._call("heard", _FRESH_MS, self._own, int(watching)) or []
        if not found:
            return []
        return await asyncio.to_thread(lambda: [zlib.decompress(word) for word in found])

    async def close(self) -> None:
        await self._desk.close()

    async def _call(self, verb: str, *args: Arg) -> Any:
        try:
            return await self._desk.ask(self._keys, [verb, *args])
        except LedgerUnavailable:  # the ledger's own failure says so, where people look
            return None
