"""Folding a stream of chunks into one chat completion, for calls that were streamed upstream only so that
they could be metered. Unknown members of a delta are kept: strings are joined, lists appended.

How deltas add up: https://platform.openai.com/docs/api-reference/chat-streaming (tool calls by index), and
for content in parts https://docs.mistral.ai/capabilities/reasoning (parts and plain strings in one stream).
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.mend import readable
from app.core.money import usd_json
from app.core.raw import UNREADABLE, is_whole

_decode = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.encode
_NOT_TOP = frozenset(("choices", "usage", "object", "obfuscation"))
"""Obfuscation pads the events of a stream; a completion has none."""
_ONCE = frozenset(("id", "type", "name", "role", "index", "format"))


class Folder:
    """Collects chunks; `body` gives the completion."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] | None = None

    def add(self, data: bytes) -> None:
        """Take one chunk that has been decoded without error before, as far as it had to be read for that."""
        try:
            chunk = _decode.decode(data)
        except UNREADABLE:  # a number that only its text can hold
            chunk = _decode.decode(readable(data) or data)
        for name, value in chunk.items():
            # Azure's first chunk has an empty id and model: a later value beats an empty one.
            if name not in _NOT_TOP and not self._top.get(name):
                self._top[name] = value
        self._usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = int(choice.get("index") or 0)  # some servers write numbers as text
        folded = self._choices.setdefault(
            index,
            {
                "index": index,
                "message": {"role": "assistant", "content": None},
                "logprobs": None,
                "finish_reason": None,
            },
        )
        for name, value in choice.items():
            if name in ("index", "delta") or value is None or value == "":
                continue
            if name == "logprobs":
                if isinstance(value, dict):
                    folded[name] = folded[name] or {}
                    _merge(folded[name], value)
            elif name == "text" and isinstance(value, str):
                folded[name] = folded.get(name, "") + value
            else:
                folded[name] = value
        message, delta = folded["message"], choice.get("delta") or {}
        if isinstance(message["content"], list) or isinstance(delta.get("content"), list):
            message["content"] = _merged_parts(message["content"], delta.get("content"))
            delta = {name: value for name, value in delta.items() if name != "content"}
        _merge(message, delta)

    def arguments(self, choice: int) -> list[str]:
        """The arguments of a choice's tool calls; "" where there are none yet, or they are free text."""
        message = self._choices[choice]["message"] if choice in self._choices else {}
        functions = [call.get("function") for call in message.get("tool_calls") or ()]
        functions += [message["function_call"]] if message.get("function_call") else []
        given = [(function or {}).get("arguments") for function in functions]
        return [text if isinstance(text, str) else _encode(text).decode() if text else "" for text in given]

    @property
    def half_a_call(self) -> bool:
        """A tool call's arguments end before their JSON does."""
        messages = [choice["message"] for choice in self._choices.values()]
        functions = [call.get("function") for message in messages for call in message.get("tool_calls") or ()]
        functions += [message.get("function_call") for message in messages]
        given = ((function or {}).get("arguments") for function in functions)
        return any(isinstance(text, str) and text != "" and not is_whole(text) for text in given)

    def body(
        self, *, usage: dict[str, Any], cost_nano: int | None, finish: str | None = None, cut: bytes | None = None
    ) -> bytes:
        """The completion as JSON. `usage` serves where the upstream sent none, or less than was seen (`estimated`
        is in it); `finish` ends choices left open."""
        shown = dict(usage if self._usage is None or "estimated" in usage else self._usage)
        shown["cost"] = msgspec.Raw(usd_json(cost_nano))
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            choice["finish_reason"] = choice["finish_reason"] or finish
            for call in choice["message"].get("tool_calls") or ():
                call.pop("index", None)
        completion = {**self._top, "object": "chat.completion", "choices": choices, "usage": shown}
        if cut is not None:
            completion["bursar"] = {"cut": msgspec.Raw(cut)}
        return _encode(completion)


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        held = into.get(name)
        if value is None:
            into.setdefault(name, None)
        elif name == "tool_calls":
            _merge_calls(into, value)
        elif isinstance(value, str) and isinstance(held, str):
            into[name] = (value or held) if name in _ONCE else held + value
        elif isinstance(value, list) and isinstance(held, list):
            into[name] = _merged_list(held, value)
        elif isinstance(value, dict) and isinstance(held, dict):
            _merge(held, value)
        else:
            into[name] = dict(value) if isinstance(value, dict) else value


def _merged_list(held: list[Any], more: list[Any]) -> list[Any]:
    """Items are appended; those that say which they go on with (an `index`, as tool calls have) are merged."""
    items = list(held)
    for item in more:
        index = item.get("index") if isinstance(item, dict) else None
        known = next((i for i in items if isinstance(i, dict) and i.get("index") == index), None)
        if index is None or known is None:
            items.append(item)
        else:
            _merge(known, item)
    return items


def _merged_parts(held: Any, more: Any) -> list[Any]:
    """Content in parts: a plain string is a text part, and a part goes on with the next of its type."""
    parts: list[Any] = []
    for content in (held, more):
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}] if content else ():
            last = parts[-1] if parts else None
            if isinstance(part, dict) and isinstance(last, dict) and last.get("type") == part.get("type"):
                _merge_part(last, part)
            else:
                parts.append(dict(part) if isinstance(part, dict) else part)
    return parts


def _merge_part(last: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, list) and isinstance(last.get(name), list):
            last[name] = _merged_parts(last[name], value)
        else:
            _merge(last, {name: value})


def _merge_calls(into: dict[str, Any], deltas: list[dict[str, Any]]) -> None:
    calls: list[dict[str, Any]] = into.get("tool_calls") or []
    into["tool_calls"] = calls
    for delta in deltas:
        known = next((call for call in reversed(calls) if _goes_on(call, delta)), None)
        if known is None:
            known = {"index": delta.get("index", len(calls))}
            calls.append(known)
        _merge(known, delta)


def _goes_on(call: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Whether a delta belongs to this call: by index, unless it names a new call.

    Gemini sends whole calls without an index, or all with index 0; then the id tells them apart.
    """
    function = delta.get("function") or delta.get("custom") or {}
    index, named = delta.get("index"), bool(function.get("name"))
    if index is not None and call.get("index") != index:
        return False
    other_id = bool(delta.get("id")) and bool(call.get("id")) and delta["id"] != call["id"]
    return not (other_id and named) if index is not None else not named and not other_id
