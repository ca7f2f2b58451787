"""Responses that the policy has stored: `previous_response_id` and `item_reference` with providers of every dialect, by
the official SDK; who finds them, for how long, and what becomes of those that did not end well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.live import Answer, Live, policy, until
from tests.http.test_http_dialects import PATHS
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import CLOSE, Gate, Script, reasoning, text, tool, words

ITS_OWN: dict[str, Any] = {
    "id": "resp_up",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "message", "id": "msg_up", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
    ],
    "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
}
STORED: dict[str, Any] = {"stored_responses": {"ttl_secs": 3600, "max_mb": 64}}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
streamed = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
ASK = "/v1/responses"


@pytest.fixture
def upstream() -> Any:
    with ScriptedUpstream(Script.of(words("Hello there."))) as live:
        yield live


@pytest.fixture
async def near(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    """A provider of each dialect, which is a far gateway that stores nothing, in front of one scripted model."""
    for part in ("far", "near"):
        (tmp_path / part).mkdir()
    async with Live(tmp_path / "far", policy({"m": upstream})) as far:
        urls = {name: far.url + path for name, path in PATHS.items()}
        providers = {name: {"dialect": name, "base_url": url} for name, url in urls.items()}
        models = {name: {"upstream_model": "m"} for name in urls}
        async with Live(tmp_path / "near", policy(urls, providers=providers, models=models, **STORED)) as live:
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


MADE: list[openai.AsyncOpenAI] = []


def sdk(live: Live, key: str = "x") -> openai.AsyncOpenAI:
    MADE.append(openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0))
    return MADE[-1]


async def respond(client: openai.AsyncOpenAI, *, stream: bool, **asked: Any) -> Any:
    """The response, as the SDK has it at the end."""
    if not stream:
        return await client.responses.create(**asked)
    last: Any = None
    ids = set()
    async for event in await client.responses.create(**asked, stream=True):
        last = event
        if "response" in event.model_fields_set:
            ids.add(event.response.id)
    assert len(ids) == 1, "one name from the first event to the last"
    return last.response


def said(received: Received) -> list[tuple[str, Any]]:
    """Roles and texts that a model of Chat was sent, calls by their names and results by their calls'."""
    found: list[tuple[str, Any]] = []
    for message in received.body["messages"]:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content)
        if content:
            found.append((message["role"], content))
        found += [("call", call["function"]["name"]) for call in message.get("tool_calls") or ()]
    return found


@streamed
@pytest.mark.parametrize("model", PATHS)
async def test_a_response_is_gone_on_from(near: Live, upstream: ScriptedUpstream, model: str, stream: bool) -> None:
    client = sdk(near)
    first = await respond(client, stream=stream, model=model, input="One", instructions="Be brief.")
    assert first.id.startswith("resp_bursar_")
    assert (first.store, first.previous_response_id) == (True, None)
    second = await respond(client, stream=stream, model=model, input="Two", previous_response_id=first.id)
    assert (second.previous_response_id, second.output_text) == (first.id, "Hello there.")
    third = await respond(client, stream=not stream, model=model, input="Three", previous_response_id=second.id)
    assert len({first.id, second.id, third.id}) == 3
    assert said(upstream.requests[0]) == [("system", "Be brief."), ("user", "One")]
    assert said(upstream.requests[2]) == [
        ("user", "One"),
        ("assistant", "Hello there."),
        ("user", "Two"),
        ("assistant", "Hello there."),
        ("user", "Three"),
    ]
    again = await respond(client, stream=stream, model=model, input="Other", previous_response_id=first.id)
    assert said(upstream.requests[3])[-2:] == [("assistant", "Hello there."), ("user", "Other")], "a fork"
    assert again.usage.input_tokens > first.usage.input_tokens


