"""Proofs of thinking that another dialect's provider gave, on their way through a client that speaks Messages.

Such a client sends back what stands in `signature` and `data` unread. So a foreign proof travels there under a mark
that names its dialect, is taken out again on the way to that dialect, and never reaches a Messages upstream.
"""

from __future__ import annotations

from app.core.conversation import Thinking

ORIGIN = "anthropic"
CALL_ORIGIN = "gemini-call"
"""Gemini signs tool calls; that proof travels in a block of its own before its call."""
_MARK = "bursar-proof:"


def shown_proof(proof: str | None, origin: str) -> str | None:
    """A proof in the form in which the client keeps it; one of unknown origin is nobody's."""
    if not proof or not origin:
        return None
    return proof if origin == ORIGIN else f"{_MARK}{origin}:{proof}"


def is_foreign(proof: str | None) -> bool:
    """True for what this dialect's provider did not make, an empty proof included."""
    return not proof or proof.startswith(_MARK)


def thinking_of(text: str, signature: str | None, data: str | None) -> Thinking:
    """A thought that a client sends back: its own dialect's, or another's that travelled under our mark."""
    proof = signature or data
    if not proof:
        return Thinking(text)
    origin = ORIGIN
    if is_foreign(proof):
        origin, _, proof = proof.removeprefix(_MARK).partition(":")
    return Thinking(text, proof if signature else None, None if signature else proof, origin)
