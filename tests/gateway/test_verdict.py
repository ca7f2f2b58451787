"""What an upstream's refusal means: again, elsewhere, or the client's own fault."""

from __future__ import annotations

import email.utils
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import (
    UpstreamBusy,
    UpstreamError,
    UpstreamQuota,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
)
from app.core.types import Outcome
from app.dialects.anthropic.dialect import DIALECT
from app.gateway import verdict
from app.gateway.verdict import Move, of_status, of_stream_error, retry_after_s
from tests.wire_cases import wire_case

NOW_S = 1_800_000_000.0


def error(message: str, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "move", "kind", "outcome", "unhealthy"),
    [
        (400, Move.REJECT, UpstreamRejected, Outcome.BAD_REQUEST, False),
        (409, Move.REJECT, UpstreamRejected, Outcome.BAD_REQUEST, False),
        (413, Move.NEXT, UpstreamRejected, Outcome.BAD_REQUEST, False),
        (422, Move.REJECT, UpstreamRejected, Outcome.BAD_REQUEST, False),
        (404, Move.NEXT, UpstreamRejected, Outcome.BAD_REQUEST, False),
        (401, Move.NEXT, UpstreamQuota, Outcome.QUOTA, True),
        (402, Move.NEXT, UpstreamQuota, Outcome.QUOTA, True),
        (403, Move.NEXT, UpstreamQuota, Outcome.QUOTA, True),
        (429, Move.AGAIN, UpstreamBusy, Outcome.RATE_LIMIT, True),
        (408, Move.AGAIN, UpstreamTimeout, Outcome.TIMEOUT, True),
        (504, Move.AGAIN, UpstreamTimeout, Outcome.TIMEOUT, True),
        (500, Move.AGAIN, UpstreamError, Outcome.API_ERROR, True),
        (502, Move.AGAIN, UpstreamError, Outcome.API_ERROR, True),
        (503, Move.AGAIN, UpstreamError, Outcome.API_ERROR, True),
        (529, Move.AGAIN, UpstreamError, Outcome.API_ERROR, True),
        (302, Move.AGAIN, UpstreamError, Outcome.API_ERROR, True),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", error("no"), b"[]", b'{"error":"\xff"}'])
def test_each_status_has_its_meaning(
    status: int, move: Move, kind: type, outcome: Outcome, unhealthy: bool, body: bytes
) -> None:
    found = of_status(status, {}, body, NOW_S)
    assert (found.move, type(found.error), found.outcome, found.unhealthy) == (move, kind, outcome, unhealthy)
    assert not found.charged


def test_a_rejection_keeps_the_providers_status_and_object() -> None:
    found = of_status(422, {}, error("bad tool", type="t", param="tools", code="c"), NOW_S)
    assert isinstance(found.error, UpstreamRejected)
    assert found.error.upstream_status == 422
    assert json.loads(found.error.body) == {"message": "bad tool", "type": "t", "param": "tools", "code": "c"}
    plain = of_status(400, {}, b"<html>400 Bad Request</html>", NOW_S)
    assert isinstance(plain.error, UpstreamRejected)
    assert json.loads(plain.error.body)["message"] == "The provider refused the request."


@pytest.mark.parametrize(
    "body",
    [
        error("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        error("prompt is too long: 210000 tokens > 200000 maximum", type="invalid_request_error"),
        error("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        error("Requested token count exceeds the model's maximum context window."),
        error("Please reduce the length of the messages or completion.", code="context_length_exceeded"),
        error("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", type="x"),
        error("Input is too long for requested model."),
        error("This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
        error("Invalid request: Your request exceeded model token limit: 131072"),
        error("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"),
        error("Prompt exceeds max length", code="1261"),
        b'{"detail":"Prompt too long: 32799 tokens exceeds max context window of 32768 tokens"}',
        wire_case("llamacpp_too_long").body,
    ],
)
def test_a_prompt_that_is_too_long_here_may_fit_elsewhere(body: bytes) -> None:
    found = of_status(400, {}, body, NOW_S)
    assert (found.move, found.unhealthy) == (Move.NEXT, False)
    assert isinstance(found.error, UpstreamTooLong)
    said = json.loads(found.error.body)
    assert said["code"] in ("context_length_exceeded", "1261", "exceed_context_size_error")
    told = json.loads(DIALECT.error_reply(found.error)[1])["error"]["message"]
    assert said["message"] in told
    assert "prompt is too long" in told or "exceed context limit" in told


@pytest.mark.parametrize(
    "body",
    [
        error("Unsupported parameter: 'temperature' is not supported with this model.", code="unsupported_parameter"),
        error("Unsupported value: 'minimal' is not supported with the 'gpt-5.4' model.", code="unsupported_value"),
        error("Unrecognized request argument supplied: reasoning_effort"),
        b'{"detail":[{"type":"extra_forbidden","loc":["body","store"],"msg":"Extra inputs are not permitted"}]}',
        error("This model does not support the effort parameter."),
        error("'messages.2' : for 'role:assistant' [('messages.2' : property 'reasoning_content' is unsupported)]"),
        error('Invalid JSON payload received. Unknown name "seed" at generation_config: Cannot find field.'),
    ],
)
def test_what_is_not_known_here_may_be_known_elsewhere(body: bytes) -> None:
    for status in (400, 422):
        found = of_status(status, {}, body, NOW_S)
        assert (found.move, type(found.error), found.unhealthy) == (Move.NEXT, UpstreamRejected, False)


def google_429(*quotas: str, delay: str | None = None) -> bytes:
    """A 429 of Google's as it comes: the same words whichever quota it is."""
    message = "You exceeded your current quota, please check your plan and billing details."
    kind = "type.googleapis.com/google.rpc."
    details: list[object] = [{"@type": f"{kind}QuotaFailure", "violations": [{"quotaId": q} for q in quotas]}]
    if delay is not None:
        details.append({"@type": f"{kind}RetryInfo", "retryDelay": delay})
    return error(message, code=429, status="RESOURCE_EXHAUSTED", details=details)


@pytest.mark.parametrize(
    ("body", "wait_s"),
    [
        (google_429("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", delay="34.074824224s"), 34.074824224),
        (google_429(delay="2s"), 2.0),
        (error("Resource has been exhausted (e.g. check quota).", code=429, status="RESOURCE_EXHAUSTED"), None),
    ],
)
def test_googles_rate_is_no_matter_of_credit_and_says_how_long_to_wait(body: bytes, wait_s: float | None) -> None:
    found = of_status(429, {}, body, NOW_S)
    assert (found.move, found.outcome, found.retry_after_s) == (Move.AGAIN, Outcome.RATE_LIMIT, wait_s)
    assert found.error.headers.get("retry-after") == (None if wait_s is None else str(math.ceil(wait_s)))
    assert of_status(429, {"retry-after": "9"}, body, NOW_S).retry_after_s == 9.0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, google_429("GenerateRequestsPerDayPerProjectPerModel-FreeTier", delay="34s")),
        (429, google_429()),
        (400, error("Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.")),
        (400, error("You have reached your specified API usage limits. You will regain access on 2026-12-01.")),
        (400, error("This organization has been disabled.", type="invalid_request_error")),
        (400, error("Billing hard limit has been reached", code="billing_hard_limit_reached")),
        (429, error("You exceeded your current quota, please check your plan.", code="insufficient_quota")),
        (429, error("no", type="insufficient_quota")),
        (400, b'[{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]'),
    ],
)
def test_an_account_without_credit_or_key_is_the_operators_matter(status: int, body: bytes) -> None:
    found = of_status(status, {}, body, NOW_S)
    assert (found.move, found.outcome, found.unhealthy) == (Move.NEXT, Outcome.QUOTA, True)
    assert found.error.status == 502


def test_a_prompt_cannot_talk_a_provider_ill() -> None:
    quoted = error('bad content: {"message": "API key not valid"}, api_key_invalid')
    assert of_status(400, {}, quoted, NOW_S).move is Move.REJECT


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "-5"}, 0.0),
        ({"retry-after": email.utils.formatdate(NOW_S + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(NOW_S - 90, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "."}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "1e400"}, None),
        ({"retry-after-ms": "x"}, None),
        ({"retry-after-ms": "1e99"}, None),
        ({"retry-after": "99999999999999999999"}, None),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, NOW_S) == expected
    for status in (429, 503, 504):
        found = of_status(status, headers, b"", NOW_S)
        assert found.retry_after_s == expected
        assert ("retry-after" in found.error.headers) == (expected is not None)


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from([429, 500, 503, 408]))
def test_no_header_breaks_the_verdict(seconds: str, milliseconds: str, status: int) -> None:
    found = of_status(status, {"retry-after": seconds, "retry-after-ms": milliseconds}, b"", NOW_S)
    assert found.retry_after_s is None or found.retry_after_s >= 0
    assert found.error.headers.get("retry-after", "1").isdigit()


