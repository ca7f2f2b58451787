"""Every recording through parser and relay: the client's bytes do not depend on how the stream was cut up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from app.core.errors import UpstreamError
from app.core.meter import Meter
from app.core.money import NANO_PER_USD, Usage
from app.core.sse import SseParser
from app.dialects.openai_chat.decode import decode_event, decode_whole
from app.dialects.openai_chat.errors import upstream_error_object
from app.dialects.openai_chat.fold import Folder
from app.dialects.openai_chat.relay import ChatRelay
from app.dialects.openai_chat.whole import with_cost
from tests.dialects.stream_texts import ONE_NANO, told
from tests.wire_cases import WireCase, WireUsage, stream_cases, whole_cases

GOOD = [case for case in stream_cases() if case.error is None]
BROKEN = [case for case in stream_cases() if case.error is not None]
COST_NANO = 1_500
EPILOGUES = (b": late\n\n", b"data: {\n\n", b'data: {"choices":[]}\n\n', b"\x00\xff", b"data: [DONE]\n\n", b"\n\n")


def replay(
    case: WireCase, reads: Iterable[bytes], *, show: bool = True, folder: Folder | None = None
) -> tuple[bytes, ChatRelay]:
    """What the client gets when the stream arrives in these reads, as the gateway's loop drives the relay."""
    relay = ChatRelay(
        Meter(ONE_NANO, 0, 1000), choices=len(case.choices), show_usage=show, clamp_tokens=None, folder=folder
    )
    parser, out = SseParser(), b""
    for read in reads:
        out += relay.feed(parser.feed(read))
        if relay.done or relay.broken:
            break
    else:
        out += relay.feed(parser.close())
    if relay.broken is None and (relay.done or relay.ended):
        return out + relay.end_complete(COST_NANO), relay
    return out + relay.end_broken(UpstreamError("The stream broke off.")), relay


