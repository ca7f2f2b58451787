"""From a finished answer to `Seen`: judged at once, so that no word of it need be kept. Tens of microseconds."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from app.core.heard import MOST_CHARS, OPENING_CHARS, Heard
from app.core.json_fits import fits
from app.core.policy import Candidate, Policy
from app.core.raw import UNREADABLE
from app.core.seen import Seen
from app.core.types import ChatRequest
from app.gateway.view import View

HASHED_CHARS = 256
"""Of each end of each text: hashing costs the same whatever the length, which is hashed too."""
TAIL_BYTES = 2_048
MAX_SCHEMA_BYTES = 256 * 1024
_REFUSAL = re.compile(
    r"\W*(?:(?:i(?:['’]m| am) )?(?:so |very |really |truly )?(?:sorry|afraid)\b.{0,30}?\bi"
    r" (?:can(?:['’]t|not)|won['’]t|am un|am not)"
    r"|(?:unfortunately,? |as an ai\b.{0,30}?,? )?i(?:['’]m| am)? (?:can(?:['’]t|not)|won['’]t|unable to|not able to)"
    r" (?:help|assist|comply|fulfil|provide|create|generate|answer|do|engage|discuss|support|share|write|continue)"
    r"|i must (?:decline|refuse)|i(?:['’]m| am) not comfortable)",
    re.IGNORECASE | re.DOTALL,
)
"""How models begin a refusal in English; those in other languages are told by the protocol, or not at all."""
_REFUSED = frozenset({"content_filter", "refusal", "SAFETY", "PROHIBITED_CONTENT"})
_TOOL_FAILED = re.compile(
    rb'"is_error"\s*:\s*true|"(?:content|output|text|result|error)"\s*:\s*"(?:\\n|\s|<tool_use_error>)*'
    rb"(?:error\b|traceback \(most|exception\b|command failed|fatal:|failed\b)",
    re.IGNORECASE,
)
"""How tools say that they failed: Anthropic's flag, and the first words of results."""


def heard_for(request: ChatRequest, writing: tuple[str, ...]) -> Heard:
    """What to keep of the answer to this request. `writing`: which tools write, by the policy."""
    prompt = request.prompt
    return Heard(MOST_CHARS if prompt.wants_json else OPENING_CHARS, MOST_CHARS if prompt.tools else 0, writing)


def seen_of(request: ChatRequest, heard: Heard, candidate: Candidate, view: View, salt: bytes | None) -> Seen:
    """What showed in an answer that is complete. `salt`: the house's own; without it hashes are salted by the policy's
    secrets, and are the same while these are."""
    salted = view.once(("salted", salt), lambda: salted_by(view.policy) if salt is None else _salted(salt))
    prompt, price = request.prompt, candidate.price
    began = _digest(salted, f"{_ends(prompt.first_user)}\0{_ends(prompt.system)}\0{prompt.tools}")
    later = "" if prompt.last_user is prompt.first_user else _ends(prompt.last_user)
    asked = _digest(salted, f"{began}\0{later}\0{prompt.messages}\0{prompt.history_chars}\0{prompt.text_bytes}")
    calls = heard.calls
    return Seen(
        began=began,
        asked=asked,
        finish=heard.finish,
        empty=not heard.said,
        refused=heard.refused or heard.finish in _REFUSED or _REFUSAL.match(heard.text) is not None,
        shape_ok=_shape_ok(request, heard),
        arguments_ok=_arguments_ok(request, calls) if calls else None,
        calls=_digest(salted, "\0".join(_ends(part) for call in calls for part in call)) if calls else "",
        tool_failed=prompt.in_tool_loop and _tool_failed(request),
        rate_nano=None if price is None else (3 * price.base.input + price.base.output) // 4,
    )


