"""`bursar router`: the snapshots that the learner published, and the way back."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from app.commands.ending import ending
from app.commands.policy import read_settings
from app.commands.terminal import complain, heading, say, say_json, table
from app.commands.weights import read_weights
from app.learner.pack import Unreadable, unpack_belief
from app.settings import Settings
from app.stores.opening import make_snapshots
from app.stores.snapshots import Head, NoSnapshot, Snapshot, Snapshots, SnapshotsUnavailable
from routers.belief import Belief
from routers.kinds import TYPES
from routers.learned import LearnedRouter
from routers.live import LiveRouter

COLUMNS = ("snapshot", "made (UTC)", "status", "labels", "models", "held out", "loss", "before", "weights", "why")


def listed(limit: int, *, as_json: bool) -> int:
    """Print what is on record, the latest first; the exit code."""
    return in_stores(lambda _, snapshots: _list(snapshots, limit, as_json))


def show(number: int | None, adequacy: float | None, *, as_json: bool) -> int:
    """Print what one believes of each model, and how surely it is adequate; the exit code."""
    return in_stores(lambda settings, snapshots: _show(settings, snapshots, number, adequacy, as_json))


def rollback(number: int | None) -> int:
    """Bring an earlier one into force; the exit code."""
    return in_stores(lambda settings, snapshots: _rollback(settings, snapshots, number))


@ending(NoSnapshot, Unreadable, SnapshotsUnavailable, OSError)
def in_stores(work: Callable[[Settings, Snapshots], Awaitable[int]]) -> int:
    """Do some work on opened snapshots; the exit code, with what went wrong told."""

    async def answered(settings: Settings) -> int:
        path = (settings.data_dir / "snapshots.sqlite").absolute()
        if settings.redis_url is None and not path.is_file():
            complain(f"note: there are no snapshots at {path}; BURSAR_DATA_DIR says where to look")
        snapshots = make_snapshots(settings)
        await snapshots.start()
        try:
            return await work(settings, snapshots)
        finally:
            await snapshots.close()

    return asyncio.run(answered(read_settings()))


async def _list(snapshots: Snapshots, limit: int, as_json: bool) -> int:
    head, told = await snapshots.head(), (await snapshots.told())[:limit]
    if as_json:
        say_json([{**msgspec.to_builtins(one), "in_force": one.number == head.current} for one in told])
        return 0
    if not told:
        say("no snapshots yet: the weights alone decide")
        return 0
    rows = [_row(one, head) for one in told]
    table(COLUMNS, rows, right={"labels", "models", "held out", "loss", "before"})
    if not head.current:
        say("none is in force: the weights alone decide")
    return 0


def _row(one: Snapshot, head: Head) -> list[str]:
    made = dt.datetime.fromtimestamp(one.created_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    trial, status = one.trial, "in force" if one.number == head.current else one.status
    losses = ["" if loss is None else f"{loss:.4f}" for loss in (trial.loss, trial.before)]
    counts = [str(count) for count in (one.labels, one.models, trial.labels)]
    return [str(one.number), made, status, *counts, *losses, one.weights, one.why]


async def _show(
    settings: Settings, snapshots: Snapshots, number: int | None, adequacy: float | None, as_json: bool
) -> int:
    number = (await snapshots.head()).current if number is None else number
    base = read_weights(settings)
    belief = unpack_belief(await snapshots.body(number), base)
    models = [_model(base, belief, name, adequacy) for name in sorted(belief.own)]
    if as_json:
        say_json({"snapshot": number, "weights": base.version, "models": models})
        return 0
    heading(f"Snapshot {number}, on the weights {base.version}")
    say("P(success) of each model on each kind of work, and the standard deviation of its log odds")
    if adequacy is not None:
        say(f"In brackets: the probability that it is {adequacy:g} or more (a baseline is left at `sure`, or 0.95)")
        say("A baseline is left for no model of which no outcome was heard, however sure that is")
    rows = [[model["model"], f"{model['labels']:.1f}", *_believed(model)] for model in models]
    table(("model", "labels", *(kind.value for kind in TYPES)), rows, right={"labels"})
    return 0


async def _usable(snapshots: Snapshots, base: LearnedRouter, before: int) -> int:
    """The latest one before that can be used here, 0 where there is none; each that is passed over is told."""
    for one in await snapshots.told():
        if one.number < before and one.status == "published":
            try:
                unpack_belief(await snapshots.body(one.number), base)
            except NoSnapshot:
                continue
            except Unreadable as error:
                complain(f"snapshot {one.number} is passed over: {error}")
                continue
            return one.number
    return 0


def _model(base: LearnedRouter, belief: Belief, name: str, adequacy: float | None) -> dict[str, Any]:
    live = LiveRouter(base, belief, "shown")
    surely = {kind.value: live.surely(name, kind.value, adequacy) for kind in TYPES if adequacy is not None}
    return {
        "model": name,
        "stands_for": belief.own[name].arm.model,
        "labels": belief.own[name].labels,
        "kinds": {kind.value: live.typical(name, kind.value) for kind in TYPES},
        **({"surely_adequate": surely} if surely else {}),
    }


def _believed(model: dict[str, Any]) -> Iterator[str]:
    surely = model.get("surely_adequate", {})
    for kind, (p, sd) in model["kinds"].items():
        yield f"{p:.2f} ±{sd:.1f}" + (f" ({surely[kind]:.2f})" if kind in surely else "")


async def _rollback(settings: Settings, snapshots: Snapshots, number: int | None) -> int:
    """To one that gateways can take into force: of another version, or of other weights, none would be."""
    base = None if number == 0 else read_weights(settings)
    if number:
        assert base is not None
        unpack_belief(await snapshots.body(number), base)
    elif base is not None and (current := (await snapshots.head()).current):
        number = await _usable(snapshots, base, current)
    head = await snapshots.rollback(number)
    now = f"snapshot {head.current} is in force" if head.current else "the weights alone decide"
    say(f"{now}; gateways follow within seconds, and the learner forgets what it learned since")
    return 0
