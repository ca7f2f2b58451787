"""The scripted upstream itself: what it says, what it sees and what it bills."""

from __future__ import annotations

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from tests.upstream import ScriptedUpstream
from tests.upstream_script import (
    CLOSE,
    END,
    HANG,
    RESET,
    Gate,
    ListPrice,
    Piece,
    Script,
    Wait,
    audio,
    comment,
    error_event,
    hidden,
    reasoning,
    refusal,
    text,
    tool,
    words,
)

PRICE = ListPrice("0.0001", "0.0004")
ASK: dict[str, Any] = {"model": "small-v1", "messages": [{"role": "user", "content": "Say five words, please."}]}


def sdk(upstream: ScriptedUpstream) -> openai.OpenAI:
    return openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0, timeout=5)


def chat(upstream: ScriptedUpstream, **fields: Any) -> httpx.Response:
    return httpx.post(f"{upstream.url}/chat/completions", json={**ASK, **fields}, timeout=5, trust_env=False)


def events(body: str) -> list[Any]:
    lines = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_the_official_sdk_reads_a_stream_with_usage() -> None:
    with ScriptedUpstream(Script.of(words("one two three"), input_tokens=10, cached_tokens=4)) as upstream:
        stream = sdk(upstream).chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        request = upstream.wait_for_end(0)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        assert all(c.usage is None for c in chunks[:-1])
        assert (request.state, request.deltas_sent, request.headers["authorization"]) == ("answered", 3, "Bearer none")
        assert request.body["stream"] is True
        assert json.loads(request.raw) == request.body
        # 10 input tokens at 0.0001 and 3 output tokens at 0.0004 dollars per 1,000.
        assert upstream.bill(PRICE) == 10 * 100 + 3 * 400 == upstream.bill({"small-v1": PRICE, "other": PRICE})


def test_whole_replies_fold_what_streams_say() -> None:
    pieces: list[Piece] = [
        reasoning("hm"),
        hidden(7),
        text("see"),
        tool(id="a", name="look", index=0),
        tool('{"x":', index=0),
        tool("1}", index=0),
        tool("{}", id="b", name="go", index=1),
    ]
    with ScriptedUpstream(Script.of(pieces)) as upstream:
        reply = sdk(upstream).chat.completions.create(**ASK)
        message = reply.choices[0].message
        assert (message.content, message.model_extra) == ("see", {"reasoning_content": "hm"})
        functions = [call for call in message.tool_calls or [] if call.type == "function"]
        called = [(call.id, call.function.name, call.function.arguments) for call in functions]
        assert called == [("a", "look", '{"x":1}'), ("b", "go", "{}")]
        assert reply.choices[0].finish_reason == "tool_calls"
        assert reply.usage is not None
        assert reply.usage.completion_tokens_details is not None
        assert (reply.usage.completion_tokens, reply.usage.completion_tokens_details.reasoning_tokens) == (13, 8)


def test_choices_interleave_and_each_is_billed_and_limited() -> None:
    with ScriptedUpstream(Script.of(words("a b c d"))) as upstream:
        got = events(chat(upstream, n=2, stream=True, max_completion_tokens=2).text)
        said = [(c["choices"][0]["index"], c["choices"][0]["delta"].get("content")) for c in got[:-1]]
        assert [s for s in said if s[1]] == [(0, "a"), (1, "a"), (0, " b"), (1, " b")]
        assert [c["choices"][0]["finish_reason"] for c in got[-3:-1]] == ["length", "length"]
        assert got[-1] == "[DONE]"
        assert upstream.requests[0].tokens.output == 4


def test_a_limit_cuts_inside_a_piece_and_counts_hidden_reasoning() -> None:
    with ScriptedUpstream(Script.of(hidden(5), text("abcdefgh", tokens=4))) as upstream:
        got = events(chat(upstream, stream=True, max_tokens=7).text)
        assert [c["choices"][0]["delta"].get("content") for c in got[:-1]] == ["", "abcd", None]
        assert upstream.requests[0].tokens.output == 7
        upstream.source = Script.of(words("a b c"), obeys_limit=False)
        assert chat(upstream, max_tokens=1).json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("usage", "asked", "where"),
    [
        ("asked", False, []),
        ("asked", True, [4]),
        ("always", False, [4]),
        ("merged", False, [3]),
        ("cumulative", True, [0, 1, 2, 4]),
        ("missing", True, []),
    ],
)
def test_usage_is_reported_as_scripted(usage: Any, asked: bool, where: list[int]) -> None:
    with ScriptedUpstream(Script.of(words("a b"), usage=usage, usage_override={"cost": 0.5})) as upstream:
        options = {"stream_options": {"include_usage": True}} if asked else {}
        got = events(chat(upstream, stream=True, **options).text)[:-1]
        assert [i for i, c in enumerate(got) if c.get("usage")] == where
        assert all(got[i]["usage"]["cost"] == 0.5 for i in where)


