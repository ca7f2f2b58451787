"""Claims and replies in Redis, for all gateways that share it: one expiring key each.

A value is the request's fingerprint (32 bytes), then `w` and the owner of the claim, or `k` and the reply. How many
bytes of replies there are is counted beside them, with an index of them (`SIZE:KEY`) by when they end.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import cast

import structlog

from app.stores.redis_link import Arg, Desk, Script, open_server
from app.stores.replays import IN_REDIS_BYTES, KEPT_S, LEASE_S, Claim, Kept, ReplaysUnavailable, decode, encode

log = structlog.get_logger()

DEADLINE_S = 2.0
RENEWED = 500
"""Claims renewed in one go."""
_SCRIPT = Script(
    """
    local op, owner = ARGV[1], ARGV[2]
    if op == 'claim' then
        local mine = ARGV[3] .. 'w' .. owner
        if redis.call('SET', KEYS[1], mine, 'NX', 'PX', ARGV[4]) then return 'mine' end
        local found = redis.call('GET', KEYS[1])
        if string.sub(found, 1, 32) ~= ARGV[3] then return 'other' end
        if string.sub(found, 33, 33) == 'w' then return 'busy' end
        return string.sub(found, 33)
    end
    local function is_mine(key)
        local found = redis.call('GETRANGE', key, 32, 32 + #owner)
        return found == 'w' .. owner
    end
    if op == 'renew' then
        for _, key in ipairs(KEYS) do
            if is_mine(key) then redis.call('PEXPIRE', key, ARGV[3]) end
        end
        return 'done'
    end
    if not is_mine(KEYS[1]) then return 'lost' end
    if op == 'release' then redis.call('DEL', KEYS[1]) return 'done' end
    local reply = redis.call('GETRANGE', KEYS[1], 0, 31) .. 'k' .. ARGV[3]
    local index, counter, keep_ms = KEYS[2], KEYS[3], tonumber(ARGV[4])
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    local bytes = tonumber(redis.call('GET', counter) or '0') + #reply
    for _ = 1, 500 do -- the next ones go on with what is left
        local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
        if not first[1] then bytes = #reply break end
        local over = tonumber(first[2]) <= now
        if not over and bytes <= tonumber(ARGV[5]) then break end
        local size, key = string.match(first[1], '^(%d+):(.*)$')
        if not over then redis.call('DEL', key) end
        redis.call('ZREM', index, first[1])
        bytes = bytes - tonumber(size)
    end
    redis.call('SET', KEYS[1], reply, 'PX', keep_ms)
    local new = redis.call('ZADD', index, now + keep_ms, #reply .. ':' .. KEYS[1])
    if new == 0 then bytes = bytes - #reply end -- counted before: the server made room by itself
    redis.call('SET', counter, string.format('%d', bytes))
    local till = math.max(redis.call('PTTL', index), keep_ms)
    redis.call('PEXPIRE', index, till)
    redis.call('PEXPIRE', counter, till)
    return 'done'
    """
)


class RedisReplays:
    """See `stores/replays.py`."""

    def __init__(self, url: str, *, namespace: str = "bursar", about: str = "replay") -> None:
        """`about`: stores of different names know nothing of each other."""
        self._desk = Desk(open_server(url, _SCRIPT, DEADLINE_S), "the store of replies", ReplaysUnavailable)
        self._prefix = f"{{{namespace}}}:{about}:"
        self._owner = secrets.token_hex(8)
        self._claimed: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()

    async def claim(self, name: str, fingerprint: bytes) -> Claim | Kept:
        key = self._key(name)
        answer = await self._desk.ask([key], ["claim", self._owner, fingerprint, int(LEASE_S * 1000)])
        if answer[:1] == b"k":
            return decode(answer[1:])
        claim = Claim(answer.decode())
        if claim is Claim.MINE:
            self._claimed.add(key)
        return claim

    def keep(self, name: str, kept: Kept | None, keep_s: float = KEPT_S) -> None:
        key = self._key(name)
        self._claimed.discard(key)
        write = asyncio.get_running_loop().create_task(self._write(key, kept, keep_s))
        self._writing.add(write)
        write.add_done_callback(self._writing.discard)

    async def renew(self) -> None:
        claimed = list(self._claimed)
        for start in range(0, len(claimed), RENEWED):
            await self._desk.ask(claimed[start : start + RENEWED], ["renew", self._owner, int(LEASE_S * 1000)])

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing, timeout=DEADLINE_S)
        await self._desk.close()

    async def _write(self, key: str, kept: Kept | None, keep_s: float) -> None:
        keys, what = [key], cast("list[Arg]", ["release", self._owner])
        if kept is not None:
            keys += [f"{self._prefix}index", f"{self._prefix}bytes"]
            what = ["keep", self._owner, encode(kept), int(keep_s * 1000), IN_REDIS_BYTES]
        try:
            await self._desk.ask(keys, what)
        except ReplaysUnavailable as error:
            log.warning("a reply could not be kept for those who ask again", error=str(error))

    def _key(self, name: str) -> str:
        return self._prefix + hashlib.sha256(name.encode()).hexdigest()
