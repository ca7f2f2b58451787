"""Other dialects' requests for a Gemini upstream: what it gets, what is refused or dropped, and the way back."""

from __future__ import annotations

import json
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
from app.dialects.gemini.carry import DROPPED, REFUSED, UPSTREAM
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.proof import UNSIGNED
from tests.dialects.gemini.exchange import SIGNATURE, parsed

SCHEMA = msgspec.Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"$defs":{}}')


def user(*parts: Part) -> Message:
    return Message("user", list(parts))


def assistant(*parts: Part) -> Message:
    return Message("assistant", list(parts))


def rendered(talk: Conversation, *, model: str = "gemini-2.5-flash", limit: int | None = None) -> dict[str, Any]:
    """The upstream's body."""
    request = parsed(generationConfig={"maxOutputTokens": 777})
    sent = DIALECT.render(request, talk, model=model, limit_tokens=limit, stream=True)
    assert sent.path == f"/models/{model}:streamGenerateContent?alt=sse"
    found: dict[str, Any] = json.loads(sent.body)
    return found


def contents(*messages: Message, model: str = "gemini-2.5-flash") -> Any:
    return rendered(Conversation(list(messages)), model=model)["contents"]


def test_a_conversation() -> None:
    talk = Conversation(
        [
            Message("system", [Text("Be kind.", cache=True)]),
            user(
                Text("See"), Media("image", "image/png", data="AAAA"), Media("image", url="https://e.org/a.jpg?x=.png")
            ),
            Message("system", [Text("Be brief.")], developer=True),
            assistant(Refusal("No."), Text("")),
        ],
        user="u",
        parallel_tools=False,
        stop=["END"],
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        choices=2,
        shape=Shape(SCHEMA, "name", True),
    )
    assert rendered(talk, limit=50) == {
        "systemInstruction": {"parts": [{"text": "Be kind."}, {"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "See"},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://e.org/a.jpg?x=.png"}},
                ],
            },
            {"role": "model", "parts": [{"text": "No."}]},
        ],
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 4,
            "seed": 3,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "stopSequences": ["END"],
            "candidateCount": 2,
            "responseMimeType": "application/json",
            "responseJsonSchema": json.loads(bytes(SCHEMA)),
            "maxOutputTokens": 50,
        },
    }
    assert talk.dropped == ["user", "parallel_tool_calls", "cache_control"]


def test_the_clients_own_limit_stands_without_a_clamp() -> None:
    assert rendered(Conversation([user(Text("Hi"))]))["generationConfig"] == {"maxOutputTokens": 777}


def test_results_stand_together_behind_their_calls() -> None:
    shown = contents(
        user(Text("Hi")),
        assistant(Text("Let me see."), ToolCall("a", "weather", '{"place":"Paris"}'), ToolCall("b", "time", "")),
        user(ToolResult("a", [Text("sun"), Media("image", "image/png", data="AAAA")])),
        user(ToolResult("b", [Text("late"), Text("!")], is_error=True), Text("Well?")),
    )
    assert shown[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {"functionCall": {"id": "a", "name": "weather", "args": {"place": "Paris"}}},
                {"functionCall": {"id": "b", "name": "time", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "a", "name": "weather", "response": {"output": "sun"}}},
                {"functionResponse": {"id": "b", "name": "time", "response": {"error": "late\n!"}}},
            ],
        },
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, {"text": "Well?"}]},
    ]


@pytest.mark.parametrize("arguments", ['{"half":', "[1]", '"text"', "free text"])
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str) -> None:
    shown = contents(user(Text("x")), assistant(ToolCall("a", "f", arguments)))
    assert shown[1]["parts"][0]["functionCall"]["args"] == {"input": arguments}


