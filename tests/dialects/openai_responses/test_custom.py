"""Custom tools as functions, and the way back."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai_responses.custom import InputText, as_arguments, as_function, input_of


def fed(pieces: list[str]) -> tuple[list[str], str]:
    text = InputText()
    told = [text.feed(piece) for piece in pieces]
    rest, whole = text.close()
    assert "".join(told) + rest == whole
    return told, whole


def test_a_custom_tool_as_a_function() -> None:
    tool = as_function("patch", "Edits.", msgspec.Raw(b'{"type":"grammar"}'))
    assert (tool.custom, tool.format, tool.name) == (False, None, "patch")
    assert tool.description == 'Edits.\n\nThe input must have this format: {"type":"grammar"}'
    assert json.loads(bytes(tool.schema or b""))["required"] == ["input"]
    assert as_function("patch", None, None).description is None


@given(st.text(), st.integers(1, 7), st.booleans(), st.sampled_from(["", " ", "\n"]))
def test_what_is_told_is_always_a_prefix_and_in_the_end_all(text: str, step: int, ascii_only: bool, space: str) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only).replace(": ", f"{space}:{space}", 1)
    told, whole = fed([arguments[at : at + step] for at in range(0, len(arguments), step)])
    assert whole == text
    assert "".join(told) == text
    assert input_of(as_arguments(text)) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"patch": "x"}', "x"),
        ('"x"', "x"),
        ('{"a": "x", "input": "y"}', "y"),
        ("*** x", "*** x"),
        ('{"input": 3}', '{"input": 3}'),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ("", ""),
        ('{"input": ""}', ""),
        ('{"input": "a\nb"}', "a\nb"),
        ('{"input": "a\x00b\x1f"}', "a\x00b\x1f"),
        ('{"input": "half', "half"),
        ('{"input": "x\\ud83d', "x\\ud83d"),
        ('{"input": "x\\q"}', "x\\q"),
        ('{"input": "x\\udc00y"}', "x?y"),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_however_the_model_has_put_it(arguments: str, text: str, step: int) -> None:
    _, whole = fed([arguments[at : at + step] for at in range(0, len(arguments), step)])
    assert whole == text