def salted_by(policy: Policy) -> hashlib.blake2b:
    """A hash that goes on from a policy: the same for all its gateways, and not to be known from outside, for it is
    made of its secrets. Of providers' secrets, where there are any: clients' keys come and go, and what is asked again
    is to be known again."""
    made = hashlib.blake2b(digest_size=16)
    secrets = [
        provider.encode() + b"\0" + secret.value.encode()
        for provider in sorted(policy.providers)
        if (secret := policy.providers[provider].api_key) is not None
    ]
    for said in secrets or [key.encode() for key in sorted(policy.keys)]:
        made.update(said)
    return _salted(made.digest())


def _salted(salt: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=salt, digest_size=8)


def _digest(salted: hashlib.blake2b, said: str) -> str:
    found = salted.copy()
    found.update(said.encode("utf-8", "replace"))
    return found.hexdigest()


def _ends(text: str) -> str:
    if len(text) <= 2 * HASHED_CHARS:
        return text
    return f"{text[:HASHED_CHARS]}\0{text[-HASHED_CHARS:]}\0{len(text)}"


def _shape_ok(request: ChatRequest, heard: Heard) -> bool | None:
    if not request.prompt.wants_json or not heard.all_text or not heard.text or heard.calls:
        return None
    try:
        value = msgspec.json.decode(heard.text)
    except UNREADABLE:
        return False
    schema = next((found for name in _SHAPES if (found := _schema_in(name, request.members)) is not None), None)
    return schema is None or fits(value, schema)


_SHAPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "response_format": (("json_schema", "schema"),),
    "text": (("format", "schema"),),
    "output_config": (("format", "schema"),),
    "output_format": (("schema",),),
    "generationConfig": (("responseJsonSchema",), ("responseSchema",)),
}
"""Where each dialect's requests carry the schema of the answer."""


def _schema_in(name: str, members: Mapping[str, msgspec.Raw]) -> Any:
    raw = members.get(name)
    if raw is None or len(raw) > MAX_SCHEMA_BYTES:
        return None
    value = _decoded(bytes(raw))
    for path in _SHAPES[name]:
        found = value
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


def _arguments_ok(request: ChatRequest, calls: list[tuple[str, str]]) -> bool | None:
    """Whether all calls fit the tools on offer; None where the tools are too large to look into."""
    raw = request.members.get("tools") or request.members.get("functions")
    if raw is None or len(raw) > MAX_SCHEMA_BYTES:
        return None
    tools = _tools_of(bytes(raw))
    for name, arguments in calls:
        if name not in tools:
            return None if None in tools else False
        if tools[name] is None:
            continue
        try:
            value = msgspec.json.decode(arguments) if arguments.strip() else {}
        except UNREADABLE:
            return False
        if not fits(value, tools[name]):
            return False
    return True


@functools.lru_cache(maxsize=64)
def _decoded(raw: bytes) -> Any:
    """The same schemas and tools come with every call of an agent."""
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE:
        return None


@functools.lru_cache(maxsize=64)
def _tools_of(raw: bytes) -> dict[str | None, Any]:
    """Tools by name, each with the schema of its arguments: None where they are no JSON, or the provider's own. The
    name None stands for tools that are named by their provider."""
    return dict(_each_tool(_decoded(raw)))


def _each_tool(tools: Any) -> Iterator[tuple[str | None, Any]]:
    """Chat nests a function, Gemini a list of declarations, Responses some of its tools in namespaces."""
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict):
            continue
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        if declared is not None:
            yield from _each_tool(declared)
            continue
        said = tool.get("function") or tool.get("custom") or tool
        name = said.get("name") if isinstance(said, dict) else None
        if not isinstance(name, str) or "tools" in tool:
            yield None, None
            continue
        schema = said.get("parameters") or said.get("input_schema") or said.get("parametersJsonSchema")
        yield name, None if tool.get("type") == "custom" else schema


def _tool_failed(request: ChatRequest) -> bool:
    raw = request.talk
    return raw is not None and _TOOL_FAILED.search(bytes(memoryview(raw)[-TAIL_BYTES:])) is not None
