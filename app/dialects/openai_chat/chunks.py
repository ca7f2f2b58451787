"""Small surgery on the JSON of one chunk: what is not touched keeps its bytes."""

from __future__ import annotations

import msgspec

from app.core.raw import UNREADABLE
from app.dialects.openai_chat.render import object_bytes


class _Choice(msgspec.Struct):
    index: int | None = None


class _Indexed(msgspec.Struct):
    choices: list[_Choice] | None = None


class _Counts(msgspec.Struct):
    completion_tokens: int | None = None


class _Timings(msgspec.Struct):
    predicted_n: int | None = None


class _Timed(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: _Counts | None = None
    timings: _Timings | None = None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_choices = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_indexed = msgspec.json.Decoder(_Indexed, strict=False)  # some servers write numbers as text
_timed = msgspec.json.Decoder(_Timed)
_NULL, _EMPTY, _NO_TEXT = msgspec.Raw(b"null"), msgspec.Raw(b"{}"), msgspec.Raw(b'""')
_SAYING = frozenset(("delta", "logprobs", "text"))


def one_line(data: bytes) -> bytes:
    """JSON that came in several data lines as one: outside of strings a line end is white space."""
    return data.replace(b"\n", b" ")


def choices_in(data: bytes) -> list[int]:
    """The indexes of the choices of a chunk, or of a completion."""
    return [choice.index or 0 for choice in _indexed.decode(data).choices or ()]


def counts_one_choice(body: bytes) -> bool:
    """Whether the usage of a completion with several choices is that of one: llama.cpp tells with it what it timed,
    which is one (tests/wire)."""
    if b'"timings"' not in body:
        return False
    try:
        found = _timed.decode(body)
    except UNREADABLE:
        return False
    if found.timings is None or found.usage is None or len(found.choices or ()) < 2:
        return False
    return found.timings.predicted_n is not None and found.timings.predicted_n == found.usage.completion_tokens


def without_usage(data: bytes) -> bytes | None:
    """The chunk without its top-level `usage`; None where it has none (it came elsewhere in the chunk)."""
    members = _members.decode(data)
    return None if members.pop("usage", None) is None else object_bytes(members)


def usage_members(members: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw] | None:
    """The `usage` of a chunk, or Groq's under `x_groq`; None where it is elsewhere."""
    found: dict[str, msgspec.Raw] | None = _optional.decode(members.get("usage", _NULL))
    if found is None and "x_groq" in members:
        groq = _optional.decode(members["x_groq"]) or {}
        found = _optional.decode(groq.get("usage", _NULL))
    return found


def with_counts(data: bytes, counts: dict[str, msgspec.Raw]) -> bytes:
    """The chunk with other token counts in its `usage`."""
    members = _members.decode(data)
    usage = usage_members(members) or {}
    members["usage"] = msgspec.Raw(object_bytes(usage | counts))
    return object_bytes(members)


def said_and_finish(data: bytes) -> tuple[bytes, bytes]:
    """A chunk as two: what its choices say, and how they end."""
    members = _members.decode(data)
    choices = _choices.decode(members["choices"])
    said = [choice | {"finish_reason": _NULL} for choice in choices]
    ends = [{k: v for k, v in choice.items() if k not in _SAYING} | _silent(choice) for choice in choices]
    return object_bytes(members | {"choices": _array(said)}), object_bytes(members | {"choices": _array(ends)})


def _silent(choice: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """How a choice like this one says nothing; text completions have a text in the place of a delta."""
    return {"text": _NO_TEXT} if "text" in choice and "delta" not in choice else {"delta": _EMPTY}


def with_finishes(data: bytes, words: dict[int, str]) -> bytes:
    """The chunk with these finish reasons, by the index of the choice."""
    members = _members.decode(data)
    choices = _choices.decode(members["choices"])
    for place, index in enumerate(choices_in(data)):
        if index in words and "finish_reason" in choices[place]:
            choices[place]["finish_reason"] = msgspec.Raw(msgspec.json.encode(words[index]))
    return object_bytes(members | {"choices": _array(choices)})


def _array(choices: list[dict[str, msgspec.Raw]]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join([object_bytes(choice) for choice in choices]) + b"]")
