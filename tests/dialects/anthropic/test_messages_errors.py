"""Errors in Messages' shape, ours and the providers'."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.errors import (
    BadRequest,
    BudgetContended,
    BursarError,
    ContextTooLong,
    Draining,
    Forbidden,
    MethodNotAllowed,
    ModelNotFound,
    ThreadsNotHeld,
    TooLarge,
    Unauthorized,
    UpstreamBusy,
    UpstreamError,
    UpstreamQuota,
    UpstreamRejected,
    UpstreamTimeout,
)
from app.dialects.anthropic.count import count_reply
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.counted import counted
from app.dialects.openai_chat.errors import budget_error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequest("x"), 400, "invalid_request_error"),
        (Unauthorized("x"), 401, "authentication_error"),
        (budget_error("task"), 402, "billing_error"),
        (Forbidden("x"), 403, "permission_error"),
        (ModelNotFound("x"), 404, "not_found_error"),
        (MethodNotAllowed("x"), 405, "invalid_request_error"),
        (TooLarge("x"), 413, "request_too_large"),
        (BudgetContended("x"), 429, "rate_limit_error"),
        (UpstreamBusy("x"), 429, "rate_limit_error"),
        (BursarError("x"), 500, "api_error"),
        (UpstreamError("x"), 502, "api_error"),
        (UpstreamQuota("x"), 502, "api_error"),
        (Draining("x"), 503, "overloaded_error"),
        (UpstreamTimeout("x"), 504, "timeout_error"),
    ],
)
def test_statuses_and_types(error: BursarError, status: int, kind: str) -> None:
    told, body = DIALECT.error_reply(error)
    assert told == status
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": error.message}}


def test_a_conversation_that_is_too_long_is_compacted_by_its_client() -> None:
    _, body = DIALECT.error_reply(ContextTooLong("No model has room."))
    assert json.loads(body)["error"]["message"] == "prompt is too long: No model has room."


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"type":"error","error":{"type":"not_found_error","message":"no"}}', "not_found_error", "no"),
        (b'{"message":"no","type":"invalid_request_error","param":null}', "invalid_request_error", "no"),
        (b'{"message":"no","type":"odd_error"}', "invalid_request_error", "no"),
        (b'{"error":{"message":"no","code":5}}', "invalid_request_error", "no"),
        (b'{"error":"no"}', "invalid_request_error", "ours"),
        (b"<html>", "invalid_request_error", "ours"),
        (b"[]", "invalid_request_error", "ours"),
    ],
)
def test_what_a_provider_rejects_is_told_in_its_words(body: bytes, kind: str, message: str) -> None:
    status, told = DIALECT.error_reply(UpstreamRejected("ours", upstream_status=422, body=body))
    assert status == 422
    assert json.loads(told) == {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize(
    ("details", "kept"),
    [
        ({"error_code": "credit_balance"}, True),
        ("text", False),
        (None, False),
    ],
)
def test_what_a_provider_says_for_programs_is_kept(details: Any, kept: bool) -> None:
    said = {"type": "invalid_request_error", "message": "no", "details": details}
    body = json.dumps({"type": "error", "error": said, "request_id": "req_1"}).encode()
    _, told = DIALECT.error_reply(UpstreamRejected("ours", upstream_status=400, body=body))
    assert json.loads(told)["error"] == (said if kept else {"type": said["type"], "message": "no"})


def test_a_thread_is_refused_as_its_clients_know_it() -> None:
    status, told = DIALECT.error_reply(ThreadsNotHeld("Send it whole.", param="thread"))
    assert status == 400
    assert json.loads(told)["error"] == {
        "type": "invalid_request_error",
        "message": "Send it whole.",
        "details": {"error_code": "thread_unsupported_request"},
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            ("Overloaded", "overloaded_error"),
        ),
        (b'{"error":{"message":"no"}}', ("no", "")),
        (b'{"error":{"type":"x"}}', None),
        (b'{"detail":"no"}', None),
        (b"[]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_providers_error(body: bytes, expected: tuple[str, str] | None) -> None:
    assert DIALECT.error_object(body) == expected


def test_counting() -> None:
    assert count_reply(14) == b'{"input_tokens":14}'
    assert counted(count_reply(14)) == 14
    assert counted(b'{"error":1}') is None
    assert counted(b"<") is None
