"""What an upstream's refusal means: ask it again, ask the next one, or tell the client. Pure."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from app.dialects.openai_chat.errors import error_word, upstream_error_object


class Move(Enum):
    """What to do next, before the first event."""

    AGAIN = "again"
    NEXT = "next"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unhealthy`: it counts against the candidate's circuit. `charged`: the provider may have billed the input.
    `cause`: what is known beyond the error's message, for whoever runs the gateway."""

    move: Move
    error: BursarError
    outcome: Outcome
    unhealthy: bool
    charged: bool = False
    retry_after_s: float | None = None
    cause: str = ""

    @property
    def why(self) -> str:
        """The message and its cause, for the log."""
        return f"{self.error.message} ({self.cause})" if self.cause else self.error.message


_CLIENT_FAULTS = frozenset({400, 409, 413, 415, 422})
_TOO_LONG = re.compile(
    rb"context[ _](?:length|window|size)|maximum context|prompt is too long|input token count"
    rb"|reduce the length of the messages"
)
"""How OpenAI, vLLM, llama.cpp, Anthropic and Gemini say that the prompt does not fit; another window may be larger."""
_BAD_KEY = re.compile(rb'"message":\s*"api key not valid|"reason":\s*"api_key_invalid"')
"""Google answers 400 to a wrong key: the operator's fault, not the client's. No prompt that is quoted in a message
can look like this."""


def of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Verdict:
    """The verdict on an HTTP status that is no success; `now_s` is the wall clock, for a dated Retry-After."""
    word = error_word(body)
    return replace(_of_status(status, headers, body, now_s), cause=f"status {status}{f', {word}' if word else ''}")


def _of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Verdict:
    error_object = upstream_error_object(body)
    text = body[:4096].lower()
    bad_key = status == 400 and _BAD_KEY.search(text) is not None
    if (status in _CLIENT_FAULTS or status == 404) and not bad_key:
        shown = error_object or _plain("The provider refused the request.", "invalid_request_error")
        rejected = UpstreamRejected("The provider refused the request.", upstream_status=status, body=shown)
        # Another candidate may have a larger window, or know the model.
        move = Move.NEXT if status == 404 or _TOO_LONG.search(text) else Move.REJECT
        return Verdict(move, rejected, Outcome.BAD_REQUEST, unhealthy=False)
    no_credit = status == 429 and (b"insufficient_quota" in text or b"exceeded your current quota" in text)
    if bad_key or no_credit or status in (401, 402, 403):
        quota = UpstreamQuota("The provider refused the gateway's own account: its key or its credit.")
        return Verdict(Move.NEXT, quota, Outcome.QUOTA, unhealthy=True)
    wait_s = retry_after_s(headers, now_s)
    after = {"retry-after": str(max(int(wait_s + 0.999), 1))} if wait_s is not None else {}
    if status == 429:
        busy = UpstreamBusy("The provider is limiting the rate of requests.", headers=after)
        return Verdict(Move.AGAIN, busy, Outcome.RATE_LIMIT, unhealthy=True, retry_after_s=wait_s)
    if status in (408, 504):
        late = UpstreamTimeout("The provider timed out.", headers=after)
        return Verdict(Move.AGAIN, late, Outcome.TIMEOUT, True, retry_after_s=wait_s)
    failed = UpstreamError("The provider failed to serve the request.", headers=after)
    return Verdict(Move.AGAIN, failed, Outcome.API_ERROR, unhealthy=True, retry_after_s=wait_s)


def not_carried(error: BursarError) -> Verdict:
    """This candidate's dialect has no words for the request; another's may."""
    return Verdict(Move.NEXT, error, Outcome.BAD_REQUEST, unhealthy=False)


def not_connected(cause: str) -> Verdict:
    """No connection: nothing was sent, so nothing can have been billed."""
    error = UpstreamError("The provider cannot be reached.")
    return Verdict(Move.AGAIN, error, Outcome.API_ERROR, unhealthy=True, cause=cause)


def broken(cause: str = "") -> Verdict:
    """The connection died after the request was sent, before an answer: the input may be billed."""
    error = UpstreamError("The provider closed the connection before it answered.")
    return Verdict(Move.AGAIN, error, Outcome.API_ERROR, unhealthy=True, charged=True, cause=cause)


def garbled() -> Verdict:
    """The answer began, but it is not what the protocol says."""
    error = UpstreamError("The provider sent an answer that cannot be read.")
    return Verdict(Move.NEXT, error, Outcome.API_ERROR, unhealthy=True, charged=True)


def misspoken() -> Verdict:
    """The answer is whole, and calls a tool in a way that no client of that dialect could be shown."""
    error = UpstreamError("The model failed to call a tool: its arguments are not JSON, or there is no such tool.")
    return Verdict(Move.NEXT, error, Outcome.API_ERROR, unhealthy=False, charged=True)


def too_late() -> Verdict:
    """A deadline passed before the first event; the provider has read the input by then."""
    return Verdict(
        Move.NEXT, UpstreamTimeout("The provider did not answer in time."), Outcome.TIMEOUT, True, charged=True
    )


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """`retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None if absent or unreadable."""
    try:
        if "retry-after-ms" in headers:
            wait_s = float(headers["retry-after-ms"]) / 1000
        else:
            value = headers.get("retry-after", "").strip()
            plain = value.replace(".", "", 1).isdigit()
            wait_s = float(value) if plain else email.utils.parsedate_to_datetime(value).timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return None
    return max(wait_s, 0.0) if math.isfinite(wait_s) else None


def _plain(message: str, kind: str) -> bytes:
    return b'{"message":"%s","type":"%s","param":null,"code":null}' % (message.encode(), kind.encode())


def of_stream_error(error_object: bytes) -> Verdict:
    """The stream's first word was an error event: some providers report a full queue or a bad request that way."""
    text = error_object.lower()
    if b"rate_limit" in text or b"overloaded" in text:
        busy = UpstreamBusy("The provider is limiting the rate of requests.")
        return Verdict(Move.AGAIN, busy, Outcome.RATE_LIMIT, unhealthy=True, cause=error_word(error_object) or "")
    failed = UpstreamError("The provider reported an error instead of an answer.")
    return Verdict(Move.NEXT, failed, Outcome.API_ERROR, unhealthy=True, cause=error_word(error_object) or "")
