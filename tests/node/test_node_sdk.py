"""The Node SDK harness against the scripted upstream: what the SDK gives is what the upstream said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import node_sdk
from tests.upstream import ScriptedUpstream
from tests.upstream_script import END, Event, Script, error_body, text, tool, words


@pytest.fixture(scope="module", autouse=True)
def installed() -> Path:
    try:
        return node_sdk.installed()
    except node_sdk.NodeUnavailable as error:
        pytest.skip(str(error))


def test_whole_and_streamed_answers_agree() -> None:
    with ScriptedUpstream(Script.of(words("one two three"), usage_override={"cost": 0.5})) as upstream:
        for mode in ("plain", "stream", "stream-usage"):
            seen = node_sdk.chat(upstream.url, mode, model="small-v1")
            assert (seen["text"], seen["finish_reason"], seen["attempts"]) == ("one two three", "stop", 1)
            assert (seen["model"], seen["error"]) == ("small-v1", None)
            assert (seen["usage"] or {}).get("cost") == (None if mode == "stream" else 0.5)
        assert upstream.requests[0].headers["user-agent"].startswith("OpenAI/JS")


def test_tool_calls_are_put_together() -> None:
    script = Script.of(tool(id="call_a", name="look"), tool('{"what":'), tool('"up"}'))
    with ScriptedUpstream(script) as upstream:
        seen = node_sdk.chat(upstream.url, "tools")
        assert seen["tool_calls"] == [{"id": "call_a", "name": "look", "arguments": '{"what":"up"}'}]
        assert seen["finish_reason"] == "tool_calls"
        assert upstream.requests[0].body["tools"]


def test_a_denial_is_one_attempt_and_a_limit_three() -> None:
    denied = Script.failure(402, "Out of budget", type="insufficient_quota", code="budget_exceeded")
    with ScriptedUpstream(denied) as upstream:
        seen = node_sdk.chat(upstream.url, "denied")
        assert (seen["error"]["status"], seen["error"]["code"], seen["attempts"]) == (402, "budget_exceeded", 1)
        upstream.source = Script.failure(429, headers={"retry-after-ms": "1"})
        seen = node_sdk.chat(upstream.url, "denied", max_retries=2)
        assert (seen["error"]["name"], seen["attempts"], len(upstream.requests)) == ("RateLimitError", 3, 4)


def test_an_error_in_the_stream_is_raised_once_after_the_text() -> None:
    error = Event(error_body("Out of budget", type="insufficient_quota", code="budget_exceeded"))
    with ScriptedUpstream(Script.of(text("half "), error, END)) as upstream:
        seen = node_sdk.chat(upstream.url, "cut")
        assert (seen["text"], seen["error"]["code"], seen["attempts"]) == ("half ", "budget_exceeded", 1)
        assert seen["error"]["api_error"]
        assert seen["finish_reason"] is None