@pytest.mark.parametrize(
    ("model", "signed"), [("gemini-2.5-pro", False), ("gemini-3-flash-preview", True), ("gemini-pro-latest", True)]
)
def test_gemini_3_is_told_of_calls_that_others_made(model: str, signed: bool) -> None:
    calls = assistant(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    signatures = [part.get("thoughtSignature") for part in contents(user(Text("x")), calls, model=model)[1]["parts"]]
    assert signatures == [UNSIGNED if signed else None, None]
    own = contents(user(Text("x")), assistant(ToolCall("a", "f", "{}", signature=SIGNATURE)), model=model)
    assert own[1]["parts"][0]["thoughtSignature"] == SIGNATURE


def test_only_geminis_own_thoughts_go_to_it() -> None:
    talk = Conversation(
        [
            user(Text("x")),
            assistant(
                Thinking("theirs", signature="s", origin="anthropic"),
                Thinking("whose?"),
                Thinking("hm", signature=SIGNATURE, origin="gemini"),
                Text("Hi"),
                Thinking("", signature=SIGNATURE, origin="gemini"),
            ),
        ]
    )
    assert rendered(talk)["contents"][1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": SIGNATURE},
        {"text": "Hi"},
        {"text": "", "thoughtSignature": SIGNATURE},
    ]
    assert talk.dropped == ["thinking"]


@pytest.mark.parametrize(
    ("choice", "named", "calling"),
    [
        (None, None, None),
        ("auto", None, {"mode": "AUTO"}),
        ("none", None, {"mode": "NONE"}),
        ("required", None, {"mode": "ANY"}),
        (None, "weather", {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_tools(choice: Any, named: str | None, calling: Any) -> None:
    tools = [Tool("weather", "d", SCHEMA, strict=True), Tool("bare")]
    talk = Conversation([user(Text("x"))], tools=tools, tool_choice=choice, tool_named=named)
    body = rendered(talk)
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "d", "parametersJsonSchema": json.loads(bytes(SCHEMA))},
                {"name": "bare"},
            ]
        }
    ]
    assert body.get("toolConfig") == (None if calling is None else {"functionCallingConfig": calling})
    assert talk.dropped == ["tools.strict"]


@pytest.mark.parametrize(
    ("model", "effort", "tokens", "expected"),
    [
        ("gemini-2.5-flash", "high", None, {"thinkingBudget": 24576}),
        ("gemini-2.5-flash", "none", None, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", None, {"thinkingBudget": 128}),
        ("gemini-2.5-flash", "xhigh", 31_999, {"thinkingBudget": 24576}),
        ("gemini-2.5-pro", None, 31_999, {"thinkingBudget": 31_999}),
        ("gemini-3-pro-preview", "medium", None, {"thinkingLevel": "high"}),
        ("gemini-3.1-pro-preview", "medium", None, {"thinkingLevel": "medium"}),
        ("gemini-3-flash", "minimal", None, {"thinkingLevel": "minimal"}),
        ("gemini-3-pro-preview", "minimal", None, {"thinkingLevel": "low"}),
        ("gemini-flash-latest", "max", None, {"thinkingLevel": "high"}),
        ("gemini-3-flash", None, 0, {"thinkingLevel": "minimal"}),
        ("gemini-3-pro-preview", None, 5000, {"thinkingBudget": 5000}),
        ("gemini-2.0-flash", "high", None, None),
        ("gemma-3-27b-it", "high", None, None),
    ],
)
def test_how_much_to_think(model: str, effort: str | None, tokens: int | None, expected: Any) -> None:
    talk = Conversation([user(Text("x"))], effort=effort, think_tokens=tokens)
    assert rendered(talk, model=model)["generationConfig"].get("thinkingConfig") == expected
    assert talk.dropped == ([] if expected else ["reasoning_effort"])


def test_thoughts_are_shown_to_those_who_ask() -> None:
    talk = Conversation([user(Text("x"))], show_thoughts=True)
    assert rendered(talk)["generationConfig"]["thinkingConfig"] == {"includeThoughts": True}


def test_a_custom_tool_is_a_function_of_one_string() -> None:
    talk = Conversation([user(Text("x"))], tools=[Tool("run", "Run it.", custom=True)])
    ((declared,),) = (tool["functionDeclarations"] for tool in rendered(talk)["tools"])
    assert (declared["name"], declared["description"]) == ("run", "Run it.")
    assert declared["parametersJsonSchema"]["required"] == ["input"]


def test_a_system_message_alone_is_the_users_turn() -> None:
    body = rendered(Conversation([Message("system", [Text("Say hi.")])]))
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Say hi."}]}]
    assert "systemInstruction" not in body


@pytest.mark.parametrize(
    ("talk", "param"),
    [
        (Conversation([]), "messages"),
        (Conversation([user(Text("x"))], stop=list("abcdef")), "stop"),
        (Conversation([user(ToolResult("a", []))]), "messages"),
        (Conversation([user(Media("file"))]), "messages"),
        (Conversation([user(ToolCall("a", "f", "{}"))]), "messages"),
    ],
)
def test_what_gemini_cannot_carry_is_refused_by_name(talk: Conversation, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        rendered(talk)
    assert caught.value.param == param


TEXTS = st.text(min_size=1, max_size=8)
SPEECH = st.builds(Text, TEXTS) | st.builds(Thinking, TEXTS, signature=st.just(SIGNATURE), origin=st.just("gemini"))
TURNS = st.lists(st.tuples(st.lists(st.builds(Text, TEXTS), min_size=1, max_size=2), st.lists(SPEECH, max_size=3)))


@given(TURNS, st.lists(st.sampled_from(["a", "b", "c"]), unique=True), st.booleans())
def test_there_and_back(turns: list[tuple[list[Part], list[Part]]], ids: list[str], failed: bool) -> None:
    """What Gemini can carry is the same conversation when it is read again."""
    messages = [Message("system", [Text("Be kind.")])]
    for said, answer in turns:
        messages += [Message("user", said), Message("assistant", _without_runs(answer))]
    messages.append(user(Text("last")))
    if ids:
        messages.append(Message("assistant", [ToolCall(id, "f", f'{{"x":"{id}"}}') for id in ids]))
        messages.append(Message("user", [ToolResult(id, [Text(id)], is_error=failed, name="f") for id in ids]))
    messages = [message for message in messages if message.parts]
    talk = Conversation(
        _merged(messages),
        tools=[Tool("f", "d", SCHEMA)],
        tool_choice="required",
        shape=Shape(SCHEMA),
        stop=["x"],
        temperature=0.25,
        top_k=3,
        think_tokens=100,
        show_thoughts=True,
    )
    sent = DIALECT.render(parsed(), talk, model="gemini-2.5-flash", limit_tokens=9, stream=False)
    again = DIALECT.parse(sent.body, {}, {"model": "m"})
    assert again.output_limit == 9
    assert DIALECT.conversation(again) == talk


def _without_runs(parts: list[Part]) -> list[Part]:
    """Neighbouring texts come back as one: a client keeps a stream's pieces so."""
    return [
        part
        for place, part in enumerate(parts)
        if not place or not isinstance(part, Text) or type(parts[place - 1]) is not Text
    ]


def _merged(messages: list[Message]) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        if found and found[-1].role == message.role:
            found[-1].parts.extend(message.parts)
        else:
            found.append(message)
    return found


def test_the_table_gives_a_reason_for_everything() -> None:
    assert all(REFUSED.values())
    assert all(DROPPED.values())
    assert all(fate in ("carried", "dropped", "refused") and why for fate, why in UPSTREAM.values())
    assert not REFUSED.keys() & DROPPED.keys()
