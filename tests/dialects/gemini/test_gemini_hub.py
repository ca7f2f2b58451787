"""The dialect among the others: the table of what passes holds, and their streams reach Gemini's SDK."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import BadRequest
from app.core.events import CallBegins, Event, Finished, Said, Thought
from app.core.meter import Meter
from app.core.money import Price, Rates
from app.dialects.event_relay import EventRelay
from app.dialects.gemini.carry import DROPPED, REFUSED
from app.dialects.gemini.dialect import DIALECT
from app.dialects.openai_chat.read import ChatReader
from tests.dialects.gemini.exchange import WEATHER, client, frames, parsed, sse, streamed, written
from tests.dialects.gemini.test_gemini_read import CALLS, TEXT
from tests.wire_cases import WireCase, stream_cases

GOOD = [case for case in stream_cases() if case.error is None]


def holding(name: str) -> dict[str, Any]:
    """A request's members that hold the parameter which a table names."""
    group, _, member = name.rpartition(".")
    value: Any = {"fileUri": "gs://x", "mimeType": "video/mp4", "data": "AA"}
    if group == "generationConfig":
        return {group: {member: ["IMAGE"] if member == "responseModalities" else "text/x.enum"}}
    if group == "parts":
        return {"contents": [{"parts": [{"text": "x", {"video": "inlineData"}.get(member, member): value}]}]}
    if group == "tools":
        return {"tools": [{member: {}}]}
    if group == "functionDeclarations":
        return {"tools": [{"functionDeclarations": [{**WEATHER, member: {}}]}]}
    if group == "toolConfig":
        return {"toolConfig": {member: {}}}
    if group == "functionCallingConfig":
        return {"toolConfig": {group: {member: True}}}
    return {member: "x"}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_dropped_is_named(name: str) -> None:
    assert DIALECT.conversation(parsed(**holding(name))).dropped == [name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        DIALECT.conversation(parsed(**holding(name)))
    assert REFUSED[name] in caught.value.message


@pytest.mark.parametrize("case", GOOD, ids=repr)
def test_a_chat_providers_stream_reaches_the_sdk(case: WireCase) -> None:
    reader = ChatReader()
    events = [event for frame in frames(case.body) for event in reader.read(frame)]
    ended = {event.choice for event in events if isinstance(event, Finished)}
    replies = client(written(streamed(), events)).models.generate_content_stream(model="m", contents="Hi")
    said: dict[int, list[str]] = {}
    calls: list[str | None] = []
    finished = {}
    for candidate in [candidate for reply in replies for candidate in reply.candidates or []]:
        for part in (candidate.content and candidate.content.parts) or []:
            if part.function_call is not None:
                calls.append(part.function_call.name)
            elif part.text:
                said.setdefault(candidate.index or 0, []).append(part.text)
        if candidate.finish_reason is not None:
            finished[candidate.index] = candidate.finish_reason
    assert {choice: "".join(texts) for choice, texts in said.items()} == texts_of(events)
    assert set(finished) == ended
    if "length" not in {event.reason for event in events if isinstance(event, Finished)}:
        assert calls == [event.name for event in events if isinstance(event, CallBegins)]


def texts_of(events: list[Event]) -> dict[int, str]:
    """What each choice says and thinks."""
    texts: dict[int, str] = {}
    for event in events:
        if isinstance(event, Said | Thought) and event.text:
            texts[event.choice] = texts.get(event.choice, "") + event.text
    return texts


def relayed(body: bytes, alt: str, *, folds: bool = False) -> tuple[bytes, EventRelay]:
    """A stream of the same dialect, as the gateway passes it on."""
    meter = Meter(Price(Rates(1_000_000, 1_000_000)), 10, 1000)
    request = parsed(verb="streamGenerateContent", alt=alt)
    relay = EventRelay(meter, DIALECT, DIALECT.reader(), request, same=True, clamp_tokens=None, folds=folds)
    return relay.feed(frames(body)), relay


@pytest.mark.parametrize("body", [TEXT, CALLS])
def test_the_same_dialect_passes_but_for_the_cost(body: bytes) -> None:
    out, relay = relayed(body, "sse")
    assert relay.meter.usage is not None
    assert (relay.meter.usage.output, relay.broken) == (38, None)
    ended = out + relay.end_complete(1_500)
    untouched = [frame.data for frame in frames(body)][:-1]
    assert [frame.data for frame in frames(ended)][:-1] == untouched
    assert ended.count(b'"cost":0.0000015') == 1
    assert ended.replace(b',"cost":0.0000015', b"").replace(b"\r\n", b"\n") == body.replace(b"\r\n", b"\n")


def test_a_picture_survives_a_fold() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    chunk = {"candidates": [{"content": {"parts": [picture]}, "finishReason": "STOP", "groundingMetadata": {"a": 1}}]}
    out, relay = relayed(sse(chunk), "sse", folds=True)
    reply = client(relay.folded(None, None)).models.generate_content(model="m", contents="Hi")
    assert out == b""
    assert reply.candidates
    assert reply.candidates[0].content is not None
    assert reply.parts is not None
    assert reply.parts[0].inline_data is not None
