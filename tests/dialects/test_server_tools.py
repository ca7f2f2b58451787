"""Which tools a provider would run and bill by the piece, as each dialect's parser finds them on offer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.core.errors import BadRequest
from app.core.types import SERVER_TOOLS, ChatRequest
from app.dialects import server_tools
from app.dialects.anthropic.parse import parse_messages
from app.dialects.gemini.parse import parse_generate
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.openai_responses.parse import parse_responses

HI = [{"role": "user", "content": "hi"}]
RAWS = msgspec.json.Decoder(list[msgspec.Raw])
FUNCTION = {"type": "function", "function": {"name": "web_search", "parameters": {}}}


def chat(**members: Any) -> ChatRequest:
    return parse_chat(json.dumps({"model": "m", "messages": HI, **members}).encode())


@pytest.mark.parametrize(
    ("members", "tools", "searches"),
    [
        ({}, (), False),
        ({"tools": [FUNCTION]}, (), False),
        ({"tools": [FUNCTION, {"type": "custom", "custom": {"name": "x"}}, {"no": "type"}, {"type": 5}]}, (), False),
        ({"functions": [{"name": "web_search"}]}, (), False),
        ({"web_search_options": {}}, ("web_search",), True),
        ({"web_search_options": {"search_context_size": "low"}, "tools": [FUNCTION]}, ("web_search",), True),
        ({"web_search_options": None}, (), False),
        ({"tools": [{"type": "openrouter:web_search"}, {"type": "web_search"}]}, ("web_search",), False),
        (
            {"tools": [{"type": "code_interpreter"}, {"type": "browser_search"}]},
            ("code_execution", "web_search"),
            False,
        ),
        ({"plugins": [{"id": "web", "max_results": 3}]}, ("web_search",), False),
        ({"plugins": [{"id": "file-parser"}]}, (), False),
        ({"search_parameters": {"mode": "auto"}}, ("web_search",), False),
        ({"search_parameters": {"mode": "off"}}, (), False),
        ({"enable_search": True}, ("web_search",), False),
        ({"enable_search": False}, (), False),
    ],
)
def test_chat(members: dict[str, Any], tools: tuple[str, ...], searches: bool) -> None:
    prompt = chat(**members).prompt
    assert (prompt.server_tools, prompt.searches) == (tools, searches)


def test_responses() -> None:
    offered = [
        {"type": "function", "name": "f"}, {"type": "custom", "name": "c"}, {"type": "local_shell"},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "web_search"}]},
        {"type": "web_search_preview_2025_03_11"}, {"type": "web_search"}, {"type": "file_search"},
        {"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "image_generation"}, {"type": "mcp"},
    ]  # fmt: skip
    request = parse_responses(json.dumps({"model": "m", "input": "hi", "tools": offered}).encode(), {})
    assert request.prompt.server_tools == ("web_search", "file_search", "code_execution", "image_generation")


@pytest.mark.parametrize(
    ("environment", "tools"),
    [
        (None, ()),
        ({"type": "local"}, ()),
        ("container_auto", ()),
        ({"type": "container_auto", "memory_limit": "4g"}, ("code_execution",)),
        ({"type": "container_reference", "container_id": "cntr_1"}, ("code_execution",)),
    ],
)
def test_a_shell_in_the_providers_container(environment: Any, tools: tuple[str, ...]) -> None:
    offered = [{"type": "shell", **({} if environment is None else {"environment": environment})}]
    request = parse_responses(json.dumps({"model": "m", "input": "hi", "tools": offered}).encode(), {})
    assert request.prompt.server_tools == tools


def test_messages() -> None:
    offered = [
        {"name": "f", "input_schema": {}}, {"type": "custom", "name": "web_search", "input_schema": {}},
        {"type": "bash_20250124", "name": "bash"}, {"type": "web_fetch_20250910", "name": "web_fetch"},
        {"type": "web_search_20260209", "name": "web_search"}, {"type": "code_execution_20250825", "name": "c"},
        {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-8"},
    ]  # fmt: skip
    body = {"model": "m", "messages": HI, "max_tokens": 5, "tools": offered}
    offers = parse_messages(json.dumps(body).encode(), {}).prompt.server_tools
    assert offers == ("web_search", "code_execution", "advisor")


@pytest.mark.parametrize("search", ["googleSearch", "google_search", "googleSearchRetrieval", "enterpriseWebSearch"])
def test_gemini(search: str) -> None:
    offered = [{search: {}, "urlContext": {}}, {"codeExecution": {}}, {"google_maps": {}}, {"functionDeclarations": []}]
    body = {"contents": [{"parts": [{"text": "hi"}]}], "tools": offered}
    path = {"model": "m", "verb": "generateContent"}
    assert parse_generate(json.dumps(body).encode(), path).prompt.server_tools == ("web_search", "maps")


def test_every_name_is_one_that_a_policy_can_price() -> None:
    tables = [table for table in vars(server_tools).values() if isinstance(table, dict)]
    ours = {name for table in tables for name in table.values() if isinstance(name, str) and name in SERVER_TOOLS}
    assert ours == set(SERVER_TOOLS)
    of_dialects = (server_tools.CHAT, server_tools.RESPONSES, server_tools.MESSAGES, server_tools.GEMINI)
    assert all(name in SERVER_TOOLS for table in of_dialects for name in table.values())


SEARCHES: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}


def messages(*tools: dict[str, Any]) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": HI, "tools": tools}
    return parse_messages(json.dumps(body).encode(), {})


def responses(**members: Any) -> ChatRequest:
    body = {"model": "m", "input": "hi", "tools": [{"type": "web_search"}], **members}
    return parse_responses(json.dumps(body).encode(), {})


def test_how_often_a_client_lets_them_be_used() -> None:
    advisor = {"type": "advisor_20260301", "name": "advisor", "max_uses": 2}
    assert messages(SEARCHES).prompt.tool_limits == ()
    assert messages({**SEARCHES, "max_uses": None}, advisor).prompt.tool_limits == (("advisor", 2),)
    # Fetching pages costs tokens alone.
    fetches = {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1}
    assert messages({**SEARCHES, "max_uses": 3}, fetches).prompt.tool_limits == (("web_search", 3),)
    assert responses().prompt.tool_limits == responses(max_tool_calls=None).prompt.tool_limits == ()
    assert responses(max_tool_calls=4).prompt.tool_limits == (("*", 4),)
    assert responses(max_tool_calls=4, tools=[]).prompt.tool_limits == ()


@pytest.mark.parametrize("most", [-1, "3", True, 1.5])
def test_a_limit_that_is_none_is_refused(most: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        messages(SEARCHES, {**SEARCHES, "max_uses": most})
    assert refused.value.param == "tools[1].max_uses"
    with pytest.raises(BadRequest) as refused:
        responses(max_tool_calls=most)
    assert refused.value.param == "max_tool_calls"


def test_a_lower_limit_changes_nothing_else() -> None:
    function = {"name": "f", "input_schema": {"type": "object", "properties": {}}, "max_uses": "as often as it likes"}
    fetches = {"type": "web_fetch_20250910", "name": "web_fetch"}
    code = {"type": "code_execution_20250825", "name": "code_execution"}
    offered = [function, SEARCHES, {**SEARCHES, "max_uses": 2}, {**SEARCHES, "max_uses": 9}, fetches, code]
    request = messages(*offered)
    limited = server_tools.with_uses(request, 3)
    before, after = ([bytes(t) for t in RAWS.decode(r.members["tools"])] for r in (request, limited))
    assert [json.loads(tool).get("max_uses") for tool in after] == [function["max_uses"], 3, 2, 3, None, None]
    assert [after[place] for place in (0, 2, 4, 5)] == [before[place] for place in (0, 2, 4, 5)]
    assert {name: raw for name, raw in limited.members.items() if name != "tools"} == {
        name: raw for name, raw in request.members.items() if name != "tools"
    }
    assert json.loads(bytes(request.members["tools"])) == offered  # the next attempt begins with the client's own


def test_a_lower_limit_of_all_calls() -> None:
    assert bytes(server_tools.with_uses(responses(), 3).members["max_tool_calls"]) == b"3"
    limited = server_tools.with_uses(responses(max_tool_calls=7, store=False), 3)
    assert list(limited.members) == ["model", "input", "tools", "max_tool_calls", "store"]
