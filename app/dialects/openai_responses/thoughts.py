"""Reasoning that a provider cannot decrypt: another account's of the same provider.

A client sends reasoning items back as they came; behind a gateway the next call may be another account's, which refuses
them (https://github.com/pydantic/pydantic-ai/issues/4608). Without them the model thinks anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.types import ChatRequest
from app.dialects.openai_responses import shapes

_CODE = b"invalid_encrypted_content"
_WORDS = (b"encrypted content", b"could not be verified")
"""OpenAI says the code; Azure the words alone: https://github.com/openai/openai-agents-python/issues/2063."""
_UNKNOWN = (b"Item with id 'rs_", b"not found")
"""Without encrypted content it must know the item: https://github.com/anomalyco/opencode/issues/7724."""


class _Item(msgspec.Struct):
    type: Any = None


_item = msgspec.json.Decoder(_Item)


def refuses_thoughts(body: bytes) -> bool:
    """Whether this error reply says that reasoning items could not be decrypted, or are not known."""
    return _CODE in body or any(all(words in body for words in told) for told in (_WORDS, _UNKNOWN))


def without_thoughts(request: ChatRequest) -> ChatRequest | None:
    """The request without its reasoning items; None where it has none to leave out."""
    items = request.members.get("input")
    if items is None or not bytes(items).lstrip().startswith(b"["):
        return None
    all_ = shapes.raws.decode(items)
    kept = [item for item in all_ if _item.decode(item).type != "reasoning"]
    if len(kept) == len(all_):
        return None
    bare = {**request.members, "input": msgspec.Raw(b"[" + b",".join(kept) + b"]")}
    return msgspec.structs.replace(request, members=bare)
