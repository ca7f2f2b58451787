"""What one attempt says to its upstream and hears from it, for any pair of dialects.

Chat to chat has a relay of its own, which the hot path is made for; every other pair goes through canonical events.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

from app.core.conversation import Conversation
from app.core.errors import BursarError
from app.core.events import (
    FAILED_CALLS,
    CallBegins,
    CallPiece,
    Event,
    Failed,
    Finished,
    Ran,
    Said,
    Thought,
    Used,
)
from app.core.heard import MOST_CHARS, Heard
from app.core.meter import Meter
from app.core.policy import Candidate
from app.core.sse import Frame
from app.core.tokens import pieces
from app.core.types import ChatRequest
from app.dialects.base import BadEvent, Dialect, Reader, UpstreamRequest
from app.dialects.event_relay import EventRelay, counts_of, date
from app.dialects.openai_chat.chunks import choices_in, counts_one_choice, with_finishes
from app.dialects.openai_chat.decode import decode_event, decode_whole
from app.dialects.openai_chat.dialect import ChatDialect
from app.dialects.openai_chat.finishes import OWN, is_failure, own_word
from app.dialects.openai_chat.fold import Folder
from app.dialects.openai_chat.own import forget_own
from app.dialects.openai_chat.refused import without
from app.dialects.openai_chat.relay import ChatRelay
from app.dialects.openai_chat.render import render_chat
from app.dialects.openai_chat.thoughts import misses_thoughts, with_placeholders
from app.dialects.openai_chat.unstreamed import as_stream
from app.dialects.openai_chat.whole import with_cost
from app.dialects.registry import CHAT, COMPLETIONS, GEMINI, MESSAGES, RESPONSES, dialect_named
from app.dialects.short_names import RenamingReader, shortened
from app.gateway.mending import NOTHING, Mended, Mends
from app.gateway.seen import heard_for

THINKING, THOUGHTS = "thinking", "reasoning_content"
"""What is changed of thoughts that a provider refuses, or misses, as the record names it."""
FILLED = Mends([THOUGHTS], lasting=True)
_KNOWN = OWN | {""}
"""Ends of a reply that Chat's clients know; none was heard of the longest."""


class Relay(Protocol):
    """A stream under way: see `ChatRelay`, whose flags and ends these are."""

    allowance_nano: int | None
    kill_nano: int | None
    left_nano: int | None
    opened: bool
    blocked: bool
    done: bool
    broken: str | None
    heard: Heard | None

    @property
    def ended(self) -> bool: ...
    @property
    def whole(self) -> bool: ...
    @property
    def came(self) -> int: ...
    @property
    def hollow(self) -> bool: ...
    @property
    def clamped(self) -> bool: ...
    @property
    def in_tool(self) -> bool: ...
    @property
    def error(self) -> bytes | None: ...
    def feed(self, frames: list[Frame]) -> bytes: ...
    def resume(self) -> bytes: ...
    def end_complete(self, cost_nano: int | None) -> bytes: ...
    def end_cut(self, error: BursarError, cost_nano: int | None) -> bytes: ...
    def end_cut_softly(self, cut: bytes, cost_nano: int | None) -> bytes: ...
    def end_broken(self, error: BursarError) -> bytes: ...
    def folded(self, cost_nano: int | None, cut: bytes | None) -> bytes: ...


class Thoughts(Protocol):
    """What a dialect knows of thoughts in a conversation, and of error replies about them."""

    def refuses_thoughts(self, body: bytes) -> bool: ...
    def forget_thoughts(self, talk: Conversation) -> bool: ...
    def without_thoughts(self, request: ChatRequest) -> ChatRequest | None: ...


class Exchange(Protocol):
    """One attempt's side of the wire. `heard`: what is kept of the reply until its end."""

    heard: Heard

    @property
    def misspoken(self) -> bool:
        """Whether an answer that is complete holds a call that a whole reply of the client's dialect could not show:
        its model got the arguments wrong. Without that call the turn would look finished."""

    @property
    def no_end(self) -> bool:
        """Whether the provider ended it because its model failed to call a tool, for which the client's dialect has no
        word: there, too, the turn would look finished."""

    def request(self, model: str, limit_tokens: int | None, *, stream: bool) -> UpstreamRequest:
        """What to send. Raises BadRequest for what this upstream's dialect cannot carry."""

    def mends(self, refusal: bytes, sent: Callable[[], bytes]) -> Mends:
        """What the request, as `request` makes it from now on, leaves out or fills in of what this error reply to the
        body that was `sent` is about."""

    def relay(self, meter: Meter, clamp_tokens: int | None, *, folds: bool) -> Relay:
        """For a streamed reply."""

    def as_stream(self, relay: Relay, body: bytes) -> bytes:
        """A whole reply where a stream was asked for, as a stream for `relay`. Raises BadEvent."""

    def read_whole(self, body: bytes, meter: Meter) -> int:
        """Meter a reply that is not streamed; how many choices it has. Raises BadEvent where it is none."""

    def shown(self, body: bytes, meter: Meter, cost_nano: int | None) -> bytes:
        """That reply, as the client sees it."""


