"""A provider's own tools are billed beside tokens: read in each dialect, priced by policy or catalogue, refused under a
cap where nobody knows their fee, and metered as they run."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.core.meter import RESULT_TOKENS
from app.gateway.plan import Mode
from tests.dialects.test_errors import RETRIED
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, read, until
from tests.readers import done_reading
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SEARCH_NANO = 10_000_000
TOKENS_NANO = 100 * INPUT_NANO + 20 * OUTPUT_NANO
MESSAGES = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Found."}],
    "usage": {"input_tokens": 100, "output_tokens": 20, "server_tool_use": {"web_search_requests": 2}},
}  # fmt: skip
RESPONSES = {
    "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
    "output": [
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "a"}},
        {"id": "ws_2", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "b"}},
        {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "Found.", "annotations": []}]},
    ],
    "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
}  # fmt: skip
# What OpenAI's search models answer: usage says nothing of the search that each of their answers makes.
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": "Found.", "annotations": [
            {"type": "url_citation", "url_citation": {"url": "http://e.g", "title": "e"}}
        ],
    }}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
}  # fmt: skip
COUNTED = {**CHAT, "usage": {**CHAT["usage"], "server_tool_use": {"web_search_requests": 3}}}


def grounded(model: str) -> dict[str, Any]:
    found = {"webSearchQueries": ["a", "b"], "searchEntryPoint": {"renderedContent": "<p>"}}
    content = {"parts": [{"text": "Found."}], "role": "model"}
    return {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0, "groundingMetadata": found}],
        "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120},
        "modelVersion": model, "responseId": "r",
    }  # fmt: skip


HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
ANTHROPIC_TOOL = {"type": "web_search_20250305", "name": "web_search"}
CASES: dict[str, tuple[dict[str, Any], int, str, dict[str, Any]]] = {
    "anthropic": (MESSAGES, 2, "/v1/messages", {"messages": HI, "max_tokens": 50, "tools": [ANTHROPIC_TOOL]}),
    "openai_responses": (RESPONSES, 2, "/v1/responses", {"input": "hi", "tools": [{"type": "web_search"}]}),
    "gemini": (
        grounded("gemini-3.1-pro"), 2, "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"text": "hi"}]}], "tools": [{"googleSearch": {}}]},
    ),
    "gemini-2.5": (
        grounded("gemini-2.5-pro"), 1, "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"text": "hi"}]}], "tools": [{"google_search": {}}]},
    ),
    "openai_chat": (CHAT, 1, "/v1/chat/completions", {"messages": HI, "web_search_options": {}}),
    "openai_chat-counted": (COUNTED, 3, "/v1/chat/completions", {"messages": HI, "web_search_options": {}}),
}  # fmt: skip
REFUSALS = {"anthropic": 402, "openai_responses": 400, "gemini": 400, "openai_chat": 400}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("declared", [True, False], ids=["priced", "unpriced"])
async def test_searches_are_charged(upstream: ScriptedUpstream, tmp_path: Path, case: str, declared: bool) -> None:
    reply, searches, path, body = CASES[case]
    upstream.source = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    async with Live(tmp_path, spec_of(upstream, case, {"web_search": 0.01} if declared else None)) as live:
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + path, json={"model": "m", **body}, headers=headers) as response:
            answer = await read(response)
        assert answer.status == 200, answer.body
        spent = round((await live.task("t"))["spent_usd"] * 10**9)
        assert spent == TOKENS_NANO + (searches * SEARCH_NANO if declared else 0)
        (attempt,) = await live.attempts(answer)
        assert attempt["provenance"] == ("metered" if declared else "estimated")
        if not declared:
            record = await live.client.decision(answer.request_id)
            assert record["attempts"][0]["unpriced_tools"] == ["web_search"]


def spec_of(upstream: ScriptedUpstream, case: str, fees: dict[str, float] | None = None, **more: Any) -> dict[str, Any]:
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tool_fees": fees or {}}
    provider = {"m": {"dialect": case.partition("-")[0]}}
    model = {"pricing": pricing, **({"upstream_model": "gemini-2.5-none"} if case == "gemini-2.5" else {})}
    return policy({"m": upstream}, models={"m": model}, providers=provider, **more)


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_tool_without_a_fee_is_refused_under_a_cap(
    upstream: ScriptedUpstream, tmp_path: Path, case: str, stream: bool
) -> None:
    reply, _, path, body = CASES[case]
    upstream.source = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    asked = {"model": "m", **body, **({"stream": True} if stream and case != "gemini" else {})}
    if stream and case == "gemini":
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    capped: dict[str, Any] = {"caps": {"task": {"max_cost_usd": 1}}}
    async with Live(tmp_path, spec_of(upstream, case, **capped)) as live:
        before = len(upstream.requests)
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + path, json=asked, headers=headers) as response:
            answer = await read(response)
        assert (answer.status, answer.headers["x-should-retry"]) == (REFUSALS[case], "false")
        message = json.loads(answer.body)["error"]["message"]
        assert "web_search" in message
        assert "pricing.tool_fees.web_search" in message
        assert not RETRIED.search(message)
        assert len(upstream.requests) == before
    zero = {"web_search": 0.0}  # the policy says that it costs nothing, and then it does
    async with Live(tmp_path, spec_of(upstream, case, zero, **capped)) as live:
        async with live.client.session.post(live.url + CASES[case][2], json={"model": "m", **body}) as response:
            answer = await read(response)
        assert answer.status == 200, answer.body


async def test_a_tool_without_a_fee_is_refused_under_a_cap_that_only_the_ledger_knows(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """As `bursar run --cap` sets it."""
    before = len(upstream.requests)
    async with Live(tmp_path, spec_of(upstream, "anthropic")) as live:
        async with live.client.session.patch(live.url + "/v1/tasks/t", json={"max_cost_usd": 1}) as amended:
            assert amended.status == 200
        asked = {"model": "m", "messages": HI, "max_tokens": 50, "stream": True, "tools": [ANTHROPIC_TOOL]}
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + "/v1/messages", json=asked, headers=headers) as response:
            answer = await read(response)
        assert answer.status == 402
        assert b"pricing.tool_fees.web_search" in answer.body
        assert len(upstream.requests) == before


async def test_a_search_that_is_certain_is_set_aside_before_the_call(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.source = Script.of(words("Found."), input_tokens=10)
    fees, before = {"web_search": 0.01}, len(upstream.requests)
    async with Live(tmp_path, spec_of(upstream, "openai_chat", fees)) as live:
        poor = await live.chat(model="m", max_cost_usd=0.0099, web_search_options={})
        assert (poor.status, poor.error_code) == (402, "budget_exceeded")
        assert len(upstream.requests) == before
        shown = {"stream_options": {"include_usage": True}}
        paid = await live.chat(model="m", stream=True, max_cost_usd=0.02, web_search_options={}, task="t", **shown)
        assert paid.done
        assert paid.usage is not None
        assert "estimated" not in paid.usage
        assert paid.usage["cost"] > 0.01
        (attempt,) = await live.attempts(paid)
        assert round(attempt["cost_usd"] * 10**9) == SEARCH_NANO + 10 * INPUT_NANO + len(words("Found.")) * OUTPUT_NANO
        record = await live.client.decision(paid.request_id)
        assert record["usage"]["web_search_uses"] == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_search_that_would_show_at_the_end_is_set_aside_before_the_call(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool
) -> None:
    """Gemini before 3 bills one search at most: with that set aside, no cap is passed."""
    reply, _, path, body = CASES["gemini-2.5"]
    data = json.dumps(reply).encode()
    kind = "text/event-stream" if stream else "application/json"
    upstream.source = Script(body=b"data: %b\n\n" % data if stream else data, headers={"content-type": kind})
    if stream:
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    before = len(upstream.requests)
    async with Live(tmp_path, spec_of(upstream, "gemini-2.5", {"web_search": 0.01})) as live:
        for usd, status in (("0.0099", 402), ("0.0103", 200)):
            headers = {"x-bursar-task-id": f"t{usd}", "x-bursar-task-max-cost-usd": usd}
            async with live.client.session.post(live.url + path, json=body, headers=headers) as response:
                answer = await read(response)
            assert answer.status == status, answer.body
        assert len(upstream.requests) == before + 1
        sent = upstream.requests[-1].body["generationConfig"]["maxOutputTokens"]
        assert sent * OUTPUT_NANO <= 10_300_000 - SEARCH_NANO
        spent = round((await live.task("t0.0103"))["spent_usd"] * 10**9)
        assert spent == TOKENS_NANO + SEARCH_NANO


@pytest.mark.parametrize("free", [False, True], ids=["priced", "free"])
async def test_a_client_that_leaves_pays_for_the_search_that_may_have_run(
    upstream: ScriptedUpstream, tmp_path: Path, free: bool
) -> None:
    """And not for the answer that it did not get, though all of that was set aside with it."""

    async def begin(request: web.Request) -> web.StreamResponse:
        """A word of an answer, and no end."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        said = {"content": {"role": "model", "parts": [{"text": "Looking"}]}, "index": 0}
        await response.write(b"data: %b\n\n" % json.dumps({"candidates": [said]}).encode())
        await asyncio.Event().wait()
        return response

    spec = spec_of(upstream, "gemini-2.5", {"web_search": 0.01})
    if free:
        spec["models"]["m"]["pricing"] |= {"input_per_1k": 0, "output_per_1k": 0}
    path, body = "/v1beta/models/m:streamGenerateContent", CASES["gemini-2.5"][3]
    app = web.Application()
    app.router.add_post("/v1beta/models/gemini-2.5-none:streamGenerateContent", begin)
    async with serving(app) as url, Live(tmp_path, spec_at(spec, f"{url}/v1beta")) as live:
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(f"{live.url}{path}?alt=sse", json=body, headers=headers) as response:
            await response.content.readuntil(b"Looking")
            assert (await live.balance("task:t")).held_nano >= SEARCH_NANO + (0 if free else 1_000 * OUTPUT_NANO)
        await live.idle()
        left = await live.balance("task:t")
        assert SEARCH_NANO <= left.spent_nano <= SEARCH_NANO + (0 if free else 100 * INPUT_NANO + 4 * OUTPUT_NANO)
        assert left.held_nano == 0


