"""Which model each open tool loop began with: a model is not changed between a call and its result.

What one model has planned another would have to guess, its thoughts cannot be read by another, and the prompt's cache
is lost. A loop's next step may reach any worker or gateway, so it is known to all of them (`stores/task_memory`), and
to this process for when that does not answer.
"""

from __future__ import annotations

import hashlib

import structlog

from app.core.types import ChatRequest
from app.stores.task_memory import MemoryUnavailable, TaskMemory

log = structlog.get_logger()

KEPT_S = 7 * 86_400.0
"""How long after its last step a tool loop may go on with the model that it began with."""
MAX_LOOPS = 20_000
OPENING_CHARS = 1_024


class Loops:
    """The last model of each conversation that has tools; of those known here, the oldest are forgotten."""

    def __init__(self, memory: TaskMemory) -> None:
        self._memory = memory
        self._models: dict[bytes, str] = {}

    async def model_of(self, loop: bytes) -> str | None:
        """Who was asked last in this conversation, whichever gateway served it, if that is remembered."""
        try:
            found = await self._memory.word(loop)
        except MemoryUnavailable as error:
            log.warning("the model of a tool loop is known to this process only", error=str(error))
            found = None
        return self._models.get(loop) if found is None else found

    async def note(self, loop: bytes, model: str, *, open_: bool) -> None:
        """This model is asked now; all others know when this returns. In an `open_` loop it is the one that was held
        to: nothing new to them."""
        known = self._models.pop(loop, None)
        self._models[loop] = model
        if len(self._models) > MAX_LOOPS:
            del self._models[next(iter(self._models))]
        if not open_ or known != model:
            try:
                await self._memory.note(loop, model, KEPT_S)
            except MemoryUnavailable as error:
                log.warning("the model of a tool loop is not known to other gateways", error=str(error))


def loop_of(request: ChatRequest, key_name: str, task_id: str | None) -> bytes:
    """A conversation, the same in every process: whose, in which task, and how it began (a task's sub-agents begin
    differently). One that is stored here need not be told its instructions again with each step."""
    prompt = request.prompt
    system = prompt.system[:OPENING_CHARS] if request.stored is None else ""
    opening = prompt.first_user[:OPENING_CHARS], system, str(prompt.tools)
    told = "\0".join((key_name, task_id or "", *opening))
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).digest()
