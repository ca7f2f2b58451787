"""What a program can say of an answer without a model: the checks of `bursar probe`, and how long one may take."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final

import msgspec

from app.core.json_fits import fits
from app.core.raw import UNREADABLE

MOST_S: Final = 1.0
"""A regular expression can take ages on an answer that its author did not think of."""
_NUMBER: Final = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_FENCED: Final = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)
_CLOSE: Final = 1e-9
"""Of a number's size: what reading decimals may change."""


class Number(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The last number in the answer is `value`, give or take `tolerance`."""

    value: float
    tolerance: float = 0.0


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The answer calls this tool, with these arguments among its own."""

    name: str
    arguments: dict[str, Any] = {}


class Check(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What an answer must be: all that is set. `equals`: the text but for white space around it; `contains`: one text,
    or all of several; `matches`: somewhere; `json_schema`: the text is JSON that fits, in a fence of code or not."""

    equals: str | None = None
    contains: str | list[str] | None = None
    matches: str | None = None
    number: float | Number | None = None
    json_schema: dict[str, Any] | None = None
    tool_call: ToolCall | None = None
    ignore_case: bool = False

    def fault(self) -> str | None:
        """What is wrong with it; None where nothing is."""
        said = (self.equals, self.contains, self.matches, self.number, self.json_schema, self.tool_call)
        if all(one is None for one in said):
            return "a check is one of equals, contains, matches, number, json_schema and tool_call, or several"
        if self.contains is not None and not ([self.contains] if isinstance(self.contains, str) else self.contains):
            return "contains: an empty list is in every answer"
        if isinstance(self.number, Number) and not self.number.tolerance >= 0.0:
            return "number.tolerance must not be negative"
        number = self.number.value if isinstance(self.number, Number) else self.number
        if number is not None and not isfinite(number):
            return "number: no answer is that"
        try:
            re.compile(self.matches or "")
        except (re.error, OverflowError, RecursionError) as error:
            return f"matches: not a regular expression: {error}"
        return None


class TooSlow(Exception):
    """The check took longer than MOST_S: it says nothing of the answer."""


def is_right(check: Check, message: Mapping[str, Any]) -> bool:
    """Whether the message of a chat completion is what it must be. Raises TooSlow; in the main thread only."""
    text = _text(message)
    with _within(MOST_S):
        return (
            _equals(check, text)
            and _contains(check, text)
            and (check.matches is None or re.search(check.matches, text, _flags(check)) is not None)
            and _is_number(check.number, text)
            and (check.json_schema is None or _fits(text, check.json_schema))
            and (check.tool_call is None or _calls(check.tool_call, message))
        )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _flags(check: Check) -> int:
    return re.IGNORECASE if check.ignore_case else 0


def _cased(check: Check, text: str) -> str:
    return text.casefold() if check.ignore_case else text


def _equals(check: Check, text: str) -> bool:
    return check.equals is None or _cased(check, text).strip() == _cased(check, check.equals).strip()


def _contains(check: Check, text: str) -> bool:
    if check.contains is None:
        return True
    parts = [check.contains] if isinstance(check.contains, str) else check.contains
    text = _cased(check, text)
    return all(_cased(check, part) in text for part in parts)


def _is_number(number: float | Number | None, text: str) -> bool:
    if number is None:
        return True
    found = _NUMBER.findall(text)
    if not found:
        return False
    wanted = number if isinstance(number, Number) else Number(number)
    said = float(found[-1].replace(",", "").replace("\u2212", "-"))
    return abs(said - wanted.value) <= wanted.tolerance + _CLOSE * max(abs(wanted.value), 1.0)


def _fits(text: str, schema: dict[str, Any]) -> bool:
    fenced = _FENCED.search(text)
    value = _json((text if fenced is None else fenced[1]).strip())
    return value is not msgspec.UNSET and fits(value, schema)


def _calls(wanted: ToolCall, message: Mapping[str, Any]) -> bool:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or function.get("name") != wanted.name:
            continue
        said = _json(function.get("arguments") or "{}")
        if isinstance(said, dict) and all(n in said and said[n] == v for n, v in wanted.arguments.items()):
            return True
    return False


def _json(text: object) -> Any:
    """What a text holds; UNSET where it is no JSON."""
    try:
        return msgspec.json.decode(text if isinstance(text, str) else b"")
    except UNREADABLE:
        return msgspec.UNSET


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """What takes longer ends with TooSlow. `re` looks at signals while it searches; nothing else could stop it within a
    process."""
    assert threading.current_thread() is threading.main_thread(), "signals come to the main thread alone"

    def over(_number: int, _frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
