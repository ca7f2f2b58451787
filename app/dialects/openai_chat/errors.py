"""OpenAI error objects, and the texts that make agents stop (shared WIRE.md: the contract and its traps)."""

from __future__ import annotations

import msgspec

from app.core.errors import BudgetExceeded, BursarError, UpstreamRejected

_encode = msgspec.json.encode

_SCOPE_WORDS = {
    "request": ("Request", "this request"),
    "task": ("Task", "this task"),
    "model": ("Task", "this task on this model"),
    "key": ("Key", "this key"),
    "global": ("Gateway", "this gateway"),
}


def budget_message(scope: str) -> str:
    """What a client shows when money runs out. No numbers and no word that agents take for "try again"."""
    subject, owner = _SCOPE_WORDS[scope]
    return (
        f"{subject} is out of budget: the cost cap set for {owner} has been reached, "
        "so the gateway stopped it (billing limit). Do not resend."
    )


def error_object(error: BursarError) -> bytes:
    """`{"message", "type", "param", "code"}` as JSON bytes; a rejecting upstream's own object goes on as it came."""
    if isinstance(error, UpstreamRejected):
        return error.body
    return _encode({"message": error.message, "type": error.type, "param": error.param, "code": error.code})


def error_body(error: BursarError) -> bytes:
    """The whole JSON body of an error reply."""
    return b'{"error":' + error_object(error) + b"}"


def budget_error(scope: str, headers: dict[str, str] | None = None) -> BudgetExceeded:
    """The denial for a scope's hard cap, never to be retried."""
    return BudgetExceeded(budget_message(scope), headers={"x-should-retry": "false", **(headers or {})})


_error_member = msgspec.json.Decoder(dict[str, msgspec.Raw])


def upstream_error_object(body: bytes) -> bytes | None:
    """The `error` object of a provider's error reply where it has the OpenAI shape (or is close), else None."""
    try:
        members = _error_member.decode(body)
    except msgspec.MsgspecError:
        return None
    found = bytes(members.get("error", b""))
    if not found and "message" in members:
        found = body
    try:
        fields = msgspec.json.decode(found, type=dict[str, object])
    except msgspec.MsgspecError:
        return None
    message = fields.get("message")
    if not isinstance(message, str):
        return None
    code = fields.get("code")
    return _encode(
        {
            **fields,
            "message": message,
            "type": fields.get("type") if isinstance(fields.get("type"), str) else "invalid_request_error",
            "param": fields.get("param"),
            "code": code if code is None or isinstance(code, str) else str(code),
        }
    )
