"""Commands beside a gateway: who asks the same shares an answer, and the line is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app import aside
from app.aside import BURSAR, MAX_WAITING, Aside, run_aside
from app.core.errors import TracesDown
from app.figures import FIGURES
from app.settings import Settings
from tests.upstream import PATIENCE_S


class Commands:
    """Stands for the processes: each ends when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.ends = asyncio.Event()
        self.error: Exception | None = None
        monkeypatch.setattr(aside, "run_aside", self)

    async def __call__(self, _: Settings, command: tuple[str, ...], **how: Any) -> bytes:
        self.asked.append(command[-1])
        await self.ends.wait()
        if self.error is not None:
            raise self.error
        return command[-1].encode()


async def test_who_asks_the_same_shares_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    commands, asked = Commands(monkeypatch), Aside(Settings())
    commands.ends.set()
    assert await asyncio.gather(*(asked.ask("a") for _ in range(9)), asked.ask("b")) == [b"a"] * 9 + [b"b"]
    assert commands.asked == ["a", "b"]


async def test_the_line_is_bounded_and_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bound any key could have the gateway run one command after the other for hours."""
    commands, asked = Commands(monkeypatch), Aside(Settings())
    waiting = [asyncio.create_task(asked.ask(str(number))) for number in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TracesDown, match="waiting") as refused:
        await asked.ask("one more")
    assert refused.value.headers["retry-after"]
    waiting.pop().cancel()
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(asked.ask("one more")))
    commands.ends.set()
    assert (await asyncio.gather(*waiting))[-1] == b"one more"
    assert len(commands.asked) == MAX_WAITING


@pytest.mark.parametrize("error", [TimeoutError(), OSError("no process"), ChildProcessError("ended with 1")])
async def test_a_failure_is_told_and_not_kept(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    commands, asked = Commands(monkeypatch), Aside(Settings())
    commands.error = error
    commands.ends.set()
    with pytest.raises(TracesDown):
        await asked.ask("a")
    commands.error = None
    assert await asked.ask("a") == b"a"


async def test_a_folder_with_modules_of_those_names_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever serves or runs an agent does it in a project of their own, which may have an `app`, too."""
    for name in ("app", "msgspec"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    settings = Settings(data_dir=tmp_path / "data")
    assert b"sha256" in await run_aside(settings, (*BURSAR, "keys", "new", "ci"), limit_s=PATIENCE_S, keep=True)
    await run_aside(settings, FIGURES, limit_s=PATIENCE_S)  # asked nothing, it ends
