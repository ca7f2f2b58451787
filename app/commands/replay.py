"""`bursar replay`: what another policy or router would have cost and scored on recorded traffic."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.commands.ending import Refused
from app.commands.outcomes import feedback_of
from app.commands.policy import read_catalogue, read_policy
from app.commands.terminal import complain, heading, say, say_json, table
from app.commands.traces_open import asking, begin_of, open_traces, settings_for_asking
from app.core.policy import HEURISTIC, LEARNED, Policy
from app.core.quarantined import kept_from
from app.gateway.view import View
from app.learner.rehearsal import Rehearsal
from app.learner.replay import Group, Replay, replay
from app.learner.replay_calls import recorded
from app.learner.replay_estimates import Estimate, Replayed
from app.main import load_routers
from app.settings import Settings
from app.stores.opening import make_snapshots
from app.stores.snapshots import NoSnapshot, Snapshots
from app.stores.traces_parquet import TracesError
from app.stores.traces_schema import since_sql
from routers.learned import LearnedRouter

if TYPE_CHECKING:
    from routers.base import Router

WEIGHTS = "weights"
_RECORDS = "SELECT record FROM traces WHERE {since} AND route IS NOT NULL ORDER BY created_s DESC LIMIT ?"
_COLUMNS = ("estimate", "per decision", "95 %")


@asking
def replay_command(*, policy: Path | None, since: str, router: str | None, most: int, as_json: bool) -> int:
    """Print what it would have come to; the exit code: 0 estimated (as JSON: or refused, which it tells), 1 refused or
    not readable, 2 wrong usage."""
    begin_s, settings = begin_of(since), settings_for_asking()
    found, records = asyncio.run(_replay(settings, policy or settings.policy, begin_s, router, most))
    since_text = dt.datetime.fromtimestamp(begin_s, dt.UTC).isoformat(timespec="seconds")
    if as_json:
        say_json({"object": "replay", "since": since_text, "records": records, "most": most, **found.as_json()})
    elif not (found.all.decisions or found.left_out):
        complain(f"no decision is on record since {since}: there is nothing to replay")
    else:
        _print(found, since_text, cut=records >= most)
    return 1 if found.all.cost.refusal and not as_json else 0


async def _replay(settings: Settings, path: Path, begin_s: float, router: str | None, most: int) -> tuple[Replay, int]:
    catalogue = read_catalogue()
    policy = read_policy(path, catalogue)
    loaded = load_routers(settings.router_weights)
    routers = await routers_of(settings, router, loaded)
    words = itertools.chain.from_iterable((await feedback_of(settings)).values())
    records = await _records(settings, begin_s, most)
    weights = loaded.get(LEARNED)
    base = weights if isinstance(weights, LearnedRouter) else None
    rehearsal = Rehearsal(View(by_heuristic(policy) if router == HEURISTIC else policy, routers, catalogue), base)
    prices = {name: candidate.price for name, candidate in policy.models.items()}
    return replay(recorded(records, words), rehearsal, prices), len(records)


def by_heuristic(policy: Policy) -> Policy:
    """The policy with the heuristic's word on every route, and no baseline, which is the learned router's to keep."""
    routes = {name: replace(route, router=HEURISTIC, split={}, baseline=None) for name, route in policy.routes.items()}
    return replace(policy, routes=routes)


async def _records(settings: Settings, begin_s: float, most: int) -> list[Mapping[str, Any]]:
    """The latest traces of routes since then. Raises TracesError."""
    import duckdb  # noqa: PLC0415  (beside what opens it)

    async with open_traces(settings) as db:
        try:
            rows = db.execute(_RECORDS.format(since=since_sql(begin_s)), [most]).fetchall()
        except duckdb.Error as error:
            raise TracesError(f"traces could not be read: {error}") from error
    return [msgspec.json.decode(record) for (record,) in rows]


async def routers_of(settings: Settings, name: str | None, routers: dict[str, Router]) -> dict[str, Router]:
    """The routers to decide with: those in force (None), the weights alone, the heuristic alone, or a snapshot by its
    number. `routers`: without any snapshot. Raises Refused or SnapshotsUnavailable."""
    base = routers.get(LEARNED)
    if name == HEURISTIC:
        return {HEURISTIC: routers[HEURISTIC]}
    if isinstance(base, LearnedRouter) and base.house is not None:
        from routers.live import LiveRouter  # noqa: PLC0415

        routers = {**routers, LEARNED: LiveRouter(base, base.house.belief, "0")}
    if name == WEIGHTS or not isinstance(base, LearnedRouter):
        if name not in (None, WEIGHTS):
            raise Refused(f"--router {name}: there are no weights here for a snapshot to build on")
        return routers
    if name is not None and not name.isdecimal():
        raise Refused(f"--router: {name!r} must be a snapshot's number, {WEIGHTS} or {HEURISTIC}")
    from app.learner.pack import Unreadable, unpack_belief, unpack_down  # noqa: PLC0415
    from routers.live import LiveRouter  # noqa: PLC0415

    async with _snapshots(settings) as snapshots:
        if snapshots is None:
            if name is not None:
                raise Refused(f"--router {name}: there are no snapshots here")
            return routers
        number = int(name) if name is not None else (await snapshots.head()).current
        if not number:
            return routers
        try:
            body = await snapshots.body(number)
            belief, down = unpack_belief(body, base), unpack_down(body)
        except (NoSnapshot, Unreadable) as error:
            raise Refused(f"snapshot {number} cannot be used: {error}") from None
    return {**routers, LEARNED: LiveRouter(base, belief, str(number), down=kept_from(down))}


@asynccontextmanager
async def _snapshots(settings: Settings) -> AsyncIterator[Snapshots | None]:
    """The store of snapshots; None where there never was one."""
    if settings.redis_url is None and not (settings.data_dir / "snapshots.sqlite").exists():
        yield None
        return
    snapshots = make_snapshots(settings)
    await snapshots.start()
    try:
        yield snapshots
    finally:
        await snapshots.close()


def _print(found: Replay, since: str, *, cut: bool) -> None:
    say(f"{found.all.decisions} decisions since {since}" + ("; older ones are left out (--most)" if cut else ""))
    for why, count in found.left_out.items():
        say(f"left out: {count} {why}")
    if found.unread:
        say(f"{found.unread} were made with other weights and are replayed without what those read in the text")
    _print_group("all", found.all)
    for name, group in found.by_task_type.items():
        _print_group(name, group)
    if found.missing:
        heading("decisions that would go to a model the recorded ones could never reach")
        rows = [(kind, model, f"{share:.1%}") for kind, model, share in found.missing]
        table(("task type", "model", "share"), rows, right={"share"})


def _print_group(name: str, group: Group) -> None:
    heading(f"{name}: {group.decisions} decisions")
    table(
        ("model", "recorded", "would"),
        [(model, f"{had:.1%}", f"{would:.1%}") for model, (had, would) in group.models.items()],
        right={"recorded", "would"},
    )
    for what, one, form in (("dollars", group.cost, "{:.6f}"), ("success", group.success, "{:.4f}")):
        say(
            f"{what}: known for {one.known} of {one.rows} decisions ({one.units} tasks), effective sample "
            f"{one.ess:.0f}, {one.unsupported:.1%} could never have gone this way"
        )
        if one.refusal is not None:
            say(f"  not estimated: {one.refusal}")
            continue
        table(_COLUMNS, _rows(one, form), right={"per decision", "95 %"})
    if not group.decisions:
        return
    cost, success = group.expected_cost_usd, group.expected_success
    say(
        f"by the router's own expectation, checked against no outcome: dollars {cost[0]:.6f} -> {cost[1]:.6f}, "
        f"success {success[0]:.3f} -> {success[1]:.3f}"
    )


def _rows(one: Replayed, form: str) -> list[tuple[str, str, str]]:
    named: tuple[tuple[str, Estimate], ...] = (
        ("recorded", one.recorded),
        ("doubly robust", one.dr),
        ("self-normalised", one.snips),
        ("ips", one.ips),
        ("change (doubly robust)", one.change),
    )
    return [(name, form.format(e.value), f"{form.format(e.low)} - {form.format(e.high)}") for name, e in named]
