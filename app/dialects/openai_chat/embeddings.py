"""OpenAI embeddings: parsed only as far as pricing needs, passed through otherwise.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from app.core.errors import BadRequest
from app.core.tokens import BYTES_PER_INPUT_TOKEN
from app.dialects.openai_chat.fields import check_model
from app.dialects.openai_chat.parse import max_cost_of, members_of
from app.dialects.openai_chat.render import object_bytes

_texts = msgspec.json.Decoder(list[str])
_tokens = msgspec.json.Decoder(list[int])
_token_lists = msgspec.json.Decoder(list[list[int]])
_string = msgspec.json.Decoder(str)


@dataclass(slots=True)
class EmbeddingsRequest:
    """One embeddings call; `input_estimate` is in tokens, exact where the client sent tokens."""

    members: dict[str, msgspec.Raw]
    model: str
    input_estimate: int
    max_cost_nano: int | None

    def render(self, upstream_model: str) -> bytes:
        """The body for the upstream."""
        members = dict(self.members)
        members["model"] = msgspec.Raw(msgspec.json.encode(upstream_model))
        members.pop("max_cost_usd", None)
        return object_bytes(members)


def parse_embeddings(body: bytes) -> EmbeddingsRequest:
    """A request body. Raises BadRequest naming the parameter at fault."""
    members = members_of(body)
    for name in ("model", "input"):
        if name not in members:
            raise BadRequest(f"The parameter {name} is required.", param=name)
    try:
        model = _string.decode(members["model"])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The parameter model must be a string.", param="model") from None
    check_model(model)
    return EmbeddingsRequest(members, model, _estimate(members["input"]), max_cost_of(members))


def _estimate(raw: msgspec.Raw) -> int:
    first = bytes(memoryview(raw)[:64]).lstrip()
    try:
        if first.startswith(b'"'):
            return int(len(_string.decode(raw).encode()) / BYTES_PER_INPUT_TOKEN) + 1
        inner = first[1:].lstrip()[:1]
        if inner == b"[":
            return sum(len(tokens) for tokens in _token_lists.decode(raw))
        if inner == b'"':
            return sum(int(len(text.encode()) / BYTES_PER_INPUT_TOKEN) + 1 for text in _texts.decode(raw))
        return len(_tokens.decode(raw))
    except (msgspec.DecodeError, UnicodeError):
        raise BadRequest(
            "The parameter input must be a string, a list of strings, or lists of tokens.", param="input"
        ) from None
