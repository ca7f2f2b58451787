"""A process beside a gateway that answers questions about traces: a line of JSON in, a line of JSON out.

`app/figures.py` starts it when somebody looks; it ends by itself when nobody has asked for a while.
"""

from __future__ import annotations

import asyncio
import select
import sys
import time

import duckdb
import msgspec

from app.commands.traces_open import FAILURES, BadUrl, open_traces
from app.http.dashboard.figures import answer, decoded
from app.settings import Settings

IDLE_S = 60.0


async def _answer(settings: Settings, text: bytes) -> bytes:
    async with open_traces(settings, small=True) as db:
        return msgspec.json.encode({"answer": answer(db, decoded(text), time.time())})


def main() -> None:
    """Answer until nobody asks any more."""
    settings = Settings()
    # One question is under way at a time, so nothing is ever read ahead of `select`.
    while select.select([sys.stdin], [], [], IDLE_S)[0] and (line := sys.stdin.buffer.readline()):
        try:
            said = asyncio.run(_answer(settings, line))
        except (*FAILURES, BadUrl, duckdb.Error) as error:
            said = msgspec.json.encode({"error": str(error)})
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
