"""The embedded ledger: the contract, and what a file shared by processes has to stand."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.book import Book
from app.core.budget import Balance, Claim, Granted, Hold, Lost, Op, Result, Settle, Settled
from app.core.terms import Terms
from app.stores import sqlite_book, sqlite_prune
from app.stores import sqlite_tables as tables
from app.stores.budgets import OWNER_LEASE_S, LedgerUnavailable
from app.stores.budgets_sqlite import TURNS, SqliteBudgets
from app.stores.sqlite_book import StoredBook
from app.stores.sqlite_prune import prune, prune_lists
from tests.stores import ledger_child
from tests.stores.ledger_contract import LedgerContract
from tests.stores.ledger_tools import (
    SHORT_LEASE_S,
    MakeStore,
    advance,
    amended,
    assert_same_balances,
    balance,
    beat_until_expired,
    examples,
    fresh,
    granted,
    ops,
    placed,
    reserve,
)

DAY_MS = 86_400_000
UNLISTED = """
UPDATE holds SET scopes = CAST((SELECT names FROM scope_lists WHERE id = holds.scopes) AS BLOB);
DROP TABLE scope_lists
"""
"""Back to how holds were in a file of the third version."""
LEASE_MS = int(OWNER_LEASE_S * 1000)


class Clock:
    """The wall clock, as a test turns it."""

    ms = 1_800_000_000_000


@asynccontextmanager
async def opened(
    path: Path, *, lease_s: float = OWNER_LEASE_S, busy_timeout_s: float = tables.BUSY_TIMEOUT_S
) -> AsyncIterator[SqliteBudgets]:
    """A started store, closed on leaving."""
    store = SqliteBudgets(path, lease_s=lease_s, busy_timeout_s=busy_timeout_s)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "bursar" / "ledger.db"


async def child(path: Path, mode: str, scope: str) -> asyncio.subprocess.Process:
    """Another process on the same ledger."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        ledger_child.__file__,
        *(str(path), mode, scope),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


class TestContract(LedgerContract):
    @pytest.fixture
    def make_store(self, path: Path) -> MakeStore:
        def make(*, lease_s: float = OWNER_LEASE_S) -> AbstractAsyncContextManager[SqliteBudgets]:
            return opened(path, lease_s=lease_s)

        return make


AMOUNTS = st.integers(0, 2**62)
BALANCES = st.builds(
    Balance,
    spent_nano=AMOUNTS, held_nano=AMOUNTS, calls=AMOUNTS, tokens=AMOUNTS, began_ms=AMOUNTS, running=AMOUNTS,
    limit_nano=st.none() | AMOUNTS, own_limit_nano=st.none() | AMOUNTS,
    killed_at_nano=st.none() | AMOUNTS, killed_limit_nano=st.none() | AMOUNTS,
    terms=st.none() | st.builds(Terms, above=st.just(("task:ä|1",)), set_nano=st.none() | AMOUNTS),
)  # fmt: skip
HOLDS = st.builds(
    Hold, st.just("c"), st.just("o"), st.lists(st.text(st.characters(codec="utf-8")), max_size=3).map(tuple),
    AMOUNTS, AMOUNTS, AMOUNTS,
)  # fmt: skip


class TestRows:
    @settings(max_examples=50)
    @given(before=BALANCES, after=BALANCES, hold=HOLDS)
    def test_what_is_saved_is_what_is_loaded(self, before: Balance, after: Balance, hold: Hold) -> None:
        with closing(sqlite3.connect(":memory:")) as db:
            db.executescript(tables.SCHEMA)
            for balance in (before, after):
                tables.save_balances(db, [("s", balance)], 1)
                assert tables.load_balances(db, ["s", "t"]) == {"s": balance}
            known: set[tuple[str, ...]] = set()
            tables.save_holds(db, [hold], known)
            assert known == {hold.scopes}
            assert tables.load_holds(db, ["c", "d"]) == {"c": hold}

    def test_only_what_the_binding_takes_as_it_is_is_bound(self) -> None:
        bound: list[object] = []

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, values: Sequence[object] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
                bound.extend(values)
                return super().execute(sql, values)

        with closing(sqlite3.connect(":memory:", factory=Connection)) as db:
            db.executescript(tables.SCHEMA)
            tables.save_balances(
                db, [("s", Balance()), ("t", Balance(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, Terms(calls=1)))], 1
            )
            tables.save_holds(db, [Hold("c", "o", ("s", "t"), 1, 2, 3)], set())
        assert {type(value) for value in bound} == {int, str}  # for others it makes and drops errors

    def test_rows_of_before_are_read(self) -> None:
        with closing(sqlite3.connect(":memory:")) as db:
            db.executescript(tables.SCHEMA)
            columns = f"name, {tables.BALANCE}, updated_ms"
            values = "'s', 1, 2, 3, NULL, 5, NULL, NULL, 8, 9, 0, ?, 1"
            db.execute(f"INSERT INTO scopes ({columns}) VALUES ({values})", (b'{"calls":1}',))
            assert tables.load_balances(db, ["s"]) == {
                "s": Balance(1, 2, 3, None, 5, None, None, 8, 9, 0, Terms(calls=1))
            }


