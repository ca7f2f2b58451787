"""What only OpenAI's two dialects have words for goes on between them, to OpenAI alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.policy import Candidate
from app.dialects.registry import CHAT, GEMINI, MESSAGES, RESPONSES
from app.gateway.exchange import exchange_for
from tests.dialects.pairs import ASK, parsed
from tests.stores.policy_texts import build, provider

KEYS = {"prompt_cache_key": "thread-1", "safety_identifier": "u-1"}
WISHES: dict[str, Any] = {
    CHAT: {**KEYS, "prompt_cache_retention": "24h", "verbosity": "low"},
    RESPONSES: {**KEYS, "prompt_cache_retention": "24h", "text": {"verbosity": "low"}},
}
OTHER = {CHAT: RESPONSES, RESPONSES: CHAT}


def candidate(url: str, dialect: str, model: str) -> Candidate:
    return build(provider(base_url=url, dialect=dialect).replace("gpt-4o-mini", model)).models["m"]


def sent(
    client: str, dialect: str, *, url: str = "https://api.openai.com/v1", model: str = "gpt-5.4", **more: Any
) -> Any:
    """What reaches the provider of the wishes, and of the name of the end user."""
    request = parsed(client, {**ASK[client], **more}, stream=True)
    asked = exchange_for(request, candidate(url, dialect, model), (), 0).request(model, 50, stream=True)
    body = json.loads(asked.body)
    return {name: body[name] for name in ("user", "metadata", *WISHES[CHAT], *WISHES[RESPONSES]) if name in body}


@pytest.mark.parametrize("client", [CHAT, RESPONSES])
def test_they_go_on_to_openai(client: str) -> None:
    assert sent(client, OTHER[client], **WISHES[client]) == WISHES[OTHER[client]]
    assert sent(client, OTHER[client], user="u", prompt_cache_key=None) == {"user": "u"}


def test_a_shape_of_the_answer_stands_beside_the_verbosity() -> None:
    shape = {"type": "json_object"}
    assert sent(CHAT, RESPONSES, verbosity="low", response_format=shape) == {
        "text": {"format": shape, "verbosity": "low"}
    }


@pytest.mark.parametrize("client", [CHAT, RESPONSES])
@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES, GEMINI])
def test_no_other_provider_hears_of_them(client: str, dialect: str) -> None:
    if client == dialect:
        return
    named = {MESSAGES: {"metadata": {"user_id": "u-1"}}, GEMINI: {}}.get(dialect, {"user": "u-1"})
    assert sent(client, dialect, url="https://api.mistral.ai/v1", model="m", **WISHES[client]) == named


@pytest.mark.parametrize(
    ("model", "verbosity", "retention"),
    [
        ("gpt-4o", False, False),
        ("gpt-4.1-2025-04-14", False, True),
        ("gpt-4.1-mini", False, False),
        ("gpt-5", True, True),
        ("gpt-5-mini-2025-08-07", True, False),
        ("gpt-5-codex", False, True),
        ("gpt-5.2-chat-latest", False, True),
        ("gpt-5.6", True, False),
        ("gpt-5.16", True, False),
        ("o3", False, False),
    ],
)
def test_a_model_is_asked_what_it_takes(model: str, verbosity: bool, retention: bool) -> None:
    told = sent(RESPONSES, CHAT, model=model, **WISHES[RESPONSES])
    assert ("verbosity" in told, "prompt_cache_retention" in told) == (verbosity, retention)
    assert {name: told[name] for name in KEYS} == KEYS


def test_of_the_same_dialect_all_is_as_it_came() -> None:
    wishes = {**WISHES[RESPONSES], "user": "u"}
    assert sent(RESPONSES, RESPONSES, url="https://api.mistral.ai/v1", model="m", **wishes) == wishes
