"""What providers refuse of requests, mended and kept in mind for the next ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai_chat.refused import OTHER_NAME
from app.gateway.refusals import KEPT_S, MOST_BYTES, MOST_EACH, MOST_KEPT, Refusals, Whose
from tests.gateway.live import PROMPT, Live, policy, read
from tests.gateway.test_extras import BETAS, extra
from tests.gateway.test_extras import BODY as CLAUDE_CODE
from tests.gateway.test_thoughts import MESSAGE, refusal
from tests.http.live import sha256
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

USAGE = "Unrecognized request argument supplied: stream_options"
SAMPLED = "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported."


ANSWER = Script.of(words("Once upon a time"))


def who(name: str) -> Whose:
    return name, "p", "http://p", "m", "openai_chat", "", ""


class TestKept:
    def test_in_order_until_an_hour_after_the_first(self) -> None:
        kept = Refusals()
        assert not kept
        kept.note(who("a"), [b"1"], 0.0)
        kept.note(who("a"), [b"2", b"1"], KEPT_S - 1)
        assert kept.known(who("a"), KEPT_S - 1) == (b"1", b"2")
        assert not kept.known(who("b"), 0.0)
        assert not kept.known(who("a"), KEPT_S)
        kept.note(who("a"), [b"3"], KEPT_S)
        assert kept.known(who("a"), 2 * KEPT_S - 1) == (b"3",)

    def test_none_that_is_long(self) -> None:
        kept = Refusals()
        kept.note(who("a"), [b"x" * (MOST_BYTES + 1)], 0.0)
        assert not kept

    @given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=2))))
    def test_few_of_each_and_few_at_all(self, said: list[tuple[int, bytes]]) -> None:
        kept = Refusals()
        for number, text in said:
            kept.note(who(str(number)), [text], 0.0)
        for number in range(4):
            mine = list(dict.fromkeys(text for of, text in said if of == number))
            assert set(kept.known(who(str(number)), 0.0)) <= set(mine)
            if len(mine) <= MOST_EACH:
                assert kept.known(who(str(number)), 0.0) == tuple(mine)

    def test_the_first_are_forgotten_first(self) -> None:
        kept = Refusals()
        for number in range(MOST_KEPT + 1):
            kept.note(who(str(number)), [b"1"], 0.0)
        assert not kept.known(who("0"), 0.0)
        assert kept.known(who("1"), 0.0)


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    upstream.source = refusing({"stream_options": USAGE, "temperature": SAMPLED})
    async with Live(tmp_path, policy({"a": upstream})) as running:
        yield running


def refusing(what: dict[str, str]) -> Callable[[Any], Script]:
    """A provider that names one member at a time of those that it does not take."""

    def source(asked: Any) -> Script:
        for name, message in what.items():
            if name in asked.body:
                return refusal(message)
        return ANSWER

    return source


async def test_the_first_call_is_mended_and_the_next_one_needs_no_mending(
    live: Live, upstream: ScriptedUpstream
) -> None:
    for _ in range(2):
        answer = await live.chat(stream=True, temperature=0.5)
        assert answer.status == 200
        (attempt,) = await live.attempts(answer)
        assert attempt["left_out"] == ["stream_options", "temperature"]
    assert [{"stream_options", "temperature"} & request.body.keys() for request in upstream.requests] == [
        {"stream_options", "temperature"}, {"temperature"}, set(), set(),
    ]  # fmt: skip


async def test_what_is_not_sent_is_not_left_out(live: Live, upstream: ScriptedUpstream) -> None:
    await live.chat(stream=True, temperature=0.5)
    upstream.requests.clear()
    answer = await live.chat(stream=True)
    assert (await live.attempts(answer))[0]["left_out"] == ["stream_options"]
    assert len(upstream.requests) == 1


async def test_a_request_that_is_refused_all_the_same_teaches_nothing(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = [refusal(USAGE), refusal("bad messages")]
    assert (await live.chat(stream=True)).status == 400
    assert not live.services.refusals
    upstream.source = ANSWER
    assert (await live.chat(stream=True)).status == 200
    assert "stream_options" in upstream.requests[-1].body


async def test_claude_code_at_a_provider_that_knows_little_of_it(tmp_path: Path) -> None:
    def source(asked: Any) -> Script:
        for name in ("context_management", "output_config"):
            if name in asked.body:
                return refusal(extra(name))
        return refusal("invalid beta flag") if "anthropic-beta" in asked.headers else MESSAGE

    with ScriptedUpstream(source) as upstream:
        models = {"a": {"upstream_model": "claude-sonnet-5"}}
        made = policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models)
        async with Live(tmp_path, made) as live:
            for betas, asked in ((BETAS, 4), (BETAS, 1), ("other-2026", 2), ("other-2026", 1)):
                upstream.requests.clear()
                known = {name: value for name, value in CLAUDE_CODE.items() if betas == BETAS or "_" not in name}
                headers = {"anthropic-beta": betas}
                path = f"{live.url}/v1/messages"
                body = {**known, "max_tokens": 50}
                assert (await read(await live.client.session.post(path, json=body, headers=headers))).status == 200
                assert len(upstream.requests) == asked


async def test_another_key_is_told_for_itself(tmp_path: Path) -> None:
    keys = [{"name": name, "sha256": sha256(name)} for name in ("alice", "bob")]
    with ScriptedUpstream(refusing({"stream_options": USAGE})) as upstream:
        async with Live(tmp_path, policy({"a": upstream}, keys=keys)) as live:
            for name, asked in (("alice", 2), ("alice", 1), ("bob", 2)):
                upstream.requests.clear()
                body = {"model": "a", "messages": PROMPT, "stream": True}
                headers = {"authorization": f"Bearer {name}"}
                async with live.client.session.post(
                    f"{live.url}/v1/chat/completions", json=body, headers=headers
                ) as response:
                    await response.read()
                    assert response.status == 200
                assert len(upstream.requests) == asked


async def test_a_limit_of_ours_goes_under_the_name_that_is_known(tmp_path: Path) -> None:
    """A deployment whose name tells nothing refuses `max_tokens`, which only the gateway's clamp has put there."""
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    with ScriptedUpstream(refusing({"max_tokens": said})) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            answer = await live.chat(stream=True, max_cost_usd=0.01)
            assert answer.status == 200
        first, second = upstream.requests
        assert second.body["max_completion_tokens"] == first.body["max_tokens"]
        assert json.dumps(second.body).count("max_tokens") == 0


