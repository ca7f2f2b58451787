"""Folding a stream of text completions into one, for calls that were streamed upstream only so that they could be
metered."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.money import usd_json
from app.dialects.openai_chat.fold import Folder

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TextFolder(Folder):
    """Collects chunks; `body` gives the completion. Texts are joined; of `logprobs` the lists are."""

    def add(self, data: bytes) -> None:
        """Take one chunk that has been decoded without error before."""
        chunk = _decode(data)
        for name, value in chunk.items():
            if name not in ("choices", "usage") and not self._top.get(name):
                self._top[name] = value
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = int(choice.get("index") or 0)  # some servers write numbers as text
        blank = {"text": "", "index": index, "logprobs": None, "finish_reason": None}
        folded = self._choices.setdefault(index, blank)
        for name, value in choice.items():
            if name == "text":
                folded[name] += value or ""
            elif name == "logprobs" and isinstance(value, dict):
                known = folded[name] or {}
                folded[name] = {**known, **{part: _joined(known.get(part), said) for part, said in value.items()}}
            elif name != "index" and value is not None:
                folded[name] = value

    def body(
        self, *, usage: dict[str, Any], cost_nano: int | None, finish: str | None = None, cut: bytes | None = None
    ) -> bytes:
        """As `Folder.body`."""
        shown = dict(usage if self._usage is None or "estimated" in usage else self._usage)
        shown["cost"] = msgspec.Raw(usd_json(cost_nano))
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            choice["finish_reason"] = choice["finish_reason"] or finish
        completion = {**self._top, "object": "text_completion", "choices": choices, "usage": shown}
        if cut is not None:
            completion["bursar"] = {"cut": msgspec.Raw(cut)}
        return msgspec.json.encode(completion)


def _joined(before: Any, more: Any) -> Any:
    return [*before, *more] if isinstance(before, list) and isinstance(more, list) else more
