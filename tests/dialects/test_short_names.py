"""Tools whose names the provider's dialect does not take travel under others, there and back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.conversation import Conversation, Message, Text, Tool, ToolCall, ToolResult
from app.core.events import CallBegins
from app.core.sse import Frame
from app.dialects.openai_chat.read import ChatReader
from app.dialects.registry import CHAT, GEMINI, MESSAGES, RESPONSES
from app.dialects.short_names import RenamingReader, shortened

LONG = "mcp__plugin_atlassian-mcp-remote_atlassian__getJiraProjectIssueTypesMetadata"
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def talk(*names: str) -> Conversation:
    """A conversation that offers these tools, and has called each."""
    calls = [ToolCall(f"c{place}", name, "{}") for place, name in enumerate(names)]
    results = [ToolResult(call.id, [Text("ok")], name=call.name) for call in calls]
    messages = [Message("user", [Text("Hi")]), Message("assistant", [*calls]), Message("user", [*results])]
    return Conversation(messages, tools=[Tool(name) for name in names], tool_named=names[0] if names else None)


def names_in(found: Conversation) -> list[str | None]:
    """The names in the order in which `talk` puts them."""
    parts = [part for message in found.messages for part in message.parts if isinstance(part, ToolCall | ToolResult)]
    return [found.tool_named, *(tool.name for tool in found.tools), *(part.name for part in parts)]


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, GEMINI, MESSAGES])
def test_names_that_are_taken_stay(dialect: str) -> None:
    found = talk("a", "Read_File-2", "x" * 64)
    assert shortened(found, dialect) == {}
    assert names_in(found) == names_in(talk("a", "Read_File-2", "x" * 64))


@pytest.mark.parametrize(
    ("name", "refusing"),
    [
        (LONG, {CHAT, RESPONSES, GEMINI}),
        ("x" * 129, {CHAT, RESPONSES, GEMINI, MESSAGES}),
        ("files.read", {CHAT, RESPONSES, MESSAGES}),
        ("2fa", {GEMINI}),
        ("Zürich/Wetter", {CHAT, RESPONSES, GEMINI, MESSAGES}),
    ],
)
def test_others_get_one_that_is(name: str, refusing: set[str]) -> None:
    for dialect in (CHAT, RESPONSES, GEMINI, MESSAGES):
        found = talk(name, "kept")
        back = shortened(found, dialect)
        assert set(back.values()) == ({name} if dialect in refusing else set())
        first, *_ = names_in(found)
        assert first is not None
        assert names_in(found) == [first, first, "kept", first, "kept", first, "kept"]
        assert back.get(first, first) == name
        if dialect in refusing:
            assert PLAIN.fullmatch(first)
            again = talk("other", name)
            shortened(again, dialect)
            assert again.tools[1].name == first, "a name does not hang on the others, or prompt caches would"


@given(st.lists(st.text(max_size=200), max_size=6, unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    found = talk(*names)
    back = shortened(found, CHAT)
    assert [back.get(tool.name, tool.name) for tool in found.tools] == names
    assert all(PLAIN.fullmatch(tool.name) or tool.name == "" or tool.name in names for tool in found.tools)


def test_a_call_comes_back_under_its_own_name() -> None:
    found = talk(LONG, "kept")
    back = shortened(found, CHAT)

    def chunk(index: int, name: str) -> dict[str, Any]:
        call = {"index": index, "id": f"c{index}", "function": {"name": name, "arguments": "{}"}}
        return {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    reader = RenamingReader(ChatReader(), back)
    data = [json.dumps(chunk(place, tool.name)).encode() for place, tool in enumerate(found.tools)]
    events = [event for one in data for event in reader.read(Frame(one, one))]
    assert [event.name for event in events if isinstance(event, CallBegins)] == [LONG, "kept"]
    whole = json.loads(data[0])
    whole["choices"][0]["message"] = whole["choices"][0].pop("delta")
    events = RenamingReader(ChatReader(), back).whole(json.dumps(whole).encode())
    assert [event.name for event in events if isinstance(event, CallBegins)] == [LONG]
