"""What makes two requests the same, in any dialect, and how many are remembered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.core.types import ChatRequest, Prompt
from app.gateway import repeats
from app.gateway.repeats import Repeats, digest


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


def test_counts_are_kept_by_task_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_COUNTED", 2)
    counts, request = Repeats(), asked(input="x")
    assert [counts.count("a", request), counts.count("a", request), counts.count("b", request)] == [1, 2, 1]
    assert counts.count("a", request) == 3
    counts.count("c", request)
    assert (counts.count("a", request), counts.count("b", request)) == (4, 1)
