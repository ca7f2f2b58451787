"""Tools in namespaces get flat names that lead back to them, whatever they are called."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai_responses.names import Named, ToolNames, flat_name
from tests.dialects.openai_responses.replies import request_of

PLAIN = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)


def names_of(tools: list[dict[str, Any]]) -> ToolNames:
    return ToolNames(request_of(tools=tools))


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name}


def namespace(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": list(tools)}


def test_flat_names() -> None:
    assert flat_name(None, "a") == flat_name("functions", "a") == "a"
    assert flat_name("docs", "find") == flat_name("docs__", "find") == "docs__find"
    assert flat_name("a.b", "c d") == "a_b__c_d"


def test_codexs_default_namespace_is_none() -> None:
    names = names_of([namespace("functions", function("exec"), {"type": "custom", "name": "patch"})])
    assert names.flat("functions", "exec") == names.flat(None, "exec") == "exec"
    assert names.named("patch") == Named(None, "patch", True)


def test_names_that_flatten_alike_are_told_apart() -> None:
    names = names_of([namespace("a", function("b")), namespace("a__", function("b")), function("a__b")])
    flats = [names.flat("a", "b"), names.flat("a__", "b"), names.flat(None, "a__b")]
    assert len(set(flats)) == 3
    assert flats[2] == "a__b"
    assert [names.named(flat) for flat in flats] == [
        Named("a", "b", False),
        Named("a__", "b", False),
        Named(None, "a__b", False),
    ]


def test_a_tool_no_longer_offered_keeps_its_flat_name() -> None:
    names = names_of([])
    assert names.flat("docs", "find") == "docs__find"
    assert names.named("docs__find") is None


@given(st.lists(st.tuples(st.none() | PLAIN | st.text(min_size=1, max_size=80), PLAIN), unique=True, max_size=12))
def test_every_name_leads_back(tools: list[tuple[str | None, str]]) -> None:
    known = [(None if space == "functions" else space, name) for space, name in tools]
    names = names_of([function(name) if space is None else namespace(space, function(name)) for space, name in tools])
    for space, name in known:
        flat = names.flat(space, name)
        assert names.named(flat) == Named(space, name, False)
        assert space is None or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", flat)
