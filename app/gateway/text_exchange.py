"""Text completions on both sides: Chat's relay, told where the text stands."""

from __future__ import annotations

from collections.abc import Callable

from app.core.meter import Meter
from app.core.policy import Candidate
from app.core.types import ChatRequest
from app.dialects.base import BadEvent, UpstreamRequest
from app.dialects.openai_chat.chunks import choices_in, counts_one_choice
from app.dialects.openai_chat.finishes import is_failure
from app.dialects.openai_chat.refused import without
from app.dialects.openai_chat.relay import ChatRelay
from app.dialects.openai_chat.unstreamed import as_stream
from app.dialects.openai_completions.dialect import CompletionsDialect
from app.dialects.openai_completions.fim import FIM_PATH, FimRelay, as_text, refuse_more
from app.dialects.openai_completions.fold import TextFolder
from app.dialects.openai_completions.parse import echoed
from app.dialects.openai_completions.read import TextReader
from app.gateway.exchange import ChatExchange, Relay
from app.gateway.mending import Mends

NOTHING_SAID = {"text": ""}


class TextExchange(ChatExchange):
    """See `Exchange`."""

    def __init__(self, request: ChatRequest, candidate: Candidate, writing: tuple[str, ...]) -> None:
        super().__init__(request, candidate, writing)
        self._dialect = CompletionsDialect(candidate.provider.chat)
        self._fim = candidate.provider.chat.fim

    def request(self, model: str, limit_tokens: int | None, *, stream: bool) -> UpstreamRequest:
        if self._fim:
            refuse_more(self._request)
        asked = self._dialect.patch(self._request, model=model, limit_tokens=limit_tokens, stream=stream)
        if self._fim:
            asked.path = FIM_PATH
        if self._refused:
            asked.body = without(asked.body, self._refused)
        return asked

    def mends(self, refusal: bytes, sent: Callable[[], bytes]) -> Mends:
        return self._mends_members(refusal, sent)

    def relay(self, meter: Meter, clamp_tokens: int | None, *, folds: bool) -> Relay:
        request = self._request
        relay = FimRelay if self._fim else ChatRelay
        return relay(
            meter,
            choices=request.choices,
            show_usage=request.show_usage and not folds,
            clamp_tokens=clamp_tokens,
            limit_tokens=request.output_limit,
            folder=TextFolder() if folds else None,
            read=TextReader(echoed(request)).read,
            nothing=NOTHING_SAID,
        )

    def as_stream(self, relay: Relay, body: bytes) -> bytes:
        return as_stream(self._text(body), b"text_completion")

    def read_whole(self, body: bytes, meter: Meter) -> int:
        echo = echoed(self._request)
        event = TextReader(echo).read(self._text(body), self.heard)
        if event.error is not None or not event.has_choices:
            raise BadEvent("the reply has no choices")
        if any(map(is_failure, event.finished.values())):
            raise BadEvent("the provider ended its reply with an error")
        if event.served is not None:
            meter.serve(event.served)
        meter.add(event.pieces)
        # A server that counts one answer of several tells less than was seen, which of a prompt in tokens is too much.
        one_only = 2 * (event.usage.output if event.usage else 0) < meter.pieces or counts_one_choice(body)
        if event.usage is not None and (echo.in_tokens or not one_only):
            meter.report(event.usage)
        return self._request.choices if self._request.whole else len(choices_in(body))

    def shown(self, body: bytes, meter: Meter, cost_nano: int | None) -> bytes:
        self._ends = {}
        return super().shown(self._text(body), meter, cost_nano)

    def _text(self, body: bytes) -> bytes:
        return as_text(body) if self._fim else body
