"""`bursar router quarantine` and `release`: who is kept from which kind of work, and the operator's word on it."""

from __future__ import annotations

import datetime as dt
import time

import msgspec

from app.commands.router import in_stores
from app.commands.terminal import complain, say, say_json, table
from app.core.quarantined import TRAFFIC, Quarantined
from app.learner.pack import unpack_down, without
from app.learner.worker import checkpoint_of
from app.settings import Settings
from app.stores.snapshots import Overtaken, Snapshot, Snapshots

COLUMNS = ("model", "work", "since (UTC)", "success before", "lost", "from repeats", "laid to")
TRIES = 5


def quarantine(*, as_json: bool) -> int:
    """Print who is in quarantine; the exit code."""
    return in_stores(lambda _, snapshots: _list(snapshots, as_json))


def release(model: str, task_type: str) -> int:
    """Let one back; the exit code."""
    return in_stores(lambda settings, snapshots: _release(settings, snapshots, model, task_type))


async def _down(snapshots: Snapshots) -> tuple[Quarantined, ...]:
    head = await snapshots.head()
    return unpack_down(await snapshots.body(head.current)) if head.current else ()


async def _list(snapshots: Snapshots, as_json: bool) -> int:
    down = await _down(snapshots)
    if as_json:
        say_json(msgspec.to_builtins(down))
    elif not down:
        say("no model is in quarantine")
    else:
        table(COLUMNS, [_row(one) for one in down], right={"success before", "lost", "from repeats"})
    return 0


def _row(one: Quarantined) -> list[str]:
    since = dt.datetime.fromtimestamp(one.since_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    cause = f"{one.cause} (not kept from it)" if one.cause == TRAFFIC else one.cause
    return [one.model, one.task_type, since, f"{one.level:.1%}", f"{one.drop:.1%}", f"{one.paired:.0%}", cause]


async def _release(settings: Settings, snapshots: Snapshots, model: str, task_type: str) -> int:
    """The learner's state first, so that it does not say otherwise with its next snapshot; then a snapshot."""
    for _ in range(TRIES):
        try:
            if not await _released(settings, snapshots, model, task_type):
                names = ", ".join(f"{one.model} {one.task_type}" for one in await _down(snapshots))
                complain(
                    f"'{model}' is not in quarantine for '{task_type}'" + (f"; these are: {names}" if names else "")
                )
                return 1
        except Overtaken:  # the learner saved meanwhile
            continue
        say(f"{model} may do {task_type} again; gateways follow within seconds")
        return 0
    complain("the learner saved its state meanwhile, each time: try again")
    return 1


async def _released(settings: Settings, snapshots: Snapshots, model: str, task_type: str) -> bool:
    """Nothing is written before all that is to be changed could be read. Raises Unreadable."""
    head, saved = await snapshots.load()
    body = await snapshots.body(head.current) if head.current else None
    down = () if body is None else unpack_down(body)
    rest = None
    if body is not None and any((q.model, q.task_type) == (model, task_type) for q in down):
        rest = without(body, model, task_type)
    known = False
    if saved is not None:
        kept, watching = checkpoint_of(saved)
        if known := watching.release(model, task_type, time.time()):
            kept.watching = msgspec.json.encode(watching.state())
            head = await snapshots.save(msgspec.msgpack.encode(kept), head=head)
    if rest is None:
        return known
    told = {one.number: one for one in await snapshots.told()}.get(head.current, Snapshot(0, 0.0, ""))
    made = Snapshot(
        0, time.time(), told.weights, head.current, models=told.models, why=f"{model} let back to {task_type}"
    )
    await snapshots.publish(made, rest, head=head, keep=settings.snapshots_keep)
    return True
