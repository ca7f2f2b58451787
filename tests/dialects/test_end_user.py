"""Which user of its application a request names, in each dialect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.core.errors import BadRequest
from app.dialects.registry import CHAT, COMPLETIONS, GEMINI, MESSAGES, RESPONSES, dialect_named

HASH = "0f" * 32
ACCOUNT, SESSION = "6b1c0de4-3a33-4b55-8d0c-2f0b6a5d9a10", "57a121ec-f78c-48c3-a745-e3036a3ecc33"


def named(dialect: str, body: dict[str, Any]) -> str | None:
    members = msgspec.json.decode(json.dumps(body), type=dict[str, msgspec.Raw])
    return dialect_named(dialect).end_user(members)


def claude_code(**parts: object) -> str:
    return json.dumps(parts, separators=(",", ":"))


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, COMPLETIONS])
@pytest.mark.parametrize(
    ("body", "user"),
    [
        ({}, None),
        ({"user": "ann"}, "ann"),
        ({"safety_identifier": "ann"}, "ann"),
        ({"safety_identifier": "ann", "user": "bob"}, "ann"),
        ({"safety_identifier": None, "user": "bob"}, "bob"),
        ({"safety_identifier": "", "user": ""}, None),
        ({"user": None}, None),
        ({"metadata": {"user_id": "ann"}}, None),
    ],
)
def test_openais_dialects_name_it_by_two_fields(dialect: str, body: dict[str, Any], user: str | None) -> None:
    assert named(dialect, body) == user


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, COMPLETIONS])
def test_a_user_that_is_no_text_is_refused(dialect: str) -> None:
    with pytest.raises(BadRequest) as refused:
        named(dialect, {"user": 7})
    assert refused.value.param == "user"


@pytest.mark.parametrize(
    ("user_id", "user"),
    [
        ("ann", "ann"),
        ("", None),
        (None, None),
        ('{"customer": 7}', '{"customer": 7}'),
        ("{no json", "{no json"),
        # Claude Code until 2.1.77, with an account and with a key; and since then.
        (f"user_{HASH}_account_{ACCOUNT}_session_{SESSION}", ACCOUNT),
        (f"user_{HASH}_account__session_{SESSION}", HASH),
        (claude_code(device_id=HASH, account_uuid=ACCOUNT, session_id=SESSION), ACCOUNT),
        (claude_code(device_id=HASH, account_uuid="", session_id=SESSION), HASH),
        (claude_code(session_id=SESSION), None),
        (claude_code(device_id=7, account_uuid=None, session_id=SESSION), None),
        (f"user_{HASH}_account__session_{SESSION} ", f"user_{HASH}_account__session_{SESSION} "),
        # An application's own, which end alike: "user" is not their customers' name.
        ("user_session_8f3a", "user_session_8f3a"),
        ("acme_session_9", "acme_session_9"),
        (f"_session_{SESSION}", f"_session_{SESSION}"),
    ],
)
def test_messages_name_it_without_the_session(user_id: str | None, user: str | None) -> None:
    assert named(MESSAGES, {"metadata": {"user_id": user_id}}) == user


@pytest.mark.parametrize("session", [SESSION, "another"])
def test_no_session_of_claude_code_is_a_user_of_its_own(session: str) -> None:
    old = f"user_{HASH}_account_{ACCOUNT}_session_{session}"
    new = claude_code(device_id=HASH, account_uuid=ACCOUNT, session_id=session)
    assert named(MESSAGES, {"metadata": {"user_id": old}}) == ACCOUNT
    assert named(MESSAGES, {"metadata": {"user_id": new}}) == ACCOUNT


@pytest.mark.parametrize("body", [{}, {"metadata": None}, {"metadata": {}}, {"user": "ann"}])
def test_messages_that_name_nobody(body: dict[str, Any]) -> None:
    assert named(MESSAGES, body) is None


def test_gemini_has_no_field_for_it() -> None:
    assert named(GEMINI, {"user": "ann", "metadata": {"user_id": "ann"}, "labels": {"user": "ann"}}) is None
