"""Canonical messages as Gemini's contents.

Turns are gathered (other dialects have a message for each result), results of functions stand in a content of
their own right behind their calls, as https://ai.google.dev/gemini-api/docs/function-calling shows it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import (
    Conversation,
    Media,
    Message,
    Part,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from app.core.errors import BadRequest
from app.dialects.gemini.arguments import arguments_object
from app.dialects.gemini.proof import ORIGIN, UNSIGNED
from app.dialects.gemini.thinking import FIRST_WITH_LEVEL, version_of

_KINDS = {"image": "image/*", "audio": "audio/*", "file": "application/octet-stream"}
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "txt": "text/plain",
}
_Rendered = dict[str, Any]


class Turns:
    """The contents of one conversation for one model; `dropped` names what is left out."""

    def __init__(self, talk: Conversation, model: str) -> None:
        self.dropped: list[str] = []
        self._messages = talk.messages
        self._names: dict[str, str] = {}
        self._signs = version_of(model) >= FIRST_WITH_LEVEL

    def rendered(self) -> tuple[list[_Rendered], list[_Rendered]]:
        """The parts of the system instruction, and the contents. Raises BadRequest."""
        system: list[_Rendered] = []
        contents: list[_Rendered] = []
        for role, parts in _gathered(self._messages):
            if role == "system":
                system += self._shown(parts)
            elif role == "assistant":
                self._add(contents, "model", self._model_parts(parts))
            else:
                results = [part for part in parts if isinstance(part, ToolResult)]
                self._add(contents, "user", [self._response(result) for result in results])
                rest: list[Part] = [part for result in results for part in result.parts if isinstance(part, Media)]
                rest += [part for part in parts if not isinstance(part, ToolResult)]
                self._add(contents, "user", self._shown(rest))
        return system, contents

    @staticmethod
    def _add(contents: list[_Rendered], role: str, parts: list[_Rendered]) -> None:
        if parts:
            contents.append({"role": role, "parts": parts})

    def _shown(self, parts: list[Part]) -> list[_Rendered]:
        """Parts that are no calls or results."""
        shown = []
        for part in parts:
            if getattr(part, "cache", False):
                self.dropped.append("cache_control")
            if isinstance(part, Text | Refusal):
                if part.text:
                    shown.append({"text": part.text})
            elif isinstance(part, Media):
                shown.append(self._media(part))
            elif isinstance(part, Thinking):
                if part.origin == ORIGIN:
                    shown.append(_thought(part))
                else:
                    self.dropped.append("thinking")
            else:
                raise BadRequest("A tool call must stand in a message of the assistant's.", param="messages")
        return shown

    def _model_parts(self, parts: list[Part]) -> list[_Rendered]:
        shown: list[_Rendered] = []
        first = True
        for part in parts:
            if isinstance(part, ToolCall):
                shown.append(self._call(part, first=first))
                first = False
            else:
                shown += self._shown([part])
        return shown

    def _call(self, call: ToolCall, *, first: bool) -> _Rendered:
        self._names[call.id] = call.name
        arguments = None if call.custom else arguments_object(call.arguments)
        if arguments is None:
            arguments = msgspec.Raw(msgspec.json.encode({"input": call.arguments}))
        shown: _Rendered = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
        # Of parallel calls only the first is signed.
        signature = call.signature or (UNSIGNED if self._signs and first else None)
        if signature is not None:
            shown["thoughtSignature"] = signature
        return shown

    def _response(self, result: ToolResult) -> _Rendered:
        name = self._names.get(result.id) or result.name
        if name is None:
            raise BadRequest("A tool's result answers no call of the messages before it.", param="messages")
        if result.cache:
            self.dropped.append("cache_control")
        text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
        said = {"error" if result.is_error else "output": text}
        return {"functionResponse": {"id": result.id, "name": name, "response": said}}

    def _media(self, media: Media) -> _Rendered:
        if media.detail is not None:
            self.dropped.append("image detail")
        if media.data is not None:
            return {"inlineData": {"mimeType": media.media_type or _KINDS[media.kind], "data": media.data}}
        if media.url is None:
            raise BadRequest("A file that lies with another provider cannot go to Gemini.", param="messages")
        return {"fileData": {"mimeType": media.media_type or _guessed(media), "fileUri": media.url}}


def _thought(thought: Thinking) -> _Rendered:
    """A signature without a text is of spoken text, or stands for a thought that was not shown."""
    shown: _Rendered = {"text": thought.text}
    if thought.text:
        shown["thought"] = True
    if thought.signature is not None:
        shown["thoughtSignature"] = thought.signature
    return shown


def _guessed(media: Media) -> str:
    path = (media.url or "").partition("?")[0]
    return _TYPES.get(path.rpartition(".")[2].lower(), _KINDS[media.kind])


def _gathered(messages: list[Message]) -> list[tuple[Role, list[Part]]]:
    """Neighbours of one role together; a system message does not stand between them, for it goes elsewhere."""
    turns: list[tuple[Role, list[Part]]] = []
    systems: list[tuple[Role, list[Part]]] = []
    for message in messages:
        if message.role == "system":
            systems.append(("system", message.parts))
        elif turns and turns[-1][0] == message.role:
            turns[-1][1].extend(message.parts)
        else:
            turns.append((message.role, list(message.parts)))
    return [*systems, *turns]
