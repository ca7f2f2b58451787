"""Names of tools where there are no namespaces, and the way back.

codex offers tools in namespaces (`{"type": "namespace", "name", "tools": [...]}`) and takes a call only under the
namespace it was offered in (https://github.com/openai/codex/issues/36942); other dialects know flat names of at most 64
letters, digits, `_` and `-`. `functions` is codex's namespace of tools without one, so its tools keep their names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from app.core.types import ChatRequest
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_responses import shapes
from app.dialects.openai_responses.shapes import ToolShape

MAX_NAME_CHARS = 64
DEFAULT_NAMESPACE = "functions"
OFFERING = ("additional_tools", "tool_search_output")
"""Items whose tools are on offer; `mcp_list_tools` only tells of some, in a shape of its own."""
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_HASH_CHARS = 8


class Named(NamedTuple):
    """A tool as its client knows it."""

    namespace: str | None
    name: str
    custom: bool


class Offered(NamedTuple):
    """A tool of a request, outside of its namespace."""

    namespace: str | None
    tool: ToolShape
    param: str


def flat_name(namespace: str | None, name: str) -> str:
    """One name for a tool in a namespace: `docs` and `find` become `docs__find`; a long one ends in a hash."""
    if not namespace or namespace == DEFAULT_NAMESPACE:
        return name
    flat = _FOREIGN.sub("_", namespace + ("" if namespace.endswith("__") else "__") + name)
    return flat if len(flat) <= MAX_NAME_CHARS else _hashed(flat, namespace, name)


def _hashed(flat: str, namespace: str, name: str) -> str:
    mark = hashlib.sha256(f"{namespace}\0{name}".encode()).hexdigest()[:_HASH_CHARS]
    return f"{flat[: MAX_NAME_CHARS - _HASH_CHARS - 1]}_{mark}"


def offered_tools(request: ChatRequest) -> Iterator[Offered]:
    """Every tool of a request, those in namespaces and those in items of `input` too."""
    if "tools" in request.members:
        yield from _unfolded(field_of(shapes.tools, request.members, "tools") or [], "tools")
    given = bytes(request.members.get("input", b""))
    if any(b'"%b"' % kind.encode() in given for kind in OFFERING):
        items = field_of(shapes.items, request.members, "input")
        for place, item in enumerate(items if isinstance(items, list) else ()):
            if item.kind in OFFERING and shapes.given(item.tools):
                param = f"input[{place}].tools"
                yield from _unfolded(field_of(shapes.tools, {param: item.tools}, param), param)


def _unfolded(tools: list[ToolShape], param: str) -> Iterator[Offered]:
    for place, tool in enumerate(tools):
        here = f"{param}[{place}]"
        if tool.type == "namespace":
            for inner in _unfolded(tool.tools or [], f"{here}.tools"):
                yield inner._replace(namespace=tool.name)
        else:
            yield Offered(None, tool, here)


class ToolNames:
    """The flat names of one request's tools."""

    def __init__(self, request: ChatRequest) -> None:
        self._named: dict[str, Named] = {}
        self._flat: dict[tuple[str | None, str], str] = {}
        offered = [o for o in offered_tools(request) if o.tool.type in ("function", "custom")]
        # Tools without a namespace keep their names; whoever else flattens to one of these is told apart by a hash.
        for namespace, tool, _ in sorted(offered, key=lambda o: o.namespace is not None):
            name = tool.name or ""
            known = None if namespace == DEFAULT_NAMESPACE else namespace
            flat = flat_name(known, name)
            if known and flat in self._named and self._named[flat][:2] != (known, name):
                flat = _hashed(flat, known, name)
            self._named.setdefault(flat, Named(known, name, tool.type == "custom"))
            self._flat[namespace, name] = flat

    def flat(self, namespace: str | None, name: str) -> str:
        """The flat name of a tool of this request, or of one that it no longer offers."""
        return self._flat.get((namespace, name)) or flat_name(namespace, name)

    def named(self, flat: str) -> Named | None:
        """The tool that the client knows; None where it offered none of that name."""
        return self._named.get(flat)
