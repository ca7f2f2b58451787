"""The members of a Responses request beside `input`, as a canonical conversation holds them."""

from __future__ import annotations

from typing import Literal

from app.core.conversation import Conversation, Shape, Tool
from app.core.errors import BadRequest
from app.core.raw import NULL
from app.core.types import ChatRequest
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.own import OWN, VERBOSITY
from app.dialects.openai_responses import shapes
from app.dialects.openai_responses.carried import CARRIED_MEMBERS, DROPPED_TOOLS, REFUSED_MEMBERS
from app.dialects.openai_responses.custom import as_function
from app.dialects.openai_responses.names import ToolNames, offered_tools
from app.dialects.openai_responses.shapes import Choice, ToolShape, given

_WORDS: dict[str, Literal["auto", "none", "required"]] = {"auto": "auto", "none": "none", "required": "required"}


def read_options(request: ChatRequest, talk: Conversation, names: ToolNames) -> None:
    """Everything but the messages. Raises BadRequest for what `carried` refuses."""
    members = request.members
    for name in members:
        if bytes(members[name]) == NULL:
            continue
        if name in REFUSED_MEMBERS:
            raise BadRequest(
                f"The parameter {name} cannot be followed by the chosen model's provider: {REFUSED_MEMBERS[name]}. "
                "Send the whole conversation as input.",
                param=name,
            )
        if name not in CARRIED_MEMBERS:
            talk.dropped.append(name)
    for name in ("temperature", "top_p"):
        if name in members:
            setattr(talk, name, field_of(shapes.number, members, name))
    own = [name for name in OWN if name in members and name != VERBOSITY]
    given_own = {name: field_of(shapes.optional_string, members, name) for name in own}
    talk.own = {name: value for name, value in given_own.items() if value}
    if "user" in members:
        talk.user = field_of(shapes.optional_string, members, "user")
    talk.user = talk.own.get("safety_identifier") or talk.user
    if "parallel_tool_calls" in members:
        talk.parallel_tools = field_of(shapes.flag, members, "parallel_tool_calls")
    _read_reasoning(request, talk)
    _read_shape(request, talk)
    _read_tools(request, talk, names)
    _read_choice(request, talk, names)


def _read_reasoning(request: ChatRequest, talk: Conversation) -> None:
    if "reasoning" in request.members and (wanted := field_of(shapes.reasoning, request.members, "reasoning")):
        talk.effort = wanted.effort
        talk.show_thoughts = bool(wanted.summary or wanted.generate_summary)


def _read_shape(request: ChatRequest, talk: Conversation) -> None:
    options = field_of(shapes.text_options, request.members, "text") if "text" in request.members else None
    if options is None:
        return
    if options.verbosity is not None:
        talk.own[VERBOSITY] = options.verbosity
    wanted = options.format
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        talk.shape = Shape()
    elif wanted.type == "json_schema" and given(wanted.schema):
        talk.shape = Shape(wanted.schema, wanted.name, wanted.strict)
    else:
        raise BadRequest(
            "The parameter text.format must be an object of type text, json_object or json_schema.", param="text.format"
        )


def _read_tools(request: ChatRequest, talk: Conversation, names: ToolNames) -> None:
    for namespace, tool, param in offered_tools(request):
        if tool.type in ("function", "custom"):
            if not tool.name:
                raise BadRequest(f"The parameter {param}.name is required.", param=f"{param}.name")
            talk.tools.append(_tool(tool, names.flat(namespace, tool.name)))
        elif _known(tool.type) in DROPPED_TOOLS:
            talk.dropped.append(f"tools.{tool.type}")
        else:
            raise BadRequest(
                f"The parameter {param} is a tool ({tool.type}) that only OpenAI runs; the chosen model is elsewhere.",
                param=param,
            )


def _tool(tool: ToolShape, name: str) -> Tool:
    """Hardly anyone but OpenAI has custom tools, so they travel as functions; the writer turns their calls back."""
    if tool.type == "custom":
        return as_function(name, tool.description, tool.format if given(tool.format) else None)
    return Tool(name, tool.description, tool.parameters if given(tool.parameters) else None, tool.strict)


def _known(kind: str) -> str:
    """The type without its date: `web_search_preview_2025_03_11`."""
    return next((name for name in DROPPED_TOOLS if kind.startswith(f"{name}_2")), kind)


def _read_choice(request: ChatRequest, talk: Conversation, names: ToolNames) -> None:
    if "tool_choice" not in request.members:
        return
    choice: str | Choice | None = field_of(shapes.choice, request.members, "tool_choice")
    if isinstance(choice, Choice):
        if choice.type == "allowed_tools":
            allowed = {names.flat(one.namespace, one.name or "") for one in choice.tools or ()}
            talk.tools = [tool for tool in talk.tools if tool.name in allowed]
            choice = choice.mode
        elif choice.type in ("function", "custom") and choice.name:
            talk.tool_named = names.flat(choice.namespace, choice.name)
            return
        else:
            raise BadRequest("The parameter tool_choice names a tool that only OpenAI runs.", param="tool_choice")
    if choice is not None and choice not in _WORDS:
        raise BadRequest(
            "The parameter tool_choice must be auto, none or required, or name a tool.", param="tool_choice"
        )
    talk.tool_choice = None if choice is None else _WORDS[choice]
    if talk.tool_choice == "required" and not talk.tools:
        raise BadRequest("The parameter tool_choice asks for a tool that only OpenAI runs.", param="tool_choice")