async def test_a_gate_paces_chunks_and_a_disconnect_stops_the_bill() -> None:
    gate = Gate()
    with ScriptedUpstream(Script.of(words("a b c d e f"), gate=gate, input_tokens=0)) as upstream:
        async with aiohttp.ClientSession() as session:
            gate.release(2)
            reply = await session.post(f"{upstream.url}/chat/completions", json={**ASK, "stream": True})
            await upstream.until(lambda u: u.requests[0].deltas_sent == 2)
            reply.close()
        await upstream.until(lambda u: u.requests[0].client_gone)
        gate.open()
        assert upstream.requests[0].tokens.output == 2
        assert upstream.bill(PRICE) == 2 * 400
        assert upstream.requests[0].ended_at_s is not None


def test_a_provider_may_bill_on_after_a_cancel() -> None:
    script = Script.of(words("a b c d e f"), HANG, gate=(gate := Gate()), bills_after_cancel=True)
    with ScriptedUpstream(script) as upstream:
        gate.release(1)
        with httpx.stream("POST", f"{upstream.url}/chat/completions", json={**ASK, "stream": True}, trust_env=False):
            upstream.wait_for_deltas(0, 1)
        assert upstream.wait_for_disconnect(0).tokens.output == 6


def test_errors_pages_and_retry_after() -> None:
    limited = Script.failure(429, "Slow down", code="rate_limit_exceeded", headers={"retry-after": "1"})
    with ScriptedUpstream([limited, Script.html(503), Script()]) as upstream:
        with pytest.raises(openai.RateLimitError) as caught:
            sdk(upstream).chat.completions.create(**ASK)
        assert caught.value.response.headers["retry-after"] == "1"
        assert caught.value.code == "rate_limit_exceeded"
        assert chat(upstream).headers["content-type"] == "text/html"
        assert [chat(upstream).status_code for _ in range(2)] == [200, 200]
        assert upstream.requests[0].tokens.output == 0
        assert httpx.get(f"{upstream.url}/nothing", trust_env=False).status_code == 404


