"""OpenAI Chat Completions, request side: bytes to ChatRequest, bad input to a clear error.

Only what the gateway needs is decoded; every top-level member keeps its bytes (`msgspec.Raw`), so that
unknown fields and prompt prefixes reach an upstream of the same dialect unchanged.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.errors import BadRequest
from app.core.mend import well_formed
from app.core.money import nano_from_usd
from app.core.raw import ABSENT
from app.core.types import ChatRequest, Prompt
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_chat.routing import read_models, read_placement
from app.dialects.server_tools import CHAT, billed_tools, service_tier

LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")
LLAMACPP_LIMIT = "n_predict"
"""llama.cpp's own name for the limit, which it takes before the others: a clamp beside it would clamp nothing."""
MAX_TASK_ID_CHARS = 200
MAX_CHOICES = 128
"""The largest `n` that the API takes."""
MAX_LIMIT = 2**31 - 1
"""No model writes as many tokens; beyond it an amount of money would not fit the ledger."""

_SEARCHING = frozenset(("web_search_options", "plugins", "search_parameters", "enable_search"))
"""Members that make a provider search: OpenAI's and Perplexity's, and those of OpenRouter, xAI and Alibaba."""
"""Stands for an absent member: msgspec does not decode a union of Raw and null."""


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    image_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT
    file: msgspec.Raw = ABSENT


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part | str] | None = None
    tool_calls: msgspec.Raw = ABSENT


class _Offered(msgspec.Struct):
    type: Any = None


class _ResponseFormat(msgspec.Struct):
    type: str = "text"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[_Message])
_tools = msgspec.json.Decoder(list[_Offered])
_format = msgspec.json.Decoder(_ResponseFormat | None)
_options = msgspec.json.Decoder(_StreamOptions | None)
_metadata = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_optional_string = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_integer = msgspec.json.Decoder(int | None)
_dollars = msgspec.json.Decoder(int | float | str | None)


def members_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of a JSON object; BadRequest for anything else."""
    try:
        return _members.decode(body)
    except msgspec.ValidationError:
        raise BadRequest("The body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        if (mended := well_formed(body)) is not None:
            return members_of(mended)
        raise BadRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest("The body's JSON is nested too deeply.") from None


def asking_for(model: str, body: bytes) -> bytes:
    """The body with another model. Raises BadRequest."""
    return object_bytes({**members_of(body), "model": msgspec.Raw(msgspec.json.encode(model))})


def parse_chat(body: bytes) -> ChatRequest:
    """One request body as a ChatRequest. Raises BadRequest naming the parameter at fault."""
    members = members_of(body)
    if "messages" not in members:
        raise BadRequest("The parameter messages is required.", param="messages")
    model, others = read_models(members)
    messages = field_of(_messages, members, "messages")
    if not messages:
        raise BadRequest("The parameter messages must hold at least one message.", param="messages")
    options = field_of(_options, members, "stream_options") if "stream_options" in members else None
    choices = _positive(members, "n", MAX_CHOICES)
    output_limit, limit_fields = _limits(members)
    return ChatRequest(
        members=members,
        model=model,
        stream=bool(field_of(_flag, members, "stream")) if "stream" in members else False,
        show_usage=bool(options and options.include_usage),
        choices=1 if choices is None else choices,
        output_limit=output_limit,
        limit_fields=limit_fields,
        prompt=_prompt(members, messages),
        max_cost_nano=max_cost_of(members),
        task_id=task_id_of(members),
        others=others,
    )


def _limits(members: dict[str, msgspec.Raw]) -> tuple[int | None, tuple[str, ...]]:
    """The tightest of the client's output limits, and the fields they came in."""
    least: int | None = None
    fields: tuple[str, ...] = ()
    if LLAMACPP_LIMIT in members:
        heed_own_limit(members, "max_completion_tokens" if "max_completion_tokens" in members else "max_tokens")
    for name in LIMIT_FIELDS:
        limit = _positive(members, name, MAX_LIMIT) if name in members else None
        if limit is not None:
            least, fields = limit if least is None or limit < least else least, (*fields, name)
    return least, fields


def heed_own_limit(members: dict[str, msgspec.Raw], field: str) -> None:
    """llama.cpp's own limit under the name that all servers know; where both are there, the tighter. Below 0 it is
    none."""
    own: int | None = field_of(_integer, members, LLAMACPP_LIMIT)
    del members[LLAMACPP_LIMIT]
    if own is None or own < 0:
        return
    asked: int | None = field_of(_integer, members, field) if field in members else None
    members[field] = msgspec.Raw(b"%d" % (own if asked is None else min(own, asked)))


def max_cost_of(members: dict[str, msgspec.Raw]) -> int | None:
    """The body's own cap for this request, `max_cost_usd`, in nano-dollars."""
    if "max_cost_usd" not in members:
        return None
    value = field_of(_dollars, members, "max_cost_usd")
    return None if value is None else parse_dollars(value, "max_cost_usd")


