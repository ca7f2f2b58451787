"""What makes two requests the same, in any dialect, and who counts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.core.types import ChatRequest, Prompt
from app.gateway import repeats
from app.gateway.repeats import Repeats, digest
from app.stores.task_memory import MemoryUnavailable
from app.stores.task_memory_sqlite import SqliteTaskMemory


def asked(model: str = "m", /, **members: Any) -> ChatRequest:
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}
    return ChatRequest(raw, model, False, False, 1, None, (), Prompt())


def turn(number: int, text: str = "same") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": [{"id": number, "text": text}]}


@pytest.mark.parametrize("member", ["messages", "input", "contents"])
def test_the_last_turns_without_their_ids_make_it_the_same(member: str) -> None:
    short, long = [turn(n) for n in range(3)], [turn(n, str(n)) for n in range(9)] + [turn(n) for n in range(5, 8)]
    assert digest(asked(**{member: short})) == digest(asked(**{member: long}))
    assert digest(asked(**{member: short})) != digest(asked(**{member: [*short[:2], turn(2, "other")]}))
    assert digest(asked(**{member: short})) != digest(asked("other", **{member: short}))


def test_an_input_that_is_a_text_and_the_order_of_members() -> None:
    assert digest(asked(input="Go on.")) == digest(asked(input="Go on.", max_output_tokens=9))
    assert digest(asked(input="Go on.")) != digest(asked(input="Go back."))
    one, other = {"role": "user", "content": "x"}, {"content": "x", "role": "user"}
    assert digest(asked(messages=[one])) == digest(asked(messages=[other]))


class Away:
    """A memory that does not answer."""

    async def count(self, name: bytes, keep_s: float) -> int:
        raise MemoryUnavailable("gone")

    async def word(self, *names: bytes) -> str | None:
        raise MemoryUnavailable("gone")

    async def note(self, name: bytes, word: str, keep_s: float) -> None:
        raise MemoryUnavailable("gone")

    async def close(self) -> None:
        """Nothing waits."""


async def test_without_the_common_memory_a_process_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_COUNTED", 2)
    counts, request = Repeats(Away()), asked(input="x")
    assert [await counts.count(task, request, 60) for task in ("a", "a", "b", "a", "c", "a", "b")] == [
        1, 2, 1, 3, 1, 4, 1,
    ]  # fmt: skip


async def test_what_others_counted_is_counted(tmp_path: Path) -> None:
    one, two = (SqliteTaskMemory(tmp_path / "tasks.sqlite") for _ in range(2))
    here, there, request = Repeats(one), Repeats(two), asked(input="x")
    assert [await here.count("a", request, 60), await there.count("a", request, 60)] == [1, 2]
    assert [await here.count("b", request, 60), await here.count("a", asked(input="y"), 60)] == [1, 1]
    assert await here.count("a", request, 60) == 3
    await one.close()
    await two.close()
