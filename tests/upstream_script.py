"""What a scripted upstream says: pieces of a reply, the script around them, and the plan for one request.

Pure: no sockets, no clock. `tests.upstream` carries a plan out over a real connection.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any, Literal


class Gate:
    """Lets scripted pieces through one by one, from any thread: closed until `release` or `open`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._permits = 0
        self._open = False
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def release(self, pieces: int = 1) -> None:
        """Let this many more pieces through."""
        with self._lock:
            self._permits += pieces
        self._wake()

    def open(self) -> None:
        """Let everything through from now on."""
        with self._lock:
            self._open = True
        self._wake()

    async def passed(self) -> None:
        """Wait for a permit and take it (the upstream calls this before each piece)."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._open:
                    return
                if self._permits:
                    self._permits -= 1
                    return
                turn: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, turn))
            await turn

    def _wake(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for loop, turn in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish_turn, turn)


def _finish_turn(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


@dataclass(frozen=True, slots=True)
class Delta:
    """One generated chunk: `delta` goes out as it stands and bills `tokens`. `choice` None: every choice."""

    delta: Mapping[str, Any]
    tokens: int = 1
    choice: int | None = None
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Hidden:
    """Reasoning tokens that are billed and never streamed."""

    tokens: int
    choice: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event with this JSON payload, outside of what is generated; bills nothing."""

    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Raw:
    """These very bytes, at this place of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for this long."""

    seconds_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is sent until the gate gives a permit."""

    gate: Gate


@dataclass(frozen=True, slots=True)
class Act:
    """What the upstream does to the connection here; the script ends with it.

    `hang`: nothing more comes until the client leaves. `reset`: a TCP RST (which may destroy bytes that the
    client has not read yet: put a `Wait` before it). `close`: FIN in the middle of the body. `end`: the body
    ends here in order, with neither finish, usage nor [DONE].
    """

    what: Literal["hang", "reset", "close", "end"]


HANG, RESET, CLOSE, END = Act("hang"), Act("reset"), Act("close"), Act("end")
Control = Pause | Wait | Act
Piece = Delta | Hidden | Event | Raw | Control
Billed = Delta | Hidden


def text(value: str, tokens: int = 1, choice: int | None = None) -> Delta:
    """A chunk of the answer's text."""
    return Delta({"content": value}, tokens, choice)


def words(value: str, choice: int | None = None) -> list[Piece]:
    """The text as one chunk of one token per word, spaces kept."""
    parts = value.split(" ")
    return [text(part if i == 0 else f" {part}", choice=choice) for i, part in enumerate(parts)]


def reasoning(value: str, tokens: int = 1, choice: int | None = None, name: str = "reasoning_content") -> Delta:
    """A chunk of visible reasoning."""
    return Delta({name: value}, tokens, choice, reasoning=True)


def refusal(value: str, tokens: int = 1, choice: int | None = None) -> Delta:
    """A chunk of a refusal."""
    return Delta({"refusal": value}, tokens, choice)


def audio(data: str, transcript: str = "", tokens: int = 1, choice: int | None = None) -> Delta:
    """A chunk of audio in base64, with its transcript."""
    return Delta({"audio": {"id": "audio_1", "data": data, "transcript": transcript}}, tokens, choice)


def tool(
    arguments: str = "",
    *,
    id: str | None = None,
    name: str | None = None,
    index: int = 0,
    tokens: int = 1,
    choice: int | None = None,
) -> Delta:
    """A chunk of a tool call: the opening one carries `id` and `name`, later ones only `arguments`."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    call: dict[str, Any] = {"index": index, "function": function}
    if id is not None:
        call = {"index": index, "id": id, "type": "function", "function": function}
    return Delta({"tool_calls": [call]}, tokens, choice)


def hidden(tokens: int, choice: int | None = None) -> Hidden:
    """Reasoning tokens that are billed and never streamed."""
    return Hidden(tokens, choice)


def comment(value: str = "keepalive") -> Raw:
    """An SSE comment."""
    return Raw(f": {value}\n\n".encode())


def error_event(message: str = "The server had an error", code: str | None = "server_error") -> Event:
    """An error in the stream, in OpenAI's shape."""
    return Event(error_body(message, type="server_error", code=code))