class TestFile:
    async def test_folders_are_made_and_only_the_owner_can_read(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "c", Claim("s")))
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["ledger.db", "ledger.db-shm", "ledger.db-wal"]
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    async def test_balances_and_names_survive_a_restart(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "1", Claim("s", 100, 60), need=30))
            await store.apply(Settle("1", 20, ("s",)))
        async with opened(path) as store:
            assert await store.balances(["s"]) == [Balance(20, 0, 1, 100, 60, 20, 60)]

    async def test_a_file_of_the_first_version_is_taken_on(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as db:
            columns = "spent_nano, held_nano, calls, limit_nano, own_limit_nano, killed_at_nano, killed_limit_nano"
            db.executescript(
                f"CREATE TABLE scopes (name TEXT PRIMARY KEY, {columns}, updated_ms) WITHOUT ROWID;"
                "CREATE TABLE holds (call_id TEXT PRIMARY KEY, owner, scopes, spent_nano, held_nano, risk_nano);"
                "CREATE TABLE owners (owner TEXT PRIMARY KEY, machine, pid, lease_until_ms);"
                "INSERT INTO scopes VALUES ('s', 20, 0, 1, 100, 60, 20, 60, 5); PRAGMA user_version = 1"
            )
        async with opened(path) as store:
            assert await store.balances(["s"]) == [Balance(20, 0, 1, 100, 60, 20, 60)]
            await amended(store, "s", max_nano=200, max_calls=2)
            await granted(store, reserve(store, "1", Claim("s", 100), need=150, now_ms=7))
        async with opened(path) as store:
            found = await balance(store, "s")
            assert (found.terms, found.began_ms) == (Terms(set_nano=200, set_calls=2), 7)

    async def test_calls_under_way_in_a_file_of_the_second_version_count(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "1", Claim("s", 100), Claim("g")))
            await granted(store, reserve(store, "2", Claim("s", 100)))
            with closing(sqlite3.connect(path)) as db:
                db.executescript(UNLISTED)
                db.executescript("ALTER TABLE scopes DROP COLUMN running; PRAGMA user_version = 2")
            tables.create(path)
            assert [b and b.running for b in await store.balances(["s", "g"])] == [2, 1]

    async def test_calls_under_way_in_a_file_of_the_third_version_go_on(self, path: Path) -> None:
        async with opened(path) as store:
            for call in "123":
                await granted(store, reserve(store, call, Claim("s", 100), *([Claim("g")] if call == "3" else [])))
            with closing(sqlite3.connect(path)) as db:
                db.executescript(f"{UNLISTED}; PRAGMA user_version = 3")
            tables.create(path)
            await asyncio.gather(*(store.apply(Settle(call, 4)) for call in "123"))
            assert [await balance(store, name) for name in "sg"] == [Balance(12, 0, 3, 100), Balance(4, 0, 1)]

    async def test_holds_that_a_gateway_of_the_third_version_makes_meanwhile_end_too(self, path: Path) -> None:
        """It had the file open when a newer one updated it, as workers have that are replaced one by one."""
        async with opened(path, lease_s=SHORT_LEASE_S) as older, opened(path) as newer:
            await granted(older, reserve(older, "1", Claim("s", 100), Claim("g"), risk=6))
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("UPDATE holds SET scopes = (SELECT names FROM scope_lists WHERE id = holds.scopes)")
                db.execute("DELETE FROM scope_lists")
            (expired,) = await beat_until_expired(newer, 1)
            assert (expired.scopes, expired.charged_nano) == (("s", "g"), 6)
            assert [await balance(newer, name) for name in "sg"] == [Balance(6, 0, 1, 100), Balance(6, 0, 1)]

    async def test_lists_of_scopes_are_kept_while_a_hold_has_them(self, path: Path) -> None:
        """Whoever takes the others away, a process that had written one writes it again."""
        async with opened(path) as store, opened(path) as other:

            def lists() -> list[str]:
                with closing(tables.connect(path)) as db:
                    assert prune_lists(db)
                    return sorted(names for (names,) in db.execute("SELECT names FROM scope_lists"))

            for call, maker in (("1", store), ("2", store), ("3", other)):
                await granted(maker, reserve(maker, call, Claim("s", 100), Claim("g")))
            await granted(store, reserve(store, "4", Claim("s", 100)))
            assert lists() == ['["s","g"]', '["s"]']
            await asyncio.gather(*(store.apply(Settle(call, 1)) for call in "123"))
            assert lists() == ['["s"]']
            await granted(store, reserve(store, "5", Claim("s", 100), Claim("g")))
            assert lists() == ['["s","g"]', '["s"]']
            assert isinstance(await other.apply(Settle("5", 1)), Settled)
            assert (await balance(other, "g")).spent_nano == 4

    async def test_many_lists_are_forgotten_while_verbs_go_on(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        many = 20 * sqlite_prune.PRUNE_ROWS
        async with opened(path) as store:
            await granted(store, reserve(store, "1", Claim("s", 100)))

            def forget() -> bool:
                with closing(tables.connect(path)) as db:
                    return prune_lists(db)

            with closing(tables.connect(path)) as db:
                db.execute("BEGIN")
                db.executemany("INSERT INTO scope_lists VALUES (?, '[]')", ((f"{n:032x}",) for n in range(many)))
                db.execute("COMMIT")
                forgetting, calls = asyncio.ensure_future(asyncio.to_thread(forget)), 0
                while not forgetting.done():
                    await granted(store, reserve(store, f"c{calls}", Claim("g")))
                    calls += 1
                assert await forgetting
                assert calls > 5
                assert db.execute("SELECT count(*) FROM scope_lists").fetchone() == (2,)
            monkeypatch.setattr(sqlite_prune, "LISTS_S", 0.0)
            assert not await asyncio.to_thread(forget)
            assert isinstance(await store.apply(Settle("1", 4)), Settled)

    async def test_a_newer_schema_is_refused_and_left_alone(self, path: Path) -> None:
        async with opened(path):
            pass
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {tables.SCHEMA_VERSION + 1}")
        before = path.read_bytes()
        with pytest.raises(LedgerUnavailable, match="newer than this program"):
            await SqliteBudgets(path).start()
        assert path.read_bytes() == before

    @pytest.mark.parametrize("content", [b"version: 1\n" * 200, b"SQLite format 3\0" + b"\xff" * 4096])
    async def test_a_file_that_is_no_ledger_is_refused_and_left_alone(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        store, running = SqliteBudgets(path, busy_timeout_s=0.05), set(threading.enumerate())
        with pytest.raises(LedgerUnavailable):
            await store.start()
        assert path.read_bytes() == content
        assert "ledger" not in {thread.name for thread in set(threading.enumerate()) - running}

    async def test_a_place_that_cannot_hold_a_file_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for place in (tmp_path, tmp_path / "file" / "ledger.db"):
            with pytest.raises(LedgerUnavailable):
                await SqliteBudgets(place).start()

    async def test_verbs_before_the_start_are_refused(self, path: Path) -> None:
        store = SqliteBudgets(path)
        with pytest.raises(LedgerUnavailable, match="not open"):
            await store.apply(Settle("c", 1))

    async def test_several_stores_make_a_new_file_at_once(self, path: Path) -> None:
        stores = [SqliteBudgets(path) for _ in range(6)]
        await asyncio.gather(*(store.start() for store in stores))
        for number, store in enumerate(stores):
            await granted(store, reserve(store, str(number), Claim("s", 100)))
        assert (await balance(stores[0], "s")).held_nano == 60
        await asyncio.gather(*(store.close() for store in stores))


class TestUnavailable:
    async def test_a_locked_file_fails_the_batch_and_recovers(self, path: Path) -> None:
        async with opened(path, busy_timeout_s=0.05) as store:
            await granted(store, reserve(store, "1", Claim("s", 100)))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                verbs = [store.apply(reserve(store, "2", Claim("s", 100))), store.apply(Settle("1", 9))]
                outcomes = await asyncio.gather(*verbs, return_exceptions=True)
                assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable, LedgerUnavailable]
                other.execute("ROLLBACK")
            assert await store.apply(Settle("1", 9)) == Settled(9, 1, 91, "s")
            assert await store.apply(Settle("2", 9)) == Lost("2")

    async def test_a_short_lock_is_waited_for(self, path: Path) -> None:
        async with opened(path) as store:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                future = store.apply(reserve(store, "1", Claim("s", 100)))
                await asyncio.sleep(0.02)
                assert not future.done()
                other.execute("COMMIT")
            assert isinstance(await future, Granted)

    async def test_a_full_disk_fails_the_batch_and_recovers(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "1", Claim("s", 100)))
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("ledger.db-wal").stat().st_size, hard))
            try:
                with pytest.raises(LedgerUnavailable):
                    await store.apply(Settle("1", 9))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert await balance(store, "s") == Balance(0, 10, 1, 100, running=1)
            assert await store.apply(Settle("1", 9)) == Settled(9, 1, 91, "s")

    async def test_a_file_that_went_away_is_not_spent_from_in_silence(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "1", Claim("s", 100)))
            path.unlink()
            with pytest.raises(LedgerUnavailable, match="removed or replaced"):
                await store.beat()
            with pytest.raises(LedgerUnavailable, match="removed or replaced"):
                await store.apply(Settle("1", 5))
            assert not path.exists()
            with pytest.raises(LedgerUnavailable, match="removed or replaced"):
                await store.close()

    async def test_a_number_that_cannot_be_stored_fails_alone(self, path: Path) -> None:
        async with opened(path) as store:
            good = store.apply(reserve(store, "1", Claim("s", 100)))
            bad = store.apply(reserve(store, "2", Claim("s", 2**70)))
            with pytest.raises(ValueError, match="cannot store"):
                await bad
            assert await good == Granted(10, 90, "s", step=1)
            assert await balance(store, "s") == Balance(0, 10, 1, 100, running=1)


