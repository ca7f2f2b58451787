"""Conversations as chat requests: what chat has its own rules for, and the way there and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
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
from app.core.policy import ChatHabits
from app.core.types import ChatRequest, Prompt
from app.dialects.openai_chat.dialect import DIALECT, ChatDialect
from app.dialects.openai_chat.render_talk import MAX_CALL_ID_CHARS, render_talk

SCHEMA = msgspec.Raw(
    b'{"type":"object","properties":{"z":{},"a":{}},"required":["z","a"],"additionalProperties":false}'
)
REQUEST = ChatRequest({}, "x", False, False, 1, None, (), Prompt(), dialect="anthropic")


def rendered(talk: Conversation, **options: Any) -> dict[str, Any]:
    """The body as a client of JSON reads it."""
    settled: dict[str, Any] = {"model": "m", "limit_tokens": None, "stream": False, **options}
    body: dict[str, Any] = json.loads(render_talk(REQUEST, talk, **settled))
    return body


def told(*messages: Message) -> list[dict[str, Any]]:
    """The messages of a body."""
    found: list[dict[str, Any]] = rendered(Conversation(list(messages)))["messages"]
    return found


def user(*parts: Part) -> Message:
    """A user's message."""
    return Message("user", list(parts))


def assistant(*parts: Part) -> Message:
    """An assistant's message."""
    return Message("assistant", list(parts))


def back(talk: Conversation) -> Conversation:
    """The conversation that a chat provider reads."""
    sent = DIALECT.render(REQUEST, talk, model="gpt-oss-20b", limit_tokens=None, stream=False)
    assert sent.path == "/chat/completions"
    return DIALECT.conversation(DIALECT.parse(sent.body, {}, {}))


def test_results_come_first_whatever_stood_between() -> None:
    calls = [ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"x":1}')]
    image = Media("image", "image/png", "AAAA")
    messages = told(
        user(Text("go")),
        assistant(Text("I "), Text("call"), *calls),
        Message("system", [Text("note")]),
        user(Text("before"), ToolResult("a", [Text("one"), image, Text("two")]), Text("after")),
        user(ToolResult("b", [image], is_error=True)),
    )
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user", "system", "user"]
    assert messages[1]["content"] == "I call"
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["a", "b"]
    assert messages[2] == {"role": "tool", "tool_call_id": "a", "content": "one\n\ntwo"}
    assert messages[3] == {"role": "tool", "tool_call_id": "b", "content": "(attached below)"}
    assert messages[4]["content"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * 2
    assert messages[6] == {"role": "user", "content": "before\n\nafter"}


def test_thoughts_go_back_only_to_where_they_came_from() -> None:
    own = Thinking("mine", origin="openai_chat")
    foreign = [Thinking("theirs", "sig", origin="anthropic"), Thinking(encrypted="x", origin="openai_responses")]
    call = ToolCall("a", "f", "{}")
    assert told(user(Text("q")), assistant(own, *foreign, call))[1]["reasoning_content"] == "mine"
    assert told(user(Text("q")), assistant(own, Text("a")))[1] == {"role": "assistant", "content": "a"}
    assert told(user(Text("q")), assistant(*foreign)) == [{"role": "user", "content": "q"}]


def test_what_is_left_out_is_named() -> None:
    talk = Conversation(
        [
            user(Text("q", cache=True)),
            assistant(Thinking("t", "sig", origin="anthropic"), ToolCall("a", "f", "{}")),
            user(ToolResult("a", [], is_error=True)),
        ],
        top_k=5,
    )
    rendered(talk)
    assert talk.dropped == ["cache_control", "thinking", "is_error", "top_k"]


def test_roles_media_and_refusals() -> None:
    sound = Media("audio", "audio/x-wav", "UklG")
    file = Media("file", "application/pdf", "JVBERi0=", name="a.pdf")
    image = Media("image", url="https://a/b.png", detail="high")
    messages = told(
        Message("system", [Text("S"), Text("T")], developer=True),
        user(Text("look"), image, sound, file),
        assistant(Refusal("no")),
        user(),
    )
    assert messages == [
        {"role": "system", "content": "S\n\nT"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "high"}},
                {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            ],
        },
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "user", "content": ""},
    ]


