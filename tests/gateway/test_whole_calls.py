"""Calls not streamed to the client: plain ones, and those streamed upstream and folded so that they can be cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, PROMPT, Live, model, policy, read, usd
from tests.gateway.test_clamp import AFFORDABLE, CAP_NANO
from tests.gateway.test_cut import CALL, STORY, assert_denied
from tests.tools import ROOT
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, hidden, reasoning, text, tool, words
from tests.wire_cases import wire_case


async def test_a_plain_call_settles_what_the_provider_says(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}}), ledger_url) as live:
        answer = await live.chat(task="t1", max_tokens=50)
        assert answer.json["choices"][0]["message"]["content"] == "One two three."
        assert answer.json["usage"]["cost"] == usd(upstream.bill(PRICE))
        assert float(answer.headers["x-bursar-cost-usd"]) == usd(upstream.bill(PRICE))
        assert not upstream.requests[0].stream
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_counter_that_ran_below_nought_closes_no_window(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool, path: str
) -> None:
    """What was seen is charged in its place, as an estimate."""
    upstream.source = Script.of(words("One two three."), usage_override={"completion_tokens": 2**31 - 1})
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await live.chat(task="t1", path=path, stream=stream, max_tokens=50)
        assert answer.status == 200
        (attempt,) = await live.attempts(answer)
        assert attempt["provenance"] == "estimated"
        spent_nano = (await live.balance("task:t1")).spent_nano
        assert upstream.bill(PRICE) <= spent_nano <= 4 * upstream.bill(PRICE)


async def test_without_a_cap_nothing_is_folded_or_clamped(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(STORY)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat()
        assert answer.json["choices"][0]["finish_reason"] == "stop"
        assert not upstream.requests[0].stream
        assert "max_tokens" not in upstream.requests[0].body


@pytest.mark.parametrize("asked", [{}, {"max_tokens": 400}], ids=["unlimited", "too much"])
@pytest.mark.parametrize("obeys", [True, False])
async def test_a_call_that_cannot_be_afforded_whole_is_folded_and_cut(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, obeys: bool, asked: dict[str, int]
) -> None:
    upstream.source = Script.of(STORY, obeys_limit=obeys, delay_s=0.0005)
    caps = {"task": {"max_cost_usd": usd(CAP_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        answer = await live.chat(task="t1", **asked)
        assert_denied(answer, "task")
        assert upstream.requests[0].stream
        balance = await live.balance("task:t1")
        assert upstream.bill(PRICE) <= balance.spent_nano <= CAP_NANO + 2 * OUTPUT_NANO
        assert balance.exhausted
        assert_denied(await live.chat(task="t1"), "task")
        assert len(upstream.requests) == 1


async def test_a_folded_call_cut_softly_returns_what_there_is(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(STORY)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(max_cost_usd=usd(CAP_NANO), headers={"x-bursar-on-cut": "length"})
        assert answer.status == 200
        (choice,) = answer.json["choices"]
        assert choice["finish_reason"] == "length"
        assert len(choice["message"]["content"].split()) == AFFORDABLE
        assert answer.json["bursar"]["cut"]["scope"] == "request"


async def test_a_folded_call_cut_in_a_tool_call_is_an_error_all_the_same(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(words("I will."), CALL)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(max_cost_usd=usd(CAP_NANO), headers={"x-bursar-on-cut": "length"})
        assert_denied_by_cut(answer)


def assert_denied_by_cut(answer: Any) -> None:
    assert answer.status == 402
    assert answer.error_code == "budget_exceeded"
    assert answer.headers["x-should-retry"] == "false"


SAID: dict[str, list[Any]] = {
    "text": words("One two three."),
    "reasoning": [reasoning("Let me think."), *words("Four.")],
    "tools": [
        tool(id="c1", name="f"), tool('{"a":'), tool(" 1}"),
        tool(id="c2", name="g", index=1), tool("{}", index=1),
    ],
    "choices": [text("left", choice=0), text("right", choice=1), text(" end", choice=0)],
}  # fmt: skip


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("usage", ["asked", "merged", "missing"])
async def test_a_folded_completion_equals_the_plain_one(
    tmp_path: Path, upstream: ScriptedUpstream, said: str, usage: Any
) -> None:
    upstream.source = Script.of(SAID[said], usage=usage, role_chunk=False)
    asked = {"n": 2} if said == "choices" else {}
    async with Live(tmp_path, policy({"a": upstream})) as live:
        plain = (await live.chat(**asked)).json
        folded = (await live.chat(max_cost_usd=usd(CAP_NANO), **asked)).json
        assert [request.stream for request in upstream.requests] == [False, True]
        for differs in ("id", "created", "usage", "system_fingerprint"):
            plain.pop(differs, None)
            folded.pop(differs, None)
        assert folded == plain


async def test_folded_usage_is_the_providers(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("One two three."), hidden(5), input_tokens=20, cached_tokens=4)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        usage = (await live.chat(max_cost_usd=usd(CAP_NANO))).json["usage"]
        assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 5}
        assert usage["completion_tokens"] == 8


@pytest.mark.parametrize("limit", [None, 10])
async def test_an_upstream_that_answers_json_to_a_folded_call(
    tmp_path: Path, upstream: ScriptedUpstream, limit: int | None
) -> None:
    """It ignores `stream`; its one reply is as good."""
    count = 10 if limit else 3
    body = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
        b'{"role":"assistant","content":"One two three."},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}' % (count, count + 10)
    )
    upstream.source = Script.replay(body, "application/json")
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(task="t1", max_cost_usd=usd(CAP_NANO))
        assert answer.json["choices"][0]["message"]["content"] == "One two three."
        assert answer.json["usage"]["cost"] == usd(10 * 1000 + count * OUTPUT_NANO)
        assert (await live.balance("task:t1")).spent_nano == 10 * 1000 + count * OUTPUT_NANO


async def test_json_that_ends_at_our_clamp_is_a_cut_too(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    body = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
        b'{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":'
        b'{"name":"bash","arguments":"{\\"cmd\\": \\"rm -rf /tm"}}]},"logprobs":null,"finish_reason":"length"}],'
        b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}' % (AFFORDABLE, AFFORDABLE + 10)
    )
    upstream.source = Script.replay(body, "application/json")
    caps = {"task": {"max_cost_usd": usd(CAP_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps)) as live:
        assert_denied_by_cut(await live.chat(task="t1"))
        balance = await live.balance("task:t1")
        assert balance.spent_nano == 10 * 1000 + AFFORDABLE * OUTPUT_NANO
        assert balance.exhausted


@pytest.mark.parametrize("tools", [False, True])
async def test_a_stream_answered_with_json_reaches_the_client_as_a_stream(
    tmp_path: Path, upstream: ScriptedUpstream, tools: bool
) -> None:
    message = (
        b'{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":'
        b'{"name":"f","arguments":"{\\"a\\": 1}"}}]}'
        if tools
        else b'{"role":"assistant","content":"One two three."}'
    )
    finish = b"tool_calls" if tools else b"stop"
    body = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":%b,'
        b'"logprobs":null,"finish_reason":"%b"}],\n"usage":{"prompt_tokens":10,"completion_tokens":90,"total_tokens":100}}'
        % (message, finish)
    )
    upstream.source = Script.replay(body, "application/json")
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(task="t1", stream=True, stream_options={"include_usage": True})
        assert (answer.error, answer.finishes, answer.done) == (None, [finish.decode()], True)
        if tools:
            (call,) = answer.events[0]["choices"][0]["delta"]["tool_calls"]
            assert (call["index"], call["function"]["arguments"]) == (0, '{"a": 1}')
        else:
            assert answer.text == "One two three."
        assert answer.usage is not None
        assert answer.usage["cost"] == usd(10 * 1000 + 90 * OUTPUT_NANO)
        assert (await live.balance("task:t1")).spent_nano == 10 * 1000 + 90 * OUTPUT_NANO


@pytest.mark.parametrize("capped", [False, True])
async def test_json_answered_with_a_stream_reaches_the_client_as_json(
    tmp_path: Path, upstream: ScriptedUpstream, capped: bool
) -> None:
    """Some servers stream whatever they were asked."""
    chunks = [
        b'{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%b,"finish_reason":%b}]}'
        % said
        for said in (
            (b'{"role":"assistant","content":"One "}', b"null"),
            (b'{"content":"two."}', b"null"),
            (b"{}", b'"stop"'),
        )
    ]
    counts = b'{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":90,"total_tokens":100}}'
    stream = b"".join(b"data: %b\n\n" % data for data in (*chunks, counts, b"[DONE]"))
    upstream.source = Script(body=stream, headers={"content-type": "text/event-stream"})
    async with Live(tmp_path, policy({"a": upstream})) as live:
        limit = {"max_tokens": 200} | ({"max_cost_usd": 1} if capped else {})
        answer = await live.chat(task="t1", **limit)
        assert not upstream.requests[0].stream
        assert answer.headers["content-type"] == "application/json"
        (choice,) = answer.json["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("One two.", "stop")
        assert answer.json["usage"]["cost"] == usd(10 * 1000 + 90 * OUTPUT_NANO)
        assert (await live.balance("task:t1")).spent_nano == 10 * 1000 + 90 * OUTPUT_NANO


async def test_json_that_is_no_completion_is_an_honest_error(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live:
        failed = (
            b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"error"}],"usage":{"prompt_tokens":1}}'
        )
        for body in (b"{}", b"[]", b"not json", b'{"choices": 1}', b'{"error": {"message": "no"}}', failed):
            upstream.source = Script.replay(body, "application/json")
            for stream in (True, False):
                answer = await live.chat(stream=stream, max_cost_usd=usd(CAP_NANO))
                assert answer.status in (429, 502)
                assert answer.error is not None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [201, 202, 206])
async def test_any_success_is_an_answer_and_paid_for(
    tmp_path: Path, upstream: ScriptedUpstream, status: int, stream: bool
) -> None:
    """Node's frameworks answer a POST with 201, unless they are told otherwise."""
    upstream.source = Script.of(words("One two three."), status=status)
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await live.chat(task="t1", max_tokens=50, stream=stream)
        said = answer.text if stream else answer.json["choices"][0]["message"]["content"]
        assert (answer.status, said) == (200, "One two three.")
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


