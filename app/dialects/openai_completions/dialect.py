"""OpenAI's text completions as a dialect: Chat's elder sister, in its own words and at the same providers only.

A prompt is no conversation: a model that has been taught to answer would answer where a text is to go on, and none of
the other dialects has a place for what stands behind the gap. So it is carried to no other dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.base import Dialect, UpstreamRequest
from app.dialects.openai_chat.dialect import ChatDialect
from app.dialects.openai_chat.made import made_id
from app.dialects.openai_chat.write import ChatWriter
from app.dialects.openai_completions.parse import parse_completion
from app.dialects.openai_completions.render import render_completion

PATH: Final = "/completions"
NOT_CARRIED: Final = "This model's provider has no text completions; ask it at /v1/chat/completions."


class TextWriter(ChatWriter):
    """Writes the end of a stream in which nothing has come from a provider."""

    def _envelope(self) -> dict[str, msgspec.Raw]:
        request = self._request
        made = made_id("cmpl", bytes(request.members.get("prompt", b"")).decode(errors="replace"))
        values: dict[str, Any] = {"id": made, "object": "text_completion", "created": 0, "model": request.model}
        return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


class CompletionsDialect(ChatDialect):
    """See `base.Dialect`; errors are Chat's."""

    name = "openai_completions"

    def parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        return parse_completion(body)

    def conversation(self, request: ChatRequest) -> Conversation:
        raise BadRequest(NOT_CARRIED, param="model")

    def patch(self, request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
        body = render_completion(
            request, upstream_model=model, limit_tokens=limit_tokens, habits=self._habits, stream=stream
        )
        return UpstreamRequest(PATH, body)

    def writer(self, request: ChatRequest) -> TextWriter:
        return TextWriter(request)


DIALECT: Final = CompletionsDialect()
_: Dialect = DIALECT
