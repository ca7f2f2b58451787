"""Which tools on offer a provider runs and bills by the piece (`core/types.SERVER_TOOLS`), in each dialect's words; and
which tier of its service is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from app.core.money import ORDINARY_TIER
from app.core.types import SERVICE_TIERS, ChatRequest

_DATE = re.compile(r"_(?:\d{8}|\d{4}_\d\d_\d\d)$")
"""`web_search_20250305` in Messages, `web_search_preview_2025_03_11` in Responses."""

CHAT: Final = {
    "web_search": "web_search",
    "web_search_preview": "web_search",
    "openrouter:web_search": "web_search",
    "browser_search": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_execution",
}
"""Chat Completions has no such tools at OpenAI; compatible providers do (Zhipu, OpenRouter, Groq)."""
RESPONSES: Final = {
    "web_search": "web_search",
    "web_search_preview": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_execution",
    "image_generation": "image_generation",
}
"""https://platform.openai.com/docs/pricing#built-in-tools"""
RESPONSES_CALLS: Final = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_execution",
    "shell_call": "code_execution",
    "image_generation_call": "image_generation",
}
"""The items of `output` that are uses of them."""
MESSAGES: Final = {"web_search": "web_search", "code_execution": "code_execution", "advisor": "advisor"}
"""https://platform.claude.com/docs/en/about-claude/pricing#specific-tool-pricing: fetching pages costs tokens alone.
What an advisor says is billed at the rates of another model, and is not in the reply's own count of tokens
(https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool)."""
MESSAGES_CALLS: Final = {
    "web_search": "web_search",
    "code_execution": "code_execution",
    "bash_code_execution": "code_execution",
    "text_editor_code_execution": "code_execution",
    "advisor": "advisor",
}
"""The names in `server_tool_use` blocks."""
GEMINI: Final = {
    "googleSearch": "web_search",
    "googleSearchRetrieval": "web_search",
    "enterpriseWebSearch": "web_search",
    "googleMaps": "maps",
}
"""https://ai.google.dev/gemini-api/docs/pricing: running code and reading pages cost tokens alone."""

CODE: Final = "code_execution"
"""Billed by the container in which code runs, not by what runs in it, so a container of a reply is one use
(https://platform.openai.com/docs/pricing, https://platform.claude.com/docs/en/about-claude/pricing#specific-tool-pricing)."""

SHOWN_RUNNING: Final = frozenset({"anthropic", "openai_responses"})
"""Dialects whose streams tell of each use as it happens; the others say at the end how many there were."""

TOGETHER: Final = "*"
"""Stands for all tools in `Prompt.tool_limits`: `max_tool_calls` of Responses counts the calls of all of them
(https://platform.openai.com/docs/api-reference/responses/create); `max_uses` of Messages is each tool's own."""
MAX_USES, MAX_TOOL_CALLS = "max_uses", "max_tool_calls"


class _Offered(msgspec.Struct):
    type: str | None = None
    max_uses: Any = None  # of a tool of the client's own it may be anything


_offered = msgspec.json.Decoder(_Offered)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_uses(request: ChatRequest, most: int) -> ChatRequest:
    """The request with no more than `most` uses of each billed tool (Messages), or of all together (Responses); a
    tighter limit of the client's stays."""
    members = dict(request.members)
    if request.dialect == "anthropic":
        offered = [_limited(tool, most) for tool in _raws.decode(members["tools"])]
        members["tools"] = msgspec.Raw(b"[" + b",".join(offered) + b"]")
    else:
        members[MAX_TOOL_CALLS] = msgspec.Raw(b"%d" % most)
    return msgspec.structs.replace(request, members=members)


def _limited(tool: msgspec.Raw, most: int) -> bytes:
    """The bytes of one tool of Messages; those of others stay, for prompt caches live on them."""
    shape = _offered.decode(tool)
    name = MESSAGES.get(_DATE.sub("", shape.type or ""))
    if name is None or name == CODE or (shape.max_uses is not None and shape.max_uses <= most):
        return bytes(tool)
    members = _members.decode(tool)
    members[MAX_USES] = msgspec.Raw(b"%d" % most)
    return msgspec.json.encode(members)


def service_tier(members: Mapping[str, msgspec.Raw], name: str) -> str | None:
    """The tier of service that this member asks for, where it has a price of its own."""
    if name not in members:
        return None
    asked = bytes(members[name]).strip(b'"').decode("latin-1").lower()
    return asked if asked in SERVICE_TIERS else None


def served_tier(told: object) -> str | None:
    """The tier of service in which a reply says that it was served, as prices know it; None where it does not say."""
    if not isinstance(told, str) or not told or told == "auto":
        return None
    return told if told in SERVICE_TIERS else ORDINARY_TIER


def messages_tier(speed: object, place: object) -> str | None:
    """The tier that Messages' `speed` and `inference_geo` make together, asked for or told; None where it is unknown or
    the ordinary one is asked for."""
    tier = served_tier(speed)
    if place != "us":
        return tier
    return "fast-us" if tier == "fast" else "us"


def billed_tools(offered: Iterable[str | None], table: Mapping[str, str]) -> tuple[str, ...]:
    """Our names of those among the offered types, each once."""
    found: dict[str, None] = {}
    for kind in offered:
        if kind is None or kind == "function":
            continue
        name = table.get(kind) or table.get(_DATE.sub("", kind))
        if name is not None:
            found[name] = None
    return tuple(found)
