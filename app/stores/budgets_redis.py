"""The shared ledger on Redis: any number of gateways, one purse.

`budgets.lua` keeps the rules (a mirror of core/book.py); this module carries verbs to it. The
verbs of one event-loop tick travel in one call of the script. A few *lanes* do the carrying: a lane sleeps
until a verb is applied, wakes at the end of that tick, takes everything that has gathered, and waits for
the answer, while another lane serves the ticks that follow. Verbs of one call are never under way in two
lanes, so they keep their order.

What Redis does not promise: with asynchronous replication a failover may forget the last moments, holds
and spending alike; a forgotten hold answers Lost. Run it with `appendonly yes` and `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, cast

import msgspec

from app.core.amend import Amend, Amended
from app.core.budget import Advance, Balance, Denied, Granted, Lost, Moved, Op, Reserve, Result, Settle, Settled
from app.core.money import MAX_NANO
from app.core.terms import Terms
from app.stores.budgets import OWNER_LEASE_S, TASK_RETENTION_S, Cut, Expired, LedgerUnavailable, new_owner
from app.stores.redis_link import Arg, Desk, Link, Script, open_server, unavailable

LANES = 2
MAX_BATCH = 512
"""Verbs in one call of the script: bounds how long it keeps the server from others (about 10 ms)."""
MAX_TRIES = 3
MAX_OWNERS = 100
PAGE = 500
MICROS = 1_000_000
TASKS, WINDOWS, TOTALS = 2, 3, 4
"""Indexes of scopes, by their place in KEYS (budgets.lua)."""


class Expire(msgspec.Struct, frozen=True, tag="expire"):
    """End the hold of a dead owner; the script makes sure that it is dead, unless the hold is the asker's `own`."""

    call_id: str
    owner: str
    own: bool


class Ended(msgspec.Struct, frozen=True, tag="expired"):
    """The answer to Expire: as `Expired`."""

    call_id: str
    owner: str
    scopes: tuple[str, ...]
    charged_nano: int


class Undeclared(msgspec.Struct, frozen=True, tag="undeclared"):
    """The batch was not carried out: this hold touches keys that were not among KEYS."""

    call_id: str
    owner: str
    scopes: tuple[str, ...]


Answer = Granted | Denied | Moved | Settled | Amended | Lost | Ended | Undeclared

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Answer]).decode
_terms_of = msgspec.msgpack.Decoder(Terms).decode
_ENDINGS = (Settled, Lost, Denied, Moved, Amended, Ended)


class _Verb:
    """A verb on its way, already encoded: one that cannot be fails alone."""

    __slots__ = ("applied_at", "call_id", "future", "wire")

    def __init__(self, call_id: str, wire: bytes, future: asyncio.Future[Answer], applied_at: float) -> None:
        self.call_id = call_id
        self.wire = wire
        self.future = future
        self.applied_at = applied_at