@pytest.mark.parametrize("several", [False, True])
async def test_an_end_in_a_word_of_the_providers_own_is_told_in_chats(
    tmp_path: Path, upstream: ScriptedUpstream, several: bool
) -> None:
    ends, told = (["stop", "model_length"], ["stop", "length"]) if several else (["eos"], ["stop"])
    choices = [{"index": at, "message": {"content": "Hi"}, "finish_reason": word} for at, word in enumerate(ends)]
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    upstream.source = Script(body=json.dumps({"id": "x", "choices": choices, "usage": usage}).encode())
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(n=len(ends))
        assert answer.json["choices"] == [{**choices[at], "finish_reason": word} for at, word in enumerate(told)]
        assert answer.json["usage"].keys() == {*usage, "cost"}
        choices[-1]["finish_reason"] = "error"
        upstream.source = Script(body=json.dumps({"id": "x", "choices": choices, "usage": usage}).encode())
        assert (await live.chat(n=len(ends))).status == 502


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("asked", [{"max_tokens": 50}, {"max_cost_usd": usd(CAP_NANO)}], ids=["plain", "folded"])
async def test_json_that_is_none_by_the_letter_is_an_answer(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool, asked: dict[str, float]
) -> None:
    """A byte order mark, Python's NaN, half a character, and counts as text: it is billed, so it is answered."""
    body = (
        b'\xef\xbb\xbf{"choices":[{"index":0,"message":{"role":"assistant","content":"a\\ud83d"},"finish_reason":"stop",'
        b'"score":NaN}],"usage":{"prompt_tokens":10,"completion_tokens":9,"total_tokens":19}}'
    )
    upstream.source = Script.replay(body, "application/json")
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await live.chat(task="t1", stream=stream, **asked)
        (choice,) = (answer.events[0] if stream else answer.json)["choices"]
        assert (choice["delta" if stream else "message"]["content"], choice.get("score")) == ("a\ufffd", None)
        assert (await live.balance("task:t1")).spent_nano == 10 * INPUT_NANO + 9 * OUTPUT_NANO