def exchange_for(request: ChatRequest, candidate: Candidate, writing: tuple[str, ...], now_s: float) -> Exchange:
    """The exchange of this client's dialect with that of this model's provider. `writing`: which tools write, by the
    policy; `now_s`: Unix time, for dialects whose replies tell when they were made where the provider's do not."""
    provider, price = candidate.provider, candidate.price
    upstream = provider.speaking_with(request.dialect)
    if request.dialect == upstream == CHAT:
        return ChatExchange(request, candidate, writing)
    if request.dialect == upstream == COMPLETIONS:
        from app.gateway.text_exchange import TextExchange  # noqa: PLC0415  (loaded by whoever speaks it)

        return TextExchange(request, candidate, writing)
    spoken = ChatDialect(provider.chat) if upstream == CHAT else dialect_named(upstream)
    caching = price is None or price.knows_caches
    client = dialect_named(request.dialect)
    return EventExchange(request, candidate, client, spoken, writing, int(now_s), caching=caching)


class ChatExchange(Mended):
    """Chat Completions on both sides."""

    misspoken = no_end = False  # arguments are text, and shown as they are

    def __init__(self, request: ChatRequest, candidate: Candidate, writing: tuple[str, ...]) -> None:
        self._request = request
        self._candidate = candidate
        self._fills = False
        self._ends: dict[int, str] = {}  # of a whole reply, where they may be none that clients know
        self.heard = heard_for(request, writing)

    def request(self, model: str, limit_tokens: int | None, *, stream: bool) -> UpstreamRequest:
        body = render_chat(
            self._request,
            upstream_model=model,
            limit_tokens=limit_tokens,
            habits=self._candidate.provider.chat,
            stream=stream,
        )
        if self._refused:
            body = without(body, self._refused)
        return UpstreamRequest("/chat/completions", with_placeholders(body) if self._fills else body)

    def mends(self, refusal: bytes, sent: Callable[[], bytes]) -> Mends:
        if self._fills or not misses_thoughts(refusal):
            return self._mends_members(refusal, sent)
        self._fills = True
        return FILLED

    def relay(self, meter: Meter, clamp_tokens: int | None, *, folds: bool) -> Relay:
        request = self._request
        return ChatRelay(
            meter,
            choices=request.choices,
            show_usage=request.show_usage and not folds,
            clamp_tokens=clamp_tokens,
            limit_tokens=request.output_limit,
            folder=Folder() if folds else None,
        )

    def as_stream(self, relay: Relay, body: bytes) -> bytes:
        return as_stream(body)

    def read_whole(self, body: bytes, meter: Meter) -> int:
        event = decode_whole(body, self.heard if len(body) <= 2 * MOST_CHARS else None)
        if event.error is not None or not event.has_choices:
            raise BadEvent("the reply has no choices")
        several = self._request.choices > 1
        if several:
            meter.add(decode_event(body).pieces)
        if event.served is not None:
            meter.serve(event.served)
        # llama.cpp reports one choice of several (tests/wire): then what was seen stands.
        usage = event.usage
        believed = usage is not None and not (several and counts_one_choice(body))
        told = usage is not None and believed and 2 * usage.output >= meter.pieces and meter.report(usage)
        if not told and not several:
            meter.add(decode_event(body).pieces)
        if several or self.heard.finish not in _KNOWN:
            self._ends = decode_event(body).finished
            if any(map(is_failure, self._ends.values())):
                raise BadEvent("the provider ended its reply with an error")
        return len(choices_in(body)) if several else 1

    def shown(self, body: bytes, meter: Meter, cost_nano: int | None) -> bytes:
        if not OWN.issuperset(self._ends.values()):
            body = with_finishes(body, {index: own_word(word) for index, word in self._ends.items()})
        return with_cost(body, meter, cost_nano)


