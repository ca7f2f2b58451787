"""The learner at work: reads traces and words from where it stopped, learns, tries, publishes.

Its state, and how far it has read, are saved together or not at all; what is read is never acknowledged elsewhere. So a
learner that is killed anywhere goes on from its last save: what it had learned since is read and learned again, and
nothing twice. Of several learners one leads; one that was overtaken throws its state away and reads the other's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from app.core.quarantined import Quarantined
from app.learner.aftermath import Aftermath
from app.learner.lesson import Learned
from app.learner.pack import DAMAGED, Unreadable, pack_belief, pack_learner, unpack_belief, unpack_down, unpack_learner
from app.learner.step import Learner
from app.learner.trial import LEAST, tried, verdict
from app.learner.watching import Event, Watching, differ
from app.stores.outcomes import Outcomes
from app.stores.snapshots import LONGEST_LEASE_S, Head, NoSnapshot, Overtaken, Snapshot, Snapshots, Trial
from app.stores.traces_tail import Tail
from routers.belief import Belief
from routers.learned import LearnedRouter

log = structlog.get_logger()

WORDS: Final = 2_000
"""Words read in one go."""
LEASE_S: Final = 10.0
"""A learner that has not been heard of for so long, and for twice its pause, leads no more."""
FORMAT: Final = 1
"""Of a Checkpoint."""
SAVE_EVERY_S: Final = 15.0
"""What is learned in between is learned again by whoever goes on after a crash."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A snapshot is made after `labels` new ones, or `every_s` seconds after the last where there are any; the last
    `keep` stay."""

    labels: int = 50
    every_s: float = 300.0
    keep: int = 10


class Checkpoint(msgspec.Struct):
    """A learner as it is kept, with the places to which it has read. `tried_s`, `tried`, `short`: when a snapshot was
    tried last, how many labels there were by then that the one in force does not hold, and how many were missing."""

    learner: bytes
    format: int = FORMAT
    traces: str = ""
    words: int = 0
    rollbacks: int = 0
    tried_s: float = 0.0
    tried: int = 0
    short: int = 0
    watching: bytes = b"{}"
    aftermath: Aftermath = msgspec.field(default_factory=Aftermath)


def checkpoint_of(saved: bytes) -> tuple[Checkpoint, Watching]:
    """A learner's state as it was saved, the learner itself still packed. Raises Unreadable."""
    try:
        kept = msgspec.msgpack.decode(saved, type=Checkpoint)
        if kept.format != FORMAT:
            raise Unreadable("a learner's state of another version")
        return kept, Watching.of_state(msgspec.json.decode(kept.watching))
    except Unreadable:
        raise
    except DAMAGED as error:
        raise Unreadable(f"not a learner's state that this version reads: {error}") from None


@dataclass(slots=True)
class Done:
    """What one pass did. `more`: there is more to read at once; `leads`: this learner is the one to learn; `events`:
    who fell at what, and who is back; `went_back`: the snapshot in force was taken back."""

    leads: bool = True
    records: int = 0
    words: int = 0
    learned: list[Learned] = field(default_factory=list)
    made: Snapshot | None = None
    more: bool = False
    events: list[Event] = field(default_factory=list)
    went_back: bool = False


