"""What a client says reaches the provider, and what the provider says reaches the client, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.http.live import SAY, Answer, LiveGateway
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, audio, reasoning, refusal, text, tool
from tests.wire_cases import WireCase, stream_cases, whole_cases

pytestmark = pytest.mark.usefixtures("upstream")

members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

REQUEST = rb"""{ "model" : "capped",
 "messages":[{"role":"developer","content":"caf\u00e9 \ud83d\ude00"}, {"role":"user","content":[
   {"type":"text","text":"what is this?","cache_control":{"type":"ephemeral"}},
   {"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}}]},
  {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
   {"id":"c1","type":"function","function":{"name":"look","arguments":"{\"a\": 1}"}}]},
  {"role":"tool","tool_call_id":"c1","content":"found"}],
 "tools":[{"type":"function","function":{"name":"look","strict":true,"parameters":{"z":1,"a":{"$ref":"#/x"}}}}],
 "tool_choice": {"type":"function","function":{"name":"look"}}, "parallel_tool_calls":false,
 "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"b":1.50,"a":[1e3,-0.0]}}},
 "logprobs":true,"top_logprobs":5,"n":2,"seed":12345678901234567890,"temperature":0.70,"logit_bias":{"50256":-100},
 "stop":["\n\n"],"user":"u-1","service_tier":"auto","store":false,"metadata":{"b":"2","a":"1"},
 "prediction":{"type":"content","content":"x"},"modalities":["text"],"reasoning_effort":"low",
 "prompt_cache_key":"k","x_unknown":{"deep":[{"er":null}]},"\u00fcber":true,"max_completion_tokens":64}"""


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    policy = f"""
version: 1
providers: {{a: {{base_url: "{shared_upstream.url}"}}}}
models:
  free: {{provider: a, pricing: free}}
  capped: {{provider: a, pricing: {{input_per_1k: 0.0001, output_per_1k: 0.0004}}, budgets: {{max_cost_usd: 5}}}}
"""
    with LiveGateway(policy, tmp_path_factory.mktemp("through")) as live:
        yield live


def test_every_member_of_a_request_keeps_its_bytes_and_its_place(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    for extra, added in ((b"}", ()), (b', "stream": true}', ("stream_options",))):
        answer = gateway.ask("POST", "/v1/chat/completions", REQUEST[:-1] + extra)
        assert answer.status == 200
        given, sent = members_of(REQUEST[:-1] + extra), members_of(upstream.requests[-1].raw)
        assert list(sent) == [*given, *added]
        assert bytes(sent["model"]) == b'"capped"'
        for name, value in given.items():
            assert name == "model" or bytes(sent[name]).strip() == bytes(value).strip()
        assert not added or json.loads(bytes(sent["stream_options"])) == {"include_usage": True}


def test_stream_options_are_added_to(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    gateway.chat(model="free", stream=True, stream_options={"include_obfuscation": False})
    gateway.chat(model="free", stream=True, stream_options=None)
    assert upstream.requests[0].body["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert upstream.requests[1].body["stream_options"] == {"include_usage": True}


def frames_of(body: bytes) -> list[bytes]:
    """The data of each event, whatever its line ends; comments left out."""
    blocks = re.split(rb"\r\n\r\n|\n\n|\r\r", body)
    datas = [re.findall(rb"^data: ?(.*?)\r?$", block, re.MULTILINE) for block in blocks]
    return [b"\n".join(lines) for lines in datas if lines]


def up_to_done(datas: list[bytes]) -> list[bytes]:
    return datas[: datas.index(b"[DONE]")] if b"[DONE]" in datas else datas


def is_plain(data: bytes) -> bool:
    """An ordinary chunk: no usage in it (the call settles before it shows what it cost), no error, not the end."""
    if data == b"[DONE]" or b"\n" in data:
        return False
    said = json.loads(data)
    return not (said.get("usage") or said.get("error") or said.get("x_groq", {}).get("usage"))


@pytest.mark.parametrize("case", stream_cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("model", ["free", "capped"])
@pytest.mark.parametrize("segment", [None, 7])
def test_every_recorded_stream_arrives_intact(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: WireCase, model: str, segment: int | None
) -> None:
    upstream.source = Script.replay(case.body, segment=segment)
    choices = max(len(case.choices), 1)
    body: dict[str, Any] = {"model": model, "n": choices, "stream": True, "stream_options": {"include_usage": True}}
    answer = gateway.chat(**body)
    if case.error is not None and not any(choice.text for choice in case.choices.values()):
        assert answer.status >= 400
        assert answer.error["message"]
        return
    assert answer.status == 200
    got = frames_of(answer.body)
    sent = [data for data in up_to_done(frames_of(case.body)) if is_plain(data)]
    passed = [data for data in got if data in set(sent)]
    # Under a clamp a choice's `length` waits for the other choices: which of them it ends is known only then.
    assert passed == sent if model == "free" else sorted(passed) == sorted(sent)
    if case.error is not None:
        assert json.loads(got[-1])["error"]["message"] == case.error["message"]
        return
    assert got[-1] == b"[DONE]"
    usage = json.loads(got[-2])
    assert (usage["choices"], usage["usage"]["cost"] is not None) == ([], True)
    if case.usage is not None and case.true_output is None:
        output = usage["usage"]["completion_tokens"]
        assert usage["usage"]["prompt_tokens"] == case.usage.input
        assert output in (case.usage.output, case.usage.output - case.usage.reasoning)
        billed = gateway.decision(answer)["usage"]
        assert (billed["input_tokens"], billed["output_tokens"]) == (case.usage.input, case.usage.output)


@pytest.mark.parametrize("case", whole_cases(), ids=lambda case: case.name)
def test_every_recorded_body_arrives_intact(gateway: LiveGateway, upstream: ScriptedUpstream, case: WireCase) -> None:
    upstream.source = Script.replay(case.body, "application/json", status=case.status)
    answer = gateway.chat(model="free", n=max(len(case.choices), 1))
    if case.status != 200:
        assert answer.status == case.status
        assert answer.error["message"] == (case.error or {})["message"]
        return
    assert answer.status == 200
    got, sent = members_of(answer.body), members_of(case.body)
    assert {name: bytes(value) for name, value in got.items() if name != "usage"} == {
        name: bytes(value) for name, value in sent.items() if name != "usage"
    }
    usage_got, usage_sent = members_of(bytes(got["usage"])), members_of(bytes(sent.get("usage", b"{}")))
    assert all(usage_got[name] == value for name, value in usage_sent.items() if name != "cost")
    assert "cost" in usage_got


def joined(answer: Answer, field: str) -> str:
    deltas = [event["choices"][0]["delta"] for event in answer.events[:-1] if event["choices"]]
    return "".join(delta.get(field) or "" for delta in deltas)


def test_what_models_say_besides_text(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(
        reasoning("let me think"),
        reasoning(" more", name="reasoning"),
        text("so"),
        refusal("no"),
        audio("QUJD", "abc"),
        tool(id="c1", name="look"),
        tool('{"a":'),
        tool("1}"),
    )
    for model in ("free", "capped"):
        streamed = gateway.chat(model=model, stream=True)
        assert joined(streamed, "reasoning_content") == "let me think"
        assert (joined(streamed, "reasoning"), joined(streamed, "content"), joined(streamed, "refusal")) == (
            " more",
            "so",
            "no",
        )
        whole = gateway.chat(model=model, max_tokens=100).json["choices"][0]
        assert whole["message"]["reasoning_content"] == "let me think"
        assert whole["message"]["audio"] == {"id": "audio_1", "data": "QUJD", "transcript": "abc"}
        calls = whole["message"]["tool_calls"]
        assert calls == [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}]
        assert whole["finish_reason"] == "tool_calls"


def test_a_folded_answer_is_the_plain_one(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """Where the worst case finds no room under a cap, the call is streamed upstream and put together here."""
    upstream.source = Script.of(reasoning("hm"), text("so "), text("it is"), tool(id="c1", name="f"), tool("{}"))
    plain = gateway.chat(model="capped", max_tokens=50, n=2).json
    folded = gateway.chat(model="capped", n=2).json
    assert [request.stream for request in upstream.requests] == [False, True]
    assert folded["object"] == plain["object"] == "chat.completion"
    for one, other in zip(folded["choices"], plain["choices"], strict=True):
        assert one["finish_reason"] == other["finish_reason"]
        assert {k: v for k, v in one["message"].items() if v is not None} == other["message"]
    assert folded["usage"] == plain["usage"]
    assert {"id", "created", "model", "system_fingerprint"} <= set(folded)


def test_choices_interleave_as_they_come(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(text("a", choice=1), text("b", choice=0), text("c", choice=1))
    events = gateway.chat(model="free", n=2, stream=True).events[:-1]
    said = [(e["choices"][0]["index"], e["choices"][0]["delta"].get("content")) for e in events if e["choices"]]
    assert [(index, what) for index, what in said if what] == [(1, "a"), (0, "b"), (1, "c")]
    ended = [e["choices"][0]["index"] for e in events if e["choices"] and e["choices"][0]["finish_reason"]]
    assert sorted(ended) == [0, 1]


def test_a_providers_refusal_of_the_request_is_passed_on(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    for status in (400, 409, 422):
        upstream.source = Script.failure(status, "Unknown parameter: 'x'", code="unknown_parameter")
        for stream in (False, True):
            answer = gateway.chat(model="free", stream=stream, messages=SAY)
            assert (answer.status, answer.error["code"]) == (status, "unknown_parameter")
            assert answer.error["message"] == "Unknown parameter: 'x'"
