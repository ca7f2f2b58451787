"""Which members an error reply is about, and a body without them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai_chat.refused import ALWAYS, OTHER_NAME, SPARED, refused_in, without

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "the temperature of 'top_p'"}],
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 1,
    "reasoning_effort": "high",
    "reasoning": {"effort": "high"},
    "text": {"verbosity": "low", "format": {"type": "text"}},
    "user": "me",
    "parallel_tool_calls": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def error(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}}).encode()


def found(refusal: bytes, body: dict[str, Any] = BODY, asked: dict[str, Any] | None = None, *, named: bool) -> set[str]:
    members = {name: msgspec.Raw() for name in (body if asked is None else asked)}
    return set(refused_in(refusal, lambda: json.dumps(body).encode(), members, named=named))


OPENAI = error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    param="max_tokens",
    code="unsupported_parameter",
)
FASTAPI = {"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "input": True}


@pytest.mark.parametrize(
    ("refusal", "names"),
    [
        (OPENAI, {"max_tokens"}),
        (error("Unrecognized request argument supplied: stream_options"), {"stream_options"}),
        (error("Unknown parameter: 'stream_options.include_usage'.", param="stream_options.include_usage"),
         {"stream_options"}),
        (json.dumps({"object": "error", "message": {"detail": [FASTAPI]}}).encode(), {"stream_options"}),
        (error(str([{**FASTAPI, "loc": ("body", "stream_options")}])), {"stream_options"}),
        (error("Validation error at #/stream_options: Extra inputs are not permitted"), {"stream_options"}),
        (error("Extra inputs are not permitted, field: 'top_p'"), {"top_p"}),
        (error("Unsupported value: 'temperature' does not support 0.5 with this model.", param="temperature"),
         {"temperature"}),
        (b'{"code":"invalid-argument","error":"Model grok-4 does not support parameter reasoningEffort."}',
         {"reasoning_effort"}),
        (b'{"error":"Argument not supported on this model: presencePenalty"}', {"presence_penalty"}),
        (error("body.top_p: property 'body.top_p' is unsupported", param="validation_error"), {"top_p"}),
        (error("Unsupported parameter: 'reasoning.effort' is not supported with this model.", param="reasoning.effort"),
         {"reasoning"}),
        (error("Unsupported value: 'low' is not supported with this model.", param="text.verbosity"),
         {"text.verbosity"}),
        (error("Unsupported parameter: 'text.verbosity' is not supported with this model.", param="text.verbosity"),
         {"text.verbosity"}),
        (error("Invalid JSON payload received. Unknown name \"user\": Cannot find field."), {"user"}),
        (error("Unsupported parameter: 'parallel_tool_calls' is not supported with this model."),
         {"parallel_tool_calls"}),
    ],
)  # fmt: skip
def test_what_providers_say(refusal: bytes, names: set[str]) -> None:
    assert found(refusal, named=False) == names


@pytest.mark.parametrize(
    "refusal",
    [
        error("Unknown parameter: 'messages.0.top_p'.", param="messages[0].top_p"),
        error("the user has no temperature that is an unsupported value"),
        error("Unsupported parameter: 'seed'"),
        error("'temperature' must be at most 2"),
        b"\xff\x00",
        b"",
    ],
)
def test_all_else_is_none(refusal: bytes) -> None:
    assert not found(refusal, named=False)
    assert not refused_in(refusal, lambda: b"no json", {}, named=False)


def test_a_client_that_has_named_the_model_keeps_what_it_said() -> None:
    said = error("Unsupported value: 'temperature' is not supported with this model. Neither is 'top_p'.")
    assert found(said, named=False) == {"temperature", "top_p"}
    assert found(said, asked={"temperature": 1}, named=True) == {"top_p"}
    assert found(OPENAI, named=True) == {"max_tokens"}
    usage = error("Unrecognized request argument supplied: stream_options")
    assert found(usage, named=True) == {"stream_options"}


def test_a_failure_of_another_kind_costs_no_body() -> None:
    """A provider that limits rates or fails has refused nothing: what was sent is not made again to look at it."""

    def sent() -> bytes:
        raise AssertionError

    assert not refused_in(error("Rate limit reached for 'temperature'."), sent, {}, named=False)


@pytest.mark.parametrize("given", [None, [], "low"])
def test_what_holds_no_members_loses_none(given: object) -> None:
    said = error("Unsupported parameter: 'text.verbosity' is not supported with this model.")
    assert not found(said, {**BODY, "text": given}, named=False)


def test_whoever_wants_one_call_at_a_time_is_not_given_two() -> None:
    said = error("Unsupported parameter: 'parallel_tool_calls' is not supported with this model.")
    assert not found(said, {**BODY, "parallel_tool_calls": False}, named=False)


def test_a_limit_goes_under_its_other_name_where_the_first_one_stood() -> None:
    body = json.dumps(BODY).encode()
    assert list(json.loads(without(body, {"max_tokens"}))) == [OTHER_NAME.get(name, name) for name in BODY]
    back = without(without(body, {"max_tokens"}), {"max_completion_tokens"})
    assert json.loads(back) == BODY


@given(st.sets(st.sampled_from(sorted(SPARED | ALWAYS | OTHER_NAME.keys()))))
def test_only_what_is_named_goes(names: set[str]) -> None:
    left = json.loads(without(json.dumps(BODY).encode(), names))
    gone = {name for name in names if name not in OTHER_NAME and name != "text.verbosity"}
    renamed = {OTHER_NAME[name] if name in names and name in OTHER_NAME else name for name in BODY}
    assert left.keys() == renamed - gone
    assert left["text"] == ({"format": {"type": "text"}} if "text.verbosity" in names else BODY["text"])
    assert all(left[name] == BODY[name] for name in left.keys() & BODY.keys() - {"text"})
