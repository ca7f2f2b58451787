"""A canonical conversation as a Responses request.

Source: https://platform.openai.com/docs/api-reference/responses/create. `strict` is sent with every function, because
its default there is true, unlike in every other dialect; `store` is false, because no other dialect keeps replies.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import (
    Conversation,
    Media,
    Message,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from app.core.errors import BadRequest
from app.core.raw import NO_ARGUMENTS
from app.dialects.base import UpstreamRequest
from app.dialects.openai_chat.models import Abilities, abilities_of, effort_for
from app.dialects.openai_chat.own import VERBOSITY, own_members
from app.dialects.openai_chat.strict import fits_strict
from app.dialects.openai_responses import proofs
from app.dialects.openai_responses.carried import RENDER_DROPPED, RENDER_REFUSED
from app.dialects.openai_responses.media import part_to
from app.dialects.openai_responses.patch import PATH

_LOW_TOKENS, _MEDIUM_TOKENS = 4096, 16384
"""Up to so many tokens of thinking are `low`, or `medium`, effort; more is `high`. Budgets of 4,096 and 16,384 are what
Anthropic's clients send for "think" and "think hard"."""
_EFFORTS = {"max": "xhigh"}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def rendered(talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
    """The request for an upstream. Raises BadRequest for what `carried.RENDER_REFUSED` names."""
    _check(talk)
    body: dict[str, Any] = {"model": model}
    messages = talk.messages
    first = messages[0] if messages else None
    if first and first.role == "system" and not first.developer and [type(p) for p in first.parts] == [Text]:
        body["instructions"] = "".join(part.text for part in first.parts if isinstance(part, Text))
        messages = messages[1:]
    items = _Items(talk)
    for message in messages:
        items.add(message)
    body["input"] = items.made
    if talk.tools:
        body["tools"] = [_tool(talk, tool) for tool in talk.tools]
        choice = _choice(talk)
        if choice is not None:
            body["tool_choice"] = choice
        if talk.parallel_tools is not None:
            body["parallel_tool_calls"] = talk.parallel_tools
    own = own_members(talk, model)
    if text := _text_options(talk, own.pop(VERBOSITY, None)):
        body["text"] = text
    body |= own
    can = abilities_of(model)
    if reasoning := _reasoning(talk, can):
        body["reasoning"] = reasoning
    samples = can.samples or (reasoning.get("effort") == "none" and can.samples_unthinking)
    for name in ("temperature", "top_p"):
        value = getattr(talk, name)
        if value is None:
            continue
        if samples:
            body[name] = value
        elif value != 1:
            _drop(talk, name)
    if limit_tokens is not None:
        body["max_output_tokens"] = limit_tokens
    body["store"] = False
    body["stream"] = stream
    return UpstreamRequest(PATH, msgspec.json.encode(body))


def _check(talk: Conversation) -> None:
    for name, asked in (("stop", bool(talk.stop)), ("n", talk.choices > 1)):
        if asked:
            raise BadRequest(
                f"The parameter {name} cannot be followed by the chosen model's provider: {RENDER_REFUSED[name]}.",
                param=name,
            )
    for name in ("top_k", "seed", "presence_penalty", "frequency_penalty"):
        if getattr(talk, name) is not None:
            _drop(talk, name)


def _drop(talk: Conversation, name: str) -> None:
    assert name in RENDER_DROPPED
    if name not in talk.dropped:
        talk.dropped.append(name)


def _tool(talk: Conversation, tool: Tool) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "custom" if tool.custom else "function", "name": tool.name}
    if tool.description is not None:
        made["description"] = tool.description
    if tool.custom:
        return made if tool.format is None else made | {"format": _flat_format(tool.format)}
    return made | {"parameters": tool.schema or NO_ARGUMENTS, "strict": _strict(talk, tool.strict, tool.schema)}


def _flat_format(given: msgspec.Raw) -> msgspec.Raw | dict[str, msgspec.Raw]:
    """Chat puts a grammar's members into an object of their own; here they stand beside the type."""
    members = _members.decode(given)
    if "grammar" not in members:
        return given
    return {"type": members["type"], **_members.decode(members["grammar"])}


