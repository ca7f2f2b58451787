"""Marks for the prompt cache.

OpenAI and Google cache unasked, so their clients seldom mark anything; Claude caches only what is marked, and an
agent's whole prompt would be paid in full at every step. Four marks may be set: the tools, the system and the last two
turns of the user, of which the earlier one still holds where something is said at the end of one step only.
Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

import re
from typing import Any

from app.core.conversation import Conversation, Media, Text, Tool, ToolResult
from app.dialects.anthropic.turns import CACHE

_Block = dict[str, Any]
_MARK = "cache_control"
_MOST = 4
_TURNS = 2
_REFUSED = re.compile(rb"cache_control: extra inputs are not permitted|did not allow prompt caching")
"""Hosts of older models: https://github.com/earendil-works/pi/issues/7938 and
https://github.com/posit-dev/positron/issues/12142"""


def mark_prefix(body: dict[str, Any], talk: Conversation, *, unasked: bool) -> None:
    """Keep as many of the client's marks as may be: the first, which others share, and the last, where this
    conversation goes on. Where it set none (`unasked`) mark the prompt of a conversation that goes on."""
    tools, system, turns = body.get("tools", []), body.get("system", []), body["messages"]
    marked = [block for block in (*tools, *system, *_blocks(turns)) if _MARK in block]
    for block in marked[1 : len(marked) - _MOST + 1]:
        del block[_MARK]
    if not marked and unasked and _goes_on(talk):
        users = [turn["content"] for turn in turns if turn["role"] == "user"]
        for blocks in (tools, system, *users[-_TURNS:]):
            if blocks:
                blocks[-1][_MARK] = CACHE


def refuses_marks(body: bytes) -> bool:
    """Whether this error reply says that the model, or this server, has no cache to mark anything for."""
    return _REFUSED.search(body.lower()) is not None


def forget_marks(talk: Conversation) -> bool:
    """Mark nothing of this conversation, the client's own marks included; False where nothing can have been."""
    parts = [part for message in talk.messages for part in message.parts]
    inner = [said for part in parts if isinstance(part, ToolResult) for said in part.parts]
    marked: list[Tool | Text | Media | ToolResult] = [*talk.tools, *inner]
    marked += [part for part in parts if isinstance(part, Text | Media | ToolResult)]
    found = talk.caching or any(one.cache for one in marked)
    talk.caching = False
    for one in marked:
        one.cache = False
    return found


def _blocks(turns: list[_Block]) -> list[_Block]:
    return [block for turn in turns for block in turn["content"]]


def _goes_on(talk: Conversation) -> bool:
    """A mark costs a quarter more at first: a single question, or one whose tool is but the shape of its answer, has
    nothing to gain."""
    if any(message.role == "assistant" for message in talk.messages):
        return True
    return bool(talk.tools) and talk.tool_named is None and talk.tool_choice in (None, "auto")