BROKEN = b"a\xc3b\xff"
"""What is left of a character that was broken, and bytes that are none: `a\ufffdb\ufffd`."""


@pytest.mark.parametrize("client", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("asked", [{"max_tokens": 50}, {"max_tokens": 5000}], ids=["plain", "folded"])
@pytest.mark.parametrize("place", ["content", "note", "name", "of usage"])
@pytest.mark.parametrize("streams", [True, False], ids=["a stream", "whole"])
async def test_bytes_that_are_no_character_spoil_no_answer(
    tmp_path: Path, upstream: ScriptedUpstream, client: str, asked: dict[str, int], place: str, streams: bool
) -> None:
    """Models that speak in bytes may break a character, in what they say or in what else their server tells of it."""
    at = dict.fromkeys(["content", "note", "name", "of usage"], b"fine") | {place: BROKEN}
    message = b'{"role":"assistant","content":"%b","note":"%b","%b":1}' % (at["content"], at["note"], at["name"])
    usage = b'"usage":{"prompt_tokens":10,"completion_tokens":9,"total_tokens":19,"%b":1}' % at["of usage"]
    if streams:
        chunk = b'data: {"choices":[{"index":0,"delta":%b,"finish_reason":"stop"}]}\n\n' % message
        body, kind = chunk + b'data: {"choices":[],%b}\n\ndata: [DONE]\n\n' % usage, "text/event-stream"
    else:
        body = b'{"choices":[{"index":0,"message":%b,"finish_reason":"stop"}],%b}' % (message, usage)
        kind = "application/json"
    upstream.source = Script(body=body, headers={"content-type": kind})
    said = "a\ufffdb\ufffd" if place == "content" else "fine"
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(CAP_NANO)}})) as live:
        for stream in (False, True):
            task = f"t{stream}"
            options = {"stream_options": {"include_usage": True}} if client.endswith("completions") else {}
            answer = await live.chat(task=task, path=client, stream=stream, **asked, **(options if stream else {}))
            assert answer.status == 200
            assert said in answer.body.decode()
            assert answer.error is None
            assert (await live.balance(f"task:{task}")).spent_nano == 10 * INPUT_NANO + 9 * OUTPUT_NANO


