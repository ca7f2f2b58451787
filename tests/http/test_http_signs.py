"""Every sign that nobody has to say, from a call through a live gateway to the word that the learner hears; and what is
our own doing, or the client's leaving, is nobody's word."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from app.learner.credit import spoken
from app.learner.labels import call_of, label_of
from app.learner.signs import LOOP, signs_of
from app.learner.sources import (
    ASKED_AGAIN,
    EMPTY,
    MOVED_UP,
    REFUSAL,
    SIGNS,
    TOOL_LOOP,
    TRUNCATED,
    WRONG_ARGUMENTS,
    WRONG_SHAPE,
    Sources,
)
from tests.http.live import LiveGateway, contract
from tests.learner.calls import word
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import HANG, Script, text, tool, words

LATE = 1e12
SETTINGS = {"traces_compact": False, "learn": False}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {
                "type": "object",
                "properties": {"at": {"type": "string"}},
                "required": ["at"],
                "additionalProperties": False,
            },
        },
    }
]
SHAPE = {
    "type": "json_schema",
    "json_schema": {
        "name": "n",
        "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
}
ANSWERS = {
    "refuse": Script.of(words("I'm sorry, but I can't help with that.")),
    "nothing": Script.of(),
    "long": Script.of(words("word " * 40)),
    "shape": Script.of(text('{"n": "many"}')),
    "arguments": Script.of(tool('{"where": 1}', id="call_1", name="look")),
    "loop": Script.of(tool('{"at": "a"}', id="call_1", name="look")),
    "fine": Script.of(words("All is well.")),
    "good shape": Script.of(text('{"n": 3}')),
    "good arguments": Script.of(tool('{"at": "b"}', id="call_1", name="look")),
    "cut": Script.of(words("word " * 400), obeys_limit=False),
    "broken": Script.failure(500),
    "hang": Script.of(text("so "), HANG),
}


def answer(received: Received) -> Script:
    asked = next(m["content"] for m in received.body["messages"] if m["role"] == "user")
    return ANSWERS[asked.partition(":")[0]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with ScriptedUpstream(answer) as upstream:
        policy = contract(upstream).replace("fallback: [small-b, large]", "fallback: [], retries: {attempts: 0}")
        with LiveGateway(policy, tmp_path_factory.mktemp("signs"), **SETTINGS) as live:
            yield live


class Talk:
    """A conversation of a task of its own, with all that came of it."""

    def __init__(self, gateway: LiveGateway, about: str) -> None:
        self.gateway, self.records = gateway, list[dict[str, Any]]()
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": f"{about}: {secrets.token_hex(4)}"}]
        self.task = {"x-bursar-task-id": secrets.token_hex(4)}

    def call(self, model: str = "auto", **body: Any) -> Talk:
        answer = self.gateway.chat(self.task, model=model, messages=self.messages, **body)
        self.records.append(self.gateway.decision(answer))
        return self

    def tool_says(self, said: str) -> Talk:
        """The tool call that the answer made, and its result."""
        made = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "a"}'}}
        self.messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        self.messages.append({"role": "tool", "tool_call_id": "call_1", "content": said})
        return self

    def bad(self, at: int = 0) -> set[str]:
        """The signs that speak against a call, once all have had their time."""
        found = signs_of([call_of(record) for record in self.records], LATE)
        return {told.source for told in found[self.records[at]["request_id"]] if told.good == 0.0}


def test_each_sign_is_seen_where_it_shows_and_nowhere_else(gateway: LiveGateway) -> None:
    looped = Talk(gateway, "loop")
    for _ in range(LOOP):
        looped.call(tools=TOOLS).tool_says("Error: no such file")
    shown = {
        REFUSAL: Talk(gateway, "refuse").call().bad(),
        EMPTY: Talk(gateway, "nothing").call().bad(),
        TRUNCATED: Talk(gateway, "long").call(max_tokens=5).bad(),
        WRONG_SHAPE: Talk(gateway, "shape").call(response_format=SHAPE).bad(),
        WRONG_ARGUMENTS: Talk(gateway, "arguments").call(tools=TOOLS).bad(),
        ASKED_AGAIN: Talk(gateway, "fine").call().call().bad(),
        MOVED_UP: Talk(gateway, "fine").call("small").call("large", max_tokens=9).bad() - {ASKED_AGAIN},
        TOOL_LOOP: looped.bad(),
    }
    assert set(shown) == set(SIGNS)
    assert shown == {sign: {sign} for sign in SIGNS}
    for quiet in (
        Talk(gateway, "fine").call(),
        Talk(gateway, "good shape").call(response_format=SHAPE),
        Talk(gateway, "good arguments").call(tools=TOOLS),
        Talk(gateway, "fine").call("large").call("small", max_tokens=9),
    ):
        assert quiet.bad() <= {ASKED_AGAIN}
    assert Talk(gateway, "good arguments").call(tools=TOOLS).tool_says("it is there").call(tools=TOOLS).bad() == set()


def test_what_we_cut_or_could_not_do_and_whom_the_client_left_say_nothing(gateway: LiveGateway) -> None:
    failed = Talk(gateway, "broken").call("small").records[0]
    task = {"x-bursar-task-id": "cut", "x-bursar-max-cost-usd": "0.00002"}
    cut = gateway.decision(gateway.chat(task, messages=Talk(gateway, "cut").messages, stream=True))
    body = {"model": "small", "messages": Talk(gateway, "hang").messages, "stream": True}
    streaming = gateway.stream("POST", "/v1/chat/completions", body)
    streaming.event()
    left = streaming.headers["x-request-id"]
    streaming.leave()
    gateway.until(lambda: gateway.ask("GET", f"/v1/decisions/{left}").status == 200, PATIENCE_S)
    gone = gateway.ask("GET", f"/v1/decisions/{left}").json
    assert [one["outcome"] for one in (failed, cut, gone)] == ["api_error", "cost_killed", "client_gone"]
    calls = [call_of(record) for record in (failed, cut, gone)]
    assert signs_of(calls, LATE) == {}
    said = [word(call.request_id, "failure", by=call.key) for call in calls]
    assert spoken(calls, said) == {}
    assert [label_of(call, (), Sources(), 0.0) for call in calls] == [None] * 3
