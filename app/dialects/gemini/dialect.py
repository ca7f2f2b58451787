"""Google's generateContent as a dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BursarError
from app.core.events import Event
from app.core.types import ChatRequest
from app.dialects.base import Counts, Dialect, UpstreamRequest
from app.dialects.gemini.errors import error_body, status_of, upstream_error
from app.dialects.gemini.parse import parse_generate
from app.dialects.gemini.patch import patch_generate
from app.dialects.gemini.read import GeminiReader
from app.dialects.gemini.render import render_generate
from app.dialects.gemini.talk import conversation_of
from app.dialects.gemini.whole import whole_reply, with_cost_in
from app.dialects.gemini.write import GeminiWriter


class GeminiDialect:
    """See `base.Dialect`. A path says `model`, `verb` (`generateContent`, ...) and `alt`; upstream base URLs end in
    the API's version."""

    name = "gemini"

    def parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        return parse_generate(body, path)

    def end_user(self, members: Mapping[str, msgspec.Raw]) -> str | None:
        return None

    def conversation(self, request: ChatRequest) -> Conversation:
        return conversation_of(request)

    def patch(self, request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
        return patch_generate(request, model=model, limit_tokens=limit_tokens, stream=stream)

    def render(
        self, request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
    ) -> UpstreamRequest:
        return render_generate(request, talk, model=model, limit_tokens=limit_tokens, stream=stream)

    def reader(self) -> GeminiReader:
        return GeminiReader()

    def writer(self, request: ChatRequest) -> GeminiWriter:
        return GeminiWriter(request)

    def whole(
        self,
        request: ChatRequest,
        events: Sequence[Event],
        counts: Counts,
        cut: bytes | None,
        told: Sequence[bytes] = (),
    ) -> bytes:
        return whole_reply(request, events, counts, cut, told)

    def with_cost(self, request: ChatRequest, body: bytes, counts: Counts) -> bytes:
        return with_cost_in(body, counts)

    def error_reply(self, error: BursarError, *, array: bool = False) -> tuple[int, bytes]:
        body = error_body(error)
        return status_of(error), b"[%b]" % body if array else body

    def error_object(self, body: bytes) -> tuple[str, str] | None:
        return upstream_error(body)


DIALECT: Final = GeminiDialect()
_: Dialect = DIALECT
