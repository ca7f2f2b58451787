"""Compaction of segments: every column, every day, each record once, whatever is killed in between."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import fsspec  # type: ignore[import-untyped]
import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from structlog.testing import capture_logs

from app.stores import traces_segments
from app.stores.traces_compact import compact_segments
from app.stores.traces_files import FileTraces
from app.stores.traces_parquet import ParquetFolder, TracesError
from app.stores.traces_query import QueryError, ask, open_files
from app.stores.traces_schema import COLUMNS, SCHEMA, SHAPE, since_sql
from app.stores.traces_segments import Segment, any_complete, waiting
from tests.conftest import ROOT
from tests.stores.traces_records import NOON_S, closed_segment, record, request_id
from tests.upstream import PATIENCE_S

DAY_S = 86_400.0


@pytest.fixture
def parquet(tmp_path: Path) -> ParquetFolder:
    return ParquetFolder(str(tmp_path / "parquet"))


def rows(folder: Path, parquet: ParquetFolder, sql: str) -> list[tuple[Any, ...]]:
    with open_files(folder, parquet) as db:
        return ask(db, sql).rows(100_000)


def ids(folder: Path, parquet: ParquetFolder) -> list[str]:
    return [name for (name,) in rows(folder, parquet, "SELECT request_id FROM traces ORDER BY ALL")]


def in_parquet(parquet: ParquetFolder) -> list[str]:
    """The ids in all parts, read by a DuckDB that knows nothing of ours."""
    if not parquet.parts():
        return []
    found = duckdb.execute(f"SELECT request_id FROM '{parquet.root}/*/*.parquet' ORDER BY ALL").fetchall()
    return [name for (name,) in found]


def test_every_column_says_what_the_record_does(tmp_path: Path, parquet: ParquetFolder) -> None:
    given = record(3, probe=True)
    closed_segment(tmp_path, given)
    before = rows(tmp_path, parquet, "SELECT * FROM traces")
    done = compact_segments(tmp_path, parquet, 0)
    assert (done.sources, done.records, done.parts) == (1, 1, 1)
    assert rows(tmp_path, parquet, "SELECT * FROM traces") == before
    found = dict(zip([column.name for column in COLUMNS], before[0], strict=True))
    assert None not in found.values()
    assert msgspec.json.decode(found.pop("record")) == given
    assert msgspec.json.decode(found.pop("seen")) == given["seen"]
    asked = given["decision"]["asked"]
    assert msgspec.json.decode(found.pop("features")) == asked["features"]
    told = [found.pop(f"asked_{name}") for name in ("input_tokens", "choices", "schema")]
    assert told == [asked["input_tokens"], asked["choices"], asked["wants_schema"]]
    assert found.pop("created_at") == dt.datetime(2026, 11, 20, 12)
    assert found.pop("day") == dt.date(2026, 11, 20)
    assert found.pop("attempts") == 2
    assert found.pop("candidates") == given["decision"]["candidates"]
    assert found.pop("cut") == {**given["cut"], "killed_at_usd": 0.00012}
    assert found.pop("caps") == given["caps"]
    assert found.pop("policy_version") == "abc"
    assert found.pop("prices_version") == "def"
    assert found.pop("client_request_id") == "mine"
    flat = {**given, **given["decision"], **given["decision"]["item"], **given["usage"], **given["timings"]}
    assert found == {name: flat[name] for name in found}


def test_a_refused_call_has_nulls(tmp_path: Path, parquet: ParquetFolder) -> None:
    closed_segment(tmp_path, record(1, decision=None, model=None, cost_usd=None, usage={}, cut=None, attempts=[]))
    compact_segments(tmp_path, parquet, 0)
    (row,) = rows(
        tmp_path, parquet, "SELECT route, candidates, model, cost_usd, input_tokens, cut, attempts FROM traces"
    )
    assert row == (None, None, None, None, None, None, 0)


def test_parts_are_by_day_and_readable_by_anyone(tmp_path: Path, parquet: ParquetFolder) -> None:
    midnight_s = NOON_S + DAY_S / 2
    path = closed_segment(tmp_path, record(1, midnight_s - 1), record(2, midnight_s), record(3, midnight_s + 1))
    compact_segments(tmp_path, parquet, 0)
    days = [part.day.isoformat() for part in parquet.parts()]
    assert days == ["2026-11-20", "2026-11-21"]
    assert {part.name for part in parquet.parts()} == {path.stem}
    files = f"'{tmp_path}/parquet/*/*.parquet'"
    assert duckdb.execute(f"SELECT day, count(*) FROM {files} GROUP BY day ORDER BY day").fetchall() == [
        (dt.date(2026, 11, 20), 1),
        (dt.date(2026, 11, 21), 2),
    ]
    schema = duckdb.execute(f"SELECT DISTINCT decode(value) FROM parquet_kv_metadata({files})").fetchall()
    assert (str(SCHEMA),) in schema
    for part in parquet.parts():
        assert Path(part.path).stat().st_mode & 0o077 == 0


def test_steps_are_counted_over_all_files(tmp_path: Path, parquet: ParquetFolder) -> None:
    closed_segment(tmp_path, record(1, NOON_S + 9), record(2, NOON_S + 3), record(3, task_id=None))
    compact_segments(tmp_path, parquet, 0)
    closed_segment(tmp_path, record(4, NOON_S + 6), record(5, NOON_S + 7, key="other"))
    sql = "SELECT cost_usd, step FROM traces JOIN steps USING (request_id) ORDER BY ALL"
    assert rows(tmp_path, parquet, sql) == [(0.001, 3), (0.002, 1), (0.004, 2), (0.005, 1)]


def test_open_segments_and_torn_lines(tmp_path: Path, parquet: ParquetFolder) -> None:
    closed_segment(tmp_path, record(1), torn=b'{"request_id":"req_torn","error":"\xc3')
    closed_segment(tmp_path, torn=b'[1]\n\n{"request_id":"no time"}\n')
    writer = Segment(tmp_path)
    writer.write(b'{"request_id":"half')
    assert ids(tmp_path, parquet) == [record(1)["request_id"]]
    done = compact_segments(tmp_path, parquet, 0)
    assert (done.sources, done.records, done.parts) == (2, 1, 1)
    assert len(waiting(tmp_path)) == 1
    assert ids(tmp_path, parquet) == in_parquet(parquet) == [record(1)["request_id"]]
    writer.close()


def test_an_empty_segment_is_removed_and_nothing_is_done_twice(tmp_path: Path, parquet: ParquetFolder) -> None:
    empty = closed_segment(tmp_path)
    closed_segment(tmp_path, record(1))
    assert compact_segments(tmp_path, parquet, 0).sources == 1
    assert not empty.exists()
    assert compact_segments(tmp_path, parquet, 0).sources == 0


def test_one_at_a_time(tmp_path: Path, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_segment(tmp_path, record(1))
    inner = []
    publish = ParquetFolder.publish

    def meanwhile(self: ParquetFolder, made: Path, day: dt.date, name: str) -> None:
        inner.append(compact_segments(tmp_path, parquet, 0))
        publish(self, made, day, name)

    monkeypatch.setattr(ParquetFolder, "publish", meanwhile)
    assert compact_segments(tmp_path, parquet, 0).records == 1
    assert [done.busy for done in inner] == [True]


def test_a_place_that_cannot_be_written_loses_nothing(tmp_path: Path, parquet: ParquetFolder) -> None:
    closed_segment(tmp_path, record(1))
    (tmp_path / "parquet").write_text("a file in the way")
    with pytest.raises(TracesError, match="could not be"):
        compact_segments(tmp_path, parquet, 0)
    (tmp_path / "parquet").unlink()
    assert compact_segments(tmp_path, parquet, 0).records == 1
    assert ids(tmp_path, parquet) == [record(1)["request_id"]]


def test_segments_that_cannot_be_read_hold_up_no_others(
    tmp_path: Path, parquet: ParquetFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another user's, say: more of them than tries at a place that cannot be written."""
    for number in range(5):
        (tmp_path / f"00000000000-{number:08x}.jsonl").mkdir()
    assert not any_complete(tmp_path)
    closed_segment(tmp_path, record(1))
    assert any_complete(tmp_path)
    assert ids(tmp_path, parquet) == [record(1)["request_id"]]
    assert "00000000000-00000004.jsonl cannot be read" in "".join(capfd.readouterr())
    with pytest.raises(TracesError, match=r"segment 00000000000-00000000\.jsonl cannot be read: Is a directory"):
        compact_segments(tmp_path, parquet, 0)
    assert ids(tmp_path, parquet) == in_parquet(parquet) == [record(1)["request_id"]]


