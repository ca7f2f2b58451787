"""Counting tokens before a call: asked of the provider where it can count, else an estimate of ours; neither costs.

Agents count to see when to compact a conversation. The estimate is calibrated by what providers have reported for the
model that the name stands for, and leans high, as the gateway's own reservations do. A provider that does not answer
soon, or that has no such method, is not waited for; of a task whose cap is reached nobody is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from app.core.errors import BursarError
from app.core.policy import Candidate, Key
from app.core.tokens import estimate_input
from app.core.types import ChatRequest
from app.dialects.base import Dialect, UpstreamRequest
from app.dialects.registry import dialect_named
from app.gateway.copies import in_turn
from app.gateway.limits import task_scope
from app.gateway.services import Services
from app.gateway.target import resolve
from app.gateway.upstream import ConnectionBroken, NotConnected
from app.http.hot import HotRoute, Incoming, key_name, new_id_headers
from app.http.whose import Whose, task_of
from app.stores.budgets import LedgerUnavailable

Parse = Callable[[bytes, Mapping[str, str], Mapping[str, str]], ChatRequest]
ASK_S = 5.0
UNABLE_S = 600.0
"""How long a provider that had no such method is not asked again for a model: "not found" may mean the model."""
JSON = (b"content-type", b"application/json")


class Ask(Protocol):
    """Makes the request to an upstream of the same dialect."""

    def __call__(self, request: ChatRequest, *, model: str) -> UpstreamRequest: ...


@dataclass(frozen=True, slots=True)
class Counting:
    """One dialect's counting: reads the client's request, makes the provider's, reads and writes a count."""

    dialect: str
    parse: Parse
    ask: Ask
    counted: Callable[[bytes], int | None]
    reply: Callable[[int], bytes]


class CountRoute(HotRoute):
    """Serves one dialect's counting."""

    def __init__(self, services: Services, counting: Counting, *, max_body_bytes: int) -> None:
        super().__init__(services, max_body_bytes=max_body_bytes)
        self._counting = counting
        self._unable_until_s: dict[tuple[str, str], float] = {}

    @property
    def dialect(self) -> Dialect:
        return dialect_named(self._counting.dialect)

    async def serve(self, incoming: Incoming) -> None:
        """Answer at once, or as soon as the provider has."""
        request = await self.read(incoming)
        headers, key = incoming.headers, incoming.key
        whose = task_of(headers, request, incoming.path_task)
        try:
            candidate = resolve(self.services.view, request.model, key).every[0]
        except BursarError:
            candidate = None  # a name that stands for nothing is counted all the same
        reply = None
        if candidate is not None:
            now_s = asyncio.get_running_loop().time()
            available = partial(self.services.health.available, now_s=now_s)
            at = in_turn(candidate, whose.task_id or "", available)[0]
            reply = await self._asked(request, at, key, whose)
        if reply is None:
            reply = self._counting.reply(self._estimate(request, candidate))
        await incoming.downstream.reply(200, [JSON, *new_id_headers(self.dialect)], reply)

    async def read(self, incoming: Incoming) -> ChatRequest:
        """What is to be counted. Raises BursarError."""
        return self._counting.parse(incoming.body, incoming.headers, incoming.path)

    def _estimate(self, request: ChatRequest, candidate: Candidate | None) -> int:
        prompt = request.prompt
        estimate = estimate_input(prompt.text_bytes, prompt.messages, prompt.attachments)
        if candidate is None:
            return estimate
        return int(estimate * self.services.calibration(candidate.name).input.mean)

    async def _asked(self, request: ChatRequest, candidate: Candidate, key: Key | None, whose: Whose) -> bytes | None:
        """The provider's own reply; None where it cannot count, does not answer, or must not be asked."""
        counting, provider = self._counting, candidate.provider
        if provider.speaking_with(counting.dialect) != counting.dialect:
            return None
        at = provider.base_url, candidate.upstream_model
        if self._unable_until_s.get(at, 0.0) > time.monotonic() or await self._is_over(key, whose):
            return None
        asked = counting.ask(request, model=candidate.upstream_model)
        try:
            async with asyncio.timeout(ASK_S):
                reply = await self.services.upstreams.open(provider, asked.path, asked.body, asked.headers)
                try:
                    body = await reply.read_all()
                except BaseException:
                    reply.close()
                    raise
                reply.release()
        except (TimeoutError, NotConnected, ConnectionBroken):
            return None
        if reply.status in (404, 405, 501):
            self._unable_until_s[at] = time.monotonic() + UNABLE_S
        return body if reply.status == 200 and counting.counted(body) is not None else None

    async def _is_over(self, key: Key | None, whose: Whose) -> bool:
        """Whether the task's cap is reached: then nothing more goes upstream for it."""
        if whose.task_id is None:
            return False
        try:
            (balance,) = await self.services.ledger.budgets.balances([task_scope(key_name(key), whose.task_id)])
        except LedgerUnavailable:
            return True
        return balance is not None and balance.killed_at_nano is not None
