"""`bursar traces`, and the process aside in which a gateway compacts."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
import structlog
from typer.testing import CliRunner, Result

from app import compaction
from app.commands.tree import cli
from app.compaction import compact_aside, keep_compacting
from app.settings import Settings
from app.stores.traces_files import FileTraces
from app.stores.traces_redis import RedisTraces
from app.stores.traces_segments import Segment
from app.stores.traces_stream import TraceStream
from app.stores.traces_tail import SegmentTail, StreamTail
from tests.conftest import Served
from tests.redis_server import RedisServer, shared_server
from tests.stores.policy_texts import CONTRACT
from tests.stores.traces_records import NOON_S, closed_segment, line, record, request_id
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Script, words


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the embedded store has its segments."""
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("BURSAR_REDIS_URL", raising=False)
    monkeypatch.delenv("BURSAR_TRACES_URL", raising=False)
    made = tmp_path / "traces"
    made.mkdir()
    return made


def traces(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["traces", *arguments])


class TestQuery:
    def test_a_table_of_what_is_compacted_and_what_is_not(self, folder: Path) -> None:
        closed_segment(folder, record(1), record(2))
        assert traces("compact").stdout == "2 records of 1 segments in 1 files\n"
        closed_segment(folder, record(3, model=None))
        done = traces(
            "query", "SELECT model, count(*) AS calls, sum(cost_usd) AS usd FROM traces GROUP BY ALL ORDER BY 2"
        )
        assert done.exit_code == 0
        assert done.stdout.splitlines() == ["model  calls    usd", "           1  0.003", "small      2  0.003"]

    def test_csv_and_json_for_programs(self, folder: Path) -> None:
        closed_segment(folder, record(1), record(2, error=None))
        sql = "SELECT error, created_at, day, cut FROM traces ORDER BY cost_usd"
        rows = list(csv.reader(io.StringIO(traces("query", sql, "--csv").stdout)))
        assert rows[0] == ["error", "created_at", "day", "cut"]
        assert rows[1][:3] == [record(1)["error"], "2026-11-20 12:00:00", "2026-11-20"]
        assert json.loads(rows[1][3]) == {**record(1)["cut"], "killed_at_usd": 0.00012}
        found = json.loads(traces("query", sql, "--json").stdout)
        assert [row["error"] for row in found] == [record(1)["error"], None]
        assert found[0]["created_at"] == "2026-11-20T12:00:00"
        assert json.loads(traces("query", "SELECT 1 WHERE false", "--json").stdout) == []
        assert traces("query", "SELECT 1", "--json", "--csv").exit_code == 2

    def test_no_traces_are_no_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path / "none"))
        asked = traces("query", "SELECT count(*) AS n FROM traces")
        assert asked.stdout == "n\n0\n"
        told = f"note: there are no traces at {tmp_path}/none/traces; BURSAR_DATA_DIR says where to look\n"
        assert [asked.stderr, traces("tail").stderr] == [told, told]
        assert not (tmp_path / "none").exists()
        assert traces("compact").exit_code == 1

    @pytest.mark.parametrize(
        "sql",
        [
            "DROP VIEW traces",
            "SELECT 1; SELECT 2",
            "COPY traces TO 'stolen.csv'",
            "WITH x AS (COPY traces TO 'stolen.csv') SELECT * FROM x",
            "EXPLAIN ANALYZE COPY traces TO 'stolen.csv'",
            "ATTACH 'stolen.csv'",
            "",
        ],
    )
    def test_traces_are_only_read(self, folder: Path, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        done = traces("query", sql)
        assert done.exit_code == 2
        assert done.stderr == "one SELECT is expected: traces are only read\n"
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(
        "sql",
        [
            "DESCRIBE traces",
            "DESCRIBE runs",
            "SELECT model, avg(success_ms) FROM RUNS WHERE passed GROUP BY 1",
            "WITH runs AS (SELECT 1 AS n) SELECT n FROM runs",
            "SUMMARIZE SELECT cost_usd FROM traces",
            "WITH a AS (SELECT 1) SELECT * FROM a UNION SELECT 2",
            "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a WHERE n < 3) SELECT * FROM a",
            "FROM traces SELECT count(*)",
            "SELECT c.model, avg(c.p_success) FROM (SELECT unnest(candidates) AS c FROM traces) GROUP BY 1;",
        ],
    )
    def test_all_kinds_of_questions(self, folder: Path, sql: str) -> None:
        closed_segment(folder, record(1))
        assert traces("query", sql).exit_code == 0

    @pytest.mark.parametrize("end", ["", ";", "; -- done", "\n-- done"])
    def test_moments_with_a_time_zone_are_told_in_utc(self, folder: Path, end: str) -> None:
        closed_segment(folder, record(1), record(2, NOON_S + 1))
        moment, first = "to_timestamp(created_s)", "'2026-11-20 12:00:00+00'::TIMESTAMPTZ"
        sql = f'SELECT {moment}, [{moment}] AS "a ""b""", {{x: {moment}}} AS s FROM traces'
        done = traces("query", f"{sql} WHERE {moment} > {first} - INTERVAL 1 HOUR ORDER BY 1 DESC{end}", "--json")
        assert done.exit_code == 0, done.output
        assert [list(row.values()) for row in json.loads(done.stdout)] == [
            [at, [at], {"x": at}] for at in ("2026-11-20T12:00:01", "2026-11-20T12:00:00")
        ]
        assert list(json.loads(done.stdout)[0]) == [moment, 'a "b"', "s"]

    def test_wrong_sql_says_what_is_wrong(self, folder: Path) -> None:
        done = traces("query", "SELECT modle FROM traces")
        assert done.exit_code == 2
        assert '"modle"' in done.stderr
        assert "Traceback" not in done.output
        late = traces("query", "SELECT CAST(key AS INTEGER) FROM traces")
        assert late.exit_code == 0
        closed_segment(folder, record(1))
        late = traces("query", "SELECT CAST(key AS INTEGER) FROM traces")
        assert late.exit_code == 2
        assert "Could not convert" in late.stderr

    def test_a_long_answer_says_that_it_goes_on(self, folder: Path) -> None:
        done = traces("query", "SELECT range AS n FROM range(1001)")
        assert len(done.stdout.splitlines()) == 1001
        assert "LIMIT" in done.stderr
        assert len(traces("query", "SELECT range AS n FROM range(12345)", "--csv").stdout.splitlines()) == 12346


class TestTail:
    def test_the_last_calls_a_line_each(self, folder: Path) -> None:
        closed_segment(folder, *(record(number, NOON_S + number) for number in range(5)))
        closed_segment(folder, record(5, NOON_S + 5, cost_usd=None, model=None), torn=b'{"request_id":')
        done = traces("tail", "-n", "3")
        assert [line.split("  ")[0] for line in done.stdout.splitlines()] == ["12:00:03", "12:00:04", "12:00:05"]
        first, *_, last = done.stdout.splitlines()
        assert first == f"12:00:03  cost_killed   $0.003000  1000 ms  ci  auto > small  {request_id(3, NOON_S + 3)}"
        assert "$?" in last
        assert "auto > -" in last
        assert len(traces("tail").stdout.splitlines()) == 6
        assert traces("tail", "-n", "0").stdout == ""
        assert json.loads(traces("tail", "-n", "1", "--json").stdout)["created_s"] == NOON_S + 5

    def test_a_name_that_a_client_chose_stays_in_its_line(self, folder: Path) -> None:
        closed_segment(folder, {**record(1), "requested_model": "gpt\x1b[2J\nreq_2  completed"})
        (line,) = [line for line in traces("tail").stdout.splitlines() if "gpt" in line]
        assert r"gpt\x1b[2J\nreq_2  completed" in line

    async def test_new_ones_as_they_come(self, folder: Path) -> None:
        closed_segment(folder, record(1))
        tail = SegmentTail(folder)
        assert len(await tail.latest(0)) == 0
        writer = Segment(folder)
        writer.write(line(record(2)) + b'{"half":')
        assert await tail.new() == [line(record(2)).strip()]
        writer.write(b"1}\n")
        assert await tail.new() == [b'{"half":1}']
        assert await tail.new() == []
        writer.close()

    async def test_over_redis(self, folder: Path) -> None:
        name = f"tail-{time.time_ns()}"
        store, stream = (
            RedisTraces(shared_server().url, namespace=name),
            TraceStream(shared_server().url, namespace=name),
        )
        await store.start()
        tail = StreamTail(stream)
        assert await tail.latest(2) == []
        for number in range(3):
            store.append(f"req_{number}", partial(dict, request_id=f"req_{number}"))
        async with asyncio.timeout(PATIENCE_S):
            found: list[bytes] = []
            while len(found) < 3:
                found += await tail.new()
        assert found == [b'{"request_id":"req_%d"}' % number for number in range(3)]
        assert await StreamTail(stream).latest(2) == found[1:]
        assert await tail.new() == []
        await store.close()
        await stream.close()


class TestSettings:
    def test_a_url_that_cannot_be_used(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BURSAR_TRACES_URL", "nothing://user:secret@host/x")
        done = traces("query", "SELECT 1")
        assert done.exit_code == 1
        assert "BURSAR_TRACES_URL" in done.stderr
        assert "secret" not in done.output + repr(Settings())

    def test_old_days_go(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BURSAR_TRACES_KEEP_DAYS", "30")
        closed_segment(folder, record(1, time.time() - 40 * 86_400), record(2, time.time()))
        assert traces("compact").stdout == "2 records of 1 segments in 2 files; 1 old files removed\n"
        assert traces("query", "SELECT count(*) AS n FROM traces").stdout == "n\n1\n"

    def test_redis(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BURSAR_REDIS_URL", shared_server().url)
        monkeypatch.setenv("BURSAR_REDIS_NAMESPACE", f"command-{time.time_ns()}")
        settings = Settings()

        async def fill() -> None:
            store = RedisTraces(shared_server().url, namespace=settings.redis_namespace)
            await store.start()
            store.append("req_1", partial(record, 1, time.time(), request_id="req_1"))
            await store.close()

        asyncio.run(fill())
        assert traces("query", "SELECT request_id FROM traces").stdout == "request_id\nreq_1\n"
        assert traces("compact").stdout == "1 records of 1 batches in 1 files\n"
        assert traces("query", "SELECT request_id FROM traces").stdout == "request_id\nreq_1\n"

    def test_redis_that_does_not_answer(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with RedisServer() as server:
            url = server.url
        monkeypatch.setenv("BURSAR_REDIS_URL", url)
        for arguments in (("compact",), ("query", "SELECT 1")):
            done = traces(*arguments)
            assert done.exit_code == 1
            assert "did not answer" in done.stderr
        monkeypatch.setenv("BURSAR_REDIS_URL", "ftp://x")
        assert traces("compact").exit_code == 2


class TestAside:
    async def test_a_gateway_compacts_what_is_complete(self, folder: Path, tmp_path: Path) -> None:
        closed_segment(folder, record(1))
        store = FileTraces(folder)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            task = group.create_task(keep_compacting(Settings(data_dir=tmp_path), store, every_s=0.01))
            while not list(folder.glob("*.done")):
                await asyncio.sleep(0.05)
            task.cancel()
        done = await asyncio.to_thread(traces, "query", "SELECT count(*) AS n FROM traces")
        assert done.stdout == "n\n1\n"

    async def test_what_goes_wrong_is_logged(
        self, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        closed_segment(folder, record(1))
        (folder / "parquet").write_text("in the way")
        await compact_aside(Settings(data_dir=tmp_path))
        (told,) = capfd.readouterr().err.splitlines()
        assert json.loads(told)["event"] == "traces could not be compacted"

    async def test_a_gateway_that_stops_ends_it(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compaction, "COMMAND", ("-c", "import time; time.sleep(60)"))
        started = asyncio.Event()
        processes = []
        real = asyncio.create_subprocess_exec

        async def noted(*given: object, **more: object) -> object:
            processes.append(await real(*given, **more))  # type: ignore[arg-type]
            started.set()
            return processes[0]

        monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            task = group.create_task(compact_aside(Settings(data_dir=tmp_path)))
            await started.wait()
            task.cancel()
        assert await processes[0].wait() == -9

    async def test_one_that_takes_too_long_is_ended(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compaction, "COMMAND", ("-c", "import time; time.sleep(60)"))
        monkeypatch.setattr(compaction, "LONGEST_S", 0.05)
        with structlog.testing.capture_logs() as logs:
            await compact_aside(Settings(data_dir=tmp_path))
        assert [one["event"] for one in logs] == ["traces were compacted for too long"]


def test_from_served_calls_to_an_answer(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two workers answered is on record, once, before and after compaction."""
    policy = tmp_path / "policy.yaml"
    with ScriptedUpstream(Script.of(words("one two three"))) as upstream:
        policy.write_text(re.sub(r"http://127.0.0.1:900\d/v1", upstream.url, CONTRACT))
        served = Served("--policy", str(policy), "--workers", "2", cwd=tmp_path)
        try:
            with httpx.Client(base_url=served.url, timeout=10) as client:
                ask = {"model": "small", "messages": [{"role": "user", "content": "Hi."}]}
                replies = [client.post("/chat/completions", json=ask) for _ in range(10)]
                ids = sorted(reply.headers["x-bursar-request-id"] for reply in replies)
                shown = client.get(f"/decisions/{ids[-1]}")
        finally:
            served.close()
    assert shown.status_code == 200
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path / "data"))
    sql = "SELECT request_id, outcome, model, cost_usd > 0 AS paid, input_tokens > 0 AS read FROM traces ORDER BY ALL"
    expected = [
        {"request_id": name, "outcome": "completed", "model": "small", "paid": True, "read": True} for name in ids
    ]
    for _ in range(2):
        assert json.loads(traces("query", sql, "--json").stdout) == expected
        assert traces("compact").exit_code == 0