def test_what_killed_passes_left_behind_is_removed_after_a_while(tmp_path: Path, parquet: ParquetFolder) -> None:
    for name, age_s in (("bursar-old", 7 * 3600), ("bursar-new", 60)):
        left = Path(parquet.root) / ".making" / name
        left.mkdir(parents=True)
        (left / "2026-11-20.parquet").write_bytes(b"half")
        os.utime(left, (time.time() - age_s,) * 2)
    closed_segment(tmp_path, record(1))
    compact_segments(tmp_path, parquet, 0)
    assert [path.name for path in (Path(parquet.root) / ".making").iterdir()] == ["bursar-new"]
    assert ids(tmp_path, parquet) == [record(1)["request_id"]]


def test_old_days_are_removed(tmp_path: Path, parquet: ParquetFolder) -> None:
    now_s = time.time()
    closed_segment(tmp_path, *(record(age, now_s - age * DAY_S) for age in (0, 1, 5, 9)))
    compact_segments(tmp_path, parquet, 0)
    assert len(parquet.parts()) == 4
    assert compact_segments(tmp_path, parquet, 5.0).expired == 1
    assert compact_segments(tmp_path, parquet, 1.0).expired == 1
    assert [row for (row,) in rows(tmp_path, parquet, "SELECT cost_usd FROM traces ORDER BY ALL")] == [0, 0.001]
    assert len(list(Path(parquet.root).glob("day=*"))) == 2


