"""Anthropic charges more for a call that is to run in one country: at the price of where the reply says it ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import Live, policy, read
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

TOLD = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
    "content": [{"type": "text", "text": "Done."}], "stop_reason": "end_turn",
}  # fmt: skip
PRICING = {"input_per_1k": 0.003, "output_per_1k": 0.015}
CAPS = {"task": {"max_cost_usd": 1.0}}
PLAIN_NANO = 10 * 3_000 + 5 * 15_000


def told(place: str | None) -> Script:
    usage = {"input_tokens": 10, "output_tokens": 5, "speed": "standard"} | (
        {} if place is None else {"inference_geo": place}
    )
    return Script(body=json.dumps({**TOLD, "usage": usage}).encode(), headers={"content-type": "application/json"})


async def ask(folder: Path, factors: dict[str, float], asked: dict[str, str], place: str | None) -> Any:
    with ScriptedUpstream(told(place)) as upstream:
        models = {"a": {"pricing": {**PRICING, "service_tiers": factors}}}
        made = policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models, caps=CAPS)
        async with Live(folder, made) as live:
            said = [{"role": "user", "content": "hi"}]
            body = {"model": "a", "max_tokens": 50, "messages": said, "metadata": {"task_id": "t"}, **asked}
            headers = {"x-bursar-task-id": "t"}
            return await read(await live.client.session.post(f"{live.url}/v1/messages", json=body, headers=headers))


@pytest.mark.parametrize(
    ("asked", "place", "factor"),
    [
        ({"inference_geo": "us"}, "us", 1.1),
        ({"inference_geo": "us"}, "global", 1),
        ({"inference_geo": "global"}, "global", 1),
        ({}, "us", 1.1),
    ],
)
async def test_where_it_ran_is_charged(tmp_path: Path, asked: dict[str, str], place: str | None, factor: float) -> None:
    answer = await ask(tmp_path, {"us": 1.1}, asked, place)
    assert answer.status == 200, answer.body
    assert round(answer.json["usage"]["cost"] * 10**9) == pytest.approx(PLAIN_NANO * factor, abs=500)


async def test_a_place_without_a_price_is_refused_under_a_cap(tmp_path: Path) -> None:
    answer = await ask(tmp_path, {}, {"inference_geo": "us"}, "us")
    assert answer.status == 402
    assert b"service tier us" in answer.body
