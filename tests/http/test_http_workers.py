"""`/metrics` of several workers: the sum of them all, exactly, whoever answers and whoever has died meanwhile."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.live import Served, until
from tests.http.test_http_metrics import check, series, total
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

TASK = {"x-bursar-task-id": "t"}
SAID = "one two three four five"
WORDS = len(SAID.split())


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        yield live


def pages(served: Served) -> dict[int, str]:
    """The page as each worker shows it."""
    return {pid: served.get_on(number, "/metrics").decode() for number, pid in enumerate(served.workers())}


def now(served: Served, name: str) -> float:
    """A metric's sum, as whoever is asked shows it."""
    return total(served.get("/metrics")[1].decode(), name)


def gives_away_its_port(pid: int, port: int) -> bool:
    """Whether programs that this process starts would get its listening socket, and keep it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    held = [file.name for file in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(file) in listening]
    flags = [re.search(r"flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/{number}").read_text()) for number in held]
    assert held
    return not all(found is not None and int(found[1], 8) & os.O_CLOEXEC for found in flags)


def both(served: Served, calls: int) -> str:
    """The page once so many calls are counted, which is the last thing done for one; the same from both."""
    last = "bursar_time_to_first_token_seconds_count"
    until(lambda: now(served, last) == calls)
    one, other = pages(served).values()
    assert series(one) == series(other)
    check(one)
    return one


def test_totals_are_exact_and_survive_a_worker(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    policy = f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with Served(policy, tmp_path, workers=2, TMPDIR=temporary) as served:
        until(lambda: now(served, "bursar_workers") == 2, 60)
        assert not [pid for pid in (served.process.pid, *served.workers()) if gives_away_its_port(pid, served.port)]

        upstream.source = Script.of(words(SAID), input_tokens=10)
        for number, calls in enumerate((3, 5)):
            for _ in range(calls):
                assert served.stream_on(number, "m", TASK).rest().text == SAID
        page = both(served, 8)
        assert total(page, "bursar_requests_total", model="m", outcome="completed") == 8
        assert total(page, "bursar_tokens_total", kind="output") == 8 * WORDS
        assert total(page, "bursar_tokens_total", kind="input") == 8 * 10
        assert total(page, "bursar_cost_usd_total") == pytest.approx(8 * WORDS / 1000, abs=1e-12)
        assert total(page, "bursar_request_duration_seconds_count") == 8
        assert total(page, "bursar_request_duration_seconds_bucket", le="+Inf") == 8
        assert total(page, "bursar_requests_in_flight") == 0
        before = set(series(page))

        gates = [Gate() for _ in range(3)]
        for gate in gates:
            gate.release()
        upstream.source = [Script.of(words(SAID), gate=gate, input_tokens=10) for gate in gates]
        streams = [served.stream_on(number, "m", TASK) for number in (0, 0, 1)]
        assert total(both(served, 8), "bursar_requests_in_flight") == 3
        first, _ = served.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: first not in served.workers() and len(served.workers()) == 2, 60)
        until(lambda: now(served, "bursar_requests_in_flight") == 1 and now(served, "bursar_workers") == 2, 60)
        until(lambda: now(served, "bursar_reservations_expired_total") == 2, 60)  # its holds, and nobody else's
        # The dead worker's gauges went with it, and what it counted is still there.
        page = both(served, 8)
        assert total(page, "bursar_workers") == 2
        assert total(page, "bursar_requests_total") == 8
        gates[2].open()
        assert streams[2].rest().text == SAID
        for stream in streams[:2]:
            stream.leave()

        upstream.source = Script.of(words(SAID), input_tokens=10)
        for number in range(2):
            assert served.stream_on(number, "m", TASK).rest().text == SAID
        page = both(served, 11)
        assert total(page, "bursar_requests_total", outcome="completed") == 11
        assert total(page, "bursar_request_duration_seconds_bucket", le="+Inf") == 11
        assert total(page, "bursar_tokens_total", kind="output") == 11 * WORDS
        assert (
            total(page, "bursar_reservations_expired_total") == 2
        )  # the embedded ledger sees that the process is gone
        assert set(series(page)) == before
        folder = next(temporary.glob("bursar-metrics-*"))
        kept = {file.name.rpartition("_")[2] for file in folder.glob("*.db")}
        assert kept == {"gone.db", *(f"{pid}.db" for pid in served.workers())}


def test_at_sighup_workers_are_replaced_and_no_stream_is_lost(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    policy = f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
"""
    gates = [Gate() for _ in range(2)]
    for gate in gates:
        gate.release()
    upstream.source = [Script.of(words(SAID), gate=gate) for gate in gates] + [Script.of(words(SAID))]
    with Served(policy, tmp_path, workers=2) as served:
        until(lambda: now(served, "bursar_workers") == 2, 60)
        before = served.workers()
        streams = [served.stream_on(number, "m", {}) for number in range(2)]
        for pid in (*before, served.process.pid):  # as a terminal that is closed tells all of them
            os.kill(pid, signal.SIGHUP)
        until(lambda: set(served.workers()) - set(before), 60)
        for gate, stream in zip(gates, streams, strict=True):
            assert served.stream("m", {}).rest().text == SAID
            gate.open()
            assert stream.rest().text == SAID
        until(lambda: len(served.workers()) == 2 and not set(served.workers()) & set(before), 60)
        assert total(both(served, 4), "bursar_requests_total", outcome="completed") == 4


