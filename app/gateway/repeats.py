"""Tasks that go round in circles: how often one has sent the same request.

Counted for all workers and gateways together (`stores/task_memory`); while that does not answer, in this process, for
the latest tasks.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import msgspec
import structlog

from app.core.types import ChatRequest
from app.dialects.registry import COMPLETIONS
from app.stores.task_memory import MemoryUnavailable, TaskMemory

log = structlog.get_logger()

MAX_COUNTED = 50_000
LAST_TURNS = 3
"""Turns that make a request the same: an agent's step with its answer, and what led to it. All that came before may
have grown."""
_IDS = ("id", "tool_call_id", "tool_use_id", "call_id")
"""New in every turn, even where nothing else is."""
_encode = msgspec.json.Encoder(order="sorted").encode


class Repeats:
    """Counts; of those known here, the least recently asked are forgotten first."""

    def __init__(self, memory: TaskMemory) -> None:
        self._memory = memory
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    async def count(self, scope: str, request: ChatRequest, keep_s: float) -> int:
        """How often this task has sent this request, this time included; forgotten `keep_s` after the last time."""
        at = hashlib.blake2b(scope.encode() + digest(request), digest_size=16).digest()
        here = self._count_here(at)
        try:
            return max(await self._memory.count(at, keep_s), here)
        except MemoryUnavailable as error:
            log.warning("repeats are counted in this process only", error=str(error))
            return here

    def _count_here(self, at: bytes) -> int:
        times = self._seen.pop(at, 0) + 1
        self._seen[at] = times
        if len(self._seen) > MAX_COUNTED:
            self._seen.popitem(last=False)
        return times


def digest(request: ChatRequest) -> bytes:
    """The same for requests with the same model and the same last turns, whatever their turns' ids; for completions
    with the same text before and behind."""
    if request.dialect == COMPLETIONS:
        text = [bytes(request.members.get(name, b"")) for name in ("prompt", "suffix")]
        return hashlib.blake2b(_encode([request.model, text]), digest_size=16).digest()
    talk = request.talk
    turns: Any = None if talk is None else msgspec.json.decode(talk)
    if isinstance(turns, list):
        turns = turns[-LAST_TURNS:]
    return hashlib.blake2b(_encode([request.model, _without_ids(turns)]), digest_size=16).digest()


def _without_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_ids(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_ids(item) for name, item in value.items() if name not in _IDS}
    return value
