"""How often a provider may use its own tools is limited to what the cap pays for, where its dialect has a word for
that; where it has none, the most uses are set aside before the call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.core.meter import RESULT_TOKENS
from app.gateway.fees import UNSEEN_USES
from app.gateway.uses import OPEN_USES
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Answer, Live, policy, read
from tests.http.test_http_searches import (
    ANTHROPIC_TOOL,
    CASES,
    HI,
    SEARCH_NANO,
    TOKENS_NANO,
    grounded,
    searching,
    serving,
    spec_of,
)
from tests.readers import done_reading
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Script

USE_NANO = SEARCH_NANO + RESULT_TOKENS["web_search"] * INPUT_NANO
ROOM_NANO = 400_000
"""For the question and an answer of 50 tokens."""
FEES = {"web_search": 0.01}
RESPONSES_TOOL = {"type": "web_search"}


def sse(events: list[dict[str, Any]]) -> Script:
    wire = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
    return Script(body=wire, headers={"content-type": "text/event-stream"})


def obeying(wants: int) -> Callable[[Received], Script]:
    """A provider of Messages that would search so often, and keeps the limit that it is sent."""

    def answer(request: Received) -> Script:
        return sse(searching(min(wants, request.body["tools"][0].get("max_uses", wants))))

    return answer


async def ask(live: Live, path: str, body: dict[str, Any], task: str = "t") -> Answer:
    headers = {"x-bursar-task-id": task}
    async with live.client.session.post(live.url + path, json={"model": "m", **body}, headers=headers) as response:
        return await read(response)


async def spent(live: Live, task: str = "t") -> int:
    spent_usd: float = (await live.task(task))["spent_usd"]
    return round(spent_usd * 10**9)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("own", "sent", "ran"), [(None, 2, 2), (1, 1, 1), (2, 2, 2), (30, 2, 2)], ids=["none", "lower", "same", "higher"]
)
async def test_messages(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool, own: int | None, sent: int, ran: int
) -> None:
    upstream.source = obeying(5)
    cap_nano = ROOM_NANO + 2 * USE_NANO
    spec = spec_of(upstream, "anthropic", FEES, caps={"task": {"max_cost_usd": cap_nano / 10**9}})
    tool = {**ANTHROPIC_TOOL, **({} if own is None else {"max_uses": own})}
    async with Live(tmp_path, spec) as live:
        body = {"messages": HI, "max_tokens": 50, "tools": [tool], "stream": stream}
        answer = await ask(live, "/v1/messages", body)
        assert answer.status == 200, answer.body
        assert (b"message_stop" in answer.body) == stream
        assert upstream.requests[-1].body["tools"] == [{**ANTHROPIC_TOOL, "max_uses": sent}]
        assert upstream.requests[-1].body["max_tokens"] == 50
        assert await spent(live) == TOKENS_NANO + ran * SEARCH_NANO <= cap_nano
        (attempt,) = await live.attempts(answer)
        assert attempt.get("clamp_uses") == (2 if own in (None, 30) else None)
        record = await live.client.decision(answer.request_id)
        assert record["outcome"] == "completed"


async def test_an_answer_with_fewer_uses_than_were_asked_for_is_not_in_the_cache(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.source = obeying(5)
    caps = {"task": {"max_cost_usd": (ROOM_NANO + 2 * USE_NANO) / 10**9}}
    spec = spec_of(upstream, "anthropic", FEES, caps=caps, cache={"ttl_secs": 600})
    async with Live(tmp_path, spec) as live:
        body = {"messages": HI, "max_tokens": 50, "tools": [ANTHROPIC_TOOL]}
        for task in ("t", "u", "v", "w"):
            answer = await ask(live, "/v1/messages", body, task)
            assert (answer.status, "x-bursar-cache" in answer.headers) == (200, False)
            await live.idle()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("dialect", ["anthropic", "openai_responses"])
async def test_a_cap_that_pays_for_no_use_denies_the_call(
    upstream: ScriptedUpstream, tmp_path: Path, dialect: str, stream: bool
) -> None:
    before = len(upstream.requests)
    spec = spec_of(upstream, dialect, FEES, caps={"task": {"max_cost_usd": USE_NANO / 10**9}})
    async with Live(tmp_path, spec) as live:
        asked: tuple[str, dict[str, Any]] = (
            ("/v1/messages", {"messages": HI, "max_tokens": 50, "tools": [ANTHROPIC_TOOL]})
            if dialect == "anthropic"
            else ("/v1/responses", {"input": "hi", "tools": [RESPONSES_TOOL]})
        )
        path, body = asked
        answer = await ask(live, path, {**body, "stream": stream})
        assert answer.status == (402 if dialect == "anthropic" else 400)  # what its clients do not send again
        assert b"budget_exceeded" in answer.body or b"billing_error" in answer.body
        assert (await live.client.decision(answer.request_id))["outcome"] == "denied"
        assert len(upstream.requests) == before
        # Without the tool the same cap pays for an answer.
        upstream.source = sse(searching(0)) if dialect == "anthropic" else completed()
        assert (await ask(live, path, {**body, "stream": True, "tools": []})).status == 200
        assert "max_tool_calls" not in upstream.requests[-1].body


async def test_far_from_the_cap_not_a_byte_is_touched(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Prompt caches begin with the tools."""
    upstream.source = obeying(2)
    spec = spec_of(upstream, "anthropic", FEES, caps={"task": {"max_cost_usd": 5}})
    async with Live(tmp_path, spec) as live:
        answer = await ask(live, "/v1/messages", {"messages": HI, "max_tokens": 50, "tools": [ANTHROPIC_TOOL]})
        assert answer.status == 200
        assert upstream.requests[-1].body["tools"] == [ANTHROPIC_TOOL]
        (attempt,) = await live.attempts(answer)
        assert "clamp_uses" not in attempt