@pytest.mark.parametrize(
    "message",
    [
        user(Media("file", url="https://a/b.pdf")),
        user(Media("audio", "audio/ogg", "AAAA")),
        assistant(Text("a"), Media("image", "image/png", "AAAA")),
        user(ToolCall("a", "f", "{}")),
    ],
)
def test_what_chat_has_no_place_for_is_refused(message: Message) -> None:
    with pytest.raises(BadRequest) as caught:
        told(message)
    assert caught.value.param == "messages"


def test_long_ids_are_shortened_alike() -> None:
    long, short = "call_" + "x" * 60, "toolu_1"
    messages = told(
        assistant(ToolCall(long, "f", ""), ToolCall(short, "f", "{}")),
        user(ToolResult(long, []), ToolResult(short, [])),
    )
    ids = [call["id"] for call in messages[0]["tool_calls"]]
    assert [message["tool_call_id"] for message in messages[1:]] == ids
    assert ids[1] == short
    assert len(ids[0]) <= MAX_CALL_ID_CHARS
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_limits_and_streams() -> None:
    talk = Conversation([user(Text("q"))])
    assert rendered(talk) == {"model": "m", "messages": [{"role": "user", "content": "q"}]}
    body = rendered(talk, limit_tokens=9, stream=True)
    assert (body["max_completion_tokens"], body["stream"], body["stream_options"]) == (9, True, {"include_usage": True})
    assert rendered(talk, limit_tokens=9, habits=ChatHabits())["max_tokens"] == 9
    other = ChatDialect(ChatHabits())
    assert json.loads(other.render(REQUEST, talk, model="m", limit_tokens=9, stream=False).body)["max_tokens"] == 9
    chat = other.parse(b'{"model":"x","messages":[{"role":"user","content":"q"}]}', {}, {})
    assert json.loads(other.patch(chat, model="m", limit_tokens=9, stream=False).body)["max_tokens"] == 9
    asked = ChatRequest({}, "x", False, False, 1, 77, ("max_tokens",), Prompt(), dialect="anthropic")
    assert (
        json.loads(render_talk(asked, talk, model="m", limit_tokens=None, stream=False))["max_completion_tokens"] == 77
    )


def test_tools_their_choice_and_the_shape() -> None:
    tools = [
        Tool("f", "d", SCHEMA, True),
        Tool("sql", custom=True, format=msgspec.Raw(b'{"type":"grammar","syntax":"lark","definition":"s"}')),
        Tool("g", schema=SCHEMA, cache=True),
    ]
    talk = Conversation([user(Text("q"))], tools=tools, tool_named="sql", parallel_tools=False, shape=Shape())
    body = rendered(talk)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": json.loads(bytes(SCHEMA)), "strict": True},
        },
        {
            "type": "custom",
            "custom": {
                "name": "sql",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s"}},
            },
        },
        {"type": "function", "function": {"name": "g", "parameters": json.loads(bytes(SCHEMA))}},
    ]
    assert body["tool_choice"] == {"type": "custom", "custom": {"name": "sql"}}
    assert body["parallel_tool_calls"] is False
    assert body["response_format"] == {"type": "json_object"}
    named = rendered(Conversation([], tools=tools, tool_named="f", shape=Shape(SCHEMA, None, True)))
    assert named["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert named["response_format"]["json_schema"] == {
        "name": "answer",
        "schema": json.loads(bytes(SCHEMA)),
        "strict": True,
    }
    assert "tool_choice" not in rendered(Conversation([], tool_choice="auto", parallel_tools=True))