def test_parts_of_other_versions_are_read(tmp_path: Path, parquet: ParquetFolder) -> None:
    """Those whose name says of which shape they are, and those whose does not."""
    closed_segment(tmp_path, record(1))
    compact_segments(tmp_path, parquet, 0)
    (part,) = parquet.parts()
    for number, (name, columns) in enumerate((
        ("other.00000000", "1 AS later"), ("another.00000000", "1 AS later"), ("unknown", "1 AS later"),
        ("unknown-too", "model AS key, 1 AS latest"),
    ), 2):  # fmt: skip
        changed = Path(part.path).with_name(f"part-{name}.parquet")
        left_out = "seen, cost_usd, day, key" if "key" in columns else "seen, cost_usd, day"
        copied = f"SELECT * EXCLUDE ({left_out}), {columns}, {number} AS cost_usd FROM '{part.path}'"
        duckdb.execute(f"COPY ({copied}) TO '{changed}'")
    found = rows(tmp_path, parquet, "SELECT seen IS NULL, cost_usd, day, model = key FROM traces ORDER BY cost_usd")
    day = dt.date(2026, 11, 20)
    assert found[0] == (False, 0.001, day, False)
    assert found[1:] == [(True, float(number), day, number == 5) for number in (2, 3, 4, 5)]


@pytest.mark.parametrize("url", ["{}/parquet", "memory://{}/again"])
def test_what_a_killed_pass_of_another_version_left_is_replaced(tmp_path: Path, url: str) -> None:
    """It was killed before it had marked its segment, and then the gateway was updated."""
    parquet = ParquetFolder(url.format(tmp_path))
    path = closed_segment(tmp_path, record(1))
    compact_segments(tmp_path, parquet, 0)
    (part,) = parquet.parts()
    for shape in ("", ".00000000"):
        parquet.fs.cp_file(part.path, part.path.replace(f".{SHAPE}.", f"{shape}."))
    parquet.fs.cp_file(part.path, part.path.replace(path.stem, path.stem + "0"))
    path.with_suffix(".done").unlink()
    assert len(ids(tmp_path, parquet)) == 2
    compact_segments(tmp_path, parquet, 0)
    assert {found.name for found in parquet.parts()} == {path.stem, path.stem + "0"}
    assert len(parquet.parts()) == len(ids(tmp_path, parquet)) == 2


@pytest.mark.parametrize("half", [b"", b"PAR1", b"PAR1" + b"\0" * 500, b"not parquet at all, but long enough for it"])
def test_a_part_that_is_not_whole_hides_no_other(tmp_path: Path, parquet: ParquetFolder, half: bytes) -> None:
    """A copy that was broken off, or is under way: it is said, and the others are read."""
    closed_segment(tmp_path, record(1), record(2, NOON_S + 86_400))
    compact_segments(tmp_path, parquet, 0)
    (first, _) = parquet.parts()
    for day in (first.day, first.day + dt.timedelta(days=1), first.day + dt.timedelta(days=2)):
        folder = Path(parquet.root, f"day={day}")
        folder.mkdir(exist_ok=True)
        (folder / f"part-copied.{SHAPE}.parquet").write_bytes(half)
    with capture_logs() as logs, open_files(tmp_path, parquet) as db:
        assert db.execute("SELECT count(*) FROM traces").fetchall() == [(2,)]
    assert len([one for one in logs if one["log_level"] == "warning" and "part-copied" in one["file"]]) == 3