@pytest.mark.parametrize("first", ["max_tokens", "max_completion_tokens"])
async def test_the_name_that_is_advised_is_not_refused(tmp_path: Path, first: str) -> None:
    """Proxies say it without a `param`. Other clients of this key send the limit under the name that is known."""
    other = OTHER_NAME[first]
    said = f"Unsupported parameter: '{first}' is not supported with this model. Use '{other}' instead."
    with ScriptedUpstream(refusing({first: said})) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            assert [(await live.chat(stream=True, **{name: 50})).status for name in (first, other)] == [200, 200]
        assert [name for r in upstream.requests for name in r.body if name in OTHER_NAME] == [first, other, other]


async def test_a_limit_goes_back_to_its_own_name_where_that_is_known_by_now(tmp_path: Path) -> None:
    """Behind a deployment's name is another model than an hour ago."""
    old, new = OTHER_NAME
    with ScriptedUpstream(refusing({old: f"Unknown parameter: '{old}'"})) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            assert (await live.chat(stream=True, **{old: 50})).status == 200
            upstream.source = refusing({new: f"Unknown parameter: '{new}'"})
            assert [(await live.chat(stream=True, **{old: 50})).status for _ in range(2)] == [200, 200]
            asked = [name for r in upstream.requests for name in r.body if name in OTHER_NAME]
            assert asked == [old, new, new, old, old]
            upstream.requests.clear()
            upstream.source = refusing({name: f"Unknown parameter: '{name}'" for name in (old, new)})
            assert (await live.chat(stream=True, **{old: 50})).status == 400
            assert len(upstream.requests) < 5, "it does not go round in circles"


async def test_the_tighter_of_two_limits_is_left(tmp_path: Path) -> None:
    with ScriptedUpstream(refusing({"max_tokens": "Unknown parameter: 'max_tokens'"})) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            for limits in (
                {"max_tokens": 50, "max_completion_tokens": 500},
                {"max_tokens": 500, "max_completion_tokens": 50},
            ):
                assert (await live.chat(**limits)).status == 200
                sent = upstream.requests[-1].body
                assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 50)


async def test_another_value_is_not_refused_with_the_one_that_was(tmp_path: Path) -> None:
    said = (
        "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model. Supported values are: 'low'."
    )
    with ScriptedUpstream(
        lambda r: refusal(said) if r.body.get("reasoning_effort") == "minimal" else ANSWER
    ) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            for effort in ("minimal", "low"):
                assert (await live.chat(model="auto", reasoning_effort=effort)).status == 200
        assert [r.body.get("reasoning_effort") for r in upstream.requests] == ["minimal", None, "low"]


async def test_what_is_refused_of_reasoning_models_is_sent_where_they_do_not_reason(tmp_path: Path) -> None:
    """https://platform.openai.com/docs/guides/latest-model: `temperature` only with the effort `none`."""
    said = "Unsupported parameter: 'temperature' is not supported with this model."

    def source(asked: Any) -> Script:
        takes = "temperature" not in asked.body or asked.body["reasoning_effort"] == "none"
        return ANSWER if takes else refusal(said)

    with ScriptedUpstream(source) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            for effort in ("high", "none", "high"):
                assert (await live.chat(model="auto", temperature=0.5, reasoning_effort=effort)).status == 200
        assert [r.body.get("temperature") for r in upstream.requests] == [0.5, None, 0.5, None]


@pytest.mark.parametrize("openrouter", [False, True])
async def test_who_may_serve_is_news_to_openrouter_alone(
    tmp_path: Path, openrouter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI refuses what it does not know. What OpenRouter is told is never left out."""
    monkeypatch.setattr("app.stores.policy_compile.OPENROUTER_HOST", "127.0.0.1" if openrouter else "openrouter.ai")
    with ScriptedUpstream(refusing({"provider": "Unknown parameter: 'provider'."})) as upstream:
        async with Live(tmp_path, policy({"a": upstream})) as live:
            answer = await live.chat(stream=True, provider={"only": ["a"]})
        assert answer.status == (400 if openrouter else 200)
        assert ["provider" in r.body for r in upstream.requests] == ([True] if openrouter else [True, False])
