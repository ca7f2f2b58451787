"""Commands on what another version, or other weights, left behind: they say so, and change nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.commands import quarantine, router
from app.commands.ending import Refused
from app.commands.replay import routers_of
from app.core.quarantined import Quarantined
from app.learner.watching import Watching
from app.learner.worker import checkpoint_of
from app.settings import Settings
from app.stores.opening import make_snapshots
from app.stores.snapshots import Snapshot, Snapshots
from routers.quarantine import Fallen, new_watch
from tests.learner.calls import BASE
from tests.learner.other_versions import BODIES, STATES, good_body, good_state
from tests.redis_server import shared_server

T = TypeVar("T")
LEARNERS_OWN = {"of other weights", "of another size", "of a newer belief", "without a part", "odd sources"}
"""These concern what was learned, which letting a model back does not look at."""
DOWN = Quarantined("small", "chat", 1_000.0, 0.9, 0.3, "model", 0.0)
_numbers = itertools.count()
Ask = Callable[[Callable[[Snapshots], Awaitable[Any]]], Any]


@pytest.fixture(params=["sqlite", "redis"])
def ask(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The commands' store, for a test's own questions."""
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path))
    if request.param == "redis":
        monkeypatch.setenv("BURSAR_REDIS_URL", shared_server().url)
        monkeypatch.setenv("BURSAR_REDIS_NAMESPACE", f"versions-{next(_numbers)}")

    def asked(work: Callable[[Snapshots], Awaitable[T]]) -> T:
        async def answered() -> T:
            store = make_snapshots(Settings())
            await store.start()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(answered())

    return asked


def put(ask: Ask, state: bytes | None, *bodies: bytes) -> None:
    """A state, and snapshots: the last is in force."""

    async def work(store: Snapshots) -> None:
        if state is not None:
            await store.save(state, head=await store.head())
        for body in bodies:
            await store.publish(Snapshot(0, 1_000.0, BASE.version), body, head=await store.head(), keep=9)

    ask(work)


def everything(ask: Ask) -> Any:
    async def work(store: Snapshots) -> Any:
        return await store.load(), await store.told(), await store.body((await store.head()).current)

    return ask(work)


def state_with_a_fall() -> bytes:
    fallen = replace(new_watch(), fallen=Fallen(since_s=1_000.0, level=0.9, drop=0.3))
    return good_state(watching=Watching({("small", "chat"): fallen}))


def test_releasing_works_on_what_can_be_read(ask: Ask) -> None:
    put(ask, state_with_a_fall(), good_body(down=(DOWN,)))
    assert quarantine.release("small", "chat") == 0
    (_, state), told, body = everything(ask)
    assert checkpoint_of(state)[1].down() == ()
    assert (len(told), body) == (2, good_body())


@pytest.mark.parametrize("how", sorted(STATES.keys() - LEARNERS_OWN))
def test_releasing_refuses_a_state_that_it_cannot_read(ask: Ask, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(ask, STATES[how](state_with_a_fall()), good_body(down=(DOWN,)))
    before = everything(ask)
    assert quarantine.release("small", "chat") == 1
    assert "learner's state" in capsys.readouterr().err
    assert everything(ask) == before


@pytest.mark.parametrize("how", ["truncated", "no msgpack", "without a part", "newer"])
def test_releasing_refuses_a_snapshot_that_it_cannot_read(
    ask: Ask, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(ask, state_with_a_fall(), BODIES[how](good_body(down=(DOWN,))))
    before = everything(ask)
    assert quarantine.release("small", "chat") == 1
    assert "version" in capsys.readouterr().err
    assert everything(ask) == before


@pytest.mark.parametrize("how", BODIES)
def test_rolling_back_passes_over_what_gateways_could_not_use(
    ask: Ask, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(ask, None, good_body(), BODIES[how](good_body()), good_body())
    assert router.rollback(2) == 1
    assert capsys.readouterr().err
    assert router.rollback(None) == 0
    said = capsys.readouterr()
    assert "snapshot 2 is passed over" in said.err
    assert said.out.startswith("snapshot 1 is in force")
    assert router.rollback(3) == 0
    assert router.show(2, None, as_json=False) == 1
    assert router.listed(9, as_json=False) == 0


@pytest.mark.parametrize("how", BODIES)
def test_a_snapshot_that_cannot_be_used_is_replayed_by_none(ask: Ask, how: str) -> None:
    put(ask, None, BODIES[how](good_body()))
    with pytest.raises(Refused, match="snapshot 1 cannot be used"):
        asyncio.run(routers_of(Settings(), "1", {"learned": BASE}))


def test_a_file_that_is_none_is_told_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path))
    (tmp_path / "snapshots.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    commands: tuple[Callable[[], int], ...] = (
        lambda: quarantine.release("small", "chat"),
        lambda: quarantine.quarantine(as_json=True),
        lambda: router.rollback(None),
        lambda: router.listed(3, as_json=True),
        lambda: router.show(None, None, as_json=True),
    )
    for command in commands:
        assert command() == 1
        assert "the store of snapshots" in capsys.readouterr().err
