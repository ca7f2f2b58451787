"""One tool call on its way to a client: a function's, or a custom one's, turned back from a function's if need be."""

from __future__ import annotations

from typing import Any

from app.core.events import CallBegins
from app.core.raw import is_whole
from app.dialects.openai_responses.custom import InputText
from app.dialects.openai_responses.frames import Frames
from app.dialects.openai_responses.names import Named


class OpenCall:
    """A call whose arguments are coming."""

    def __init__(self, begins: CallBegins, named: Named | None, base: str, place: int) -> None:
        self.place = place
        self._named = named or Named(None, begins.name, begins.custom)
        self.custom = self._named.custom or begins.custom
        self._id = f"{'ctc' if self.custom else 'fc'}_{base}_{place}"
        self._call_id = begins.id or f"call_{base}_{place}"
        self._texts: list[str] = []
        self._input = InputText() if self.custom and not begins.custom else None

    @property
    def whole(self) -> bool:
        """Whether what is there is certainly all of it; of bare free text that cannot be known."""
        if self._input is not None:
            return is_whole(self._input.arguments)
        return not self.custom and is_whole("".join(self._texts))

    def item(self, status: str) -> dict[str, Any]:
        """The item, with what there is of its arguments."""
        kind, arguments = ("custom_tool_call", "input") if self.custom else ("function_call", "arguments")
        made: dict[str, Any] = {
            "id": self._id,
            "type": kind,
            "status": status,
            "call_id": self._call_id,
            "name": self._named.name,
            arguments: "".join(self._texts),
        }
        return made if self._named.namespace is None else made | {"namespace": self._named.namespace}

    def feed(self, frames: Frames, piece: str) -> bytes:
        """A piece of the arguments, as far as it can be told already."""
        text = piece if self._input is None else self._input.feed(piece)
        return self._tell(frames, text)

    def _tell(self, frames: Frames, text: str) -> bytes:
        if not text:
            return b""
        self._texts.append(text)
        kind = "response.custom_tool_call_input.delta" if self.custom else "response.function_call_arguments.delta"
        return frames.event(kind, {"item_id": self._id, "output_index": self.place, "delta": text})

    def close(self, frames: Frames) -> bytes:
        """The rest of the arguments, and their end; a function's empty ones are `{}`, as OpenAI sends them."""
        out = b""
        if self._input is not None:
            out += self._tell(frames, self._input.close()[0])
        elif not self.custom and not "".join(self._texts).strip():
            out += self._tell(frames, "{}")
        where, whole = {"item_id": self._id, "output_index": self.place}, "".join(self._texts)
        if self.custom:
            return out + frames.event("response.custom_tool_call_input.done", {**where, "input": whole})
        done = {**where, "name": self._named.name, "arguments": whole}
        return out + frames.event("response.function_call_arguments.done", done)
