"""A chat request as litellm's arguments, and what litellm gives as a chat provider's bytes. Pure; imports no litellm.

Toward these providers the gateway speaks chat: its bytes are made from what litellm reads of the provider's own
protocol. What a client may say is listed, because the same arguments also steer litellm (`api_base`, `fallbacks`).
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.core.errors import BadRequest
from app.core.policy import Provider

# fmt: off
CARRIED: Final = frozenset((
    "model", "messages", "stream", "temperature", "top_p", "n", "stop", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "seed", "tools", "tool_choice", "parallel_tool_calls", "response_format",
    "logprobs", "top_logprobs", "logit_bias", "reasoning_effort", "thinking", "functions", "function_call",
))
DROPPED: Final = frozenset((
    "stream_options", "metadata", "store", "user", "safety_identifier", "service_tier", "prediction", "verbosity",
    "prompt_cache_key", "prompt_cache_retention",
))
# fmt: on
"""`stream_options`: usage is always asked for. The others: labels, hints, and the likes of one provider's cache."""
EMBEDDED: Final = frozenset(("model", "input", "dimensions"))
LONGEST_S: Final = 86_400
"""litellm's own deadline: never the first, for the call's deadlines are kept outside of it."""
MAX_MESSAGE_CHARS: Final = 600
_REPLY: Final = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier")
)
_REMOTE = re.compile(r"https?://", re.IGNORECASE)
_NOISE = re.compile(r"^(?:litellm\.)?\w*(?:Error|Exception|Timeout): (?:litellm\.\w+: )?")


def arguments_for(provider: Provider, path: str, body: bytes) -> dict[str, Any]:
    """What litellm is called with. Raises BadRequest for what cannot be carried."""
    asked: dict[str, Any] = msgspec.json.decode(body)
    embeds = path == "/embeddings"
    carried = EMBEDDED if embeds else CARRIED
    for name in asked.keys() - carried - DROPPED - {"encoding_format"}:
        raise BadRequest(f"The parameter {name} cannot be carried to this provider.", param=name)
    for message in asked.get("messages", ()):
        if isinstance(message, Mapping) and _has_remote_part(message.get("content")):
            raise BadRequest(
                "This provider takes files and images as data only: the gateway fetches no URL.", param="messages"
            )
    bridge = provider.bridge
    assert bridge is not None
    arguments = {name: value for name, value in asked.items() if name in carried}
    if not bridge.streams:
        arguments.pop("stream", None)
    if arguments.get("stream"):
        arguments["stream_options"] = {"include_usage": True}
    if provider.headers:
        arguments["extra_headers"] = dict(provider.headers)
    if provider.api_key is not None:
        arguments["api_key"] = provider.api_key.value
    if provider.base_url:
        arguments["api_base"] = provider.base_url
    # Retries and fallbacks are the gateway's: each attempt is paid for by itself.
    quiet: dict[str, Any] = {"max_retries": 0, "num_retries": 0, "timeout": LONGEST_S, "no-log": True}
    if not embeds:
        # Its handler of MCP tools needs a package more, and would call servers of a client's choice.
        quiet["_skip_mcp_handler"] = True
    return {**arguments, **bridge.options, "custom_llm_provider": bridge.provider, **quiet}


def _has_remote_part(content: object) -> bool:
    """Whether a message's parts name a URL that litellm would fetch from here (an open door to the network)."""
    if not isinstance(content, list):
        return False
    return any(_names_remote(part) for part in content if isinstance(part, Mapping) and part.get("type") != "text")


def _names_remote(value: object) -> bool:
    if isinstance(value, str):
        return _REMOTE.match(value) is not None
    inner: Any = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_names_remote(child) for child in inner)


def chunk_bytes(chunk: Mapping[str, Any]) -> bytes:
    """A streamed chunk of litellm's as a chat provider's event; empty for one that says nothing."""
    choices = []
    for choice in chunk["choices"]:
        delta = _delta(choice.get("delta") or {})
        finish = choice.get("finish_reason")
        if delta or finish:
            shown = {"index": choice.get("index", 0), "delta": delta, "logprobs": choice.get("logprobs")}
            choices.append({**shown, "finish_reason": finish})
    return _event(chunk, choices) if choices else b""


def _delta(given: Mapping[str, Any]) -> dict[str, Any]:
    """A delta without what is null, empty or litellm's own."""
    delta = _said({name: value for name, value in given.items() if value is not None})
    calls = [{n: v for n, v in call.items() if v is not None} for call in delta.pop("tool_calls", None) or ()]
    if calls:
        delta["tool_calls"] = calls
    if delta.get("content") == "" and "role" not in delta:
        del delta["content"]
    return delta


def usage_bytes(chunk: Mapping[str, Any], usage: Mapping[str, Any]) -> bytes:
    """The last event, which tells usage alone; without the cost that litellm makes of its own catalogue."""
    return _event(chunk, [], usage={name: value for name, value in usage.items() if name != "cost"})


def _event(chunk: Mapping[str, Any], choices: list[dict[str, Any]], **more: Any) -> bytes:
    base = {"id": chunk["id"], "object": "chat.completion.chunk", "created": chunk["created"], "model": chunk["model"]}
    return b"data: " + msgspec.json.encode({**base, "choices": choices, **more}) + b"\n\n"


def whole_bytes(reply: dict[str, Any], arguments: Mapping[str, Any]) -> bytes:
    """A whole reply of litellm's as a chat provider's.

    For some providers (Cohere, where it does not stream) litellm says `stop` whatever the provider said: a reply that
    calls tools, or has used all of its limit, did not end so.
    """
    limit = arguments.get("max_completion_tokens") or arguments.get("max_tokens")
    usage = reply.get("usage") or {}
    usage.pop("cost", None)  # of litellm's own catalogue
    used = usage.get("completion_tokens", 0)
    for choice in reply["choices"]:
        choice.pop("provider_specific_fields", None)
        choice["message"] = _said(choice["message"])
        if choice.get("finish_reason") == "stop":
            if choice["message"].get("tool_calls"):
                choice["finish_reason"] = "tool_calls"
            elif limit is not None and len(reply["choices"]) == 1 and used >= limit:
                choice["finish_reason"] = "length"
    return msgspec.json.encode({name: value for name, value in reply.items() if name in _REPLY})


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without litellm's own members, and without its empty lists."""
    return {name: value for name, value in message.items() if value != [] and name != "provider_specific_fields"}


def embeddings_bytes(reply: dict[str, Any], asked: bytes) -> bytes:
    """litellm's embeddings, packed where the client wants them so (the official SDK does by itself)."""
    if msgspec.json.decode(asked).get("encoding_format") == "base64":
        for row in reply["data"]:
            values = row["embedding"]
            row["embedding"] = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return msgspec.json.encode(reply)


def error_bytes(status: int, message: str, code: str | None) -> bytes:
    """An error as a chat provider would tell it, without litellm's own words, traces and paths."""
    plain = _NOISE.sub("", message.partition("Traceback")[0].strip())
    kind = "invalid_request_error" if status < 500 else "server_error"
    told = {"message": plain[:MAX_MESSAGE_CHARS], "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": told})
