"""Members and betas that a provider of Messages does not know and the answer can do without.

Claude Code sends what Anthropic's API has learned last; Vertex, Bedrock, Copilot and the makers of other models behind
the same dialect refuse the whole request for it, and would for ever. What is left out here steers how the provider
works (its own editing of the context, its cache, how arguments are streamed), not what is asked.
Sources: https://github.com/anthropics/claude-code/issues/21612, https://github.com/BerriAI/litellm/issues/20021,
https://github.com/UKGovernmentBEIS/inspect_ai/pull/3851
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from app.core.raw import UNREADABLE
from app.core.types import ChatRequest

DROPPABLE = frozenset(
    (
        "context_management",
        "output_config",
        "block_binding",
        "cache_control",
        "defer_loading",
        "diagnostics",
        "display",
        "eager_input_streaming",
        "scope",
        "ttl",
    )
)
_EXTRA = re.compile(rb"(?<![\w.])([a-z_0-9]+(?:\.[a-z_0-9]+)*): extra inputs are not permitted", re.IGNORECASE)
_BETA = "anthropic-beta"
_UNKNOWN_BETAS = re.compile(rb"unexpected value\(s\) (.{1,2000}?) for the `?anthropic-beta`? header", re.IGNORECASE)
_QUOTED = re.compile(rb"`([^`]+)`")
_NO_BETAS = b"invalid beta flag"
_NO_CLEARING = re.compile(rb"clear_thinking_\w+`? strategy requires", re.IGNORECASE)
"""Of a request whose thinking was turned off on its way: https://github.com/router-for-me/CLIProxyAPI/issues/4957"""
_EDITING = "context_management"


class _Editing(msgspec.Struct):
    edits: list[dict[str, Any]] = []


def without_extras(request: ChatRequest, refusal: bytes) -> tuple[ChatRequest, list[str]] | None:
    """The request without what this error reply does not know, and the names of that; None where it cannot be left out,
    or is not there."""
    forward = _without_betas(request.forward, refusal)
    left_out = [_BETA] if forward is not request.forward else []
    members = request.members
    try:
        for found in _EXTRA.findall(refusal):
            path, before = found.decode(), members
            members = _without(members, path.split("."))
            left_out += [path] if members is not before else []
        if _NO_CLEARING.search(refusal) is not None and _EDITING in members:
            before, members = members, _without_clearing(members)
            left_out += [_EDITING] if members is not before else []
    except UNREADABLE:
        members, left_out = request.members, left_out[:1] if forward is not request.forward else []
    if not left_out:
        return None
    return msgspec.structs.replace(request, members=members, forward=forward), left_out


def is_lasting(refusal: bytes) -> bool:
    """Whether it refuses what it does for whatever is asked."""
    return _NO_CLEARING.search(refusal) is None


def _without_betas(forward: dict[str, str], refusal: bytes) -> dict[str, str]:
    if _BETA not in forward:
        return forward
    asked = [beta.strip() for beta in forward[_BETA].split(",")]
    if _NO_BETAS in refusal.lower():
        kept = []
    else:
        named = _UNKNOWN_BETAS.search(refusal)
        unknown = {beta.decode("utf-8", "replace") for beta in _QUOTED.findall(named[1])} if named else set()
        kept = [beta for beta in asked if beta not in unknown]
        if len(kept) == len(asked):
            return forward
    rest = {name: value for name, value in forward.items() if name != _BETA}
    return {**rest, _BETA: ",".join(kept)} if kept else rest


def _without(members: dict[str, msgspec.Raw], path: list[str]) -> dict[str, msgspec.Raw]:
    top, last = path[0], path[-1]
    if last not in DROPPABLE or top not in members:
        return members
    if len(path) == 1:
        config = msgspec.json.decode(members[top]) if top == "output_config" else None
        if isinstance(config, dict) and "format" in config:
            return members  # the shape of the answer is asked for
        return {name: value for name, value in members.items() if name != top}
    inner = msgspec.json.decode(members[top])
    found = [held for held in _holders(inner, path[1:-1]) if last in held]
    for held in found:
        del held[last]
    return {**members, top: msgspec.Raw(msgspec.json.encode(inner))} if found else members


def _without_clearing(members: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Without edits of the context that clear thinking; where there are no others, without any."""
    editing = msgspec.json.decode(members[_EDITING], type=_Editing)
    kept = [edit for edit in editing.edits if not str(edit.get("type")).startswith("clear_thinking")]
    if len(kept) == len(editing.edits):
        return members
    if not kept:
        return {name: value for name, value in members.items() if name != _EDITING}
    told = {**msgspec.json.decode(members[_EDITING]), "edits": kept}
    return {**members, _EDITING: msgspec.Raw(msgspec.json.encode(told))}


def _holders(inner: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """The objects to which a path leads: in all items of a list, as the others will be refused next. Names that are
    not there, or lead to no object, tell the kind of one."""
    if isinstance(inner, list):
        rest = path[1:] if path and path[0].isdigit() else path
        for item in inner:
            yield from _holders(item, rest)
    elif isinstance(inner, dict):
        if not path:
            yield inner
        else:
            named = inner.get(path[0])
            yield from _holders(named if isinstance(named, dict | list) else inner, path[1:])