def spec_at(spec: dict[str, Any], url: str) -> dict[str, Any]:
    spec["providers"]["m"]["base_url"] = url
    return spec


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def searching(count: int) -> list[dict[str, Any]]:
    """A Messages stream of `count` searches one after another, then an answer."""
    use = {"input_tokens": 100, "output_tokens": 1, "server_tool_use": {"web_search_requests": 0}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
         "content": [], "stop_reason": None, "stop_sequence": None, "usage": use}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I search."}},
        {"type": "content_block_stop", "index": 0},
    ]  # fmt: skip
    for place in range(1, count + 1):
        block = {"type": "server_tool_use", "id": f"srv_{place}", "name": "web_search", "input": {}}
        events += [
            {"type": "content_block_start", "index": place, "content_block": block},
            {"type": "content_block_stop", "index": place},
        ]
    done = {"input_tokens": 100, "output_tokens": 20, "server_tool_use": {"web_search_requests": count}}
    return [
        *events,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": done},
        {"type": "message_stop"},
    ]


class Searcher:
    """A provider of Messages that sends `searching(5)` one search after the other, the next one only when the gateway
    (`live`) has metered the one before; `sent` is how many it has run, and bills."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.sent = 0
        self.streamed: list[bool] = []
        self.gone = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """All of it, or as much as is waited for."""
        self.streamed.append((await request.json()).get("stream") is True)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in searching(5):
                ran = event.get("content_block", {}).get("type") == "server_tool_use"
                self.sent += ran
                await response.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()))
                if ran:
                    await until(self._is_metered)
                    await done_reading()
        except (asyncio.CancelledError, ConnectionResetError):
            self.gone = True
        return response

    def _is_metered(self) -> bool:
        """By all calls that meter as they go; a busy machine may bring them the last one late."""
        calls: list[Any] = [] if self.live is None else self.live.services.calls.under_way()
        purses = [call.purse for call in calls if call.purse is not None and call.purse.plan.mode is not Mode.PLAIN]
        return all(sum(times for _, times in purse.meter.tools) >= self.sent for purse in purses)


@pytest.fixture
async def searcher() -> AsyncIterator[tuple[Searcher, str]]:
    """One, and its URL."""
    made, app = Searcher(), web.Application()
    app.router.add_post("/v1/messages", made.answer)
    async with serving(app) as url:
        yield made, f"{url}/v1"


@pytest.mark.parametrize("cap", ["policy", "ledger", "enough", "none"])
@pytest.mark.parametrize("free", [False, True], ids=["tokens cost", "tokens are free"])
async def test_searches_of_a_reply_that_is_not_streamed_are_metered_as_they_run(
    searcher: tuple[Searcher, str], tmp_path: Path, cap: str, free: bool
) -> None:
    """Under a cap the call is streamed upstream: in one whole reply they would be seen when all of them are billed."""
    provider, url = searcher
    pricing = {"input_per_1k": 0.0 if free else 0.001, "output_per_1k": 0.0 if free else 0.002}
    models = {"m": {"pricing": {**pricing, "tool_fees": {"web_search": 0.01}}}}
    use_nano = SEARCH_NANO + (0 if free else RESULT_TOKENS["web_search"] * INPUT_NANO)
    low = 0.022 if free else 0.04
    usd = {"policy": low, "enough": 0.12}.get(cap)
    capped = {} if usd is None else {"caps": {"task": {"max_cost_usd": usd}}}
    spec = policy({"m": url}, models=models, providers={"m": {"dialect": "anthropic"}}, **capped)
    async with Live(tmp_path, spec) as live:
        provider.live = live
        if cap == "ledger":
            async with live.client.session.patch(live.url + "/v1/tasks/t", json={"max_cost_usd": low}) as amended:
                assert amended.status == 200
        asked = {"model": "m", "messages": HI, "max_tokens": 50, "tools": [ANTHROPIC_TOOL]}
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + "/v1/messages", json=asked, headers=headers) as response:
            answer = await read(response)
        if cap == "none":
            assert provider.streamed == [False]
            return
        assert provider.streamed == [True]
        if cap == "enough":
            ran = [block["id"] for block in answer.json["content"] if block["type"] == "server_tool_use"]
            assert ran == [f"srv_{place}" for place in range(1, 6)]
            assert answer.json["usage"]["server_tool_use"] == {"web_search_requests": 5}
            assert round((await live.task("t"))["spent_usd"] * 10**9) == 5 * SEARCH_NANO + (0 if free else TOKENS_NANO)
            return
        assert (answer.status, answer.json["error"]["type"]) == (402, "billing_error")
        spent = round((await live.task("t"))["spent_usd"] * 10**9)
        assert provider.gone
        # The one that the cap does not pay for has run when it is told of; the next may begin before the cut is heard.
        assert provider.sent in (3, 4)
        assert 3 * use_nano <= spent < (provider.sent + 1) * use_nano
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["attempts"][0]["mode"]) == ("cost_killed", "fold")


@pytest.mark.parametrize("affords", [8, 2])
async def test_searches_are_metered_as_they_run(upstream: ScriptedUpstream, tmp_path: Path, affords: int) -> None:
    wire = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in searching(5))
    upstream.source = Script(body=wire, headers={"content-type": "text/event-stream"})
    capped = {"caps": {"task": {"max_cost_usd": 0.01 * affords + 0.002}}}
    async with Live(tmp_path, spec_of(upstream, "anthropic", {"web_search": 0.01}, **capped)) as live:
        asked = {"model": "m", "messages": HI, "max_tokens": 50, "stream": True, "tools": [ANTHROPIC_TOOL]}
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + "/v1/messages", json=asked, headers=headers) as response:
            answer = await read(response)
        spent = round((await live.task("t"))["spent_usd"] * 10**9)
        if affords == 8:
            assert b"message_stop" in answer.body
            assert spent == TOKENS_NANO + 5 * SEARCH_NANO
        else:
            # All five came in one read, and are billed; the client sees none that the cap does not pay for.
            assert b"billing_error" in answer.body
            assert b"srv_3" not in answer.body
            assert b"message_stop" not in answer.body
            assert spent >= 5 * SEARCH_NANO


async def test_a_responses_search_is_metered_as_it_runs(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    def item(place: int, action: str) -> dict[str, Any]:
        call = {"type": "web_search_call", "id": f"ws_{place}", "status": "completed", "action": {"type": action}}
        return {"type": "response.output_item.done", "output_index": place, "item": call}

    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "in_progress",
        "model": "m",
        "output": [],
    }
    text: dict[str, Any] = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "x",
    }
    events = [
        {"type": "response.created", "response": response}, text,
        item(1, "search"), item(2, "open_page"), item(3, "search"), item(4, "search"), text,
    ]  # fmt: skip
    wire = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
    upstream.source = Script(body=wire, headers={"content-type": "text/event-stream"})
    capped = {"caps": {"task": {"max_cost_usd": 0.022}}}
    async with Live(tmp_path, spec_of(upstream, "openai_responses", {"web_search": 0.01}, **capped)) as live:
        asked = {"model": "m", "input": "hi", "stream": True, "tools": [{"type": "web_search"}]}
        async with live.client.session.post(live.url + "/v1/responses", json=asked) as got:
            answer = await read(got)
        assert b"response.failed" in answer.body
        assert b"ws_4" not in answer.body
