"""Anthropic's Messages, as the contract of a dialect has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BursarError
from app.core.events import Event
from app.core.types import ChatRequest
from app.dialects.anthropic import errors
from app.dialects.anthropic.parse import parse_messages
from app.dialects.anthropic.patch import patch_messages
from app.dialects.anthropic.read import MessagesReader
from app.dialects.anthropic.render import render_messages
from app.dialects.anthropic.talk import conversation_of
from app.dialects.anthropic.user_id import person_of, user_id_in
from app.dialects.anthropic.whole import whole_message, with_cost
from app.dialects.anthropic.write import MessagesWriter
from app.dialects.base import Counts, Dialect, Reader, UpstreamRequest, Writer


class AnthropicDialect:
    """See `dialects/base.py`; what only this dialect has (counting tokens) is in `parse`, `patch` and `count`."""

    name = "anthropic"

    def parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        return parse_messages(body, headers)

    def end_user(self, members: Mapping[str, msgspec.Raw]) -> str | None:
        user_id = user_id_in(members)
        return None if user_id is None else person_of(user_id)

    def conversation(self, request: ChatRequest) -> Conversation:
        return conversation_of(request)

    def patch(self, request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
        return patch_messages(request, model=model, limit_tokens=limit_tokens, stream=stream)

    def render(
        self, request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
    ) -> UpstreamRequest:
        return render_messages(request, talk, model=model, limit_tokens=limit_tokens, stream=stream)

    def reader(self) -> Reader:
        return MessagesReader()

    def writer(self, request: ChatRequest) -> Writer:
        return MessagesWriter(request)

    def whole(
        self,
        request: ChatRequest,
        events: Sequence[Event],
        counts: Counts,
        cut: bytes | None,
        told: Sequence[bytes] = (),
    ) -> bytes:
        return whole_message(request, events, counts, cut, told)

    def with_cost(self, request: ChatRequest, body: bytes, counts: Counts) -> bytes:
        return with_cost(body, counts)

    def error_reply(self, error: BursarError, *, array: bool = False) -> tuple[int, bytes]:
        return errors.error_reply(error)

    def error_object(self, body: bytes) -> tuple[str, str] | None:
        return errors.error_object(body)


DIALECT: Final = AnthropicDialect()
_: Dialect = DIALECT