def test_workers_that_begin_beside_a_bad_edit_serve_what_was_in_force(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """A bad edit changes nothing, whoever dies meanwhile, and at SIGHUP too, which replaces all of them."""
    policy = f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
"""
    upstream.source = Script.of(words(SAID))
    with Served(policy, tmp_path, workers=2) as served:
        until(lambda: now(served, "bursar_workers") == 2, 60)
        before = served.workers()
        (tmp_path / "policy.yaml").write_text("version: 1\nproviders: {")
        until(lambda: now(served, "bursar_policy_last_load_failed") >= 1, 60)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(set(served.workers()) - set(before)) == 1 and now(served, "bursar_workers") == 2, 60)
        for number in range(2):
            assert served.stream_on(number, "m", {}).rest().text == SAID
        os.kill(served.process.pid, signal.SIGHUP)
        until(lambda: len(served.workers()) == 2 and not set(served.workers()) & set(before), 60)
        until(lambda: now(served, "bursar_workers") == 2, 60)
        assert served.stream("m", {}).rest().text == SAID
        (tmp_path / "policy.yaml").write_text(policy.replace("models: {m:", "models: {other:"))
        until(lambda: now(served, "bursar_policy_last_load_failed") == 0, 60)
        for number in range(2):
            assert b'"other"' in served.get_on(number, "/v1/models")


def test_what_killed_gateways_leave_behind_goes_when_one_begins(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    policy = f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
"""
    places = [tmp_path / name for name in ("tmp", "a", "b", "c")]
    for place in places:
        place.mkdir()
    shared, a, b, c = places

    def folders() -> set[Path]:
        return set(shared.glob("bursar-metrics-*"))

    with Served(policy, a, workers=2, TMPDIR=shared) as killed:
        (left,) = folders()
        orphans = killed.workers()
        killed.process.kill()
        killed.process.wait()
        until(lambda: not any(Path("/proc", str(pid)).exists() for pid in orphans), 60)
    assert folders() == {left}
    with Served(policy, b, workers=2, TMPDIR=shared) as one:
        (of_one,) = folders()
        assert of_one != left
        with Served(policy, c, workers=2, TMPDIR=shared):
            assert of_one in folders(), "another one's, who lives"
            assert len(folders()) == 2
        until(lambda: one.get("/metrics")[0] == 200)
