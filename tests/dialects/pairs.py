"""What the tests of all pairs of dialects share: one request in four spellings, requests and replies made comparable,
and the way of a reply from an upstream to a client."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from app.core.conversation import Conversation, Media, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from app.core.errors import UpstreamError
from app.core.events import Begin, CallBegins, CallPiece, Event, Failed, Finished, Said, Thought, Used
from app.core.meter import Meter
from app.core.money import Usage
from app.core.sse import SseParser
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.event_relay import EventRelay
from app.dialects.registry import CHAT, GEMINI, MESSAGES, NAMES, RESPONSES, dialect_named

MODELS: Final = {CHAT: "gpt-x", RESPONSES: "gpt-x", MESSAGES: "claude-opus-4-5", GEMINI: "gemini-2.5-flash"}
PAIRS: Final = list(itertools.product(NAMES, NAMES))
COST_NANO: Final = 1_500


def parsed(name: str, body: dict[str, Any] | bytes, *, stream: bool = False) -> ChatRequest:
    """A client's request in this dialect."""
    path = {"model": MODELS[name], "verb": "streamGenerateContent" if stream else "generateContent", "alt": "sse"}
    return dialect_named(name).parse(body if isinstance(body, bytes) else json.dumps(body).encode(), {}, path)


def talk_of(name: str, body: dict[str, Any] | bytes) -> Conversation:
    """The conversation of a request in this dialect."""
    return dialect_named(name).conversation(parsed(name, body))


def plain(talk: Conversation, *, hoist: bool = False) -> dict[str, Any]:
    """A conversation as plain values, in which what means the same is the same: turns of one role are one, texts beside
    each other are one, results come first. `hoist`: media in results stand behind the results."""
    turns: list[tuple[str, list[Any]]] = []
    system = []
    for message in talk.messages:
        if message.role == "system":
            system += [part.text for part in message.parts if isinstance(part, Text)]
        elif turns and turns[-1][0] == message.role:
            turns[-1][1].extend(message.parts)
        else:
            turns.append((message.role, list(message.parts)))
    shape = talk.shape
    return {
        "system": "\n\n".join(system),
        "turns": [(role, _plain_parts(role, parts, hoist)) for role, parts in turns],
        "tools": [(tool.name, tool.description, bool(tool.strict), _json(tool.schema)) for tool in talk.tools],
        "tool_choice": talk.tool_named or talk.tool_choice or "auto",
        "parallel_tools": talk.parallel_tools is not False,
        "shape": None if shape is None else (_json(shape.schema), shape.name, bool(shape.strict)),
        "stop": talk.stop,
        **{name: getattr(talk, name) for name in SAMPLING},
        "user": talk.user,
        "choices": talk.choices,
    }


SAMPLING: Final = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")


def _json(raw: Any) -> Any:
    return None if raw is None else json.loads(bytes(raw))


def _plain_parts(role: str, parts: list[Part], hoist: bool) -> list[Any]:
    results = [part for part in parts if isinstance(part, ToolResult)]
    moved = [inner for part in results for inner in part.parts if isinstance(inner, Media)] if hoist else []
    rest = [part for part in parts if not isinstance(part, ToolResult | Thinking)]
    plain_results = [_plain_result(result, hoist) for result in results]
    between = "" if role == "assistant" else "\n\n"
    return [*plain_results, *_joined([*moved, *rest], between)]


def _plain_result(result: ToolResult, hoist: bool) -> Any:
    parts = [part for part in result.parts if isinstance(part, Text) or not hoist]
    return ("result", result.id, result.is_error, _joined(list(parts), "\n\n"))


def _joined(parts: Sequence[Part], between: str) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        if isinstance(part, Text | Refusal):
            if found and found[-1][0] == "text":
                found[-1] = ("text", found[-1][1] + between + part.text)
            else:
                found.append(("text", part.text))
        elif isinstance(part, Media):
            found.append((part.kind, part.data and part.media_type, part.data, part.url))
        elif isinstance(part, ToolCall):
            found.append(("call", part.id, part.name, part.arguments if part.custom else json.loads(part.arguments)))
    return found


def strength(talk: Conversation) -> str | None:
    """How much the model is asked to think, in one word, whichever way it was said."""
    if talk.effort is not None:
        return {"minimal": "low", "xhigh": "high", "max": "high"}.get(talk.effort, talk.effort)
    if talk.think_tokens is None:
        return None
    return (
        "none"
        if not talk.think_tokens
        else "low"
        if talk.think_tokens <= 4096
        else "medium"
        if talk.think_tokens <= 16384
        else "high"
    )


