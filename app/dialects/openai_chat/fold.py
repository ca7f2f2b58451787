"""Folding a stream of chunks into one chat completion, for calls that were streamed upstream only so that
they could be metered. Unknown members of a delta are kept: strings are joined, lists appended."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.money import usd_text

_decode = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.encode
_TOP = ("id", "created", "model", "system_fingerprint", "service_tier")
_ONCE = ("id", "type", "name", "role", "index")


class Folder:
    """Collects chunks; `body` gives the completion."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] | None = None

    def add(self, data: bytes) -> None:
        """Take one chunk that has been decoded without error before."""
        chunk = _decode.decode(data)
        for name in chunk:
            if name in _TOP or name not in ("choices", "usage", "object"):
                self._top.setdefault(name, chunk[name])
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index") or 0
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
            if name in ("index", "delta") or value is None:
                continue
            if name == "logprobs" and isinstance(folded.get("logprobs"), dict):
                _merge(folded["logprobs"], value)
            else:
                folded[name] = value
        _merge(folded["message"], choice.get("delta") or {})

    def body(
        self, *, usage: dict[str, Any], cost_nano: int | None, finish: str | None = None, cut: bytes | None = None
    ) -> bytes:
        """The completion as JSON. `usage` serves where the upstream sent none; `finish` ends choices left open."""
        shown = msgspec.json.encode({**(self._usage or usage), "cost": None})
        cost = b"null" if cost_nano is None else usd_text(cost_nano).encode()
        shown = shown[: -len(b"null}")] + cost + b"}"
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            choice["finish_reason"] = choice["finish_reason"] or finish
            for call in choice["message"].get("tool_calls") or ():
                call.pop("index", None)
        completion = {**self._top, "object": "chat.completion", "choices": choices, "usage": msgspec.Raw(shown)}
        if cut is not None:
            completion["bursar"] = {"cut": msgspec.Raw(cut)}
        return _encode(completion)


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if value is None:
            into.setdefault(name, None)
        elif name == "tool_calls":
            _merge_calls(into, value)
        elif isinstance(value, str) and isinstance(into.get(name), str):
            into[name] = value if name in _ONCE else into[name] + value
        elif isinstance(value, list) and isinstance(into.get(name), list):
            into[name] = into[name] + value
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, dict) else value


def _merge_calls(into: dict[str, Any], deltas: list[dict[str, Any]]) -> None:
    calls: list[dict[str, Any]] = into.get("tool_calls") or []
    into["tool_calls"] = calls
    for delta in deltas:
        index = delta.get("index")
        # Some providers send whole calls without an index: each is a call of its own.
        known = next((c for c in calls if index is not None and c.get("index") == index), None)
        if known is None:
            known = {"index": len(calls) if index is None else index}
            calls.append(known)
        _merge(known, delta)
