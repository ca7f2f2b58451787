"""Conversations of other dialects for a Messages upstream: its rules on turns, limits and models."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from app.core.conversation import (
    Conversation,
    Media,
    Message,
    Part,
    Refusal,
    Role,
    Shape,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from app.core.errors import BadRequest
from app.core.types import ChatRequest, Prompt
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.anthropic.schema import taken_schema
from app.dialects.anthropic.table import UNCARRIED
from app.dialects.anthropic.turns import safe_id
from tests.dialects.anthropic.texts import rendered


def turn(role: str, *parts: Part | str) -> Message:
    return Message(cast(Role, role), [Text(part) if isinstance(part, str) else part for part in parts])


def chat(*messages: Message, **wishes: Any) -> Conversation:
    return Conversation(list(messages) or [turn("user", "Hi")], **wishes)


def turns(*messages: Message, model: str = "claude-sonnet-4-5") -> list[tuple[str, list[Any]]]:
    """The turns as rendered: role and blocks, text blocks as their text."""
    told = rendered(chat(*messages), model)
    return [
        (found["role"], [block.get("text", block) if block["type"] == "text" else block for block in found["content"]])
        for found in told["messages"]
    ]


class TestTurns:
    def test_turns_of_one_role_are_one(self) -> None:
        assert turns(turn("user", "a"), turn("user", "b"), turn("assistant", "c"), turn("assistant", "d")) == [
            ("user", ["a", "b"]),
            ("assistant", ["c", "d"]),
        ]

    def test_results_come_first_and_together(self) -> None:
        call = turn("assistant", ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}"))
        one, two = (turn("user", ToolResult(key, [Text(key)])) for key in ("1", "2"))
        found = turns(turn("user", "go"), call, one, turn("user", "by the way"), two)
        assert [block if isinstance(block, str) else block["tool_use_id"] for block in found[2][1]] == [
            "1",
            "2",
            "by the way",
        ]

    def test_empty_text_is_no_block(self) -> None:
        found = turns(turn("user", "", "a"), turn("assistant", ""), turn("user", ToolResult("1", [Text("")])))
        assert found == [("user", [{"type": "tool_result", "tool_use_id": "1"}, "a"])]

    @pytest.mark.parametrize("messages", [[turn("system", "s")], [turn("assistant", "a"), turn("user", "b")]])
    def test_the_user_begins(self, messages: list[Message]) -> None:
        assert turns(*messages)[0] == ("user", ["(continued)"])

    def test_system_messages_gather_at_the_top(self) -> None:
        told = rendered(
            chat(turn("system", "a"), turn("user", "b"), turn("system", "c"), turn("user", "d")), "claude-opus-4-5"
        )
        assert [block["text"] for block in told["system"]] == ["a", "c"]
        assert len(told["messages"]) == 1

    def test_a_new_model_takes_them_where_they_are(self) -> None:
        told = rendered(chat(turn("system", "a"), turn("user", "b"), turn("system", "c")), "claude-opus-5")
        assert [block["text"] for block in told["system"]] == ["a"]
        assert [found["role"] for found in told["messages"]] == ["user", "system"]
        misplaced = chat(turn("user", "b"), turn("system", "c"), turn("user", "d"))
        assert [block["text"] for block in rendered(misplaced, "claude-opus-5")["system"]] == ["c"]

    def test_a_last_turn_of_the_assistant_is_gone_on_with(self) -> None:
        assert turns(turn("user", "a"), turn("assistant", "The answer is \n"))[-1] == ("assistant", ["The answer is"])
        assert turns(turn("user", "a"), turn("assistant", " "))[-1] == ("user", ["a"])
        with pytest.raises(BadRequest) as caught:
            turns(turn("user", "a"), turn("assistant", "The"), model="claude-opus-5")
        assert caught.value.param == "messages"

    def test_only_its_own_thinking_goes_on(self) -> None:
        thoughts: list[Part] = [
            Thinking("a", signature="s", origin="anthropic"),
            Thinking(encrypted="e", origin="anthropic"),
            Thinking("b", signature="s", origin="gemini"),
            Thinking("c"),
        ]
        found = chat(turn("user", "x"), turn("assistant", *thoughts, "y"), turn("user", "z"))
        assert rendered(found)["messages"][1]["content"] == [
            {"type": "thinking", "thinking": "a", "signature": "s"},
            {"type": "redacted_thinking", "data": "e"},
            {"type": "text", "text": "y"},
        ]
        rendered(found)
        assert found.dropped == ["messages.thinking"]

    def test_a_refusal_is_text(self) -> None:
        assert turns(turn("user", "a"), turn("assistant", Refusal("no")), turn("user", "b"))[1] == ("assistant", ["no"])


class TestCalls:
    @pytest.mark.parametrize(
        ("call", "given"),
        [
            (ToolCall("a", "f", '{"x": 1}'), {"x": 1}),
            (ToolCall("a", "f", ""), {}),
            (ToolCall("a", "f", " "), {}),
            (ToolCall("a", "f", '{"x'), {"input": '{"x'}),
            (ToolCall("a", "f", "[1]"), {"input": "[1]"}),
            (ToolCall("a", "f", "*** Begin Patch", custom=True), {"input": "*** Begin Patch"}),
            (ToolCall("a", "f", "{}", custom=True), {"input": "{}"}),
        ],
    )
    def test_arguments_are_an_object(self, call: ToolCall, given: Any) -> None:
        assert turns(turn("user", "x"), turn("assistant", call), turn("user", "y"))[1][1][0]["input"] == given

    def test_ids_in_the_letters_that_are_taken(self) -> None:
        assert safe_id("call_Ab-9") == "call_Ab-9"
        one, two = safe_id("functions.f:0"), safe_id("functions.f_0")
        assert one != two
        assert one.startswith("functions_f_0_")
        found = turns(
            turn("user", "x"), turn("assistant", ToolCall("a.b", "f", "{}")), turn("user", ToolResult("a.b", []))
        )
        assert found[1][1][0]["id"] == found[2][1][0]["tool_use_id"] == safe_id("a.b")

    def test_results_hold_images_and_errors(self) -> None:
        result = ToolResult("a", [Text("x"), Media("image", "image/png", "AA")], is_error=True)
        assert turns(turn("user", result))[0][1][0] == {
            "type": "tool_result",
            "tool_use_id": "a",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
            ],
            "is_error": True,
        }

    def test_tools(self) -> None:
        schema, grammar = msgspec.Raw(b'{"type":"object" }'), msgspec.Raw(b'{"type":"grammar"}')
        tools = [Tool("a", "does", schema, strict=True), Tool("b"), Tool("c", "edits", custom=True, format=grammar)]
        told = rendered(found := chat(tools=tools, tool_choice="required", parallel_tools=False), "claude-opus-5")
        assert told["tools"][0] == {"name": "a", "description": "does", "input_schema": {"type": "object"}}
        assert told["tools"][1]["input_schema"] == {"type": "object", "properties": {}}
        assert told["tools"][2]["input_schema"]["required"] == ["input"]
        assert told["tools"][2]["description"] == 'edits\nThe input is free text: {"type":"grammar"}'
        assert told["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        assert found.dropped == ["tools.strict"]
        assert rendered(chat(tools=tools, parallel_tools=False))["tool_choice"]["type"] == "auto"
        assert "tool_choice" not in rendered(chat(tools=tools))
        assert "tool_choice" not in rendered(chat(tool_choice="auto")), "a choice without tools is refused"

    @pytest.mark.parametrize("wish", [{"tool_choice": "required"}, {"tool_named": "a"}])
    def test_a_model_that_cannot_be_made_to_call_a_tool_is_not_asked_to(self, wish: dict[str, Any]) -> None:
        asked = chat(tools=[Tool("a")], **wish)
        for model in ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-mythos-5-1"):
            with pytest.raises(BadRequest) as caught:
                rendered(asked, model)
            assert caught.value.param == "tool_choice"
        for model in ("claude-haiku-5-5", "claude-opus-5", "claude-fable-5", "claude-sonnet-4-6", "glm-5"):
            assert rendered(asked, model)["tool_choice"]["type"] in ("any", "tool")

    def test_arguments_are_said_to_be_an_object(self) -> None:
        bare = Tool("a", schema=msgspec.Raw(b'{"properties": {}}'))
        assert rendered(chat(tools=[bare]))["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
        with pytest.raises(BadRequest) as caught:
            rendered(chat(tools=[Tool("a", schema=msgspec.Raw(b"[]"))]))
        assert caught.value.param == "tools"


class TestMedia:
    @pytest.mark.parametrize(
        ("media", "expected"),
        [
            (Media("image", data="/9j/4AAQ"), ("image", "base64", "image/jpeg")),
            (Media("image", data="R0lGODlh"), ("image", "base64", "image/gif")),
            (Media("image", data="UklGRg"), ("image", "base64", "image/webp")),
            (Media("image", data="xxxx"), ("image", "base64", "image/png")),
            (Media("image", "image/jpg", data="xxxx"), ("image", "base64", "image/jpeg")),
            (Media("image", url="https://x/y"), ("image", "url", None)),
            (Media("file", "application/pdf", data="JVBE"), ("document", "base64", "application/pdf")),
            (Media("file", data="JVBE"), ("document", "base64", "application/pdf")),
            (Media("file", url="https://x/y.pdf"), ("document", "url", None)),
            (Media("file", "text/csv", data="YSxi"), ("document", "text", "text/plain")),
        ],
    )
    def test_kinds(self, media: Media, expected: tuple[Any, ...]) -> None:
        block = turns(turn("user", media))[0][1][0]
        assert (block["type"], block["source"]["type"], block["source"].get("media_type")) == expected

    def test_text_files_are_decoded(self) -> None:
        block = turns(turn("user", Media("file", "text/csv", "YSxi", name="t.csv")))[0][1][0]
        assert (block["source"]["data"], block["title"]) == ("a,b", "t.csv")

    @pytest.mark.parametrize(
        "media",
        [
            Media("audio", "audio/wav", "AA"),
            Media("file", "application/zip", "AA"),
            Media("file", "text/plain", "/w=="),
            Media("file", "text/plain", "?"),
            Media("image"),
        ],
    )
    def test_what_is_not_taken(self, media: Media) -> None:
        with pytest.raises(BadRequest) as caught:
            turns(turn("user", media))
        assert caught.value.param == "messages"


class TestLimits:
    def test_the_limit_is_always_there(self) -> None:
        asked = ChatRequest({}, "auto", False, False, 1, 77, ("max_tokens",), Prompt(), dialect="openai_chat")
        assert rendered(chat(), limit=5, request=asked)["max_tokens"] == 5
        assert rendered(chat(), limit=None, request=asked)["max_tokens"] == 77
        assert rendered(chat(), limit=None)["max_tokens"] == 32_000
        assert rendered(chat(), "claude-3-haiku-20240307", limit=None)["max_tokens"] == 4096

    def test_the_request_itself(self) -> None:
        request = ChatRequest({}, "auto", True, False, 1, None, (), Prompt())
        sent = DIALECT.render(request, chat(), model="claude-opus-5", limit_tokens=9, stream=True)
        assert (sent.path, sent.headers) == ("/messages", {"anthropic-version": "2023-06-01"})
        assert msgspec.json.decode(sent.body)["stream"] is True

    def test_several_answers_are_refused(self) -> None:
        with pytest.raises(BadRequest) as caught:
            rendered(chat(choices=2))
        assert caught.value.param == "n"


class TestWishes:
    @pytest.mark.parametrize(
        ("model", "wishes", "kept", "dropped"),
        [
            ("claude-haiku-4-5", {"temperature": 1.7}, {"temperature": 1.0}, ["temperature"]),
            ("claude-haiku-4-5", {"temperature": 0, "top_p": 0.5}, {"temperature": 0.0}, ["top_p"]),
            ("claude-haiku-4-5", {"top_p": 0.5, "top_k": 3}, {"top_p": 0.5, "top_k": 3}, []),
            ("claude-3-5-haiku-latest", {"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}, []),
            ("claude-opus-4-7", {"temperature": 0, "top_p": 0.5, "top_k": 1}, {}, ["temperature", "top_p", "top_k"]),
            ("claude-haiku-4-5", {"temperature": 0, "effort": "high"}, {}, ["temperature"]),
            ("glm-5", {"temperature": 0}, {"temperature": 0.0}, []),
            ("glm-5", {"seed": 1, "presence_penalty": 0.0}, {}, ["seed", "presence_penalty"]),
            ("glm-5", {"stop": [" ", "END"]}, {"stop_sequences": ["END"]}, ["stop"]),
            ("glm-5", {"user": "u" * 300}, {}, ["user"]),
        ],
    )
    def test_sampling(self, model: str, wishes: Any, kept: Any, dropped: list[str]) -> None:
        found = chat(**wishes)
        told = rendered(found, model, limit=20_000)
        names = ("temperature", "top_p", "top_k", "stop_sequences", "metadata")
        assert {name: told[name] for name in names if name in told} == kept
        assert found.dropped == dropped
        assert set(dropped) <= UNCARRIED.keys()

    @pytest.mark.parametrize(
        ("model", "wishes", "limit", "thinking", "effort"),
        [
            ("claude-opus-5-5", {}, 9000, None, None),
            ("claude-opus-5-5", {"effort": "none"}, 9000, None, "low"),
            ("claude-fable-5", {"effort": "none"}, 9000, None, "low"),
            ("claude-sonnet-5-5", {"effort": "none"}, 9000, {"type": "between_tools"}, None),
            ("claude-sonnet-5", {"effort": "none"}, 9000, {"type": "disabled"}, None),
            ("claude-haiku-5-5", {"think_tokens": 0}, 9000, {"type": "disabled"}, None),
            ("claude-opus-4-8", {"effort": "none"}, 9000, None, None),
            ("claude-haiku-4-5", {"effort": "none"}, 9000, None, None),
            ("claude-sonnet-4-6", {"effort": "max"}, 9000, {"type": "adaptive", "display": "summarized"}, "max"),
            ("claude-opus-5-5", {"effort": "minimal"}, 9000, {"type": "adaptive", "display": "summarized"}, "low"),
            ("claude-opus-5-5", {"effort": "xhigh"}, 9000, {"type": "adaptive", "display": "summarized"}, "xhigh"),
            ("claude-opus-4-6", {"effort": "xhigh"}, 9000, {"type": "adaptive", "display": "summarized"}, "high"),
            ("claude-opus-5-5", {"think_tokens": 3000}, 9000, {"type": "adaptive", "display": "summarized"}, "medium"),
            ("claude-opus-5-5", {"think_tokens": 90_000}, 9000, {"type": "adaptive", "display": "summarized"}, "high"),
            ("claude-opus-5-5", {"think_tokens": 0, "show_thoughts": True}, 9000, None, "low"),
            ("claude-opus-5-5", {"think_tokens": -1}, 9000, {"type": "adaptive", "display": "summarized"}, None),
            ("claude-opus-5-5", {"show_thoughts": True}, 9000, {"type": "adaptive", "display": "summarized"}, None),
            ("claude-haiku-4-5", {"effort": "high"}, 9000, {"type": "enabled", "budget_tokens": 4500}, None),
            ("claude-haiku-4-5", {"effort": "low"}, 90_000, {"type": "enabled", "budget_tokens": 2048}, None),
            ("claude-haiku-4-5", {"effort": "high"}, 2000, None, None),
            ("claude-haiku-4-5", {"think_tokens": 3000}, 3500, {"type": "enabled", "budget_tokens": 3000}, None),
            ("claude-haiku-4-5", {"think_tokens": 3000}, 2500, {"type": "enabled", "budget_tokens": 2499}, None),
            ("claude-haiku-4-5", {"think_tokens": 200}, 2500, {"type": "enabled", "budget_tokens": 1024}, None),
            ("claude-3-5-haiku-latest", {"effort": "high"}, 9000, None, None),
            ("claude-opus-5", {"effort": "high", "tools": [Tool("a")], "tool_named": "a"}, 9000, None, "high"),
        ],
    )
    def test_thinking(self, model: str, wishes: Any, limit: int, thinking: Any, effort: str | None) -> None:
        told = rendered(chat(**wishes), model, limit)
        assert (told.get("thinking"), told.get("output_config", {}).get("effort")) == (thinking, effort)

    def test_an_open_loop_goes_on_as_it_began(self) -> None:
        def thinks(*thoughts: Part) -> bool:
            loop = (
                turn("user", "x"),
                turn("assistant", *thoughts, ToolCall("a", "f", "{}")),
                turn("user", ToolResult("a", [])),
            )
            return "thinking" in rendered(chat(*loop, effort="low"), "claude-haiku-4-5", 9000)

        assert thinks(Thinking("t", signature="s", origin="anthropic"))
        assert not thinks()
        assert not thinks(Thinking("t", signature="s", origin="gemini"))

    def test_shapes(self) -> None:
        schema = msgspec.Raw(b'{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false}')
        told = rendered(chat(shape=Shape(schema, "n", True)))
        assert told["output_config"]["format"] == {"type": "json_schema", "schema": msgspec.json.decode(schema)}
        told = rendered(chat(turn("system", "s"), turn("user", "x"), shape=Shape()))
        assert told["system"][1]["text"].startswith("Answer with one JSON object")
        assert "output_config" not in told


def test_schemas_are_made_as_the_api_takes_them() -> None:
    given = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "how many"},
            "s": {"type": "string", "format": "uuid", "pattern": "^a"},
            "t": {"type": "string", "format": "weird"},
            "l": {"type": "array", "items": {"type": "object", "properties": {}}, "minItems": 1, "maxItems": 3},
            "u": {"oneOf": [{"type": "object"}, {"$ref": "#/$defs/d"}]},
            "minimum": {"type": "number"},
        },
        "$defs": {"d": {"type": "object", "additionalProperties": True}},
    }
    assert msgspec.json.decode(taken_schema(msgspec.Raw(msgspec.json.encode(given)))) == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": "how many\n\n{minimum: 1}"},
            "s": {"type": "string", "format": "uuid", "description": "{pattern: ^a}"},
            "t": {"type": "string", "description": "{format: weird}"},
            "l": {
                "type": "array",
                "items": {"type": "object", "properties": {}, "additionalProperties": False},
                "minItems": 1,
                "description": "{maxItems: 3}",
            },
            "u": {"anyOf": [{"type": "object", "additionalProperties": False}, {"$ref": "#/$defs/d"}]},
            "minimum": {"type": "number"},
        },
        "$defs": {"d": {"type": "object", "additionalProperties": False}},
        "additionalProperties": False,
    }
    untouched = msgspec.Raw(b'{ "type":"string" }')
    assert bytes(taken_schema(untouched)) == bytes(untouched)
