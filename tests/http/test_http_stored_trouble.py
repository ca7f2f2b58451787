"""Stored responses when something is amiss: a store that fails, a policy that changes its mind, lists and names that
are longer or odder than they should be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.gateway.calls import WATCH_EVERY_S
from app.http.responses import MOST_REFERENCES
from app.stores.responses import ResponsesUnavailable
from tests.gateway.live import Live, policy, until
from tests.http.test_http_stored_responses import ASK, ITS_OWN, MADE, STORED, respond, rows, sdk, streamed
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words


@pytest.fixture
def upstream() -> Any:
    with ScriptedUpstream(Script.of(words("Hello there."))) as live:
        yield live


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    """One provider, of Chat."""
    async with Live(tmp_path, policy({"a": upstream}, **STORED)) as live:
        yield live


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    while MADE:
        await MADE.pop().close()


@streamed
async def test_a_store_that_fails_takes_no_answer_away(
    live: Live, upstream: ScriptedUpstream, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that fails."""

    async def put(*_: Any) -> bool:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(live.services.responses, "put", put)
    reply = await respond(sdk(live), stream=stream, model="a", input="One")
    assert reply.output_text == "Hello there."
    await live.idle()
    assert await live.client.metric("bursar_responses_stored_total", 'result="failed"') == 1


@streamed
async def test_a_slow_store_is_not_taken_for_a_slow_client(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = policy({"a": upstream}, providers={"a": {"deadlines": {"write_secs": 0.05}}}, **STORED)
    async with Live(tmp_path, hasty) as live:
        put = live.services.responses.put

        async def slowly(*given: Any) -> bool:
            await asyncio.sleep(4 * WATCH_EVERY_S)  # deadlines are looked at meanwhile
            return await put(*given)

        monkeypatch.setattr(live.services.responses, "put", slowly)
        reply = await respond(sdk(live), stream=stream, model="a", input="One")
        assert reply.output_text == "Hello there."
        assert rows(live) == [reply.id]


@streamed
async def test_a_reply_that_could_not_be_stored_is_nobody_elses(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache everybody who asks the same would get a name that leads nowhere; its own repeat is paid once."""
    cached = policy({"a": upstream}, cache={"ttl_secs": 600}, **STORED)
    async with Live(tmp_path, cached) as live:
        client, store = sdk(live), live.services.responses
        again: Any = {"stream": stream, "model": "a", "extra_headers": {"Idempotency-Key": "k"}}

        async def put(*_: Any) -> bool:
            raise ResponsesUnavailable("away")

        with monkeypatch.context() as failing:
            failing.setattr(store, "put", put)
            lost = await respond(client, stream=stream, model="a", input="One")
            repeated = await respond(client, input="Two", **again)
        assert (await respond(client, input="Two", **again)).id == repeated.id
        assert len(upstream.requests) == 2
        found = await respond(client, stream=stream, model="a", input="One")
        assert found.id != lost.id
        cached_one = await respond(client, stream=stream, model="a", input="One")
        assert (cached_one.id, len(upstream.requests)) == (found.id, 3)
        await respond(client, stream=stream, model="a", input="Go on", previous_response_id=cached_one.id)


async def test_what_ends_after_the_policys_word_is_withdrawn_is_not_stored(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    plain = policy({"a": upstream})
    upstream.source = Script.of(words("one two three"), gate=(gate := Gate()))
    async with Live(tmp_path, {**plain, **STORED}) as live:
        gate.release(2)
        async with live.client.open(path=ASK, input="One", stream=True) as response:
            await response.content.readany()
            live.gateway.settings.policy.write_text(json.dumps(plain))
            await until(lambda: live.services.view.policy.stored_responses is None)
            gate.open()
            assert b"response.completed" in await response.read()
        await live.idle()
        assert not (live.folder / "data" / "responses.sqlite").exists() or rows(live) == []


async def test_no_more_items_are_named_than_can_be_looked_up(live: Live, upstream: ScriptedUpstream) -> None:
    named = [{"type": "item_reference", "id": f"msg_{number}"} for number in range(MOST_REFERENCES + 1)]
    answer = await live.chat(path=ASK, input=named)
    assert (answer.status, answer.json["error"]["param"]) == (400, "input")
    assert str(MOST_REFERENCES) in answer.json["error"]["message"]
    assert not upstream.requests


async def test_items_are_listed_to_their_end_whatever_a_provider_calls_them(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """The same in each reply, or nothing."""
    message = ITS_OWN["output"][0]
    nameless = {name: value for name, value in message.items() if name != "id"}
    upstream.source = Script.replay(
        json.dumps({**ITS_OWN, "output": [message, nameless, message]}).encode(), "application/json"
    )
    spoken = policy({"a": upstream}, providers={"a": {"dialect": "openai_responses"}}, **STORED)
    async with Live(tmp_path, spoken) as live:
        client, previous = sdk(live), None
        for number in range(3):
            reply = await client.responses.create(model="a", input=f"{number}", previous_response_id=previous)
            previous = reply.id
        for order in ("asc", "desc"):
            after, found = "", []
            for _ in range(9):
                page = await live.client.get(f"{ASK}/{previous}/input_items?limit=1&order={order}{after}")
                after = f"&after={page['last_id']}"
                found += [item["content"][0]["text"] for item in page["data"]]
            assert not page["has_more"]
            expected = ["0", "Hi", "Hi", "Hi", "1", "Hi", "Hi", "Hi", "2"]
            assert found == (expected if order == "asc" else expected[::-1])