class Worker:
    """One learner. `tail` makes a reader of traces that goes on from a place; `clock` is Unix time."""

    def __init__(
        self,
        base: LearnedRouter,
        snapshots: Snapshots,
        outcomes: Outcomes,
        tail: Callable[[str], Tail],
        rules: Rules,
        clock: Callable[[], float],
    ) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.learner: Learner | None = None
        self.lease_s = LEASE_S
        self._base, self._snapshots, self._outcomes = base, snapshots, outcomes
        self._make_tail, self._rules, self._clock = tail, rules, clock
        self._tail: Tail = tail("")
        self._words = 0
        self._head = Head()
        self._in_force: Belief | None = None
        self._before: Belief | None = None
        self._down: tuple[Quarantined, ...] = ()
        self.watching, self._aftermath = Watching(), Aftermath()
        self._tried_s, self._tried, self._short = 0.0, 0, 0
        self._saved_s = 0.0
        self._unsaved = False

    async def once(self, *, finish: bool = True) -> Done:
        """One pass: read some, learn, publish where it is time. `finish`: save whatever there is.

        Raises what the stores raise; the state is then as it was last saved, and the next pass reads it."""
        if not await self._snapshots.lead(self.owner, self.lease_s):
            self.learner = None
            return Done(leads=False)
        try:
            return await self._pass(finish)
        except Overtaken:
            log.info("another learner or a rollback came first: its state is taken", owner=self.owner)
            self.learner = None
            return Done(more=True)
        except BaseException:
            self.learner = None  # what was read since the last save is read again
            raise

    async def run(self, stop: asyncio.Event, every_s: float) -> None:
        """Pass after pass, until told to stop; then what is known is saved."""
        self.lease_s = min(max(LEASE_S, 2.0 * every_s), LONGEST_LEASE_S)
        while True:
            done = await self.once(finish=stop.is_set())
            if stop.is_set():
                return
            if not done.more:
                try:
                    async with asyncio.timeout(every_s):
                        await stop.wait()
                except TimeoutError:
                    pass

    async def leave(self) -> None:
        """Lead no more, so that another need not wait until the lease is over."""
        if self.learner is not None:
            await self._snapshots.lead(self.owner, 0.0)

    async def _pass(self, finish: bool) -> Done:
        learner = await self._current()
        now_s = self._clock()
        lines = await self._tail.new()
        words = await self._outcomes.since(self._words, WORDS)
        records = [record for line in lines if (record := _decoded(line)) is not None]
        malformed = learner.malformed
        for seen in learner.saw(records):
            self.watching.saw(seen)
        if learner.malformed > malformed:
            log.warning("traces that this version cannot read were passed over", traces=learner.malformed - malformed)
        learner.said(word for _, word in words)
        self._words = words[-1][0] if words else self._words
        looked_up = await self._look_up(learner, now_s, all_read=not lines)
        learned = learner.step(now_s)
        self._unsaved = self.watching.forget(learner) or self._unsaved
        events = self.watching.hear(learner, learned)
        for event in events:
            _tell(event)
            if not event.fell:
                learner.forget(event.cell.model, event.cell.task_type, event.cell.since_s, event.rose_s)
        self._unsaved = self._unsaved or bool(lines or words or learned or looked_up)
        if await self._went_back(learner, learned):
            return Done(True, len(lines), len(words), learned, None, True, events, True)
        made = await self._publish(learner, now_s) if self._is_time(learner, now_s) else None
        more = bool(lines) or len(words) == WORDS or looked_up
        if self._unsaved and (made or (finish and not more) or now_s - self._saved_s >= SAVE_EVERY_S):
            await self._save(learner, now_s)
        return Done(True, len(lines), len(words), learned, made, more, events)

    async def _look_up(self, learner: Learner, now_s: float, *, all_read: bool) -> bool:
        """Read calls again on which words came late; whether there were any."""
        asked = learner.late.due(now_s, all_read=all_read)
        if not asked:
            return False
        ignored = learner.late.ignored
        found = [record for line in await self._tail.find(asked) if (record := _decoded(line)) is not None]
        learner.recall(asked, found)
        if learner.late.ignored > ignored:
            log.warning("words came when the traces of their calls had gone", words=learner.late.ignored - ignored)
        return True

    async def _current(self) -> Learner:
        """The learner in memory, where it is still what was saved last, else the saved one; rollbacks heeded."""
        if self.learner is not None:
            head = await self._snapshots.head()
            if (head.epoch, head.rollbacks) == (self._head.epoch, self._head.rollbacks):
                return self.learner
        self._head, saved = await self._snapshots.load()
        kept, learner, self.watching, back = await self._restored(saved)
        self._tail, self._words = self._make_tail(kept.traces), kept.words
        self._tried_s, self._tried, self._short, self._unsaved = kept.tried_s, kept.tried, kept.short, False
        self._aftermath = kept.aftermath
        self._in_force, self._down = await self._belief(self._head.current)
        self._before = None
        if self._aftermath.number == self._head.current and self._head.current:
            parent = self._aftermath.parent
            self._before = (await self._belief(parent))[0] if parent else learner.prior.begin()
        # Rollbacks while it was set aside may all have been of another's snapshots.
        others = back and (self._in_force is None or self._head.current == learner.term)
        if kept.rollbacks != self._head.rollbacks and not others:
            in_force = self._in_force or learner.prior.begin()
            learner.rolled_back(in_force, self._head.current)
            self._tried, self._short, self._unsaved = 0, 0, True
            log.warning("what was learned since is forgotten: rolled back", snapshot=self._head.current)
        self.learner = learner
        return learner

    async def _restored(self, saved: bytes | None) -> tuple[Checkpoint, Learner, Watching, bool]:
        """The learner that was saved. One that cannot be read here (of another version, or of other weights) is set
        aside for whoever can, and an earlier one that was set aside and can be read is taken up again (True)."""
        if saved is not None:
            try:
                return *self._read(saved), False
            except Unreadable as error:
                await self._snapshots.set_aside(saved)
                reason = str(error)
            for other in await self._snapshots.aside():
                with contextlib.suppress(Unreadable):
                    found = self._read(other)
                    log.warning("the learner's state is set aside: one set aside before is taken up", reason=reason)
                    return *found, True
            log.warning("the learner's state cannot be used: it is set aside, and all begins anew", reason=reason)
        # Nothing was learned yet, so no rollback concerns it.
        return Checkpoint(b"", rollbacks=self._head.rollbacks), Learner(self._base), Watching(), False

    def _read(self, saved: bytes) -> tuple[Checkpoint, Learner, Watching]:
        kept, watching = checkpoint_of(saved)
        return kept, unpack_learner(kept.learner, self._base), watching

    async def _belief(self, number: int) -> tuple[Belief | None, tuple[Quarantined, ...]]:
        """What a snapshot holds; None for the weights alone, or where it can no longer be used."""
        if not number:
            return None, ()
        try:
            body = await self._snapshots.body(number)
            return unpack_belief(body, self._base), unpack_down(body)
        except (NoSnapshot, Unreadable) as error:
            log.warning("a snapshot cannot be used", snapshot=number, reason=str(error))
            return None, ()

    async def _went_back(self, learner: Learner, learned: list[Learned]) -> bool:
        """Take the snapshot in force back, where calls since then were foreseen better by the one before it."""
        after, now = self._aftermath, self._in_force
        if self._before is None or now is None or after.number != self._head.current:
            return False
        after.hear(learner, learned, now, self._before)
        if not after.worse:
            return False
        facts: dict[str, Any] = {"snapshot": after.number, "labels": after.labels, "back_to": after.parent}
        facts["nats_per_label"] = round(after.difference / after.weight, 4)
        try:
            await self._snapshots.rollback(after.parent)
        except NoSnapshot:  # somebody else's snapshots pushed it out
            log.warning("the snapshot before foresees live outcomes better, but is no longer kept", **facts)
            self._before, self._unsaved = None, True
            self._aftermath = Aftermath()
            return False
        log.warning("a snapshot was taken back: the one before foresees live outcomes better", **facts)
        self.learner, self._before = None, None
        return True

    def _is_time(self, learner: Learner, now_s: float) -> bool:
        new = learner.labels - self._tried
        first = 0 if self._head.current else self._short  # a house's first comes as soon as it can be tried
        if new >= min(self._rules.labels, first or self._rules.labels) or differ(self.watching.down(), self._down):
            return True
        # A clock that was set back must not hold snapshots up until it is where it was.
        return new > 0 and not 0.0 <= now_s - self._tried_s < self._rules.every_s

    async def _publish(self, learner: Learner, now_s: float) -> Snapshot:
        """Try what was learned against what is in force; publish it where it is not worse. Who is in quarantine is
        published in any case."""
        in_force, down = self._in_force or learner.prior.begin(), self.watching.down()
        trial = tried(learner, in_force)
        status, why = verdict(trial)
        belief, labels, left_out = learner.belief, learner.labels, status != "published"
        if left_out:
            if not differ(down, self._down):
                return await self._put_off(learner, trial, now_s)
            why = f"who is in quarantine has changed; what was learned is left out, for {why}"
            belief, labels = in_force, 0
        snapshot = Snapshot(
            0, now_s, self._base.version, self._head.current, labels, len(belief.own), trial, why=why,
            unheard=learner.unheard,
        )  # fmt: skip
        body, after = pack_belief(belief, self._base, down), self._aftermath
        if self._before is None or not after.is_open:
            after = Aftermath(parent=self._head.current, since_s=now_s)

        def state(number: int) -> bytes:  # in one with the snapshot: it must not be tried on what it was told
            # A clock that was set back must not keep calls from judging until it is where it was.
            after.number, after.since_s = number, min(after.since_s, now_s)
            learner.published(number, left_out=left_out)
            self._note_trial(learner, trial, now_s)
            return self._packed(learner, after)

        made = await self._snapshots.publish(
            snapshot, body, head=self._head, keep=self._rules.keep, spared=after.parent, state=state
        )
        facts = {"snapshot": made.number, "labels": made.labels, "held_out": trial.labels, "loss": trial.loss}
        log.info("a snapshot was published", quarantined=len(down), **facts)
        if after is not self._aftermath:
            self._aftermath, self._before = after, in_force
        self._in_force, self._down = belief, down
        was = self._head
        self._head = msgspec.structs.replace(was, current=made.number, moves=was.moves + 1, epoch=was.epoch + 1)
        self._saved_s, self._unsaved = now_s, False
        return made

    async def _put_off(self, learner: Learner, trial: Trial, now_s: float) -> Snapshot:
        """Put on record that what was learned is not published, and why."""
        status, why = verdict(trial)
        models = len(learner.belief.own)
        snapshot = Snapshot(
            0, now_s, self._base.version, self._head.current, learner.labels, models, trial, status, why,
            learner.unheard,
        )  # fmt: skip
        made = await self._snapshots.publish(
            snapshot, None, head=self._head, keep=self._rules.keep, spared=self._aftermath.parent
        )
        tell = log.warning if status == "refused" else log.info
        tell("a snapshot was not published: " + why, snapshot=made.number, **msgspec.to_builtins(trial))
        self._note_trial(learner, trial, now_s)
        return made

    def _note_trial(self, learner: Learner, trial: Trial, now_s: float) -> None:
        self._tried_s, self._tried, self._short = now_s, learner.labels, max(LEAST - trial.labels, 0)
        learner.unheard = 0
        self._unsaved = True

    async def _save(self, learner: Learner, now_s: float) -> None:
        self._head = await self._snapshots.save(self._packed(learner, self._aftermath), head=self._head)
        self._saved_s, self._unsaved = now_s, False

    def _packed(self, learner: Learner, after: Aftermath) -> bytes:
        kept = Checkpoint(
            pack_learner(learner), FORMAT, self._tail.place, self._words, self._head.rollbacks, self._tried_s,
            self._tried, self._short, msgspec.json.encode(self.watching.state()), after,
        )  # fmt: skip
        return msgspec.msgpack.encode(kept)


def _tell(event: Event) -> None:
    cell = event.cell
    facts = {"model": cell.model, "task_type": cell.task_type, "level": cell.level, "drop": cell.drop}
    if event.fell:
        log.warning("a model became worse at one kind of work", cause=cell.cause, paired=cell.paired, **facts)
    else:
        log.info("a model is back from quarantine: probes succeed as before", **facts)


def _decoded(line: bytes) -> dict[str, Any] | None:
    """A record; None for a line that was cut short when its writer was killed."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) and "request_id" in found else None
