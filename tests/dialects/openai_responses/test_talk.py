"""Responses to canonical and back: everything that is carried survives, all else is refused or dropped by the table."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.conversation import (
    Conversation,
    Media,
    Message,
    Part,
    Refusal,
    Shape,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from app.core.errors import BadRequest
from app.dialects.openai_responses.carried import (
    DROPPED_ITEMS,
    DROPPED_TOOLS,
    REFUSED_MEMBERS,
    REFUSED_TOOLS,
    RENDER_DROPPED,
)
from app.dialects.openai_responses.custom import as_arguments, as_function
from app.dialects.openai_responses.dialect import DIALECT
from tests.dialects.openai_responses.replies import request_of

SCHEMA = {
    "type": "object",
    "properties": {"q": {"type": "string"}},
    "required": ["q"],
    "additionalProperties": False,
}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, separators=(",", ":")).encode())


RAW = raw(SCHEMA)


def talk_of(**members: Any) -> Conversation:
    return DIALECT.conversation(request_of(**members))


def rendered(talk: Conversation, limit: int | None = None, stream: bool = True, model: str = "up") -> dict[str, Any]:
    sent = DIALECT.render(request_of(), talk, model=model, limit_tokens=limit, stream=stream)
    assert sent.path == "/responses"
    body: dict[str, Any] = json.loads(sent.body)
    return body


def there_and_back(talk: Conversation) -> Conversation:
    sent = DIALECT.render(request_of(), talk, model="up", limit_tokens=9, stream=True)
    return DIALECT.conversation(DIALECT.parse(sent.body, {}, {}))


def test_a_conversation_of_codex() -> None:
    talk = talk_of(
        instructions="You are codex.",
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="t",
        client_metadata={"a": "b"},
        parallel_tool_calls=False,
        tool_choice="auto",
        reasoning={"effort": "high", "summary": "auto"},
        text={"verbosity": "low"},
        tools=[
            {"type": "function", "name": "shell", "description": "d", "strict": False, "parameters": SCHEMA},
            {"type": "custom", "name": "patch", "description": "p", "format": GRAMMAR},
            {
                "type": "namespace",
                "name": "mcp__docs",
                "description": "",
                "tools": [{"type": "function", "name": "a.b"}],
            },
            {"type": "web_search", "external_web_access": False},
        ],
        input=[
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "a", "name": "shell", "arguments": '{"q":"x"}'},
            {"type": "function_call", "call_id": "b", "name": "a.b", "namespace": "mcp__docs", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** x"},
            {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search"}},
            {"type": "function_call_output", "call_id": "a", "output": "ok"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "t"}]},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
            {"role": "user", "content": "on"},
        ],
    )
    assert talk.messages == [
        Message("system", [Text("You are codex.")]),
        Message("system", [Text("rules")], developer=True),
        Message("user", [Text("go")]),
        Message(
            "assistant",
            [
                Thinking("hm", encrypted="gAAA", origin="openai_responses"),
                Text("I look."),
                ToolCall("a", "shell", '{"q":"x"}'),
                ToolCall("b", "mcp__docs__a_b", "{}"),
                ToolCall("c", "patch", '{"input":"*** x"}'),
            ],
        ),
        Message(
            "user",
            [
                ToolResult("a", [Text("ok")], name="shell"),
                ToolResult("b", [Text("t")], name="mcp__docs__a_b"),
                ToolResult("c", [Text("done")], name="patch"),
            ],
        ),
        Message("user", [Text("on")]),
    ]
    assert [(tool.name, tool.custom, tool.strict) for tool in talk.tools] == [
        ("shell", False, False),
        ("patch", False, None),
        ("mcp__docs__a_b", False, None),
    ]
    assert talk.own == {"prompt_cache_key": "t", "verbosity": "low"}
    assert (talk.effort, talk.show_thoughts, talk.parallel_tools, talk.tool_choice) == ("high", True, False, "auto")
    assert talk.dropped == [
        "store",
        "include",
        "client_metadata",
        "tools.web_search",
        "web_search_call",
    ]


def test_media() -> None:
    parts = [
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/jpeg;base64,QUJD"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"},
        {"type": "input_file", "file_data": "QUJD"},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
    ]
    assert talk_of(input=[{"role": "user", "content": parts}]).messages[0].parts == [
        Media("image", url="https://x/y.png", detail="low"),
        Media("image", "image/jpeg", "QUJD"),
        Media("file", "application/pdf", "QUJD", name="a.pdf"),
        Media("file", "application/pdf", "QUJD"),
        Media("file", url="https://x/y.pdf"),
        Media("audio", "audio/mp3", "QUJD"),
    ]


def test_tools_that_a_search_found_and_tools_in_items_are_offered() -> None:
    found = {"type": "tool_search_output", "call_id": "s", "tools": [{"type": "function", "name": "late"}]}
    more = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "more"}]}
    talk = talk_of(input=[{"role": "user", "content": "go"}, found, more], tools=[{"type": "tool_search"}])
    assert [tool.name for tool in talk.tools] == ["late", "more"]
    assert talk.dropped == ["tools.tool_search", "tool_search_output", "additional_tools"]


def test_the_tool_that_must_be_called() -> None:
    tools = [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "a"}]}]
    choice = {"type": "function", "name": "a", "namespace": "n"}
    assert talk_of(tools=tools, tool_choice=choice).tool_named == "n__a"
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [choice]}
    talk = talk_of(tools=[*tools, {"type": "function", "name": "b"}], tool_choice=allowed)
    assert ([tool.name for tool in talk.tools], talk.tool_choice) == (["n__a"], "required")


REFUSED_ITEMS: list[dict[str, Any]] = [
    {"type": "item_reference", "id": "x"},
    {"id": "x"},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "local_shell_call", "call_id": "x", "action": {}},
    {"type": "computer_call_output", "output": {}},
    {"type": "new_thing"},
]


@pytest.mark.parametrize("item", REFUSED_ITEMS)
def test_items_that_only_openai_has_are_refused(item: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as raised:
        talk_of(input=[{"role": "user", "content": "go"}, item])
    assert raised.value.param == "input[1]"
    assert ("store: false" in raised.value.message) == (item.get("type", "item_reference") == "item_reference")


@pytest.mark.parametrize("name", REFUSED_MEMBERS)
def test_members_that_only_openai_can_follow_are_refused(name: str) -> None:
    with pytest.raises(BadRequest) as raised:
        talk_of(**{name: "x"})
    assert raised.value.param == name
    talk_of(**{name: None})


@pytest.mark.parametrize("kind", [*REFUSED_TOOLS, "new_tool"])
def test_tools_that_a_task_needs_are_refused(kind: str) -> None:
    with pytest.raises(BadRequest) as raised:
        talk_of(tools=[{"type": "function", "name": "a"}, {"type": kind}])
    assert raised.value.param == "tools[1]"


@pytest.mark.parametrize("kind", [*DROPPED_TOOLS, "web_search_preview_2025_03_11"])
def test_tools_that_clients_offer_unasked_are_dropped(kind: str) -> None:
    assert talk_of(tools=[{"type": kind}]).dropped == [f"tools.{kind}"]
    with pytest.raises(BadRequest):
        talk_of(tools=[{"type": kind}], tool_choice="required")
    with pytest.raises(BadRequest):
        talk_of(tools=[{"type": kind}], tool_choice={"type": kind})


@pytest.mark.parametrize("kind", DROPPED_ITEMS)
def test_items_that_tell_of_the_provider_are_dropped(kind: str) -> None:
    talk = talk_of(input=[{"type": kind}, {"role": "user", "content": "go"}, {"type": kind}])
    assert (talk.dropped, len(talk.messages)) == ([kind], 1)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "a", "arguments": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "a", "arguments": ""}]}, "input[0].name"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "b", "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": ""}]}, "input[0].call_id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]}, "tools[0].tools[0].name"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_bad_input_names_its_place(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        talk_of(**members)
    assert raised.value.param == param


def test_a_rendered_request() -> None:
    talk = Conversation(
        [Message("system", [Text("be brief")]), Message("user", [Text("hi"), Media("image", "image/png", "QUJD")])],
        tools=[Tool("find", "d", RAW), Tool("bare"), Tool("patch", custom=True, format=raw(GRAMMAR))],
        tool_named="patch",
        shape=Shape(RAW, "a", True),
        think_tokens=8000,
        show_thoughts=True,
        temperature=0.5,
    )
    assert rendered(talk, limit=9, stream=False) == {
        "model": "up",
        "instructions": "be brief",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "hi"},
                    {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "auto"},
                ],
            }
        ],
        "tools": [
            {"type": "function", "name": "find", "description": "d", "parameters": SCHEMA, "strict": False},
            {"type": "function", "name": "bare", "parameters": {"type": "object", "properties": {}}, "strict": False},
            {"type": "custom", "name": "patch", "format": GRAMMAR},
        ],
        "tool_choice": {"type": "custom", "name": "patch"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}},
        "reasoning": {"effort": "medium", "summary": "auto"},
        "temperature": 0.5,
        "max_output_tokens": 9,
        "store": False,
        "stream": False,
    }


def test_a_grammar_in_chats_shape_is_laid_flat() -> None:
    shape = msgspec.Raw(
        json.dumps({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}).encode()
    )
    talk = Conversation([], tools=[Tool("patch", custom=True, format=shape)])
    assert rendered(talk)["tools"][0]["format"] == GRAMMAR


def test_what_cannot_be_said_here_is_dropped_by_the_table() -> None:
    talk = Conversation(
        [
            Message("user", [Text("hi", cache=True)]),
            Message("assistant", [Thinking("hm", signature="s", origin="anthropic"), Media("image", url="https://x")]),
            Message("user", [ToolResult("a", [Text("no")], is_error=True)]),
        ],
        top_k=3,
        seed=4,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        shape=Shape(raw({"type": "object"}), "n", strict=True),
    )
    body = rendered(talk)
    assert body["text"]["format"]["strict"] is False
    assert set(talk.dropped) == set(RENDER_DROPPED) - {"temperature", "top_p", "effort"}
    assert [item.get("role") or item["type"] for item in body["input"]] == ["user", "function_call_output"]


@pytest.mark.parametrize(
    ("model", "effort", "reasoning", "dropped"),
    [
        ("gpt-5", "max", {"effort": "high", "summary": "auto"}, ["temperature", "top_p"]),
        ("gpt-5.2", "none", {"effort": "none", "summary": "auto"}, []),
        ("gpt-4.1", "high", None, ["effort"]),
        ("up", "max", {"effort": "xhigh", "summary": "auto"}, []),
    ],
)
def test_what_a_model_refuses_is_dropped(
    model: str, effort: str, reasoning: dict[str, str] | None, dropped: list[str]
) -> None:
    talk = Conversation([], effort=effort, temperature=0.5, top_p=0.9, show_thoughts=True)
    body = rendered(talk, model=model)
    assert body.get("reasoning") == reasoning
    assert talk.dropped == dropped
    assert ("temperature" in body, "top_p" in body) == ("temperature" not in dropped, "top_p" not in dropped)


@pytest.mark.parametrize(("change", "param"), [({"stop": ["x"]}, "stop"), ({"choices": 2}, "n")])
def test_what_would_change_the_answer_is_refused(change: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        rendered(Conversation([Message("user", [Text("hi")])], **change))
    assert raised.value.param == param


def test_sound_is_refused() -> None:
    with pytest.raises(BadRequest):
        rendered(Conversation([Message("user", [Media("audio", "audio/wav", "QUJD")])]))


TEXT = st.text(min_size=1, max_size=9)
PICTURES = st.sampled_from(
    [
        Media("image", url="https://x/y.png", detail="low"),
        Media("image", "image/png", "QUJD", detail="auto"),
        Media("file", "application/pdf", "QUJD", name="a"),
        Media("file", url="https://x/y.pdf"),
    ]
)
USER: st.SearchStrategy[list[Part]] = st.lists(st.builds(Text, TEXT) | PICTURES, min_size=1, max_size=3)
SYSTEM: st.SearchStrategy[list[Part]] = st.lists(st.builds(Text, TEXT), min_size=1, max_size=2)
ASSISTANT: st.SearchStrategy[list[Part]] = st.lists(
    st.builds(Text, TEXT)
    | st.builds(Refusal, TEXT)
    | st.builds(Thinking, TEXT, encrypted=TEXT, origin=st.just("openai_responses"), id=st.none() | st.just("rs_1"))
    | st.builds(ToolCall, TEXT, st.sampled_from(["find", "n__a"]), TEXT, custom=st.booleans()),
    min_size=1,
    max_size=4,
)


@st.composite
def talks(draw: st.DrawFn) -> Conversation:
    messages = [Message("system", draw(SYSTEM))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 3))):
        messages.append(Message("user", draw(USER)))
        if draw(st.booleans()):
            messages.append(Message("system", draw(SYSTEM), developer=True))
        said = draw(ASSISTANT)
        messages.append(Message("assistant", said))
        calls = {part.id: part for part in said if isinstance(part, ToolCall)}
        if calls:
            parts = draw(st.lists(st.builds(Text, TEXT), min_size=1, max_size=2))
            messages.append(Message("user", [ToolResult(call, [*parts], name=calls[call].name) for call in calls]))
    return Conversation(
        messages,
        tools=[Tool("find", "d", RAW, True), Tool("patch", None, None, None, True)],
        tool_choice=draw(st.sampled_from(["auto", "none", "required", None])),
        parallel_tools=draw(st.none() | st.booleans()),
        shape=draw(st.sampled_from([None, Shape(), Shape(RAW, "a", True), Shape(RAW, "b")])),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1)),
        effort=draw(st.sampled_from([None, "low", "high"])),
        show_thoughts=draw(st.booleans()),
        user=draw(st.none() | TEXT),
    )


def as_functions(talk: Conversation) -> None:
    """Custom tools reach other dialects as functions of one string."""
    talk.tools = [as_function(tool.name, tool.description, tool.format) if tool.custom else tool for tool in talk.tools]
    for part in [part for message in talk.messages for part in message.parts]:
        if isinstance(part, ToolCall) and part.custom:
            part.arguments, part.custom = as_arguments(part.arguments), False


@given(talks())
def test_what_is_carried_comes_back(talk: Conversation) -> None:
    back = there_and_back(talk)
    as_functions(talk)
    for field in fields(Conversation):
        if field.name != "dropped":
            assert getattr(back, field.name) == getattr(talk, field.name), field.name
    assert (back.dropped, talk.dropped) == (["store"], [])
