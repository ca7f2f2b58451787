"""Messages, request side: bytes to ChatRequest, bad input to a clear error.

As in `openai_chat/parse.py` only what the gateway needs is decoded, and every top-level member keeps its bytes.
Source: https://platform.claude.com/docs/en/api/messages/create and .../messages/count_tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app.core.errors import BadRequest, ThreadsNotHeld
from app.core.raw import ABSENT
from app.core.types import DEFAULT_FALLBACKS, ChatRequest, Prompt
from app.dialects.anthropic.effort import effort_of_budget
from app.dialects.anthropic.proof import ORIGIN
from app.dialects.anthropic.user_id import session_of
from app.dialects.openai_chat.fields import check_model, field_of
from app.dialects.openai_chat.parse import MAX_LIMIT, checked_task_id, max_cost_of, members_of
from app.dialects.server_tools import MAX_USES, MESSAGES, billed_tools, messages_tier, service_tier

VERSION = "2023-06-01"
"""The header is required; clients without an SDK forget it, and requests that we make ourselves have this one, which
still takes sampling parameters (https://platform.claude.com/docs/en/api/versioning: removed in 2026-10-21)."""
FORWARDED = ("anthropic-version", "anthropic-beta")
ROLES = frozenset(("user", "assistant", "system"))


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    source: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Offered(msgspec.Struct):
    type: str | None = None
    max_uses: Any = None


class _Fallback(msgspec.Struct):
    model: str
    max_tokens: int | None = None


class _Thinking(msgspec.Struct):
    type: str = "disabled"
    budget_tokens: int | None = None


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: msgspec.Raw = ABSENT


_messages = msgspec.json.Decoder(list[_Message])
_system = msgspec.json.Decoder(str | list[_Block] | None)
_tool_content = msgspec.json.Decoder(str | list[_Block] | None)
_tools = msgspec.json.Decoder(list[_Offered] | None)
_fallbacks = msgspec.json.Decoder(list[_Fallback] | str | None)
_thinking = msgspec.json.Decoder(_Thinking | None)
_output = msgspec.json.Decoder(_OutputConfig | None)
_metadata = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_string = msgspec.json.Decoder(str)
_optional_string = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_integer = msgspec.json.Decoder(int)


def parse_messages(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """A request to create a message. Raises BadRequest naming the parameter at fault."""
    members = members_of(body)
    if "thread" in members and bytes(members["thread"]) != b"null":
        # Of the turns that Anthropic holds neither price nor size would be known here, and no other could answer.
        raise ThreadsNotHeld("Threads are not held here: send the whole conversation without thread.", param="thread")
    request = _parsed(members, headers)
    if "max_tokens" not in members:
        raise BadRequest("The parameter max_tokens is required.", param="max_tokens")
    limit: int = field_of(_integer, members, "max_tokens")
    if not 0 <= limit <= MAX_LIMIT:
        raise BadRequest("The parameter max_tokens must be neither negative nor huge.", param="max_tokens")
    # Zero only fills the prompt cache: for one token is reserved, and `patch` asks for none.
    request.output_limit = max(limit, 1)
    request.limit_fields = ("max_tokens",)
    if "fallbacks" in members:
        _read_fallbacks(request)
    if "stream" in members:
        request.stream = bool(field_of(_flag, members, "stream"))
    return request


def _read_fallbacks(request: ChatRequest) -> None:
    """Who answers where the asked model declines, and the longest that one of them may make it."""
    found: list[_Fallback] | str | None = field_of(_fallbacks, request.members, "fallbacks")
    if isinstance(found, str):
        request.prompt.fallbacks = (DEFAULT_FALLBACKS,)
    elif found:
        request.prompt.fallbacks = tuple([one.model for one in found])
        for place, one in enumerate(found):
            if one.max_tokens is not None and not 0 < one.max_tokens <= MAX_LIMIT:
                param = f"fallbacks[{place}].max_tokens"
                raise BadRequest(f"The parameter {param} must be positive, and not huge.", param=param)
            request.output_limit = max(request.output_limit or 1, one.max_tokens or 0)


def parse_count(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """A request to count tokens: a message's without an output limit. Raises BadRequest naming the parameter."""
    return _parsed(members_of(body), headers)


def _parsed(members: dict[str, msgspec.Raw], headers: Mapping[str, str]) -> ChatRequest:
    for name in ("model", "messages"):
        if name not in members:
            raise BadRequest(f"The parameter {name} is required.", param=name)
    model = field_of(_string, members, "model")
    check_model(model)
    messages: list[_Message] = field_of(_messages, members, "messages")
    if not messages:
        raise BadRequest("The parameter messages must hold at least one message.", param="messages")
    for place, message in enumerate(messages):
        if message.role not in ROLES:
            param = f"messages[{place}].role"
            raise BadRequest(f"The parameter {param} must be user, assistant or system.", param=param)
    task_id, session = _task_and_session(members)
    return ChatRequest(
        members=members,
        model=model,
        stream=False,
        show_usage=True,
        choices=1,
        output_limit=None,
        limit_fields=(),
        prompt=_prompt(members, messages),
        max_cost_nano=max_cost_of(members),
        task_id=task_id,
        dialect=ORIGIN,
        forward={name: headers[name] for name in FORWARDED if name in headers},
        session=session,
    )


def _task_and_session(members: dict[str, msgspec.Raw]) -> tuple[str | None, str | None]:
    metadata = field_of(_metadata, members, "metadata") if "metadata" in members else None
    if not metadata:
        return None, None
    task_id = field_of(_optional_string, metadata, "task_id", prefix="metadata.") if "task_id" in metadata else None
    user_id = field_of(_optional_string, metadata, "user_id", prefix="metadata.") if "user_id" in metadata else None
    return (
        None if task_id is None else checked_task_id(task_id, "metadata.task_id"),
        None if user_id is None else session_of(user_id),
    )


def _prompt(members: dict[str, msgspec.Raw], messages: list[_Message]) -> Prompt:
    prompt = Prompt(messages=len(messages), text_bytes=len(members["messages"]))
    system: list[str] = []
    users: list[str] = []
    total_chars = 0
    if "system" in members:
        found = field_of(_system, members, "system")
        system.append(_text_of(found, prompt, "system") if found else "")
        prompt.text_bytes += len(members["system"])
    for place, message in enumerate(messages):
        text, results = _text_and_results(message, prompt, place)
        if message.role == "system":
            system.append(text)
            continue
        prompt.turns += 1
        total_chars += len(text) + results
        if message.role == "user" and text:
            users.append(text)
        prompt.in_tool_loop = message.role == "user" and _answers_tools(message)
    prompt.system = "\n".join(system)
    if users:
        prompt.first_user, prompt.last_user = users[0], users[-1]
    prompt.history_chars = max(total_chars - len(prompt.last_user), 0)
    _count_tools(members, prompt)
    _read_wishes(members, prompt)
    return prompt


def _answers_tools(message: _Message) -> bool:
    return not isinstance(message.content, str) and any(block.type == "tool_result" for block in message.content)


def _text_and_results(message: _Message, prompt: Prompt, place: int) -> tuple[str, int]:
    """What a turn says itself, and how many characters its tool results have."""
    if isinstance(message.content, str):
        return message.content, 0
    results = 0
    for position, block in enumerate(message.content):
        if block.type == "tool_result" and block.content:
            prefix = f"messages[{place}].content[{position}]."
            found = field_of(_tool_content, {"content": block.content}, "content", prefix=prefix)
            results += len(_text_of(found, prompt, "content")) if found else 0
    return _text_of(message.content, prompt, "messages"), results


def _text_of(content: str | list[_Block], prompt: Prompt, param: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if block.type == "text":
            if block.text is None:
                raise BadRequest(f"The parameter {param} has a text block without text.", param=param)
            texts.append(block.text)
        elif block.type in ("image", "document"):
            prompt.attachments += 1
            prompt.images += block.type == "image"
            prompt.text_bytes -= len(block.source)
    return "\n".join(texts)


def _count_tools(members: dict[str, msgspec.Raw], prompt: Prompt) -> None:
    tools: list[_Offered] | None = field_of(_tools, members, "tools") if "tools" in members else None
    if tools:
        prompt.tools = len(tools)
        prompt.server_tools = billed_tools([tool.type for tool in tools], MESSAGES)
        if prompt.server_tools:
            prompt.tool_limits = _limits_of(tools)
        prompt.tool_schema_bytes = len(members["tools"])
        prompt.text_bytes += prompt.tool_schema_bytes


def _limits_of(tools: list[_Offered]) -> tuple[tuple[str, int], ...]:
    """How often the client lets which of the provider's own tools be used."""
    found: list[tuple[str, int]] = []
    for place, tool in enumerate(tools):
        for name in billed_tools([tool.type], MESSAGES):
            if tool.max_uses is None:
                continue
            if isinstance(tool.max_uses, bool) or not isinstance(tool.max_uses, int) or tool.max_uses < 0:
                param = f"tools[{place}].{MAX_USES}"
                raise BadRequest(f"The parameter {param} must be an integer that is not negative.", param=param)
            found.append((name, tool.max_uses))
    return tuple(found)


def _read_wishes(members: dict[str, msgspec.Raw], prompt: Prompt) -> None:
    """The wanted shape and the depth of thought, for features and capability filters; and how fast it is to be."""
    place = service_tier(members, "inference_geo")
    prompt.service_tier = messages_tier(service_tier(members, "speed"), place)
    output = field_of(_output, members, "output_config") if "output_config" in members else None
    shape = output.format if output and output.format else members.get("output_format", ABSENT)
    if shape and bytes(shape) != b"null":
        prompt.wants_json = prompt.wants_schema = True
        prompt.text_bytes += len(shape)
    thinking = field_of(_thinking, members, "thinking") if "thinking" in members else None
    if output and output.effort:
        prompt.reasoning_effort = output.effort
    elif thinking and thinking.type == "enabled" and thinking.budget_tokens is not None:
        prompt.reasoning_effort = effort_of_budget(thinking.budget_tokens)
