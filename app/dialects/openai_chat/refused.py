"""Members of a request in Chat or Responses that its provider, or this model, does not take.

Servers that are nearly compatible, and deployments whose name tells nothing of their model, refuse a whole request for
one member that the gateway has put there, or that a client sent who had another model in mind. What is left out steers
how the provider works, or how the model is sampled, as `adapt` does for models that it knows; never what is asked.
Sources: https://github.com/openai/openai-python/issues/1724 and 2296,
https://github.com/run-llama/llama_index/issues/20865, https://github.com/openai/openai-agents-python/issues/442,
https://github.com/BerriAI/litellm/pull/16265, https://github.com/NitroRCr/AIaW/issues/62
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from app.core.raw import UNREADABLE
from app.dialects.openai_chat.render import object_bytes

NOT_TAKEN: Final = re.compile(
    rb"unsupported[ _](?:parameter|value)|extra_forbidden|extra inputs are not permitted"
    rb"|unrecognized request argument|(?:unknown|unrecognized|unexpected) (?:parameter|name|field|argument|key)"
    rb"|not supported (?:with|by|for|on) (?:this|the) model|model does not support|does not support parameter"
    rb"|argument not supported|property '[\w.]{1,99}' is unsupported"
)
"""How OpenAI, Azure, Mistral, Anthropic, Google, xAI and Groq say, in lower case, that this model, or this server, does
not know a parameter that another one may know."""
HEEDED: Final = "provider"
"""Who may serve the request: heeded where this candidate was chosen, and news to OpenRouter alone."""
ALWAYS: Final = frozenset((HEEDED, "stream_options"))
"""What the gateway has heeded, or asks for by itself and can do without: usage is estimated then."""
SPARED: Final = frozenset(
    (
        "frequency_penalty",
        "include",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "reasoning_effort",
        "safety_identifier",
        "temperature",
        "text.verbosity",
        "top_k",
        "top_p",
        "user",
        "verbosity",
    )
)
"""What a client can do without that has not named the model."""
OTHER_NAME: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""An output limit is sent under the other name."""
_INSTEAD: Final = re.compile(rb"\buse (?:the )?(?:parameter )?['\"`]?max_(?:completion_)?tokens\b")
"""What is advised is not what is refused."""
_OF_A_VALUE: Final = re.compile(rb"unsupported[ _]value|supported values", re.IGNORECASE)
_OF_ALL_VALUES: Final = re.compile(rb"only the default", re.IGNORECASE)
_TRUE: Final = b"true"
_PARAM: Final = re.compile(rb'"param":\s*"([\w.]{1,99})"')
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_Members = Mapping[str, msgspec.Raw]


def refused_in(refusal: bytes, sent: Callable[[], bytes], asked: _Members, *, named: bool) -> frozenset[str]:
    """What an error reply is about of the body that was `sent`, by name, and can be changed by `without`. `asked`: the
    client's own members, which stay as they are, but for `ALWAYS` and a limit, where it has `named` the model."""
    refusal = _INSTEAD.sub(b"", refusal.lower())
    if NOT_TAKEN.search(refusal) is None:
        return frozenset()
    try:
        members = _members.decode(sent())
    except UNREADABLE:
        return frozenset()
    spared = {name for name in SPARED if _is_in(members, name) and not (named and name in asked)}
    if bytes(members.get("parallel_tool_calls", _TRUE)) != _TRUE:
        spared.discard("parallel_tool_calls")  # whoever wants one call at a time may not know what to do with two
    found = {name for name in spared | (ALWAYS | OTHER_NAME.keys()) & members.keys() if _tells(refusal, name)}
    told = _PARAM.search(refusal)
    if told is not None and (param := told[1].decode()).partition(".")[0] in members:
        found = {name for name in found if f"{param}.".startswith(f"{name}.")}
    return frozenset(found)


def is_lasting(refusal: bytes) -> bool:
    """Whether it refuses what it does whatever its value is."""
    return _OF_A_VALUE.search(refusal) is None or _OF_ALL_VALUES.search(refusal) is not None


def without(body: bytes, names: Collection[str]) -> bytes:
    """The request without these members, or with its output limit under the other name: the tighter one, where both
    names are there."""
    members: dict[str, msgspec.Raw] = {}
    for name, value in _sent(body):
        known = OTHER_NAME[name] if name in names and name in OTHER_NAME else name
        members[known] = _tighter(members[known], value) if known in members else value
    for name in names:
        top, _, inner = name.partition(".")
        if name in OTHER_NAME or top not in members:
            continue
        if inner:
            held = dict(_sent(members[top]))
            held.pop(inner, None)
            members[top] = msgspec.Raw(object_bytes(held))
        else:
            del members[top]
    return object_bytes(members)


def _tighter(one: msgspec.Raw, other: msgspec.Raw) -> msgspec.Raw:
    return min((limit for limit in (one, other) if bytes(limit) != b"null"), key=float, default=one)


def _sent(raw: bytes | msgspec.Raw) -> Collection[tuple[str, msgspec.Raw]]:
    return _members.decode(raw).items()


def _is_in(members: _Members, name: str) -> bool:
    top, _, inner = name.partition(".")
    return top in members and (not inner or bytes(members[top]).startswith(b"{"))


def _tells(refusal: bytes, name: str) -> bool:
    """Whether a text in lower case has this name where it is no mere word of a sentence."""
    plain = re.escape(name)
    joined = re.escape(name.replace("_", ""))  # xAI's presencePenalty
    told = rf"(?:['\"`/]|body\.|(?:parameter|argument|field|name|supplied|model):? )(?:{plain}|{joined})(?!\w)"
    return re.search(told.encode(), refusal) is not None
