"""A whole Gemini request in no dialect's words, and what of it is refused or dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.conversation import Conversation, Media, Message, Shape, Text, Thinking, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.proof import UNSIGNED, shown_signature
from tests.dialects.gemini.exchange import SIGNATURE, USER, WEATHER, parsed


def talk_of(**members: Any) -> Conversation:
    """The conversation of a request with these members."""
    return DIALECT.conversation(parsed(**members))


def refused(**members: Any) -> str | None:
    """The parameter that the refusal names."""
    with pytest.raises(BadRequest) as caught:
        talk_of(**members)
    return caught.value.param


def call(place: str, **more: Any) -> dict[str, Any]:
    """A part that calls the weather."""
    return {"functionCall": {"name": "weather", "args": {"place": place}, **more}}


def result(output: Any, name: str = "weather", **more: Any) -> dict[str, Any]:
    """A part that answers a call."""
    return {"functionResponse": {"name": name, "response": output, **more}}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def test_texts_and_pictures() -> None:
    talk = talk_of(
        systemInstruction={"parts": [{"text": "Be kind."}]},
        contents=[
            user(
                {"text": "What is it?"},
                {"inlineData": {"mimeType": "image/png", "data": "a-b_", "displayName": "it.png"}},
                {"fileData": {"fileUri": "https://example.org/a.pdf", "mimeType": "application/pdf"}},
                {"inline_data": {"mime_type": "audio/wav", "data": "AAAA"}},
            ),
            model({"text": "A cat."}),
        ],
    )
    assert talk.messages == [
        Message("system", [Text("Be kind.")]),
        Message(
            "user",
            [
                Text("What is it?"),
                Media("image", "image/png", data="a+b/", name="it.png"),
                Media("file", "application/pdf", url="https://example.org/a.pdf"),
                Media("audio", "audio/wav", data="AAAA"),
            ],
        ),
        Message("assistant", [Text("A cat.")]),
    ]
    assert talk.dropped == []


def test_calls_without_ids_are_paired_by_name_and_order() -> None:
    talk = talk_of(
        contents=[
            USER,
            model(call("Paris"), call("Rome"), {"functionCall": {"name": "time"}}),
            user(result({"output": "noon"}, "time"), result({"output": "sun"}), result({"error": "no such place"})),
            model(call("Oslo", id="mine")),
            user(result({"degrees": 3, "sky": "grey"}, id="mine")),
            model(call("Bern")),
            user(result({"output": ["sun", 7]}, id="made-by-the-client")),
        ]
    )
    calls = [part for message in talk.messages for part in message.parts if isinstance(part, ToolCall)]
    assert [(c.id, c.name, c.arguments) for c in calls] == [
        ("call_0", "weather", '{"place": "Paris"}'),
        ("call_1", "weather", '{"place": "Rome"}'),
        ("call_2", "time", "{}"),
        ("mine", "weather", '{"place": "Oslo"}'),
        ("call_4", "weather", '{"place": "Bern"}'),
    ]
    results = [part for message in talk.messages for part in message.parts if isinstance(part, ToolResult)]
    assert [(r.id, r.name, r.parts, r.is_error) for r in results] == [
        ("call_2", "time", [Text("noon")], False),
        ("call_0", "weather", [Text("sun")], False),
        ("call_1", "weather", [Text("no such place")], True),
        ("mine", "weather", [Text('{"degrees": 3, "sky": "grey"}')], False),
        ("call_4", "weather", [Text('["sun", 7]')], False),
    ]


def test_ids_of_a_growing_conversation_stay_and_differ() -> None:
    turns = [
        USER,
        model(call("Paris")),
        user(result({"output": "1"})),
        model(call("Rome")),
        user(result({"output": "2"})),
    ]
    short, long = talk_of(contents=turns[:3]), talk_of(contents=turns)
    assert long.messages[:3] == short.messages
    clash = talk_of(contents=[USER, model(call("Paris", id="call_1"), call("Rome"))])
    ids = [part.id for part in clash.messages[-1].parts if isinstance(part, ToolCall)]
    assert len(set(ids)) == 2


def test_a_response_to_nothing() -> None:
    assert refused(contents=[USER, user(result({"output": "sun"}))]) == "contents[1].parts[0].functionResponse"
    twice = [USER, model(call("Paris")), user(result({"output": "1"}), result({"output": "2"}))]
    assert refused(contents=twice) == "contents[2].parts[1].functionResponse"


def test_pictures_in_a_result() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    talk = talk_of(contents=[USER, model(call("x")), user(result({"output": "seen"}, parts=[picture]))])
    assert talk.messages[-1].parts == [
        ToolResult("call_0", [Text("seen"), Media("image", "image/png", data="AAAA")], name="weather")
    ]


def test_what_a_client_kept_in_pieces_is_whole_again() -> None:
    foreign = shown_signature("anthropic", "c2lnbmVk", None)
    talk = talk_of(
        contents=[
            USER,
            model({"text": "I th", "thought": True}),
            model({"text": "ink", "thought": True}),
            model({"text": "", "thought": True, "thoughtSignature": foreign}),
            model({"text": "Hel"}),
            model({"text": "lo"}, {**call("Paris"), "thoughtSignature": SIGNATURE}),
            model({**call("Rome"), "thoughtSignature": UNSIGNED}),
        ]
    )
    assert talk.messages[1:] == [
        Message(
            "assistant",
            [
                Thinking("I think", signature="c2lnbmVk", origin="anthropic"),
                Text("Hello"),
                ToolCall("call_0", "weather", '{"place": "Paris"}', signature=SIGNATURE),
                ToolCall("call_1", "weather", '{"place": "Rome"}'),
            ],
        )
    ]


def test_thoughts_are_geminis_own_or_come_under_our_mark() -> None:
    sealed = shown_signature("anthropic", None, "redacted ü")
    talk = talk_of(
        contents=[
            model({"text": "hm", "thought": True, "thought_signature": SIGNATURE}),
            user(),
            model({"text": "", "thought": True, "thoughtSignature": sealed}),
            USER,
            model({"text": "Hi", "thoughtSignature": SIGNATURE}),
        ]
    )
    assert [message.parts for message in talk.messages if message.role == "assistant"] == [
        [
            Thinking("hm", signature=SIGNATURE, origin="gemini"),
            Thinking("", encrypted="redacted ü", origin="anthropic"),
        ],
        [Text("Hi"), Thinking("", signature=SIGNATURE, origin="gemini")],
    ]


def test_tools_and_their_schemas() -> None:
    old = {
        "name": "old",
        "parameters": {
            "type": "OBJECT",
            "properties": {
                "type": {"type": "STRING", "enum": ["a", "b"], "format": "enum", "nullable": True},
                "list": {"type": "ARRAY", "items": {"type": "NUMBER"}, "minItems": "1", "max_items": 3},
                "either": {"anyOf": [{"type": "STRING"}, {"type": "INTEGER", "format": "int32"}]},
            },
            "required": ["type"],
            "propertyOrdering": ["type"],
        },
    }
    talk = talk_of(tools=[{"functionDeclarations": [WEATHER, old]}, {"function_declarations": {"name": "none"}}])
    assert [(tool.name, tool.description) for tool in talk.tools] == [
        ("weather", "The weather of a place"),
        ("old", None),
        ("none", None),
    ]
    assert bytes(talk.tools[0].schema or b"") == json.dumps(WEATHER["parametersJsonSchema"]).encode()
    assert json.loads(bytes(talk.tools[1].schema or b"")) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "enum": ["a", "b", None]},
            "list": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer", "format": "int32"}]},
        },
        "required": ["type"],
    }
    assert talk.tools[2].schema is None


def test_a_count_that_no_integer_holds_stays_as_it_is() -> None:
    schema = {"type": "ARRAY", "minItems": "9" * 5_000}
    (tool,) = talk_of(tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}]).tools
    assert json.loads(bytes(tool.schema or b"")) == {**schema, "type": "array"}


@pytest.mark.parametrize(
    ("calling", "choice", "named", "offered"),
    [
        ({"mode": "AUTO"}, "auto", None, 2),
        ({"mode": "any"}, "required", None, 2),
        ({"mode": "NONE"}, "none", None, 2),
        ({"mode": "ANY", "allowedFunctionNames": ["time"]}, None, "time", 2),
        ({"mode": "ANY", "allowed_function_names": ["time", "weather"]}, "required", None, 2),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["time"]}, "auto", None, 1),
        ({}, "auto", None, 2),
    ],
)
def test_which_tool_is_to_be_called(calling: dict[str, Any], choice: str, named: str, offered: int) -> None:
    tools = [{"functionDeclarations": [WEATHER, {"name": "time"}]}]
    talk = talk_of(tools=tools, toolConfig={"functionCallingConfig": calling})
    assert (talk.tool_choice, talk.tool_named, len(talk.tools)) == (choice, named, offered)


def test_the_configuration() -> None:
    talk = talk_of(
        generationConfig={
            "temperature": 0.5,
            "topP": 1,
            "topK": 40.0,
            "seed": 7,
            "presencePenalty": 0.1,
            "frequency_penalty": 0.2,
            "stopSequences": ["END"],
            "candidateCount": 2,
            "responseMimeType": "application/json",
            "responseSchema": {"type": "STRING", "nullable": True},
            "responseModalities": ["TEXT"],
            "thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True},
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
        },
        safetySettings=[],
        labels={"a": "b"},
        cachedContent=None,
        brandNew=1,
    )
    assert (talk.temperature, talk.top_p, talk.top_k, talk.seed) == (0.5, 1, 40, 7)
    assert (talk.presence_penalty, talk.frequency_penalty, talk.stop, talk.choices) == (0.1, 0.2, ["END"], 2)
    assert (talk.think_tokens, talk.show_thoughts, talk.effort) == (1024, True, None)
    assert talk.shape is not None
    assert json.loads(bytes(talk.shape.schema or b"")) == {"type": ["string", "null"]}
    assert talk.dropped == ["generationConfig.mediaResolution", "safetySettings", "labels", "brandNew"]


def test_json_without_a_schema_and_thinking_by_level() -> None:
    talk = talk_of(
        generationConfig={
            "responseMimeType": "application/json",
            "thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": -1},
        }
    )
    assert (talk.shape, talk.effort, talk.think_tokens) == (Shape(), "low", None)
    assert talk_of(generationConfig={"thinkingConfig": {"thinkingBudget": 0}}).think_tokens == 0
    assert talk_of(generationConfig={"responseJsonSchema": {"type": "object"}}).shape is not None


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"cachedContent": "cachedContents/1"}, "cachedContent"),
        ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
        ({"tools": [{"code_execution": {}}]}, "tools[0].codeExecution"),
        ({"tools": [{"brandNew": {}}]}, "tools[0].brandNew"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"contents": [model({"executableCode": {"code": "1"}})]}, "contents[0].parts[0].executableCode"),
        ({"contents": [user({"fileData": {"fileUri": "gs://b/x"}})]}, "contents[0].parts[0].fileData.fileUri"),
        (
            {"contents": [user({"fileData": {"fileUri": "https://youtu.be/x"}})]},
            "contents[0].parts[0].fileData.fileUri",
        ),
        ({"contents": [user({"fileData": {}})]}, "contents[0].parts[0].fileData.fileUri"),
        ({"contents": [user({"inlineData": {"data": "AA"}})]}, "contents[0].parts[0].inlineData"),
        (
            {"contents": [user({"inlineData": {"mimeType": "video/mp4", "data": "AA"}})]},
            "contents[0].parts[0].inlineData",
        ),
        ({"contents": [model({"functionCall": {}})]}, "contents[0].parts[0].functionCall.name"),
        ({"contents": [model({"functionCall": {"name": "f", "args": 5}})]}, "contents[0].parts[0].functionCall.args"),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
        (
            {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["x"]}}},
            "toolConfig.functionCallingConfig.allowedFunctionNames",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(members: dict[str, Any], param: str) -> None:
    assert refused(**members) == param
