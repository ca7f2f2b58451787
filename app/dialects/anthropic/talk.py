"""A Messages request as a Conversation, whole: for upstreams of other dialects.

What cannot be carried is refused or dropped by `table.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.core.conversation import Conversation, Message, Part, Role, Shape, Text, Tool
from app.core.errors import BadRequest
from app.core.raw import ABSENT
from app.core.types import ChatRequest
from app.dialects.anthropic.blocks import Block, BlockReader
from app.dialects.anthropic.models import BETWEEN_TOOLS, DISABLED
from app.dialects.anthropic.table import CARRIED_MEMBERS, DROPPED_TOOLS, REFUSED_MEMBERS
from app.dialects.anthropic.user_id import session_of
from app.dialects.openai_chat.fields import field_of

_Members = dict[str, msgspec.Raw]
_BILLING = "x-anthropic-billing-header:"
_ANY_OBJECT = msgspec.Raw(b'{"type":"object"}')
_EMPTY = frozenset((b"null", b"[]", b"{}", b'""', b"false"))


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class _Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None
    cache_control: Any = None


class _Choice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: Literal["json_schema"]
    schema: msgspec.Raw
    name: str | None = None


class _Output(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None
    task_budget: Any = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


_decoder = msgspec.json.Decoder
_messages = _decoder(list[_Message])
_system = _decoder(str | list[Block] | None)
_typed = _decoder(list[msgspec.Raw] | None)
_tool = _decoder(_Tool)
_choice = _decoder(_Choice | None)
_thinking = _decoder(_Thinking | None)
_output = _decoder(_Output | None)
_format = _decoder(_Format | None)
_metadata = _decoder(_Metadata | None)
_stops = _decoder(list[str] | None)
_number = _decoder(float | None)
_integer = _decoder(int | None)
_kinds = _decoder(dict[str, msgspec.Raw])
_string = _decoder(str)


def conversation_of(request: ChatRequest) -> Conversation:
    """The whole of a request. Raises BadRequest for what is wrong, or cannot go to an upstream of another dialect."""
    members = request.members
    if bytes(members.get("max_tokens", b"")) == b"0":
        message = "The parameter max_tokens may be zero only for this dialect's own provider, whose cache it fills."
        raise BadRequest(message, param="max_tokens")
    reader = BlockReader()
    talk = Conversation(_turns(members, reader), dropped=reader.dropped)
    _read_tools(members, talk)
    _read_thinking(members, talk, reader)
    _read_sampling(members, talk)
    _read_user(members, talk, reader)
    for name, value in members.items():
        if name not in CARRIED_MEMBERS and bytes(value) not in _EMPTY:
            if name in REFUSED_MEMBERS:
                why = REFUSED_MEMBERS[name]
                message = f"The parameter {name} cannot go to this model, which another provider serves: {why}."
                raise BadRequest(message, param=name)
            reader.drop(name)
    return talk


def _turns(members: _Members, reader: BlockReader) -> list[Message]:
    turns: list[Message] = []
    system = field_of(_system, members, "system") if "system" in members else None
    if system:
        turns.append(Message("system", _without_billing(reader.parts(system, "system"), reader)))
    for place, message in enumerate(field_of(_messages, members, "messages")):
        role: Role = message.role
        turns.append(Message(role, reader.parts(message.content, f"messages[{place}].content")))
    return [turn for turn in turns if turn.parts]


def _without_billing(parts: list[Part], reader: BlockReader) -> list[Part]:
    """Without the block that Claude Code puts first for its maker's accounts: other providers would only lose their
    prompt caches by it."""
    kept = [part for part in parts if not (isinstance(part, Text) and part.text.startswith(_BILLING))]
    if len(kept) < len(parts):
        reader.drop("billing header")
    return kept


def _read_tools(members: _Members, talk: Conversation) -> None:
    for place, raw in enumerate(field_of(_typed, members, "tools") or () if "tools" in members else ()):
        where = f"tools[{place}]"
        kind = _kind_of(raw, where)
        if kind is None or kind == "custom":
            tool = field_of(_tool, {where: raw}, where)
            schema = tool.input_schema or _ANY_OBJECT
            cache = tool.cache_control is not None
            talk.tools.append(Tool(tool.name, tool.description, schema, tool.strict, cache=cache))
        elif kind.startswith(tuple(DROPPED_TOOLS)):
            talk.dropped.append(kind)
        else:
            message = f"The parameter {where}.type is wrong: this tool is only there with the dialect's own provider."
            raise BadRequest(message, param=f"{where}.type")
    choice = field_of(_choice, members, "tool_choice") if "tool_choice" in members else None
    if choice is None:
        return
    if choice.disable_parallel_tool_use is not None:
        talk.parallel_tools = not choice.disable_parallel_tool_use
    match choice.type:
        case "tool":
            if choice.name is None:
                raise BadRequest("The parameter tool_choice.name is required.", param="tool_choice.name")
            talk.tool_named = choice.name
        case "any":
            talk.tool_choice = "required"
        case "auto" | "none":
            talk.tool_choice = choice.type


def _kind_of(raw: msgspec.Raw, where: str) -> str | None:
    fields = field_of(_kinds, {where: raw}, where)
    kind = fields.get("type")
    if kind is None or bytes(kind) == b"null":
        return None
    found: str = field_of(_string, {"type": kind}, "type", prefix=f"{where}.")
    return found


def _read_thinking(members: _Members, talk: Conversation, reader: BlockReader) -> None:
    thinking = field_of(_thinking, members, "thinking") if "thinking" in members else None
    if thinking is not None and thinking.type in ("enabled", "adaptive"):
        talk.think_tokens = thinking.budget_tokens
        talk.show_thoughts = thinking.display != "omitted"
    quiet = thinking is not None and thinking.type in (DISABLED, BETWEEN_TOOLS)
    output = field_of(_output, members, "output_config") if "output_config" in members else None
    shape = output.format if output else None
    if output is not None:
        talk.effort = output.effort
        if output.task_budget is not None:
            reader.drop("output_config.task_budget")
    if quiet:
        talk.effort = "none"  # elsewhere the effort alone says so, and without a word many models think
    if shape is None and "output_format" in members:
        shape = field_of(_format, members, "output_format")
    if shape is not None:
        talk.shape = Shape(shape.schema, shape.name, strict=True)


def _read_sampling(members: _Members, talk: Conversation) -> None:
    if "stop_sequences" in members:
        talk.stop = field_of(_stops, members, "stop_sequences") or []
    if "temperature" in members:
        talk.temperature = field_of(_number, members, "temperature")
    if "top_p" in members:
        talk.top_p = field_of(_number, members, "top_p")
    if "top_k" in members:
        talk.top_k = field_of(_integer, members, "top_k")


def _read_user(members: _Members, talk: Conversation, reader: BlockReader) -> None:
    metadata = field_of(_metadata, members, "metadata") if "metadata" in members else None
    if metadata is None or not metadata.user_id:
        return
    if session_of(metadata.user_id) is not None:
        reader.drop("metadata.user_id")
    else:
        talk.user = metadata.user_id