def error_body(message: str, *, type: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """OpenAI's error body."""
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


def _hello() -> list[Piece]:
    return words("Hello from the scripted upstream.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How the upstream answers one request. Change one with `dataclasses.replace`.

    `opening` runs before the reply's headers. `gate` must let each billed piece through, `delay_s` passes
    before each, and a `Live` gateway in this process is done with the one before. `finish` "auto" is stop, tool_calls,
    function_call or (at the limit) length; None sends none.
    `usage`: "asked" a last separate chunk if stream_options asks; "always" that in any case; "merged" in the
    finish chunk; "cumulative" running totals on every chunk and at the end; "missing" never.
    `usage_override` is laid over the reported usage (a provider that lies). `segment` cuts the wire into
    writes of so many bytes; `multi_line` spreads each event's JSON over several data lines.
    `drop_idle` closes the connection right after a complete reply without having announced it.
    """

    pieces: Sequence[Piece] = field(default_factory=_hello)
    opening: Sequence[Control] = ()
    delay_s: float = 0.0
    gate: Gate | None = None
    finish: str | None = "auto"
    usage: Literal["asked", "always", "merged", "cumulative", "missing"] = "asked"
    usage_override: Mapping[str, Any] | None = None
    done: bool = True
    input_tokens: int | None = None
    cached_tokens: int = 0
    obeys_limit: bool = True
    bills_after_cancel: bool = False
    role_chunk: bool = True
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    multi_line: bool = False
    segment: int | None = None
    chunked: bool = True
    keep_alive: bool = True
    drop_idle: bool = False
    embedding_dims: int = 8

    @staticmethod
    def of(*pieces: Piece | Iterable[Piece], **options: Any) -> Script:
        """A script of these pieces (lists of pieces are flattened), with Script's options by name."""
        flat: list[Piece] = []
        for piece in pieces:
            flat.extend([piece] if isinstance(piece, Piece) else piece)
        return Script(pieces=flat, **options)

    @staticmethod
    def failure(
        status: int,
        message: str = "The upstream refused",
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Script:
        """A status error with OpenAI's error body (`headers` for Retry-After and the like)."""
        body = json.dumps(error_body(message, type=type, code=code)).encode()
        return Script(status=status, body=body, headers={"content-type": "application/json", **(headers or {})})

    @staticmethod
    def html(status: int = 502, title: str = "Bad Gateway") -> Script:
        """A proxy's error page."""
        page = f"<html><head><title>{status} {title}</title></head><body><h1>{status} {title}</h1></body></html>"
        return Script(status=status, body=page.encode(), headers={"content-type": "text/html"})

    @staticmethod
    def replay(body: bytes, content_type: str = "text/event-stream", **options: Any) -> Script:
        """These bytes as they are: a recorded stream or a recorded JSON body. Bills nothing."""
        headers = {"content-type": content_type}
        if content_type == "application/json":
            return Script(body=body, headers=headers, **options)
        return Script(pieces=[Raw(body), END], headers=headers, **options)


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What the provider charges, in dollars per 1,000 tokens (text, so that it is exact). `cached` None: as input."""

    input_per_1k: str
    output_per_1k: str
    cached_per_1k: str | None = None


@dataclass(slots=True)
class Tokens:
    """What one call has consumed so far, in tokens; `output` includes `reasoning`, `input` includes `cached`."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def bill(self, price: ListPrice) -> int:
        """The provider's charge in nano-dollars, rounded up once."""
        cached_rate = price.input_per_1k if price.cached_per_1k is None else price.cached_per_1k
        usd = (
            Fraction(price.input_per_1k) * (self.input - self.cached)
            + Fraction(cached_rate) * self.cached
            + Fraction(price.output_per_1k) * self.output
        ) / 1000
        return ceil(usd * 10**9)

    def add(self, piece: Billed) -> None:
        """Count a generated piece."""
        self.output += piece.tokens
        if isinstance(piece, Hidden) or piece.reasoning:
            self.reasoning += piece.tokens

    def report(self, override: Mapping[str, Any] | None) -> dict[str, Any]:
        """OpenAI's usage object."""
        usage = {
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
        return {**usage, **(override or {})}


@dataclass(frozen=True, slots=True)
class Plan:
    """A script applied to one request: the pieces in order (choice resolved) and each choice's finish reason."""

    pieces: tuple[Piece, ...]
    finishes: Mapping[int, str | None]


def count_input(body: Mapping[str, Any]) -> int:
    """A stand-in for the provider's tokenizer: a quarter of the characters said, plus three a message."""

    def said(value: Any) -> int:
        if isinstance(value, str):
            return len(value)
        if isinstance(value, Mapping):
            return sum(said(v) for v in value.values())
        return sum(said(v) for v in value) if isinstance(value, list) else 0

    messages = body.get("messages") or []
    content = sum(said(m.get("content")) for m in messages if isinstance(m, Mapping))
    others = sum(said(body.get(name)) for name in ("tools", "input", "prompt", "suffix"))
    return -(-(content + others) // 4) + 3 * len(messages)


def plan(script: Script, body: Mapping[str, Any]) -> Plan:
    """Apply `n` and the output limit of the request to the script."""
    asked = [body[key] for key in ("max_tokens", "max_completion_tokens") if body.get(key) is not None]
    limit = min(asked) if asked and script.obeys_limit else None
    prompts = body.get("prompt")
    several = len(prompts) if isinstance(prompts, list) and not isinstance((prompts or [0])[0], int) else 1
    choices = range((body.get("n") or 1) * several)
    used = dict.fromkeys(choices, 0)
    finishes: dict[int, str | None] = dict.fromkeys(choices, "stop")
    out: list[Piece] = []
    for piece in script.pieces:
        if not isinstance(piece, Delta | Hidden):
            if set(finishes.values()) != {"length"}:
                out.append(piece)
            continue
        for choice in choices if piece.choice is None else (piece.choice,):
            spent = used.setdefault(choice, 0)
            finishes.setdefault(choice, "stop")
            if finishes[choice] == "length":
                continue
            room = piece.tokens if limit is None else limit - spent
            if piece.tokens > room:
                finishes[choice] = "length"
            used[choice] = spent + min(piece.tokens, room)
            if room > 0 or piece.tokens == 0:
                out.append(_cut(piece, choice, min(piece.tokens, room)))
            if isinstance(piece, Delta) and finishes[choice] != "length":
                finishes[choice] = _finish(piece, finishes[choice])
    if script.finish != "auto":
        finishes = dict.fromkeys(finishes, script.finish)
    return Plan(tuple(out), finishes)


def _finish(piece: Delta, before: str | None) -> str | None:
    return next((kind for kind in ("tool_calls", "function_call") if kind in piece.delta), before)


def _cut(piece: Billed, choice: int, tokens: int) -> Billed:
    """The first `tokens` of a piece: strings shortened in proportion, everything else dropped."""
    if isinstance(piece, Hidden):
        return Hidden(tokens, choice)
    if tokens == piece.tokens:
        return Delta(piece.delta, tokens, choice, piece.reasoning)
    kept = {k: v[: len(v) * tokens // piece.tokens] for k, v in piece.delta.items() if isinstance(v, str)}
    return Delta(kept, tokens, choice, piece.reasoning)
