"""`bursar train --traces`: from this gateway's recorded calls and feedback to weights of its own."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from app.commands.ending import Refused
from app.commands.outcomes import feedback_of
from app.commands.terminal import complain, say
from app.commands.traces_open import asking, open_traces, settings_for_asking
from app.learner.teach import Taught, TooLittle, teach, with_house
from app.settings import Settings
from app.stores.traces_parquet import TracesError
from routers.artifact import CARD, Weights, read, save
from routers.belief import Belief
from routers.learned import LearnedRouter
from routers.live import LiveRouter, prior_of

_RECORDS = "SELECT record FROM traces WHERE created_s > ? AND created_s <= ? ORDER BY created_s, request_id"


@asking
def teach_command(out: Path) -> int:
    """Teach, and write the weights and their card into a folder; the exit code."""
    settings = settings_for_asking()
    weights = _weights(settings)
    base = LearnedRouter(weights)
    try:
        taught = asyncio.run(_teach(settings, base))
    except TooLittle as error:
        complain(f"nothing was written: {error}")
        return 1
    made = with_house(weights, taught.house)
    try:
        file = save(made, out)
        (out / CARD).write_text(card(taught, base, LearnedRouter(made)), encoding="utf-8")
    except OSError as error:
        complain(f"the weights could not be written: {error}")
        return 1
    say(f"{taught.calls} calls, {taught.labels} labels: {_figure(taught)}")
    if not taught.helps:
        say("note: they may be no better than the weights before; the difference is within chance")
    say(f"{file}: version {made.version}; serve it with BURSAR_ROUTER_WEIGHTS={out}")
    return 0


def card(taught: Taught, base: LearnedRouter, made: LearnedRouter) -> str:
    """The model card of weights that traces have taught."""
    live = LiveRouter(made, taught.house.belief, "0")
    shown = "better, beyond chance" if taught.helps else "not shown to be better: within chance"
    lines = [
        f"# Weights {made.version}: {base.version}, taught by own traffic",
        "",
        f"Made by `bursar train --traces` of {taught.calls} calls between {_day(taught.first_s)} and "
        f"{_day(taught.house.until_s)} (UTC), with {taught.labels} labels: "
        + ", ".join(f"{count} by {source}" for source, count in taught.sources.items())
        + ". Labels carry the doubt about who gave them. No text of a request is in the weights.",
        "",
        f"Foreseeing each label before it is learned, so that none is tested on what it taught: {_figure(taught)}; "
        f"{shown}. The figure is of this traffic and of the models that answered in it, whatever chose them.",
        "",
        "| model | work | labels | weight | success | expected, typical request: before | taught |",
        "|---|---|---|---|---|---|---|",
    ]
    before = LiveRouter(base, _joined(base, taught), "0")
    for (model, work), cell in taught.cells.items():
        success = f"{cell.good / cell.weight:.2f}" if cell.weight > 0.0 else "-"
        was, now = (f"{router.typical(model, work)[0]:.2f}" for router in (before, live))
        lines.append(f"| {model} | {work} | {cell.labels} | {cell.weight:.1f} | {success} | {was} | {now} |")
    lines += [
        "",
        "A gateway that serves these weights begins with what they were taught and learns on; calls until "
        f"{taught.house.until_s:.3f} (Unix time) are not learned again, and later words on them are too late. "
        "Lengths of answers, and what requests demand, are the weights' before.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _joined(base: LearnedRouter, taught: Taught) -> Belief:
    """What the weights before say of the models that were taught."""
    prior = prior_of(base)
    belief = prior.begin()
    for one in taught.house.belief.own.values():
        belief = prior.joined(belief, one.arm, base.ability(one.arm))
    return belief


def _figure(taught: Taught) -> str:
    return (
        f"{taught.after:.4f} nats a label, {taught.before:.4f} by the weights before; "
        f"gain {taught.gain:.4f} +- {1.96 * taught.error:.4f}"
    )


def _day(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).date().isoformat()


def _weights(settings: Settings) -> Weights:
    try:
        return read(settings.router_weights)
    except (OSError, ValueError) as error:
        raise Refused(f"the learned router's weights cannot be used: {error}") from None


async def _teach(settings: Settings, base: LearnedRouter) -> Taught:
    words = list(itertools.chain.from_iterable((await feedback_of(settings)).values()))
    after_s = 0.0 if base.house is None else base.house.until_s
    return teach(base, await _records(settings, after_s), words)


async def _records(settings: Settings, after_s: float) -> list[Mapping[str, Any]]:
    """All traces since then. One of the future (a clock was ahead) is left out: weights that it had taught would have
    nothing learned until that time comes. Raises TracesError."""
    import duckdb  # noqa: PLC0415  (beside what opens it)

    async with open_traces(settings) as db:
        try:
            rows = db.execute(_RECORDS, [after_s, time.time()]).fetchall()
        except duckdb.Error as error:
            raise TracesError(f"traces could not be read: {error}") from error
    return [msgspec.json.decode(record) for (record,) in rows]
