"""What of a prompt is marked for Claude's cache, on a client's wish and without."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.conversation import Conversation, Message, Text, Tool, ToolCall, ToolResult
from app.core.types import ChatRequest
from app.dialects.base import Dialect
from app.dialects.openai_chat.dialect import DIALECT as CHAT
from app.dialects.openai_responses.dialect import DIALECT as RESPONSES
from tests.dialects.anthropic.texts import rendered

MARK = {"type": "ephemeral"}


def user(*parts: Any) -> Message:
    return Message("user", [Text(part) if isinstance(part, str) else part for part in parts])


def step(number: int, *, cache: bool = False) -> list[Message]:
    call, result = ToolCall(f"c{number}", "look", "{}"), ToolResult(f"c{number}", [Text("seen", cache)], cache=cache)
    return [Message("assistant", [call]), Message("user", [result])]


def agent(*messages: Message, caching: bool = True, **members: Any) -> Conversation:
    said = [Message("system", [Text("You are")]), *messages]
    return Conversation(said, **{"tools": [Tool("look")], "caching": caching, **members})


def marks(body: Any) -> list[str]:
    """Where the marks are, in the order of the prompt."""
    found = [f"tools.{i}" for i, tool in enumerate(body.get("tools", [])) if "cache_control" in tool]
    found += [f"system.{i}" for i, block in enumerate(body.get("system", [])) if "cache_control" in block]
    for place, turn in enumerate(body["messages"]):
        found += [f"{place}.{i}" for i, block in enumerate(turn["content"]) if "cache_control" in block]
    assert json.dumps(body).count('"cache_control"') == len(found) <= 4
    return found


def test_an_agents_prompt_is_marked() -> None:
    assert marks(rendered(agent(user("go")))) == ["tools.0", "system.0", "0.0"]
    later = rendered(agent(user("go"), *step(1), *step(2)))
    assert marks(later) == ["tools.0", "system.0", "2.0", "4.0"]
    assert later["tools"][0]["cache_control"] == MARK


def test_a_conversation_without_tools_is_marked_once_it_goes_on() -> None:
    assert marks(rendered(agent(user("go"), tools=[]))) == []
    spoken = [user("go"), Message("assistant", [Text("so")]), user("on")]
    assert marks(rendered(agent(*spoken, tools=[]))) == ["system.0", "0.0", "2.0"]
    assert marks(rendered(Conversation(spoken, caching=True))) == ["0.0", "2.0"]


@pytest.mark.parametrize("how", [{"tool_named": "look"}, {"tool_choice": "required"}, {"tool_choice": "none"}])
def test_a_tool_that_is_the_answers_shape_is_not_marked(how: dict[str, Any]) -> None:
    assert marks(rendered(agent(user("go"), **how), model="claude-sonnet-4-5")) == []
    assert marks(rendered(agent(user("go"), *step(1), **how), model="claude-sonnet-4-5"))


def test_only_claude_is_marked_and_only_where_its_cache_is_priced() -> None:
    assert marks(rendered(agent(user("go")), model="MiniMax-M3")) == []
    assert marks(rendered(agent(user("go"), caching=False))) == []


def test_the_clients_own_marks_stand_alone() -> None:
    assert marks(rendered(agent(user(Text("doc", cache=True), "go"), *step(1)))) == ["0.0"]


@pytest.mark.parametrize("caching", [True, False])
def test_of_too_many_marks_the_first_and_the_last_are_kept(caching: bool) -> None:
    said = [user(Text("go", cache=True)), *(message for number in range(4) for message in step(number, cache=True))]
    tools = [Tool("look", cache=True)]
    for model in ("claude-sonnet-5", "MiniMax-M3"):
        found = marks(rendered(agent(*said, tools=tools, caching=caching), model=model))
        assert found == ["tools.0", "4.0", "6.0", "8.0"]
    assert marks(rendered(agent(*said[:5], tools=tools))) == ["tools.0", "0.0", "2.0", "4.0"]


def test_a_conversation_can_be_rendered_again() -> None:
    talk = agent(user("go"), *step(1))
    assert rendered(talk) == rendered(talk)


@pytest.mark.parametrize(("dialect", "kind"), [(CHAT, "text"), (RESPONSES, "input_text")])
def test_openais_breakpoints_are_marks(dialect: Dialect, kind: str) -> None:
    content = [
        {"type": kind, "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": kind, "text": "b"},
    ]
    said = [{"role": "user", "content": content}]
    request: ChatRequest = dialect.parse(json.dumps({"model": "a", "messages": said, "input": said}).encode(), {}, {})
    assert marks(rendered(dialect.conversation(request))) == ["0.0"]
