"""Messages as a conversation and back: what is carried, what is dropped, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.conversation import Conversation, Media, Message, Text, Thinking, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.anthropic.table import (
    CARRIED_MEMBERS,
    DROPPED_BLOCKS,
    DROPPED_MEMBERS,
    REFUSED_BLOCKS,
    REFUSED_MEMBERS,
)
from tests.dialects.anthropic.texts import USER, body, parsed, rendered, talk

CACHE = {"cache_control": {"type": "ephemeral"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
LOOP: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "look", **CACHE}, {"type": "image", "source": PNG}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"cmd": "ls", "n": [1, 2]}},
            {"type": "tool_use", "id": "toolu_2", "name": "bash", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True, **CACHE},
            {
                "type": "tool_result",
                "tool_use_id": "toolu_2",
                "content": [{"type": "text", "text": "a.png"}, {"type": "image", "source": PNG}],
            },
            {"type": "document", "source": PDF, "title": "doc"},
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {"type": "text", "text": "and?"},
        ],
    },
]
WHOLE: dict[str, Any] = {
    "system": [{"type": "text", "text": "You are", **CACHE}],
    "tools": [{"name": "bash", "description": "runs", "input_schema": SCHEMA, **CACHE}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u-1"},
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": SCHEMA}},
}


def test_everything_that_is_carried_comes_back() -> None:
    found = talk(*LOOP, **WHOLE)
    assert found.dropped == []
    assert rendered(found) == json.loads(body(*LOOP, **WHOLE))


def test_sampling_comes_back_where_the_model_takes_it() -> None:
    asked = {"temperature": 0.3, "top_k": 5, "max_tokens": 1000, "model": "claude-sonnet-4-5"}
    told = rendered(talk(**asked), "claude-sonnet-4-5")
    assert (told["temperature"], told["top_k"]) == (0.3, 5)


def test_what_it_says_in_no_dialects_words() -> None:
    found = talk(*LOOP, **WHOLE)
    system, user, assistant, results = found.messages
    assert system == Message("system", [Text("You are", cache=True)])
    assert user.parts == [Text("look", cache=True), Media("image", "image/png", "iVBORw0=")]
    assert assistant.parts[:3] == [
        Thinking("hm", signature="EqQB", origin="anthropic"),
        Thinking(encrypted="xyz", origin="anthropic"),
        Text("I look"),
    ]
    assert assistant.parts[3] == ToolCall("toolu_1", "bash", '{"cmd": "ls", "n": [1, 2]}')
    assert results.parts[0] == ToolResult("toolu_1", [], is_error=True, name="bash", cache=True)
    assert results.parts[2] == Media("file", "application/pdf", "JVBERi0=", name="doc")
    assert (found.tool_choice, found.parallel_tools, found.effort, found.user) == ("auto", False, "max", "u-1")
    assert found.shape is not None
    assert (json.loads(bytes(found.shape.schema or b"")), found.shape.strict) == (SCHEMA, True)
    assert (found.show_thoughts, found.think_tokens, found.stop) == (True, None, ["END"])


texts = st.text(min_size=1, max_size=20).filter(str.strip)
blocks = st.lists(
    st.one_of(
        texts.map(lambda text: {"type": "text", "text": text}),
        st.sampled_from([{"type": "image", "source": PNG}, {"type": "document", "source": PDF}]),
    ),
    min_size=1,
    max_size=4,
)
calls = st.dictionaries(st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True), st.dictionaries(texts, texts), max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(blocks)}]
    for _ in range(draw(st.integers(0, 3))):
        asked = draw(calls)
        uses: list[dict[str, Any]] = [
            {"type": "tool_use", "id": key, "name": "f", "input": value} for key, value in asked.items()
        ]
        said: list[dict[str, Any]] = [{"type": "text", "text": draw(texts)}]
        results: list[dict[str, Any]] = [
            {"type": "tool_result", "tool_use_id": key, "content": draw(blocks)} for key in asked
        ]
        turns.append({"role": "assistant", "content": said + uses})
        turns.append({"role": "user", "content": results + draw(blocks)})
    return turns


@given(conversations())
def test_any_conversation_comes_back(turns: list[dict[str, Any]]) -> None:
    found = talk(*turns)
    told = rendered(found)
    assert told["messages"] == turns
    assert DIALECT.conversation(DIALECT.parse(json.dumps(told).encode(), {}, {})) == found


def test_text_as_a_string_is_one_part() -> None:
    found = talk(USER, {"role": "assistant", "content": "Yes"}, system="Be brief")
    assert [message.parts for message in found.messages] == [[Text("Be brief")], [Text("Hi")], [Text("Yes")]]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "any"}, ("required", None, None)),
        ({"type": "tool", "name": "bash"}, (None, "bash", None)),
        ({"type": "none"}, ("none", None, None)),
        ({"type": "any", "disable_parallel_tool_use": False}, ("required", None, True)),
    ],
)
def test_tool_choices(choice: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = talk(tools=WHOLE["tools"], tool_choice=choice)
    assert (found.tool_choice, found.tool_named, found.parallel_tools) == expected
    assert rendered(found, "claude-opus-5")["tool_choice"] == choice


@pytest.mark.parametrize(
    ("thinking", "effort", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 5000}, None, (5000, None, True)),
        ({"type": "enabled", "budget_tokens": 5000, "display": "omitted"}, None, (5000, None, False)),
        ({"type": "adaptive"}, "low", (None, "low", True)),
        ({"type": "disabled"}, None, (None, "none", False)),
        ({"type": "disabled"}, "high", (None, "none", False)),
        ({"type": "between_tools"}, None, (None, "none", False)),
    ],
)
def test_thinking(thinking: dict[str, Any], effort: str | None, expected: tuple[Any, ...]) -> None:
    found = talk(thinking=thinking, output_config={"effort": effort})
    assert (found.think_tokens, found.effort, found.show_thoughts) == expected


def test_documents_of_text_are_text() -> None:
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}, "title": "T"}
    nested = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "y"}]}}
    pdf = {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}, "context": "C"}
    hit = {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "z"}]}
    found = talk({"role": "user", "content": [plain, nested, pdf, hit]})
    assert found.messages[0].parts == [
        Text("T\nx"),
        Text("y"),
        Text("C"),
        Media("file", "application/pdf", url="https://x/a.pdf"),
        Text("T\ns\nz"),
    ]


def test_claude_codes_own_affairs_stay_at_home() -> None:
    found = talk(
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1a2b;"},
            {"type": "text", "text": "You are"},
        ],
        metadata={"user_id": json.dumps({"session_id": "s", "account_uuid": "a"})},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high", "task_budget": {"total": 5}},
        service_tier="auto",
        unheard_of=1,
        empty=[],
    )
    assert found.messages[0].parts == [Text("You are")]
    assert found.user is None
    assert sorted(found.dropped) == [
        "billing header",
        "context_management",
        "metadata.user_id",
        "output_config.task_budget",
        "service_tier",
        "unheard_of",
    ]


def test_system_messages_within_keep_their_place() -> None:
    found = talk(USER, {"role": "system", "content": "now"}, {"role": "assistant", "content": "ok"}, USER)
    assert [message.role for message in found.messages] == ["user", "system", "assistant", "user"]


def test_proofs_of_others_come_out_as_theirs() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "bursar-proof:gemini:a:b"},
        {"type": "redacted_thinking", "data": "bursar-proof:openai_responses:c"},
        {"type": "redacted_thinking", "data": "bursar-proof:gemini-call:d"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "thinking", "thinking": "unsigned", "signature": ""},
        {"type": "thinking", "thinking": "", "signature": ""},
    ]
    assert talk(USER, {"role": "assistant", "content": content}).messages[1].parts == [
        Thinking("hm", signature="a:b", origin="gemini"),
        Thinking(encrypted="c", origin="openai_responses"),
        ToolCall("t", "f", "{}", signature="d"),
        Thinking("unsigned"),
    ]


@pytest.mark.parametrize("name", sorted(REFUSED_MEMBERS))
def test_refused_members(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        talk(**{name: "x"})
    assert caught.value.param == name
    assert talk(**{name: None}).dropped == []


@pytest.mark.parametrize("name", sorted(DROPPED_MEMBERS))
def test_dropped_members(name: str) -> None:
    said = "default" if name == "fallbacks" else {"x": 1}
    assert talk(**{name: said}).dropped == [name]


def test_no_member_is_in_two_tables() -> None:
    assert len({*CARRIED_MEMBERS, *REFUSED_MEMBERS, *DROPPED_MEMBERS}) == sum(
        map(len, (CARRIED_MEMBERS, REFUSED_MEMBERS, DROPPED_MEMBERS))
    )


@pytest.mark.parametrize("kind", sorted(DROPPED_BLOCKS))
def test_dropped_blocks(kind: str) -> None:
    said = {"type": "text", "text": "found it"}
    found = talk(USER, {"role": "assistant", "content": [{"type": kind, "content": [{"any": 1}], "id": "x"}, said]})
    assert found.messages[1].parts == [Text("found it")]
    assert found.dropped == [kind]


@pytest.mark.parametrize("kind", [*sorted(REFUSED_BLOCKS), "hologram"])
def test_refused_blocks(kind: str) -> None:
    with pytest.raises(BadRequest) as caught:
        talk(USER, {"role": "assistant", "content": [{"type": kind}]})
    assert caught.value.param == "messages[1].content[0].type"


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
        ({"type": "image", "source": {"type": "base64"}}, "messages[0].content[0].source.data"),
        ({"type": "image"}, "messages[0].content[0].source"),
        ({"type": "tool_use", "id": "x"}, "messages[0].content[0].name"),
        ({"type": "tool_result"}, "messages[0].content[0].tool_use_id"),
        ({"type": "search_result", "source": 5, "title": "t", "content": []}, "messages[0].content[0].source"),
    ],
)
def test_blocks_that_lack_something(block: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        talk({"role": "user", "content": [block]})
    assert caught.value.param == param


@pytest.mark.parametrize("kind", ["web_search_20250305", "code_execution_20250825", "bash_20250124", "mcp_toolset"])
def test_tools_of_the_provider_are_refused(kind: str) -> None:
    with pytest.raises(BadRequest) as caught:
        talk(tools=[WHOLE["tools"][0], {"type": kind, "name": "x"}])
    assert caught.value.param == "tools[1].type"


def test_searching_for_tools_is_dropped() -> None:
    found = talk(tools=[{"type": "tool_search_tool_regex_20251119", "name": "s"}, {"type": "custom", "name": "t"}])
    assert [tool.name for tool in found.tools] == ["t"]
    assert found.dropped == ["tool_search_tool_regex_20251119"]


def test_filling_the_cache_is_only_for_its_own_provider() -> None:
    with pytest.raises(BadRequest) as caught:
        DIALECT.conversation(parsed(max_tokens=0))
    assert caught.value.param == "max_tokens"


def test_an_empty_turn_is_none() -> None:
    found: Conversation = talk(USER, {"role": "assistant", "content": []}, system=[])
    assert [message.role for message in found.messages] == ["user"]
