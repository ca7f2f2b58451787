"""All pairs of dialects, without I/O: requests and replies say the same in each, but for what the tables say.

Streams go the gateway's own way (`event_relay`), and the upstreams are our own writers.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.conversation import Conversation, ToolCall
from app.core.errors import BadRequest
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Done, Event, Failed, Finished, Said, Thought
from app.core.money import Usage
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.registry import CHAT, GEMINI, MESSAGES, NAMES, RESPONSES, dialect_named
from tests.dialects.pair_requests import CITY, EFFORT, PLACE, SCENARIOS, TOOLS
from tests.dialects.pairs import (
    ASK,
    MODELS,
    PAIRS,
    SAMPLING,
    asking,
    gist,
    of_origin,
    parsed,
    plain,
    read,
    relayed,
    spoken,
    strength,
    talk_of,
)

LOST: Final[dict[str, dict[str, Any]]] = {
    CHAT: {"top_k": None},
    RESPONSES: {"top_k": None, "seed": None, "presence_penalty": None, "frequency_penalty": None},
    MESSAGES: {"seed": None, "presence_penalty": None, "frequency_penalty": None},
    GEMINI: {"user": None, "parallel_tools": True},
}
"""What a request loses in each dialect, and what then stands there: seeds and penalties that it has no member for."""
REFUSED: Final = {(RESPONSES, "stopped"): "stop", (RESPONSES, "three"): "n", (MESSAGES, "three"): "n"}
"""What each dialect refuses, and the parameter that it names."""
UNNAMED_SHAPES: Final = frozenset((MESSAGES, GEMINI))
"""Dialects whose schema of an answer has no name, and is always kept to."""
HOISTING: Final = frozenset((CHAT, GEMINI))
"""Dialects in which images of a tool's result stand behind the results."""


def expected(talk: Conversation, target: str) -> dict[str, Any]:
    """What is left of a request in this dialect."""
    return plain(talk, hoist=target in HOISTING) | LOST[target]


def alike(left: dict[str, Any], right: dict[str, Any], *dialects: str) -> None:
    """Two plain requests are the same, as far as these dialects can tell."""
    if left["shape"] is not None and right["shape"] is not None and UNNAMED_SHAPES & set(dialects):
        left, right = left | {"shape": left["shape"][0]}, right | {"shape": right["shape"][0]}
    assert left == right


def sent(request: ChatRequest, talk: Conversation, target: str) -> ChatRequest:
    """The request that a provider of this dialect gets."""
    dialect = dialect_named(target)
    upstream = dialect.render(request, talk, model=MODELS[target], limit_tokens=3000, stream=True)
    return parsed(target, upstream.body, stream=True)


REQUESTS: Final = [
    (scenario, source, target) for scenario in SCENARIOS for source, target in PAIRS if source in SCENARIOS[scenario]
]


@pytest.mark.parametrize(("scenario", "source", "target"), REQUESTS)
def test_a_request_says_the_same_in_every_dialect(scenario: str, source: str, target: str) -> None:
    request = parsed(source, SCENARIOS[scenario][source])
    assert request.output_limit == 4000
    talk = dialect_named(source).conversation(request)
    if (target, scenario) in REFUSED:
        with pytest.raises(BadRequest) as caught:
            sent(request, talk, target)
        assert caught.value.param == REFUSED[target, scenario]
        return
    arrived = sent(request, talk, target)
    assert (arrived.output_limit, arrived.stream) == (3000, True)
    assert arrived.choices == request.choices
    alike(plain(dialect_named(target).conversation(arrived)), expected(talk, target), source, target)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_four_spellings_are_one_request(scenario: str) -> None:
    spellings = SCENARIOS[scenario]
    source = next(iter(spellings))
    said = talk_of(source, spellings[source])
    for name, body in spellings.items():
        lost: dict[str, Any] = {**LOST[source], **LOST[name]} | ({"top_k": None} if scenario == "sampled" else {})
        hoist = name in HOISTING
        alike(plain(talk_of(name, body), hoist=hoist) | lost, plain(said, hoist=hoist) | lost, source, name)


