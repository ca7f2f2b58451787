"""The live policy: real files, a real watcher, events instead of sleeps."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import watchfiles
from watchfiles.main import FileChange

from app.core.policy import Policy
from app.stores import policies as module
from app.stores.policies import Policies
from app.stores.policy_file import build_policy
from app.stores.policy_kept import KeptText
from app.stores.policy_yaml import PolicyError, Problem, Source
from app.stores.prices import Catalogue, PriceBook
from tests.stores.policy_texts import CATALOGUE, CONTRACT

DEADLINE_S = 10
CHEAPER = CONTRACT.replace("max_cost_usd: 1.00", "max_cost_usd: 0.50")
DEARER = CONTRACT.replace("max_cost_usd: 1.00", "max_cost_usd: 7")
BAD = CONTRACT.replace("tier: 4", "tier: 44")


class Hooks:
    """Remembers what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.swaps: asyncio.Queue[tuple[Policy, Policy, list[str]]] = asyncio.Queue()
        self.errors: asyncio.Queue[tuple[Problem, ...]] = asyncio.Queue()

    def on_swap(self, old: Policy, new: Policy, changes: list[str]) -> None:
        self.swaps.put_nowait((old, new, changes))

    def on_error(self, problems: tuple[Problem, ...]) -> None:
        self.errors.put_nowait(problems)

    async def swap(self) -> tuple[Policy, Policy, list[str]]:
        return await asyncio.wait_for(self.swaps.get(), DEADLINE_S)

    async def error(self) -> tuple[Problem, ...]:
        return await asyncio.wait_for(self.errors.get(), DEADLINE_S)


def make(
    path: Path, hooks: Hooks, accept: Callable[[Policy], str | None] | None = None, kept: KeptText | None = None
) -> Policies:
    book = PriceBook(catalogue=CATALOGUE)
    return Policies(path, book, env={}, kept=kept, accept=accept, on_swap=hooks.on_swap, on_error=hooks.on_error)


