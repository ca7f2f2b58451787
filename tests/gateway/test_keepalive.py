"""While the upstream thinks: comments for clients that bear them, silence for Gemini's, and honest ends after both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from app.gateway import call
from app.http.wire import WireDownstream
from tests.gateway.live import PRICE, Live, policy, until
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, Wait, words

COMMENT = b": keepalive\n\n"
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/a:streamGenerateContent?alt=sse",
}


@pytest.fixture(scope="module")
def thinking() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def other() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(Script.of(words("From the other."))) as running:
        yield running


@pytest.fixture
async def live(
    thinking: ScriptedUpstream, other: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Live]:
    monkeypatch.setattr(call, "KEEPALIVE_S", 0.15)
    thinking.requests.clear()
    async with Live(tmp_path, policy({"a": thinking, "b": other})) as running:
        yield running


async def begun(live: Live, **asked: Any) -> tuple[Any, bytearray, asyncio.Task[None]]:
    """A stream that is read on the side; what it said so far."""
    headers = asked.pop("headers", None)
    response = await live.client.session.post(f"{live.url}{asked.pop('path')}", json=asked, headers=headers)
    said = bytearray()

    async def take() -> None:
        async for part in response.content.iter_any():
            said.extend(part)

    return response, said, asyncio.create_task(take())


def asked_in(dialect: str) -> dict[str, Any]:
    if dialect == "gemini":
        return {"path": PATHS[dialect], "contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    said = {"input": "hi"} if dialect == "openai_responses" else {"messages": [{"role": "user", "content": "hi"}]}
    return {"path": PATHS[dialect], "model": "a", "stream": True, "max_tokens": 50, **said}


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses", "anthropic"])
async def test_comments_until_the_first_event(live: Live, thinking: ScriptedUpstream, dialect: str) -> None:
    gate = Gate()
    thinking.source = Script.of(words("One two."), opening=[Wait(gate)])
    asked = asked_in(dialect)
    if dialect == "openai_responses":
        asked.pop("max_tokens")
    response, said, reading = await begun(live, **asked)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-bursar-model"] == "a"
    await until(lambda: said.count(COMMENT) >= 2)
    assert not said.replace(COMMENT, b"")
    gate.open()
    await reading
    comments = said.count(COMMENT)
    assert said.startswith(COMMENT * comments)
    assert b"One" in said


async def test_none_for_gemini(live: Live, thinking: ScriptedUpstream) -> None:
    gate = Gate()
    thinking.source = Script.of(words("One two."), opening=[Wait(gate)])
    asking = asyncio.create_task(begun(live, **asked_in("gemini")))
    await thinking.until(lambda u: len(u.requests) == 1)
    await asyncio.sleep(0.5)
    assert not asking.done()
    gate.open()
    _, said, reading = await asking
    await reading
    assert said.startswith(b"data: ")
    assert b": keepalive" not in said


async def test_a_later_failure_is_told_in_the_stream(live: Live, thinking: ScriptedUpstream) -> None:
    gate = Gate()
    refusal = Script.failure(400, "No such thing")
    thinking.source = Script(status=400, body=refusal.body, headers=refusal.headers, opening=[Wait(gate)])
    response, said, reading = await begun(live, **asked_in("openai_chat"))
    await until(lambda: COMMENT in said)
    gate.open()
    await reading
    assert response.status == 200
    assert said.count(b"data: ") == 1
    assert b'"error"' in said
    assert b"[DONE]" not in said


async def test_it_goes_on_elsewhere_all_the_same(live: Live, thinking: ScriptedUpstream) -> None:
    gate = Gate()
    failed = Script.failure(500)
    thinking.source = Script(status=500, body=failed.body, headers=failed.headers, opening=[Wait(gate)])
    _, said, reading = await begun(live, **{**asked_in("openai_chat"), "model": "auto"})
    await until(lambda: COMMENT in said)
    gate.open()
    await reading
    assert b"From" in said
    assert said.endswith(b"data: [DONE]\n\n")


async def test_the_sdks_bear_them(live: Live, thinking: ScriptedUpstream) -> None:
    for ask in (_chat, _responses, _messages):
        gate = Gate()
        thinking.source = Script.of(words("One two."), opening=[Wait(gate)])
        before = len(thinking.requests)
        asking = asyncio.create_task(ask(live.url))

        def arrived(at: ScriptedUpstream, before: int = before) -> bool:
            return len(at.requests) > before

        await thinking.until(arrived)
        await asyncio.sleep(0.4)
        gate.open()
        assert await asking == "One two."
    assert len(thinking.requests) == 3
    assert (await live.client.metric("bursar_cost_usd_total")) * 10**9 == pytest.approx(thinking.bill(PRICE))


async def _chat(url: str) -> str:
    sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    stream = await sdk.chat.completions.create(model="a", messages=[{"role": "user", "content": "hi"}], stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def _responses(url: str) -> str:
    sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    stream = await sdk.responses.create(model="a", input="hi", stream=True)
    return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def _messages(url: str) -> str:
    sdk = anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0)
    async with sdk.messages.stream(model="a", max_tokens=50, messages=[{"role": "user", "content": "hi"}]) as stream:
        return "".join([text async for text in stream.text_stream])


async def test_nobody_waits_for_a_client_that_does_not_read(
    live: Live, thinking: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments are sent for all calls in turn, by what keeps their deadlines: one full connection must not stop it."""
    gate, looks = Gate(), 0

    def full(_: WireDownstream) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(WireDownstream, "writable", property(full))
    thinking.source = Script.of(words("One two."), opening=[Wait(gate)])
    asked = asked_in("openai_chat")
    asking = asyncio.create_task(live.client.session.post(f"{live.url}{asked.pop('path')}", json=asked))
    await until(lambda: looks >= 2)
    assert not asking.done()
    gate.open()
    body = await (await asking).read()
    assert COMMENT not in body
    assert body.endswith(b"data: [DONE]\n\n")
