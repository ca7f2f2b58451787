"""Proofs of thinking that another dialect's provider gave, on their way through a client that speaks Gemini.

Such a client sends each `thoughtSignature` back unread. So a foreign proof travels there under a mark that names its
dialect, is taken out again on the way to that dialect, and never reaches a Gemini upstream, which would refuse it.
"""

from __future__ import annotations

import base64
import binascii

from app.core.conversation import Thinking

ORIGIN = "gemini"
_MARK = b"bursar-proof"
MARKED = base64.b64encode(_MARK)
"""How a marked proof begins in a request's bytes: the mark's length makes it whole in base64, which the field is in
(the JSON form of `bytes`; SDKs decode it, and may write it again in the other alphabet)."""
_SIGNATURE, _ENCRYPTED = "signature", "encrypted"
UNSIGNED = "skip_thought_signature_validator"
"""Google's word for a call that another model made: Gemini 3 refuses calls of the current turn without a signature
(https://ai.google.dev/gemini-api/docs/thought-signatures, FAQ)."""


def shown_signature(
    origin: str, signature: str | None, encrypted: str | None, thought_id: str | None = None
) -> str | None:
    """The `thoughtSignature` by which a client keeps a thought's proof; None where it has none, or is of no origin."""
    if origin == ORIGIN or not origin:
        return signature if origin else None
    kind, value = (_ENCRYPTED, encrypted) if encrypted else (_SIGNATURE, signature)
    if not value:
        return None
    return base64.b64encode(b"%b:%b" % (_MARK, f"{origin}:{kind}:{thought_id or ''}:{value}".encode())).decode()


def is_foreign(signature: str) -> bool:
    """Whether a client's `thoughtSignature` is another dialect's proof."""
    return signature.encode(errors="replace").startswith(MARKED)


def thinking_of(text: str, signature: str | None) -> Thinking:
    """A thought that a client sends back: Gemini's, or another dialect's that travelled under our mark."""
    if signature is None or not is_foreign(signature):
        return Thinking(text, signature=signature, origin=ORIGIN)
    try:
        padded = signature + "=" * (-len(signature) % 4)
        _, origin, kind, known, value = base64.urlsafe_b64decode(_url_safe(padded)).decode().split(":", 4)
    except (binascii.Error, ValueError):
        return Thinking(text, origin=ORIGIN)
    if kind == _ENCRYPTED:
        return Thinking(text, encrypted=value, origin=origin, id=known or None)
    return Thinking(text, signature=value, origin=origin, id=known or None)


def _url_safe(text: str) -> str:
    return text.replace("+", "-").replace("/", "_")
