"""What a chat client reads of a reply of another dialect: chunks, the four ends, whole replies; the SDK agrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest

from app.core.errors import BudgetExceeded, Unauthorized, UpstreamError, UpstreamRejected
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Done, Event, Failed, Finished, Said, Thought, Used
from app.core.money import Usage
from app.core.sse import Frame, SseParser
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.openai_chat.dialect import DIALECT
from app.dialects.openai_chat.errors import budget_error
from app.dialects.openai_chat.read import ChatReader
from tests.dialects.stream_texts import DONE, chunk, ends, finishes, frames, says, sse, texts, told, usage

USAGE = Usage(100, 20, cache_read=40, cache_write=10, cache_write_1h=5, reasoning=8)
COUNTS = Counts(USAGE, exact=True, cost_nano=1_500)
ESTIMATE = Counts(Usage(7, 2), exact=False, cost_nano=None)
BEGIN = Begin("msg_1", "claude", 17)
TALK: list[Event] = [
    BEGIN,
    Thought("hm", signature="sig", origin="anthropic"),
    Said("Hel"),
    Said("lo"),
    CallBegins(0, "c0", "f"),
    CallPiece(0, '{"a":'),
    CallPiece(0, "1}"),
    CallEnds(0),
    CallBegins(1, "", "g", signature="c2ln"),
    CallEnds(1),
]
ENDS: list[Event] = [Finished("tool_calls")]


def request(**members: Any) -> ChatRequest:
    """A chat client's request."""
    return DIALECT.parse(
        json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **members}).encode(), {}, {}
    )


def asking(**members: Any) -> ChatRequest:
    """The same, of a client that wants usage."""
    return request(stream=True, stream_options={"include_usage": True}, **members)


def written(events: Sequence[Event], finished: Sequence[Event], asked: ChatRequest, counts: Counts = COUNTS) -> bytes:
    """A stream that ended well."""
    writer = DIALECT.writer(asked)
    return b"".join(writer.write([event]) for event in events) + writer.complete(finished, counts, [])


def read(stream: bytes) -> list[Event]:
    """What our own reader makes of a stream."""
    reader = ChatReader()
    return [event for frame in SseParser().feed(stream) for event in reader.read(frame)]


def test_the_stream_says_what_the_events_say() -> None:
    stream = written(TALK, ENDS, asking())
    chunks = told(stream)
    assert chunks[-1] == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    heads = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks[:-1]}
    assert heads == {("msg_1", "chat.completion.chunk", 17, "claude")}
    assert all(c["usage"] is None and c["choices"][0]["logprobs"] is None for c in chunks[:-2])
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-2]] == [None] * (len(chunks) - 3) + ["tool_calls"]
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 15},
        "completion_tokens_details": {"reasoning_tokens": 8},
        "cost": 1.5e-06,
    }
    begun = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks[:-2] if "tool_calls" in c["choices"][0]["delta"]]
    assert begun[0] == {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert begun[1] == {"index": 0, "function": {"arguments": '{"a":'}}
    assert begun[3]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert begun[3]["id"].startswith("call_")
    assert begun[4] == {"index": 1, "function": {"arguments": "{}"}}


def test_our_own_reader_reads_it_back() -> None:
    events = read(written(TALK, ENDS, asking()))
    again = read(written(events[:-3], [events[-3]], asking()))
    assert again == events
    assert isinstance(events[-2], Used)
    assert events[-2].usage == Usage(100, 20, 40, 15, 0, 8, 1_500)


def test_empty_thoughts_and_texts_are_not_told() -> None:
    events: list[Event] = [BEGIN, Thought(""), Thought("", signature="sig", ends=True), Said(""), Said("a")]
    deltas = [c["choices"][0]["delta"] for c in told(written(events, [Finished("stop")], request(stream=True)))[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "a"}, {}]
    whole = json.loads(DIALECT.whole(request(), [*events, Finished("stop")], COUNTS, None))
    assert "reasoning_content" not in whole["choices"][0]["message"]


def test_usage_is_for_those_who_ask() -> None:
    stream = written(TALK, ENDS, request(stream=True))
    assert all("usage" not in c for c in told(stream)[:-1])
    estimate = told(written(TALK, ENDS, asking(), ESTIMATE))[-2]["usage"]
    assert estimate == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "estimated": True, "cost": None}


def test_choices_begin_and_end_each_for_itself() -> None:
    events: list[Event] = [BEGIN, Said("a", 1), Said("b", 0), Said("no", 1, refusal=True)]
    stream = written(events, [Finished("content_filter", 1), Finished("length", 0)], asking(n=2))
    assert (texts(stream, 0), texts(stream, 1)) == ("b", "a")
    assert finishes(stream) == [(1, "content_filter"), (0, "length")]
    roles = [c["index"] for e in told(stream)[:-2] for c in e["choices"] if "role" in c["delta"]]
    assert roles == [1, 0]
    assert '{"refusal":"no"}' in stream.decode()


