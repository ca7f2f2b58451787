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
from app.commands.traces_open import FAILURES, BadUrl, open_traces
from app.http.dashboard.ask import Speed
from app.http.dashboard.figures import answer, decoded, errors
from app.http.dashboard.speed import speed
from app.settings import Settings
from app.stores.outcomes import OutcomesUnavailable
from app.stores.traces_runs import runs_since

IDLE_S = 60.0


async def _answer(settings: Settings, text: bytes) -> bytes:
    question, now_s = decoded(text), time.time()
    async with open_traces(settings, small=True) as db:
        if isinstance(question, Speed):
            return msgspec.json.encode({"answer": await speed_figures(settings, db, question.since_s, now_s)})
        return msgspec.json.encode({"answer": answer(db, question, now_s)})


async def speed_figures(
    settings: Settings, db: duckdb.DuckDBPyConnection, since_s: float, now_s: float
) -> dict[str, Any]:
    """The Speed view's. Raises TracesError, OutcomesUnavailable or OSError."""
    runs = list(runs_since(db, since_s, await feedback_of(settings)))
    span = {"since_s": max(since_s, min((run.began_s for run in runs), default=since_s)), "until_s": now_s}
    return {**span, **speed(runs, span["since_s"], now_s), "errors": errors(db, since_s)}


def main() -> None:
    """Answer until nobody asks any more."""
    settings = Settings()
    # One question is under way at a time, so nothing is ever read ahead of `select`.
    while select.select([sys.stdin], [], [], IDLE_S)[0] and (line := sys.stdin.buffer.readline()):
        try:
            said = asyncio.run(_answer(settings, line))
        except (*FAILURES, BadUrl, OutcomesUnavailable, duckdb.Error) as error:
            said = msgspec.json.encode({"error": str(error)})
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
