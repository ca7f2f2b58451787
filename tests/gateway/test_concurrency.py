"""Many calls under one cap at once: the cap holds, and is used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Answer, Live, policy, usd
from tests.gateway.test_cut import assert_cut, assert_denied
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

CALLS = 200
WORDS = 100
INPUT_TOKENS = 10
DEMAND_NANO = CALLS * (INPUT_TOKENS * INPUT_NANO + WORDS * OUTPUT_NANO)
CAP_NANO = DEMAND_NANO * 2 // 5


def paced(delay_s: float = 0.005) -> Script:
    return Script.of(words(" ".join("w" * 5 for _ in range(WORDS))), delay_s=delay_s, input_tokens=INPUT_TOKENS)


async def ask_all(lives: Sequence[Live], **asked: Any) -> list[Answer]:
    """All calls at once, over all gateways; every other one a stream unless `stream` says."""
    streams = [asked.get("stream", n % 2 == 0) for n in range(CALLS)]
    return await asyncio.gather(
        *(lives[n % len(lives)].chat(**{**asked, "task": "t1", "stream": s}) for n, s in enumerate(streams))
    )

async def check(lives: Sequence[Live], upstream: ScriptedUpstream, answers: list[Answer], bound=0) -> None:
    for live in lives:
        await live.idle()
    b = await lives[0].balance("task:t1")
    from collections import Counter
    print(Counter((a.status, a.error_code, a.finishes[0] if a.headers["content-type"].startswith("text/ev") and a.finishes else None) for a in answers))
    print("cap", CAP_NANO, "spent", b.spent_nano, b.spent_nano/CAP_NANO, "bill", upstream.bill(PRICE)/CAP_NANO, "held", b.held_nano, "calls", b.calls, "killed", b.killed_at_nano, len(upstream.requests))


@pytest.mark.parametrize("stream", [True, False, None], ids=["streams", "whole", "mixed"])
@pytest.mark.parametrize("limit", [None, WORDS])
@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02])
async def test_many_calls(tmp_path, upstream, ledger_url, stream, limit, delay) -> None:
    upstream.source = paced(delay)
    caps = {"task": {"max_cost_usd": usd(CAP_NANO)}}
    asked = {} if stream is None else {"stream": stream}
    if limit: asked["max_tokens"] = limit
    import time
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        t=time.monotonic()
        answers = await ask_all([live], **asked)
        print(stream, limit, delay, ledger_url, time.monotonic()-t)
        await check([live], upstream, answers)