def test_words_that_no_client_knows_are_an_ordinary_stop() -> None:
    assert finishes(written([Said("a")], [Finished("pause_turn")], request())) == [(0, "stop")]


def test_a_reply_without_an_id_has_one_that_is_always_the_same() -> None:
    ids = {c["id"] for _ in range(2) for c in told(written([Said("a")], ENDS, request()))[:-1]}
    assert len(ids) == 1
    assert told(written([Said("a")], ENDS, request()))[0]["model"] == "m"


def test_an_empty_reply_still_says_who_speaks() -> None:
    first = told(written([BEGIN], [Finished("stop")], request()))[0]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_clients_of_functions_read_functions() -> None:
    asked = asking(functions=[{"name": "f"}])
    stream = written(TALK, ENDS, asked)
    deltas = [c["choices"][0]["delta"] for c in told(stream)[:-2]]
    assert not any("tool_calls" in delta for delta in deltas)
    assert [delta["function_call"] for delta in deltas if "function_call" in delta] == [
        {"name": "f", "arguments": ""},
        {"arguments": '{"a":'},
        {"arguments": "1}"},
    ]
    assert finishes(stream) == [(0, "function_call")]
    whole = json.loads(DIALECT.whole(asked, [*TALK, *ENDS, Done()], COUNTS, None))["choices"][0]
    assert whole["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert whole["finish_reason"] == "function_call"


def test_custom_calls() -> None:
    events: list[Event] = [BEGIN, CallBegins(0, "c", "sql", custom=True), CallPiece(0, "select")]
    stream = written(events, ENDS, request())
    assert read(stream)[1:4] == [CallBegins(0, "c", "sql", custom=True), CallPiece(0, "select"), Finished("tool_calls")]
    message = json.loads(DIALECT.whole(request(), events, COUNTS, None))["choices"][0]["message"]
    assert message["tool_calls"] == [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select"}}]


def test_the_cut() -> None:
    for asked in (asking(), request(stream=True)):
        writer = DIALECT.writer(asked)
        events = told(writer.write(TALK[:6]) + writer.cut(budget_error("task"), COUNTS))
        assert events[-1] == "[DONE]"
        assert set(events[-2]) == {"error"}
        assert events[-2]["error"]["code"] == "budget_exceeded"
        assert events[-2]["error"]["type"] == "insufficient_quota"
        assert ("usage" in events[-3] and events[-3]["choices"] == []) == asked.show_usage
        assert not any(c.get("finish_reason") for e in events[:-2] for c in e["choices"])


def test_the_soft_cut_ends_what_is_open() -> None:
    writer = DIALECT.writer(asking(n=2))
    events = told(writer.write([BEGIN, Said("a"), Said("b", 1)]) + writer.cut_softly(b'{"x":1}', COUNTS))
    assert [(c["index"], c["finish_reason"]) for c in events[-3]["choices"]] == [(0, "length"), (1, "length")]
    assert events[-3]["bursar"] == {"cut": {"x": 1}}
    assert events[-2]["usage"]["cost"] == 1.5e-06
    assert events[-1] == "[DONE]"


def test_a_dead_upstream_has_no_end() -> None:
    writer = DIALECT.writer(asking())
    events = told(writer.write([BEGIN, Said("a"), Failed("no")]) + writer.broken(UpstreamError("The provider died.")))
    assert events[-1] == {"error": json.loads(DIALECT.error_reply(UpstreamError("The provider died."))[1])["error"]}
    assert "[DONE]" not in events


def passes(*datas: bytes, asked: ChatRequest, counts: Counts = COUNTS) -> bytes:
    """A stream of chat itself on its way through the writer; what comes from the first finish on is held."""
    writer, reader, out, held = DIALECT.writer(asked), ChatReader(), b"", list[Frame]()
    finished: list[Event] = []
    for frame in frames(*datas):
        events = reader.read(frame)
        finished += [event for event in events if isinstance(event, Finished)]
        if finished or any(isinstance(event, Used | Done) for event in events):
            held.append(frame)
        else:
            out += writer.passed(frame, events)
    return out + writer.complete(finished, counts, held)


def test_chat_to_chat_passes_to_the_byte() -> None:
    datas = [says("Hi", system_fingerprint="fp"), ends(usage=None), chunk(usage=usage(10, 3, odd=1)), DONE]
    assert passes(*datas, asked=request(stream=True)) == sse(datas[0], datas[1], DONE)
    stream = passes(*datas, asked=asking())
    assert stream.startswith(sse(datas[0], datas[1]))
    assert told(stream)[2] == json.loads(datas[2]) | {"usage": usage(10, 3, odd=1, cost=1.5e-06)}
    assert told(stream)[3:] == ["[DONE]"]
    merged = [says("Hi"), ends(usage=usage(10, 3), x=1), DONE]
    assert told(passes(*merged, asked=request(stream=True)))[1] == json.loads(ends(x=1))
    assert told(passes(*merged, asked=asking()))[2]["usage"] == usage(10, 3, cost=1.5e-06)
    writer = DIALECT.writer(asking())
    writer.passed(frames(says("Hi", system_fingerprint="fp"))[0], [])
    assert told(writer.cut_softly(b"{}", ESTIMATE))[0]["system_fingerprint"] == "fp"
    assert writer.passed(Frame(b": wait\n\n", None), []) == b": wait\n\n"


def test_a_whole_reply() -> None:
    reply = json.loads(DIALECT.whole(request(), [*TALK, *ENDS, Used(USAGE), Done()], COUNTS, None))
    assert reply["object"] == "chat.completion"
    message = reply["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["refusal"]) == ("Hello", "hm", None)
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == ['{"a":1}', "{}"]
    assert reply["usage"]["cost"] == 1.5e-06
    streamed = read(written(TALK, ENDS, asking()))
    whole = ChatReader().whole(json.dumps(reply).encode())
    kinds = (CallBegins, Finished, Done)
    assert [event for event in whole if isinstance(event, kinds)] == [e for e in streamed if isinstance(e, kinds)]


def test_whole_replies_that_say_little_or_were_cut() -> None:
    empty = json.loads(DIALECT.whole(request(), [Done()], ESTIMATE, None))["choices"]
    assert empty[0]["message"]["content"] == ""
    refused = json.loads(DIALECT.whole(request(), [Said("no", refusal=True), Finished("stop")], ESTIMATE, None))
    assert refused["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": "no"}
    cut = json.loads(DIALECT.whole(request(n=2), [Said("a", 1)], ESTIMATE, b'{"x":1}'))
    assert cut["bursar"] == {"cut": {"x": 1}}
    assert [choice["finish_reason"] for choice in cut["choices"]] == ["length", "length"]


def test_a_whole_reply_of_chat_gains_its_cost() -> None:
    body = b'{"id":"x",  "choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    assert DIALECT.with_cost(request(), body, COUNTS) == body.replace(b":2}", b':2,"cost":0.0000015}')
    assert json.loads(DIALECT.with_cost(request(), b'{"choices":[]}', ESTIMATE))["usage"]["estimated"] is True


def test_errors() -> None:
    assert DIALECT.error_reply(Unauthorized("No key."))[0] == 401
    rejected = UpstreamRejected("no", upstream_status=422, body=b'{"message":"theirs"}')
    assert DIALECT.error_reply(rejected) == (422, b'{"error":{"message":"theirs"}}')
    assert DIALECT.error_object(b'{"error":{"message":"long","code":"context_length_exceeded"}}') == (
        "long",
        "context_length_exceeded",
    )
    assert DIALECT.error_object(b'[{"error":{"code":400,"message":"no","status":"INVALID"}}]') == (
        "no",
        "invalid_request_error",
    )
    assert DIALECT.error_object(b"<html>") is None


def sdk(body: bytes, status: int = 200, *, stream: bool = True) -> openai.OpenAI:
    """The official SDK before a server that answers so."""
    kind = "text/event-stream" if stream else "application/json"
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body, headers={"content-type": kind}))
    return openai.OpenAI(
        api_key="k", base_url="http://x/v1", http_client=httpx.Client(transport=transport), max_retries=0
    )


ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_the_official_sdk_reads_the_stream() -> None:
    client = sdk(written(TALK, ENDS, asking()))
    with client.chat.completions.stream(**ASK) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == "Hello"
    assert [(c.function.name, c.function.arguments) for c in message.tool_calls or ()] == [
        ("f", '{"a":1}'),
        ("g", "{}"),
    ]
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage is not None
    assert final.usage.prompt_tokens_details is not None
    assert final.usage.prompt_tokens_details.cached_tokens == 40


