"""OpenAI error objects, and the texts that make agents stop (shared WIRE.md: the contract and its traps)."""

from __future__ import annotations

import re

import msgspec

from app.core.errors import BudgetExceeded, BursarError, TaskStopped, UpstreamError, UpstreamRejected
from app.core.raw import UNREADABLE

_encode, _decode = msgspec.json.encode, msgspec.json.decode

_WORD = re.compile(r"[A-Za-z_.]{3,64}")

_SCOPE_WORDS = {
    "request": ("Request", "this request"),
    "task": ("Task", "this task"),
    "model": ("Task", "this task on this model"),
    "user": ("User", "this user"),
    "key": ("Key", "this key"),
    "team": ("Team", "this team"),
    "global": ("Gateway", "this gateway"),
}


def budget_message(scope: str) -> str:
    """What a client shows when money runs out. No numbers and no word that agents take for "try again"."""
    subject, owner = _SCOPE_WORDS[scope]
    return (
        f"{subject} is out of budget: the cost cap set for {owner} has been reached, "
        "so the gateway stopped it (billing limit). Do not resend."
    )


_REASON_WORDS = {
    "calls": "is out of steps: the cap on calls set for this task has been reached",
    "tokens": "is out of budget: the usage cap set for this task has been reached",
    "time": "is out of time: the cap on its duration has been reached",
    "repeats": "went round in circles: it keeps sending the same request",
    "frozen": "is frozen: whoever owns it has put it on hold",
    "closed": "is closed: whoever owns it has ended it",
}


def stopped_message(reason: str) -> str:
    """What a client shows when a task is stopped for another reason than money; in such words as `budget_message`."""
    return f"Task {_REASON_WORDS[reason]}, so the gateway stopped it (billing limit). Do not resend."


def stopped_error(reason: str, headers: dict[str, str] | None = None) -> TaskStopped:
    """The denial of a task for another reason than money, never to be retried."""
    found = {"x-should-retry": "false", "x-bursar-scope": "task", "x-bursar-reason": reason, **(headers or {})}
    return TaskStopped(stopped_message(reason), reason, headers=found)


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


def upstream_error_object(body: bytes) -> bytes | None:
    """The `error` object of a provider's error reply where it has the OpenAI shape (or is close), else None."""
    error = _error_of(body)
    return None if error is None else _shaped(error, kind="invalid_request_error")


def error_word(body: bytes) -> str | None:
    """The one word by which a provider's error reply says what is wrong, such as insufficient_quota or
    PERMISSION_DENIED. Its sentences may quote keys and prompts; what has digits in it, too, is left alone."""
    error = _error_of(body)
    found = [error.get(name) for name in ("code", "status", "type")] if isinstance(error, dict) else []
    return next((word for word in found if isinstance(word, str) and _WORD.fullmatch(word)), None)


def _error_of(body: bytes) -> object:
    """What a provider's error reply says of the error; None where it says nothing that can be read."""
    try:
        reply = _decode(body)
        # Google's compatible endpoint wraps the object in a list.
        reply = reply[0] if isinstance(reply, list) and reply else reply
    except UNREADABLE:
        return None
    if not isinstance(reply, dict):
        return None
    if "detail" in reply and "message" not in reply and "error" not in reply:
        reply = {"error": _detail(reply["detail"])}
    return reply.get("error", reply)


def _detail(detail: object) -> object:
    """FastAPI's own errors, which many servers of local models leave as they are: a text, or what is wrong with which
    field (https://fastapi.tiangolo.com/tutorial/handling-errors/)."""
    wrong = detail[0] if isinstance(detail, list) and detail else detail
    if not isinstance(wrong, dict):
        return wrong
    place = wrong.get("loc")
    path = [str(part) for part in place if part != "body"] if isinstance(place, list) else []
    return {"message": wrong.get("msg"), "param": ".".join(path) or None}


def stream_error_object(error: bytes) -> bytes:
    """The `error` of an event in a provider's stream, in the OpenAI shape whatever the provider made of it."""
    try:
        shaped = _shaped(_decode(error), kind="server_error")
    except UNREADABLE:
        shaped = None
    return shaped or error_object(UpstreamError("The provider reported an error in its stream."))


def error_words(error: bytes) -> tuple[str, str]:
    """Message and kind of an `error` object or text; the kind is its code, where that is a word, else its type."""
    fields = _decode(stream_error_object(error))
    code = fields["code"]
    return fields["message"], fields["type"] if code is None or code.isdigit() else code


def _shaped(error: object, kind: str) -> bytes | None:
    fields = {"message": error} if isinstance(error, str) else error
    if not isinstance(fields, dict) or not isinstance(fields.get("message"), str):
        return None
    code, given_kind = fields.get("code"), fields.get("type")
    return _encode(
        {
            **fields,
            "type": given_kind if isinstance(given_kind, str) else kind,
            "param": fields.get("param"),
            "code": code if code is None or isinstance(code, str) else str(code),
        }
    )
