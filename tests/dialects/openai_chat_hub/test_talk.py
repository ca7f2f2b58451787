"""A chat request read in full: every role and part, tools, options; what is refused and what is dropped."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.core.conversation import (
    Conversation,
    Media,
    Message,
    Refusal,
    Shape,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from app.core.errors import BadRequest
from app.dialects.openai_chat.carried import DROPPED, REFUSED
from app.dialects.openai_chat.dialect import DIALECT

HI = [{"role": "user", "content": "Hi"}]
PIXEL = "iVBORw0KGgo="


def talk(**members: Any) -> Conversation:
    """The conversation of a request with these members."""
    body = json.dumps({"model": "m", "messages": HI, **members}).encode()
    return DIALECT.conversation(DIALECT.parse(body, {}, {}))


def messages(*given: dict[str, Any]) -> list[Message]:
    """The messages of a conversation."""
    return talk(messages=list(given)).messages


def raw(value: Any) -> msgspec.Raw:
    """JSON as json.dumps writes it."""
    return msgspec.Raw(json.dumps(value).encode())


def test_roles_stand_where_they_stood() -> None:
    given: list[dict[str, Any]] = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
        {"role": "developer", "content": [{"type": "text", "text": "D"}]},
        {"role": "user", "content": ["U", {"type": "text", "text": "2"}], "name": "ann"},
    ]
    assert messages(*given) == [
        Message("system", [Text("S")]),
        Message("user", [Text("U")]),
        Message("assistant", [Text("A")]),
        Message("system", [Text("D")], developer=True),
        Message("user", [Text("U"), Text("2")]),
    ]


def test_images_sounds_and_files() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
        {"type": "image_url", "image_url": "https://a/b.png", "cache_control": {"type": "ephemeral"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8;base64,SGk=", "filename": "a.txt"}},
        {"type": "file", "file": {"file_data": "JVBERi0="}},
    ]
    assert messages({"role": "user", "content": parts})[0].parts == [
        Media("image", "image/png", PIXEL, detail="low"),
        Media("image", url="https://a/b.png", cache=True),
        Media("audio", "audio/mpeg", "UklG"),
        Media("file", "text/plain", "SGk=", name="a.txt"),
        Media("file", "application/pdf", "JVBERi0="),
    ]


def test_an_assistants_calls_and_the_results_behind_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    signed = {**call, "id": "c2", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    custom = {"id": "c3", "type": "custom", "custom": {"name": "sql", "input": "select"}}
    told = messages(
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call, signed, custom]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}], "name": "f"},
        {"role": "tool", "tool_call_id": "c3", "content": None},
        {"role": "user", "content": "go on"},
    )
    assert told[1].parts == [
        ToolCall("c1", "f", '{"a": 1}'),
        ToolCall("c2", "f", '{"a": 1}', signature="c2ln"),
        ToolCall("c3", "sql", "select", custom=True),
    ]
    results = [ToolResult("c1", [Text("one")]), ToolResult("c2", [Text("two")], name="f"), ToolResult("c3", [])]
    assert told[2:] == [Message("user", list(results)), Message("user", [Text("go on")])]


def test_functions_of_the_older_kind() -> None:
    told = talk(
        messages=[
            *HI,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "one"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "two"},
        ],
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    calls = [part for message in told.messages for part in message.parts if isinstance(part, ToolCall)]
    results = [part for message in told.messages for part in message.parts if isinstance(part, ToolResult)]
    assert [call.id for call in calls] == [result.id for result in results]
    assert len({call.id for call in calls}) == 2
    assert told.tools == [Tool("f", schema=raw({"type": "object"}))]
    assert (told.tool_named, told.parallel_tools) == ("f", False)


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"thinking": "hm"},
        {"reasoning_content": "hm", "reasoning": "hm"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "A"},
            ]
        },
    ],
)
def test_an_assistants_thoughts_are_chats_own(thought: dict[str, Any]) -> None:
    told = messages(*HI, {"role": "assistant", "content": "A", **thought})
    assert told[1].parts == [Thinking("hm", origin="openai_chat"), Text("A")]


def test_refusals_and_empty_texts() -> None:
    told = messages(
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "", "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}, {"type": "text", "text": ""}]},
    )
    assert [message.parts for message in told] == [[], [Refusal("no")], [Refusal("no")]]


def test_cache_marks_of_a_part_a_message_a_result_and_a_tool() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    told = talk(
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "S", **mark}, {"type": "text", "text": "T"}]},
            {"role": "user", "content": "U", **mark},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "R", **mark}]},
        ],
        tools=[{"type": "function", "function": {"name": "f"}, **mark}],
    )
    assert told.messages[0].parts == [Text("S", cache=True), Text("T")]
    assert told.messages[1].parts == [Text("U", cache=True)]
    assert told.messages[2].parts == [ToolResult("c", [Text("R", cache=True)], cache=True)]
    assert told.tools[0].cache


def test_tools_keep_the_bytes_of_their_schemas() -> None:
    schema = b'{"type": "object",  "properties":{"z":{},"a":{"type":"string"}}}'
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f",'
    )
    body += (
        b'"description":"d","strict":true,"parameters":' + schema + b'}},{"type":"function","function":{"name":"g"}}]}'
    )
    told = DIALECT.conversation(DIALECT.parse(body, {}, {}))
    assert told.tools[0] == Tool("f", "d", msgspec.Raw(schema), True)
    assert json.loads(bytes(told.tools[1].schema or b"")) == {"type": "object", "properties": {}}


def test_custom_tools_have_their_grammar_flat() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    told = talk(
        tools=[
            {"type": "custom", "custom": {"name": "a", "description": "d", "format": grammar}},
            {"type": "custom", "custom": {"name": "b", "format": {"type": "text"}}},
        ]
    )
    assert [(tool.name, tool.custom, tool.schema) for tool in told.tools] == [("a", True, None), ("b", True, None)]
    flat = [json.loads(bytes(tool.format or b"")) for tool in told.tools]
    assert flat == [{"type": "grammar", "syntax": "lark", "definition": "start: /a/"}, {"type": "text"}]


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g", "h")]


@pytest.mark.parametrize(
    ("choice", "mode", "named", "offered"),
    [
        ("auto", "auto", None, "fgh"),
        ("none", "none", None, "fgh"),
        ("required", "required", None, "fgh"),
        ("any", "required", None, "fgh"),
        (None, None, None, "fgh"),
        ({"type": "function", "function": {"name": "g"}}, None, "g", "fgh"),
        ({"type": "custom", "custom": {"name": "g"}}, None, "g", "fgh"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": name}} for name in "fh"],
                },
            },
            "required",
            None,
            "fh",
        ),
    ],
)
def test_tool_choice(choice: Any, mode: str | None, named: str | None, offered: str) -> None:
    told = talk(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert (told.tool_choice, told.tool_named) == (mode, named)
    assert "".join(tool.name for tool in told.tools) == offered
    assert told.parallel_tools is False


@pytest.mark.parametrize(
    ("format", "shape"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, Shape()),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
            Shape(raw({"type": "object"}), "n", True),
        ),
    ],
)
def test_the_shape_of_the_answer(format: Any, shape: Shape | None) -> None:
    assert talk(response_format=format).shape == shape


def test_sampling_and_the_rest() -> None:
    told = talk(
        stop="END",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        n=2,
        user="u",
    )
    assert (told.stop, told.temperature, told.top_p, told.top_k, told.seed) == (["END"], 0.5, 0.9, 5, 7)
    assert (told.presence_penalty, told.frequency_penalty, told.choices, told.user) == (0.1, -0.1, 2, "u")
    assert talk(stop=["a", "b"]).stop == ["a", "b"]
    assert talk(stop=None, temperature=None, safety_identifier="s", user="u").user == "s"


@pytest.mark.parametrize(
    ("given", "effort", "tokens", "show"),
    [
        ({"reasoning_effort": "high"}, "high", None, False),
        ({"reasoning": {"effort": "low"}}, "low", None, True),
        ({"reasoning": {"max_tokens": 2000, "exclude": True}}, None, 2000, False),
        ({"reasoning": {"enabled": False}}, "none", None, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, None, 4096, True),
        ({"thinking": {"type": "disabled"}}, "none", None, False),
        ({"include_reasoning": True}, None, None, True),
    ],
)
def test_effort_in_every_spelling(given: dict[str, Any], effort: str | None, tokens: int | None, show: bool) -> None:
    told = talk(**given)
    assert (told.effort, told.think_tokens, told.show_thoughts) == (effort, tokens, show)
    assert told.dropped == []


WRONG = [
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [*HI, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [*HI, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio"),
    ({"messages": [*HI, {"role": "assistant", "tool_calls": [{"type": "function"}]}]}, "messages[1].tool_calls[0]"),
    ({"messages": [*HI, {"role": "assistant", "tool_calls": 5}]}, "messages[1].tool_calls"),
    ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        "messages[0].content[0].file",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
        "messages[0].content[0].image_url.url",
    ),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "custom", "custom": {"name": "a", "format": 5}}]}, "tools[0].custom.format"),
    ({"tool_choice": "perhaps"}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"stop": 5}, "stop"),
    ({"temperature": "warm"}, "temperature"),
    ({"thinking": 5}, "thinking"),
]


@pytest.mark.parametrize(("given", "param"), WRONG, ids=[param for _, param in WRONG])
def test_what_is_wrong_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        talk(**given)
    assert caught.value.param == param


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_change_the_answer_is_refused(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        talk(**{name: ["text", "audio"] if name == "modalities" else {"a": 1}})
    assert caught.value.param == name
    assert REFUSED[name] in caught.value.message


def test_what_asks_for_nothing_is_neither_refused_nor_dropped() -> None:
    idle = {
        "logprobs": False,
        "top_logprobs": 0,
        "logit_bias": {},
        "modalities": ["text"],
        "audio": None,
        "store": False,
    }
    assert talk(**idle, max_cost_usd=1, max_tokens=5, stream=True, stream_options={"include_usage": True}).dropped == []


def test_what_is_dropped_is_named() -> None:
    given = {name: {"a": "b"} for name in DROPPED}
    assert sorted(talk(**given, unheard_of=1).dropped) == sorted([*DROPPED, "unheard_of"])
    assert talk(metadata={"task_id": "t"}).dropped == []
    assert talk(metadata={"task_id": "t", "a": "b"}).dropped == ["metadata"]
