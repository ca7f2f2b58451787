"""Mixed calls for a stack: each kind ends in its own way, and says what became of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.upstream_reply import Received
from tests.upstream_script import HANG, ListPrice, Script, words

INPUT_TOKENS = 20
INPUT_NANO, OUTPUT_NANO = 1_000, 10_000
PRICE = ListPrice("0.001", "0.01")
DELAY_S = 0.03
SHORT, LONG = 15, 60
CUT_TOKENS = 25
"""What the cap of a call that is to be cut pays for."""
KINDS = ("chat", "long", "messages", "responses", "cut", "leaves", "plain", "shared", "chat", "messages")
SHARED_TASK = "shared"
HANGS = 10_000
"""The number of a call that its provider never answers."""


@dataclass(slots=True)
class Ended:
    """What became of one call, and when (monotonic). `how`: whole, cut, left, or broken (the connection, or a proxy's
    own error)."""

    number: int
    kind: str
    how: str
    gateway: str | None = None
    at_s: float = 0.0


def kind_of(number: int) -> str:
    """The kind of that call."""
    return KINDS[number % len(KINDS)]


def task_of(number: int) -> str:
    """The task of that call: its own, but for those who share one purse."""
    return SHARED_TASK if kind_of(number) == "shared" else f"s{number}"


def number_of(request: Received) -> int:
    """Which call the provider was asked for."""
    return int(request.body["messages"][-1]["content"].removeprefix("call "))


def script_for(request: Received) -> Script:
    """The provider's answer: one token a word; it does not obey the limit where the meter is to cut."""
    if number_of(request) == HANGS:
        return Script(opening=(HANG,))
    kind = kind_of(number_of(request))
    length = LONG if kind in ("long", "cut", "leaves") else SHORT
    said = words(" ".join(["w" * 5] * length))
    return Script.of(said, delay_s=DELAY_S, input_tokens=INPUT_TOKENS, obeys_limit=kind != "cut", usage="always")


class Caller:
    """Asks a stack; one for all calls."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def call(self, number: int) -> Ended:
        """Make that call and read it to its end, whatever that is."""
        ended = await self._call(number)
        ended.at_s = time.monotonic()
        return ended

    async def _call(self, number: int) -> Ended:
        kind = kind_of(number)
        path, body, headers = _request(number, kind)
        ended = Ended(number, kind, "broken")
        try:
            async with self._session.post(self._url + path, json=body, headers=headers) as response:
                ended.gateway = response.headers.get("x-bursar-gateway")
                read = b""
                async for part in response.content.iter_any():
                    read += part
                    if kind == "leaves" and read.count(b"wwwww") >= 5:
                        ended.how = "left"
                        return ended
        except aiohttp.ClientError:
            return ended
        if response.status in (502, 503, 504) and ended.gateway is None:
            return ended  # the balancer's word: it lost the gateway before the answer's head
        assert response.status == 200, (number, response.status, read)
        ended.how = _how(kind, read)
        return ended


def _request(number: int, kind: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    said = f"call {number}"
    messages = [{"role": "user", "content": said}]
    headers = {"x-bursar-task-id": task_of(number)}
    if kind == "messages":
        return "/v1/messages", {"model": "m", "max_tokens": 200, "stream": True, "messages": messages}, headers
    if kind == "responses":
        return "/v1/responses", {"model": "m", "stream": True, "input": said}, headers
    body = {"model": "m", "messages": messages, "stream": kind != "plain", "max_tokens": 200}
    if kind == "cut":
        body["max_cost_usd"] = cap_nano() / 1e9
    return "/v1/chat/completions", body, headers


def cap_nano() -> int:
    """The cap of a call that is to be cut."""
    return INPUT_TOKENS * INPUT_NANO + CUT_TOKENS * OUTPUT_NANO


def _how(kind: str, read: bytes) -> str:
    """Whole only where every word and the protocol's own last word came."""
    if kind == "cut":
        assert b"budget_exceeded" in read, read[-300:]
        return "cut"
    length = LONG if kind in ("long", "leaves") else SHORT
    if kind == "plain":
        assert json.loads(read)["choices"][0]["message"]["content"].count("wwwww") == length
        return "whole"
    last = {"messages": b"message_stop", "responses": b"response.completed"}.get(kind, b"data: [DONE]")
    assert last in read, read[-300:]
    # Responses says everything a second time at its end.
    assert read.split(b"response.output_text.done")[0].count(b"wwwww") == length
    return "whole"
