"""Responses that are stored here, without I/O: what a request refers to, and how a response is told and kept.

The id of a response of ours tells that it is: no other is looked for, and one that is not here is asked of nobody.
Sources: https://platform.openai.com/docs/guides/conversation-state (`instructions` are not carried over) and
https://platform.openai.com/docs/api-reference/responses/input-items
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app.core.raw import NULL, UNREADABLE
from app.core.stored import Stored
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_responses import shapes
from app.dialects.openai_responses.out_item import OutItem

OURS = "bursar_"
REPLY_ID = f"resp_{OURS}"
PREVIOUS = "previous_response_id"
_ELSEWHERE = ("conversation", "prompt")
"""Members by which a part of what is asked is at OpenAI: nothing that is stored here could be gone on from."""
_REFERENCE = "item_reference"
_KEPT = frozenset(("completed", "incomplete"))
_DATA = b"data:"
_TRUE = msgspec.Raw(b"true")
_Members = dict[str, msgspec.Raw]


class _Item(msgspec.Struct):
    type: Any = None
    role: Any = None
    id: Any = None

    @property
    def refers_to(self) -> str | None:
        """The item that this one only names."""
        named = self.type == _REFERENCE or (self.type is None and self.role is None)
        return self.id if named and isinstance(self.id, str) else None


class _Response(msgspec.Struct):
    object: Any = None
    status: Any = None
    output: list[msgspec.Raw] = []


class _Last(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw()


_encode = msgspec.json.encode
_members = msgspec.json.Decoder(_Members)
_value = msgspec.json.Decoder()
_items = msgspec.json.Decoder(list[_Item])
_item = msgspec.json.Decoder(_Item)
_response = msgspec.json.Decoder(_Response)
_last = msgspec.json.Decoder(_Last)
_out = msgspec.json.Decoder(OutItem)


class Asked:
    """What of a request's conversation is elsewhere. `previous_id`: the response that it goes on from, `references`:
    the items that it names, each once; `elsewhere`: there is more, and at OpenAI."""

    def __init__(self, members: _Members) -> None:
        """Of a request that was parsed. Raises BadRequest."""
        said = field_of(shapes.optional_string, members, PREVIOUS) if PREVIOUS in members else None
        self.previous_id: str | None = said or None
        self.elsewhere = any(bytes(members.get(name, NULL)) != NULL for name in _ELSEWHERE)
        given = bytes(members.get("input", b""))
        listed = b'"id"' in given and given.lstrip().startswith(b"[")
        names = [item.refers_to for item in _items.decode(given)] if listed else []
        self.references = list(dict.fromkeys(name for name in names if name is not None))


def own_items(
    members: Mapping[str, msgspec.Raw], found: Mapping[str, msgspec.Raw], before: Iterable[msgspec.Raw] = ()
) -> list[msgspec.Raw]:
    """The items of a request's `input`, with those that were `found` in place of their names; one that is named again,
    or is among those `before`, is said once."""
    given = members.get("input", msgspec.Raw(b"[]"))
    if not bytes(given).lstrip().startswith(b"["):
        text = {"type": "input_text", "text": _value.decode(given)}
        return [msgspec.Raw(_encode({"type": "message", "role": "user", "content": [text]}))]
    items = items_in(given)
    if not found:
        return items
    said, own = set(by_id(before)), []
    for item in items:
        name = _item.decode(item).refers_to
        if name is None or name not in found:
            own.append(item)
        elif name not in said:
            said.add(name)
            own.append(found[name])
    return own


def wants_stored(members: _Members) -> bool:
    """Whether the response may be stored: OpenAI's default. Raises BadRequest."""
    return "store" not in members or field_of(shapes.flag, members, "store") is not False


def items_in(listed: bytes) -> list[msgspec.Raw]:
    """The items of a JSON list."""
    return shapes.raws.decode(listed)


def listed(items: Iterable[msgspec.Raw]) -> msgspec.Raw:
    """Items as a JSON list."""
    return msgspec.Raw(b"[" + b",".join(items) + b"]")


def said_in(response: bytes) -> list[msgspec.Raw]:
    """The items of a response object's `output`."""
    return _response.decode(response).output


def gone_on_from(response: bytes) -> list[msgspec.Raw]:
    """The same, as the next request's input: without a call that the output limit broke off, which has no answer."""
    return [item for item in said_in(response) if not _is_half(item)]


def _is_half(item: msgspec.Raw) -> bool:
    try:
        return _out.decode(item).half
    except UNREADABLE:  # of a kind that is not known here
        return False


def by_id(items: Iterable[msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The items that have a name, by it."""
    return {name: item for item in items if isinstance(name := _item.decode(item).id, str)}


def going_on(members: _Members, before: Sequence[msgspec.Raw] | None, own: Sequence[msgspec.Raw]) -> _Members:
    """The request with the whole conversation as its input; `before`: what was said until the response that it goes on
    from, which is then named no more."""
    whole = {**members, "input": listed([*(before or ()), *own])}
    if before is not None:
        del whole[PREVIOUS]
    return whole


def kept_in(end: bytes, *, streamed: bool) -> bytes | None:
    """The response object in the last bytes of a reply, if it is one that is kept: whole, or incomplete at its limit.
    A failed one is not, nor what was cut, nor an error."""
    lines = reversed(end.split(b"\n")) if streamed else [_DATA + end]
    for line in lines:
        if not line.startswith(_DATA):
            continue
        try:
            found = bytes(_last.decode(line[len(_DATA) :]).response) if streamed else end
            response = _response.decode(found) if found else None
        except UNREADABLE:
            continue
        if response is not None and response.object == "response":
            return found if response.status in _KEPT else None
    return None


def told_as(response: _Members, stored: Stored | None) -> _Members:
    """The members of a response object as its client is to know it, whoever has made it."""
    if stored is None:
        return response
    ours: _Members = {}
    if stored.reply_id is not None:
        ours |= {"id": msgspec.Raw(_encode(stored.reply_id)), "store": _TRUE}
    if stored.previous_id is not None:
        ours[PREVIOUS] = msgspec.Raw(_encode(stored.previous_id))
    return {**response, **ours}


def told_object(response: bytes, stored: Stored | None) -> bytes:
    """The same, of its bytes."""
    return response if stored is None else object_bytes(told_as(_members.decode(response), stored))


class Listed(NamedTuple):
    """An item of a conversation, by the name it has in lists."""

    id: str
    item: msgspec.Raw

    def shown(self) -> dict[str, Any]:
        """As the API lists it: with its name, and a text as the part that it stands for."""
        shown: dict[str, Any] = {**msgspec.json.decode(self.item), "id": self.id}
        if shown.setdefault("type", "message") == "message":
            if isinstance(text := shown.get("content"), str):
                part = "output_text" if shown.get("role") == "assistant" else "input_text"
                shown["content"] = [{"type": part, "text": text}]
            shown.setdefault("status", "completed")
        return shown


def named(items: Sequence[msgspec.Raw], reply_id: str, taken: set[str]) -> list[Listed]:
    """All that one response was asked with, and said. Items without a name get one of its, and those whose name is
    `taken` by one before, as some servers' are: by its name a list is gone on from."""
    base, found = reply_id.removeprefix("resp_"), list[Listed]()
    for place, item in enumerate(items):
        name = _item.decode(item).id
        if not isinstance(name, str) or name in taken:
            name = f"msg_{base}_in_{place}"
        taken.add(name)
        found.append(Listed(name, item))
    return found