def test_scripts_per_model_and_by_function() -> None:
    turns = [Script.of(text("first")), Script.of(text("later"))]
    with ScriptedUpstream({"small-v1": turns, "echo": lambda r: Script.of(text(r.method))}) as upstream:
        said = [chat(upstream, model=m).json() for m in ("small-v1", "echo", "small-v1", "small-v1")]
        assert [s["choices"][0]["message"]["content"] for s in said] == ["first", "POST", "later", "later"]
        assert chat(upstream, model="other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(("ending", "error"), [(RESET, httpx.ReadError), (CLOSE, httpx.RemoteProtocolError)])
def test_breaking_the_connection(ending: Any, error: type[Exception]) -> None:
    with ScriptedUpstream([Script(opening=[ending]), Script.of(text("a"), Wait(gate := Gate()), ending)]) as upstream:
        with pytest.raises((error, httpx.RemoteProtocolError)):
            chat(upstream)
        url = f"{upstream.url}/chat/completions"
        with httpx.stream("POST", url, json={**ASK, "stream": True}, trust_env=False) as reply:
            pieces = reply.iter_raw()
            seen = next(pieces)
            while b'"a"' not in seen:
                seen += next(pieces)
            gate.open()
            with pytest.raises(error):
                list(pieces)
        assert [r.state for r in upstream.requests] == ["broken", "broken"]


@pytest.mark.parametrize("before_headers", [True, False])
def test_hanging_until_the_client_leaves(before_headers: bool) -> None:
    script = Script(opening=[HANG]) if before_headers else Script.of(HANG, text("never"))
    with ScriptedUpstream(script) as upstream:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{upstream.url}/chat/completions", json={**ASK, "stream": True}, timeout=0.1, trust_env=False)
        assert upstream.wait_for_disconnect(0).tokens.output == 0


def test_odd_endings_of_the_body() -> None:
    eof = Script.of(text("a"), END)
    broken = Script.of(text("a"), error_event(), END)
    scripts = [eof, replace(eof, chunked=False), Script.of(text("a"), done=False), broken]
    with ScriptedUpstream(scripts) as upstream:
        bodies = [chat(upstream, stream=True).text for _ in scripts]
        assert ['finish_reason":"stop' in b for b in bodies] == [False, False, True, False]
        assert not any("[DONE]" in b for b in bodies)
        assert events(bodies[3])[-1]["error"]["code"] == "server_error"


@pytest.mark.parametrize(("newline", "segment", "multi_line"), [("\r\n", 1, False), ("\n", 3, True), ("\r\n", 1, True)])
def test_the_sdk_reads_any_framing(newline: Any, segment: int, multi_line: bool) -> None:
    script = Script.of(comment(), text("größe "), text("🦉"), newline=newline, segment=segment, multi_line=multi_line)
    with ScriptedUpstream(script) as upstream:
        stream = sdk(upstream).chat.completions.create(**ASK, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "größe 🦉"


def test_other_deltas_and_replays_go_out_as_they_are() -> None:
    scripts = [Script.of(refusal("no"), audio("AAA=", "hi")), Script.replay(b"data: {broken\n\n")]
    with ScriptedUpstream(scripts) as upstream:
        deltas = [c["choices"][0]["delta"] for c in events(chat(upstream, stream=True).text)[:-1]]
        assert deltas[1] == {"refusal": "no"}
        assert deltas[2]["audio"]["transcript"] == "hi"
        assert chat(upstream, stream=True).content == b"data: {broken\n\n"


def test_embeddings_through_the_sdk() -> None:
    with ScriptedUpstream(Script(input_tokens=9)) as upstream:
        reply = sdk(upstream).embeddings.create(model="embed", input=["a", "b"])
        assert [d.embedding[0] for d in reply.data] == [1.0, 2.0]
        assert reply.usage.prompt_tokens == 9
        assert upstream.bill(PRICE) == 900


def test_refusing_and_coming_back() -> None:
    with ScriptedUpstream() as upstream:
        upstream.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", upstream.port), timeout=1)
        upstream.accept()
        assert chat(upstream).status_code == 200


def test_waiting_in_vain_says_what_was_received() -> None:
    with ScriptedUpstream() as upstream:
        chat(upstream)
        with pytest.raises(TimeoutError, match="answered"):
            upstream.wait_for_requests(2, timeout_s=0.01)


def test_a_broken_script_fails_the_test_that_used_it() -> None:
    def broken(_: object) -> Script:
        raise ValueError("no such script")

    def use() -> None:
        with ScriptedUpstream(broken) as upstream:
            with pytest.raises(httpx.RemoteProtocolError):
                chat(upstream)
            upstream.wait(lambda u: u.failures)

    with pytest.raises(ValueError, match="no such script"):
        use()


def test_keep_alive_is_reused_and_dropped_as_scripted() -> None:
    with ScriptedUpstream([Script(), Script(drop_idle=True), Script()]) as upstream:
        with httpx.Client(trust_env=False) as client:
            for round_ in range(3):
                assert client.post(f"{upstream.url}/chat/completions", json=ASK).status_code == 200
                upstream.wait_for_end(round_)
                if round_ == 1:  # dropped: before the next request, or that one would go out on it
                    upstream.wait(lambda u: u.connections == 0)
        assert [r.connection for r in upstream.requests] == [1, 1, 2]
        upstream.wait(lambda u: u.connections == 0)


async def test_two_hundred_streams_at_once() -> None:
    gate = Gate()
    with ScriptedUpstream(Script.of(words("a b c d e f g h i j"), gate=gate)) as upstream:

        async def one(session: aiohttp.ClientSession) -> bytes:
            async with session.post(f"{upstream.url}/chat/completions", json={**ASK, "stream": True}) as reply:
                return await reply.read()

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            streams = [asyncio.create_task(one(session)) for _ in range(200)]
            await upstream.until(lambda u: len(u.requests) == 200)
            gate.open()
            bodies = await asyncio.gather(*streams)
        assert all(b.endswith(b"data: [DONE]\n\n") for b in bodies)
        assert sum(r.tokens.output for r in upstream.requests) == 2000


def test_sync_clients_in_many_threads() -> None:
    with ScriptedUpstream() as upstream, ThreadPoolExecutor(8) as pool:
        assert {r.status_code for r in pool.map(lambda _: chat(upstream), range(24))} == {200}
