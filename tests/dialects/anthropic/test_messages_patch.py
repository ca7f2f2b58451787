"""Messages to Messages: what changes in a request, and that nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadRequest
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.anthropic.parse import parse_count
from app.dialects.anthropic.patch import patch_count
from tests.dialects.anthropic.texts import USER, body, parsed, patched

SAME = "claude-opus-5-5"
SPACED = (
    b'{ "system" : [ {"text":"a",  "type":"text", "cache_control": {"type":"ephemeral","ttl":"1h"}} ],\n'
    b'  "zzz": {"b":1,  "a":2}, "max_tokens": 10 , "model":"claude-opus-5-5",'
    b' "messages":[{"content":"\\u00e4 \xc3\xa4","role":"user", "x":1.0}] ,'
    b' "tools":[ { "input_schema":{},"name":"t"} ]}'
)


def test_members_keep_their_bytes_and_their_order() -> None:
    request = DIALECT.parse(SPACED, {}, {})
    sent = DIALECT.patch(request, model="claude-haiku-5-5", limit_tokens=7, stream=True)
    assert sent.path == "/messages"
    assert sent.body == (
        b'{"system":[ {"text":"a",  "type":"text", "cache_control": {"type":"ephemeral","ttl":"1h"}} ],'
        b'"zzz":{"b":1,  "a":2},"max_tokens":7,"model":"claude-haiku-5-5",'
        b'"messages":[{"content":"\\u00e4 \xc3\xa4","role":"user", "x":1.0}],'
        b'"tools":[ { "input_schema":{},"name":"t"} ],"stream":true}'
    )


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text() | st.integers() | st.lists(st.floats(0, 1))))
def test_unknown_members_survive(unknown: dict[str, Any]) -> None:
    unknown = {f"x_{name}": value for name, value in unknown.items()}
    assert patched(parsed(**unknown)) == json.loads(body(**unknown))


def test_what_is_ours_is_taken_out() -> None:
    request = parsed(metadata={"task_id": "t", "user_id": "u"}, max_cost_usd=1)
    assert patched(request)["metadata"] == {"user_id": "u"}
    assert "max_cost_usd" not in patched(request)
    assert "metadata" not in patched(parsed(metadata={"task_id": "t"}))


def test_the_version_is_always_there() -> None:
    def headers(**given: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in given.items()}
        return DIALECT.patch(parsed(headers=named), model=SAME, limit_tokens=None, stream=False).headers

    assert headers() == {"anthropic-version": "2023-06-01"}
    assert headers(anthropic_version="2024-01-01", anthropic_beta="x") == {
        "anthropic-version": "2024-01-01",
        "anthropic-beta": "x",
    }


@pytest.mark.parametrize(("asked", "sent", "told"), [(True, False, False), (..., False, ...), (..., True, True)])
def test_the_stream_flag(asked: Any, sent: bool, told: Any) -> None:
    assert patched(parsed(stream=asked), stream=sent).get("stream", ...) is told


def test_no_answer_is_asked_for_where_the_cache_is_filled() -> None:
    assert patched(parsed(max_tokens=0), limit=500)["max_tokens"] == 0


@pytest.mark.parametrize(
    ("budget", "asked", "limit", "betas", "left"),
    [
        (8000, 16_000, 9000, "", {"type": "enabled", "budget_tokens": 8000}),
        (8000, 16_000, 5000, "", {"type": "enabled", "budget_tokens": 4999}),
        (8000, 16_000, 1025, "", {"type": "enabled", "budget_tokens": 1024}),
        (8000, 16_000, 1024, "", None),
        (8000, 16_000, 10, "", None),
        (8000, 16_000, 10, "interleaved-thinking-2025-05-14", {"type": "enabled", "budget_tokens": 8000}),
        (8000, 4000, 2000, "", {"type": "enabled", "budget_tokens": 8000}),
    ],
)
def test_a_budget_stays_below_the_clamp(budget: int, asked: int, limit: int, betas: str, left: Any) -> None:
    thinking = {"type": "enabled", "budget_tokens": budget}
    request = parsed(thinking=thinking, max_tokens=asked, headers={"anthropic-beta": betas})
    assert patched(request, limit=limit).get("thinking") == left


@pytest.mark.parametrize("thinking", [None, {"type": "enabled", "budget_tokens": None}, {"type": "adaptive"}])
def test_without_a_budget_nothing_is_fitted(thinking: Any) -> None:
    assert patched(parsed(thinking=thinking), limit=5)["thinking"] == thinking


OWN = {"type": "thinking", "thinking": "hm", "signature": "EqQB"}
UNSIGNED = {"type": "thinking", "thinking": "hm", "signature": ""}
FOREIGN = {"type": "thinking", "thinking": "hm", "signature": "bursar-proof:gemini:xyz"}
HIDDEN = {"type": "redacted_thinking", "data": "bursar-proof:openai_responses:xyz"}
TEXT = {"type": "text", "text": 'a "thinking" word'}


def test_thinking_that_others_signed_is_taken_out() -> None:
    untouched = {"role": "assistant", "content": [OWN, {"type": "redacted_thinking", "data": "q"}, TEXT]}
    request = parsed(
        USER,
        untouched,
        USER,
        {"role": "assistant", "content": [UNSIGNED, FOREIGN, HIDDEN, TEXT], "x": 1},
        USER,
        {"role": "assistant", "content": [UNSIGNED]},
        USER,
    )
    assert patched(request)["messages"] == [
        USER,
        untouched,
        USER,
        {"role": "assistant", "content": [TEXT], "x": 1},
        USER,
        USER,
    ]


@pytest.mark.parametrize("odd", [0, 1.5, ["x"], {}, True])
@pytest.mark.parametrize("member", ["signature", "data"])
def test_a_thought_of_wrong_types_is_the_providers_to_judge(member: str, odd: Any) -> None:
    turn = {
        "role": "assistant",
        "content": [{"type": "thinking", "signature": "EqQB", "data": "q", "x": "thinking"} | {member: odd}],
    }
    assert patched(parsed(USER, turn, USER))["messages"] == [USER, turn, USER]


def test_thinking_of_its_own_keeps_every_byte() -> None:
    data = body(USER, {"role": "assistant", "content": [OWN, TEXT]}, {"role": "user", "content": [UNSIGNED]})
    data = data.replace(b'"hm"', b'"h\\u006d"')
    request = DIALECT.parse(data, {}, {})
    assert bytes(request.members["messages"]) in DIALECT.patch(request, model=SAME, limit_tokens=1, stream=False).body


REMINDER = {"role": "system", "content": [{"type": "text", "text": "now"}]}
ASKED: dict[str, Any] = {
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}},
    "temperature": 1,
    "max_tokens": 20_000,
}


class TestAnotherModel:
    """The policy may put another model in the place of the one that the client worded its request for."""

    def test_the_same_one_gets_what_was_sent(self) -> None:
        request = parsed(USER, REMINDER, **ASKED)
        assert patched(request) == json.loads(body(USER, REMINDER, **ASKED))

    def test_an_older_one_thinks_in_a_budget(self) -> None:
        sent = patched(parsed(USER, REMINDER, **ASKED), "claude-sonnet-4-5")
        assert sent["thinking"] == {"type": "enabled", "budget_tokens": 10_000}
        assert sent["output_config"] == {"format": {"type": "json_schema", "schema": {}}}
        assert sent["temperature"] == 1
        assert sent["messages"][1] == {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>"},
                {"type": "text", "text": "now"},
                {"type": "text", "text": "</system-reminder>"},
            ],
        }

    def test_a_small_or_very_old_one_does_not(self) -> None:
        assert "thinking" not in patched(parsed(**ASKED | {"max_tokens": 2000}), "claude-haiku-4-5")
        assert "thinking" not in patched(parsed(**ASKED), "claude-3-5-haiku-latest")
        assert "output_config" not in patched(parsed(output_config={"effort": "low"}), "claude-haiku-4-5")

    def test_a_newer_one_thinks_by_itself(self) -> None:
        thinking = {"type": "enabled", "budget_tokens": 2000}
        asked: dict[str, Any] = {"thinking": thinking, "temperature": 0.5, "top_k": 4, "top_p": 0.9}
        sent = patched(parsed(model="claude-sonnet-4-5", **asked), "claude-opus-5")
        assert sent["thinking"] == {"type": "adaptive"}
        assert not {"temperature", "top_k", "top_p"} & sent.keys()

    @pytest.mark.parametrize(
        ("model", "asked", "sent"),
        [
            ("claude-opus-4-6", "low", "low"),
            ("claude-opus-4-6", "max", "max"),
            ("claude-sonnet-4-6", "xhigh", "high"),
            ("claude-sonnet-5", "xhigh", "xhigh"),
            ("claude-opus-4-5", "high", "high"),
            ("claude-opus-4-5", "max", "high"),
            ("claude-sonnet-4-5", "max", None),
            ("claude-fable-5", "odd", None),
        ],
    )
    def test_an_effort_that_it_knows(self, model: str, asked: str, sent: str | None) -> None:
        found = patched(parsed(output_config={"effort": asked}), model)
        assert found.get("output_config", {}).get("effort") == sent

    @pytest.mark.parametrize(
        ("model", "asked", "effort", "sent", "sent_effort"),
        [
            ("claude-opus-5-5", "disabled", "max", None, "max"),
            ("claude-fable-5", "disabled", None, None, None),
            ("claude-mythos-5-1", "between_tools", "low", None, "low"),
            ("claude-sonnet-5-5", "disabled", "xhigh", "between_tools", "high"),
            ("claude-opus-5", "between_tools", "max", "disabled", "high"),
            ("claude-haiku-5-5", "disabled", "low", "disabled", "low"),
            ("claude-opus-4-8", "disabled", "max", "disabled", "max"),
            ("claude-sonnet-4-6", "between_tools", "xhigh", "disabled", "high"),
            ("claude-sonnet-4-5", "between_tools", "low", None, None),
            ("claude-haiku-4-5", "disabled", None, "disabled", None),
        ],
    )
    def test_thinking_is_turned_off_as_it_can_be(
        self, model: str, asked: str, effort: str | None, sent: str | None, sent_effort: str | None
    ) -> None:
        wish = {} if effort is None else {"output_config": {"effort": effort}}
        found = patched(parsed(model="claude-x", thinking={"type": asked}, **wish), model)
        told = (found.get("thinking", {}).get("type"), found.get("output_config", {}).get("effort"))
        assert told == (sent, sent_effort)

    @pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "a"}])
    def test_one_that_cannot_be_made_to_call_a_tool_is_not_asked_to(self, choice: dict[str, str]) -> None:
        request = parsed(model="claude-sonnet-4-5", tools=[{"name": "a", "input_schema": {}}], tool_choice=choice)
        assert patched(request, "claude-haiku-5-5")["tool_choice"] == choice
        with pytest.raises(BadRequest) as caught:
            patched(request, "claude-opus-5-5")
        assert caught.value.param == "tool_choice"
        for free in ({"type": "auto"}, {"type": "none"}, None, {"type": 1}, 7):
            request = parsed(model="claude-sonnet-4-5", tool_choice=free)
            assert patched(request, "claude-opus-5-5")["tool_choice"] == free

    def test_another_makers_gets_system_messages_as_the_users(self) -> None:
        sent = patched(parsed(USER, {"role": "system", "content": "now"}, **ASKED), "glm-5")
        assert sent["messages"][1]["role"] == "user"
        assert sent["messages"][1]["content"][1] == {"type": "text", "text": "now"}
        assert sent["thinking"] == {"type": "adaptive"}

    def test_messages_that_only_speak_of_systems_keep_their_bytes(self) -> None:
        request = parsed({"role": "user", "content": 'the "system" role'}, {"role": "assistant", "content": "ok"})
        sent = DIALECT.patch(request, model="glm-5", limit_tokens=None, stream=False)
        assert bytes(request.members["messages"]) in sent.body


def test_counting_is_patched_alike() -> None:
    request = parse_count(body(USER, {"role": "system", "content": "x"}, max_tokens=..., max_cost_usd=1), {})
    sent = patch_count(request, model="claude-sonnet-4-5")
    assert sent.path == "/messages/count_tokens"
    told = json.loads(sent.body)
    assert told.keys() == {"model", "messages"}
    assert told["messages"][1]["role"] == "user"
