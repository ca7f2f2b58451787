"""Stored responses as programs use them: the Node SDKs, the AI SDK's default way, workers, gateways that share Redis, and
a store that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from app.stores.responses import ResponsesUnavailable
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
                seen = await asyncio.to_thread(node_sdk.stored, live.url, list(PATHS))
    for model, ran in seen.items():
        assert ran["openai"] == {
            "texts": ["One", "Told 1.", "Two"],
            "previous": True,
            "read": True,
            "gone": {"status": 404, "own": True},
        }, model
        # A user's word, two times a text, a call and its result, the answer, a word, and the answer.
        assert ran["ai"] == {"texts": ["Told 7.", "Told 9."], "steps": [3, 1]}, model