ASK: Final[dict[str, dict[str, Any]]] = {
    CHAT: {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    RESPONSES: {"model": "m", "input": [{"role": "user", "content": "Hi"}], "stream": True},
    MESSAGES: {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], "stream": True},
    GEMINI: {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
}


def asking(name: str, choices: int = 1) -> ChatRequest:
    """A client's request for a stream."""
    body = dict(ASK[name])
    if choices > 1:
        body |= {"n": choices} if name == CHAT else {"generationConfig": {"candidateCount": choices}}
    return parsed(name, body, stream=True)


def spoken(name: str, script: Sequence[Event], usage: Usage, choices: int = 1) -> bytes:
    """The stream of an upstream of this dialect that says this."""
    writer = dialect_named(name).writer(asking(name, choices))
    said = b"".join(writer.write([event]) for event in script if not isinstance(event, Finished | Failed))
    for event in script:
        if isinstance(event, Failed):
            return said + writer.broken(UpstreamError(event.message))
    return said + writer.complete([e for e in script if isinstance(e, Finished)], Counts(usage, True, None), [])


def read(name: str, body: bytes) -> list[Event]:
    """The events of a stream in this dialect."""
    parser, reader = SseParser(), dialect_named(name).reader()
    return [event for frame in (*parser.feed(body), *parser.close()) for event in reader.read(frame)]


def relaying(
    upstream: str, client: str, *, choices: int = 1, folds: bool = False, clamp_tokens: int | None = None
) -> EventRelay:
    """The gateway's relay between these two."""
    return EventRelay(
        Meter(None, 5, 1000),
        dialect_named(client),
        dialect_named(upstream).reader(),
        asking(client, choices),
        same=client == upstream,
        clamp_tokens=clamp_tokens,
        folds=folds,
    )


def relayed(
    upstream: str, client: str, body: bytes, places: Iterable[int] = (), *, choices: int = 1, folds: bool = False
) -> tuple[bytes, EventRelay]:
    """What a client of one dialect gets of another's stream, which arrives in reads that end at these places."""
    relay, parser, out = relaying(upstream, client, choices=choices, folds=folds), SseParser(), b""
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    for start, end in itertools.pairwise(edges):
        out += relay.feed(parser.feed(body[start:end]))
    out += relay.feed(parser.close())
    if relay.broken is not None:
        return out + relay.end_broken(UpstreamError("The provider broke off.")), relay
    if folds:
        return relay.folded(COST_NANO, None), relay
    return out + relay.end_complete(COST_NANO), relay


def gist(events: Sequence[Event]) -> dict[str, Any]:
    """What a reply says, however it was cut into events."""
    begins = [event for event in events if isinstance(event, Begin)]
    used = [event.usage for event in events if isinstance(event, Used)]
    failed = [event.message for event in events if isinstance(event, Failed)]
    return {
        "id": begins[0].id.removeprefix("resp_"),
        "model": begins[0].model,
        "said": [_run(run) for run in _runs(events)],
        "finished": {event.choice: event.reason for event in events if isinstance(event, Finished)},
        "usage": replace_cost(used[-1]) if used and not failed else None,
        "failed": failed,
    }


def replace_cost(usage: Usage) -> Usage:
    """The usage without what it cost."""
    return msgspec.structs.replace(usage, cost_nano=None)


def _runs(events: Sequence[Event]) -> list[list[Any]]:
    """Events that go on with each other, in the order in which they began, choice by choice."""
    runs: dict[tuple[Any, ...], list[Any]] = {}
    last: dict[int, tuple[str, int]] = {}
    for event in events:
        if isinstance(event, CallBegins | CallPiece):
            runs.setdefault((event.choice, "call", event.index), []).append(event)
            last[event.choice] = ("call", event.index)
        elif isinstance(event, Said | Thought) and event.text:
            kind = "thought" if isinstance(event, Thought) else "refusal" if event.refusal else "text"
            known, place = last.get(event.choice, ("", -1))
            last[event.choice] = (kind, place if known == kind else len(runs))
            runs.setdefault((event.choice, *last[event.choice]), []).append(event)
    return [runs[key] for key in sorted(runs, key=lambda key: key[0])]


def _run(run: list[Any]) -> tuple[Any, ...]:
    first = run[0]
    text = "".join(event.text for event in run if not isinstance(event, CallBegins))
    if isinstance(first, CallBegins):
        arguments = text if first.custom or not text else json.loads(text)
        return ("call", first.choice, first.id, first.name, first.custom, arguments or {})
    kind = "thought" if isinstance(first, Thought) else "refusal" if first.refusal else "text"
    return (kind, first.choice, text)


def of_origin(script: Sequence[Event], name: str) -> list[Event]:
    """The script as a provider of this dialect says it: only Gemini signs calls, Responses encrypts its thoughts."""
    own: list[Event] = []
    for event in script:
        if isinstance(event, Thought) and name == RESPONSES:
            own.append(replace(event, origin=name, signature=None, encrypted=event.signature))
        elif isinstance(event, Thought):
            own.append(replace(event, origin=name))
        elif isinstance(event, CallBegins) and name != GEMINI:
            own.append(replace(event, signature=None))
        else:
            own.append(event)
    return own
