"""One reply of the scripted upstream: a script carried out for one request, and the record of what became of it."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Protocol

from tests.readers import done_reading
from tests.upstream_script import (
    END,
    Act,
    Control,
    Delta,
    Event,
    Hidden,
    Pause,
    Plan,
    Raw,
    Script,
    Tokens,
    Wait,
    count_input,
    error_body,
    plan,
)

CREATED = 1_700_000_000
State = Literal["open", "answered", "client_gone", "broken"]


@dataclass(slots=True)
class Received:
    """One request as it arrived, and what has become of it. `headers` have lower-case names.

    `state`: open (still being answered), answered (the whole reply, or an `end`, was written), client_gone
    (the peer closed first), broken (the script reset or closed the connection). Times are `time.monotonic`.
    """

    index: int
    connection: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    raw: bytes
    body: Any
    received_at_s: float
    state: State = "open"
    ended_at_s: float | None = None
    deltas_sent: int = 0
    tokens: Tokens = field(default_factory=Tokens)

    @property
    def model(self) -> str:
        """The model asked for; empty without one."""
        return str(self.body.get("model", "")) if isinstance(self.body, dict) else ""

    @property
    def stream(self) -> bool:
        """Whether a stream was asked for."""
        return isinstance(self.body, dict) and self.body.get("stream") is True

    @property
    def client_gone(self) -> bool:
        """Whether the peer closed the connection before the reply was complete."""
        return self.state == "client_gone"


class Peer(Protocol):
    """The connection that a reply goes out on."""

    async def send(self, data: bytes, segment: int | None) -> None:
        """Write, in TCP segments of so many bytes where asked."""

    async def act(self, act: Act) -> None:
        """Hang, reset or close; never returns."""

    def sent_delta(self, request: Received) -> None:
        """Count a delta that went out."""


class Reply:
    """Carries out a script for one request."""

    def __init__(self, peer: Peer, request: Received, script: Script) -> None:
        self._peer = peer
        self._request = request
        self._script = script
        self._asked = request.body if isinstance(request.body, dict) else {}
        options = self._asked.get("stream_options") or {}
        self._wants_usage = bool(options.get("include_usage"))
        self._roles: set[int] = set()
        self._text = request.path.endswith("/completions") and not request.path.endswith(
            ("/chat/completions", "/fim/completions")
        )

    async def run(self) -> None:
        """Answer whole, or be cancelled when the client leaves."""
        script, request = self._script, self._request
        for control in script.opening:
            await self._control(control)
        kind = request.path.rpartition("/")[2]
        if request.method == "POST" and script.body is not None:
            return await self._whole(script.status, script.body)
        if request.method == "POST" and kind == "embeddings":
            return await self._json(200, self._embeddings())
        if request.method == "POST" and request.path.endswith("/completions"):
            return await self._chat()
        if request.method == "GET" and kind == "models":
            return await self._json(200, {"object": "list", "data": []})
        return await self._json(404, error_body(f"Unknown request URL: {request.method} {request.path}"))

    async def _chat(self) -> None:
        request, script = self._request, self._script
        planned = plan(script, self._asked)
        tokens = request.tokens
        tokens.input = count_input(self._asked) if script.input_tokens is None else script.input_tokens
        tokens.cached = min(script.cached_tokens, tokens.input)
        try:
            await (self._stream(planned) if request.stream else self._folded(planned))
        except asyncio.CancelledError:
            if script.bills_after_cancel:
                tokens.output = tokens.reasoning = 0
                for piece in planned.pieces:
                    if isinstance(piece, Delta | Hidden):
                        tokens.add(piece)
            raise

    async def _stream(self, planned: Plan) -> None:
        script, tokens = self._script, self._request.tokens
        await self._head(script.status, {"content-type": "text/event-stream; charset=utf-8"})
        for piece in planned.pieces:
            if piece == END:
                return await self._finish_body()
            if isinstance(piece, Delta | Hidden):
                await self._generate(piece)
            if isinstance(piece, Delta):
                await self._delta(piece)
            elif isinstance(piece, Event):
                await self._event(piece.payload)
            elif isinstance(piece, Raw):
                await self._body(piece.data)
            elif isinstance(piece, Pause | Wait | Act):
                await self._control(piece)
        ends = [(choice, finish) for choice, finish in planned.finishes.items() if finish is not None]
        for place, (choice, finish) in enumerate(ends):
            merged = script.usage == "merged" and place == len(ends) - 1
            usage = tokens.report(script.usage_override) if merged else None
            await self._event(self._chunk([self._choice(choice, {}, finish)], usage))
        if script.usage == "always" or (script.usage in ("asked", "cumulative") and self._wants_usage):
            await self._event(self._chunk([], tokens.report(script.usage_override)))
        if script.done:
            await self._body(f"data: [DONE]{script.newline * 2}".encode())
        await self._finish_body()

    async def _generate(self, piece: Delta | Hidden) -> None:
        """Pass the gate and the delay, then bill."""
        if self._script.gate is not None:
            await self._script.gate.passed()
        if self._script.delay_s:
            await asyncio.sleep(self._script.delay_s)
            await done_reading()
        self._request.tokens.add(piece)

    async def _delta(self, piece: Delta) -> None:
        script, choice = self._script, piece.choice or 0
        running = None
        if script.usage == "cumulative" and self._wants_usage:
            running = self._request.tokens.report(script.usage_override)
        if script.role_chunk and choice not in self._roles and not self._text:
            self._roles.add(choice)
            await self._event(self._chunk([self._choice(choice, {"role": "assistant", "content": ""})], running))
        await self._event(self._chunk([self._choice(choice, piece.delta)], running))
        self._peer.sent_delta(self._request)

    async def _folded(self, planned: Plan) -> None:
        script, tokens = self._script, self._request.tokens
        messages: dict[int, dict[str, Any]] = {c: {"role": "assistant", "content": None} for c in planned.finishes}
        for piece in planned.pieces:
            if isinstance(piece, Delta | Hidden):
                await self._generate(piece)
            if isinstance(piece, Delta):
                _fold(messages[piece.choice or 0], piece.delta)
            elif isinstance(piece, Pause | Wait | Act) and piece != END:
                await self._control(piece)
        reply = {
            **self._base("chat.completion"),
            "choices": [
                {"index": choice, **self._said(message), "logprobs": None, "finish_reason": planned.finishes[choice]}
                for choice, message in messages.items()
            ],
        }
        if script.usage != "missing":
            reply["usage"] = tokens.report(script.usage_override)
        await self._json(script.status, reply)

    async def _control(self, control: Control) -> None:
        if isinstance(control, Pause):
            await asyncio.sleep(control.seconds_s)
        elif isinstance(control, Wait):
            await control.gate.passed()
        else:
            await self._peer.act(control)

    def _embeddings(self) -> dict[str, Any]:
        said = self._asked.get("input")
        inputs = said if isinstance(said, list) else [said]
        tokens = self._request.tokens
        given = self._script.input_tokens
        tokens.input = count_input(self._asked) if given is None else given
        vectors = [[float(place + 1)] * self._script.embedding_dims for place in range(len(inputs))]
        packed: list[Any] = vectors
        if self._asked.get("encoding_format") == "base64":
            packed = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
        return {
            "object": "list",
            "model": self._asked.get("model"),
            "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(packed)],
            "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input},
        }

    def _said(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": message["content"] or ""} if self._text else {"message": message}

    def _base(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._request.index}",
            "object": "text_completion" if self._text else kind,
            "created": CREATED,
            "model": self._asked.get("model"),
            "system_fingerprint": "fp_scripted",
        }

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        chunk = {**self._base("chat.completion.chunk"), "choices": choices}
        if usage is not None or (self._wants_usage and self._script.usage == "asked"):
            chunk["usage"] = usage
        return chunk

    def _choice(self, index: int, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        said = {"text": delta.get("content", "")} if self._text else {"delta": delta}
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}

    async def _event(self, payload: Mapping[str, Any]) -> None:
        newline = self._script.newline
        if self._script.multi_line:
            lines = json.dumps(payload, ensure_ascii=False, indent=1).split("\n")
        else:
            lines = [json.dumps(payload, ensure_ascii=False, separators=(",", ":"))]
        await self._body("".join(f"data: {line}{newline}" for line in lines).encode() + newline.encode())

    async def _json(self, status: int, payload: Mapping[str, Any]) -> None:
        body = json.dumps(payload, ensure_ascii=False).encode()
        await self._whole(status, body, {"content-type": "application/json"})

    async def _whole(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        head = self._head_bytes(status, {**(headers or {}), "content-length": str(len(body))})
        await self._peer.send(head + body, self._script.segment)

    async def _head(self, status: int, headers: Mapping[str, str]) -> None:
        framing = {"transfer-encoding": "chunked"} if self._script.chunked else {"connection": "close"}
        await self._peer.send(self._head_bytes(status, {**headers, **framing}), self._script.segment)

    def _head_bytes(self, status: int, headers: Mapping[str, str]) -> bytes:
        fields = {"x-request-id": f"req-{self._request.index}", **headers, **self._script.headers}
        if not self._script.keep_alive:
            fields["connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode()

    async def _body(self, data: bytes) -> None:
        if self._script.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self._peer.send(data, self._script.segment)

    async def _finish_body(self) -> None:
        if self._script.chunked:
            await self._peer.send(b"0\r\n\r\n", self._script.segment)


def _fold(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a delta to a whole message, as OpenAI's non-streamed reply would hold it."""
    for key, value in delta.items():
        if key == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for part in value:
                if "custom" in part:
                    _fold_custom(calls, part)
                    continue
                while len(calls) <= part["index"]:
                    calls.append({"id": None, "type": "function", "function": {"name": None, "arguments": ""}})
                call = calls[part["index"]]
                call["id"] = part.get("id", call["id"])
                call["function"]["name"] = part["function"].get("name", call["function"]["name"])
                call["function"]["arguments"] += part["function"].get("arguments", "")
        elif isinstance(value, Mapping):
            _fold(message.setdefault(key, {}), value)
        elif isinstance(value, str) and key not in ("role", "id", "name"):
            message[key] = (message.get(key) or "") + value
        else:
            message[key] = value


def _fold_custom(calls: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    """The same of a custom call, whose first part names it."""
    if "id" in part:
        calls.append({"id": part["id"], "type": "custom", "custom": {**part["custom"]}})
    else:
        calls[part["index"]]["custom"]["input"] += part["custom"]["input"]