def test_the_official_sdk_reads_the_whole_reply() -> None:
    reply = sdk(DIALECT.whole(request(), [*TALK, *ENDS], COUNTS, None), stream=False).chat.completions.create(**ASK)
    assert reply.choices[0].message.content == "Hello"
    assert reply.choices[0].message.tool_calls is not None
    assert reply.usage is not None
    assert reply.usage.total_tokens == 120


def test_the_official_sdk_raises_its_own_errors() -> None:
    writer = DIALECT.writer(asking())
    stream = writer.write(TALK[:4]) + writer.cut(budget_error("task"), COUNTS)
    with pytest.raises(openai.APIError, match="out of budget"):
        list(sdk(stream).chat.completions.create(**ASK, stream=True))
    writer = DIALECT.writer(asking())
    stream = writer.write(TALK[:4]) + writer.broken(UpstreamError("The provider died."))
    with pytest.raises(openai.APIError, match="died"):
        list(sdk(stream).chat.completions.create(**ASK, stream=True))
    for error, raised in (
        (budget_error("task"), openai.APIStatusError),
        (Unauthorized("No."), openai.AuthenticationError),
    ):
        status, body = DIALECT.error_reply(error)
        with pytest.raises(raised) as caught:
            sdk(body, status, stream=False).chat.completions.create(**ASK)
        assert caught.value.status_code == status
    assert isinstance(budget_error("task"), BudgetExceeded)
