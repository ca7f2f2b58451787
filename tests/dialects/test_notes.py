"""A note at the end of a request: read by every upstream, and what stands before it keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.conversation import Text, ToolResult
from app.dialects.notes import noted
from app.dialects.registry import CHAT, GEMINI, MESSAGES, NAMES, RESPONSES, dialect_named
from tests.dialects.pair_requests import SCENARIOS
from tests.dialects.pairs import MODELS, PAIRS, parsed

NOTE = 'Note: "80 %" is used.'
TALKS = {CHAT: "messages", MESSAGES: "messages", RESPONSES: "input", GEMINI: "contents"}
CALLS = {
    CHAT: {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}]},
    MESSAGES: {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "ls", "input": {}}]},
    RESPONSES: {"type": "function_call", "call_id": "c1", "name": "ls", "arguments": "{}"},
    GEMINI: {"role": "model", "parts": [{"functionCall": {"name": "ls", "args": {}}}]},
}  # fmt: skip
RESULTS = {
    CHAT: {"role": "tool", "tool_call_id": "c1", "content": "a b"},
    MESSAGES: {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": "a b", "cache_control": {"type": "ephemeral"}}]},
    RESPONSES: {"type": "function_call_output", "call_id": "c1", "output": "a b"},
    GEMINI: {"role": "user", "parts": [{"functionResponse": {"name": "ls", "response": {"output": "a b"}}}]},
}  # fmt: skip
ASKED = {
    CHAT: {"role": "user", "content": "Go"},
    MESSAGES: {"role": "user", "content": "Go"},
    RESPONSES: {"role": "user", "content": "Go"},
    GEMINI: {"role": "user", "parts": [{"text": "Go"}]},
}


def body(name: str, *turns: Any) -> dict[str, Any]:
    model = {} if name == GEMINI else {"model": "m"}
    limit = {"max_tokens": 100} if name == MESSAGES else {}
    return {**model, **limit, TALKS[name]: list(turns)}


def last_texts(name: str, request: Any) -> list[str]:
    """The texts of the last turn, tool results' among them."""
    turn = dialect_named(name).conversation(request).messages[-1]
    assert turn.role == "user"
    found: list[str] = []
    for part in turn.parts:
        inner = part.parts if isinstance(part, ToolResult) else [part]
        found += [each.text for each in inner if isinstance(each, Text)]
    return found


@pytest.mark.parametrize(("scenario", "name"), [(s, n) for s, spoken in SCENARIOS.items() for n in spoken])
def test_every_request_may_be_noted_and_loses_nothing(name: str, scenario: str) -> None:
    request = parsed(name, SCENARIOS[scenario][name])
    after = noted(request, NOTE)
    talk = TALKS[name]
    assert {k: v for k, v in after.members.items() if k != talk} == {
        k: v for k, v in request.members.items() if k != talk
    }
    if after is not request:
        assert last_texts(name, after)[-1].endswith(NOTE)
        before, now = (json.loads(bytes(r.members[talk])) for r in (request, after))
        assert now[:-1] == (before if name == RESPONSES else before[:-1])
    assert after.prompt is request.prompt


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@pytest.mark.parametrize("loop", [False, True], ids=["asked", "in-a-tool-loop"])
def test_it_reaches_every_upstream_at_the_end(client: str, upstream: str, loop: bool) -> None:
    turns = (ASKED[client], CALLS[client], RESULTS[client]) if loop else (ASKED[client],)
    request = noted(parsed(client, body(client, *turns)), NOTE)
    spoken, model = dialect_named(upstream), MODELS[upstream]
    if client == upstream:
        sent = spoken.patch(request, model=model, limit_tokens=None, stream=True)
    else:
        talk = dialect_named(client).conversation(request)
        sent = spoken.render(request, talk, model=model, limit_tokens=None, stream=True)
    said = json.loads(sent.body)
    assert json.dumps(NOTE)[1:-1] in json.dumps(said[TALKS[upstream]][-1])
    assert "Note:" not in json.dumps({k: v for k, v in said.items() if k != TALKS[upstream]})


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_before_it_keeps_its_bytes(name: str) -> None:
    turns = (ASKED[name], CALLS[name], RESULTS[name])
    raw = json.dumps(body(name, *turns), indent=1).encode()
    before, after = (bytes(r.members[TALKS[name]]) for r in (parsed(name, raw), noted(parsed(name, raw), NOTE)))
    same = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    assert same > before.rindex(b"{", 0, before.rindex(b'"type"' if name == RESPONSES else b'"role"'))


def test_anthropics_mark_for_its_cache_stays_on_the_block_before() -> None:
    request = noted(parsed(MESSAGES, body(MESSAGES, ASKED[MESSAGES], CALLS[MESSAGES], RESULTS[MESSAGES])), NOTE)
    blocks = json.loads(bytes(request.members["messages"]))[-1]["content"]
    assert [block["type"] for block in blocks] == ["tool_result", "text"]
    assert "cache_control" in blocks[0]
    assert "cache_control" not in blocks[1]


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        (CHAT, {"role": "assistant", "content": "So"}),
        (MESSAGES, {"role": "assistant", "content": "So"}),
        (GEMINI, {"role": "model", "parts": [{"text": "So"}]}),
    ],
)
def test_an_answer_that_is_begun_is_left_alone(name: str, turn: Any) -> None:
    request = parsed(name, body(name, ASKED[name], turn))
    assert noted(request, NOTE) is request


def test_a_bare_text_for_input_takes_it_too() -> None:
    request = noted(parsed(RESPONSES, {"model": "m", "input": "Go"}), NOTE)
    assert json.loads(bytes(request.members["input"])) == f"Go\n\n{NOTE}"


@given(
    name=st.sampled_from([CHAT, MESSAGES]),
    texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4),
    indent=st.sampled_from([None, 0, 3]),
)
def test_any_text_is_kept(name: str, texts: list[str], indent: int | None) -> None:
    turns = [{"role": "user", "content": text} for text in texts]
    raw = json.dumps(body(name, *turns), indent=indent).encode()
    found = json.loads(bytes(noted(parsed(name, raw), NOTE).members["messages"]))
    assert found[:-1] == turns[:-1]
    said = found[-1]["content"]
    assert (said if isinstance(said, str) else "\n\n".join(b["text"] for b in said)) == f"{texts[-1]}\n\n{NOTE}"