def cut_at(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in reads that end at these places."""
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("case", stream_cases(), ids=repr)
def test_any_segmentation_gives_the_client_the_same_bytes(case: WireCase) -> None:
    whole, relay = replay(case, [case.body])
    assert (relay.broken is None) == (case.error is None)
    singles, _ = replay(case, [case.body[i : i + 1] for i in range(len(case.body))])
    assert singles == whole

    @settings(max_examples=15, deadline=None, database=None)
    @given(st.lists(st.integers(0, 100_000), max_size=12), st.sampled_from(EPILOGUES))
    def at_random(places: list[int], epilogue: bytes) -> None:
        assert replay(case, cut_at(case.body, places))[0] == whole
        if case.done:
            assert replay(case, cut_at(case.body.rstrip(b"\r\n") + b"\n\n" + epilogue, places))[0] == whole

    at_random()


@pytest.mark.parametrize("case", stream_cases(), ids=repr)
def test_line_ends_change_nothing_but_themselves(case: WireCase) -> None:
    whole, _ = replay(case, [case.body])
    for line_end in (b"\r\n", b"\r"):
        other = case.body.replace(b"\r\n", b"\n").replace(b"\n", line_end)
        for reads in ([other], [other[i : i + 1] for i in range(len(other))]):
            assert told(replay(case, reads)[0]) == told(whole)


@pytest.mark.parametrize("case", GOOD, ids=repr)
def test_chunks_survive_to_the_byte_and_usage_is_for_those_who_ask(case: WireCase) -> None:
    upstream = [frame for frame in SseParser().feed(case.body + b"\n\n") if frame.data is not None]
    upstream = upstream[: next(i for i, frame in enumerate(upstream) if frame.data == b"[DONE]")]
    shown, hidden = replay(case, [case.body])[0], replay(case, [case.body], show=False)[0]
    assert [e for e in told(shown) if e == "[DONE]"] == [told(shown)[-1]] == [told(hidden)[-1]]
    kept = []
    for frame in upstream:
        raw, data = frame.raw, frame.data
        assert data is not None
        chunk = json.loads(data)
        if chunk.get("usage") is None:
            assert raw in shown
            assert raw in hidden
            kept.append(chunk)
        elif chunk["choices"]:
            kept.append({name: value for name, value in chunk.items() if name != "usage"})
    assert told(hidden)[:-1] == kept
    assert told(shown)[:-2] == kept
    last = told(shown)[-2]
    assert last["choices"] == []
    assert str(last["usage"]["cost"]) == "1.5e-06"
    report = reported(case)
    for name, value in (report or {}).items():
        assert name == "cost" or last["usage"][name] == value or case.true_output is not None
    assert last["usage"].get("estimated", False) == (report is None)


def reported(case: WireCase) -> dict[str, Any] | None:
    """The last usage on the wire, read without the code under test."""
    found = None
    for frame in SseParser().feed(case.body):
        if frame.data is not None and frame.data != b"[DONE]":
            chunk = json.loads(frame.data)
            found = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or found
        elif frame.data is not None:
            break
    return found


@pytest.mark.parametrize("case", stream_cases(), ids=repr)
def test_usage_is_what_was_billed(case: WireCase) -> None:
    _, relay = replay(case, [case.body])
    if case.usage is None:
        assert relay.meter.usage is None
        return
    compare_usage(case, relay.meter.usage, case.true_output or case.usage.output)
    assert relay.meter.exact


def compare_usage(case: WireCase, usage: Usage | None, output: int) -> None:
    assert usage is not None
    assert case.usage is not None
    assert WireUsage(usage.input, output, usage.cache_read, usage.reasoning) == case.usage or case.true_output
    assert (usage.input, usage.output, usage.cache_read) == (case.usage.input, output, case.usage.cached)
    paid = None if case.cost_usd is None else round(float(case.cost_usd) * NANO_PER_USD)
    assert usage.cost_nano == paid


@pytest.mark.parametrize("case", BROKEN, ids=repr)
def test_an_error_in_the_stream_is_told_and_never_taken_for_the_end(case: WireCase) -> None:
    stream, relay = replay(case, [case.body])
    assert relay.broken == "the provider reported an error"
    events = told(stream)
    assert "[DONE]" not in events
    error = events[-1]["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert case.error is not None
    assert error["message"] == case.error["message"]
    text = "".join(c["delta"].get("content") or "" for e in events[:-1] for c in e["choices"])
    assert text == case.choices[0].text


@pytest.mark.parametrize("case", GOOD, ids=repr)
def test_the_fold_says_what_the_stream_said(case: WireCase) -> None:
    folder = Folder()
    assert replay(case, cut_at(case.body, range(0, 9999, 97)), show=False, folder=folder)[0] == b"data: [DONE]\n\n"
    counted = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    completion = json.loads(folder.body(usage=counted, cost_nano=COST_NANO))
    assert completion["object"] == "chat.completion"
    assert completion["model"] == case.model
    assert {choice["index"] for choice in completion["choices"]} == set(case.choices)
    for choice in completion["choices"]:
        expected, message = case.choices[choice["index"]], choice["message"]
        assert choice["finish_reason"] == expected.finish
        assert message["role"] == "assistant"
        assert said_in(message) == (expected.text, expected.reasoning)
        assert (message.get("refusal") or "") == expected.refusal
        folded = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
        assert folded == [(c.id, c.name, c.arguments) for c in expected.tool_calls]
        assert all("index" not in call for call in message.get("tool_calls") or ())
        function = message.get("function_call") or {}
        assert (function.get("name"), function.get("arguments")) == (expected.function_call or (None, None))
        if expected.audio is not None:
            assert {name: message["audio"][name] for name in expected.audio} == expected.audio
    report = reported(case)
    if case.true_output is None:
        assert {**completion["usage"], "cost": 0} == {**(report or counted), "cost": 0}
    else:
        assert completion["usage"]["completion_tokens"] == case.true_output
    assert str(completion["usage"]["cost"]) == "1.5e-06"


def said_in(message: dict[str, Any]) -> tuple[str, str]:
    """Text and visible reasoning of a folded message, whose content is a string or parts."""
    content = message["content"] or ""
    parts: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
    text = "".join(part.get("text", "") for part in parts)
    thought = "".join(inner["text"] for part in parts for inner in part.get("thinking", ()))
    return text, thought + (message.get("reasoning_content") or message.get("reasoning") or "")


OFFICIAL = [case for case in GOOD if case.name.startswith(("openai_", "azure_"))]


@pytest.mark.parametrize("case", OFFICIAL, ids=repr)
def test_the_fold_is_the_official_sdks(case: WireCase) -> None:
    folder = Folder()
    replay(case, [case.body], show=False, folder=folder)
    completion = json.loads(folder.body(usage={}, cost_nano=None))
    messages: dict[int, dict[object, object]] = {}
    logprobs: dict[int, list[object]] = {}
    for event in told(case.body):
        for choice in event["choices"] if isinstance(event, dict) else ():
            accumulate_delta(messages.setdefault(choice["index"], {}), choice.get("delta", {}))
            for token in (choice.get("logprobs") or {}).get("content") or ():
                logprobs.setdefault(choice["index"], []).append(token)
    for choice in completion["choices"]:
        official = messages[choice["index"]]
        if "audio" in official:
            official["audio"]["id"] = choice["message"]["audio"]["id"]  # type: ignore[index]  # it joins ids
        for call in official.get("tool_calls") or ():  # type: ignore[attr-defined]
            call.pop("index")
        assert {"content": None, **official} == choice["message"]
        assert (choice["logprobs"] or {}).get("content") == logprobs.get(choice["index"])


@pytest.mark.parametrize("case", whole_cases(), ids=repr)
def test_whole_replies_keep_their_bytes_and_gain_a_cost(case: WireCase) -> None:
    if case.status != 200:
        error = json.loads(upstream_error_object(case.body) or b"{}")
        assert case.error is not None
        assert (error["message"], error["type"]) == (case.error["message"], case.error["type"])
        assert error["param"] is None
        assert error["code"] == str(case.error["code"])
        return
    meter = Meter(ONE_NANO, 0, 1000)
    event = decode_whole(case.body)
    assert event.usage is not None
    assert case.usage is not None
    assert decode_event(case.body).usage == event.usage
    compare_usage(case, event.usage, case.usage.output)
    meter.report(event.usage)
    shown = with_cost(case.body, meter, COST_NANO)
    before = msgspec.json.decode(case.body, type=dict[str, msgspec.Raw])
    after = msgspec.json.decode(shown, type=dict[str, msgspec.Raw])
    assert list(before) == list(after)
    for name in before:
        assert bytes(before[name]) == bytes(after[name]) or name == "usage"
    assert json.loads(shown)["usage"] == {**json.loads(case.body)["usage"], "cost": 1.5e-06}
