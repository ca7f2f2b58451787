"""Stored responses in Redis, for all gateways that share it: an expiring hash each, and an expiring key for each item.

How many bytes there are is counted beside them, with an index of them (`SIZE:KEY`) by when they end, so that they never
take the room that the ledger needs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from app.core.stored import StoreRules
from app.stores.redis_link import Arg, Desk, Script, open_server
from app.stores.responses import ResponsesUnavailable, StoredResponse, TooMuch, packed, unpacked

DEADLINE_S = 2.0
_SCRIPT = Script(
    """
    local op, index, counter = ARGV[1], KEYS[1], KEYS[2]
    local function held(key) return string.gmatch(redis.call('HGET', key, 'items') or '', '[^\\n]+') end
    local function drop(key)
        for item in held(key) do
            if redis.call('GET', item) == key then redis.call('DEL', item) end
        end
        return redis.call('DEL', key)
    end
    local function entry(key, size) return size .. ':' .. key end

    if op == 'get' then return redis.call('HGET', KEYS[3], 'body') end
    if op == 'chain' then
        local found, size, key = {}, 0, KEYS[3]
        while key ~= '' do
            local row = redis.call('HMGET', key, 'body', 'read', 'previous')
            if not row[1] then return {} end
            size = size + tonumber(row[2])
            if size > tonumber(ARGV[2]) then return 'much' end
            found[#found + 1], key = row[1], row[3]
        end
        return found
    end
    if op == 'holding' then
        local found, seen, size = {}, {}, 0
        for place = 3, #KEYS do
            local key = redis.call('GET', KEYS[place])
            if key and not seen[key] then
                seen[key] = true
                local row = redis.call('HMGET', key, 'body', 'read')
                if row[1] then
                    size = size + tonumber(row[2])
                    if size > tonumber(ARGV[2]) then return 'much' end
                    found[#found + 1] = row[1]
                end
            end
        end
        return found
    end
    local function delete(key)
        local size = redis.call('HGET', key, 'size')
        if not size then return 0 end
        redis.call('ZREM', index, entry(key, size))
        redis.call('DECRBY', counter, size)
        return drop(key)
    end
    if op == 'delete' then return delete(KEYS[3]) end

    local ttl, most, body, read, previous = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
    local items, key = tonumber(ARGV[7]), KEYS[3]
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    delete(key)
    local names = {}
    for place = 4, 3 + items do
        redis.call('SET', KEYS[place], key, 'PX', ttl)
        names[#names + 1] = KEYS[place]
    end
    local told = table.concat(names, '\\n')
    local size = string.format('%d', #body + 2 * #told)
    redis.call('HSET', key, 'body', body, 'read', read, 'previous', previous, 'items', told, 'size', size)
    redis.call('PEXPIRE', key, ttl)
    for place = 4 + items, #KEYS do
        local use = KEYS[place]
        local counted = redis.call('HGET', use, 'size')
        if counted and redis.call('PTTL', use) < ttl then
            redis.call('PEXPIRE', use, ttl)
            for item in held(use) do redis.call('PEXPIRE', item, ttl) end
            redis.call('ZADD', index, now + ttl - 1, entry(use, counted))
        end
    end
    -- The policy may have kept them longer, or the clock was set back; room is made by this order.
    for _, longer in ipairs(redis.call('ZRANGEBYSCORE', index, '(' .. (now + ttl), '+inf', 'LIMIT', 0, 500)) do
        local other = string.match(longer, '^%d+:(.*)$')
        redis.call('PEXPIRE', other, ttl)
        for item in held(other) do redis.call('PEXPIRE', item, ttl) end
        redis.call('ZADD', index, now + ttl - 1, longer)
    end
    local bytes = tonumber(redis.call('GET', counter) or '0')
    -- An entry of before is counted already: the server made room by itself.
    if redis.call('ZADD', index, now + ttl, entry(key, size)) == 1 then bytes = bytes + tonumber(size) end
    for _ = 1, 500 do -- the next ones go on with what is left
        local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
        local over = tonumber(first[2]) <= now
        if not over and bytes <= most then break end
        local counted, gone = string.match(first[1], '^(%d+):(.*)$')
        if gone == key then break end
        drop(gone)
        redis.call('ZREM', index, first[1])
        bytes = bytes - tonumber(counted)
    end
    redis.call('SET', counter, string.format('%d', bytes))
    local till = math.max(redis.call('PTTL', index), ttl)
    redis.call('PEXPIRE', index, till)
    redis.call('PEXPIRE', counter, till)
    return 1
    """
)


class RedisResponses:
    """See `stores/responses.py`."""

    def __init__(self, url: str, *, namespace: str = "bursar") -> None:
        self._desk = Desk(open_server(url, _SCRIPT, DEADLINE_S), "the store of responses", ResponsesUnavailable)
        self._prefix = f"{{{namespace}}}:responses:"

    async def put(
        self, owner: str, response: StoredResponse, items: Sequence[str], of: Sequence[str], rules: StoreRules
    ) -> bool:
        body = await asyncio.to_thread(packed, response)
        if len(body) > rules.max_bytes:
            return False
        previous = "" if response.previous is None else self._key(owner, response.previous)
        held = [self._key(owner, item, "item") for item in items]
        keys = [self._key(owner, response.id), *held, *(self._key(owner, id_) for id_ in of)]
        limits = int(rules.ttl_s * 1000), rules.max_bytes
        await self._ask(keys, "put", *limits, body, response.size, previous, len(held))
        return True

    async def chain(self, owner: str, last: str, most_bytes: int) -> list[StoredResponse]:
        found = await self._ask([self._key(owner, last)], "chain", most_bytes)
        return (await _all_unpacked(found))[::-1]

    async def holding(self, owner: str, items: Sequence[str], most_bytes: int) -> list[StoredResponse]:
        found = await self._ask([self._key(owner, item, "item") for item in items], "holding", most_bytes)
        return await _all_unpacked(found)

    async def get(self, owner: str, id_: str) -> StoredResponse | None:
        found = await self._ask([self._key(owner, id_)], "get")
        return None if found is None else await asyncio.to_thread(unpacked, found)

    async def delete(self, owner: str, id_: str) -> bool:
        return bool(await self._ask([self._key(owner, id_)], "delete"))

    async def forget(self) -> None:
        """Redis does so by itself."""

    async def close(self) -> None:
        await self._desk.close()

    async def _ask(self, keys: Sequence[str], op: str, *more: Arg) -> Any:
        return await self._desk.ask([f"{self._prefix}index", f"{self._prefix}bytes", *keys], [op, *more])

    def _key(self, owner: str, id_: str, kind: str = "response") -> str:
        return f"{self._prefix}{kind}:" + hashlib.sha256(f"{owner}\0{id_}".encode()).hexdigest()


async def _all_unpacked(found: list[bytes] | bytes) -> list[StoredResponse]:
    if isinstance(found, bytes):
        raise TooMuch
    return await asyncio.to_thread(lambda: [unpacked(body) for body in found])
