"""Gemini's generateContent, request side: bytes and path to ChatRequest, bad input to a clear error.

Only what the gateway needs is decoded, in either spelling of each name; every top-level member keeps its bytes.
Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.core.errors import BadRequest, NotFound
from app.core.raw import ABSENT, UNREADABLE
from app.core.types import ChatRequest, Prompt
from app.dialects.gemini.paths import COUNT, GENERATE, STREAM, bare_model, wants_array
from app.dialects.gemini.values import Members, items_in, members_in, set_members, text_in
from app.dialects.openai_chat.fields import check_model, field_of
from app.dialects.openai_chat.parse import MAX_LIMIT, checked_task_id, max_cost_of, members_of
from app.dialects.server_tools import GEMINI, billed_tools, service_tier

MAX_CHOICES = 8
"""The largest `candidateCount` that the API takes."""
ROLES = {"user": "user", "model": "assistant", "function": "user", "system": "system"}
"""Content without a role is the user's; `function` was the role of responses in the first versions."""
_ENDS_BYTES = 200


class _Part(msgspec.Struct):
    text: str | None = None
    inline: msgspec.Raw = msgspec.field(name="inlineData", default=ABSENT)
    inline_snake: msgspec.Raw = msgspec.field(name="inline_data", default=ABSENT)
    file: msgspec.Raw = msgspec.field(name="fileData", default=ABSENT)
    file_snake: msgspec.Raw = msgspec.field(name="file_data", default=ABSENT)
    call: msgspec.Raw = msgspec.field(name="functionCall", default=ABSENT)
    call_snake: msgspec.Raw = msgspec.field(name="function_call", default=ABSENT)
    response: msgspec.Raw = msgspec.field(name="functionResponse", default=ABSENT)
    response_snake: msgspec.Raw = msgspec.field(name="function_response", default=ABSENT)


class _Content(msgspec.Struct):
    role: str | None = None
    parts: list[_Part] | _Part | None = None


class _Response(msgspec.Struct):
    parts: list[_Part] | _Part | None = None


_contents = msgspec.json.Decoder(list[_Content] | _Content)
_system = msgspec.json.Decoder(_Content | str)
_response = msgspec.json.Decoder(_Response)
_integer = msgspec.json.Decoder(int)
_metadata = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_optional_string = msgspec.json.Decoder(str | None)


class _Counted(msgspec.Struct):
    totalTokens: int


_counted = msgspec.json.Decoder(_Counted)


def parse_generate(body: bytes, path: Mapping[str, str]) -> ChatRequest:
    """One request; `path` holds the URL's `model` and `verb`, and `alt` of its query. Raises BadRequest, NotFound."""
    verb = path.get("verb", GENERATE)
    if verb not in (GENERATE, STREAM):
        raise NotFound("No such method of a model.")
    return _request(members_of(body), path, stream=verb == STREAM, array=wants_array(path))


def parse_count(body: bytes, path: Mapping[str, str]) -> ChatRequest:
    """A request of `countTokens`, which holds contents alone or a whole `generateContentRequest`."""
    if path.get("verb", COUNT) != COUNT:
        raise NotFound("No such method of a model.")
    members = members_of(body)
    for name in ("generateContentRequest", "generate_content_request"):
        if name in members:
            members = members_of(bytes(members[name]))
            break
    return _request(members, path, stream=False, array=False)


def count_reply(total_tokens: int) -> bytes:
    """The reply of `countTokens`."""
    return b'{"totalTokens":%d}' % total_tokens


def counted(body: bytes) -> int | None:
    """What a provider counted; None where its reply says something else."""
    try:
        return _counted.decode(body).totalTokens
    except UNREADABLE:
        return None


def _request(members: dict[str, msgspec.Raw], path: Mapping[str, str], *, stream: bool, array: bool) -> ChatRequest:
    top = set_members(members)
    model = bare_model(path.get("model", ""))
    check_model(model)
    if "contents" not in top:
        raise BadRequest("The parameter contents is required.", param="contents")
    config = members_in(top["generationConfig"], "generationConfig") if "generationConfig" in top else {}
    limit = _positive(config, "maxOutputTokens", MAX_LIMIT)
    return ChatRequest(
        members=members,
        model=model,
        stream=stream,
        show_usage=True,
        choices=_positive(config, "candidateCount", MAX_CHOICES) or 1,
        output_limit=limit,
        limit_fields=() if limit is None else ("generationConfig.maxOutputTokens",),
        prompt=_prompt(top, config),
        max_cost_nano=max_cost_of(members),
        task_id=_task_id(members),
        dialect="gemini",
        array=array,
    )


def _positive(config: Members, name: str, most: int) -> int | None:
    if name not in config:
        return None
    value: int = field_of(_integer, config, name, "generationConfig.")
    if not 1 <= value <= most:
        problem = "must be a positive integer" if value < 1 else "is too large"
        raise BadRequest(f"The parameter generationConfig.{name} {problem}.", param=f"generationConfig.{name}")
    return value