async def test_numbers_as_text_are_numbers_in_a_folded_answer_too(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    chunk = 'data: {"choices":[{"index":%s,"delta":{"content":"%s"},"finish_reason":"stop"}]}\n\n'
    body = chunk % ('"1"', "b") + chunk % ("0", "a") + "data: [DONE]\n\n"
    upstream.source = Script.replay(body.encode())
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(n=2, max_cost_usd=usd(CAP_NANO))
        assert [(c["index"], c["message"]["content"]) for c in answer.json["choices"]] == [(0, "a"), (1, "b")]


async def test_a_plain_call_that_finds_no_room_for_its_worst_case_is_folded(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    """`max_tokens` is what it may say, not what it will: a cap with room for the answer serves it."""
    upstream.source = Script.of(words("One two three."))
    caps = {"task": {"max_cost_usd": usd(CAP_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        answer = await live.chat(task="t1", max_tokens=30_000)
        assert answer.json["choices"][0]["message"]["content"] == "One two three."
        assert upstream.requests[0].stream
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


async def test_embeddings_are_priced_and_capped(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    rules = policy(
        {"a": upstream}, models={"a": model("a", embeddings=True)}, caps={"task": {"max_cost_usd": usd(60_000)}}
    )
    async with Live(tmp_path, rules, ledger_url) as live:
        ask = {"path": "/v1/embeddings", "messages": None, "input": "some words to embed", "task": "t1"}
        answer = await live.chat(**ask)
        assert answer.status == 200
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE) > 0
        for _ in range(20):
            answer = await live.chat(**{**ask, "input": "some words to embed " * 4})
        assert_denied(answer, "task")
        balance = await live.balance("task:t1")
        assert balance.spent_nano == upstream.bill(PRICE) <= 60_000


@pytest.mark.parametrize("first_is_dear", [True, False])
async def test_an_embedding_that_one_candidate_is_too_dear_for_is_asked_of_the_others(
    tmp_path: Path, upstream: ScriptedUpstream, first_is_dear: bool
) -> None:
    """Before it, its denial passes it over; behind a failure, the failure is what the client hears."""
    names = ("dear", "a") if first_is_dear else ("a", "dear")
    upstream.source = Script() if first_is_dear else Script.failure(500)
    priced = {"dear": model("dear", embeddings=True, pricing={"input_per_1k": 10, "output_per_1k": 0})}
    rules = policy(dict.fromkeys(names, upstream), models={"a": model("a", embeddings=True), **priced})
    async with Live(tmp_path, rules) as live:
        ask = {"model": "auto", "path": "/v1/embeddings", "messages": None, "input": "some words to embed"}
        answer = await live.chat(**ask, max_cost_usd=0.001)
        record = await live.client.decision(answer.request_id)
        assert [denial["model"] for denial in record["denials"]] == ["dear"]
        assert [attempt["model"] for attempt in record["attempts"]] == ["a"]
        assert answer.status == (200 if first_is_dear else 502)


WRONG = [tool(id="call_1", name="bash"), tool("{'cmd': "), tool("'ls'}")]
RIGHT = [tool(id="call_2", name="bash"), tool('{"cmd": '), tool('"ls"}')]


@pytest.mark.parametrize("folded", [False, True])
async def test_a_call_that_its_model_got_wrong_is_no_end_of_a_turn(
    tmp_path: Path, upstream: ScriptedUpstream, folded: bool
) -> None:
    """Messages has no words for it: without the call the turn would look finished, so another model is asked."""
    upstream.source = [Script.of(WRONG), Script.of(RIGHT), Script.of(WRONG)]
    rules = policy({"a": upstream}, models={"b": model("a")})
    rules["routes"]["auto"] |= {"fallback": ["b"], "retries": {"attempts": 0}}
    body = {"tools": [{"name": "bash", "input_schema": {"type": "object"}}], "max_tokens": 2000}
    asked: dict[str, Any] = {"path": "/v1/messages", "model": "auto", **body}
    headers = {"x-bursar-max-cost-usd": "0.002"} if folded else {}
    async with Live(tmp_path, rules) as live:
        answer = await live.chat(headers=headers, **asked)
        assert [block["type"] for block in answer.json["content"]] == ["tool_use"]
        assert (answer.json["content"][0]["input"], answer.json["stop_reason"]) == ({"cmd": "ls"}, "tool_use")
        assert [request.stream for request in upstream.requests] == [folded, folded]
        first, second = await live.attempts(answer)
        assert (first["outcome"], first["provenance"]) == ("api_error", "metered")
        assert first["cost_usd"] == usd(upstream.requests[0].tokens.bill(PRICE))
        assert answer.json["usage"]["cost"] == pytest.approx(first["cost_usd"] + second["cost_usd"])
        alone = await live.chat(headers=headers, **{**asked, "model": "a"})
        assert (alone.status, alone.json["error"]["type"]) == (502, "api_error")
        assert "not JSON" in alone.json["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1beta/models/a:generateContent"])
async def test_usage_of_one_choice_of_two_that_are_as_long_is_not_that_of_both(
    tmp_path: Path, upstream: ScriptedUpstream, path: str, stream: bool
) -> None:
    """llama.cpp counts the first only; a server may also answer so where a stream was asked for."""
    body = (ROOT / "tests" / "wire" / "llamacpp_n2_whole.body.json").read_bytes()
    upstream.source = Script.replay(body, "application/json")
    chat = path.endswith("completions")
    if not chat and stream:
        path = path.replace("generateContent", "streamGenerateContent?alt=sse")
    asked = {"model": "a", "messages": PROMPT, "n": 2, "stream": stream}
    other = {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"candidateCount": 2}}
    async with Live(tmp_path, policy({"a": upstream})) as live:
        async with live.client.session.post(live.url + path, json=asked if chat else other) as response:
            answer = await read(response)
        assert answer.status == 200, answer.body
        record = await live.client.decision(answer.request_id)
        assert [attempt["provenance"] for attempt in record["attempts"]] == ["estimated"]
        assert record["usage"]["output_tokens"] >= 6, "4 are told, 8 were made"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "Text/Event-Stream", "text/html"])
@pytest.mark.parametrize("says", ["stream", "whole"])
@pytest.mark.parametrize("asked", ["stream", "whole"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_reply_is_what_it_is_by_whatever_name_it_comes(
    tmp_path: Path, upstream: ScriptedUpstream, path: str, asked: str, says: str, kind: str
) -> None:
    """The answer is paid for: its content type may be wrong, or missing."""
    case = wire_case("openai_plain" if says == "stream" else "openai_whole")
    headers = {"content-type": kind} if kind else {}
    upstream.source = Script(body=case.body, headers=headers)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(path=path, stream=asked == "stream", max_tokens=50)
        assert answer.status == 200
        assert case.choices[0].text[:2] in answer.body.decode()
        assert b'"error"' not in answer.body
        assert len(upstream.requests) == 1
