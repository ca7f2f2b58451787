"""Thinking that a model refuses to have back: another model's, another account's, or one whose prefix has changed.

A client sends thinking blocks back as they came; behind a gateway the next call may be another provider's that speaks
this dialect, or another account's, and what stood before a block may not be what it was made with. Then the request is
refused whole, and would be for ever. Without them the model thinks anew.
Sources: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking and
https://github.com/anthropics/claude-code/issues/63357
"""

from __future__ import annotations

import re

import msgspec

from app.core.conversation import Conversation, drop_thinking
from app.core.types import ChatRequest
from app.dialects.anthropic.patch import THOUGHT, without_thoughts_that
from app.dialects.openai_chat.render import object_bytes

_REFUSED = re.compile(
    rb"invalid `?(?:signature|data)`? in `?(?:redacted_)?thinking`? block"
    rb"|`?thinking`? or `?redacted_thinking`? blocks in the latest assistant message cannot be modified"
    rb"|each thinking block must contain"
)

_MISSED = re.compile(
    rb"content\[\]\.thinking.{0,60}must be passed back"
    rb"|expected `?thinking`? or `?redacted_thinking`?, but found"
)
"""DeepSeek's words, and Claude's of a budget for thinking in a tool loop that began without:
https://github.com/SuperJJ007/CSSwitch/pull/73 and
https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks"""


class _Thinking(msgspec.Struct):
    type: str = ""


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_thinking = msgspec.json.Decoder(_Thinking | None)


def refuses_thoughts(body: bytes) -> bool:
    """Whether this error reply says that thinking blocks of the request are not taken."""
    return _REFUSED.search(body.lower()) is not None


def misses_thoughts(body: bytes) -> bool:
    """Whether this error reply says that the conversation lacks thinking that the client no longer has."""
    return _MISSED.search(body.lower()) is not None


def unthinking(body: bytes) -> bytes:
    """The request to a model that is not to think."""
    return object_bytes({**_members.decode(body), "thinking": msgspec.Raw(b'{"type":"disabled"}')})


def without_thoughts(request: ChatRequest) -> ChatRequest | None:
    """The request without its thinking blocks; None where it has none to leave out."""
    messages = request.members["messages"]
    if not THOUGHT.search(messages):
        return None
    bare = without_thoughts_that(messages, lambda _: True)
    if bare == messages:
        return None
    members = {**request.members, "messages": bare}
    # With a budget, an open tool loop must begin with thinking.
    if request.prompt.in_tool_loop and "thinking" in members:
        thinking = _thinking.decode(members["thinking"])
        if thinking is not None and thinking.type == "enabled":
            del members["thinking"]
    return msgspec.structs.replace(request, members=members)


def forget_thoughts(talk: Conversation) -> bool:
    """Take the thinking out of a conversation of another dialect; False where there is none."""
    return drop_thinking(talk)