def test_a_dead_connection_may_have_cost_something_and_a_missing_one_not() -> None:
    assert not verdict.not_connected("").charged
    assert verdict.broken().charged
    assert verdict.too_late().charged
    assert verdict.garbled().charged
    assert verdict.too_late().move is verdict.garbled().move is Move.NEXT
    assert isinstance(verdict.too_late().error, UpstreamTimeout)


def test_an_error_as_the_first_event() -> None:
    busy = of_stream_error(b'{"message":"Overloaded","type":"overloaded_error"}')
    assert (busy.move, busy.outcome) == (Move.AGAIN, Outcome.RATE_LIMIT)
    assert of_stream_error(b'{"code":"rate_limit_exceeded"}').outcome is Outcome.RATE_LIMIT
    assert of_stream_error(b'{"message":"boom"}').move is Move.NEXT


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"code": "context_length_exceeded", "message": "Your input exceeds the context window."}, UpstreamTooLong),
        ({"type": "invalid_request_error", "message": "prompt is too long: 5 > 4"}, UpstreamTooLong),
        ({"type": "invalid_request_error", "message": "bad schema", "param": "tools"}, UpstreamRejected),
        ({"code": "invalid_prompt", "message": "no"}, UpstreamRejected),
        ({"type": "BadRequestError", "code": 400, "message": "no"}, UpstreamRejected),
        ({"status": "INVALID_ARGUMENT", "message": "no"}, UpstreamRejected),
        ({"code": "400", "message": "no"}, UpstreamRejected),
    ],
)
def test_a_bad_request_that_is_told_in_a_stream_is_no_illness(said: dict[str, object], kind: type) -> None:
    found = of_stream_error(json.dumps(said).encode())
    assert (found.move, type(found.error), found.outcome) == (Move.NEXT, kind, Outcome.BAD_REQUEST)
    assert (found.unhealthy, found.charged) == (False, False)
    assert isinstance(found.error, UpstreamRejected)
    assert (found.error.upstream_status, json.loads(found.error.body)["message"]) == (400, said["message"])


