"""Google's error objects: `{"error": {"code", "message", "status"}}`.

Source: https://ai.google.dev/gemini-api/docs/troubleshooting, https://cloud.google.com/apis/design/errors.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.errors import BadRequest, BursarError, UpstreamRejected
from app.core.raw import UNREADABLE
from app.dialects.base import in_own_words

_decode, _encode = msgspec.json.decode, msgspec.json.encode
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OWN_NAMES = {"stop": "generationConfig.stopSequences", "n": "generationConfig.candidateCount"}
_VIOLATIONS = "type.googleapis.com/google.rpc.BadRequest"
_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def status_of(error: BursarError) -> int:
    """The HTTP status of an error's reply."""
    return error.upstream_status if isinstance(error, UpstreamRejected) else error.status


def error_body(error: BursarError) -> bytes:
    """The JSON of an error, which is the same before a stream and in it. What a rejecting upstream said goes on, and
    a Gemini one's status and details too; a parameter at fault stands where Google puts it."""
    code = status_of(error)
    status = _STATUSES.get(code, "INTERNAL" if code >= 500 else "INVALID_ARGUMENT")
    param, message = in_own_words(error, _OWN_NAMES)
    shown: dict[str, Any] = {"code": code, "message": message, "status": status}
    if isinstance(error, UpstreamRejected):
        told = _told(error.body)
        if isinstance(told.get("message"), str):
            shown["message"] = told["message"]
        if isinstance(told.get("status"), str):
            shown["status"] = told["status"]
        if isinstance(told.get("details"), list):
            shown["details"] = told["details"]
    elif isinstance(error, BadRequest) and param is not None:
        violation = {"field": param, "description": message}
        shown["details"] = [{"@type": _VIOLATIONS, "fieldViolations": [violation]}]
    return _encode({"error": shown})


def upstream_error(body: bytes) -> tuple[str, str] | None:
    """The message of a Gemini upstream's error reply, and the words for its kind; None where it has another shape."""
    try:
        reply = _decode(body)
    except UNREADABLE:
        return None
    # A stream that is an array has the error as its only item.
    reply = reply[0] if isinstance(reply, list) and reply else reply
    error = reply.get("error") if isinstance(reply, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    return error["message"], _kind(error)


def error_words(error: bytes) -> tuple[str, str]:
    """Message and kind of the `error` of a chunk, whatever the provider made of it."""
    return upstream_error(b'{"error":' + error + b"}") or ("The provider reported an error in its stream.", "")


def _kind(error: dict[str, Any]) -> str:
    """The status, and the reason where one is given: a wrong key is INVALID_ARGUMENT with API_KEY_INVALID."""
    details = error.get("details")
    found = [error.get("status")]
    if isinstance(details, list):
        found += [item.get("reason") for item in details if isinstance(item, dict) and item.get("@type") == _INFO]
    return " ".join(word for word in found if isinstance(word, str))


def _told(body: bytes) -> dict[str, Any]:
    """The error object of a refusal, with its frame or without, of whatever dialect."""
    try:
        reply = _decode(body)
    except UNREADABLE:
        return {}
    found = reply.get("error", reply) if isinstance(reply, dict) else None
    return found if isinstance(found, dict) else {}