class TestBatches:
    async def test_a_tick_of_many_verbs(self, path: Path) -> None:
        async with opened(path) as store:
            names = [f"task:k:{number}" for number in range(333)]
            grants = await asyncio.gather(
                *(store.apply(reserve(store, name, Claim(name, 50), Claim("g"), need=7)) for name in names)
            )
            assert set(map(type, grants)) == {Granted}
            assert (await balance(store, "g")).held_nano == 7 * len(names)
            await asyncio.gather(*(store.apply(Settle(name, 3)) for name in names))
            assert await balance(store, "g") == Balance(3 * len(names), 0, len(names))
            assert await store.balances(names) == [Balance(3, 0, 1, 50)] * len(names)

    async def test_a_batch_that_grows_by_the_turn_is_waited_for_and_no_other(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []
        carried = StoredBook.apply

        def counted(book: StoredBook, ops: Sequence[Op]) -> list[Result]:
            sizes.append(len(ops))
            return carried(book, ops)

        monkeypatch.setattr(StoredBook, "apply", counted)
        async with opened(path) as store:

            async def come(turn: int, name: str) -> Result:
                for _ in range(turn):
                    await asyncio.sleep(0)
                return await store.apply(reserve(store, name, Claim("s", 10**9)))

            await come(0, "alone")
            assert sizes == [1]
            await asyncio.gather(*(come(turn, f"{turn}-{one}") for turn in range(TURNS) for one in range(3)))
            assert sizes == [1, 3 * TURNS]
            await asyncio.gather(*(come(turn, f"more {turn}") for turn in range(10 * TURNS)))
            assert sum(sizes) == 1 + 3 * TURNS + 10 * TURNS
            assert sizes[2] <= TURNS + 1  # those that go on coming keep nobody waiting for ever

    async def test_a_zero_byte_in_a_name_is_part_of_the_name(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "c", Claim("a\0b", 100), need=5))
            await granted(store, reserve(store, "d", Claim("a\0c", 100), need=6))
            held = [found and found.held_nano for found in await store.balances(["a", "a\0b", "a\0c"])]
            assert held == [None, 5, 6]

    @examples
    @given(batches=st.lists(st.lists(ops(), min_size=1, max_size=4), max_size=6))
    async def test_a_cache_that_is_always_full_changes_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[list[Op]]
    ) -> None:
        monkeypatch.setattr(sqlite_book, "CACHED_SCOPES", 0)
        prefix, book = fresh(), Book()
        async with opened(path) as store:
            for batch in batches:
                verbs = [placed(op, prefix, store.owner) for op in batch]
                assert await asyncio.gather(*map(store.apply, verbs)) == [book.apply(op) for op in verbs]
            await assert_same_balances(store, book, prefix)

    async def test_closing_takes_what_is_still_queued(self, path: Path) -> None:
        store = SqliteBudgets(path)
        await store.start()
        first = store.apply(reserve(store, "1", Claim("s", 100)))
        await asyncio.sleep(0)  # the first batch is on its way; the second waits for it
        second = store.apply(Settle("1", 4))
        await store.close()
        assert (first.done(), second.done()) == (True, True)
        assert await second == Settled(4, 6, 96, "s")


