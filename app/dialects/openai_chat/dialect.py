"""OpenAI Chat Completions as a dialect: its own pass-through, and its side of the way to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BursarError, UpstreamRejected
from app.core.events import Event
from app.core.policy import ChatHabits
from app.core.types import ChatRequest
from app.dialects.base import Counts, Dialect, UpstreamRequest
from app.dialects.openai_chat.end_user import end_user
from app.dialects.openai_chat.errors import error_body, error_words, upstream_error_object
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.openai_chat.read import ChatReader
from app.dialects.openai_chat.render import render_chat
from app.dialects.openai_chat.render_talk import HABITS, render_talk
from app.dialects.openai_chat.talk import conversation
from app.dialects.openai_chat.whole import with_counts
from app.dialects.openai_chat.whole_from import completion
from app.dialects.openai_chat.write import ChatWriter

PATH: Final = "/chat/completions"


class ChatDialect:
    """See `base.Dialect`. `habits`: the upstream's. A client's body names no session: its `prompt_cache_key` is an
    application's."""

    name = "openai_chat"

    def __init__(self, habits: ChatHabits = HABITS) -> None:
        self._habits = habits

    def parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        return parse_chat(body)

    def end_user(self, members: Mapping[str, msgspec.Raw]) -> str | None:
        return end_user(members)

    def conversation(self, request: ChatRequest) -> Conversation:
        return conversation(request)

    def patch(self, request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
        body = render_chat(request, upstream_model=model, limit_tokens=limit_tokens, habits=self._habits, stream=stream)
        return UpstreamRequest(PATH, body)

    def render(
        self, request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
    ) -> UpstreamRequest:
        body = render_talk(request, talk, model=model, limit_tokens=limit_tokens, habits=self._habits, stream=stream)
        return UpstreamRequest(PATH, body)

    def reader(self) -> ChatReader:
        return ChatReader()

    def writer(self, request: ChatRequest) -> ChatWriter:
        return ChatWriter(request)

    def whole(
        self,
        request: ChatRequest,
        events: Sequence[Event],
        counts: Counts,
        cut: bytes | None,
        told: Sequence[bytes] = (),
    ) -> bytes:
        return completion(request, events, counts, cut)

    def with_cost(self, request: ChatRequest, body: bytes, counts: Counts) -> bytes:
        return with_counts(body, counts)

    def error_reply(self, error: BursarError, *, array: bool = False) -> tuple[int, bytes]:
        status = error.upstream_status if isinstance(error, UpstreamRejected) else error.status
        return status, error_body(error)

    def error_object(self, body: bytes) -> tuple[str, str] | None:
        error = upstream_error_object(body)
        return None if error is None else error_words(error)


DIALECT: Final = ChatDialect()
_: Dialect = DIALECT