def test_old_days_wait_for_questions_that_are_being_answered(tmp_path: Path, parquet: ParquetFolder) -> None:
    """DuckDB opens a part when it comes to it: one that goes meanwhile would end the answer with an error."""
    for day in range(3):
        closed_segment(tmp_path, record(day, NOON_S - day * 86_400))
    compact_segments(tmp_path, parquet, 0)
    with open_files(tmp_path, parquet) as db:
        asked = db.execute("SELECT created_s FROM traces ORDER BY created_s")
        assert compact_segments(tmp_path, parquet, 1).expired == 0
        assert len(asked.fetchall()) == 3
        with open_files(tmp_path, parquet) as other:
            assert other.execute("SELECT count(*) FROM traces").fetchall() == [(3,)]
    assert compact_segments(tmp_path, parquet, 1).expired == 3
    assert parquet.parts() == []


def test_of_days_that_are_not_asked_for_nothing_is_opened(tmp_path: Path, parquet: ParquetFolder) -> None:
    closed_segment(tmp_path, record(1), record(2, NOON_S + DAY_S))
    compact_segments(tmp_path, parquet, 0)
    earlier = next(part for part in parquet.parts() if part.day.day == 20)
    Path(earlier.path).write_bytes(b"PAR1 damaged PAR1")
    asked = f"SELECT cost_usd FROM traces WHERE {since_sql(NOON_S + DAY_S / 2)}"
    assert rows(tmp_path, parquet, asked) == [(0.002,)]
    with pytest.raises(QueryError, match="part-"):
        rows(tmp_path, parquet, "SELECT cost_usd FROM traces")


def test_any_file_system(tmp_path: Path) -> None:
    parquet = ParquetFolder(f"memory://{tmp_path.name}/traces/")
    folder = tmp_path / "odd [names]*"
    folder.mkdir()
    closed_segment(folder, record(1), record(2))
    compact_segments(folder, parquet, 0)
    assert [part.path for part in parquet.parts()] == fsspec.filesystem("memory").find(f"/{tmp_path.name}")
    closed_segment(folder, record(3))
    assert rows(folder, parquet, "SELECT count(*), max(day) FROM traces") == [(3, dt.date(2026, 11, 20))]
    assert compact_segments(folder, parquet, 1.0 + (time.time() - NOON_S) / DAY_S).expired == 0
    local = ParquetFolder(f"file://{folder}/parquet")
    closed_segment(folder, record(4))
    compact_segments(folder, local, 0)
    assert rows(folder, local, "SELECT cost_usd FROM traces") == [(0.004,)]


class SlowPuts(MemoryFileSystem):  # type: ignore[misc]
    """A file system on which a put is seen while it goes on, as over SSH."""

    protocol = "slowputs"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    seen: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("slowputs://")))

    def put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        self.seen.append(rpath)
        super().put_file(lpath, rpath, **more)


def test_a_file_system_without_whole_puts_is_given_another_name_first(tmp_path: Path) -> None:
    fsspec.register_implementation("slowputs", SlowPuts, clobber=True)
    parquet = ParquetFolder("slowputs://host/traces")
    path = closed_segment(tmp_path, record(1))
    compact_segments(tmp_path, parquet, 0)
    assert SlowPuts.seen == [f"/host/traces/day=2026-11-20/.part-{path.stem}"]
    assert [part.path for part in parquet.parts()] == [f"/host/traces/day=2026-11-20/part-{path.stem}.{SHAPE}.parquet"]
    assert ids(tmp_path, parquet) == [record(1)["request_id"]]


def test_a_url_that_cannot_be_used() -> None:
    with pytest.raises(TracesError, match="BURSAR_TRACES_URL cannot be used"):
        ParquetFolder("nothing://user:secret@known")
    fsspec.register_implementation("odd", "no_such.Odd", clobber=True, errtxt="Install oddfs")
    with pytest.raises(TracesError, match="not installed: Install oddfs"):
        ParquetFolder("odd://bucket/traces")


