"""Segments: whose they are, when they are complete, and which are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.stores import file_lock
from app.stores import traces_segments as module
from app.stores.traces_segments import Segment, any_complete, complete, mark_done, prune, segments, waiting
from tests.conftest import ROOT
from tests.stores.traces_records import closed_segment, line, record

DAY_S = 86_400.0


def one(folder: Path) -> Path:
    (path,) = folder.glob("*.jsonl")
    return path


class TestComplete:
    def test_an_open_segment_is_its_writers(self, tmp_path: Path) -> None:
        segment = Segment(tmp_path)
        segment.write(line(record(1)))
        with complete(one(tmp_path)) as ready:
            assert not ready
        assert not any_complete(tmp_path)
        segment.close()
        with complete(one(tmp_path)) as ready:
            assert ready
            with complete(one(tmp_path)) as twice:
                assert not twice
        assert any_complete(tmp_path)

    def test_one_that_is_done_or_gone_is_nobodys(self, tmp_path: Path) -> None:
        path = closed_segment(tmp_path, record(1))
        mark_done(path)
        with complete(path) as ready:
            assert not ready
        assert waiting(tmp_path) == []
        assert [found for found, _, _ in segments(tmp_path)] == [path]
        with complete(tmp_path / "gone.jsonl") as ready:
            assert not ready

    def test_a_killed_writers_segment_is_complete(self, tmp_path: Path) -> None:
        code = (
            "import sys, pathlib; from app.stores.traces_segments import Segment\n"
            "s = Segment(pathlib.Path(sys.argv[1])); s.write(b'{}\\n'); print('written', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            assert not any_complete(tmp_path)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert any_complete(tmp_path)

    def test_a_new_segment_that_is_looked_at_or_removed_at_once_is_begun_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries: list[int] = []

        def unlucky(file: int) -> bool:
            tries.append(file)
            if len(tries) == 1:
                return False
            if len(tries) == 2:
                for path in tmp_path.iterdir():
                    path.unlink()
            return file_lock.try_lock(file)

        monkeypatch.setattr(module, "try_lock", unlucky)
        segment = Segment(tmp_path)
        segment.write(b"{}\n")
        assert len(tries) == 3
        assert not segment.gone()
        segment.close()


class TestPrune:
    def made(self, folder: Path, age_days: float, size: int, *, done: bool) -> str:
        at_s = time.time() - age_days * DAY_S
        path = folder / f"{int(at_s * 1000):011x}-{size}.jsonl"
        path.write_bytes(b"x" * size)
        os.utime(path, (at_s, at_s))
        if done:
            mark_done(path)
        return path.name

    def left(self, folder: Path) -> set[str]:
        return {path.name for path in folder.iterdir()}

    def test_what_is_in_parquet_goes_when_it_is_old_or_too_much(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "KEEP_BYTES", 250)
        for age, size in ((9, 10), (3, 200)):
            self.made(tmp_path, age, size, done=True)
        kept = {self.made(tmp_path, 2, 100, done=True), self.made(tmp_path, 1, 101, done=True)}
        (tmp_path / "notes.txt").write_text("not ours")
        prune(tmp_path, time.time(), 90)
        assert self.left(tmp_path) == kept | {name.replace("jsonl", "done") for name in kept} | {"notes.txt"}

    def test_what_is_not_stays_until_parquet_would_forget_it(self, tmp_path: Path) -> None:
        self.made(tmp_path, 31, 1, done=False)
        kept = self.made(tmp_path, 29, 2, done=False)
        prune(tmp_path, time.time(), 30)
        assert self.left(tmp_path) == {kept}
        old = self.made(tmp_path, 1000, 3, done=False)
        prune(tmp_path, time.time(), 0)
        assert self.left(tmp_path) == {kept, old}

    def test_what_is_not_has_a_bound_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "KEEP_WAITING_BYTES", 250)
        self.made(tmp_path, 3, 200, done=False)
        kept = self.made(tmp_path, 2, 100, done=False)
        prune(tmp_path, time.time(), 0)
        assert self.left(tmp_path) == {kept}

    def test_a_mark_without_a_segment_is_removed(self, tmp_path: Path) -> None:
        path = closed_segment(tmp_path, record(1))
        mark_done(path)
        path.unlink()
        prune(tmp_path, time.time(), 0)
        assert self.left(tmp_path) == set()