class RedisBudgets:
    """The ledger on a Redis (or Valkey) server, behind Sentinel, or on a Cluster; `open_server` reads the URL.

    All keys begin with `{namespace}:`, so they share one Cluster slot. A call of the script has `timeout_s`;
    a verb that has waited that long for a lane is given up unsent, so none waits longer than twice that.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "bursar",
        owner: str | None = None,
        lease_s: float = OWNER_LEASE_S,
        timeout_s: float = 1.0,
        lanes: int = LANES,
    ) -> None:
        if not namespace or "{" in namespace or "}" in namespace:
            raise ValueError("the namespace must not be empty or contain braces: it becomes a Redis hash tag")
        self.owner = owner or new_owner()
        self.task_retention_s = TASK_RETENTION_S
        script = Script(files("app.stores").joinpath("budgets.lua").read_text("utf-8"))
        self._server = open_server(url, script, timeout_s)
        self._timeout_s = timeout_s
        self._lease_us = int(lease_s * MICROS)
        self._prefix = f"{{{namespace}}}:"
        self._head = [self._prefix + name for name in ("owners", "tasks", "windows", "totals")]
        self._cut = self._prefix + "cut"
        self._lane_count = lanes
        self._lanes: list[asyncio.Task[None]] = []
        self._sleepers: list[asyncio.Future[None]] = []
        self._waking = False
        self._closing = False
        self._closed = False
        self._queue: list[_Verb] = []
        self._busy: set[str] = set()
        self._places: dict[str, tuple[str, ...]] = {}
        self._unreported: list[Expired] = []
        self._patient_until = 0.0
        self._desk = Desk(self._server, "the ledger", LedgerUnavailable)

    async def start(self) -> None:
        """Begin to carry verbs, then register as an owner and end the holds of dead ones.

        After LedgerUnavailable the store works on: it connects when Redis is back, and the next beat registers.
        """
        if not self._lanes:
            self._lanes = [asyncio.create_task(self._lane(self._server.link())) for _ in range(self._lane_count)]
        self._unreported = await self.beat()

    def apply(self, op: Op) -> asyncio.Future[Result]:
        """Carry out one verb; ValueError if it cannot be stored (an amount over MAX_NANO, a broken string)."""
        if _most(op) > MAX_NANO:
            raise ValueError("an amount is beyond what the ledger can hold")
        wire = _encode(op)
        if type(op) is Reserve:
            self._learn(op.call_id, op.owner, [claim.scope for claim in op.claims])
        elif type(op) is Settle:
            if op.claims:
                self._learn(op.call_id, self.owner, [claim.scope for claim in op.claims])
            if op.killed_scopes:
                known = self._places.get(op.call_id) or (self._prefix + "h:" + op.call_id,)
                self._places[op.call_id] = (*known, self._cut)
        elif type(op) is Amend:
            self._learn(op.call_id, self.owner, [op.scope] if op.parent is None else [op.scope, op.parent])
        return cast("asyncio.Future[Result]", self._submit(op.call_id, wire))

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        """The balances of these scopes, as they were at one moment."""
        records = await self._ask("read", [self._prefix + "s:" + scope for scope in scopes])
        return [_balance(record) for record in records]

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        """Up to `limit` scopes by prefix, the most recently used first; walks an index page by page."""
        found: dict[str, int] = {}
        for index in _indexes(prefix):
            found.update(await self._recent(index, prefix, limit))
        names = sorted(found, key=found.__getitem__, reverse=True)[:limit]
        balances = await self.balances(names)
        return [(name, balance) for name, balance in zip(names, balances, strict=True) if balance is not None]

    async def cuts(self, most: int) -> list[Cut]:
        """What was cut and is not noted yet, the earliest first."""
        found = await self._ask("cut", [self._cut], {"most": most})
        names = [name.decode() for name in found[::2]]
        balances = await self.balances(names) if names else []
        return [Cut(name, int(at), now) for name, at, now in zip(names, found[1::2], balances, strict=True)]

    async def note_cuts(self, cuts: Sequence[Cut]) -> None:
        """These are in the list no more, unless they were cut again since."""
        if cuts:
            await self._ask("noted", [self._cut], {"cuts": [(cut.scope, cut.at) for cut in cuts]})

    async def beat(self) -> list[Expired]:
        """Renew the lease and end the holds of lapsed owners; each is reported once, by the gateway that ended it.

        A report is lost, though not the charge, if Redis carries out the ending and fails before answering.
        """
        came_back, names = await self._ask("beat", (), {"owner": self.owner, "most": MAX_OWNERS})
        owners = [name.decode() for name in names]
        now = asyncio.get_running_loop().time()
        if came_back:
            # This process lives and could not renew in time: most likely Redis was away, and the other owners
            # are no more dead than this one. They get as long as a lease to renew theirs.
            self._patient_until = now + self._lease_us / MICROS
        while owners and now >= self._patient_until:
            keys = [self._prefix + "o:" + owner for owner in owners]
            abandoned = await self._ask("lapsed", keys, {"owners": owners, "most": MAX_BATCH})
            pairs = zip(owners, abandoned, strict=True)
            ends = [Expire(call.decode(), owner, own=False) for owner, calls in pairs for call in calls]
            if not ends:
                break
            await self._expire(ends)
        reported, self._unreported = self._unreported, []
        return reported

    async def held(self) -> list[str]:
        """The calls that this process has a hold for."""
        return [name.decode() for name in await self._ask("held", [self._prefix + "o:" + self.owner])]

    async def abandon(self, call_ids: Sequence[str]) -> list[Expired]:
        """End these holds of this process as `beat` ends those of a dead one; reported as there."""
        await self._expire([Expire(call_id, self.owner, own=True) for call_id in call_ids])
        reported, self._unreported = self._unreported, []
        return reported

    async def close(self) -> None:
        """Finish what was applied, give up the lease (holds left behind are expired by others), disconnect."""
        if self._closing:
            return
        self._closing = True
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=2 * self._timeout_s)
            for lane in late:
                lane.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._fail(self._queue, LedgerUnavailable("the ledger is closed"))
        with suppress(LedgerUnavailable):  # else the lease runs out by itself
            await self._ask("leave", [self._prefix + "o:" + self.owner], {"owner": self.owner})
        self._closed = True
        await self._server.close()

    def _submit(self, call_id: str, wire: bytes) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if self._closing or not self._lanes:
            future.set_exception(LedgerUnavailable("the ledger is closed"))
            return future
        self._queue.append(_Verb(call_id, wire, future, loop.time()))
        # One lane is woken a tick. It runs in the loop's next round, and so finds all verbs of this one.
        if self._sleepers and not self._waking:
            self._waking = True
            self._sleepers.pop().set_result(None)
        return future

    def _learn(self, call_id: str, owner: str, scopes: Iterable[str]) -> None:
        """Remember which keys the hold of this call touches: the script may touch only those it is given."""
        prefix = self._prefix
        keys = (prefix + "h:" + call_id, prefix + "o:" + owner, *[prefix + "s:" + scope for scope in scopes])
        known = self._places.get(call_id)
        self._places[call_id] = keys if known is None else tuple({*known, *keys})

    async def _lane(self, link: Link) -> None:
        while True:
            batch = self._take()
            if batch:
                await self._carry(link, batch)
            elif self._closing:
                return
            else:
                sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._sleepers.append(sleeper)
                await sleeper
                self._waking = False

    def _take(self) -> list[_Verb]:
        """The verbs to carry now: all but those that waited too long and those whose call is under way."""
        queue = self._queue
        if not queue:
            return queue
        oldest = asyncio.get_running_loop().time() - self._timeout_s
        if queue[0].applied_at < oldest:
            late = [verb for verb in queue if verb.applied_at < oldest]
            queue = [verb for verb in queue if verb.applied_at >= oldest]
            self._fail(late, LedgerUnavailable("the ledger on Redis is too slow"))
        if self._busy:
            batch = [verb for verb in queue if verb.call_id not in self._busy][:MAX_BATCH]
            taken = set(map(id, batch))
            self._queue = [verb for verb in queue if id(verb) not in taken]
        else:
            batch, self._queue = queue[:MAX_BATCH], queue[MAX_BATCH:]
        return batch

    async def _carry(self, link: Link, batch: list[_Verb]) -> None:
        calls = {verb.call_id for verb in batch}
        self._busy |= calls
        try:
            answers = await self._exchange(link, batch, calls)
        except LedgerUnavailable as error:
            self._fail(batch, error)
        except Exception as error:  # an answer that cannot be read must not end the lane
            self._fail(batch, unavailable(error))
        except asyncio.CancelledError:
            self._fail(batch, LedgerUnavailable("the ledger is closed"))
            raise
        else:
            for verb, answer in zip(batch, answers, strict=True):
                if isinstance(answer, _ENDINGS):
                    self._places.pop(verb.call_id, None)
                if not verb.future.done():
                    verb.future.set_result(answer)
        finally:
            self._busy -= calls

    async def _exchange(self, link: Link, batch: list[_Verb], calls: set[str]) -> list[Answer]:
        payload = b"\xdc" + len(batch).to_bytes(2) + b"".join([verb.wire for verb in batch])
        args: tuple[Arg, ...] = ("apply", self._prefix, self._lease_us, payload, int(self.task_retention_s))
        for _ in range(MAX_TRIES):
            keys: set[str] = set()
            for call_id in calls:
                keys.update(self._places.get(call_id) or (self._prefix + "h:" + call_id,))
            answers = _decode(await link.call([*self._head, *keys], args))
            if type(answers[0]) is not Undeclared:
                return answers
            for answer in cast("list[Undeclared]", answers):
                self._learn(answer.call_id, answer.owner, answer.scopes)
        raise LedgerUnavailable("the holds of this batch keep changing")

    def _fail(self, verbs: Iterable[_Verb], error: LedgerUnavailable) -> None:
        for verb in verbs:
            self._places.pop(verb.call_id, None)
            if not verb.future.done():
                failure = LedgerUnavailable(*error.args)
                failure.__cause__ = error.__cause__
                verb.future.set_exception(failure)

    async def _expire(self, ends: Sequence[Expire]) -> None:
        for end in ends:
            self._learn(end.call_id, end.owner, ())
        futures = [self._submit(end.call_id, _encode(end)) for end in ends]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, Ended):
                self._unreported.append(Expired(answer.call_id, answer.owner, answer.scopes, answer.charged_nano))
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _recent(self, index: int, prefix: str, limit: int) -> dict[str, int]:
        found: dict[str, int] = {}
        start = 0
        while len(found) < limit:
            page = await self._ask("recent", (), {"index": index, "start": start, "stop": start + PAGE - 1})
            for name, used_at in zip(page[::2], page[1::2], strict=True):
                scope = name.decode()
                if scope.startswith(prefix):
                    found.setdefault(scope, int(used_at))
            if len(page) < 2 * PAGE:
                break
            start += PAGE
        return found

    async def _ask(self, mode: str, keys: Sequence[str], payload: dict[str, Any] | None = None) -> Any:
        """Run another mode of the script, on a link that verbs do not share."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        asked = _encode(payload or {})
        args: tuple[Arg, ...] = (mode, self._prefix, self._lease_us, asked, int(self.task_retention_s))
        return await self._desk.ask([*self._head, *keys], args)