@pytest.mark.parametrize("target", [CHAT, RESPONSES])
@pytest.mark.parametrize(("schema", "strict"), [(PLACE, True), (CITY, False)])
def test_openai_is_not_told_strict_of_a_schema_that_it_would_refuse(
    target: str, schema: dict[str, Any], strict: bool
) -> None:
    request = parsed(
        MESSAGES,
        SCENARIOS["schema"][MESSAGES] | {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    )
    arrived = dialect_named(target).conversation(sent(request, dialect_named(MESSAGES).conversation(request), target))
    assert arrived.shape is not None
    assert arrived.shape.strict is strict


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_effort_is_as_great_in_every_dialect(source: str, target: str) -> None:
    request = parsed(source, EFFORT[source])
    talk = dialect_named(source).conversation(request)
    model = {CHAT: "gpt-5"}.get(target, MODELS[target])
    upstream = dialect_named(target).render(request, talk, model=model, limit_tokens=64_000, stream=True)
    assert strength(talk_of(target, upstream.body)) == strength(talk) == "high"


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_clients_own_limit_holds_where_the_cap_sets_none(source: str, target: str) -> None:
    request = parsed(source, TOOLS[source])
    talk = dialect_named(source).conversation(request)
    upstream = dialect_named(target).render(request, talk, model=MODELS[target], limit_tokens=None, stream=False)
    arrived = parsed(target, upstream.body)
    assert (arrived.output_limit, arrived.stream) == (4000, False)


@pytest.mark.parametrize("target", NAMES)
def test_what_is_lost_is_named(target: str) -> None:
    for source in (CHAT, GEMINI):
        talk = talk_of(source, SCENARIOS["sampled"][source])
        before = plain(talk)
        sent(parsed(source, SCENARIOS["sampled"][source]), talk, target)
        lost = [name for name in (*SAMPLING, "user") if name in LOST[target] and before[name] is not None]
        assert set(lost) <= set(talk.dropped)


USAGE: Final = Usage(100, 20, cache_read=40, cache_write=10, cache_write_1h=5, reasoning=8)
ARGUMENTS: Final = json.dumps({"city": "Zürich", "text": 'long "quoted" \\ text\n' * 9, "n": [1, {"a": None}]})
BEGIN: Final = Begin("id_1", "model-1")
SCRIPTS: Final[dict[str, list[Event]]] = {
    "text": [BEGIN, Said("Hel"), Said("lo ü\n\ndata: [DONE]"), Finished("stop")],
    "thinking": [
        BEGIN,
        Thought("hm "),
        Thought("so"),
        Thought("", signature="c2ln", ends=True),
        Said("A"),
        Finished("stop"),
    ],
    "calls": [
        BEGIN,
        Said("I call."),
        CallBegins(0, "call_a", "weather"),
        *[CallPiece(0, ARGUMENTS[place : place + 7]) for place in range(0, len(ARGUMENTS), 7)],
        CallEnds(0),
        CallBegins(1, "call_b", "time"),
        CallPiece(1, "{}"),
        CallEnds(1),
        Finished("tool_calls"),
    ],
    "calls together": [
        BEGIN,
        CallBegins(0, "call_a", "weather"),
        CallBegins(1, "call_b", "time"),
        CallPiece(0, '{"a":'),
        CallPiece(1, '{"b":'),
        CallPiece(0, "1}"),
        CallPiece(1, "2}"),
        Finished("tool_calls"),
    ],
    "call without arguments": [BEGIN, CallBegins(0, "call_a", "time"), CallEnds(0), Finished("tool_calls")],
    "thought and call": [
        BEGIN,
        Thought("hm"),
        Thought("", signature="c2ln", ends=True),
        CallBegins(0, "call_a", "time", signature="Y2FsbA=="),
        CallPiece(0, "{}"),
        CallEnds(0),
        Finished("tool_calls"),
    ],
    "refusal": [BEGIN, Said("I can", refusal=True), Said("not.", refusal=True), Finished("stop")],
    "length": [BEGIN, Said("A"), Finished("length")],
    "filtered": [BEGIN, Said("A"), Finished("content_filter")],
    "stop sequence": [BEGIN, Said("A"), Finished("stop", 0, "END")],
    "nothing": [BEGIN, Finished("stop")],
    "broken": [BEGIN, Said("A"), Failed("The model went away.", "server_error")],
}
TWO: Final[list[Event]] = [
    BEGIN, Said("a", 0), Said("b", 1), Said("c", 0), CallBegins(0, "call_a", "time", choice=1), CallPiece(0, "{}", 1),
    Finished("stop", 0), Finished("tool_calls", 1),
]  # fmt: skip


def kept(script: list[Event], *through: str) -> dict[str, Any]:
    """What is left of a reply that went through these dialects."""
    found = gist(script)
    usage = None if found["failed"] else USAGE
    for name in through:
        if name in (MESSAGES, GEMINI):
            refused = any(run[0] == "refusal" for run in found["said"])
            found["said"] = [("text", *run[1:]) if run[0] == "refusal" else run for run in found["said"]]
            if refused and name == MESSAGES:
                found["finished"] = dict.fromkeys(found["finished"], "content_filter")  # its `stop_reason: refusal`
        usage = usage and seen_by(name, usage)
    return found | {"usage": usage}


def seen_by(name: str, usage: Usage) -> Usage:
    """Usage as far as a dialect tells it: only Messages has writes for an hour, Gemini has no writes."""
    if name == MESSAGES:
        return usage
    written = 0 if name == GEMINI else usage.cache_write + usage.cache_write_1h
    return Usage(usage.input, usage.output, usage.cache_read, written, 0, usage.reasoning)


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_reply_says_the_same_in_every_dialect(name: str, upstream: str, client: str) -> None:
    script = of_origin(SCRIPTS[name], upstream)
    body = spoken(upstream, script, USAGE)
    assert gist(read(upstream, body)) == kept(script, upstream)
    stream, relay = relayed(upstream, client, body)
    assert gist(read(client, stream)) == kept(script, upstream, client)
    assert relayed(upstream, client, body, range(len(body)))[0] == stream
    if relay.broken is None:
        assert relay.meter.usage == seen_by(upstream, USAGE)


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_any_segmentation_gives_the_client_the_same_bytes(upstream: str, client: str) -> None:
    bodies = {name: spoken(upstream, of_origin(SCRIPTS[name], upstream), USAGE) for name in SCRIPTS}
    whole = {name: relayed(upstream, client, body)[0] for name, body in bodies.items()}

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.sampled_from(list(SCRIPTS)), st.lists(st.integers(0, 100_000), max_size=12))
    def at_random(name: str, places: list[int]) -> None:
        assert relayed(upstream, client, bodies[name], places)[0] == whole[name]

    at_random()