def parse_dollars(value: float | int | str, param: str) -> int:
    """An amount given by a client, in nano-dollars; BadRequest naming `param`."""
    try:
        if isinstance(value, str) and "_" in value:
            raise ValueError("an amount in dollars must be a number")
        return nano_from_usd(value)
    except ValueError as error:
        raise BadRequest(f"The parameter {param} is wrong: {error}.", param=param) from None


def checked_task_id(value: str, param: str) -> str:
    """A task id given by a client: printable, at most 200 characters, no pipe; BadRequest naming `param`."""
    if not value or len(value) > MAX_TASK_ID_CHARS or not value.isprintable() or "|" in value:
        raise BadRequest(f"The parameter {param} must be printable, not too long, and hold no pipe.", param=param)
    return value


def task_id_of(members: dict[str, msgspec.Raw]) -> str | None:
    """The body's own task, `metadata.task_id`. Raises BadRequest."""
    if "metadata" not in members:
        return None
    metadata = field_of(_metadata, members, "metadata")
    if not metadata or "task_id" not in metadata:
        return None
    value = field_of(_optional_string, metadata, "task_id", prefix="metadata.")
    return None if value is None else checked_task_id(value, "metadata.task_id")


def _positive(members: dict[str, msgspec.Raw], name: str, most: int) -> int | None:
    if name not in members:
        return None
    value: int | None = field_of(_integer, members, name)
    if value is not None and value < 1:
        raise BadRequest(f"The parameter {name} must be a positive integer.", param=name)
    if value is not None and value > most:
        raise BadRequest(f"The parameter {name} is too large.", param=name)
    return value


def _prompt(members: dict[str, msgspec.Raw], messages: list[_Message]) -> Prompt:
    prompt = Prompt(messages=len(messages), text_bytes=len(members["messages"]))
    system: list[str] = []
    users: list[str] = []
    total_chars = 0
    for message in messages:
        content = message.content
        text = content if isinstance(content, str) else _text_of(content, prompt) if content else ""
        if message.role in ("system", "developer"):
            system.append(text)
            continue
        prompt.turns += 1
        total_chars += len(text) + len(message.tool_calls)
        if message.role == "user":
            users.append(text)
    prompt.system = "\n".join(system)
    if users:
        prompt.first_user, prompt.last_user = users[0], users[-1]
    prompt.history_chars = total_chars - len(prompt.last_user)
    prompt.in_tool_loop = messages[-1].role in ("tool", "function")
    for name in ("tools", "functions"):
        if name in members and bytes(members[name]) != b"null":
            offered: list[_Offered] = field_of(_tools, members, name)
            prompt.tools += len(offered)
            kinds = [tool.type for tool in offered if type(tool.type) is str and tool.type != "function"]
            prompt.server_tools += billed_tools(kinds, CHAT) if kinds else ()
            prompt.tool_schema_bytes += len(members[name])
    prompt.text_bytes += prompt.tool_schema_bytes
    if "service_tier" in members:
        prompt.service_tier = service_tier(members, "service_tier")
    if not _SEARCHING.isdisjoint(members):
        _read_searches(members, prompt)
    if "response_format" in members:
        wanted = field_of(_format, members, "response_format")
        kind = wanted.type if wanted else "text"
        prompt.wants_json, prompt.wants_schema = kind != "text", kind == "json_schema"
        prompt.text_bytes += len(members["response_format"])
    if "modalities" in members:
        wanted = bytes(members["modalities"])
        prompt.speaks = b'"audio"' in wanted or b'"image"' in wanted
    if "reasoning_effort" in members:
        prompt.reasoning_effort = field_of(_optional_string, members, "reasoning_effort")
    if "provider" in members:
        prompt.placement = read_placement(members)
    return prompt


def _read_searches(members: dict[str, msgspec.Raw], prompt: Prompt) -> None:
    """What `_SEARCHING` says; xAI's may be there to switch it off."""
    found = {name: bytes(members[name]) for name in _SEARCHING if name in members}
    given = {name: said for name, said in found.items() if said != b"null"}
    prompt.searches = "web_search_options" in given
    searching = (
        prompt.searches
        or b'"web"' in given.get("plugins", b"")
        or b'"off"' not in given.get("search_parameters", b'"off"')
        or given.get("enable_search") == b"true"
    )
    if searching and "web_search" not in prompt.server_tools:
        prompt.server_tools += ("web_search",)


def _text_of(parts: list[_Part | str], prompt: Prompt) -> str:
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.text is not None:
            texts.append(part.text)
        if isinstance(part, str):
            continue
        for attached in (part.image_url, part.input_audio, part.file):
            if attached and bytes(attached) != b"null":
                prompt.attachments += 1
                prompt.images += attached is part.image_url
                prompt.hears = prompt.hears or attached is part.input_audio
                prompt.text_bytes -= len(attached)
    return "\n".join(texts)