def _indexes(prefix: str) -> tuple[int, ...]:
    """The indexes that may list scopes of this prefix: `retention` in budgets.lua."""
    if prefix.startswith("task:"):
        return (TASKS,)
    return (TASKS, WINDOWS, TOTALS) if "task:".startswith(prefix) else (WINDOWS, TOTALS)


def _most(op: Op) -> int:
    """The greatest number in a verb that the ledger adds up or compares."""
    if type(op) is Settle:
        return max(op.cost_nano, op.tokens)
    if type(op) is Advance:
        return max(op.spent_nano, op.want_nano, op.need_nano)
    if type(op) is Amend:
        return max(op.max_nano or 0, op.max_calls or 0, op.max_tokens or 0, op.max_ms or 0, op.max_parallel or 0)
    assert type(op) is Reserve
    return max(op.want_nano, op.need_nano)


def _balance(record: list[bytes | None]) -> Balance | None:
    *amounts, terms = record
    spent, held, calls, limit, own, killed_at, killed_limit, tokens, began, running = [
        int(a) if a else None for a in amounts
    ]
    if spent is None or held is None or calls is None:
        return None
    known = _terms_of(terms) if terms else None
    return Balance(
        spent, held, calls, limit, own, killed_at, killed_limit, tokens or 0, began or 0, running or 0, known
    )