class EventExchange(Mended):
    """Any two dialects; where they are the same, bytes go on as they came."""

    def __init__(
        self,
        request: ChatRequest,
        candidate: Candidate,
        client: Dialect,
        upstream: Dialect,
        writing: tuple[str, ...],
        created_s: int,
        *,
        caching: bool,
    ) -> None:
        self._request = request
        self._candidate = candidate
        self._created_s = created_s
        self._caching = caching
        self._fills: Callable[[bytes], bytes] | None = None
        self._client = client
        self._upstream = upstream
        self._same = client.name == upstream.name
        self._whole: list[Event] = []
        self._names: dict[str, str] = {}
        self.heard = heard_for(request, writing)

    @property
    def no_end(self) -> bool:
        return not self._same and self.heard.finish in FAILED_CALLS

    @property
    def misspoken(self) -> bool:
        if self.no_end:
            return True
        if self._client.name != MESSAGES or self._same or self.heard.finish not in ("stop", "tool_calls"):
            return False  # chat and Responses show text, Gemini has a word for it (MALFORMED_FUNCTION_CALL)
        from app.dialects.anthropic.read_blocks import is_whole  # noqa: PLC0415  (loaded by whoever speaks it)

        return not all(is_whole(arguments) for _, arguments in self.heard.calls or ())

    @cached_property
    def _talk(self) -> Conversation:
        talk = self._client.conversation(self._request)
        talk.caching = self._caching
        if not self._candidate.provider.openai:
            forget_own(talk)
        self._names = shortened(talk, self._upstream.name)
        return talk

    def _reader(self) -> Reader:
        reader = self._upstream.reader()
        return RenamingReader(reader, self._names) if self._names else reader

    def request(self, model: str, limit_tokens: int | None, *, stream: bool) -> UpstreamRequest:
        upstream = self._upstream
        if self._same:
            asked = upstream.patch(self._request, model=model, limit_tokens=limit_tokens, stream=stream)
        else:
            asked = upstream.render(self._request, self._talk, model=model, limit_tokens=limit_tokens, stream=stream)
        if self._refused:
            asked.body = without(asked.body, self._refused)
        if self._fills:
            asked.body = self._fills(asked.body)
        return asked

    def mends(self, refusal: bytes, sent: Callable[[], bytes]) -> Mends:
        upstream, found = self._upstream.name, NOTHING
        if upstream == MESSAGES:
            found = self._mends_messages(refusal)
        elif upstream == CHAT:
            if self._fills is None and misses_thoughts(refusal):
                self._fills = with_placeholders
                return FILLED
        elif upstream == GEMINI:
            from app.dialects.gemini import thoughts  # noqa: PLC0415  (loaded by whoever speaks it)

            found = self._forgets(thoughts, refusal)
        elif self._same:
            from app.dialects.openai_responses.thoughts import refuses_thoughts, without_thoughts  # noqa: PLC0415

            found = self._bared(without_thoughts) if refuses_thoughts(refusal) else NOTHING
        return self._mends_members(refusal, sent) if not found.names and upstream in (CHAT, RESPONSES) else found

    def _mends_messages(self, refusal: bytes) -> Mends:
        from app.dialects.anthropic import extras, marks, thoughts  # noqa: PLC0415  (loaded by whoever speaks it)

        if self._same and (known := extras.without_extras(self._request, refusal)) is not None:
            self._request, left_out = known
            return Mends(left_out, lasting=extras.is_lasting(refusal))
        if not self._same and marks.refuses_marks(refusal):
            return Mends(["cache_control"], lasting=True) if marks.forget_marks(self._talk) else NOTHING
        if self._fills is None and thoughts.misses_thoughts(refusal):
            self._fills = thoughts.unthinking
            return Mends([THINKING])
        return self._forgets(thoughts, refusal)

    def _forgets(self, thoughts: Thoughts, refusal: bytes) -> Mends:
        """Without thoughts that the provider does not take back: another's, or another account's."""
        if not thoughts.refuses_thoughts(refusal):
            return NOTHING
        if not self._same:
            return Mends([THINKING]) if thoughts.forget_thoughts(self._talk) else NOTHING
        return self._bared(thoughts.without_thoughts)

    def _bared(self, without_thoughts: Callable[[ChatRequest], ChatRequest | None]) -> Mends:
        bare = without_thoughts(self._request)
        self._request = bare or self._request
        return NOTHING if bare is None else Mends([THINKING])

    def relay(self, meter: Meter, clamp_tokens: int | None, *, folds: bool) -> Relay:
        return EventRelay(
            meter,
            self._client,
            self._reader(),
            self._request,
            same=self._same,
            clamp_tokens=clamp_tokens,
            folds=folds,
            created_s=self._created_s,
        )

    def as_stream(self, relay: Relay, body: bytes) -> bytes:
        assert isinstance(relay, EventRelay)
        relay.unstreamed = True
        return b"data: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"

    def read_whole(self, body: bytes, meter: Meter) -> int:
        reader = self._reader()
        events = self._whole = reader.whole(body)
        if reader.served is not None:
            meter.serve(reader.served)
        self.heard.take(events)
        date(events, self._created_s)
        if any(isinstance(event, Failed) for event in events) or not any(isinstance(e, Finished) for e in events):
            raise BadEvent("the reply has no answer")
        for event in events:
            if isinstance(event, Ran):
                meter.ran(event.tool)
        used = next((event.usage for event in events if isinstance(event, Used)), None)
        if used is None or not meter.report(used):
            meter.add(seen_pieces(events))
        return sum(isinstance(event, Finished) for event in events)

    def shown(self, body: bytes, meter: Meter, cost_nano: int | None) -> bytes:
        counts = counts_of(meter, cost_nano)
        if self._same:
            return self._upstream.with_cost(self._request, body, counts)
        return self._client.whole(self._request, self._whole, counts, None)


def seen_pieces(events: list[Event]) -> int:
    """Estimated output tokens of these events."""
    total = 0
    for event in events:
        if isinstance(event, Said | Thought | CallPiece):
            total += pieces(event.text)
        elif isinstance(event, CallBegins):
            total += pieces(event.name) or 1
    return total