class TestUpkeep:
    async def test_a_beat_writes_the_log_back(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "1", Claim("s", 100)))
            await store.beat()
            with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as without_log:
                assert without_log.execute("SELECT name, held_nano FROM scopes").fetchall() == [("s", 10)]

    async def test_pruning_takes_idle_tasks_and_old_windows_only(self, path: Path) -> None:
        idle = ["task:k:1", "task:k:1|model:m", "task:k:x:total"]
        windows = ["key:a:day:2026-11-20", "global:day:2026-11-20", "key:a:month:2026-11"]
        short = [
            "key:a:minute:2026-11-20T10:30",
            "team:a:minute:2026-11-20T10:30",
            "key:a:hour:2026-11-20T10",
            "team:a:hour:2026-11-20T10",
        ]
        idle.append("task:k:x:minute:2026-11-20T10:30")
        of_user = [f"user:a:{'0' * 32}:{window}" for window in ("day:2026-11-20", "month:2026-11", "total")]
        short.append(f"user:a:{'0' * 32}:hour:2026-11-20T10")
        kept = ["key:a:total", "global:total", "key:day:2026-11-20:total", "task:k:held"]
        async with opened(path) as store:
            for name in [*idle, *windows, *short, *kept, *of_user]:
                await granted(store, reserve(store, name, Claim(name, 100)))
                if not name.endswith("held"):
                    await store.apply(Settle(name, 8))
            await granted(store, reserve(store, "cut", Claim("task:k:cut", 100)))
            await store.apply(Settle("cut", 8, ("task:k:cut",)))
            idle.append("task:k:cut")
            with closing(tables.connect(path)) as db:
                now = tables.now_ms()
                assert [cut.scope for cut in tables.list_cuts(db, 10)] == ["task:k:cut"]
                assert prune(db, now + 1_800_000) == 0
                assert prune(db, now + 3 * 3_600_000) == len(short)
                assert prune(db, now + 29 * DAY_MS) == 0
                assert prune(db, now + 29 * DAY_MS, 30 * 86_400) == 0
                assert prune(db, now + 31 * DAY_MS) == len(idle)
                assert prune(db, now + 39 * DAY_MS) == 0, "a user's month is not over"
                assert prune(db, now + 41 * DAY_MS) == 2
                assert tables.list_cuts(db, 10) == []
                assert prune(db, now + 399 * DAY_MS) == 0
                assert prune(db, now + 401 * DAY_MS) == len(windows) + 1
            assert {name for name, _ in await store.scopes("", 100)} == set(kept)
            again = await granted(store, reserve(store, "again", Claim(idle[0], 100), need=100))
            assert again.held_nano == 100  # the pruned task is new, in the store's memory too

    async def test_how_a_call_ended_is_remembered_for_a_day(self, path: Path) -> None:
        async with opened(path) as store:
            await granted(store, reserve(store, "c", Claim("s", 100)))
            await store.apply(Settle("c", 1))
            await store.apply(Settle("owed", 1, claims=(Claim("s", 100),)))
            await granted(store, reserve(store, "held", Claim("s", 100)))
            with closing(tables.connect(path)) as db:
                for days, kept in ((0.9, {"owed", "held"}), (1.1, {"held"})):
                    prune(db, tables.now_ms() + int(days * DAY_MS))
                    assert {name for (name,) in db.execute("SELECT call_id FROM holds")} == kept