def _choice(talk: Conversation) -> object:
    if talk.tool_named is None:
        return talk.tool_choice
    custom = any(tool.custom and tool.name == talk.tool_named for tool in talk.tools)
    return {"type": "custom" if custom else "function", "name": talk.tool_named}


def _text_options(talk: Conversation, verbosity: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {} if talk.shape is None else {"format": _format(talk)}
    return told if verbosity is None else {**told, VERBOSITY: verbosity}


def _format(talk: Conversation) -> dict[str, Any]:
    shape = talk.shape
    if shape is None or shape.schema is None:
        return {"type": "json_object"}
    made = {"type": "json_schema", "name": shape.name or "answer", "schema": shape.schema}
    return made if shape.strict is None else made | {"strict": _strict(talk, shape.strict, shape.schema)}


def _strict(talk: Conversation, asked: bool | None, schema: msgspec.Raw | None) -> bool:
    if asked and not fits_strict(schema):
        _drop(talk, "strict")
        return False
    return bool(asked)


def _reasoning(talk: Conversation, can: Abilities) -> dict[str, str]:
    made: dict[str, str] = {}
    if talk.effort is not None and (can.known or talk.effort != "none"):
        made["effort"] = _EFFORTS.get(talk.effort, talk.effort)
    elif talk.think_tokens:
        tokens = talk.think_tokens
        made["effort"] = "low" if 0 < tokens <= _LOW_TOKENS else "medium" if 0 < tokens <= _MEDIUM_TOKENS else "high"
    if "effort" in made and can.known:
        effort = effort_for(made["effort"], can.efforts)
        if effort is None:
            _drop(talk, "effort")
            return {}
        made["effort"] = effort
    if talk.show_thoughts and (can.efforts or not can.known):
        made["summary"] = "auto"
    return made


class _Items:
    """The items of `input`, in the order in which things were said."""

    def __init__(self, talk: Conversation) -> None:
        self.made: list[dict[str, Any]] = []
        self._talk = talk
        self._custom: set[str] = set()

    def add(self, message: Message) -> None:
        """One turn. Raises BadRequest."""
        said: list[dict[str, Any]] = []
        for part in message.parts:
            if getattr(part, "cache", False):
                _drop(self._talk, "cache_control")
            if isinstance(part, Text | Media | Refusal):
                self._say(message, part, said)
                continue
            self._flush(message, said)
            if isinstance(part, ToolCall):
                self.made.append(self._call(part))
            elif isinstance(part, ToolResult):
                self.made.append(self._result(part))
            else:
                self._think(part)
        self._flush(message, said)

    def _flush(self, message: Message, said: list[dict[str, Any]]) -> None:
        if said:
            role = "developer" if message.developer else message.role
            self.made.append({"type": "message", "role": role, "content": [*said]})
            said.clear()

    def _say(self, message: Message, part: Text | Media | Refusal, said: list[dict[str, Any]]) -> None:
        if isinstance(part, Refusal):
            said.append({"type": "refusal", "refusal": part.text})
        elif message.role != "assistant":
            said.append(part_to(part))
        elif isinstance(part, Text):
            said.append({"type": "output_text", "text": part.text})
        else:
            _drop(self._talk, "assistant_media")

    def _call(self, call: ToolCall) -> dict[str, Any]:
        if call.custom:
            self._custom.add(call.id)
            return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
        return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}

    def _result(self, result: ToolResult) -> dict[str, Any]:
        if result.is_error:
            _drop(self._talk, "is_error")
        kind = "custom_tool_call_output" if result.id in self._custom else "function_call_output"
        parts = result.parts
        output: object = [part_to(part) for part in parts]
        if len(parts) == 1 and isinstance(parts[0], Text):
            output = parts[0].text
        return {"type": kind, "call_id": result.id, "output": output if parts else ""}

    def _think(self, thought: Thinking) -> None:
        if thought.origin != proofs.ORIGIN or not thought.encrypted:
            _drop(self._talk, "thinking")
            return
        summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
        made: dict[str, Any] = {"type": "reasoning", "summary": summary, "encrypted_content": thought.encrypted}
        self.made.append(made if thought.id is None else {"type": "reasoning", "id": thought.id, **made})