@streamed
@pytest.mark.parametrize("model", PATHS)
async def test_a_tool_loop_sends_results_alone(
    near: Live, upstream: ScriptedUpstream, model: str, stream: bool
) -> None:
    upstream.source = [
        Script.of(text("Let me see."), tool(id="call_a", name="weather"), tool('{"city": "Bern"}')),
        Script.of(words("It rains.")),
    ]
    client = sdk(near)
    first = await respond(client, stream=stream, model=model, input="Weather?", tools=[WEATHER])
    (call,) = [item for item in first.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    asked: Any = {"model": model, "tools": [WEATHER], "input": [result], "previous_response_id": first.id}
    second = await respond(client, stream=stream, **asked)
    assert second.output_text == "It rains."
    found = said(upstream.requests[1])
    assert found == [("user", "Weather?"), ("assistant", "Let me see."), ("call", "weather"), ("tool", "rain")]


@pytest.mark.parametrize("model", PATHS)
async def test_items_are_referred_to(near: Live, upstream: ScriptedUpstream, model: str) -> None:
    upstream.source = [
        Script.of(text("Let me see."), tool(id="call_a", name="weather"), tool('{"city": "Bern"}')),
        Script.of(words("It rains.")),
    ]
    client = sdk(near)
    first = await client.responses.create(model=model, input="Weather?", tools=[WEATHER])
    message, call = first.output
    assert call.type == "function_call"
    items: Any = [
        {"role": "user", "content": "Weather?"},
        {"type": "item_reference", "id": message.id},
        {"id": call.id},  # a reference, too
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    second = await client.responses.create(model=model, input=items, tools=[WEATHER])
    expected = [("user", "Weather?"), ("assistant", "Let me see."), ("call", "weather"), ("tool", "rain")]
    assert said(upstream.requests[1]) == expected
    third = await client.responses.create(model=model, input="And now?", previous_response_id=second.id)
    assert third.previous_response_id == second.id
    assert said(upstream.requests[2]) == [*expected, ("assistant", "It rains."), ("user", "And now?")]


async def test_a_conversation_changes_its_provider(near: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(reasoning("Hm."), words("Hello there."))
    client, previous = sdk(near), None
    for model in (*PATHS, *reversed(PATHS)):
        reply = await client.responses.create(model=model, input=f"I am {model}", previous_response_id=previous)
        previous = reply.id
    told = [text for role, text in said(upstream.requests[-1]) if role == "user"]
    assert told == [f"I am {model}" for model in (*PATHS, *reversed(PATHS))]
    assert [role for role, _ in said(upstream.requests[-1])] == ["user", "assistant"] * 7 + ["user"]


async def test_what_is_stored_can_be_read_and_deleted(live: Live, upstream: ScriptedUpstream) -> None:
    client = sdk(live)
    first = await client.responses.create(model="a", input="One", metadata={"k": "v"}, max_output_tokens=50)
    second = await client.responses.create(
        model="a",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Two"}]}],
        previous_response_id=first.id,
    )
    found = await client.responses.retrieve(first.id)
    assert found.model_dump() == first.model_dump()
    assert (found.metadata, found.max_output_tokens, found.status) == ({"k": "v"}, 50, "completed")

    items = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
    dumped: Any = [item.model_dump() for item in items]
    assert [item["content"][0]["text"] for item in dumped] == ["One", "Hello there.", "Two"]
    assert [item["type"] for item in dumped] == ["message"] * 3
    assert dumped[1]["id"] == first.output[0].id
    page = await live.client.get(f"{ASK}/{second.id}/input_items?limit=2")
    assert [item["content"][0]["text"] for item in page["data"]] == ["Two", "Hello there."]
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][1]["id"])
    rest = await live.client.get(f"{ASK}/{second.id}/input_items?limit=2&after={page['last_id']}")
    assert (len(rest["data"]), rest["has_more"]) == (1, False)
    for wrong in ("limit=0", "limit=101", "order=up", "after=nothing"):
        assert await live.client.status(f"{ASK}/{second.id}/input_items?{wrong}") == 400
    assert await live.client.status(f"{ASK}/{second.id}?stream=true") == 400

    await client.responses.delete(first.id)
    for gone in (client.responses.retrieve(first.id), client.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError) as raised:
            await gone
        assert (raised.value.type, raised.value.param) == ("invalid_request_error", None)
    assert (await client.responses.retrieve(second.id)).id == second.id
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="a", input="Three", previous_response_id=second.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    assert len(upstream.requests) == 2


async def test_deleting_answers_as_openai_does(live: Live) -> None:
    first = await sdk(live).responses.create(model="a", input="One")
    async with live.client.session.delete(f"{live.url}{ASK}/{first.id}") as response:
        assert (response.status, await response.json()) == (
            200,
            {"id": first.id, "object": "response", "deleted": True},
        )
    async with live.client.session.post(f"{live.url}{ASK}/{first.id}") as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, DELETE, OPTIONS")


@streamed
async def test_store_false_is_heeded_and_may_go_on_from_what_is_stored(
    live: Live, upstream: ScriptedUpstream, stream: bool
) -> None:
    client = sdk(live)
    first = await respond(client, stream=stream, model="a", input="One")
    second = await respond(client, stream=stream, model="a", input="Two", previous_response_id=first.id, store=False)
    assert (second.store, second.previous_response_id) == (False, first.id)
    assert not second.id.startswith("resp_bursar_")
    assert said(upstream.requests[1])[0] == ("user", "One")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(second.id)
    assert rows(live) == [first.id]


def rows(live: Live) -> list[str]:
    """The ids of all that is in the file."""
    with contextlib.closing(sqlite3.connect(live.folder / "data" / "responses.sqlite")) as db:
        return [id_ for (id_,) in db.execute("SELECT id FROM responses ORDER BY rowid")]


async def test_without_the_policys_word_nothing_is_stored(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live:
        client = sdk(live)
        first = await client.responses.create(model="a", input="One")
        assert ((first.model_extra or {})["store"], first.id.startswith("resp_bursar_")) == (False, False)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="a", input="Two", previous_response_id=first.id)
        assert refused.value.param == "previous_response_id"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
    assert not (tmp_path / "data" / "responses.sqlite").exists()


async def test_another_keys_response_is_none(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    names = ("alice", "bob")
    keys: list[dict[str, Any]] = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "team": "t"} for name in names
    ]
    keys.append({"name": "root", "sha256": hashlib.sha256(b"root").hexdigest(), "admin": True})
    async with Live(tmp_path, policy({"a": upstream}, keys=keys, teams={"t": {}}, **STORED)) as live:
        first = await sdk(live, "alice").responses.create(model="a", input="One")
        for other in ("bob", "root"):
            client = sdk(live, other)
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(first.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.input_items.list(first.id)
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model="a", input="Two", previous_response_id=first.id)
            assert refused.value.code == "previous_response_not_found"
            item: Any = {"type": "item_reference", "id": first.output[0].id}
            with pytest.raises(openai.NotFoundError) as lost:
                await client.responses.create(model="a", input=[item])
            assert lost.value.param == "input"
        with pytest.raises(openai.AuthenticationError):
            await sdk(live, "nobody").responses.retrieve(first.id)
        assert (await sdk(live, "alice").responses.retrieve(first.id)).id == first.id
        assert len(upstream.requests) == 1