class TestProcesses:
    async def test_processes_share_one_purse_exactly(self, path: Path) -> None:
        children = [await child(path, "hammer", "task:k:shared") for _ in range(3)]
        printed = [(await process.communicate())[0] for process in children]
        assert [process.returncode for process in children] == [0, 0, 0]
        async with opened(path) as store:
            shared = await balance(store, "task:k:shared")
            assert shared == Balance(sum(map(int, printed)), 0, 3 * ledger_child.CALLS, 10**12)
            own = await store.scopes("task:k:shared|", 10)
            assert sorted(found.spent_nano for _, found in own) == sorted(map(int, printed))

    @pytest.mark.parametrize("restart", [False, True], ids=["a survivor", "the next start"])
    async def test_a_killed_process_leaks_no_hold_and_forgets_no_spending(self, path: Path, restart: bool) -> None:
        scope = "task:k:t"
        recorded = sum(spent for spent, _ in ledger_child.HELD)
        charge = sum(spent + min(risk, 100) for spent, risk in ledger_child.HELD)
        async with opened(path) as survivor:
            process = await child(path, "hold", scope)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"held\n"
            assert await survivor.beat() == []
            assert await balance(survivor, scope) == Balance(recorded, 300, 3, 10**6, running=3)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            if restart:
                async with opened(path):
                    pass
            else:
                expired = await survivor.beat()  # long before the lease is over: its pid is gone
                assert sum(e.charged_nano for e in expired) == charge
            assert await balance(survivor, scope) == Balance(charge, 0, 3, 10**6)

    async def test_another_machines_owner_keeps_its_lease_whatever_its_pid(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(path) as survivor:
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(sqlite_book, "machine", lambda: "another boot or container")
                elsewhere.setattr(os, "getpid", lambda: 2**22 + 1)  # above Linux' largest pid
                stranger = SqliteBudgets(path, lease_s=3 * SHORT_LEASE_S)
                await stranger.start()
                await granted(stranger, reserve(stranger, "c", Claim("s", 100)))
            assert await survivor.beat() == []
            expired = await beat_until_expired(survivor, 1)
            assert [e.call_id for e in expired] == ["c"]
            await stranger.close()

    async def test_an_expired_owner_is_registered_before_its_next_hold(self, path: Path) -> None:
        async with opened(path, lease_s=SHORT_LEASE_S) as silent, opened(path) as survivor:
            await granted(silent, reserve(silent, "old", Claim("s", 100)))
            await beat_until_expired(survivor, 1)
            await granted(silent, reserve(silent, "new", Claim("s", 100)))
            with closing(sqlite3.connect(path)) as db:
                orphans = "SELECT owner FROM holds WHERE owner NOT IN (SELECT owner FROM owners)"
                assert db.execute(orphans).fetchall() == [(tables.EXPIRED,)], "which is none's"
            assert isinstance(await silent.apply(advance("new", 5)), Granted)

    @examples
    @given(naps=st.lists(st.tuples(st.integers(0, 60_000), st.permutations([0, 1, 2])), max_size=12))
    async def test_who_slept_takes_nobody_for_dead(
        self, tmp_path_factory: pytest.TempPathFactory, naps: list[tuple[int, list[int]]]
    ) -> None:
        """A laptop that is closed, a disk that hangs: leases run out, and whoever wakes first must not end the rest."""
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
        clock = Clock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "now_ms", lambda: clock.ms)
            async with opened(path) as one, opened(path) as two, opened(path) as three:
                stores = [one, two, three]
                for n, store in enumerate(stores):
                    await granted(store, reserve(store, f"{n}", Claim("s", 100), need=10, risk=4))
                for nap_ms, order in naps:
                    clock.ms += nap_ms
                    assert [await stores[n].beat() for n in order] == [[], [], []]
                # One that says no more is dead all the same, a lease after the others have woken at the latest.
                ended = []
                for _ in range(5):
                    clock.ms += LEASE_MS // 2
                    ended += [expired.call_id for store in (one, two) for expired in await store.beat()]
                assert ended == ["2"]
                assert await one.apply(Settle("0", 5)) == Settled(5, 5, 81, "s")

    async def test_a_hold_whose_scope_was_deleted_by_hand_still_ends(self, path: Path) -> None:
        async with opened(path, lease_s=SHORT_LEASE_S) as silent, opened(path) as survivor:
            await granted(silent, reserve(silent, "c", Claim("s", 100), risk=6))
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("DELETE FROM scopes")
            (expired,) = await beat_until_expired(survivor, 1)
            assert (expired.scopes, expired.charged_nano) == (("s",), 6)

    async def test_interleaved_processes_never_pass_the_cap(self, path: Path) -> None:
        async with opened(path) as one, opened(path) as two:
            rng = random.Random(2)
            results = await asyncio.gather(
                *(
                    store.apply(reserve(store, f"{n}", Claim("s", 1000), need=rng.randint(1, 30)))
                    for n, store in enumerate([one, two] * 100)
                )
            )
            held = sum(result.held_nano for result in results if isinstance(result, Granted))
            assert 970 < held <= 1000
            assert (await balance(one, "s")).held_nano == held