FIT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (FIT, True),
        ({**FIT, "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}, True),
        ({**FIT, "properties": {"a": {"type": "array", "items": FIT}}, "$defs": {"b": FIT}}, True),
        ({"type": "object", "additionalProperties": False}, True),
        ({**FIT, "required": []}, False),
        ({**FIT, "additionalProperties": True}, False),
        ({"type": "object", "properties": FIT["properties"], "required": ["a"]}, False),
        ({**FIT, "properties": {"a": {"type": ["object", "null"]}}}, False),
        ({**FIT, "properties": {"a": {"type": "array", "items": {"type": "object"}}}}, False),
        ({**FIT, "properties": {"a": {"allOf": [FIT]}}}, False),
        ({**FIT, "properties": {"a": True}}, False),
        ({"type": "array", "items": FIT}, False),
        ({"anyOf": [FIT]}, False),
        (True, False),
        ({**FIT, "required": [[]]}, False),
        ({**FIT, "$defs": [1], "anyOf": 5}, False),
    ],
)
def test_strict_only_where_openai_takes_it(schema: Any, fits: bool) -> None:
    raw = msgspec.Raw(json.dumps(schema).encode())
    talk = Conversation([], tools=[Tool("f", None, raw, True)], shape=Shape(raw, "n", True))
    body = rendered(talk)
    assert body["tools"][0]["function"]["strict"] is body["response_format"]["json_schema"]["strict"] is fits
    assert talk.dropped == ([] if fits else ["tools.strict", "response_format.strict"])
    assert rendered(Conversation([], shape=Shape(raw, "n", False)))["response_format"]["json_schema"]["strict"] is False


@pytest.mark.parametrize(
    ("effort", "tokens", "sent"),
    [
        ("low", 99_999, "low"),
        ("max", None, "xhigh"),
        ("minimal", None, "low"),
        ("adaptive", None, None),
        (None, 0, "none"),
        (None, 1024, "low"),
        (None, 5000, "medium"),
        (None, 31_999, "high"),
        (None, -1, None),
        (None, None, None),
    ],
)
def test_effort(effort: str | None, tokens: int | None, sent: str | None) -> None:
    talk = Conversation([], effort=effort, think_tokens=tokens)
    assert rendered(talk, model="gpt-5.2").get("reasoning_effort") == sent
    assert talk.dropped == (["effort"] if effort == "adaptive" else [])


@pytest.mark.parametrize(
    ("model", "least", "most"),
    [
        ("gpt-5", "minimal", "high"),
        ("openai/gpt-5-mini-2025-08-07", "minimal", "high"),
        ("gpt-5-codex", "low", "high"),
        ("gpt-5-pro", "high", "high"),
        ("gpt-5.1", "none", "high"),
        ("gpt-5.1-codex-max", "none", "xhigh"),
        ("gpt-5.2-pro", "medium", "xhigh"),
        ("gpt-6", "none", "xhigh"),
        ("o3-mini", "low", "high"),
        ("o4-mini-2025-04-16", "low", "high"),
        ("openai/gpt-oss-120b", "low", "high"),
        ("gemini-2.5-flash", "none", "high"),
        ("gemini-3-pro-preview", "low", "high"),
        ("deepseek-v4-pro", "low", "max"),
        ("grok-3-mini", "low", "high"),
        ("o1-mini", None, None),
        ("gpt-5-chat-latest", None, None),
        ("gpt-4.1", None, None),
        ("gemini-2.0-flash", None, None),
        ("olmo-2", None, None),
        ("llama-3.3-70b", None, None),
    ],
)
def test_the_efforts_that_a_model_takes(model: str, least: str | None, most: str | None) -> None:
    for asked, sent in (("none", least), ("max", most)):
        talk = Conversation([], effort=asked)
        assert rendered(talk, model=model).get("reasoning_effort") == sent
        assert talk.dropped == ([] if sent else ["effort"])