def test_an_account_without_credit_may_be_told_in_a_stream_too() -> None:
    assert of_stream_error(b'{"code":"insufficient_quota","message":"no"}').outcome is Outcome.QUOTA
    for said in (b'{"code":4000,"message":"no"}', b'{"code":500,"message":"no"}', b'{"message":"code 400"}'):
        assert of_stream_error(said).outcome is Outcome.API_ERROR


def test_errors_for_clients_carry_no_numbers_of_the_provider() -> None:
    for status in (401, 429, 500, 503, 504):
        found = of_status(status, {}, error("limit 500 reached, try again in 20s"), NOW_S)
        assert not any(c.isdigit() for c in found.error.message)


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (429, error("You exceeded it", code="insufficient_quota", type="t"), "status 429, insufficient_quota"),
        (529, json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).encode(),
         "status 529, overloaded_error"),
        (403, error("no", code=403, status="PERMISSION_DENIED"), "status 403, PERMISSION_DENIED"),
        (500, error("no key sk-proj-1", code="sk-proj-1"), "status 500"),
        (502, b"<html>bad gateway</html>", "status 502"),
        (503, b'{"error": "down"}', "status 503"),
        (503, b"[]", "status 503"),
    ],
)  # fmt: skip
def test_the_cause_is_the_status_and_the_providers_own_word(status: int, body: bytes, cause: str) -> None:
    found = of_status(status, {}, body, NOW_S)
    assert found.cause == cause
    assert found.why == f"{found.error.message} ({cause})"


def test_an_error_in_a_stream_has_its_word_too() -> None:
    assert of_stream_error(b'{"message": "m", "type": "overloaded_error"}').cause == "overloaded_error"
    assert of_stream_error(b'{"message": "m"}').why == "The provider reported an error instead of an answer."
