"""Within the dialect: model, limit and what is ours change, all else keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.types import ChatRequest
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.parse import parse_count
from app.dialects.gemini.patch import patch_count
from app.dialects.gemini.proof import UNSIGNED, shown_signature
from tests.dialects.gemini.exchange import SIGNATURE, USER, parsed

PATH = {"model": "alias", "verb": "generateContent"}


def patched(request: ChatRequest, limit: int | None = None, *, stream: bool = False, model: str = "gemini-x") -> str:
    """The upstream's body."""
    return DIALECT.patch(request, model=model, limit_tokens=limit, stream=stream).body.decode()


def test_bytes_stay_as_they_came() -> None:
    body = (
        b'{"contents":[ {"parts":[{"text":"\\u00e9"} ,{"unknown":1.0}]}\n],"brandNew":{"b":1, "a":[ ]},'
        b'"generation_config":{"topK": 40.0}}'
    )
    request = DIALECT.parse(body, {}, PATH)
    assert patched(request).encode() == body
    limited = patched(request, 99)
    assert '"generation_config":{"topK":40.0,"maxOutputTokens":99}' in limited
    assert (
        limited.replace(limited[limited.index(',"generation_config"') :], "")
        == body.decode().partition(',"generation_config"')[0]
    )


@given(
    st.dictionaries(st.text(min_size=1), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
)
def test_unknown_members_pass_in_their_order(more: dict[str, Any]) -> None:
    names = ("contents", "generationConfig", "generation_config", "tools", "systemInstruction", "system_instruction")
    ours = ("max_cost_usd", "metadata", "model")
    more = {name: value for name, value in more.items() if name not in (*names, *ours)}
    body = {"contents": [USER], **more}
    request = DIALECT.parse(json.dumps(body).encode(), {}, PATH)
    assert list(json.loads(patched(request)).items()) == list(body.items())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"maxOutputTokens": 500, "seed": 1}, {"maxOutputTokens": 99, "seed": 1}),
        ({"max_output_tokens": 500}, {"max_output_tokens": 99}),
        ({"seed": 1}, {"seed": 1, "maxOutputTokens": 99}),
        (None, {"maxOutputTokens": 99}),
    ],
)
def test_the_limit_is_clamped_where_it_stands(config: Any, expected: Any) -> None:
    assert json.loads(patched(parsed(generationConfig=config), 99))["generationConfig"] == expected


def test_a_limit_is_added_where_there_is_no_configuration() -> None:
    assert json.loads(patched(parsed(), 99))["generationConfig"] == {"maxOutputTokens": 99}
    assert "generationConfig" not in json.loads(patched(parsed()))


def test_what_is_ours_goes() -> None:
    assert json.loads(patched(parsed(max_cost_usd=1, metadata={"task_id": "t"}))) == {"contents": [USER]}
    kept = json.loads(patched(parsed(metadata={"task_id": "t", "other": 1})))
    assert kept["metadata"] == {"other": 1}


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-2.5-pro", False, "/models/gemini-2.5-pro:generateContent"),
        ("models/gemini-2.5-pro", True, "/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("tunedModels/a b", False, "/tunedModels/a%20b:generateContent"),
        ("../x?y#z:w", False, "/models/..%2Fx%3Fy%23z%3Aw:generateContent"),
    ],
)
def test_model_and_verb_stand_in_the_path(model: str, stream: bool, path: str) -> None:
    assert DIALECT.patch(parsed(), model=model, limit_tokens=None, stream=stream).path == path


def test_a_model_in_the_body_is_replaced() -> None:
    body = json.dumps({"model": "models/alias", "contents": [USER]}).encode()
    assert json.loads(patched(DIALECT.parse(body, {}, PATH)))["model"] == "models/gemini-x"


def test_another_providers_proofs_do_not_reach_google() -> None:
    foreign = shown_signature("anthropic", "c2ln", None)
    mine = {"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": SIGNATURE}]}
    mixed = {
        "role": "model",
        "parts": [{"text": "x", "thought": True, "thought_signature": foreign}, {"text": "Hi"}],
    }
    alone = {"role": "model", "parts": [{"text": "", "thought": True, "thoughtSignature": foreign}]}
    sent = json.loads(patched(parsed(contents=[USER, mine, mixed, alone, USER])))["contents"]
    assert sent == [USER, mine, {"role": "model", "parts": [{"text": "Hi"}]}, USER]


CALL = {"functionCall": {"name": "f", "args": {}}}
ANSWER = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "1"}}}]}


def calls(*parts: dict[str, Any]) -> dict[str, Any]:
    """A turn of the model's that calls."""
    return {"role": "model", "parts": list(parts)}


def test_gemini_3_is_told_of_calls_that_nobody_signed() -> None:
    turns = [USER, calls(CALL), ANSWER, USER, calls({"text": "so"}, CALL, CALL), ANSWER]
    signed = {**CALL, "thoughtSignature": UNSIGNED}
    sent = json.loads(patched(parsed(contents=turns), model="gemini-3-flash"))["contents"]
    assert sent == [*turns[:4], calls({"text": "so"}, signed, CALL), ANSWER]
    assert json.loads(patched(parsed(contents=turns), model="gemini-2.5-pro"))["contents"] == turns


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "gemini-3-flash"])
def test_signed_calls_keep_their_bytes(model: str) -> None:
    turns = [USER, calls({**CALL, "thoughtSignature": SIGNATURE}, CALL), ANSWER]
    request = parsed(contents=turns)
    assert DIALECT.patch(request, model=model, limit_tokens=None, stream=False).body == b'{"contents":%b}' % bytes(
        request.members["contents"]
    )


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        ("gemini-2.5-flash", {"thinkingLevel": "HIGH"}, {"thinkingBudget": 24576}),
        ("gemini-2.5-flash", {"thinkingBudget": 32768, "includeThoughts": True}, None),
        ("gemini-3-flash", {"thinkingLevel": "minimal"}, {"thinkingLevel": "minimal"}),
        ("gemini-2.0-flash", {"thinkingBudget": 100}, "nothing"),
        ("fast-one", {"thinkingLevel": "HIGH", "new": 1}, {"thinkingLevel": "HIGH", "new": 1}),
        ("asked", {"thinkingLevel": "HIGH", "new": 1}, {"thinkingLevel": "HIGH", "new": 1}),
    ],
)
def test_thinking_is_asked_for_as_the_model_takes_it(model: str, thinking: Any, expected: Any) -> None:
    request = parsed(model="asked", generationConfig={"seed": 1, "thinkingConfig": thinking})
    config = json.loads(patched(request, model=model))["generationConfig"]
    expected = {"includeThoughts": True, "thinkingBudget": 24576} if expected is None else expected
    assert config == {"seed": 1} | ({} if expected == "nothing" else {"thinkingConfig": expected})


def test_tokens_are_counted_upstream() -> None:
    path = {"model": "alias", "verb": "countTokens"}
    plain = parse_count(json.dumps({"contents": [USER]}).encode(), path)
    sent = patch_count(plain, model="gemini-x")
    assert (sent.path, json.loads(sent.body)) == ("/models/gemini-x:countTokens", {"contents": [USER]})
    whole = {"contents": [USER], "tools": []}
    sent = patch_count(parse_count(json.dumps({"generateContentRequest": whole}).encode(), path), model="gemini-x")
    assert json.loads(sent.body) == {"generateContentRequest": {**whole, "model": "models/gemini-x"}}
