"""The checks of `bursar probe`: what they take for right, and that none can hang."""

from __future__ import annotations

import signal
import time
from typing import Any

import msgspec
import pytest

from app.commands import probe_checks
from app.commands.probe_checks import Check, TooSlow, is_right

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}


def check(**said: Any) -> Check:
    found = msgspec.convert(said, Check)
    assert found.fault() is None
    return found


def calling(name: str, arguments: str) -> dict[str, Any]:
    return {"content": None, "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("said", "text", "right"),
    [
        ({"equals": "B"}, " B\n", True),
        ({"equals": "B"}, "b", False),
        ({"equals": "B", "ignore_case": True}, "b", True),
        ({"equals": "B"}, "B.", False),
        ({"contains": "Paris"}, "It is Paris.", True),
        ({"contains": ["Paris", "Rome"]}, "It is Paris.", False),
        ({"contains": ["paris", "ROME"], "ignore_case": True}, "Rome or Paris", True),
        ({"matches": r"^\d{4}-\d\d$"}, "2024-05", True),
        ({"matches": r"^\d{4}-\d\d$"}, "in 2024-05", False),
        ({"matches": "yes", "ignore_case": True}, "YES", True),
        ({"number": 391}, "17 times 23 is 391.", True),
        ({"number": 391}, "391 is 17 times 23", False),
        ({"number": 1234567.5}, "so **$1,234,567.50**", True),
        ({"number": -4}, "x = \u22124", True),
        ({"number": 4}, "between 3-4", True),
        ({"number": 4}, "H2O has 4, as v4 says", True),
        ({"number": 2.0e8}, "about 2e8 m/s", True),
        ({"number": {"value": 3.14159, "tolerance": 0.002}}, "3.14", True),
        ({"number": {"value": 3.14159, "tolerance": 0.001}}, "3.14", False),
        ({"number": 0.3}, "0.1 + 0.2 = 0.30000000000000004", True),
        ({"number": 1}, "none", False),
        ({"number": 12}, "1,2", False),
        ({"json_schema": SCHEMA}, '{"a": 1}', True),
        ({"json_schema": SCHEMA}, 'Here:\n```json\n{"a": 1}\n```\nas you asked', True),
        ({"json_schema": SCHEMA}, '{"a": "1"}', False),
        ({"json_schema": SCHEMA}, '{"a": 1', False),
        ({"json_schema": SCHEMA}, "", False),
        ({"contains": "a", "number": 2}, "a 2", True),
        ({"contains": "a", "number": 2}, "b 2", False),
    ],
)
def test_what_is_right(said: dict[str, Any], text: str, right: bool) -> None:
    assert is_right(check(**said), {"content": text}) is right


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ('{"city": "Rome", "days": 2}', True),
        ('{"city": "Rome", "days": 2.0}', True),
        ('{"city": "Rome"}', False),
        ('{"city": "Rome", "days": 2, "unit": "C"}', True),
        ('{"city": "Ro', False),
        ("[]", False),
    ],
)
def test_calls_of_tools(arguments: str, right: bool) -> None:
    wanted = check(tool_call={"name": "weather", "arguments": {"city": "Rome", "days": 2}})
    assert is_right(wanted, calling("weather", arguments)) is right
    assert not is_right(wanted, calling("forecast", arguments))
    assert not is_right(wanted, {"content": "weather Rome 2"})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"content": None},
        {"content": 7},
        {"content": [{"type": "text"}, "x"]},
        {"tool_calls": [None, {"function": 1}]},
    ],
)
def test_what_is_no_answer_is_wrong(message: dict[str, Any]) -> None:
    checks: list[dict[str, Any]] = [
        {"contains": "x"}, {"number": 1}, {"json_schema": {}}, {"tool_call": {"name": "f"}},
    ]  # fmt: skip
    assert not any(is_right(check(**said), message) for said in checks)


def test_parts_are_one_text() -> None:
    assert is_right(check(equals="ab"), {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})


def test_an_expression_that_would_take_ages_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_checks, "MOST_S", 0.05)
    before, began_s = signal.getsignal(signal.SIGALRM), time.monotonic()
    with pytest.raises(TooSlow):
        is_right(check(matches=r"^(a+)+$"), {"content": "a" * 60 + "b"})
    assert time.monotonic() - began_s < 20.0
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    assert is_right(check(matches=r"^(a+)+$"), {"content": "aaa"})


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, "a check is one of"),
        ({"ignore_case": True}, "a check is one of"),
        ({"matches": "("}, "not a regular expression"),
        ({"matches": "a{99999999999}"}, "not a regular expression"),
        ({"matches": "(" * 5_000 + ")" * 5_000}, "not a regular expression"),
        ({"contains": []}, "an empty list"),
        ({"number": float("nan")}, "no answer is that"),
        ({"number": {"value": float("inf")}}, "no answer is that"),
        ({"number": {"value": 1, "tolerance": -1}}, "must not be negative"),
    ],
)
def test_what_is_no_check(said: dict[str, Any], fault: str) -> None:
    assert fault in (msgspec.convert(said, Check).fault() or "")