@asynccontextmanager
async def watched(path: Path, kept: KeptText | None = None) -> AsyncIterator[tuple[Policies, Hooks]]:
    """A policy that is being watched; leaving waits for the watcher to stop by its event."""
    hooks, stop = Hooks(), asyncio.Event()
    policies = make(path, hooks, kept=kept)
    watching = asyncio.ensure_future(policies.watch(stop))
    # One tick for the watcher to start; what it misses before, it sees by looking.
    await asyncio.sleep(0)
    try:
        yield policies, hooks
    finally:
        stop.set()
        await asyncio.wait_for(watching, DEADLINE_S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(CONTRACT)
    return path


def replace_file(path: Path, text: str) -> None:
    """As careful editors do: write beside, rename over."""
    beside = path.with_name(f".{path.name}.swp1")
    beside.write_text(text)
    os.replace(beside, path)


# Writing


async def test_what_must_not_replace_the_policy_is_not_written(file: Path) -> None:
    """It was written all the same, though the writer was told that it was not: the next start would have taken it."""
    asked: list[int | None] = []

    async def check(old: Policy, new: Policy) -> str | None:
        asked.append(new.caps.task_nano)
        return "it would cost more" if (new.caps.task_nano or 0) > (old.caps.task_nano or 0) else None

    hooks = Hooks()
    policies = Policies(file, PriceBook(catalogue=CATALOGUE), env={}, check=check, on_swap=hooks.on_swap)
    before = policies.current
    with pytest.raises(PolicyError, match="it would cost more"):
        await policies.write(str(file), DEARER.encode(), before.version)
    assert (file.read_text(), policies.current, policies.last_error) == (CONTRACT, before, ())
    written = await policies.write(str(file), CHEAPER.encode(), before.version)
    assert file.read_text() == CHEAPER
    assert policies.current is written is not before
    assert asked == [7 * 10**9, 5 * 10**8], "each is asked of once"


# Reloading


async def test_a_good_edit_is_swapped_whole_and_told(file: Path) -> None:
    hooks = Hooks()
    policies = make(file, hooks)
    before = policies.current
    file.write_text(CHEAPER)
    assert await policies.reload() is True
    old, new, changes = hooks.swaps.get_nowait()
    assert old is before
    assert new is policies.current is not before
    assert changes == ["caps.task $1 -> $0.5"]
    assert (before.caps.task_nano, new.caps.task_nano) == (10**9, 5 * 10**8)
    assert policies.last_error == ()


async def test_a_bad_edit_changes_nothing_and_is_logged_with_its_line(file: Path) -> None:
    hooks = Hooks()
    policies = make(file, hooks)
    before = policies.current
    file.write_text(BAD)
    with structlog.testing.capture_logs() as logs:
        assert await policies.reload() is False
    assert policies.current is before
    (problem,) = hooks.errors.get_nowait()
    assert (problem.file, problem.line, problem.where) == (str(file), 8, "models.large.tier")
    assert policies.last_error == (problem,)
    assert hooks.swaps.empty()
    rejected = next(entry for entry in logs if entry["event"] == "the policy on disk has an error")
    assert (rejected["file"], rejected["line"], rejected["log_level"]) == (str(file), 8, "error")


async def test_a_worker_that_begins_beside_a_bad_edit_serves_what_the_others_do(file: Path, tmp_path: Path) -> None:
    kept = KeptText(tmp_path)
    first = make(file, Hooks(), kept=kept)
    file.write_text(CHEAPER)
    assert await first.reload() is True
    file.write_text(BAD)
    assert await first.reload() is False
    async with watched(file, kept) as (second, hooks):
        assert second.current.version == first.current.version
        assert second.sources == first.sources
        (problem,) = await hooks.error()
        assert problem.where == "models.large.tier"
        assert second.current.version == first.current.version
        file.write_text(DEARER)
        assert (await hooks.swap())[1].caps.task_nano == 7 * 10**9
    third = make(file, Hooks(), kept=kept)
    assert third.current.version == second.current.version
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy-in-force.json", file.name]


async def test_a_worker_takes_an_edit_that_came_while_it_began(file: Path, tmp_path: Path) -> None:
    kept = KeptText(tmp_path)
    make(file, Hooks(), kept=kept)
    file.write_text(CHEAPER)
    async with watched(file, kept) as (second, hooks):
        assert (await hooks.swap())[1] is second.current
        assert second.current.caps.task_nano == 5 * 10**8


@pytest.mark.parametrize("what", [None, b"", b"[]", b'[["x"]]', b"{"])
def test_without_a_text_of_others_the_files_count(file: Path, tmp_path: Path, what: bytes | None) -> None:
    if what is not None:
        (tmp_path / "policy-in-force.json").write_bytes(what)
    assert make(file, Hooks(), kept=KeptText(tmp_path)).current.caps.task_nano == 10**9
    nowhere = KeptText(tmp_path / "nowhere")
    assert make(file, Hooks(), kept=nowhere).current.caps.task_nano == 10**9
    assert nowhere.read() is None


async def test_mending_a_bad_edit_clears_the_error_even_without_a_change(file: Path) -> None:
    hooks = Hooks()
    policies = make(file, hooks)
    file.write_text(BAD)
    await policies.reload()
    file.write_text(CONTRACT)
    assert await policies.reload() is True
    assert policies.last_error == ()
    assert hooks.swaps.get_nowait()[2] == []


async def test_a_reload_without_a_change_tells_nobody(file: Path) -> None:
    hooks = Hooks()
    policies = make(file, hooks)
    assert await policies.reload() is True
    assert hooks.swaps.empty()
    assert hooks.errors.empty()


def test_a_first_policy_that_is_bad_is_an_error(tmp_path: Path, file: Path) -> None:
    file.write_text(BAD)
    with pytest.raises(PolicyError, match="tier: must be less than"):
        make(file, Hooks())
    with pytest.raises(PolicyError, match="cannot be read"):
        make(tmp_path / "none.yaml", Hooks())


async def test_the_gateway_may_refuse_a_good_policy(file: Path) -> None:
    def needs_a_cap(policy: Policy) -> str | None:
        return None if policy.caps.task_nano else "a task cap is needed here"

    hooks = Hooks()
    policies = make(file, hooks, needs_a_cap)
    before = policies.current
    file.write_text(CONTRACT.replace("caps:\n  task: {max_cost_usd: 1.00}\n", ""))
    assert await policies.reload() is False
    assert policies.current is before
    assert [problem.message for problem in hooks.errors.get_nowait()] == ["a task cap is needed here"]
    with pytest.raises(PolicyError, match="a task cap is needed here"):
        make(file, Hooks(), needs_a_cap)


async def test_the_log_and_the_changes_hold_no_secrets(file: Path) -> None:
    secret = CONTRACT.replace("${A_KEY:-none}", "sk-secret")
    hooks = Hooks()
    policies = make(file, hooks)
    with structlog.testing.capture_logs() as logs:
        file.write_text(secret)
        await policies.reload()
        file.write_text(secret.replace("api_key:", "api_kye:"))
        await policies.reload()
        file.write_text(secret.replace('"sk-secret"', '"sk-secret'))
        await policies.reload()
    assert len(logs) >= 4
    assert "sk-secret" not in repr(logs) + repr(policies.last_error) + repr(policies.current)


async def test_new_prices_recompile_the_text_in_force_not_the_files(file: Path) -> None:
    priced = CONTRACT + "x-more: {}\n"
    file.write_text(priced.replace("pricing: {input_per_1k: 0.0002, output_per_1k: 0.0006}", "tools: true"))
    hooks = Hooks()
    policies = make(file, hooks)
    assert policies.current.models["small-b"].price is None
    file.write_text(BAD)
    assert await policies.reload() is False
    row = {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    policies.book._current = Catalogue(json.dumps({"small-v1": row}).encode())
    assert await policies.recompile() is True
    _, new, changes = hooks.swaps.get_nowait()
    assert new.models["small-b"].price is not None
    assert new.prices_version == policies.book.version
    assert f"price catalogue: {CATALOGUE.version} -> {new.prices_version}" in changes
    assert policies.last_error != ()  # the file is as bad as before


async def test_concurrent_reloads_end_with_what_the_file_holds(file: Path) -> None:
    policies = make(file, Hooks())
    file.write_text(CHEAPER)
    assert all(await asyncio.gather(*(policies.reload() for _ in range(8))))
    assert policies.current.caps.task_nano == 5 * 10**8


# Watching


async def test_an_edit_in_place_is_seen(file: Path) -> None:
    async with watched(file) as (policies, hooks):
        file.write_text(CHEAPER)
        _, new, changes = await hooks.swap()
        assert policies.current is new
        assert changes == ["caps.task $1 -> $0.5"]


async def test_a_rename_over_the_file_is_seen_again_and_again(file: Path) -> None:
    async with watched(file) as (policies, hooks):
        for text, nano in ((CHEAPER, 5 * 10**8), (DEARER, 7 * 10**9), (CONTRACT, 10**9)):
            replace_file(file, text)
            await hooks.swap()
            assert policies.current.caps.task_nano == nano


async def test_a_bad_edit_is_told_once_and_the_next_good_one_swaps(file: Path) -> None:
    async with watched(file) as (policies, hooks):
        before = policies.current
        replace_file(file, BAD)
        (problem,) = await hooks.error()
        assert problem.line == 8
        assert policies.current is before
        replace_file(file, CHEAPER)
        assert (await hooks.swap())[1] is policies.current
        assert hooks.errors.empty()
        assert policies.last_error == ()


async def test_a_removed_file_keeps_the_policy_until_it_is_back(file: Path) -> None:
    async with watched(file) as (policies, hooks):
        before = policies.current
        file.unlink()
        (problem,) = await hooks.error()
        assert "cannot be read" in problem.message
        assert policies.current is before
        file.write_text(DEARER)
        assert (await hooks.swap())[1].caps.task_nano == 7 * 10**9


async def test_files_of_a_directory_are_watched_and_may_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONTRACT)
    async with watched(tmp_path) as (policies, hooks):
        (tmp_path / "b.yaml").write_text("models: {more: {provider: a, pricing: free}}\n")
        assert (await hooks.swap())[2] == ["model more: added"]
        (tmp_path / "notes.txt").write_text("not ours")
        (tmp_path / "b.yaml").unlink()
        assert (await hooks.swap())[2] == ["model more: removed"]
        assert set(policies.current.models) == {"small", "small-b", "large"}


@pytest.mark.parametrize("as_directory", [False, True])
async def test_a_kubernetes_mount_that_swaps_its_link_is_seen(tmp_path: Path, as_directory: bool) -> None:
    def publish(text: str, revision: str) -> None:
        folder = tmp_path / f"..{revision}"
        folder.mkdir()
        (folder / "policy.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    publish(CONTRACT, "2026_01")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    async with watched(tmp_path if as_directory else tmp_path / "policy.yaml") as (policies, hooks):
        for revision, text, nano in (("2026_02", CHEAPER, 5 * 10**8), ("2026_03", DEARER, 7 * 10**9)):
            publish(text, revision)
            await hooks.swap()
            assert policies.current.caps.task_nano == nano


async def test_a_link_to_a_file_elsewhere_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "checkout"
    elsewhere.mkdir()
    (elsewhere / "bursar.yaml").write_text(CONTRACT)
    link = tmp_path / "etc" / "policy.yaml"
    link.parent.mkdir()
    link.symlink_to(elsewhere / "bursar.yaml")
    async with watched(link) as (policies, hooks):
        replace_file(elsewhere / "bursar.yaml", CHEAPER)
        await hooks.swap()
        assert policies.current.caps.task_nano == 5 * 10**8


async def test_a_replaced_directory_is_seen_though_nothing_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.1)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(CONTRACT)
    async with watched(folder) as (policies, hooks):
        folder.rename(tmp_path / "old")
        await hooks.error()
        folder.mkdir()
        (folder / "a.yaml").write_text(CHEAPER)
        await hooks.swap()
        assert policies.current.caps.task_nano == 5 * 10**8


async def test_a_defect_in_reading_an_edit_does_not_end_the_watching(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fails_on_the_bad_one(sources: Sequence[Source], **how: Any) -> Policy:
        if sources[0].data == BAD.encode():
            raise TypeError("unhashable type: 'the-secret'")
        return build_policy(sources, **how)

    monkeypatch.setattr(module, "build_policy", fails_on_the_bad_one)
    async with watched(file) as (policies, hooks):
        version = policies.current.version
        with structlog.testing.capture_logs() as logs:
            replace_file(file, BAD)
            (problem,) = await hooks.error()
        assert "a defect of the gateway's" in problem.message
        assert [
            entry["kind"] for entry in logs if entry["event"] == "the policy could not be read because of a defect"
        ] == ["TypeError"]
        assert "the-secret" not in str(logs)
        assert policies.current.version == version
        replace_file(file, DEARER)
        assert (await hooks.swap())[1].version != version


async def test_what_is_edited_just_before_watching_begins_is_seen_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def awatch(*paths: Path, **options: Any) -> AsyncGenerator[set[FileChange]]:
        replace_file(file, CHEAPER)
        return watchfiles.awatch(*paths, **options)

    monkeypatch.setattr(module, "awatch", awatch)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 3_600.0)
    async with watched(file) as (policies, hooks):
        await hooks.swap()
        assert policies.current.caps.task_nano == 5 * 10**8
        replace_file(file, DEARER)
        await hooks.swap()
        assert hooks.swaps.empty()


async def test_where_watching_fails_looking_goes_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no inotify left")

    monkeypatch.setattr(module, "awatch", broken)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    async with watched(file) as (policies, hooks):
        replace_file(file, CHEAPER)
        await hooks.swap()
        assert policies.current.caps.task_nano == 5 * 10**8
    monkeypatch.setattr(module, "LOOK_EVERY_S", 3_600.0)
    looking = asyncio.create_task(policies.watch(asyncio.Event()))
    replace_file(file, DEARER)
    await hooks.swap()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_cancelling_a_watch_leaves_the_stop_event_of_the_process_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.1)
    stop = asyncio.Event()
    hooks = Hooks()
    policies = make(file, hooks)
    watching = asyncio.ensure_future(policies.watch(stop))
    file.write_text(CHEAPER)
    await hooks.swap()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert not stop.is_set()
