"""What an upstream's refusal means: ask it again, ask the next one, or tell the client. Pure."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from app.core.errors import (
    BursarError,
    UpstreamBusy,
    UpstreamError,
    UpstreamQuota,
    UpstreamRejected,
    UpstreamTimeout,
)
from app.core.types import Outcome
from app.dialects.openai_chat.errors import upstream_error_object


class Move(Enum):
    """What to do next, before the first event."""

    AGAIN = "again"
    NEXT = "next"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unhealthy`: it counts against the candidate's circuit. `charged`: the provider may have billed the input."""

    move: Move
    error: BursarError
    outcome: Outcome
    unhealthy: bool
    charged: bool = False
    retry_after_s: float | None = None


_CLIENT_FAULTS = frozenset({400, 409, 413, 415, 422})


def of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Verdict:
    """The verdict on an HTTP status other than 200; `now_s` is the wall clock, for a dated Retry-After."""
    error_object = upstream_error_object(body)
    text = body[:4096].lower()
    if status in _CLIENT_FAULTS or status == 404:
        shown = error_object or _plain("The provider refused the request.", "invalid_request_error")
        rejected = UpstreamRejected("The provider refused the request.", upstream_status=status, body=shown)
        # Another candidate may have a larger window, or know the model.
        move = Move.NEXT if status == 404 or b"context_length" in text or b"context length" in text else Move.REJECT
        return Verdict(move, rejected, Outcome.BAD_REQUEST, unhealthy=False)
    if status in (401, 402, 403) or (
        status == 429 and (b"insufficient_quota" in text or b"exceeded your current quota" in text)
    ):
        quota = UpstreamQuota("The provider refused the gateway's own account: its key or its credit.")
        return Verdict(Move.NEXT, quota, Outcome.QUOTA, unhealthy=True)
    wait_s = retry_after_s(headers, now_s)
    if status == 429:
        after = {"retry-after": str(max(int(wait_s + 0.999), 1))} if wait_s is not None else {}
        busy = UpstreamBusy("The provider is limiting the rate of requests.", headers=after)
        return Verdict(Move.AGAIN, busy, Outcome.RATE_LIMIT, unhealthy=True, retry_after_s=wait_s)
    if status in (408, 504):
        return Verdict(
            Move.AGAIN, UpstreamTimeout("The provider timed out."), Outcome.TIMEOUT, True, retry_after_s=wait_s
        )
    failed = UpstreamError("The provider failed to serve the request.")
    return Verdict(Move.AGAIN, failed, Outcome.API_ERROR, unhealthy=True, retry_after_s=wait_s)


def not_connected() -> Verdict:
    """No connection: nothing was sent, so nothing can have been billed."""
    return Verdict(Move.AGAIN, UpstreamError("The provider cannot be reached."), Outcome.API_ERROR, unhealthy=True)


def broken() -> Verdict:
    """The connection died after the request was sent, before an answer: the input may be billed."""
    error = UpstreamError("The provider closed the connection before it answered.")
    return Verdict(Move.AGAIN, error, Outcome.API_ERROR, unhealthy=True, charged=True)


def garbled() -> Verdict:
    """The answer began, but it is not what the protocol says."""
    error = UpstreamError("The provider sent an answer that cannot be read.")
    return Verdict(Move.NEXT, error, Outcome.API_ERROR, unhealthy=True, charged=True)


def too_late() -> Verdict:
    """A deadline passed before the first event; the provider has read the input by then."""
    return Verdict(
        Move.NEXT, UpstreamTimeout("The provider did not answer in time."), Outcome.TIMEOUT, True, charged=True
    )


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """`retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None if absent or unreadable."""
    try:
        if "retry-after-ms" in headers:
            return max(float(headers["retry-after-ms"]) / 1000, 0.0)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(email.utils.parsedate_to_datetime(value).timestamp() - now_s, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _plain(message: str, kind: str) -> bytes:
    return b'{"message":"%s","type":"%s","param":null,"code":null}' % (message.encode(), kind.encode())


def of_stream_error(error_object: bytes) -> Verdict:
    """The stream's first word was an error event: some providers report a full queue or a bad request that way."""
    text = error_object.lower()
    if b"rate_limit" in text or b"overloaded" in text:
        busy = UpstreamBusy("The provider is limiting the rate of requests.")
        return Verdict(Move.AGAIN, busy, Outcome.RATE_LIMIT, unhealthy=True)
    failed = UpstreamError("The provider reported an error instead of an answer.")
    return Verdict(Move.NEXT, failed, Outcome.API_ERROR, unhealthy=True)