def test_reasoning_models_refuse_sampling() -> None:
    sampled: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.5}
    for model, effort, kept in (
        ("gpt-4.1", None, True),
        ("gpt-5", None, False),
        ("gpt-5.1", "none", True),
        ("o3", "none", False),
    ):
        talk = Conversation([], **sampled, effort=effort)
        body = rendered(talk, model=model)
        assert {name: body.get(name) for name in sampled} == (sampled if kept else dict.fromkeys(sampled))
        assert [name for name in talk.dropped if name in sampled] == ([] if kept else list(sampled))
    talk = Conversation([], temperature=1, presence_penalty=0)
    rendered(talk, model="gpt-5")
    assert talk.dropped == []
    with pytest.raises(BadRequest) as caught:
        rendered(Conversation([], stop=["END"]), model="gpt-5")
    assert caught.value.param == "stop"


def test_top_k_is_dropped_and_named_once() -> None:
    talk = Conversation([], top_k=5)
    assert "top_k" not in rendered(talk)
    rendered(talk)
    assert talk.dropped == ["top_k"]


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(Text)
IMAGES = st.sampled_from([Media("image", "image/png", "AAAA"), Media("image", url="https://a/b", detail="low")])
FILES = st.sampled_from([Media("file", "application/pdf", "AAAA", name="a.pdf"), Media("audio", "audio/wav", "AAAA")])


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """A conversation that chat can hold as it is: one text a message, results directly behind their calls."""
    messages = []
    if draw(st.booleans()):
        messages.append(Message("system", [draw(TEXTS)]))
    for turn in range(draw(st.integers(1, 3))):
        media = draw(st.lists(IMAGES | FILES, max_size=2))
        messages.append(user(draw(TEXTS), *media))
        calls = [ToolCall(f"c{turn}{i}", "f", '{"a": "é"}') for i in range(draw(st.integers(0, 3)))]
        text = [draw(TEXTS)] if draw(st.booleans()) or not calls else []
        messages.append(assistant(*text, *calls))
        if calls:
            messages.append(user(*[ToolResult(call.id, [draw(TEXTS)]) for call in calls]))
    return messages


@settings(max_examples=60, deadline=None, database=None)
@given(turns(), st.sampled_from(["auto", "none", "required", None]), st.sampled_from([None, Shape(SCHEMA, "n", True)]))
def test_there_and_back(messages: list[Message], choice: Any, shape: Shape | None) -> None:
    talk = Conversation(
        messages,
        tools=[Tool("f", "d", SCHEMA), Tool("g", None, SCHEMA, True)],
        tool_choice=choice,
        parallel_tools=True,
        shape=shape,
        stop=["a"],
        temperature=0.5,
        top_p=0.25,
        seed=3,
        presence_penalty=0.5,
        frequency_penalty=-1,
        effort="high",
        user="u",
        choices=2,
    )
    assert back(talk) == talk


def _loop(signature: str | None = None) -> Conversation:
    calls = [ToolCall("c1", "f", "{}", signature=signature), ToolCall("c2", "f", "{}")]
    turn = Message("assistant", [Thinking("hm", origin="openai_chat"), *calls])
    results = Message("user", [ToolResult("c1", [Text("1")]), ToolResult("c2", [Text("2")])])
    return Conversation([Message("user", [Text("Hi")]), turn, results])


@pytest.mark.parametrize(
    ("model", "signature", "sent"),
    [
        ("google/gemini-3-pro-preview", "sig", ["sig", None]),
        ("gemini-3.5-flash", None, ["skip_thought_signature_validator", None]),
        ("gemini-2.5-pro", "sig", ["sig", None]),
        ("gemini-2.5-pro", None, [None, None]),
        ("gpt-5.4", "sig", [None, None]),
    ],
)
def test_googles_compatible_endpoint_gets_its_signatures_back(
    model: str, signature: str | None, sent: list[str | None]
) -> None:
    calls = rendered(_loop(signature), model=model)["messages"][1]["tool_calls"]
    found = [call.get("extra_content", {}).get("google", {}).get("thought_signature") for call in calls]
    assert found == sent


def test_thoughts_go_back_to_whoever_takes_them() -> None:
    assert rendered(_loop())["messages"][1]["reasoning_content"] == "hm"
    talk = _loop()
    assert "reasoning_content" not in rendered(talk, habits=ChatHabits(takes_reasoning=False))["messages"][1]
    assert talk.dropped == ["thinking"]
