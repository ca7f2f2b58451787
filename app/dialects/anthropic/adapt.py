"""A Messages request written for one model, made to suit another: what that one would refuse, and no more.

A client words its request for the model that it names (Claude Code: adaptive thinking, effort and system messages
within the conversation for a new Claude); where the policy puts another in its place these would end in a 400.
Members that need no change keep their bytes. Sources: see `models.py`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from app.core.errors import BadRequest
from app.dialects.anthropic.effort import fallback_budget
from app.dialects.anthropic.models import BETWEEN_TOOLS, DISABLED, Abilities
from app.dialects.anthropic.table import REFUSED_WISHES
from app.dialects.openai_chat.render import object_bytes

_Members = dict[str, msgspec.Raw]
_optional = msgspec.json.Decoder(_Members | None)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_SYSTEM = re.compile(rb'"system"')
_ADAPTIVE = msgspec.Raw(b'{"type":"adaptive"}')
_HIGH = msgspec.Raw(b'"high"')
_ABOVE_HIGH = ("xhigh", "max")
_FORCED = ("any", "tool")
_SAMPLING = ("temperature", "top_p", "top_k")


class _Turn(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    type: Any = ""


class _Thinking(msgspec.Struct):
    type: str = DISABLED


class _Output(msgspec.Struct):
    effort: str | None = None


_turn = msgspec.json.Decoder(_Turn)
_chosen = msgspec.json.Decoder(_Choice)
_thinking = msgspec.json.Decoder(_Thinking | None)
_output = msgspec.json.Decoder(_Output | None)


def adapt(members: _Members, can: Abilities, limit_tokens: int) -> None:
    """Change in place what this model refuses. Raises BadRequest where it cannot do what is asked."""
    if not can.mid_system and _SYSTEM.search(members["messages"]):
        members["messages"] = _without_system_turns(members["messages"])
    if not can.claude:
        return  # other makers' servers pass over what they do not know
    if not can.forced and "tool_choice" in members and _choice(members["tool_choice"]) in _FORCED:
        raise BadRequest(REFUSED_WISHES["forced"], param="tool_choice")
    if not can.samples:
        for name in _SAMPLING:
            members.pop(name, None)
    effort = _effort(members)
    if "thinking" in members and (thinking := _thinking.decode(members["thinking"])) is not None:
        _fit_thinking(members, thinking.type, effort, can, limit_tokens)
    if effort is not None and effort not in can.efforts:
        _set_effort(members, _HIGH if can.efforts and effort in _ABOVE_HIGH else None)


def _fit_thinking(members: _Members, kind: str, effort: str | None, can: Abilities, limit_tokens: int) -> None:
    if kind == "enabled" and not can.samples:
        members["thinking"] = _ADAPTIVE
    elif kind in (DISABLED, BETWEEN_TOOLS) and can.adapts:
        _quiet(members, effort, can)
    elif kind in ("adaptive", BETWEEN_TOOLS) and not can.adapts:
        budget = fallback_budget(effort, limit_tokens) if can.thinks and kind == "adaptive" else None
        if budget is None:
            del members["thinking"]
        else:
            members["thinking"] = msgspec.Raw(b'{"type":"enabled","budget_tokens":%d}' % budget)


def _quiet(members: _Members, effort: str | None, can: Abilities) -> None:
    """Thinking is turned off by this model's own word for it, and not beside an effort for which it must think."""
    if can.quiet is None:
        del members["thinking"]
        return
    members["thinking"] = msgspec.Raw(b'{"type":"%b"}' % can.quiet.encode())
    if effort in _ABOVE_HIGH and can.thinks_unasked:
        _set_effort(members, _HIGH)


def _choice(given: msgspec.Raw) -> str:
    return str(_chosen.decode(given).type) if bytes(given).lstrip().startswith(b"{") else ""


def _effort(members: _Members) -> str | None:
    output = _output.decode(members["output_config"]) if "output_config" in members else None
    return output.effort if output else None


def _set_effort(members: _Members, effort: msgspec.Raw | None) -> None:
    """Another effort, or none."""
    output = _optional.decode(members["output_config"]) or {}
    output.pop("effort", None)
    if effort is not None:
        output["effort"] = effort
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
