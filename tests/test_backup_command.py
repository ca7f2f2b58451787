"""`bursar backup`: a copy taken in the middle of calls is a ledger that adds up, and a gateway goes on from it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from app.commands.tree import cli
from tests.http.live import SAY, LiveGateway, contract, until
from tests.redis_server import shared_server
from tests.stores.traces_records import closed_segment, record
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

TASK = {"x-bursar-task-id": "t"}


@pytest.fixture(autouse=True)
def _unlogged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command would have the whole process log to the runner's stderr, which is closed after it; and what a gateway
    of this process logs meanwhile would be among what the command says."""
    monkeypatch.setattr("app.commands.traces_open.configure_logging", lambda _: None)
    with capture_logs():
        yield


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        yield live


def bursar(*arguments: str, data: Path, **env: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env={"BURSAR_DATA_DIR": str(data), **env})


def task(data: Path) -> dict[str, Any]:
    (found,) = json.loads(bursar("spend", "--task", "t", "--json", data=data).stdout)
    return dict(found)


def calls_of(data: Path) -> int:
    told = bursar("traces", "query", "--json", "SELECT count(*) AS n FROM traces", data=data)
    return int(json.loads(told.stdout)[0]["n"])


def test_a_gateway_goes_on_from_a_copy_taken_in_mid_stream(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gate()
    gate.release(3)
    upstream.source = [Script.of(words("one two three")), Script.of(words("one two three four five"), gate=gate)]
    copy, later = tmp_path / "copy", tmp_path / "later"
    later.mkdir()
    kept = contract(upstream) + "\ncache: {ttl_secs: 600}\n"
    with LiveGateway(kept, tmp_path) as gateway:
        assert gateway.chat({**TASK, "idempotency-key": "k"}).status == 200
        stream = gateway.stream(
            "POST", "/v1/chat/completions", {"model": "small", "messages": SAY, "stream": True}, TASK
        )
        until(lambda: task(gateway.data_dir)["reserved_usd"] > 0)
        until(lambda: calls_of(gateway.data_dir) == 1)
        while True:
            before = task(gateway.data_dir)
            done = bursar("backup", str(copy), data=gateway.data_dir)
            assert (done.exit_code, done.stderr) == (0, "")
            if task(gateway.data_dir) == before:
                break
            shutil.rmtree(copy)  # what the stream costs so far was only then written
        assert "ledger.sqlite" in done.stdout
        gate.open()
        stream.rest()
    assert not list(copy.glob("*-wal"))
    for said in ("replays.sqlite", "cache.sqlite"):
        assert (tmp_path / "data" / said).exists()
        assert not (copy / said).exists()
    assert {path.stat().st_mode & 0o077 for path in (copy, *copy.glob("*.sqlite"))} == {0}
    assert task(copy) == before
    assert calls_of(copy) == 1
    upstream.source = Script.of(words("one"))
    copy.rename(later / "data")
    with LiveGateway(contract(upstream), later) as gateway:
        # The process that had the call is gone for this machine: its hold is charged, and ended.
        until(lambda: task(gateway.data_dir)["reserved_usd"] == 0)
        assert task(gateway.data_dir)["spent_usd"] >= before["spent_usd"]
        assert gateway.chat(TASK).status == 200
        until(lambda: calls_of(gateway.data_dir) == 2)


def test_copies_under_load_are_whole(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Each is of one moment: what all keys, the key and its tasks have spent agree."""
    upstream.source = Script.of(words("one two three"))
    with LiveGateway(contract(upstream), tmp_path) as gateway:
        over = threading.Event()

        def call(number: int) -> None:
            while not over.is_set():
                assert gateway.chat({"x-bursar-task-id": f"t{number}"}).status == 200

        callers = [threading.Thread(target=call, args=(number,)) for number in range(3)]
        for caller in callers:
            caller.start()
        try:
            until(lambda: len(upstream.requests) > 20)
            for number in range(3):
                copy = tmp_path / f"copy{number}"
                assert bursar("backup", str(copy), data=gateway.data_dir).exit_code == 0
                told = json.loads(bursar("spend", "--json", data=copy).stdout)
                tasks = sum(task["spent_usd"] for task in told["tasks"])
                assert told["global"]["total"]["spent_usd"] == pytest.approx(tasks, abs=1e-12)
                assert calls_of(copy) > 0
        finally:
            over.set()
            for caller in callers:
                caller.join()


def test_traces_that_are_compacted_are_copied_once(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    (data / "traces").mkdir(parents=True)
    closed_segment(data / "traces", record(1), record(2))
    assert bursar("traces", "compact", data=data).exit_code == 0
    closed_segment(data / "traces", record(3))
    assert bursar("backup", str(copy), data=data).exit_code == 0
    assert calls_of(copy) == 3


def test_what_is_being_made_or_removed_is_no_part_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    (data / "traces").mkdir(parents=True)
    closed_segment(data / "traces", record(1), record(2))
    assert bursar("traces", "compact", data=data).exit_code == 0
    parquet = data / "traces" / "parquet"
    half, (day,) = parquet / ".making" / "bursar-1", parquet.glob("day=*")
    half.mkdir(parents=True)
    (half / f"{day.name[4:]}.parquet").write_bytes(b"PAR1 and then")
    old = parquet / "day=2001-01-01"
    old.mkdir()
    (old / "part-x.parquet").touch()
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(os.fspath(path)) in (half, old):  # they go just when they are looked at
            shutil.rmtree(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert bursar("backup", str(copy), data=data).exit_code == 0
    monkeypatch.undo()
    assert calls_of(copy) == 2
    assert [path.parent.name for path in copy.rglob("*.parquet")] == [day.name]


def test_what_it_refuses(tmp_path: Path) -> None:
    nothing = bursar("backup", str(tmp_path / "copy"), data=tmp_path / "none")
    assert (nothing.exit_code, "BURSAR_DATA_DIR" in nothing.stderr) == (1, True)
    (tmp_path / "data").mkdir()
    (tmp_path / "full" / "x").mkdir(parents=True)
    full = bursar("backup", str(tmp_path / "full"), data=tmp_path / "data")
    assert (full.exit_code, "not empty" in full.stderr) == (2, True)
    (tmp_path / "data" / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    broken = bursar("backup", str(tmp_path / "copy"), data=tmp_path / "data")
    assert (broken.exit_code, "do not use" in broken.stderr) == (1, True)


def test_what_is_elsewhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = bursar("backup", str(tmp_path / "copy"), data=tmp_path / "data", BURSAR_REDIS_URL=shared_server().url)
    assert done.exit_code == 0
    assert "in Redis" in done.stderr
