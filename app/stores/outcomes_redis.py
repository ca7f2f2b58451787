"""Feedback in Redis, where several gateways and learners share it: one script, one slot, atomic per word.

A hash per thing holds its words (and expires when none was said for KEEP_DAYS); a sorted set orders all words by a
counter, for readers; another per speaker bounds what one key may have on record.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.feedback import Feedback
from app.stores import outcomes
from app.stores.outcomes import OtherWord, OutcomesUnavailable, Put
from app.stores.redis_link import Arg, Desk, Script, open_server

DEADLINE_S = 2.0
MAX_THINGS = 500
_SCRIPT = Script(
    """
    local op = ARGV[1]
    local function forget(member, order, prefix)
        local cut = string.find(member, '\\n', 1, true)
        redis.call('ZREM', order, member)
        redis.call('HDEL', prefix .. string.sub(member, 1, cut - 1), string.sub(member, cut + 1))
    end
    if op == 'put' then
        local thing, order, speaker, counter, again = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
        local field, member, word, digest = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
        if again then
            local seen = redis.call('GET', again)
            if seen then return seen == digest and 'repeated' or 'other' end
            redis.call('SET', again, digest, 'EX', ARGV[7])
        end
        local seq = redis.call('INCR', counter)
        local new = redis.call('HSET', thing, field, string.format('%d\\n', seq) .. word)
        redis.call('EXPIRE', thing, ARGV[6])
        redis.call('ZADD', order, seq, member)
        redis.call('ZADD', speaker, seq, member)
        local over = redis.call('ZCARD', speaker) - tonumber(ARGV[8])
        if over > 0 then
            for i, old in ipairs(redis.call('ZPOPMIN', speaker, over)) do
                if i % 2 == 1 then forget(old, order, ARGV[9]) end
            end
        end
        return new == 1 and 'new' or 'replaced'
    end
    local found = {}
    if op == 'about' then
        for _, thing in ipairs(KEYS) do
            for _, word in ipairs(redis.call('HVALS', thing)) do found[#found + 1] = word end
        end
        return found
    end
    local order, counter, prefix, after = KEYS[1], KEYS[2], ARGV[4], ARGV[2]
    if tonumber(after) > tonumber(redis.call('GET', counter) or 0) then after = '0' end
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', order, '(' .. after, '+inf', 'LIMIT', 0, ARGV[3])) do
        local cut = string.find(member, '\\n', 1, true)
        local word = redis.call('HGET', prefix .. string.sub(member, 1, cut - 1), string.sub(member, cut + 1))
        if word then found[#found + 1] = word else redis.call('ZREM', order, member) end
    end
    return found
    """
)
_word = msgspec.json.Decoder(Feedback)


class RedisOutcomes:
    """Outcomes (see `stores/outcomes.py`) on the server of a URL. `since` may return fewer words than there are, and
    none only at the end or where all that it met had expired."""

    def __init__(self, url: str, *, namespace: str = "bursar", keeps_comments: bool = False) -> None:
        self.keeps_comments = keeps_comments
        self._desk = Desk(open_server(url, _SCRIPT, DEADLINE_S), "the store of outcomes", OutcomesUnavailable)
        self._prefix = f"{{{namespace}}}:outcome:"
        self._names = [f"{{{namespace}}}:outcomes:{name}" for name in ("order", "by:", "counter")]

    async def start(self) -> None:
        """Redis may come later."""

    async def put(self, word: Feedback, *, repeat_key: str | None = None, digest: bytes = b"") -> Put:
        order, speaker, counter = self._names
        keys = [self._prefix + word.thing, order, speaker + word.by, counter]
        if repeat_key is not None:
            keys.append(f"{self._prefix}repeat:{word.by}:{repeat_key}")
        field = f"{word.by}\n{word.source}"
        keep: list[Arg] = [outcomes.KEEP_DAYS * 86_400, outcomes.KEEP_REPEATS_S, outcomes.MAX_WORDS, self._prefix]
        encoded = msgspec.json.encode(word)
        answer = await self._desk.ask(keys, ["put", field, f"{word.thing}\n{field}", encoded, digest, *keep])
        if answer == b"other":
            raise OtherWord
        return Put(answer.decode())

    async def about(self, things: Sequence[str]) -> list[Feedback]:
        asked = list(things)[:MAX_THINGS]
        if not asked:
            return []
        found = await self._desk.ask([self._prefix + thing for thing in asked], ["about"])
        return [word for _, word in sorted((_read(raw) for raw in found), key=lambda pair: pair[0])]

    async def since(self, cursor: int, limit: int) -> list[tuple[int, Feedback]]:
        order, _, counter = self._names
        found = await self._desk.ask([order, counter], ["since", cursor, limit, self._prefix])
        return [_read(raw) for raw in found]

    async def close(self) -> None:
        await self._desk.close()


def _read(raw: bytes) -> tuple[int, Feedback]:
    """A stored word with its cursor."""
    seq, _, word = raw.partition(b"\n")
    return int(seq), _word.decode(word)
