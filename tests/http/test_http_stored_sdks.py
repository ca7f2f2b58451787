"""Stored responses as programs use them: the Node SDKs, the AI SDK's default way, LangChain; and as gateways share
them: workers, Redis, a store that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import SecretStr

from app.stores.responses import ResponsesUnavailable, StoredResponse
from tests import node_sdk
from tests.gateway.live import Live, policy
from tests.http.live import Served
from tests.http.test_http_dialects import PATHS
from tests.http.test_http_stored_responses import ASK, STORED, said
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Gate, Script, text, tool, words


def agent(received: Received) -> Script:
    """Looks twice where it is told to, each time with a word before; else it says how much it was told."""
    told = said(received)
    asked = max(place for place, (role, _) in enumerate(told) if role == "user")
    looked = sum(role == "call" for role, _ in told[asked:])
    if told[asked][1] == "Look twice" and looked < 2:
        arguments = tool(json.dumps({"what": str(looked)}))
        return Script.of(text(f"Look {looked}. "), tool(id=f"call_{received.index}", name="look"), arguments)
    return Script.of(words(f"Told {len(told)}."))


def asked_for(live: Live) -> set[str]:
    """The items that requests will have named."""
    named: set[str] = set()
    store, holding = live.services.responses, live.services.responses.holding

    async def noted(owner: str, items: Sequence[str], most_bytes: int) -> list[StoredResponse]:
        named.update(items)
        return await holding(owner, items, most_bytes)

    store.holding = noted  # type: ignore[method-assign]
    return named


async def test_node_sdks_and_the_ai_sdks_default_way(tmp_path: Path) -> None:
    try:
        node_sdk.installed()
    except node_sdk.NodeUnavailable as error:
        pytest.skip(str(error))
    for part in ("far", "near"):
        (tmp_path / part).mkdir()
    with ScriptedUpstream(agent) as upstream:
        async with Live(tmp_path / "far", policy({"m": upstream})) as far:
            urls = {name: far.url + path for name, path in PATHS.items()}
            providers = {name: {"dialect": name, "base_url": url} for name, url in urls.items()}
            models = {name: {"upstream_model": "m"} for name in urls}
            near = policy(urls, providers=providers, models=models, **STORED)
            async with Live(tmp_path / "near", near) as live:
                named = asked_for(live)
                seen = await asyncio.to_thread(node_sdk.stored, live.url, list(PATHS))
    assert len(named) == 3 * len(PATHS), "it refers to what was said"
    for model, ran in seen.items():
        assert ran["openai"] == {
            "texts": ["One", "Told 1.", "Two"],
            "previous": True,
            "read": True,
            "gone": {"status": 404, "own": True},
        }, model
        # A user's word, two times a text, a call and its result, the answer, a word, and the answer.
        assert ran["ai"] == {"texts": ["Told 7.", "Told 9."], "steps": [3, 1]}, model


async def test_langchain_goes_on_from_the_last_response(tmp_path: Path) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI

    with ScriptedUpstream(Script.of(words("Hello there."))) as upstream:
        async with Live(tmp_path, policy({"a": upstream}, **STORED)) as live:
            spoken: Any = {"base_url": f"{live.url}/v1", "use_responses_api": True, "use_previous_response_id": True}
            model: Any = ChatOpenAI(model="a", api_key=SecretStr("x"), **spoken)
            said_before: list[Any] = [HumanMessage("One")]
            said_before.append(await model.ainvoke(said_before))
            said_before.append(HumanMessage("Two"))
            reply = await model.ainvoke(said_before)
            assert reply.text == "Hello there."
            record = await live.services.responses.get("-", reply.response_metadata["id"])
            assert record is not None
            assert record.previous == said_before[1].response_metadata["id"]
        assert [text for _, text in said(upstream.requests[1])] == ["One", "Hello there.", "Two"]


def test_workers_share_what_is_stored_and_a_killed_one_leaves_no_half(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words("Hello there."))) as upstream,
        Served(json.dumps(policy({"a": upstream}, **STORED)), tmp_path, workers=2) as served,
    ):
        base = f"http://127.0.0.1:{served.port}/v1"

        def ask(worker: int, **asked: Any) -> Any:
            with served._alone(worker), openai.OpenAI(base_url=base, api_key="x", max_retries=0) as client:
                return client.responses.create(model="a", **asked)

        first = ask(0, input="One")
        second = ask(1, input="Two", previous_response_id=first.id)
        assert said(upstream.requests[1])[0] == ("user", "One")
        upstream.source = Script.of(words("one two three four"), gate=(gate := Gate()))
        gate.release(2)
        with served._alone(0), openai.OpenAI(base_url=base, api_key="x", max_retries=0) as client:
            events = client.responses.create(model="a", input="Three", previous_response_id=second.id, stream=True)
            for event in events:
                if event.type == "response.output_text.delta":
                    break
            os.kill(served.workers()[0], signal.SIGKILL)
        gate.open()
        upstream.source = Script.of(words("Hello again."))
        with openai.OpenAI(base_url=base, api_key="x", max_retries=5) as client:
            last = client.responses.create(model="a", input="Four", previous_response_id=second.id)
        assert [text for _, text in said(upstream.requests[-1])] == [
                "One", "Hello there.", "Two", "Hello there.", "Four",
            ]  # fmt: skip
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "responses.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {id_ for (id_,) in db.execute("SELECT id FROM responses")} == {first.id, second.id, last.id}


async def test_gateways_share_what_is_stored_in_redis(tmp_path: Path) -> None:
    url = shared_server().url
    with ScriptedUpstream(Script.of(words("Hello there."))) as upstream:
        spoken = policy({"a": upstream}, **STORED)
        async with (
            Live(tmp_path, spoken, redis_url=url) as one,
            Live(tmp_path, spoken, redis_url=url, namespace=one.namespace) as other,
        ):
            answer = (await one.chat(path=ASK, input="One")).json
            streamed = await other.chat(path=ASK, input="Two", previous_response_id=answer["id"], stream=True)
            assert b"response.completed" in streamed.body
            assert said(upstream.requests[1])[0] == ("user", "One")
            item = {"type": "item_reference", "id": answer["output"][0]["id"]}
            assert (await other.chat(path=ASK, input=[item])).status == 200
            assert said(upstream.requests[2]) == [("assistant", "Hello there.")]
            assert (await other.client.get(f"{ASK}/{answer['id']}"))["id"] == answer["id"]
            async with one.client.session.delete(f"{one.url}{ASK}/{answer['id']}") as response:
                assert response.status == 200
            assert await other.client.status(f"{ASK}/{answer['id']}") == 404
    assert not (tmp_path / "data" / "responses.sqlite").exists()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_store_that_is_down_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async def down(*_: Any) -> Any:
        raise ResponsesUnavailable("down")

    with ScriptedUpstream(Script.of(words("Hello there."))) as upstream:
        async with Live(tmp_path, policy({"a": upstream}, **STORED)) as live:
            first = (await live.chat(path=ASK, input="One")).json
            for verb in ("put", "chain", "holding", "get", "delete"):
                monkeypatch.setattr(live.services.responses, verb, down)
            answer = await live.chat(path=ASK, input="One", stream=stream)
            assert answer.status == 200
            assert b"Hello there." in answer.body
            assert await live.client.metric("bursar_responses_stored_total", 'result="failed"') == 1
            item = {"type": "item_reference", "id": first["output"][0]["id"]}
            for asked in ({"previous_response_id": first["id"], "input": "Two"}, {"input": [item]}):
                answer = await live.chat(path=ASK, stream=stream, **asked)
                assert (answer.status, answer.json["error"]["code"]) == (503, "responses_unavailable")
                assert answer.headers["retry-after"] == "1"
            assert await live.client.status(f"{ASK}/{first['id']}") == 503
            assert len(upstream.requests) == 2