def completed(searches: int = 0) -> Script:
    """A Responses stream of so many searches and a word."""
    items = [
        {"type": "web_search_call", "id": f"ws_{place}", "status": "completed", "action": {"type": "search"}}
        for place in range(searches)
    ]
    said = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "x", "annotations": []}]}  # fmt: skip
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    begun = {**response, "status": "in_progress", "output": []}
    done = {**response, "status": "completed", "output": [*items, said], "usage": usage}
    return sse(
        [
            {"type": "response.created", "response": begun},
            *({"type": "response.output_item.done", "output_index": n, "item": item} for n, item in enumerate(items)),
            {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": searches, "content_index": 0,
             "delta": "x"},
            {"type": "response.completed", "response": done},
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hidden", "uses", "own", "sent"),
    [
        (False, 3, None, 3),
        (False, 3, 2, 2),
        (False, 3, 9, 3),
        (True, 3, None, 3),
        (True, 100, None, OPEN_USES),  # what thinks unseen holds its worst case, so there must be one
        (True, 100, 40, 40),
        (False, 100, None, None),
    ],
)
async def test_responses(
    upstream: ScriptedUpstream, tmp_path: Path, hidden: bool, uses: int, own: int | None, sent: int | None
) -> None:
    upstream.source = lambda request: completed(min(50, request.body.get("max_tool_calls", 5)))
    cap_nano = ROOM_NANO + uses * USE_NANO
    spec = spec_of(upstream, "openai_responses", FEES, caps={"task": {"max_cost_usd": cap_nano / 10**9}})
    spec["models"]["m"]["hidden_reasoning"] = hidden
    async with Live(tmp_path, spec) as live:
        limit = {} if own is None else {"max_tool_calls": own}
        body = {"input": "hi", "max_output_tokens": 50, "tools": [RESPONSES_TOOL], "stream": True, **limit}
        answer = await ask(live, "/v1/responses", body)
        assert b"response.completed" in answer.body
        assert upstream.requests[-1].body.get("max_tool_calls") == sent
        assert await spent(live) == TOKENS_NANO + (sent or 5) * SEARCH_NANO <= cap_nano
        (attempt,) = await live.attempts(answer)
        assert attempt["budget"]["held_usd"] <= cap_nano / 10**9
        if hidden:
            assert attempt["budget"]["held_usd"] * 10**9 >= (sent or 0) * USE_NANO


async def test_a_client_that_leaves_an_unseen_thinker_pays_for_one_search_more_than_was_seen(
    tmp_path: Path,
) -> None:
    """And for the longest answer, which nobody saw; not for all the searches that were set aside with it."""
    whole = completed(2).body
    assert whole is not None
    begun = whole.partition(b"event: response.completed")[0]

    async def begin(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(begun)
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_post("/v1/responses", begin)
    async with serving(app) as url:
        pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tool_fees": FEES}
        model: dict[str, Any] = {"pricing": pricing, "hidden_reasoning": True}
        at = {"m": {"dialect": "openai_responses"}}
        capped = {"caps": {"task": {"max_cost_usd": 2}}}
        async with Live(tmp_path, policy({"m": f"{url}/v1"}, models={"m": model}, providers=at, **capped)) as live:
            body = {"model": "m", "input": "hi", "max_output_tokens": 50, "tools": [RESPONSES_TOOL], "stream": True}
            headers = {"x-bursar-task-id": "t"}
            async with live.client.session.post(f"{live.url}/v1/responses", json=body, headers=headers) as response:
                await response.content.readuntil(b"ws_1")
                assert (await live.balance("task:t")).held_nano >= OPEN_USES * USE_NANO
            await live.idle()
            left = await live.balance("task:t")
            assert 3 * USE_NANO + 50 * OUTPUT_NANO <= left.spent_nano <= 3 * USE_NANO + ROOM_NANO
            assert left.held_nano == 0


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("declared", [None, 3])
async def test_gemini_from_3_on_holds_the_most_searches(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool, declared: int | None
) -> None:
    reply = grounded("gemini-3.1-none")
    reply["candidates"][0]["groundingMetadata"]["webSearchQueries"] += ["", "a", "c"]  # empty and equal ones are free
    data = json.dumps(reply).encode()
    kind = "text/event-stream" if stream else "application/json"
    upstream.source = Script(body=b"data: %b\n\n" % data if stream else data, headers={"content-type": kind})
    path = CASES["gemini"][2].replace(":generate", ":streamGenerate" if stream else ":generate")
    spec = spec_of(upstream, "gemini", FEES)
    most = UNSEEN_USES if declared is None else declared
    if declared is not None:
        spec["models"]["m"]["pricing"]["tool_uses"] = {"web_search": declared}
    before, sse_too = len(upstream.requests), {"alt": "sse"} if stream else {}
    body: dict[str, Any] = {**CASES["gemini"][3], "generationConfig": {"maxOutputTokens": 50}}
    async with Live(tmp_path, spec) as live:
        for short_nano, status in ((1, 402), (-ROOM_NANO, 200)):
            usd = (most * SEARCH_NANO - short_nano) / 10**9
            headers = {"x-bursar-task-id": f"t{status}", "x-bursar-task-max-cost-usd": str(usd)}
            posted = live.client.session.post(live.url + path, params=sse_too, json=body, headers=headers)
            async with posted as response:
                answer = await read(response)
            assert answer.status == status, answer.body
        assert len(upstream.requests) == before + 1
        assert await spent(live, "t200") == TOKENS_NANO + 3 * SEARCH_NANO


async def test_more_searches_than_were_set_aside_are_charged_and_end_the_task(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """The stated bound: settled <= cap + (searches - set aside) x fee, and the next call is denied."""
    data = json.dumps(grounded("gemini-3.1-none")).encode()
    upstream.source = Script(body=data, headers={"content-type": "application/json"})
    cap_nano = SEARCH_NANO + ROOM_NANO
    spec = spec_of(upstream, "gemini", FEES, caps={"task": {"max_cost_usd": cap_nano / 10**9}})
    spec["models"]["m"]["pricing"]["tool_uses"] = {"web_search": 1}
    async with Live(tmp_path, spec) as live:
        body: dict[str, Any] = {**CASES["gemini"][3], "generationConfig": {"maxOutputTokens": 50}}
        assert (await ask(live, CASES["gemini"][2], body)).status == 200
        assert cap_nano < await spent(live) == TOKENS_NANO + 2 * SEARCH_NANO <= cap_nano + SEARCH_NANO
        before = len(upstream.requests)
        assert (await ask(live, CASES["gemini"][2], CASES["gemini"][3])).status == 402
        assert len(upstream.requests) == before


async def test_of_calls_at_once_each_passes_their_cap_by_one_use_at_most(tmp_path: Path) -> None:
    """Each is allowed what the others are, too; what is left goes to whoever searches first."""
    count, cap_nano = 4, ROOM_NANO + 6 * USE_NANO
    ran: list[int] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        """As many searches as are allowed, the next when the gateway has seen the one before."""
        allowed = (await request.json())["tools"][0].get("max_uses", 20)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        place = len(ran)
        ran.append(0)
        for event in searching(allowed):
            ran[place] += event.get("content_block", {}).get("type") == "server_tool_use"
            await response.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()))
            await done_reading()
        return response

    app = web.Application()
    app.router.add_post("/v1/messages", answer)
    async with serving(app) as url:
        pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tool_fees": FEES}
        capped = {"caps": {"task": {"max_cost_usd": cap_nano / 10**9}}}
        spec = policy(
            {"m": f"{url}/v1"}, models={"m": {"pricing": pricing}}, providers={"m": {"dialect": "anthropic"}}, **capped
        )
        async with Live(tmp_path, spec) as live:
            body = {"messages": HI, "max_tokens": 50, "tools": [ANTHROPIC_TOOL], "stream": True}
            await asyncio.gather(*(ask(live, "/v1/messages", body) for _ in range(count)))
            assert sum(ran) > 0
            assert await spent(live) <= cap_nano + count * USE_NANO
            assert sum(ran) * SEARCH_NANO <= await spent(live) + count * SEARCH_NANO


def chunk(queries: list[str] | None, **usage: int) -> bytes:
    """A piece of an answer of Gemini's, with the searches and the usage so far."""
    candidate: dict[str, Any] = {"content": {"parts": [{"text": "Found."}], "role": "model"}, "index": 0}
    if queries is not None:
        candidate["groundingMetadata"] = {"webSearchQueries": queries}
    counts = {f"{name}TokenCount": count for name, count in usage.items()}
    said = {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "gemini-3.1-none", "responseId": "r"}
    return b"data: %b\n\n" % json.dumps(said).encode()


@pytest.mark.parametrize("left", [True, False], ids=["left", "broken"])
@pytest.mark.parametrize(
    ("queries", "uses"),
    [(None, UNSEEN_USES), ([], UNSEEN_USES), (["a"], 2), (["a", "b", "", "a"], 3), ([*"abcdefghijkl"], 13)],
)
async def test_a_stream_of_gemini_that_does_not_end_pays_for_the_searches_it_has_told_and_one_more(
    tmp_path: Path, queries: list[str] | None, uses: int, left: bool
) -> None:
    """While none is told, for all that were set aside: usage on every chunk says nothing of what is to come."""
    seen = chunk(queries, prompt=100, candidates=20, total=120)

    async def begin(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(seen)
        if left:
            await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_post("/v1beta/models/m:streamGenerateContent", begin)
    async with serving(app) as url:
        pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tool_fees": FEES}
        spec = policy(
            {"m": f"{url}/v1beta"}, models={"m": {"pricing": pricing}}, providers={"m": {"dialect": "gemini"}}
        )
        async with Live(tmp_path, {**spec, "caps": {"task": {"max_cost_usd": 2}}}) as live:
            path, body = f"{live.url}/v1beta/models/m:streamGenerateContent?alt=sse", CASES["gemini"][3]
            headers = {"x-bursar-task-id": "t"}
            async with live.client.session.post(path, json=body, headers=headers) as response:
                await response.content.readuntil(b"\n\n") if left else await response.read()
            await live.idle()
            balance = await live.balance("task:t")
            assert (balance.spent_nano, balance.held_nano) == (TOKENS_NANO + uses * SEARCH_NANO, 0)