async def test_an_incomplete_response_is_stored_and_says_why(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two three four"))
    client = sdk(live)
    first = await client.responses.create(model="a", input="One", max_output_tokens=2)
    found = await client.responses.retrieve(first.id)
    assert (found.status, found.incomplete_details and found.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    await client.responses.create(model="a", input="Go on", previous_response_id=first.id)
    assert [role for role, _ in said(upstream.requests[1])] == ["user", "assistant", "user"]


@streamed
async def test_what_is_cut_or_breaks_or_is_refused_is_not_stored(
    live: Live, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.source = Script.of(words("w " * 500), obeys_limit=False, delay_s=0.001)
    answer = await live.chat(path=ASK, input="One", stream=stream, max_cost_usd=0.0001)
    assert b"out of budget" in answer.body
    for source in (Script.of(words("one two three"), CLOSE), Script.failure(400)):
        upstream.source = source
        answer = await live.chat(path=ASK, input="One", stream=stream)
        assert answer.status >= 400 or b"response.failed" in answer.body
    assert not (live.folder / "data" / "responses.sqlite").exists() or rows(live) == []


async def test_a_soft_cut_is_stored_as_the_answer_that_it_is(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("w " * 500), obeys_limit=False, delay_s=0.001)
    headers = {"x-bursar-on-cut": "length"}
    answer = await live.chat(path=ASK, input="One", stream=True, max_cost_usd=0.0001, headers=headers)
    last = answer_events(answer)[-1]
    assert last["type"] == "response.incomplete"
    found = await sdk(live).responses.retrieve(last["response"]["id"])
    assert found.status == "incomplete"


def answer_events(answer: Answer) -> list[dict[str, Any]]:
    """The events of a stream that names them."""
    return [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]


async def test_a_client_that_leaves_has_nothing_stored(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two three four five"), gate=(gate := Gate()))
    gate.release(2)
    async with live.client.open(path=ASK, input="One", stream=True) as response:
        await response.content.readany()
    gate.open()
    await live.idle()
    assert not (live.folder / "data" / "responses.sqlite").exists() or rows(live) == []


async def test_what_a_repeated_request_gets_again_is_stored_once(live: Live, upstream: ScriptedUpstream) -> None:
    headers = {"Idempotency-Key": "k"}
    client = sdk(live)
    first = await client.responses.create(model="a", input="One", extra_headers=headers)
    again = await client.responses.create(model="a", input="One", extra_headers=headers)
    assert (again.id, len(upstream.requests)) == (first.id, 1)
    assert rows(live) == [first.id]
    assert await live.client.metric("bursar_responses_stored_total", 'result="stored"') == 1


async def test_the_whole_conversation_is_what_is_decided_and_capped(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    dear = {"pricing": {"input_per_1k": 0.01, "output_per_1k": 0.02}}
    models = {"a": {"context_tokens": 8_000}, "b": dear}
    two = policy({"a": upstream, "b": upstream}, models=models, **STORED)
    two["routes"]["auto"]["candidates"] = ["a", "b"]
    async with Live(tmp_path, two) as live:
        client = sdk(live)
        long = await client.responses.create(model="b", input="word " * 20_000)
        asked: Any = {"model": "auto", "input": "x"}
        for previous, model in ((None, "a"), (long.id, "b")):
            raw = await client.responses.with_raw_response.create(**asked, previous_response_id=previous)
            assert raw.headers["x-bursar-model"] == model, "it does not fit into the small one's window"
        asked["extra_body"] = {"max_cost_usd": 0.001}
        await client.responses.create(**asked)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(**asked, previous_response_id=long.id)
        assert refused.value.code == "budget_exceeded"
        assert len(upstream.requests) == 4


async def test_a_tool_loop_keeps_its_model(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Though its steps send results alone."""
    call = Script.of(tool(id="call_x", name="weather"), tool('{"city": "Bern"}'))
    upstream.source = [Script(status=500), Script(status=500), Script.of(words("From the other."))]
    with ScriptedUpstream([call, Script.of(words("It rains."))]) as other:
        async with Live(tmp_path, policy({"a": upstream, "b": other}, **STORED)) as live:
            client = sdk(live)
            first = await client.responses.with_raw_response.create(
                model="auto", input="Weather?", tools=[WEATHER], instructions="Be brief."
            )
            assert first.headers["x-bursar-model"] == "b"
            result: Any = {"type": "function_call_output", "call_id": "call_x", "output": "rain"}
            asked: Any = {"model": "auto", "input": [result], "previous_response_id": first.parse().id}
            second = await client.responses.with_raw_response.create(tools=[WEATHER], **asked)
            assert second.headers["x-bursar-model"] == "b"
            assert said(other.requests[1]) == [("user", "Weather?"), ("call", "weather"), ("tool", "rain")]


async def test_a_conversation_that_has_grown_too_large_is_told_as_such(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    settings = {"max_body_bytes": 16_000}
    async with Live(tmp_path, policy({"a": upstream}, **STORED), settings=settings) as live:
        client, previous = sdk(live), None
        for _ in range(2):
            reply = await client.responses.create(model="a", input="x" * 8_000, previous_response_id=previous)
            previous = reply.id
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="a", input="x", previous_response_id=previous)
        assert refused.value.code == "context_length_exceeded"
        assert len(upstream.requests) == 2


HOSTILE: list[Any] = [
    "",
    "resp_bursar_",
    "resp_bursar_" + "0" * 100_000,
    "resp_bursar_%00\x00'; DROP TABLE responses; --",
    "resp_bursar_../../x",
    "resp_bursar_\ud800",
    "resp_bursar_é😀",
    "msg_bursar_x",
    5,
    [],
    {},
    True,
]


@pytest.mark.parametrize("id_", HOSTILE, ids=repr)
async def test_ids_that_are_none(live: Live, upstream: ScriptedUpstream, id_: Any) -> None:
    first = await sdk(live).responses.create(model="a", input="One")
    for asked in ({"previous_response_id": id_, "input": "x"}, {"input": [{"type": "item_reference", "id": id_}]}):
        answer = await live.chat(path=ASK, **asked)
        assert answer.status in (400, 404), answer.body
        assert answer.json["error"]["type"] == "invalid_request_error"
    assert len(upstream.requests) == 1
    assert (await sdk(live).responses.retrieve(first.id)).id == first.id


async def test_an_item_is_said_once(live: Live, upstream: ScriptedUpstream) -> None:
    client = sdk(live)
    first = await client.responses.create(model="a", input="One")
    named: Any = {"type": "item_reference", "id": first.output[0].id}
    await client.responses.create(model="a", input=[named, named, {"role": "user", "content": "Two"}])
    assert said(upstream.requests[1]) == [("assistant", "Hello there."), ("user", "Two")]
    await client.responses.create(model="a", input=[named, named], previous_response_id=first.id)
    assert said(upstream.requests[2]) == [("user", "One"), ("assistant", "Hello there.")]


def reasoned(number: int, **changed: Any) -> Script:
    """What a provider of Responses answers whose model has thought."""
    thought = {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": f"sealed {number}"}
    answer = {**ITS_OWN, "id": f"resp_{number}", "output": [thought, *ITS_OWN["output"]], **changed}
    return Script.replay(json.dumps(answer).encode(), "application/json")


async def test_a_provider_of_responses_stores_nothing_and_gets_its_thoughts_back(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gone = {"message": "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."}
    refusal = Script.replay(json.dumps({"error": gone}).encode(), "application/json", status=404)
    spoken = policy({"a": upstream}, providers={"a": {"dialect": "openai_responses"}}, **STORED)
    spoken["models"]["a"]["upstream_model"] = "gpt-5"
    async with Live(tmp_path, spoken) as live:
        client = sdk(live)
        upstream.source = [reasoned(1), reasoned(2), refusal, reasoned(3)]
        first = await client.responses.create(model="a", input="One")
        second = await client.responses.create(model="a", input="Two", previous_response_id=first.id)
        sent = upstream.requests[1].body
        assert (sent["store"], sent["include"]) == (False, ["reasoning.encrypted_content"])
        assert "previous_response_id" not in sent
        assert [item.get("encrypted_content") for item in sent["input"]] == [None, "sealed 1", None, None]
        named: Any = {"type": "item_reference", "id": "rs_2"}
        third = await client.responses.create(model="a", input=[named], previous_response_id=first.id)
        assert upstream.requests[2].body["input"][-1]["encrypted_content"] == "sealed 2"
        assert not [item for item in upstream.requests[3].body["input"] if item["type"] == "reasoning"]
        assert [reply.id[:12] for reply in (first, second, third)] == ["resp_bursar_"] * 3


async def test_wrong_input_is_told_by_its_own_place(live: Live) -> None:
    first = await sdk(live).responses.create(model="a", input="One")
    wrong: Any = [{"role": "user", "content": 5}]
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk(live).responses.create(model="a", input=wrong, previous_response_id=first.id)
    assert (refused.value.param or "").startswith("input[0]")


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"previous_response_id": "resp_0123", "input": "Two"},
        {"input": [{"type": "item_reference", "id": "msg_0123"}]},
        {"conversation": "conv_1", "input": "Two"},
        {"prompt": {"id": "pmpt_1"}, "input": "Two"},
    ],
    ids=["previous", "item", "conversation", "prompt"],
)
async def test_what_is_at_openai_stays_there(upstream: ScriptedUpstream, tmp_path: Path, elsewhere: Any) -> None:
    """A provider of Responses gets it as it came, and the answer keeps its name; others cannot follow it."""
    spoken = policy({"a": upstream, "b": upstream}, providers={"a": {"dialect": "openai_responses"}}, **STORED)
    async with Live(tmp_path, spoken) as live:
        upstream.source = Script.replay(json.dumps(ITS_OWN).encode(), "application/json")
        answer = await live.chat(path=ASK, model="a", store=True, **elsewhere)
        (received,) = upstream.requests
        assert {name: received.body[name] for name in elsewhere} == elsewhere
        assert received.body["store"] is True
        assert answer.json["id"] == "resp_up"
        refused = await live.chat(path=ASK, model="b", **elsewhere)
        assert refused.status == 400
        assert len(upstream.requests) == 1


async def test_a_policy_may_begin_to_store_and_cease(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    plain = policy({"a": upstream})
    async with Live(tmp_path, {**plain, **STORED}) as live:
        client = sdk(live)
        first = await client.responses.create(model="a", input="One")
        live.gateway.settings.policy.write_text(json.dumps(plain))
        await until(lambda: live.services.view.policy.stored_responses is None)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        second = await client.responses.create(model="a", input="Two")
        assert (second.model_extra or {})["store"] is False
        assert rows(live) == [first.id]
