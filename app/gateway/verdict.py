"""What an upstream's refusal means: ask it again, ask the next one, or tell the client. Pure."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import msgspec

from app.core.errors import (
    BursarError,
    ContextTooLong,
    UpstreamBusy,
    UpstreamError,
    UpstreamQuota,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
)
from app.core.types import Outcome
from app.dialects.openai_chat.errors import error_word, upstream_error_object
from app.dialects.openai_chat.refused import NOT_TAKEN


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


_CLIENT_FAULTS = frozenset({400, 404, 409, 413, 415, 422})
_TOO_LONG = re.compile(
    rb"context[ _](?:length|window|size|limit)|maximum context|prompt (?:is )?too long|input token count"
    rb"|reduce the length of the messages|input is too long|maximum prompt length|exceeded model token limit"
    rb"|range of input length|prompt exceeds max length|prompt token count|`inputs` tokens|too many tokens"
)
"""How OpenAI, vLLM, llama.cpp, Anthropic and Gemini say that the prompt does not fit, and Bedrock, xAI, Moonshot,
Alibaba, Zhipu, Copilot, Together and Cohere; another window may be larger."""
_OPERATORS = re.compile(
    rb'"message":\s*"(?:api key not valid|your credit balance is too low|this organization has been disabled'
    rb'|you have reached your specified api usage limits)|"reason":\s*"api_key_invalid"'
    rb'|"code":\s*"billing_hard_limit_reached"'
)
"""Google answers 400 to a wrong key, Anthropic to an account without credit
(https://github.com/anthropics/claude-code/issues/4684): the operator's fault, not the client's. No prompt quoted
in a message can look like this."""
_CLIENTS = re.compile(
    rb'"(?:type|code|status)":\s*(?:"(?:invalid_request_error|invalid_prompt|invalid_argument|badrequesterror'
    rb'|bad_request(?:_error)?|invalid_image\w*|cyber_policy)"|"?4(?:00|13|22)\b)'
)
"""By what an error in a stream says that it is the request that is wrong."""
_DELAY = re.compile(rb'"retrydelay":\s*"(\d{1,6}(?:\.\d{1,9})?)s"')
"""Google says in the body how long to wait (https://cloud.google.com/apis/design/errors, `RetryInfo`)."""
MOST_WAIT_S = 31 * 24 * 3600.0
"""No window of a provider's is longer, and there are clients that sleep for as long as they are told."""
MOST_READ = 16 * 1024
"""How much of an error reply is searched."""


def of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Verdict:
    """The verdict on an HTTP status that is no success; `now_s` is the wall clock, for a dated Retry-After."""
    word = error_word(body)
    return replace(_of_status(status, headers, body, now_s), cause=f"status {status}{f', {word}' if word else ''}")


def _of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Verdict:
    text = body[:MOST_READ].lower()
    operators = status == 400 and _OPERATORS.search(text) is not None
    if status in _CLIENT_FAULTS and not operators:
        return _rejected(status, body, text)
    wait_s = retry_after_s(headers, now_s)
    if operators or _no_credit(status, text) or status in (401, 402, 403):
        return _refused_account()
    if wait_s is None and (delay := _DELAY.search(text)) is not None:
        wait_s = float(delay[1])
    after = {"retry-after": str(max(int(wait_s + 0.999), 1))} if wait_s is not None else {}
    if status == 429:
        busy = UpstreamBusy("The provider is limiting the rate of requests.", headers=after)
        return Verdict(Move.AGAIN, busy, Outcome.RATE_LIMIT, unhealthy=True, retry_after_s=wait_s)
    if status in (408, 504):
        late = UpstreamTimeout("The provider timed out.", headers=after)
        return Verdict(Move.AGAIN, late, Outcome.TIMEOUT, True, retry_after_s=wait_s)
    failed = UpstreamError("The provider failed to serve the request.", headers=after)
    return Verdict(Move.AGAIN, failed, Outcome.API_ERROR, unhealthy=True, retry_after_s=wait_s)


def _rejected(status: int, body: bytes, text: bytes) -> Verdict:
    """The request itself is wrong; or only here, for another candidate may have a larger window, take a larger body,
    or know the model or the parameter."""
    shown = upstream_error_object(body) or _plain("The provider refused the request.", "invalid_request_error")
    too_long = _TOO_LONG.search(text) is not None
    kind, shown = (UpstreamTooLong, _named_too_long(shown)) if too_long else (UpstreamRejected, shown)
    rejected = kind("The provider refused the request.", upstream_status=status, body=shown)
    elsewhere = too_long or status in (404, 413) or NOT_TAKEN.search(text) is not None
    return Verdict(Move.NEXT if elsewhere else Move.REJECT, rejected, Outcome.BAD_REQUEST, unhealthy=False)


def _refused_account() -> Verdict:
    quota = UpstreamQuota("The provider refused the gateway's own account: its key or its credit.")
    return Verdict(Move.NEXT, quota, Outcome.QUOTA, unhealthy=True)


def _named_too_long(error_object: bytes) -> bytes:
    """The error object with the code that OpenAI's clients know, where its provider gave none, or a number."""
    fields = msgspec.json.decode(error_object)
    if fields["code"] is not None and not fields["code"].isdigit():
        return error_object
    return msgspec.json.encode({**fields, "code": ContextTooLong.code})


def _no_credit(status: int, text: bytes) -> bool:
    """Whether a 429 says that the account is used up. Google says so of every rate, too; one of a minute names the
    wait, and none of a day (https://ai.google.dev/gemini-api/docs/rate-limits)."""
    if status != 429:
        return False
    if b"insufficient_quota" in text:
        return True
    return b"exceeded your current quota" in text and (b"perday" in text or _DELAY.search(text) is None)


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
    """`retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None if absent, unreadable or
    beyond MOST_WAIT_S."""
    try:
        if "retry-after-ms" in headers:
            wait_s = float(headers["retry-after-ms"]) / 1000
        else:
            value = headers.get("retry-after", "").strip()
            plain = value.replace(".", "", 1).isdigit()
            wait_s = float(value) if plain else email.utils.parsedate_to_datetime(value).timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return None
    return max(wait_s, 0.0) if wait_s <= MOST_WAIT_S else None  # not for what is no number, either


def _plain(message: str, kind: str) -> bytes:
    return b'{"message":"%s","type":"%s","param":null,"code":null}' % (message.encode(), kind.encode())


def of_stream_error(error_object: bytes) -> Verdict:
    """The stream's first word was an error event: some providers report a full queue or a bad request so, OpenAI's
    Responses a prompt that is too long (https://platform.openai.com/docs/api-reference/responses-streaming/error)."""
    text, cause = error_object[:MOST_READ].lower(), error_word(error_object) or ""
    if b"rate_limit" in text or b"overloaded" in text:
        busy = UpstreamBusy("The provider is limiting the rate of requests.")
        return Verdict(Move.AGAIN, busy, Outcome.RATE_LIMIT, unhealthy=True, cause=cause)
    if b"insufficient_quota" in text or _OPERATORS.search(text) is not None:
        return replace(_refused_account(), cause=cause)
    if _TOO_LONG.search(text) is not None or _CLIENTS.search(text) is not None:
        found = _rejected(400, b'{"error":' + error_object + b"}", text)
        return replace(found, move=Move.NEXT, cause=cause)
    failed = UpstreamError("The provider reported an error instead of an answer.")
    return Verdict(Move.NEXT, failed, Outcome.API_ERROR, unhealthy=True, cause=cause)
