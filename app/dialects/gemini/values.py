"""Members of Gemini's JSON: Google's parsers take each name in camelCase and in snake_case, and a lone object where
a list is meant, so what clients send has all these forms.

Source: https://protobuf.dev/programming-guides/json/ (field names), and the examples of Google's own REST pages
(`"contents": {"parts": {...}}`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from app.core.errors import BadRequest
from app.dialects.openai_chat.fields import field_of

KNOWN_NAME_CHARS = 64
Members = dict[str, msgspec.Raw]

_members = msgspec.json.Decoder(Members)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_OPENS_LIST = ord("[")


def camel(name: str) -> str:
    """A name in camelCase; clients choose names, so only short ones are remembered."""
    return _known_camel(name) if len(name) <= KNOWN_NAME_CHARS else _known_camel.__wrapped__(name)


@functools.lru_cache(maxsize=512)
def _known_camel(name: str) -> str:
    first, *rest = name.split("_")
    # A leading underscore is part of the name (`_responseJsonSchema`).
    return first + "".join(word[:1].upper() + word[1:] for word in rest) if first else name


def is_null(raw: msgspec.Raw) -> bool:
    """The value is JSON's null; large values are not copied for it."""
    return len(raw) == 4 and bytes(raw) == b"null"


def set_members(members: Mapping[str, msgspec.Raw]) -> Members:
    """The members under camelCase names; null is absent, as Google's parsers have it."""
    return {camel(name): value for name, value in members.items() if not is_null(value)}


def members_in(raw: msgspec.Raw, param: str) -> Members:
    """The members of an object, as `set_members` gives them. Raises BadRequest naming `param`."""
    return set_members(field_of(_members, {param: raw}, param))


def items_in(raw: msgspec.Raw, param: str) -> list[msgspec.Raw]:
    """The items of a list, or the one object that stands for it. Raises BadRequest naming `param`."""
    if len(raw) and memoryview(raw)[0] == _OPENS_LIST:
        items: list[msgspec.Raw] = field_of(_raws, {param: raw}, param)
        return items
    members_in(raw, param)
    return [raw]


def text_in(members: Members, name: str, prefix: str) -> str | None:
    """A member that is a string, None where it is absent. Raises BadRequest naming it behind `prefix`."""
    if name not in members:
        return None
    text: str = field_of(_text, members, name, prefix)
    return text


def json_text(raw: msgspec.Raw, param: str) -> str:
    """A value's JSON as text. Raises BadRequest naming `param`: what is not looked into may be no UTF-8."""
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The parameter {param} is not valid JSON.", param=param) from None


def one_line(raw: bytes) -> bytes:
    """JSON without line ends: outside of strings they are white space, and an event's data must hold none."""
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    return raw.replace(b"\n", b" ").replace(b"\r", b" ")
