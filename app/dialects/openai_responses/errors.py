"""Errors of Responses: chat's object, but for the status of a hard cap."""

from __future__ import annotations

import msgspec

from app.core.errors import BudgetExceeded, BursarError, UpstreamRejected
from app.dialects.openai_chat.errors import error_body, upstream_error_object

CAP_STATUS = 400
"""codex sends a 402 six times, and a 400 once (shared WIRE.md, measured)."""


class _Error(msgspec.Struct):
    message: str
    type: str
    code: str | None = None


_error = msgspec.json.Decoder(_Error)


def error_reply(error: BursarError) -> tuple[int, bytes]:
    """Status and body of an error before the first byte."""
    if isinstance(error, UpstreamRejected):
        return error.upstream_status, error_body(error)
    return CAP_STATUS if isinstance(error, BudgetExceeded) else error.status, error_body(error)


def error_object(body: bytes) -> tuple[str, str] | None:
    """The message and kind (the code, or else the type) of a provider's error reply."""
    shaped = upstream_error_object(body)
    if shaped is None:
        return None
    error = _error.decode(shaped)
    return error.message, error.code or error.type
