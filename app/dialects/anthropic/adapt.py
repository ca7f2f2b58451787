"""A Messages request written for one model, made to suit another: what that one would refuse, and no more.

A client words its request for the model that it names (Claude Code: adaptive thinking, effort and system messages
within the conversation for a new Claude); where the policy puts another in its place these would end in a 400.
Members that need no change keep their bytes. Sources: see `models.py`.
"""

from __future__ import annotations

import re

import msgspec

from app.dialects.anthropic.effort import fallback_budget
from app.dialects.anthropic.models import Abilities
from app.dialects.openai_chat.render import object_bytes

_Members = dict[str, msgspec.Raw]
_optional = msgspec.json.Decoder(_Members | None)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_SYSTEM = re.compile(rb'"system"')
_ADAPTIVE = msgspec.Raw(b'{"type":"adaptive"}')
_SAMPLING = ("temperature", "top_p", "top_k")


class _Turn(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


class _Thinking(msgspec.Struct):
    type: str = "disabled"


class _Output(msgspec.Struct):
    effort: str | None = None


_turn = msgspec.json.Decoder(_Turn)
_thinking = msgspec.json.Decoder(_Thinking | None)
_output = msgspec.json.Decoder(_Output | None)


def adapt(members: _Members, can: Abilities, limit_tokens: int) -> None:
    """Change in place what this model refuses."""
    if not can.mid_system and _SYSTEM.search(members["messages"]):
        members["messages"] = _without_system_turns(members["messages"])
    if not can.claude:
        return  # other makers' servers pass over what they do not know
    if not can.samples:
        for name in _SAMPLING:
            members.pop(name, None)
    thinking = _thinking.decode(members["thinking"]) if "thinking" in members else None
    effort = _effort(members)
    if thinking is not None and thinking.type == "enabled" and not can.samples:
        members["thinking"] = _ADAPTIVE
    elif thinking is not None and thinking.type in ("adaptive", "between_tools") and not can.adapts:
        budget = fallback_budget(effort, limit_tokens) if can.thinks and thinking.type == "adaptive" else None
        if budget is None:
            del members["thinking"]
        else:
            members["thinking"] = msgspec.Raw(b'{"type":"enabled","budget_tokens":%d}' % budget)
    if effort is not None and not can.adapts:
        _remove_effort(members)


def _effort(members: _Members) -> str | None:
    output = _output.decode(members["output_config"]) if "output_config" in members else None
    return output.effort if output else None


def _remove_effort(members: _Members) -> None:
    output = _optional.decode(members["output_config"]) or {}
    output.pop("effort", None)
    if output:
        members["output_config"] = msgspec.Raw(object_bytes(output))
    else:
        del members["output_config"]


def _without_system_turns(messages: msgspec.Raw) -> msgspec.Raw:
    """System messages within the conversation become the user's, in the form in which Claude Code sent such notes
    before there were any; they keep their place, so that the prompt cache before them stays good."""
    turns = _raws.decode(messages)
    changed = [_as_reminder(turn) for turn in turns]
    if changed == turns:
        return messages
    return msgspec.Raw(b"[" + b",".join(bytes(turn) for turn in changed) + b"]")


def _as_reminder(turn: msgspec.Raw) -> msgspec.Raw:
    if not _SYSTEM.search(turn):
        return turn
    shape = _turn.decode(turn)
    if shape.role != "system":
        return turn
    begin, end = (b'{"type":"text","text":"%b"}' % tag for tag in (b"<system-reminder>", b"</system-reminder>"))
    content = bytes(shape.content).strip()
    if content.startswith(b'"'):
        blocks = b'{"type":"text","text":' + content + b"}"
    else:
        blocks = content.removeprefix(b"[").removesuffix(b"]").strip()
    said = b",".join(part for part in (begin, blocks, end) if part)
    return msgspec.Raw(object_bytes({"role": msgspec.Raw(b'"user"'), "content": msgspec.Raw(b"[" + said + b"]")}))
