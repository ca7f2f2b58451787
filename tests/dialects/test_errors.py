"""Error bodies: one shape everywhere, and no word or number that makes an agent send a denied call again."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from app.core import errors
from app.core.errors import BursarError, TaskStopped, UpstreamRejected
from app.dialects.openai_chat.errors import (
    budget_error,
    budget_message,
    error_body,
    error_object,
    stream_error_object,
    upstream_error_object,
)

SCOPES = ("request", "task", "model", "user", "key", "team", "global")
RETRIED = re.compile(
    r"\d|rate.?limit|overload|server.?error|try again|later|too many|timeout|timed out|unavailable|internal|terminated"
    r"|connection|network|token|exceeds the|context|quota exceeded|capacity|temporar|throttl|busy|retry",
    re.IGNORECASE,
)
"""What opencode, pi and their kin look for in messages (shared WIRE.md, trap 2), and near relatives."""


@pytest.mark.parametrize("scope", SCOPES)
def test_a_denial_has_nothing_that_agents_take_for_try_again(scope: str) -> None:
    error = budget_error(scope, {"x-bursar-limit-usd": "0.5"})
    assert not RETRIED.search(budget_message(scope))
    assert not RETRIED.search(error_body(error).decode())
    assert json.loads(error_body(error)) == {
        "error": {
            "message": budget_message(scope),
            "type": "insufficient_quota",
            "param": None,
            "code": "budget_exceeded",
        }
    }
    assert error.status == 402
    assert error.headers == {"x-should-retry": "false", "x-bursar-limit-usd": "0.5"}


def test_the_task_message_is_the_one_that_worked_everywhere() -> None:
    assert budget_message("task") == (
        "Task is out of budget: the cost cap set for this task has been reached, so the gateway stopped it "
        "(billing limit). Do not resend."
    )
    assert len({budget_message(scope) for scope in SCOPES}) == len(SCOPES)


def every_error() -> list[type[BursarError]]:
    return [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, BursarError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_the_openai_shape(kind: type[BursarError]) -> None:
    if issubclass(kind, UpstreamRejected | TaskStopped):  # made of more than a message
        return
    error = kind('A "quoted" message\n', param="messages[0]")
    assert json.loads(error_body(error)) == {
        "error": {"message": 'A "quoted" message\n', "type": kind.type, "param": "messages[0]", "code": kind.code}
    }
    assert re.fullmatch(r"[a-z_]+", kind.label)


def test_a_rejection_goes_on_as_the_provider_said_it() -> None:
    body = b'{"message":"no","type":"t","param":null,"code":null,"more":[1.50]}'
    assert error_object(UpstreamRejected("no", upstream_status=400, body=body)) == body


SHAPED = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "no"}}, SHAPED),
        ({"error": {"message": "no", "type": "t", "param": "p", "code": "c", "x": 1}},
         {"message": "no", "type": "t", "param": "p", "code": "c", "x": 1}),
        ({"error": {"message": "no", "type": None, "code": 404}}, SHAPED | {"code": "404"}),
        ({"error": "no"}, SHAPED),
        ([{"error": {"message": "no", "code": 400}}], SHAPED | {"code": "400"}),
        ({"object": "error", "message": "no"}, SHAPED | {"object": "error"}),
        ({"error": {"message": 5}}, None),
        ({"error": {}}, None),
        ({"error": None}, None),
        ({"detail": "no"}, SHAPED),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "no", "type": "missing"}, {"msg": "more"}]},
         SHAPED | {"param": "messages.0"}),
        ({"detail": [{"msg": "no"}]}, SHAPED),
        ({"detail": {"x": 1}}, None),
        ({"detail": []}, None),
        ({"detail": None}, None),
        ([], None),
        ("no", None),
        (5, None),
    ],
)  # fmt: skip
def test_errors_of_providers_are_brought_into_shape(body: Any, expected: dict[str, Any] | None) -> None:
    found = upstream_error_object(json.dumps(body).encode())
    assert (None if found is None else json.loads(found)) == expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"error":{"message":"\xff"}}', b"[" * 100_000, b"\xff\xfe", b"null"]
)
def test_bodies_that_cannot_be_read_are_none(body: bytes) -> None:
    assert upstream_error_object(body) is None
    shaped = json.loads(stream_error_object(body))
    assert set(shaped) == {"message", "type", "param", "code"}


def test_an_error_in_a_stream_is_the_servers_unless_it_says_otherwise() -> None:
    assert json.loads(stream_error_object(b'{"message":"no","code":502}')) == SHAPED | {
        "type": "server_error",
        "code": "502",
    }
    assert json.loads(stream_error_object(b'{"message":"no","type":"t"}'))["type"] == "t"
