"""A cut of several candidates of Gemini's, and of the text that comes with an end: what is paid for is shown."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, usd
from tests.gateway.test_cut_in_one_read import affordable_tokens

PATH = "/v1beta/models/a:streamGenerateContent?alt=sse"
ASKED: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Tell me"}]}]}
CAP_NANO = 300_000


def frame(text: str, choice: int = 0, finish: str | None = None, output: int = 0) -> bytes:
    """One chunk of a stream."""
    end = {} if finish is None else {"finishReason": finish}
    candidate = {"index": choice, "content": {"role": "model", "parts": [{"text": text}]}, **end}
    usage = {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": output}} if output else {}
    return b"data: " + json.dumps({"candidates": [candidate], **usage}).encode() + b"\r\n\r\n"


@contextlib.asynccontextmanager
async def spoken(*frames: bytes) -> AsyncIterator[str]:
    """A provider that says this at once, whatever it is asked; its URL."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"".join(frames), headers={"content-type": "text/event-stream"})

    app = web.Application()
    app.router.add_post("/v1beta/models/{model}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1beta"
    finally:
        await runner.cleanup()


async def ask(live: Live, **config: Any) -> str:
    async with live.client.session.post(live.url + PATH, json={**ASKED, "generationConfig": config}) as response:
        return (await response.read()).decode()


def rules(url: str, cap_nano: int) -> dict[str, Any]:
    """A task's cap, and a provider that speaks Gemini's dialect."""
    return policy({"a": url}, providers={"a": {"dialect": "gemini"}}, caps={"task": {"max_cost_usd": usd(cap_nano)}})


@pytest.mark.parametrize("short", [1, 80])
async def test_a_candidate_that_ends_earlier_hides_no_other(tmp_path: Path, short: int) -> None:
    first = [*(frame(f" s{n}") for n in range(short - 1)), frame(" s99", finish="STOP")]
    second = [frame(f" w{n}", 1) for n in range(400)]
    last = frame("", 1, "STOP", output=short + 400)
    async with spoken(*first, *second, last) as url, Live(tmp_path, rules(url, CAP_NANO)) as live:
        live.client.session.headers["x-bursar-task-id"] = "t1"
        got = await ask(live, candidateCount=2)
        assert "out of budget" in got
        words = re.findall(r'" [sw](\d+)"', got)
        assert len(words) in affordable_tokens(CAP_NANO)
        assert got.count('" s99"') == 1, "what came with an end is paid for, too"


async def test_whole_replies_are_as_they_came(tmp_path: Path) -> None:
    came = [frame(" a"), frame(" b", 1), frame(" c", finish="STOP"), frame(" d", 1), frame(" e", 1, "STOP", output=5)]
    async with spoken(*came) as url, Live(tmp_path, rules(url, 10 * CAP_NANO)) as live:
        live.client.session.headers["x-bursar-task-id"] = "t1"
        got = await ask(live, candidateCount=2)
        events = [json.loads(line[6:]) for line in got.splitlines() if line.startswith("data: ")]
        told = [candidate for event in events for candidate in event["candidates"]]
        said = ["".join(c["content"]["parts"][0]["text"] for c in told if c["index"] == index) for index in (0, 1)]
        assert said == [" a c", " b d e"]
        assert [c["index"] for c in told if "finishReason" in c] == [0, 1]
        assert events[-1]["usageMetadata"]["candidatesTokenCount"] == 5
        assert (await live.balance("task:t1")).spent_nano == 10 * INPUT_NANO + 5 * OUTPUT_NANO


async def test_text_that_came_with_an_end_is_shown_before_a_break(tmp_path: Path) -> None:
    came = [frame(" a"), frame(" b", 1), frame(" c", finish="STOP"), frame(" d", 1)]  # and the second never ends
    async with spoken(*came) as url, Live(tmp_path, rules(url, 10 * CAP_NANO)) as live:
        got = await ask(live, candidateCount=2)
        assert "broke off" in got
        assert re.findall(r'"text": ?" (\w)"', got) == ["a", "b", "d", "c"], "all of it is charged"


async def test_a_picture_stays_where_it_was_though_another_candidate_has_ended(tmp_path: Path) -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    candidate = {"index": 1, "content": {"role": "model", "parts": [picture]}}
    shown = b"data: " + json.dumps({"candidates": [candidate]}).encode() + b"\r\n\r\n"
    came = [frame(" a", finish="STOP"), frame(" b", 1), shown, frame(" c", 1), frame(" d", 1, "STOP", output=4)]
    async with spoken(*came) as url, Live(tmp_path, rules(url, 10 * CAP_NANO)) as live:
        got = await ask(live, candidateCount=2)
        told = [c for line in got.splitlines() if line.startswith("data: ") for c in json.loads(line[6:])["candidates"]]
        parts = [part for c in told if c["index"] == 1 for part in c["content"]["parts"]]
        assert parts == [{"text": " b"}, picture, {"text": " c"}, {"text": " d"}]


async def test_text_that_comes_with_the_clamp_s_end_is_shown(tmp_path: Path) -> None:
    limit = 40
    cap_nano = 18 * INPUT_NANO + limit * OUTPUT_NANO
    came = [*(frame(f" w{n}") for n in range(limit - 1)), frame(" w99", 0, "MAX_TOKENS", output=limit)]
    async with spoken(*came) as url, Live(tmp_path, rules(url, cap_nano)) as live:
        live.client.session.headers["x-bursar-task-id"] = "t1"
        got = await ask(live)
        assert "out of budget" in got
        assert '" w99"' in got
