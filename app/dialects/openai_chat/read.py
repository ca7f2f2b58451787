"""OpenAI Chat Completions, reply side: chunks, or one completion, as canonical events.

Providers differ (tests/wire has one recording of each): reasoning under three names, content as a string or as parts,
calls whole or in pieces, with an index, with the same one, or with none; usage in a chunk of its own, merged,
cumulative, or one for each choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from app.core.events import Begin, CallBegins, CallPiece, Done, Event, Failed, Finished, Said, Thought, Used
from app.core.money import Usage
from app.core.raw import NO_ERROR, UNREADABLE
from app.core.sse import Frame
from app.core.tokens import pieces
from app.dialects.base import BadEvent
from app.dialects.openai_chat.chunks import counts_one_choice
from app.dialects.openai_chat.decode import summed, usage_of
from app.dialects.openai_chat.errors import error_words
from app.dialects.openai_chat.finishes import FAILED, FAILURES, FINISHES
from app.dialects.openai_chat.made import made_id
from app.dialects.openai_chat.shapes import ORIGIN, UNSIGNED, Call, Choice, Chunk, Delta, Function, decoded
from app.dialects.server_tools import served_tier


class _Open:
    """One call of a choice as it comes: `number` is the provider's index, `index` ours."""

    __slots__ = ("begun", "id", "index", "number", "text")

    def __init__(self, index: int, number: int | None, id: str) -> None:
        self.index, self.number, self.id = index, number, id
        self.begun = False
        self.text = ""

    def goes_on(self, call: Call, function: Function) -> bool:
        """Whether a delta belongs to this call: by index, unless it names a new one.

        Gemini sends whole calls without an index, or all with index 0; then the id tells them apart, or, where
        there is none, that the arguments are complete and a name comes again.
        """
        named = bool(function.name)
        if call.index is not None and self.number != call.index:
            return False
        other_id = bool(call.id) and bool(self.id) and call.id != self.id
        if call.index is None:
            return (bool(call.id) and call.id == self.id) or (not named and not other_id)
        if named and not call.id and not self.id:
            return not (self.begun and _complete(self.text))
        return not (other_id and named)


