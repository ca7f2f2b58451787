"""Proofs of thinking that belong to another dialect, carried by Responses clients in `encrypted_content`.

A client sends reasoning items back as they came. So what an Anthropic or Gemini model signed travels to the client and
back inside of them, marked with its dialect, and reaches that provider again; every foreign thought is marked, so that
none is sent to a provider of Responses, which would refuse it.
"""

from __future__ import annotations

from app.core.conversation import Thinking

ORIGIN = "openai_responses"
_MARK = "bursar:"
_SIGNATURE, _ENCRYPTED, _NOTHING, _CALL = "signature", "encrypted", "-", "call"
MARKED = b'"bursar:'
"""How a marked proof begins in a request's bytes."""


def sealed(origin: str, signature: str | None, encrypted: str | None) -> str | None:
    """The `encrypted_content` of a thought; None for one of this dialect without."""
    if origin == ORIGIN:
        return encrypted
    if encrypted:
        return f"{_MARK}{origin}:{_ENCRYPTED}:{encrypted}"
    return f"{_MARK}{origin}:{_SIGNATURE}:{signature}" if signature else f"{_MARK}{origin}:{_NOTHING}:"


def sealed_call(signature: str) -> str:
    """The `encrypted_content` that carries the signature of the tool call behind it (Gemini signs calls)."""
    return f"{_MARK}:{_CALL}:{signature}"


def is_foreign(encrypted: str) -> bool:
    """Whether an `encrypted_content` is of another dialect."""
    return encrypted.startswith(_MARK)


def call_signature(encrypted: str | None) -> str | None:
    """The signature of the tool call behind this item, if that is what it carries."""
    _, kind, value = _opened(encrypted)
    return value if kind == _CALL else None


def thinking(text: str, encrypted: str | None, item_id: str | None) -> Thinking:
    """A reasoning item as its own dialect's thought."""
    origin, kind, value = _opened(encrypted)
    if kind == _SIGNATURE:
        return Thinking(text, signature=value, origin=origin)
    if kind == _ENCRYPTED:
        return Thinking(text, encrypted=value, origin=origin)
    if kind == _NOTHING:
        return Thinking(text, origin=origin)
    return Thinking(text, encrypted=encrypted or None, origin=ORIGIN, id=item_id)


def _opened(encrypted: str | None) -> tuple[str, str, str]:
    if encrypted is None or not encrypted.startswith(_MARK):
        return "", "", ""
    origin, _, rest = encrypted[len(_MARK) :].partition(":")
    kind, _, value = rest.partition(":")
    return origin, kind, value