@pytest.mark.parametrize(("upstream", "client"), [(a, b) for a in (CHAT, GEMINI) for b in (CHAT, GEMINI)])
def test_several_choices(upstream: str, client: str) -> None:
    stream, _ = relayed(upstream, client, spoken(upstream, TWO, USAGE, 2), choices=2)
    assert gist(read(client, stream)) == kept(TWO, upstream, client)


WHOLE: Final = [name for name in SCRIPTS if name != "broken"]


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_reply_says_the_same_in_every_dialect(name: str, upstream: str, client: str) -> None:
    script = of_origin(SCRIPTS[name], upstream)
    counts = Counts(USAGE, exact=True, cost_nano=None)
    body = dialect_named(upstream).whole(asking(upstream), [*script, Done()], counts, None)
    events = dialect_named(upstream).reader().whole(body)
    assert gist(events) == kept(script, upstream)
    assert isinstance(events[-1], Done)
    shown = dialect_named(client).whole(asking(client), events, Counts(seen_by(upstream, USAGE), True, 1_500), None)
    assert gist(dialect_named(client).reader().whole(shown)) == kept(script, upstream, client)


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_folded_stream_is_the_whole_reply(name: str, upstream: str, client: str) -> None:
    script = of_origin(SCRIPTS[name], upstream)
    folded, _ = relayed(upstream, client, spoken(upstream, script, USAGE), folds=True)
    assert gist(dialect_named(client).reader().whole(folded)) == kept(script, upstream, client)


def answered(client: str, reply: bytes) -> dict[str, Any]:
    """The next request of a client, who says back what it was told, and what its tool said."""
    told: Any = json.loads(reply)
    body: dict[str, Any] = {name: value for name, value in ASK[client].items() if not name.startswith("stream")}
    if client == CHAT:
        result = {"role": "tool", "tool_call_id": "call_a", "content": "noon"}
        return body | {"messages": [*body["messages"], told["choices"][0]["message"], result]}
    if client == RESPONSES:
        output = {"type": "function_call_output", "call_id": "call_a", "output": "noon"}
        return body | {"input": [*body["input"], *told["output"], output]}
    if client == MESSAGES:
        said = [{"role": "assistant", "content": told["content"]}]
        result = {"type": "tool_result", "tool_use_id": "call_a", "content": "noon"}
        return body | {"messages": [*body["messages"], *said, {"role": "user", "content": [result]}]}
    calls = [part["functionCall"] for part in told["candidates"][0]["content"]["parts"] if "functionCall" in part]
    response = {"functionResponse": {"id": calls[0].get("id"), "name": "time", "response": {"output": "noon"}}}
    return body | {
        "contents": [*body["contents"], told["candidates"][0]["content"], {"role": "user", "parts": [response]}]
    }


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_a_tool_loop_comes_back_to_its_provider_with_its_proofs(upstream: str, client: str) -> None:
    script = of_origin(SCRIPTS["thought and call"], upstream)
    events = read(upstream, spoken(upstream, script, USAGE))
    reply = dialect_named(client).whole(asking(client), events, Counts(USAGE, True, None), None)
    request = parsed(client, answered(client, reply))
    talk = dialect_named(client).conversation(request)
    arrived = dialect_named(upstream).conversation(sent(request, talk, upstream))
    parts = [part for message in arrived.messages for part in message.parts]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert [(call.id, call.name, json.loads(call.arguments)) for call in calls] == [("call_a", "time", {})]
    assert plain(arrived)["turns"][-1] == ("user", [("result", "call_a", False, [("text", "noon")])])
    raw = json.dumps(
        json.loads(
            dialect_named(upstream).render(request, talk, model=MODELS[upstream], limit_tokens=9000, stream=False).body
        )
    )
    assert "bursar" not in raw
    if upstream == CHAT:
        assert '"reasoning_content": "hm"' in raw
    if upstream == MESSAGES and client != CHAT:
        assert '"signature": "c2ln"' in raw
    if upstream == RESPONSES and client != CHAT:
        assert '"encrypted_content": "c2ln"' in raw
    if upstream == GEMINI:
        assert "Y2FsbA==" in raw
