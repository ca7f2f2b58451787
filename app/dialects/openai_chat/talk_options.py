"""OpenAI Chat Completions: tools, the answer's shape, sampling and effort, as a conversation holds them."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import Conversation, Shape, Tool
from app.core.errors import BadRequest
from app.core.raw import ABSENT, NO_ARGUMENTS
from app.core.types import ChatRequest
from app.dialects.openai_chat.carried import not_carried
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.own import OWN
from app.dialects.openai_chat.render import object_bytes


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    cache_control: Any = None


class _Custom(msgspec.Struct):
    name: str
    description: str | None = None
    format: msgspec.Raw = ABSENT


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None
    custom: _Custom | None = None
    cache_control: Any = None


class _Named(msgspec.Struct):
    name: str


class _Reference(msgspec.Struct):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None


class _Allowed(msgspec.Struct):
    mode: str = "auto"
    tools: list[_Reference] = []


class _Choice(msgspec.Struct):
    type: str = "function"
    name: str | None = None
    function: _Named | None = None
    custom: _Named | None = None
    allowed_tools: _Allowed | None = None


class _Schema(msgspec.Struct):
    name: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: str = "text"
    json_schema: _Schema | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    max_tokens: int | None = None
    exclude: bool | None = None
    enabled: bool | None = None


class _Thinking(msgspec.Struct):
    type: str | None = None
    budget_tokens: int | None = None


_tools = msgspec.json.Decoder(list[_Tool] | None)
_functions = msgspec.json.Decoder(list[_Function] | None)
_choice = msgspec.json.Decoder(str | _Choice | None)
_format = msgspec.json.Decoder(_Format | None)
_reasoning = msgspec.json.Decoder(_Reasoning | None)
_thinking = msgspec.json.Decoder(_Thinking | None)
_stop = msgspec.json.Decoder(str | list[str] | None)
_number = msgspec.json.Decoder(float | None)
_integer = msgspec.json.Decoder(int | None)
_flag = msgspec.json.Decoder(bool | None)
_word = msgspec.json.Decoder(str | None)
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw])


def legacy_functions(request: ChatRequest) -> bool:
    """The client speaks of functions as it was done before tools, and reads its answers so."""
    return "functions" in request.members and "tools" not in request.members


def custom_names(request: ChatRequest) -> frozenset[str]:
    """The tools that this client offers as custom ones, which take free text."""
    tools = request.members.get("tools")
    if tools is None or b'"custom"' not in bytes(tools):
        return frozenset()
    return frozenset(tool.custom.name for tool in _tools.decode(tools) or () if tool.custom is not None)


def read_options(talk: Conversation, request: ChatRequest) -> None:
    """Fill in everything but the messages. Raises BadRequest naming the parameter at fault."""
    members = request.members
    talk.dropped += not_carried(members)
    if request.task_id is not None and "metadata" in talk.dropped and len(field_of(_raws, members, "metadata")) == 1:
        talk.dropped.remove("metadata")
    talk.choices = request.choices
    _read_tools(talk, members)
    _read_tool_choice(talk, members)
    if legacy_functions(request):
        talk.parallel_tools = False  # an answer of the older kind has room for one call
    elif "parallel_tool_calls" in members:
        talk.parallel_tools = field_of(_flag, members, "parallel_tool_calls")
    _read_shape(talk, members)
    _read_effort(talk, members)
    stop = _optional(_stop, members, "stop")
    talk.stop = [stop] if isinstance(stop, str) else stop or []
    talk.temperature = _optional(_number, members, "temperature")
    talk.top_p = _optional(_number, members, "top_p")
    talk.top_k = _optional(_integer, members, "top_k")
    talk.seed = _optional(_integer, members, "seed")
    talk.presence_penalty = _optional(_number, members, "presence_penalty")
    talk.frequency_penalty = _optional(_number, members, "frequency_penalty")
    talk.own = {name: value for name in OWN if (value := _optional(_word, members, name))}
    talk.user = talk.own.get("safety_identifier") or _optional(_word, members, "user")


def _optional(decoder: msgspec.json.Decoder[Any], members: dict[str, msgspec.Raw], name: str) -> Any:
    return field_of(decoder, members, name) if name in members else None


def _given(raw: msgspec.Raw) -> bool:
    return bool(raw) and bytes(raw) != b"null"


def _read_tools(talk: Conversation, members: dict[str, msgspec.Raw]) -> None:
    for place, tool in enumerate(_optional(_tools, members, "tools") or ()):
        cache = tool.cache_control is not None
        if tool.type == "function" and tool.function is not None:
            talk.tools.append(_function(tool.function, cache))
        elif tool.type == "custom" and tool.custom is not None:
            custom = tool.custom
            grammar = _flat(custom.format, f"tools[{place}].custom.format") if _given(custom.format) else None
            talk.tools.append(Tool(custom.name, custom.description, custom=True, format=grammar, cache=cache))
        else:
            raise BadRequest(
                f"The parameter tools[{place}] is of a type that only its own provider can run.",
                param=f"tools[{place}].type",
            )
    talk.tools += [_function(function, False) for function in _optional(_functions, members, "functions") or ()]


def _function(function: _Function, cache: bool) -> Tool:
    schema = function.parameters if _given(function.parameters) else NO_ARGUMENTS
    cache = cache or function.cache_control is not None
    return Tool(function.name, function.description, schema, function.strict, cache=cache)


def _flat(given: msgspec.Raw, place: str) -> msgspec.Raw:
    """A custom tool's format as Responses writes it: chat puts the grammar's members one level deeper."""
    members: dict[str, msgspec.Raw] = field_of(_raws, {place: given}, place)
    grammar = members.pop("grammar", None)
    if grammar is None:
        return given
    return msgspec.Raw(object_bytes(members | field_of(_raws, {place: grammar}, place)))


def _read_tool_choice(talk: Conversation, members: dict[str, msgspec.Raw]) -> None:
    param = "tool_choice" if "tool_choice" in members else "function_call"
    choice: str | _Choice | None = _optional(_choice, members, param)
    if isinstance(choice, str):
        _set_mode(talk, choice, param)
    elif choice is not None and choice.type == "allowed_tools" and choice.allowed_tools is not None:
        allowed = choice.allowed_tools
        references = [reference.function or reference.custom for reference in allowed.tools]
        names = {reference.name for reference in references if reference is not None}
        talk.tools = [tool for tool in talk.tools if tool.name in names]
        _set_mode(talk, allowed.mode, f"{param}.allowed_tools.mode")
    elif choice is not None:
        named = choice.function or choice.custom
        talk.tool_named = named.name if named is not None else choice.name
        if not talk.tool_named:
            raise BadRequest(f"The parameter {param} must name a tool.", param=param)


def _set_mode(talk: Conversation, mode: str, param: str) -> None:
    if mode == "auto":
        talk.tool_choice = "auto"
    elif mode == "none":
        talk.tool_choice = "none"
    elif mode in ("required", "any"):  # Mistral's word
        talk.tool_choice = "required"
    else:
        raise BadRequest(f"The parameter {param} must be auto, none or required, or name a tool.", param=param)


def _read_shape(talk: Conversation, members: dict[str, msgspec.Raw]) -> None:
    wanted: _Format | None = _optional(_format, members, "response_format")
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        talk.shape = Shape()
    elif wanted.type == "json_schema" and wanted.json_schema is not None:
        given = wanted.json_schema
        schema = given.schema if _given(given.schema) else msgspec.Raw(b"{}")
        talk.shape = Shape(schema, given.name, given.strict)
    else:
        raise BadRequest("The parameter response_format is of a type that cannot be carried.", param="response_format")


def _read_effort(talk: Conversation, members: dict[str, msgspec.Raw]) -> None:
    """OpenAI's word, OpenRouter's object, or the `thinking` of Anthropic's, DeepSeek's and Zhipu's endpoints."""
    talk.effort = _optional(_word, members, "reasoning_effort")
    reasoning: _Reasoning | None = _optional(_reasoning, members, "reasoning")
    if reasoning is not None:
        talk.effort = talk.effort or reasoning.effort or ("none" if reasoning.enabled is False else None)
        talk.think_tokens = reasoning.max_tokens
        talk.show_thoughts = not reasoning.exclude
    thinking: _Thinking | None = _optional(_thinking, members, "thinking")
    if thinking is not None:
        talk.effort = talk.effort or ("none" if thinking.type == "disabled" else None)
        talk.think_tokens = talk.think_tokens or thinking.budget_tokens
        talk.show_thoughts = talk.show_thoughts or thinking.type != "disabled"
    talk.show_thoughts = talk.show_thoughts or bool(_optional(_flag, members, "include_reasoning"))
