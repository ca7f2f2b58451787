"""A Gemini request on its way to another model than its client had in mind: what that model would refuse.

What is not refused keeps its bytes; so does a request to which nothing of this applies, and one that is malformed where
parsing did not look: Google will say so.
"""

from __future__ import annotations

import msgspec

from app.core.conversation import Conversation
from app.core.errors import BadRequest
from app.core.raw import UNREADABLE
from app.dialects.gemini.proof import MARKED, UNSIGNED, is_foreign
from app.dialects.gemini.talk import add_thinking
from app.dialects.gemini.thinking import FIRST_WITH_LEVEL, UNKNOWN, thinking_config, version_of
from app.dialects.gemini.values import items_in, members_in
from app.dialects.openai_chat.render import object_bytes

_MALFORMED = (BadRequest, *UNREADABLE)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CALLS = (b'"functionCall"', b'"function_call"')
_UNSIGNED = msgspec.Raw(msgspec.json.encode(UNSIGNED))


class _Signed(msgspec.Struct):
    camel: str | None = msgspec.field(name="thoughtSignature", default=None)
    snake: str | None = msgspec.field(name="thought_signature", default=None)


_signed = msgspec.json.Decoder(_Signed)


def adapted_contents(contents: msgspec.Raw, model: str) -> msgspec.Raw:
    """The contents without other dialects' proofs, and for Gemini 3 with its word for calls that nobody signed."""
    data, adapted = bytes(contents), contents
    try:
        if MARKED in data:
            adapted = _without_foreign(adapted)
        if version_of(model) >= FIRST_WITH_LEVEL and any(call in data for call in _CALLS):
            adapted = _with_signed_calls(adapted)
    except _MALFORMED:
        return contents
    return adapted


def adapted_thinking(config: dict[str, msgspec.Raw], model: str) -> None:
    """Change `thinkingConfig` in a configuration to what this model takes: a budget, a level, or nothing. A model whose
    name says no version gets what came."""
    if version_of(model) == UNKNOWN:
        return
    for name in ("thinkingConfig", "thinking_config"):
        if name not in config or bytes(config[name]) == b"null":
            continue
        wanted = Conversation([])
        try:
            add_thinking(wanted, members_in(config[name], "generationConfig.thinkingConfig"))
        except BadRequest:
            return
        found = thinking_config(wanted, model)
        if found is None:
            del config[name]
        else:
            config[name] = msgspec.Raw(msgspec.json.encode(found))


def _without_foreign(contents: msgspec.Raw) -> msgspec.Raw:
    """A part that holds another dialect's proof is a thought, and goes whole."""
    kept = []
    for item in items_in(contents, "contents"):
        content = _members.decode(item)
        if "parts" not in content or MARKED not in bytes(content["parts"]):
            kept.append(item)
            continue
        parts = [part for part in items_in(content["parts"], "parts") if not is_foreign(_signature(part))]
        if parts:
            content["parts"] = _array(parts)
            kept.append(msgspec.Raw(object_bytes(content)))
    return _array(kept)


def _with_signed_calls(contents: msgspec.Raw) -> msgspec.Raw:
    """Only the current turn is checked: what follows the last content in which the user says something."""
    items = items_in(contents, "contents")
    changed = False
    for place in range(len(items) - 1, -1, -1):
        content = _members.decode(items[place])
        if "parts" not in content:
            continue
        parts = items_in(content["parts"], "parts")
        if bytes(content.get("role", b"")) == b'"model"':
            first = next(
                (index for index, part in enumerate(parts) if _is(part, "functionCall", "function_call")), None
            )
            if first is not None and not _signature(parts[first]):
                part = _members.decode(parts[first])
                parts[first] = msgspec.Raw(object_bytes({**part, "thoughtSignature": _UNSIGNED}))
                content["parts"] = _array(parts)
                items[place] = msgspec.Raw(object_bytes(content))
                changed = True
        elif not all(_is(part, "functionResponse", "function_response") for part in parts):
            break
    return _array(items) if changed else contents


def _is(part: msgspec.Raw, *names: str) -> bool:
    members = _members.decode(part)
    return any(name in members for name in names)


def _signature(part: msgspec.Raw) -> str:
    signed = _signed.decode(part)
    return signed.camel or signed.snake or ""


def _array(items: list[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(items) + b"]")
