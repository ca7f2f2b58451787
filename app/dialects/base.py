"""What a dialect is: pure functions between bytes and canonical values, the same four groups for each.

Client side: `parse` and `conversation` read a request, a `Writer` and `whole` write the reply, `error_reply` an error.
Upstream side: `patch` and `render` make a request, a `Reader` reads the reply, `error_object` an error's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BursarError
from app.core.events import Event
from app.core.money import Usage, usd_json
from app.core.sse import Frame
from app.core.types import ChatRequest


class BadEvent(ValueError):
    """The upstream sent what its dialect does not know."""


@dataclass(slots=True)
class Counts:
    """What a reply's usage is told the client as. `exact`: the provider said so; else it is our estimate.
    `cost_nano` is what was settled, None where unknown; `left_nano` what the tightest cap has left, told as `remaining`
    to a task that lands (None: not told)."""

    usage: Usage
    exact: bool
    cost_nano: int | None
    left_nano: int | None = None

    def money(self) -> dict[str, msgspec.Raw]:
        """The members of usage that are ours in every dialect: `cost` in dollars (null: unknown), and `remaining`."""
        told = {"cost": msgspec.Raw(usd_json(self.cost_nano))}
        if self.left_nano is not None:
            told["remaining"] = msgspec.Raw(usd_json(self.left_nano))
        return told


class UpstreamRequest(msgspec.Struct):
    """What goes to the provider: path below its base URL, body, and headers beside its own."""

    path: str
    body: bytes
    headers: dict[str, str] = {}


def in_own_words(error: BursarError, names: Mapping[str, str]) -> tuple[str | None, str]:
    """The parameter at fault and the message, where `names` has what the client's dialect calls that parameter: a
    provider's dialect knows it by Chat's name."""
    own = names.get(error.param or "")
    if own is None:
        return error.param, error.message
    return own, error.message.replace(f"parameter {error.param} ", f"parameter {own} ")


class Reader(Protocol):
    """Reads one reply of an upstream. `marks_end`: its dialect marks the end of a stream that has several choices, so
    that without the mark fewer than were asked for are not all."""

    marks_end: bool

    @property
    def served(self) -> str | None:
        """In which tier of service the reply says that it was served, as far as it has said so."""

    def read(self, frame: Frame) -> list[Event]:
        """The events of one frame of the stream, none for a comment. Raises BadEvent."""

    def whole(self, body: bytes) -> list[Event]:
        """The events of a reply that is not streamed, `Done` at the end. Raises BadEvent."""


class Writer(Protocol):
    """Writes one streamed reply for a client: begins, pieces, and one of four ends, after which nothing follows.

    Where upstream and client speak the same dialect its frames go on as they came: then `passed` is told of each
    instead of `write`, so that the ends fit what the client has seen. Ends are those of shared WIRE.md.
    """

    def write(self, events: Sequence[Event]) -> bytes:
        """Events as bytes for the client. `Finished`, `Used` and `Done` are not among them: the ends bring those."""

    def passed(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """A frame of the same dialect on its way to the client: its bytes, or with what must not pass taken out."""

    def complete(self, finished: Sequence[Event], counts: Counts, held: Sequence[Frame]) -> bytes:
        """The ordinary end. `finished`: the `Finished` events; `held`: in the same dialect the frames that came since
        the first of them, which go on as they came but for usage, to which the cost is added."""

    def cut(self, error: BursarError, counts: Counts) -> bytes:
        """The cap is reached: the error that clients do not retry."""

    def cut_softly(self, cut: bytes, counts: Counts) -> bytes:
        """The opt-in end for people's chat pages: as if the output limit had been reached. `cut`: JSON about it."""

    def broken(self, error: BursarError) -> bytes:
        """The upstream died: an honest error, which clients may retry."""


class Dialect(Protocol):
    """One wire protocol. `name` is the policy's word for it."""

    name: str

    def parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        """A client's request; `path` holds what the URL says (`model`, `stream`). Raises BadRequest."""

    def end_user(self, members: Mapping[str, msgspec.Raw]) -> str | None:
        """For which user of its application a request is, by the field that this dialect has for that; None: it does
        not say. Raises BadRequest."""

    def conversation(self, request: ChatRequest) -> Conversation:
        """The whole of a request of this dialect. Raises BadRequest for what cannot be carried elsewhere."""

    def patch(self, request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
        """A request of this dialect for an upstream of the same: only what must change is changed."""

    def render(
        self, request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
    ) -> UpstreamRequest:
        """A request of another dialect for an upstream of this one. Raises BadRequest for what it cannot carry."""

    def reader(self) -> Reader:
        """For one reply of an upstream."""

    def writer(self, request: ChatRequest) -> Writer:
        """For one streamed reply to a client."""

    def whole(
        self,
        request: ChatRequest,
        events: Sequence[Event],
        counts: Counts,
        cut: bytes | None,
        told: Sequence[bytes] = (),
    ) -> bytes:
        """A reply that is not streamed, of canonical events; `cut`: JSON about a soft cut, whose finish is length.
        `told`: of a stream of the same dialect the data of the events that begin it, end it or report usage, whose
        members are the reply's too, whatever they are."""

    def with_cost(self, request: ChatRequest, body: bytes, counts: Counts) -> bytes:
        """An upstream's whole reply of this dialect, with the cost added to its usage."""

    def error_reply(self, error: BursarError, *, array: bool = False) -> tuple[int, bytes]:
        """Status and body of an error before the first byte; `array`: of a stream that would be a JSON array."""

    def error_object(self, body: bytes) -> tuple[str, str] | None:
        """The message and kind of an upstream's error reply of this dialect; None where it has another shape."""
