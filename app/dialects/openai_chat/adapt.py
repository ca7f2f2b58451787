"""A Chat request on its way to another model than its client had in mind: what that one would refuse, and no more.

A client words its request for the name that it knows, which may be a route's; which model answers it cannot know.
Members that need no change keep their bytes and their place. Sources: see `models.py`.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from app.core.policy import ChatHabits
from app.core.raw import UNREADABLE
from app.dialects.openai_chat.models import Abilities, abilities_of, effort_for

_Members = dict[str, msgspec.Raw]
_DEFAULTS: Final = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""What OpenAI's reasoning models take of sampling: nothing but these values."""
_EFFORT: Final = "reasoning_effort"
_CONCERNED: Final = frozenset((*_DEFAULTS, _EFFORT))
_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_REASONING: Final = re.compile(rb'"(?:reasoning(?:_content|_details)?|thinking|extra_content)"\s*:')
_members = msgspec.json.Decoder(_Members)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_encode, _decode = msgspec.json.encode, msgspec.json.decode


def renamed(members: _Members, names: tuple[str, ...], field: str) -> _Members:
    """The members with the output limit under this one name, where the first of its names stood."""
    return {(field if name in names else name): value for name, value in members.items()}


def limit_name(names: tuple[str, ...], model: str, habits: ChatHabits) -> str | None:
    """The name under which the client's output limit, which it sent under `names`, is to go to this model; None: under
    its own. OpenAI's reasoning models refuse `max_tokens`, wherever they are served."""
    if habits.only:
        return habits.limit_field if names != (habits.limit_field,) else None
    reasons = "max_tokens" in names and not abilities_of(model).samples
    return "max_completion_tokens" if reasons else None


def without_reasoning(messages: msgspec.Raw) -> msgspec.Raw:
    """The messages without what providers have put beside an assistant's words: their thoughts, and proofs of them.
    Those of others keep their bytes."""
    if _REASONING.search(messages) is None:
        return messages
    bare = [_bare(message) for message in _raws.decode(messages)]
    return msgspec.Raw(b"[" + b",".join(bare) + b"]")


def _bare(message: msgspec.Raw) -> bytes:
    if _REASONING.search(message) is None:
        return bytes(message)
    members = _members.decode(message)
    kept = {name: value for name, value in members.items() if name not in _THOUGHTS}
    if bytes(members.get("role", b"")) != b'"assistant"':
        return bytes(message)
    if b'"extra_content"' in bytes(kept.get("tool_calls", b"")):
        kept["tool_calls"] = _unsigned(kept["tool_calls"])
    return _encode(kept)


def _unsigned(raw: msgspec.Raw) -> msgspec.Raw:
    """Calls without their proofs; what are no calls is the provider's to refuse."""
    try:
        calls = [_members.decode(call) for call in _raws.decode(raw)]
    except UNREADABLE:
        return raw
    for call in calls:
        call.pop("extra_content", None)
    return msgspec.Raw(b"[" + b",".join(_encode(call) for call in calls) + b"]")


def adapt(members: _Members, model: str) -> None:
    """Change in place what this model would refuse of how much to think, and of sampling."""
    if _CONCERNED.isdisjoint(members):
        return
    can = abilities_of(model)
    if not can.known:
        return
    effort = _fitted(members, can) if _EFFORT in members else None
    if can.samples or (effort == "none" and can.samples_unthinking):
        return
    for name, default in _DEFAULTS.items():
        if name in members and not _is(members[name], default):
            del members[name]


def _is(given: msgspec.Raw, default: int) -> bool:
    try:
        return _decode(given) in (default, None)
    except UNREADABLE:  # a number that is too large for any
        return False


def _fitted(members: _Members, can: Abilities) -> str | None:
    """The effort that is left: the client's own, the nearest that the model knows, or none."""
    asked: Any = _decode(members[_EFFORT])
    fitting = effort_for(asked, can.efforts) if isinstance(asked, str) else asked
    if fitting is None:
        del members[_EFFORT]
    elif fitting != asked:
        members[_EFFORT] = msgspec.Raw(_encode(fitting))
    return fitting if isinstance(fitting, str) else None
