"""OpenAI Responses, request side: bytes to ChatRequest, bad input to a clear error.

Only what routing and metering need is decoded; items of kinds that are not known here pass to an upstream of the same
dialect. Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.core.errors import BadRequest
from app.core.raw import NULL
from app.core.stored import Stored
from app.core.types import ChatRequest, Prompt
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.parse import MAX_LIMIT, _positive, max_cost_of, members_of, task_id_of
from app.dialects.openai_chat.routing import read_models, read_placement
from app.dialects.openai_responses import shapes
from app.dialects.openai_responses.shapes import Content, Item, Part, given
from app.dialects.server_tools import MAX_TOOL_CALLS, RESPONSES, TOGETHER, billed_tools, service_tier

LIMIT_FIELD = "max_output_tokens"
NAME = "openai_responses"
FORWARDED_HEADERS = ("openai-beta",)
_WITHOUT_INPUT = ("previous_response_id", "conversation", "prompt")
"""With one of these the conversation is at the provider, and `input` may be left out."""
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_Members = dict[str, msgspec.Raw]


def parse_responses(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """One request body as a ChatRequest. Raises BadRequest naming the parameter at fault."""
    return parse_members(members_of(body), headers)


def parse_members(members: _Members, headers: Mapping[str, str], stored: Stored | None = None) -> ChatRequest:
    """The same, of its members; `stored`: what it has to do with responses that are stored here."""
    model, others = read_models(members)
    if "background" in members and field_of(shapes.flag, members, "background"):
        raise BadRequest(
            "The parameter background is not supported: a reply is made while its client waits.", param="background"
        )
    limit = _positive(members, LIMIT_FIELD, MAX_LIMIT)
    return ChatRequest(
        members=members,
        model=model,
        stream=bool(field_of(shapes.flag, members, "stream")) if "stream" in members else False,
        show_usage=True,
        choices=1,
        output_limit=limit,
        limit_fields=() if limit is None else (LIMIT_FIELD,),
        prompt=_prompt(members, _items(members)),
        max_cost_nano=max_cost_of(members),
        task_id=task_id_of(members),
        dialect=NAME,
        forward={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
        session=_string(members, "prompt_cache_key"),
        others=others,
        stored=stored,
    )


def _string(members: _Members, name: str) -> str | None:
    value: str | None = field_of(shapes.optional_string, members, name) if name in members else None
    return value


def _items(members: _Members) -> str | list[Item]:
    if "input" not in members:
        if not any(name in members and bytes(members[name]) != NULL for name in _WITHOUT_INPUT):
            raise BadRequest("The parameter input is required.", param="input")
        return []
    items: str | list[Item] = field_of(shapes.items, members, "input")
    return items


def content_of(raw: msgspec.Raw, param: str) -> Content:
    """A content that is a string or a list of parts; BadRequest naming `param`."""
    content: Content = field_of(shapes.content, {param: raw}, param) if raw else None
    return content


def _prompt(members: _Members, items: str | list[Item]) -> Prompt:
    prompt = Prompt(text_bytes=len(members.get("input", b"")))
    system: list[str] = []
    users: list[str] = []
    if instructions := _string(members, "instructions"):
        system.append(instructions)
        prompt.text_bytes += len(members["instructions"])
    if isinstance(items, str):
        items = [Item(role="user", content=members["input"])]
    total_chars = 0
    for place, item in enumerate(items):
        text = _text_of(item, place, prompt)
        if item.role in ("system", "developer"):
            system.append(text)
            continue
        total_chars += len(text) + len(item.arguments) + len(item.input or "")
        prompt.turns += 1
        if item.role == "user":
            users.append(text)
    prompt.messages = len(items) + ("instructions" in members)
    prompt.system = "\n".join(system)
    if users:
        prompt.first_user, prompt.last_user = users[0], users[-1]
    prompt.history_chars = total_chars - len(prompt.last_user)
    prompt.in_tool_loop = bool(items) and items[-1].kind.endswith("_output")
    _add_options(prompt, members)
    return prompt


def _add_options(prompt: Prompt, members: _Members) -> None:
    if "tools" in members and (offered := field_of(shapes.tools, members, "tools")):
        prompt.tools = sum(len(tool.tools) if tool.tools is not None else 1 for tool in offered)
        prompt.server_tools = billed_tools([tool.billed_as for tool in offered], RESPONSES)
        prompt.tool_schema_bytes = len(members["tools"])
        prompt.text_bytes += prompt.tool_schema_bytes
        if prompt.server_tools and (most := _most_calls(members)) is not None:
            prompt.tool_limits = ((TOGETHER, most),)
    prompt.service_tier = service_tier(members, "service_tier")
    if "text" in members and (options := field_of(shapes.text_options, members, "text")) and options.format:
        prompt.wants_json = options.format.type != "text"
        prompt.wants_schema = options.format.type == "json_schema"
        prompt.text_bytes += len(members["text"])
    if "reasoning" in members and (reasoning := field_of(shapes.reasoning, members, "reasoning")):
        prompt.reasoning_effort = reasoning.effort
    if "provider" in members:
        prompt.placement = read_placement(members)


def _most_calls(members: _Members) -> int | None:
    if MAX_TOOL_CALLS not in members:
        return None
    most: int | None = field_of(shapes.optional_integer, members, MAX_TOOL_CALLS)
    if most is not None and most < 0:
        raise BadRequest(f"The parameter {MAX_TOOL_CALLS} must not be negative.", param=MAX_TOOL_CALLS)
    return most


def _text_of(item: Item, place: int, prompt: Prompt) -> str:
    """The text of a message or of a tool's output; attachments are counted and taken off `text_bytes`."""
    if item.kind == "message":
        content = content_of(item.content, f"input[{place}].content")
    elif item.kind in _OUTPUTS and given(item.output):
        content = content_of(item.output, f"input[{place}].output")
    else:
        return ""
    if not isinstance(content, list):
        return content or ""
    for part in content:
        _count(part, prompt)
    return "\n".join(part.text for part in content if part.text is not None)


def _count(part: Part, prompt: Prompt) -> None:
    sound = part.input_audio.get("data") if part.input_audio else None
    attached = (part.image_url, part.file_data, part.file_url, part.file_id, sound)
    if any(attached):
        prompt.attachments += 1
        prompt.images += part.type == "input_image"
        prompt.hears = prompt.hears or bool(sound)
        prompt.text_bytes -= sum(len(value) for value in attached if value)
