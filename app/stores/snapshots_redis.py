"""Snapshots in Redis, where gateways and learners share them: one script, one slot, atomic per verb."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from app.stores.redis_link import Arg, Desk, Script, open_server
from app.stores.snapshots import (
    KEEP_ASIDE,
    KEEP_TOLD,
    SALT_BYTES,
    Head,
    NoSnapshot,
    Overtaken,
    Snapshot,
    SnapshotsUnavailable,
    State,
    rolled_back,
    told_of,
)

DEADLINE_S = 5.0
_SCRIPT = Script(
    """
    local verb, head, told, bodies, state, leader = ARGV[1], KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
    local aside, salt = KEYS[6], KEYS[7]

    local function now()
        local found = redis.call('HMGET', head, 'current', 'moves', 'rollbacks', 'epoch')
        for i = 1, 4 do found[i] = tonumber(found[i] or '0') end
        return found
    end

    local function overtaken()
        local found = now()
        return found[3] ~= tonumber(ARGV[2]) or found[4] ~= tonumber(ARGV[3])
    end

    local function save(bytes)
        redis.call('SET', state, bytes)
        redis.call('HINCRBY', head, 'epoch', 1)
    end

    if verb == 'head' then return now() end
    if verb == 'told' then return {now(), redis.call('HGETALL', told), redis.call('HKEYS', bodies)} end
    if verb == 'body' then return redis.call('HGET', bodies, ARGV[2]) end
    if verb == 'load' then return {now(), redis.call('GET', state)} end

    if verb == 'number' then return redis.call('HINCRBY', head, 'last', 1) end

    if verb == 'publish' then
        if overtaken() then return 'overtaken' end
        local number, keep, keep_told = ARGV[4], tonumber(ARGV[7]), tonumber(ARGV[8])
        redis.call('HSET', told, number, ARGV[5])
        if ARGV[6] ~= '' then
            redis.call('HSET', bodies, number, ARGV[6])
            redis.call('HSET', head, 'current', number)
        end
        redis.call('HINCRBY', head, 'moves', 1)
        if ARGV[10] ~= '' then save(ARGV[10]) end
        local kept = redis.call('HKEYS', bodies)
        table.sort(kept, function(a, b) return tonumber(a) > tonumber(b) end)
        for i = keep + 1, #kept do
            if kept[i] ~= ARGV[9] then redis.call('HDEL', bodies, kept[i]) end
        end
        for _, old in ipairs(redis.call('HKEYS', told)) do
            if tonumber(old) <= tonumber(number) - keep_told and redis.call('HEXISTS', bodies, old) == 0 then
                redis.call('HDEL', told, old)
            end
        end
        return 'ok'
    end

    if verb == 'rollback' then
        if now()[2] ~= tonumber(ARGV[2]) then return 'moved' end
        for i = 4, #ARGV, 2 do redis.call('HSET', told, ARGV[i], ARGV[i + 1]) end
        redis.call('HSET', head, 'current', ARGV[3])
        redis.call('HINCRBY', head, 'moves', 1)
        redis.call('HINCRBY', head, 'rollbacks', 1)
        return now()
    end

    if verb == 'save' then
        if overtaken() then return 'overtaken' end
        save(ARGV[4])
        return now()
    end

    if verb == 'set_aside' then
        redis.call('LREM', aside, 0, ARGV[2])
        redis.call('LPUSH', aside, ARGV[2])
        redis.call('LTRIM', aside, 0, ARGV[3] - 1)
        return 'ok'
    end

    if verb == 'aside' then return redis.call('LRANGE', aside, 0, -1) end

    if verb == 'salt' then
        redis.call('SETNX', salt, ARGV[2])
        return redis.call('GET', salt)
    end

    if verb == 'lead' then
        local leads = redis.call('GET', leader)
        if leads and leads ~= ARGV[2] then return 0 end
        if tonumber(ARGV[3]) > 0 then
            redis.call('SET', leader, ARGV[2], 'PX', ARGV[3])
        else
            redis.call('DEL', leader)
        end
        return 1
    end
    """
)


_KEYS = ("head", "told", "bodies", "state", "leader", "aside", "salt")


class RedisSnapshots:
    """Snapshots (see `stores/snapshots.py`) on the server of a URL."""

    def __init__(self, url: str, *, namespace: str = "bursar") -> None:
        self._desk = Desk(open_server(url, _SCRIPT, DEADLINE_S), "the store of snapshots", SnapshotsUnavailable)
        self._keys = [f"{{{namespace}}}:snapshots:{name}" for name in _KEYS]

    async def start(self) -> None:
        """Redis may come later."""

    async def head(self) -> Head:
        return Head(*await self._call("head"))

    async def told(self) -> list[Snapshot]:
        return (await self._everything())[1]

    async def body(self, number: int) -> bytes:
        found = await self._call("body", number)
        if found is None:
            raise NoSnapshot(f"there is no snapshot {number}, or its content is no longer kept")
        return bytes(found)

    async def publish(
        self,
        snapshot: Snapshot,
        body: bytes | None,
        *,
        head: Head,
        keep: int,
        spared: int = 0,
        state: State | None = None,
    ) -> Snapshot:
        made = msgspec.structs.replace(snapshot, number=int(await self._call("number")))
        told = msgspec.msgpack.encode(made)
        kept: Sequence[Arg] = (max(keep, 1), KEEP_TOLD, spared, b"" if state is None else state(made.number))
        carried: Sequence[Arg] = (head.rollbacks, head.epoch, made.number, told, body or b"", *kept)
        _unless_overtaken(await self._call("publish", *carried))
        return made

    async def rollback(self, number: int | None) -> Head:
        while True:
            head, told, kept = await self._everything()
            target, changed = rolled_back(told, head, number, kept)
            pairs = [part for one in changed for part in (one.number, msgspec.msgpack.encode(one))]
            found = await self._call("rollback", head.moves, target, *pairs)
            if found != b"moved":
                return Head(*found)

    async def load(self) -> tuple[Head, bytes | None]:
        head, state = await self._call("load")
        return Head(*head), state

    async def save(self, state: bytes, *, head: Head) -> Head:
        return Head(*_unless_overtaken(await self._call("save", head.rollbacks, head.epoch, state)))

    async def set_aside(self, state: bytes) -> None:
        await self._call("set_aside", state, KEEP_ASIDE)

    async def aside(self) -> list[bytes]:
        return [bytes(state) for state in await self._call("aside")]

    async def salt(self) -> bytes:
        return bytes(await self._call("salt", secrets.token_bytes(SALT_BYTES)))

    async def lead(self, owner: str, seconds: float) -> bool:
        return bool(await self._call("lead", owner, int(seconds * 1000)))

    async def close(self) -> None:
        await self._desk.close()

    async def _everything(self) -> tuple[Head, list[Snapshot], set[int]]:
        head, told, bodies = await self._call("told")
        entries = zip(told[::2], told[1::2], strict=True)
        found = sorted((told_of(int(number), entry) for number, entry in entries), key=lambda one: -one.number)
        return Head(*head), found, {int(number) for number in bodies}

    async def _call(self, verb: str, *args: Arg) -> Any:
        return await self._desk.ask(self._keys, [verb, *args])


def _unless_overtaken(found: Any) -> Any:
    if found == b"overtaken":
        raise Overtaken("another learner has written meanwhile, or somebody rolled back")
    return found
