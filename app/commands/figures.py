"""A process beside a gateway that answers questions about traces: a line of JSON in, a line of JSON out.

`app/figures.py` starts it when somebody looks; it ends by itself when nobody has asked for a while.
"""

from __future__ import annotations

import asyncio
import select
import sys
import time
from typing import Any

import duckdb
import msgspec

from app.commands.outcomes import feedback_of
from app.commands.traces_open import FAILURES, open_traces
from app.http.dashboard.ask import Learning, Question, Speed
from app.http.dashboard.figures import answer, decoded, errors
from app.http.dashboard.speed import speed
from app.settings import Settings
from app.stores.opening import make_snapshots
from app.stores.snapshots import NoSnapshot, SnapshotsUnavailable
from app.stores.traces_runs import runs_since

IDLE_S = 60.0


async def told(settings: Settings, db: duckdb.DuckDBPyConnection, question: Question) -> Any:
    """The answer, ready for JSON. Raises TracesError, OutcomesUnavailable or OSError."""
    now_s = time.time()
    if isinstance(question, Speed):
        return await speed_figures(settings, db, question.since_s, now_s)
    if isinstance(question, Learning):
        return await learning_figures(settings, db, question.since_s, now_s)
    return answer(db, question, now_s)


async def speed_figures(
    settings: Settings, db: duckdb.DuckDBPyConnection, since_s: float, now_s: float
) -> dict[str, Any]:
    """The Speed view's."""
    runs = list(runs_since(db, since_s, await feedback_of(settings)))
    span = {"since_s": max(since_s, min((run.began_s for run in runs), default=since_s)), "until_s": now_s}
    return {**span, **speed(runs, span["since_s"], now_s), "errors": errors(db, since_s)}


async def learning_figures(
    settings: Settings, db: duckdb.DuckDBPyConnection, since_s: float, now_s: float
) -> dict[str, Any]:
    """The Learning view's."""
    from app.learner.scorecard import decided_since, scorecard  # noqa: PLC0415  (numpy costs 100 ms to import)

    runs = list(decided_since(db, since_s, await feedback_of(settings)))
    return {"since_s": since_s, "until_s": now_s, **scorecard(runs), **await learned(settings)}


async def learned(settings: Settings) -> dict[str, Any]:
    """What the learner published, the latest first, and which models drifted by what is in force; None for both where
    it never ran, or its store does not answer."""
    from app.learner.pack import Unreadable, unpack_down  # noqa: PLC0415  (as above)

    nothing = {"snapshots": None, "drift": None}
    if settings.redis_url is None and not (settings.data_dir / "snapshots.sqlite").exists():
        return nothing
    snapshots = make_snapshots(settings)
    try:
        await snapshots.start()
        current = (await snapshots.head()).current
        told = [{**msgspec.to_builtins(one), "in_force": one.number == current} for one in await snapshots.told()]
        try:
            down = unpack_down(await snapshots.body(current)) if current else ()
        except (NoSnapshot, Unreadable):
            down = ()
        return {"snapshots": told, "drift": msgspec.to_builtins(down)}
    except (SnapshotsUnavailable, OSError):
        return nothing
    finally:
        await snapshots.close()


async def _line(settings: Settings, text: bytes) -> bytes:
    async with open_traces(settings, small=True) as db:
        return msgspec.json.encode({"answer": await told(settings, db, decoded(text))})


def main() -> None:
    """Answer until nobody asks any more."""
    settings = Settings()
    # One question is under way at a time, so nothing is ever read ahead of `select`.
    while select.select([sys.stdin], [], [], IDLE_S)[0] and (line := sys.stdin.buffer.readline()):
        try:
            said = asyncio.run(_line(settings, line))
        except FAILURES as error:
            said = msgspec.json.encode({"error": str(error)})
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
