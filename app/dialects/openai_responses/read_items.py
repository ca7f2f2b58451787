"""The items of an upstream's reply: which of them were told of piece by piece, and what is left to tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.core.events import CallBegins, CallEnds, CallPiece, Event, Said, Thought
from app.dialects.openai_responses.names import flat_name
from app.dialects.openai_responses.out_item import CALLS, OutItem
from app.dialects.openai_responses.proofs import ORIGIN
from app.dialects.server_tools import CODE, RESPONSES_CALLS

PARAGRAPH = "\n\n"
"""Between the parts of a summary, which are paragraphs."""


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class OutputItem(OutItem):
    """An item of `output`."""

    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    input: str | None = None
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None
    action: Any = None
    container_id: str | None = None
    environment: Any = None

    def billed(self, containers: set[str]) -> str | None:
        """The tool of the provider's that this item is a use of. Of what a web search does, only asking is billed, not
        the opening of what it found; of code, the container that it runs in. `containers`: those that were used before,
        to which this one is added."""
        if self.type == "web_search_call" and isinstance(self.action, dict) and self.action.get("type") != "search":
            return None
        tool = RESPONSES_CALLS.get(self.type)
        if tool != CODE:
            return tool
        container = self._container
        if container is None or container in containers:
            return None
        containers.add(container)
        return tool

    @property
    def _container(self) -> str | None:
        """Where code ran at the provider, by the use's own name where none is told; None for the client's own shell."""
        if self.type != "shell_call":
            return self.container_id or self.id or ""
        place = self.environment if isinstance(self.environment, dict) else {}
        return str(place.get("container_id") or self.id or "") if place.get("type") == "container_reference" else None

    @property
    def given(self) -> str:
        """A call's arguments as text; some servers send an object."""
        if self.type == "custom_tool_call":
            return self.input or ""
        arguments = self.arguments
        if arguments is None or isinstance(arguments, str):
            return arguments or ""
        return msgspec.json.encode(arguments).decode()


@dataclass(slots=True)
class _Call:
    index: int
    told: list[str] = field(default_factory=list)
    ended: bool = False


_Key = int | str | None


def _keys(item_id: str | None, place: int | None) -> set[_Key]:
    """What an item is known by; an item without a name or a place is the only one."""
    return {key for key in (item_id, place) if key is not None} or {None}


class ItemReader:
    """Follows the items of one reply. `calls`: how many tool calls there were."""

    def __init__(self) -> None:
        self.calls = 0
        self._call_of: dict[_Key, _Call] = {}
        self._last: _Call | None = None
        self._said: set[_Key] = set()
        self._spoke = self._thought = self._thinks = False
        self._summary = 0

    def added(self, item: OutputItem, place: int | None) -> list[Event]:
        """An item begins: news only where it is a call."""
        return self._begin(item, place) if item.type in CALLS else []

    def piece(
        self, what: str, delta: Any, item_id: str | None, place: int | None, summary: int | None = None
    ) -> list[Event]:
        """A piece of text, of a refusal, of a thought or of a call's arguments."""
        if not isinstance(delta, str) or not delta:
            return []
        if what == "call":
            return self._call_piece(self._find(item_id, place), delta)
        if what == "thought":
            return [self._think(delta, summary, item_id)]
        self._spoke = True
        self._said |= _keys(item_id, place)
        return [Said(delta, refusal=what == "refusal")]

    def rest(self, what: str, whole: Any, item_id: str | None, place: int | None) -> list[Event]:
        """What `done` says and its pieces did not."""
        if not isinstance(whole, str):
            return []
        if what == "call":
            return self._call_rest(self._find(item_id, place), whole)
        return [] if self._was_said(item_id, place) else self.piece(what, whole, item_id, place)

    def done(self, item: OutputItem, place: int | None) -> list[Event]:
        """An item is whole. Half a call, broken off by the provider, does not end."""
        if item.type in CALLS:
            call = self._call_of.get(item.call_id) or self._find(item.id, place, last=False)
            events = [] if call is not None else self._begin(item, place)
            call = call or self._last
            if call is None or call.ended:
                return events
            events += self._call_rest(call, item.given)
            if item.half:
                return events
            call.ended = True
            return [*events, CallEnds(call.index)]
        if item.type == "reasoning":
            self._thought = True
            return self._reasoned(item)
        if item.type != "message" or self._was_said(item.id, place):
            return []
        self._spoke = True
        return self._message(item)

    def unseen(self, item: OutputItem) -> list[Event]:
        """An item of the response as it stands at the end: what no event has told of it."""
        if item.type in CALLS:
            return [] if item.call_id in self._call_of else self.done(item, None)
        if item.type == "reasoning":
            return [] if self._thought else self._reasoned(item)
        return self._message(item) if item.type == "message" and not self._spoke else []

    def _was_said(self, item_id: str | None, place: int | None) -> bool:
        return not self._said.isdisjoint(_keys(item_id, place))

    def _message(self, item: OutputItem) -> list[Event]:
        events: list[Event] = []
        for part in item.content or ():
            refusal = part.type == "refusal"
            text = part.refusal if refusal else part.text
            if text:
                events.append(Said(text, refusal=refusal))
        return events

    def _think(self, text: str, summary: int | None, item_id: str | None) -> Thought:
        if summary is not None and summary > self._summary:
            self._summary = summary
            text = PARAGRAPH + text if self._thinks else text
        self._thought = self._thinks = True
        return Thought(text, origin=ORIGIN, id=item_id)

    def _reasoned(self, item: OutputItem) -> list[Event]:
        text = ""
        told, self._thinks, self._summary = self._thinks, False, 0
        if not told:
            parts = item.summary or item.content or ()
            text = PARAGRAPH.join([part.text for part in parts if part.text])
        if not (told or text or item.encrypted_content):
            return []
        return [Thought(text, encrypted=item.encrypted_content or None, ends=True, origin=ORIGIN, id=item.id)]

    def _begin(self, item: OutputItem, place: int | None) -> list[Event]:
        call = self._last = _Call(self.calls)
        self.calls += 1
        for key in (item.call_id, item.id, place):
            if key is not None:
                self._call_of[key] = call
        name = flat_name(item.namespace, item.name or "")
        begins = CallBegins(call.index, item.call_id or item.id or "", name, custom=item.type == "custom_tool_call")
        return [begins, *self._call_piece(call, item.given)]

    def _find(self, item_id: str | None, place: int | None, *, last: bool = True) -> _Call | None:
        found = self._call_of.get(item_id) or self._call_of.get(place)
        return found or (self._last if last else None)

    def _call_piece(self, call: _Call | None, text: str) -> list[Event]:
        if call is None or not text:
            return []
        call.told.append(text)
        return [CallPiece(call.index, text)]

    def _call_rest(self, call: _Call | None, whole: str) -> list[Event]:
        told = "".join(call.told) if call is not None else ""
        return self._call_piece(call, whole[len(told) :]) if whole.startswith(told) else []
