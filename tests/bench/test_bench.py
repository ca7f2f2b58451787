"""The benchmark works: one tiny run over a real gateway. Nothing here judges by time."""

from __future__ import annotations

import argparse
import asyncio
import io
from pathlib import Path
from typing import cast

import msgspec
import pytest

from app.stores.budgets_sqlite import SqliteBudgets
from tests.bench import machine, micro, micro_learning, micro_traces, watching
from tests.bench.__main__ import Findings, options
from tests.bench.canned import (
    CHUNKS,
    STREAM_AT_ONCE,
    TASK_HEADER,
    TEXT_EVENT,
    UNSTAMPED,
    WHOLE_REPLY,
    chat_body,
    chat_request,
    stamped,
)
from tests.bench.load import Client, Load, Run
from tests.bench.memory import grow
from tests.bench.report import Report
from tests.bench.scenarios import SCENARIOS, measure
from tests.bench.stub import request_size
from tests.bench.systems import peer, running_gateway, running_stub

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it measures from /proc")


@needs_proc
def test_a_tiny_run_gives_every_figure() -> None:
    first, second = machine.cores()
    before = machine.how_taken("sqlite")
    with machine.pinned(second), running_stub() as stub, running_gateway(stub, None, first) as gateway:
        scenarios = [SCENARIOS["n1"], SCENARIOS["burst"]]
        rows = measure([stub, gateway], scenarios, reps=1, seconds=0.1, warm_s=0)
        growth = grow(gateway, 40, portions=2)
    assert [(row.scenario, row.system) for row in rows] == [
        ("n1", "direct"), ("n1", "bursar"), ("burst", "direct"), ("burst", "bursar"),
    ]  # fmt: skip
    assert all(row.requests and not row.errors for row in rows), [row.first_error for row in rows]
    plain, streamed = rows[1], rows[3]
    assert plain.cpu_us_per_request is not None
    assert plain.cpu_us_per_chunk is None
    assert plain.ready_s is not None
    assert plain.rss_mb is not None
    assert plain.added_p50_us == pytest.approx(plain.p50_us - rows[0].p50_us, abs=0.1)
    assert streamed.cpu_us_per_chunk is not None
    assert streamed.chunks_per_s == pytest.approx(streamed.requests_per_s * CHUNKS, rel=0.01)
    assert rows[0].cpu_us_per_request is None
    assert (growth.points[-1][0], growth.errors) == (40, 0)
    out = io.StringIO()
    report = Report(out)
    report.scenarios(rows)
    report.memory(growth)
    report.how(before, ["a remark"])
    for said in ("| n1 bursar ", "| burst direct ", "Memory", "- CPU: ", "- a remark"):
        assert said in out.getvalue()
    found = Findings(before, "sqlite", rows, growth)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Findings) == found


@needs_proc
def test_what_a_moment_of_the_dashboard_costs_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    watching.run("redis", 3, argparse.Namespace(viewers=2, seconds=0.1, reps=1))
    said = capsys.readouterr().out
    assert said.startswith("redis, 2 gateway(s), 3 streams on each: a moment ")
    kilobytes = float(said.split()[-2])
    assert 1 < kilobytes < 5, "six calls and two gateways"


async def answered(load: Load, reply: bytes, size: int) -> Run:
    """A run whose first reply arrives in parts of `size` bytes."""
    run = Run(load)
    client = Client(run, 0)
    client.connection_made(cast(asyncio.Transport, _Deaf()))
    for start in range(0, len(reply), size):
        client.data_received(reply[start : start + size])
    return run


