"""Which model each open tool loop began with: a model is not changed between a call and its result.

What one model has planned another would have to guess, its thoughts cannot be read by another, and the prompt's cache
is lost. Kept in this process; of a loop that another one served, the ledger knows the task's last model (`approach`).
"""

from __future__ import annotations

from app.core.types import ChatRequest

MAX_LOOPS = 20_000
OPENING_CHARS = 1_024

Loop = tuple[str, str | None, int]


class Loops:
    """The last model of each conversation that has tools; the oldest are forgotten."""

    def __init__(self) -> None:
        self._models: dict[Loop, str] = {}

    def model_of(self, loop: Loop) -> str | None:
        """Who answered last in this conversation, if that is remembered."""
        return self._models.get(loop)

    def note(self, loop: Loop, model: str) -> None:
        """This model has answered."""
        self._models.pop(loop, None)
        self._models[loop] = model
        if len(self._models) > MAX_LOOPS:
            del self._models[next(iter(self._models))]


def loop_of(request: ChatRequest, key_name: str, task_id: str | None) -> Loop:
    """A conversation: whose, in which task, and how it began (a task's sub-agents begin differently)."""
    prompt = request.prompt
    began = hash((prompt.first_user[:OPENING_CHARS], prompt.system[:OPENING_CHARS], prompt.tools))
    return key_name, task_id, began