def _task_id(members: dict[str, msgspec.Raw]) -> str | None:
    metadata = field_of(_metadata, members, "metadata") if "metadata" in members else None
    if not metadata or "task_id" not in metadata:
        return None
    value = field_of(_optional_string, metadata, "task_id", prefix="metadata.")
    return None if value is None else checked_task_id(value, "metadata.task_id")


def _prompt(top: Members, config: Members) -> Prompt:
    found = field_of(_contents, top, "contents")
    contents: list[_Content] = found if isinstance(found, list) else [found]
    if not contents:
        raise BadRequest("The parameter contents must hold at least one content.", param="contents")
    prompt = Prompt(messages=len(contents), text_bytes=len(top["contents"]))
    system, users, total_chars = [], [], 0
    if "systemInstruction" in top:
        prompt.text_bytes += len(top["systemInstruction"])
        told = field_of(_system, top, "systemInstruction")
        system.append(told if isinstance(told, str) else _text_of(told, prompt)[0])
    for place, content in enumerate(contents):
        role = ROLES.get(content.role or "user")
        if role is None:
            raise BadRequest("A content's role must be user or model.", param=f"contents[{place}].role")
        text, chars, answers = _text_of(content, prompt)
        if role == "system":
            system.append(text)
            continue
        prompt.turns += 1
        total_chars += chars
        prompt.in_tool_loop = answers
        if role == "user" and not answers:
            users.append(text)
    prompt.system = "\n".join(system)
    if users:
        prompt.first_user, prompt.last_user = users[0], users[-1]
    prompt.history_chars = total_chars - len(prompt.last_user)
    _add_tools(prompt, top)
    prompt.service_tier = service_tier(top, "serviceTier")
    _add_config(prompt, config)
    return prompt


def _text_of(content: _Content, prompt: Prompt) -> tuple[str, int, bool]:
    """The text, the characters with those of calls and responses, and whether functions are answered here."""
    texts, tool_chars, answers = [], 0, False
    for part in _listed(content.parts):
        if part.text is not None:
            texts.append(part.text)
        tool_chars += len(part.call) + len(part.call_snake) + len(part.response) + len(part.response_snake)
        answers = answers or bool(part.response) or bool(part.response_snake)
        _add_attached(part, prompt)
        for response in (part.response, part.response_snake):
            if len(response) > _ENDS_BYTES and b'"parts"' in bytes(response):
                for shown in _listed(field_of(_response, {"functionResponse": response}, "functionResponse").parts):
                    _add_attached(shown, prompt)
    text = "\n".join(texts)
    return text, len(text) + tool_chars, answers


def _listed(parts: list[_Part] | _Part | None) -> list[_Part]:
    return parts if isinstance(parts, list) else [parts] if parts else []


def _add_attached(part: _Part, prompt: Prompt) -> None:
    for attached in (part.inline, part.inline_snake, part.file, part.file_snake):
        if attached:
            prompt.attachments += 1
            # Only its ends are looked at: between them is the picture.
            view = memoryview(attached)
            ends = bytes(view[:_ENDS_BYTES]) + bytes(view[-_ENDS_BYTES:])
            prompt.images += b"image/" in ends
            prompt.hears = prompt.hears or b"audio/" in ends or b"video/" in ends
            prompt.text_bytes -= len(attached)


def _add_tools(prompt: Prompt, top: Members) -> None:
    if "tools" not in top:
        return
    prompt.tool_schema_bytes = len(top["tools"])
    prompt.text_bytes += prompt.tool_schema_bytes
    for place, item in enumerate(items_in(top["tools"], "tools")):
        tool = members_in(item, f"tools[{place}]")
        declared = tool.pop("functionDeclarations", None)
        prompt.tools += len(tool)
        prompt.server_tools += tuple(t for t in billed_tools(tool, GEMINI) if t not in prompt.server_tools)
        if declared is not None:
            prompt.tools += len(items_in(declared, f"tools[{place}].functionDeclarations"))


def _add_config(prompt: Prompt, config: Members) -> None:
    schema = next((config[name] for name in ("responseJsonSchema", "responseSchema") if name in config), None)
    prompt.wants_schema = schema is not None
    prompt.wants_json = prompt.wants_schema or (
        text_in(config, "responseMimeType", "generationConfig.") == "application/json"
    )
    prompt.text_bytes += len(schema) if schema is not None else 0
    wanted = bytes(config.get("responseModalities", b"")).upper()
    prompt.speaks = b"AUDIO" in wanted or b"IMAGE" in wanted
    if "thinkingConfig" in config:
        thinking = members_in(config["thinkingConfig"], "generationConfig.thinkingConfig")
        level = text_in(thinking, "thinkingLevel", "generationConfig.thinkingConfig.")
        prompt.reasoning_effort = level.lower() if level else None
