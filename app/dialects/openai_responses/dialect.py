"""OpenAI Responses: `POST /v1/responses`. What is built on it: codex, and the official SDKs' newer half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BursarError
from app.core.events import Event
from app.core.types import ChatRequest
from app.dialects.base import Counts, Dialect, Reader, UpstreamRequest, Writer
from app.dialects.openai_chat.end_user import end_user
from app.dialects.openai_responses import errors
from app.dialects.openai_responses.parse import NAME, parse_responses
from app.dialects.openai_responses.patch import patched
from app.dialects.openai_responses.read import ResponsesReader
from app.dialects.openai_responses.render import rendered
from app.dialects.openai_responses.talk import conversation_of
from app.dialects.openai_responses.whole import whole, with_cost
from app.dialects.openai_responses.write import ResponsesWriter


class ResponsesDialect:
    """See `base.Dialect`."""

    name: str = NAME

    def parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        return parse_responses(body, headers)

    def end_user(self, members: Mapping[str, msgspec.Raw]) -> str | None:
        return end_user(members)

    def conversation(self, request: ChatRequest) -> Conversation:
        return conversation_of(request)

    def patch(self, request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
        return patched(request, model=model, limit_tokens=limit_tokens, stream=stream)

    def render(
        self, request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
    ) -> UpstreamRequest:
        limit_tokens = request.output_limit if limit_tokens is None else limit_tokens
        return rendered(talk, model=model, limit_tokens=limit_tokens, stream=stream)

    def reader(self) -> Reader:
        return ResponsesReader()

    def writer(self, request: ChatRequest) -> Writer:
        return ResponsesWriter(request)

    def whole(
        self,
        request: ChatRequest,
        events: Sequence[Event],
        counts: Counts,
        cut: bytes | None,
        told: Sequence[bytes] = (),
    ) -> bytes:
        return whole(request, events, counts, cut, told)

    def with_cost(self, request: ChatRequest, body: bytes, counts: Counts) -> bytes:
        return with_cost(body, counts, request.stored)

    def error_reply(self, error: BursarError, *, array: bool = False) -> tuple[int, bytes]:
        return errors.error_reply(error)

    def error_object(self, body: bytes) -> tuple[str, str] | None:
        return errors.error_object(body)


DIALECT: Final = ResponsesDialect()
_: Dialect = DIALECT