async def test_a_quiet_gateways_records_are_compacted_too(
    tmp_path: Path, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces_segments, "SEGMENT_S", 0.1)
    store = FileTraces(tmp_path)
    await store.start()
    store.append(request_id(1), partial(record, 1, time.time()))
    async with asyncio.timeout(PATIENCE_S):
        while not await store.due():
            await asyncio.sleep(0.02)
    await asyncio.to_thread(compact_segments, tmp_path, parquet, 0)
    assert not await store.due()
    store.append(request_id(2), partial(record, 2, time.time()))
    await store.close()
    assert await store.due()
    assert len(ids(tmp_path, parquet)) == 2


async def test_a_compacted_record_is_still_found_by_its_id(tmp_path: Path, parquet: ParquetFolder) -> None:
    store = FileTraces(tmp_path)
    await store.start()
    now_s = time.time()
    given = record(1, now_s)
    closed_segment(tmp_path, given)
    compact_segments(tmp_path, parquet, 0)
    assert await store.get(given["request_id"]) == given
    await store.close()


KILLED_AT_EVERY_STEP = """
import os, pathlib, signal, sys
import duckdb, fsspec
from app.stores.traces_compact import compact_segments
from app.stores.traces_parquet import ParquetFolder
from tests.stores.test_traces_compact import ids, in_parquet
from tests.stores.traces_records import NOON_S, closed_segment, record

base, together = pathlib.Path(sys.argv[1]), sys.argv[2] == "two"
EFFECTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "open"}
left = 0


def hook(event, given):
    global left
    if event in EFFECTS and str(given[0]).startswith(str(base)):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(number):
    folder = base / str(number)
    folder.mkdir()
    parquet = ParquetFolder(str(folder / "parquet"))
    known = [record(i, NOON_S + i * 20_000) for i in range(6)]
    closed_segment(folder, *known[:4])
    closed_segment(folder, *known[4:])
    child = os.fork()
    if child == 0:
        global left
        left = number
        sys.addaudithook(hook)
        compact_segments(folder, parquet, 0)
        os._exit(0)
    over = base / f"over-{number}"
    other = os.fork() if together else None
    if other == 0:
        while not over.exists():
            compact_segments(folder, parquet, 0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    over.touch()
    if other is not None:
        assert os.waitpid(other, 0)[1] == 0
    expected = sorted(one["request_id"] for one in known)
    assert ids(folder, parquet) == expected, (number, "after the kill")
    compact_segments(folder, parquet, 0)
    assert in_parquet(parquet) == expected, (number, "after the next pass")
    assert ids(folder, parquet) == expected
    return os.WIFSIGNALED(status)


number = kills = 0
killed = True
while killed or number < 20 and together:
    number += 1
    killed = attempt(number)
    kills += killed
print(kills)
"""


@pytest.mark.parametrize("compactors", ["one", "two"])
def test_a_pass_that_is_killed_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, compactors: str
) -> None:
    """Of two that are at it at once, one is killed."""
    env = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("left"))}  # who is killed cleans up nothing
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path), compactors]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= (15 if compactors == "one" else 5), "the kills did not reach their steps"


WRITER = """
import asyncio, os, pathlib, sys, time
from app.stores.traces_files import FileTraces
from tests.stores.traces_records import record


async def main():
    store = FileTraces(pathlib.Path(sys.argv[1]))
    await store.start()
    number = 0
    while True:
        batch = [record(number + i, time.time()) for i in range(100)]
        number += 100
        for one in batch:
            store.append(one["request_id"], one.copy)
        while len(store._waiting):
            await asyncio.sleep(0.001)
        os.write(1, b"".join(one["request_id"].encode() + b"\\n" for one in batch))


asyncio.run(main())
"""


def test_a_writer_that_is_killed_leaves_each_written_record_once(
    tmp_path: Path, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        written = [writer.stdout.readline() for _ in range(1500)]
        compact_segments(tmp_path, parquet, 0)
        assert parquet.parts() == []
        os.kill(writer.pid, signal.SIGKILL)
        written += writer.stdout.readlines()
    compact_segments(tmp_path, parquet, 0)
    known = {name.decode().strip() for name in written if name.endswith(b"\n")}
    found = in_parquet(parquet)
    assert len(found) == len(set(found))
    assert known <= set(found)