class _Deaf(asyncio.Transport):
    def write(self, data: object) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nobody is there."""

    abort = close


LOAD = Load("127.0.0.1", 9, "/v1/chat/completions", connections=1, seconds=60, requests=1)


@pytest.mark.parametrize("size", [1, 7, 4096, 1_000_000])
async def test_the_load_generator_reads_replies_in_any_segmentation(size: int) -> None:
    streamed = (await answered(msgspec.structs.replace(LOAD, stream=True), stamped(STREAM_AT_ONCE, 1), size)).result()
    assert (streamed.requests, streamed.chunks, streamed.errors) == (1, CHUNKS, 0)
    whole = (await answered(LOAD, WHOLE_REPLY, size)).result()
    assert (whole.requests, whole.errors) == (1, 0)


async def test_the_load_generator_counts_what_is_wrong() -> None:
    streaming = msgspec.structs.replace(LOAD, stream=True)
    refused = b"HTTP/1.1 402 Payment Required\r\ncontent-length: 4\r\n\r\nsaid"
    shortened = STREAM_AT_ONCE.replace(UNSTAMPED, b"", 1)
    for load, reply, said in (
        (LOAD, refused, "402 Payment Required"),
        (streaming, shortened, "49 chunks"),
        (streaming, STREAM_AT_ONCE.replace(b"[DONE]", b"[GONE]"), "[DONE]: False"),
    ):
        result = (await answered(load, reply, 4096)).result()
        assert (result.requests, result.errors) == (0, 1)
        assert said in (result.first_error or "")


async def test_each_request_can_be_a_task_of_its_own() -> None:
    run = Run(msgspec.structs.replace(LOAD, tasks="request", task_prefix="x"))
    assert [TASK_HEADER + b": x-%d\r\n" % n in run.request(0) for n in range(3)] == [True] * 3
    assert TASK_HEADER not in Run(LOAD).request(0)


def test_the_stub_finds_the_end_of_a_request() -> None:
    sent = chat_request("h", "/v1", chat_body(prompt_bytes=500, stream=True, pace_ms=20))
    assert [request_size(sent[:end]) for end in range(len(sent))] == [0] * len(sent)
    assert request_size(sent + sent) == len(sent)
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert (request_size(chunked[:-1]), request_size(chunked)) == (0, len(chunked))
    assert request_size(b"GET / HTTP/1.1\r\n\r\nrest") == 18


def test_prompts_have_the_size_asked_for() -> None:
    for size in (2_000, 100_000):
        assert len(chat_body(prompt_bytes=size, stream=False, pace_ms=None)) == pytest.approx(size, rel=0.15)


async def test_parts_are_measured_on_the_real_code(tmp_path: Path) -> None:
    parts = [*micro.request_parts(batch_s=0), *micro.stream_parts(batch_s=0)]
    budgets = SqliteBudgets(tmp_path / "ledger.sqlite")
    await budgets.start()
    parts += await micro.ledger_parts(budgets, "SQLite", calls=32)
    await budgets.close()
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    for said in (
        "parse, 2 kB",
        "decide, 10 candidates, 100 kB",
        "decode a chunk",
        "reserve and settle, SQLite, 32 in a tick",
    ):
        assert said in names
    assert micro.policy_with(10).routes["auto"].candidates[-1] == "m10"
    assert TEXT_EVENT.endswith(b"\n\n")


def test_traces_and_sampling_are_measured_as_a_whole() -> None:
    parts = {part.name: part for part in micro_traces.trace_parts(calls=4)}
    assert list(parts) == [
        f"{name}, {count} candidates" for count in (3, 10) for name in (micro_traces.WHOLE, micro_traces.ALONE)
    ]
    assert all(part.cpu_us > 0.0 for part in parts.values())


def test_what_a_learned_p_of_success_costs_is_measured_as_a_whole() -> None:
    parts = {part.name: part.cpu_us for part in micro_learning.learning_parts(batch_s=0)}
    for size in ("2 kB", "100 kB"):
        for who in ("the weights alone", "a snapshot"):
            assert parts[f"{micro_learning.SCORED} by {who}, 10 candidates, {size}"] > 0.0


def test_options_say_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert [scenario.name for scenario in options([]).scenarios] == ["n1", "n32", "big", "paced", "burst"]
    assert options(["--memory", "100"]).scenarios == []
    assert peer("other=http://127.0.0.1:4000/v1").path == "/v1/chat/completions"
    for wrong in (["--scenarios", "n2"], ["--reps", "0"], ["--peer", "here"]):
        with pytest.raises(SystemExit):
            options(wrong)
    assert "no scenario n2" in capsys.readouterr().err
