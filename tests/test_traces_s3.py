"""Traces on S3, by the commands that users run, with s3fs as they install it, over a small S3 of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from app.stores.traces_segments import waiting
from tests import tools
from tests.conftest import ROOT
from tests.s3_server import BUCKET, S3Server
from tests.stores.traces_records import NOON_S, closed_segment, record

DAY_S = 86_400.0
IDS = "SELECT request_id FROM traces ORDER BY ALL"


@dataclass
class House:
    """A data folder whose traces are kept in the bucket, under a name that has to be quoted."""

    folder: Path
    s3: S3Server
    s3fs: Path

    def start(self, *arguments: str, keep_days: float = 0.0) -> subprocess.Popen[str]:
        """`bursar traces` with these arguments."""
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BURSAR_"))},
            **self.s3.environment,
            "BURSAR_DATA_DIR": str(self.folder),
            "BURSAR_TRACES_URL": f"s3://{BUCKET}/tr aces/x+y",
            "BURSAR_TRACES_KEEP_DAYS": str(keep_days),
            "PYTHONPATH": str(self.s3fs),
        }
        command = [sys.executable, "-m", "app.cli", "traces", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str, keep_days: float = 0.0) -> tuple[int, str, str]:
        """Its exit code, and what it said."""
        with self.start(*arguments, keep_days=keep_days) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def asked(self) -> list[str]:
        """The ids of all calls by `bursar traces query`."""
        code, out, err = self.run("query", IDS, "--json")
        assert code == 0, err
        return [row["request_id"] for row in json.loads(out)]

    def stored(self, at: Path) -> list[str]:
        """The ids in the bucket, read by a DuckDB that knows nothing of ours."""
        at.mkdir()
        for number, body in enumerate(self.s3.objects.values()):
            (at / f"{number}.parquet").write_bytes(body)
        found = duckdb.execute(f"SELECT request_id FROM '{at}/*.parquet' ORDER BY ALL").fetchall()
        return [name for (name,) in found]


@pytest.fixture
def house(tmp_path: Path) -> House:
    found = tools.s3fs()
    if found is None:
        pytest.skip("s3fs cannot be installed here")
    (tmp_path / "data" / "traces").mkdir(parents=True)
    return House(tmp_path / "data", S3Server(), found)


def filled(house: House, *moments_s: float, first: int = 1) -> list[str]:
    """A complete segment with calls at these moments; their ids."""
    records = [record(number, at_s) for number, at_s in enumerate(moments_s, first)]
    closed_segment(house.folder / "traces", *records)
    return sorted(one["request_id"] for one in records)


def test_from_segments_to_questions_and_away_when_old(house: House, tmp_path: Path) -> None:
    now_s = time.time()
    known = filled(house, NOON_S, now_s, now_s + 1.0)
    with house.s3 as s3:
        assert house.run("compact") == (0, "3 records of 1 segments in 2 files\n", "")
        assert {name.rpartition("/part-")[0].partition("/day=")[0] for name in s3.objects} == {"tr aces/x+y"}
        assert house.stored(tmp_path / "all") == house.asked() == known
        more = filled(house, now_s + 2.0, first=4)
        assert house.asked() == sorted({*known, *more})
        code, out, _ = house.run("compact", keep_days=(now_s - NOON_S) / DAY_S - 1.5)
        assert (code, out.rpartition("; ")[2]) == (0, "1 old files removed\n")
        assert house.asked() == house.stored(tmp_path / "kept")
        assert known[0] not in house.asked()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(house: House, tmp_path: Path) -> None:
    known = filled(house, NOON_S, NOON_S + DAY_S)
    refused: list[str] = []

    def once(asked: str) -> bool:
        refused.append(asked)
        return refused.count(asked) == 1

    with house.s3 as s3:
        s3.broken = once
        assert house.run("compact")[0] == 0
        assert house.stored(tmp_path / "all") == house.asked() == known


@pytest.mark.parametrize("why", ["no such bucket", "a key that is unknown"])
def test_where_it_cannot_be_written_nothing_is_lost_and_no_secret_is_said(house: House, why: str) -> None:
    known = filled(house, NOON_S)
    with house.s3 as s3:
        if why == "no such bucket":
            s3.bucket = "another"
        else:
            s3.key = "AKIDANOTHER"
        code, out, err = house.run("compact")
        assert (code, out) == (1, "")
        assert err.startswith("traces could not be written: ")
        assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in err
        assert "Traceback" not in err
        s3.bucket, s3.key = BUCKET, s3.environment["AWS_ACCESS_KEY_ID"]
        assert house.asked() == known


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("at", [1, 2])
def test_a_pass_that_is_killed_while_it_writes_loses_and_doubles_nothing(
    house: House, tmp_path: Path, at: int, stored: bool
) -> None:
    """Killed at the first or second file, which is then there, or is not."""
    known = filled(house, NOON_S, NOON_S + 1.0, NOON_S + DAY_S)
    running: list[subprocess.Popen[str]] = []
    with house.s3 as s3:
        s3.broken = _kill_at(at, running, stored=stored)
        running.append(house.start("compact"))
        running[0].communicate(timeout=60)
        assert running[0].returncode == -9
        s3.broken = lambda _: False
        assert len(s3.objects) == at - 1 + stored
        assert len(list(waiting(house.folder / "traces"))) == 1
        assert house.asked() == known
        assert house.run("compact")[0] == 0
        assert house.stored(tmp_path / "all") == house.asked() == known


def _kill_at(put: int, running: list[subprocess.Popen[str]], *, stored: bool) -> Callable[[str], bool]:
    """Kills the first of them when so many files have come, and lets that one be stored or not."""
    puts = 0

    def broken(asked: str) -> bool:
        nonlocal puts
        puts += asked.startswith("PUT")
        if puts == put and asked.startswith("PUT"):
            running[0].kill()
            return not stored
        return False

    return broken
