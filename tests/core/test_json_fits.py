"""A "no" of `fits` is sure: it is checked against jsonschema, which knows all of the standard."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.json_fits import fits

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "integer"}},
        "mode": {"enum": ["r", "w"]},
        "deep": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["x"]}]},
    },
    "required": ["path"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "ok"),
    [
        ({"path": "a"}, True),
        ({"path": "a", "lines": [1, 2.0], "mode": "r", "deep": None}, True),
        ({}, False),
        ({"path": 1}, False),
        ({"path": "a", "lines": [1, "2"]}, False),
        ({"path": "a", "lines": [True]}, False),
        ({"path": "a", "mode": "x"}, False),
        ({"path": "a", "deep": {}}, False),
        ({"path": "a", "more": 1}, False),
        ([], False),
        ("a", False),
    ],
)
def test_what_models_get_wrong(value: Any, ok: bool) -> None:
    assert fits(value, SCHEMA) is ok


def test_geminis_words_and_what_is_not_known() -> None:
    assert fits({"a": None}, {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}})
    assert not fits({"a": 1}, {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}})
    assert fits(1, {"$ref": "#/$defs/x"})
    assert fits(1, {"type": "money", "format": "dollars"})
    assert fits(1, True)
    assert not fits(1, False)
    loop: dict[str, Any] = {"type": "array"}
    loop["items"] = loop
    value: list[Any] = []
    value.append(value)
    assert fits(value, loop)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.sampled_from(["", "a", "r"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
types = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
schemas: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.fixed_dictionaries({}, optional={"type": types | st.lists(types, min_size=1, unique=True)}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": types,
            "enum": st.lists(st.sampled_from(["a", "r", 2]), min_size=1, unique=True),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "required": st.lists(st.sampled_from("abc"), unique=True),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=6,
)


WORDS = ["type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties", "items",
         "anyOf", "oneOf", "allOf", "nullable", "$ref"]  # fmt: skip


@given(values, schemas)
def test_a_no_is_always_right(value: Any, schema: Any) -> None:
    if not fits(value, schema):
        assert not jsonschema.Draft202012Validator(schema).is_valid(value)


@given(values, st.dictionaries(st.sampled_from(WORDS), values, max_size=6))
@example({}, {"required": [[], {}]})
def test_no_schema_is_too_odd(value: Any, schema: Any) -> None:
    """Clients write schemas, and an answer that is looked at after its end must not fail for one."""
    assert fits(value, schema) in (True, False)
