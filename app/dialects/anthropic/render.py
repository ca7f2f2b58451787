"""A conversation of another dialect as a Messages request.

What Messages or the model cannot take is refused or dropped by `table.py` (`UNCARRIED`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import Conversation, Tool
from app.core.errors import BadRequest
from app.core.raw import NO_ARGUMENTS, UNREADABLE
from app.core.types import ChatRequest
from app.dialects.anthropic.effort import effort_word, is_forced, refuses_thought, thinking_member
from app.dialects.anthropic.marks import mark_prefix
from app.dialects.anthropic.models import Abilities, abilities_of
from app.dialects.anthropic.parse import VERSION
from app.dialects.anthropic.patch import PATH
from app.dialects.anthropic.schema import taken_schema
from app.dialects.anthropic.table import ANY_JSON_NOTE, REFUSED_WISHES
from app.dialects.anthropic.turns import drop, system_and_turns
from app.dialects.base import UpstreamRequest
from app.dialects.openai_chat.render import object_bytes

_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECT = msgspec.Raw(b'"object"')
_FREE_TEXT = msgspec.Raw(
    b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}'
)
MAX_USER_CHARS = 256
MAX_TEMPERATURE = 1.0


def render_messages(
    request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
) -> UpstreamRequest:
    """The body for the upstream. Raises BadRequest for what it cannot carry; notes in `talk.dropped` what it leaves."""
    if talk.choices > 1:
        raise BadRequest(REFUSED_WISHES["n"], param="n")
    can = abilities_of(model)
    if is_forced(talk) and not can.forced:
        raise BadRequest(REFUSED_WISHES["forced"], param="tool_choice")
    limit = limit_tokens or request.output_limit or can.limit_tokens
    system, turns = system_and_turns(talk, mid_system=can.mid_system)
    _check_prefill(turns, can)
    body: dict[str, Any] = {"model": model, "max_tokens": limit}
    output = _output_config(talk, can, system)
    if system:
        body["system"] = system
    body["messages"] = turns
    if talk.tools:
        body["tools"] = [_tool(tool) for tool in talk.tools]
        if any(tool.strict for tool in talk.tools):
            drop(talk, "tools.strict")
        if choice := _tool_choice(talk):
            body["tool_choice"] = choice
    thinking = thinking_member(talk, can, limit)
    if thinking is not None:
        body["thinking"] = thinking
    elif refuses_thought(talk):
        if can.quiet is None:
            drop(talk, "thinking")
    elif talk.think_tokens or (talk.effort is not None and not can.adapts):
        drop(talk, "thinking")
    if output:
        body["output_config"] = output
    _sampling(body, talk, can)
    _rest(body, talk)
    mark_prefix(body, talk, unasked=talk.caching and can.claude)
    if stream:
        body["stream"] = True
    return UpstreamRequest(PATH, _encode(body), {"anthropic-version": VERSION})


def _check_prefill(turns: list[dict[str, Any]], can: Abilities) -> None:
    """A last turn of the assistant is gone on with, where the model does so; it must not end in white space."""
    last = turns[-1]
    if last["role"] != "assistant" or last["content"][-1]["type"] != "text":
        return
    if not can.prefills:
        raise BadRequest(REFUSED_WISHES["prefill"], param="messages")
    text = last["content"][-1]["text"].rstrip()
    if text:
        last["content"][-1] = {**last["content"][-1], "text": text}
    else:
        last["content"].pop()
        if not last["content"]:
            turns.pop()


def _tool(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name}
    if tool.description:
        told["description"] = tool.description
    if tool.custom:
        told["input_schema"] = _FREE_TEXT
        if tool.format is not None:
            told["description"] = (
                f"{tool.description or ''}\nThe input is free text: {bytes(tool.format).decode()}".strip()
            )
    else:
        told["input_schema"] = NO_ARGUMENTS if tool.schema is None else _object_schema(tool.schema)
    if tool.cache:
        told["cache_control"] = {"type": "ephemeral"}
    return told


def _object_schema(schema: msgspec.Raw) -> msgspec.Raw:
    """Arguments are an object, which the API wants to be said."""
    try:
        members = _members.decode(schema)
    except UNREADABLE:
        raise BadRequest(REFUSED_WISHES["schema"], param="tools") from None
    return schema if "type" in members else msgspec.Raw(object_bytes({"type": _OBJECT, **members}))


def _tool_choice(talk: Conversation) -> dict[str, Any] | None:
    choice: dict[str, Any]
    if talk.tool_named is not None:
        choice = {"type": "tool", "name": talk.tool_named}
    elif talk.tool_choice == "none":
        return {"type": "none"}
    elif talk.tool_choice == "required":
        choice = {"type": "any"}
    elif talk.tool_choice == "auto" or talk.parallel_tools is False:
        choice = {"type": "auto"}
    else:
        return None
    if talk.parallel_tools is not None:
        choice["disable_parallel_tool_use"] = not talk.parallel_tools
    return choice


def _output_config(talk: Conversation, can: Abilities, system: list[dict[str, Any]]) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if can.adapts and (word := effort_word(talk, can)):
        output["effort"] = word
    if talk.shape is not None:
        if talk.shape.schema is None:
            system.append({"type": "text", "text": ANY_JSON_NOTE})
        else:
            output["format"] = {"type": "json_schema", "schema": taken_schema(talk.shape.schema)}
    return output


def _sampling(body: dict[str, Any], talk: Conversation, can: Abilities) -> None:
    wanted = {"temperature": talk.temperature, "top_p": talk.top_p, "top_k": talk.top_k}
    refused = not can.samples or "thinking" in body
    for name, value in wanted.items():
        if value is None:
            continue
        if refused or (name == "top_p" and "temperature" in body and not can.samples_twice):
            drop(talk, name)
        elif name == "temperature" and value > MAX_TEMPERATURE:
            drop(talk, name)
            body[name] = MAX_TEMPERATURE
        else:
            body[name] = value


def _rest(body: dict[str, Any], talk: Conversation) -> None:
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        if getattr(talk, name) is not None:
            drop(talk, name)
    stops = [stop for stop in talk.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    if len(stops) < len(talk.stop):
        drop(talk, "stop")
    if talk.user is not None:
        if len(talk.user) <= MAX_USER_CHARS:
            body["metadata"] = {"user_id": talk.user}
        else:
            drop(talk, "user")
