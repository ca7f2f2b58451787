"""CPU microseconds that traces and sampling cost a request as a whole: the mark of the learning loop is 60.

One figure for all of it: the draw and its exact probability, what showed in the answer, the record, its append, and the
writer's thread, which encodes records and writes them to files. Scoring is no part of it: it is what deciding costs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from app.core.budget import Claim, Granted, Settled
from app.core.meter import Meter
from app.core.types import Outcome
from app.gateway.attempt_record import AttemptRecord
from app.gateway.ledger import Ledger
from app.gateway.limits import Limits
from app.gateway.plan import plan_attempt
from app.gateway.purse import Purse
from app.gateway.record import CallRecord
from app.gateway.seen import heard_for, seen_of
from app.http.hot import new_request_id
from app.stores.traces_files import FileTraces
from tests.bench.micro import BATCHES, INPUT_TOKENS, Part
from tests.bench.micro_learning import Exploring, exploring

CALLS = 500
WHOLE = "traces and sampling, as a whole"
ALONE = "traces alone"
ANSWER = "def merged(left: list[int], right: list[int]) -> list[int]: ..."


def trace_parts(calls: int = CALLS) -> Iterator[Part]:
    """The whole, and what it is without sampling, for 3 and 10 candidates (2 kB of code, read by a snapshot)."""
    for count in (3, 10):
        of = exploring(count)
        for name, sampling in ((WHOLE, True), (ALONE, False)):
            yield Part(f"{name}, {count} candidates", "request", uvloop.run(_each_us(of, calls, sampling=sampling)))


async def _each_us(of: Exploring, calls: int, *, sampling: bool) -> float:
    """The median over batches of the CPU time of all threads, writing included, by request."""
    took = []
    for _ in range(1 + BATCHES):
        with tempfile.TemporaryDirectory(prefix="bursar-bench-") as folder:
            traces = FileTraces(Path(folder))
            await traces.start()
            records = [_called(of) for _ in range(calls)]
            before_ns = time.process_time_ns()
            for record, attempt in records:
                record.decision = of.sampled(record.request_id) if sampling else of.decision
                heard = heard_for(of.request, ())
                heard.say(ANSWER)
                attempt.seen = seen_of(of.request, heard, attempt.candidate, of.view, None)
                traces.append(record.request_id, partial(record.as_trace, [attempt]))
            await traces.close()
            took.append((time.process_time_ns() - before_ns) / calls / 1000)
            assert sum(len(path.read_bytes().splitlines()) for path in Path(folder).iterdir()) == calls
    return round(statistics.median(took[1:]), 1)  # the first warms


def _called(of: Exploring) -> tuple[CallRecord, AttemptRecord]:
    """A call under the caps of a key and a task that was answered and settled."""
    candidate, rules = of.decision.chosen, of.view.policy.ledger
    claims = tuple(Claim(scope, 10**12) for scope in ("task:b:1", "key:b:day:2026-11-29", "key:b:total"))
    limits = Limits(claims, 10**9, "request")
    assert candidate.price is not None
    plan = plan_attempt(of.request, candidate, limits, INPUT_TOKENS)
    meter = Meter(candidate.price, INPUT_TOKENS, 1_000)
    purse = Purse(cast("Ledger", None), rules, plan, limits, meter, "call")  # it is settled: no ledger is asked
    purse.granted = Granted(500_000, 9 * 10**11, "task:b:1", step=3)
    purse.settled = Settled(400_000, 100_000, 9 * 10**11, "task:b:1")
    attempt = AttemptRecord(
        candidate, purse, Outcome.COMPLETED, 200, "metered", 900, 400_000, ttft_s=0.2, first_attempt_s=0.2,
        generation_s=1.5, usage={"input_tokens": INPUT_TOKENS, "output_tokens": 120}, upstream_id="chatcmpl-1",
    )  # fmt: skip
    record = CallRecord(
        new_request_id(), time.time(), "b", "1", None, "bench", "auto", False, of.view, of.decision, limits,
        Outcome.COMPLETED, duration_s=1.7, overhead_s=0.001,
    )  # fmt: skip
    return record, attempt