class ChatReader:
    """Reads one reply."""

    marks_end = True

    def __init__(self) -> None:
        self.served: str | None = None
        self._begun = self._done = False
        self._id = ""
        self._calls: dict[int, list[_Open]] = {}
        self._thinking: set[int] = set()
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._alone: list[Usage] = []
        self._early: Usage | None = None

    def read(self, frame: Frame) -> list[Event]:
        """The events of one frame; none for a comment, and none after `[DONE]`. Raises BadEvent."""
        data = frame.data.strip() if frame.data is not None else b""
        if not data or self._done:
            return []
        if data == b"[DONE]":
            return self._end()
        return self._take(decoded(data))

    def whole(self, body: bytes) -> list[Event]:
        """The events of one completion. Raises BadEvent where it is neither that nor an error."""
        chunk = decoded(body)
        events = self._take(chunk)
        if any(isinstance(event, Failed) for event in events):
            return events
        if not chunk.choices:
            raise BadEvent("neither a completion nor an error")
        # A whole reply has ended, whether it says so or not.
        for choice in sorted(self._seen - self._finished):
            self._add(self._finish("stop", choice, None), events)
        events += self._end()
        return _without_partial_usage(events, body) if len(self._seen) > 1 else events

    def _end(self) -> list[Event]:
        self._done = True
        early, self._early = self._early, None
        return [Used(early), Done()] if early is not None and not self._alone else [Done()]

    def _take(self, chunk: Chunk) -> list[Event]:
        out: list[Event] = []
        if not self._begun and (chunk.id or chunk.choices):
            self._begun = True
            self._id = chunk.id or ""
            out.append(Begin(self._id, chunk.model or "", int(chunk.created or 0)))
        failed = _failure(chunk.error)
        for choice in chunk.choices or ():
            self._take_choice(choice, out, failing=failed is not None)
        self._take_usage(chunk, out)
        if failed is not None:
            out.append(failed)
        return out

    def _take_choice(self, choice: Choice, out: list[Event], *, failing: bool) -> None:
        index = choice.index or 0
        known = index in self._seen
        self._seen.add(index)
        # Behind a stream's last delta MiniMax says the whole message again.
        delta = choice.delta or (None if known else choice.message)
        if delta is not None:
            self._take_delta(delta, index, out)
        if not choice.finish_reason or failing:
            return
        word = choice.finish_reason.lower()
        if word in FAILURES:
            out.append(Failed(FAILED, "server_error"))
        else:
            reason = FINISHES.get(word, choice.finish_reason)
            self._add(self._finish(reason, index, choice.stop_reason), out)

    def _add(self, event: Said | Thought | CallBegins | CallPiece | Finished, out: list[Event]) -> None:
        """What is not thought ends the thought before it, with a mark by which clients of other dialects keep whose
        it was: there are providers that want it back."""
        if isinstance(event, Thought):
            self._thinking.add(event.choice)
        elif event.choice in self._thinking:
            self._thinking.discard(event.choice)
            out.append(Thought(signature=UNSIGNED, ends=True, choice=event.choice, origin=ORIGIN))
        out.append(event)

    def _finish(self, reason: str, choice: int, stop: Any) -> Finished:
        self._finished.add(choice)
        # OpenAI says `stop` after a tool that was named by tool_choice, some servers say it after any call.
        if reason == "stop" and self._calls.get(choice):
            reason = "tool_calls"
        return Finished(reason, choice, stop if isinstance(stop, str) else None)

    def _take_delta(self, delta: Delta, choice: int, out: list[Event]) -> None:
        # Some providers send the same thought in two fields.
        thought = delta.reasoning_content or delta.reasoning or delta.thinking
        if isinstance(thought, str) and thought:
            self._add(Thought(thought, choice=choice, origin=ORIGIN), out)
        if isinstance(delta.content, str):
            if delta.content:
                self._add(Said(delta.content, choice), out)
        else:
            for event in _parts(delta.content or (), choice):
                self._add(event, out)
        if delta.refusal:
            self._add(Said(delta.refusal, choice, refusal=True), out)
        for call in delta.tool_calls or ():
            self._take_call(call, choice, out)
        if delta.function_call is not None:
            self._take_call(Call(function=delta.function_call), choice, out)
        if delta.audio is not None and delta.audio.transcript:
            self._add(Said(delta.audio.transcript, choice), out)

    def _take_call(self, call: Call, choice: int, out: list[Event]) -> None:
        function = call.function or call.custom or Function()
        calls = self._calls.setdefault(choice, [])
        known = next((held for held in reversed(calls) if held.goes_on(call, function)), None)
        if known is None:
            known = _Open(len(calls), call.index, call.id or "")
            calls.append(known)
        text = function.text
        if not known.begun:
            known.id = known.id or call.id or ""
            # A name may come after the id; what came of the arguments waits for it.
            known.text += text
            if not function.name:
                return
            known.begun = True
            id = known.id or made_id("call", self._id, choice, known.index)
            custom = call.custom is not None and call.function is None
            self._add(CallBegins(known.index, id, function.name, custom, choice, _signature(call)), out)
            text = known.text
        elif not known.id:
            known.text += text
        if text:
            out.append(CallPiece(known.index, text, choice))

    def _take_usage(self, chunk: Chunk, out: list[Event]) -> None:
        shape = chunk.usage
        if shape is None and chunk.x_groq is not None:
            shape = chunk.x_groq.usage
        if shape is None and chunk.choices:
            shape = chunk.choices[-1].usage
        usage = usage_of(shape) if shape is not None else None
        if usage is None:
            return
        self.served = served_tier(chunk.service_tier) or self.served
        alone, ended = not chunk.choices, self._seen <= self._finished
        if len(self._seen) < 2:
            out.append(Used(usage, final=alone or ended))
            return
        # A report may count one choice only: llama.cpp sends one for each, vLLM's continuous ones are such.
        if alone:
            self._alone.append(usage)
            out.append(Used(summed(self._alone) if len(self._alone) > 1 else usage, final=ended))
        else:
            self._early = usage


def _failure(error: msgspec.Raw) -> Failed | None:
    if not error or bytes(error) in NO_ERROR:
        return None
    message, kind = error_words(bytes(error))
    return Failed(message, kind)


def _parts(parts: Iterable[Any], choice: int) -> Iterator[Said | Thought]:
    """Content in parts: Mistral's text and thinking, which is a list of text parts itself."""
    for given in parts:
        part = {"text": given} if isinstance(given, str) else given
        if not isinstance(part, dict):
            continue
        text, thinking = part.get("text"), part.get("thinking")
        if isinstance(text, str) and text:
            yield Said(text, choice)
        for thought in thinking if isinstance(thinking, list) else [thinking]:
            said = thought.get("text") if isinstance(thought, dict) else thought
            if isinstance(said, str) and said:
                yield Thought(said, choice=choice, origin=ORIGIN)


def _signature(call: Call) -> str | None:
    """Google's compatible endpoint has it (https://ai.google.dev/gemini-api/docs/thought-signatures)."""
    google = call.extra_content.get("google") if isinstance(call.extra_content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def _complete(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments)
    except UNREADABLE:
        return False
    return True


def _without_partial_usage(events: list[Event], body: bytes) -> list[Event]:
    """llama.cpp's whole reply of several choices counts one of them (tests/wire): then nothing was said of usage."""
    seen = sum(pieces(event.text) for event in events if isinstance(event, Said | Thought | CallPiece))
    one_only = counts_one_choice(body)
    return [e for e in events if not isinstance(e, Used) or (2 * e.usage.output >= seen and not one_only)]
