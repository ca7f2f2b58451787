"""Providers whose protocols the gateway does not speak itself, scripted on loopback: Cohere v2, Bedrock's Converse, and
Vertex with its service accounts.

What they say is written from the providers' own references, and shares no code with litellm:
https://docs.cohere.com/v2/docs/streaming, https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
and, for Bedrock's framing, https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from tests.upstream import PATIENCE_S


@dataclass(slots=True)
class Said:
    """What a foreign provider answers: words, or a call; or an error before anything, or a death after some words."""

    words: list[str] = field(default_factory=lambda: ["Hello", " from", " afar."])
    call: tuple[str, list[str]] | None = None
    finish: str = "stop"
    tokens: tuple[int, int] = (12, 3)
    reports: bool = True
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    dies_after: int | None = None


@dataclass(slots=True)
class Asked:
    """A request as it came, how many words were sent for it, and whether its client left before the end."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    sent: int = 0
    gone: bool = False


class Foreign:
    """Serves both protocols at `url`; `said` may be replaced at any time."""

    def __init__(self) -> None:
        self.said = Said()
        self.asked: list[Asked] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v2/chat", self._cohere)
        app.router.add_post("/v2/embed", self._cohere_embed)
        app.router.add_post("/token", self._vertex_token)
        app.router.add_post("/vertex/{model:[^:]+}:{verb}", self._vertex)
        app.router.add_post("/model/{model}/{way:converse|converse-stream}", self._bedrock)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def until(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Wait until something that is true of `asked` becomes so."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _note(self, request: web.Request) -> Asked:
        asked = Asked(unquote(request.path), {k.lower(): v for k, v in request.headers.items()}, await request.json())
        self.asked.append(asked)
        self._changed.set()
        return asked

    async def _stream(self, request: web.Request, asked: Asked, kind: str, parts: AsyncIterator[bytes]) -> web.Response:
        response = web.StreamResponse(headers={"content-type": kind, **self.said.headers})
        await response.prepare(request)
        try:
            async for part in parts:
                await response.write(part)
        except (asyncio.CancelledError, ConnectionResetError):
            asked.gone = True
            self._changed.set()
            raise
        if self.said.dies_after is not None and request.transport is not None:
            request.transport.abort()
        else:
            await response.write_eof()
        return response  # type: ignore[return-value]

    async def _paced(self, asked: Asked) -> AsyncIterator[str]:
        said = self.said
        for place, word in enumerate(said.words):
            if said.dies_after is not None and place >= said.dies_after:
                return
            if said.delay_s:
                await asyncio.sleep(said.delay_s)
            asked.sent += 1
            self._changed.set()
            yield word

    def _failed(self) -> web.Response:
        return web.json_response(self.said.error, status=self.said.status, headers=self.said.headers)

    # Cohere v2

    async def _cohere(self, request: web.Request) -> web.Response:
        asked = await self._note(request)
        if self.said.status != 200:
            return self._failed()
        if asked.body.get("stream"):
            return await self._stream(request, asked, "text/event-stream", self._cohere_events(asked))
        said = self.said
        message: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": "".join(said.words)}]}
        if said.call is not None:
            function = {"name": said.call[0], "arguments": "".join(said.call[1])}
            message = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
        reason = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"}[said.finish]
        return web.json_response(
            {"id": "c-1", "finish_reason": reason, "message": message, "usage": self._cohere_usage()}
        )

    def _cohere_usage(self) -> dict[str, Any]:
        counts = dict(zip(("input_tokens", "output_tokens"), self.said.tokens, strict=True))
        return {"billed_units": counts, "tokens": counts}

    async def _cohere_events(self, asked: Asked) -> AsyncIterator[bytes]:
        def event(kind: str, **fields: Any) -> bytes:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

        said = self.said
        empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        yield event("message-start", id="c-1", delta={"message": empty})
        if said.call is None:
            yield event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}})
            async for word in self._paced(asked):
                yield event("content-delta", index=0, delta={"message": {"content": {"text": word}}})
            yield event("content-end", index=0)
        else:
            function = {"name": said.call[0], "arguments": ""}
            call = {"id": "call_1", "type": "function", "function": function}
            yield event("tool-call-start", index=0, delta={"message": {"tool_calls": call}})
            for piece in said.call[1]:
                if said.delay_s:
                    await asyncio.sleep(said.delay_s)
                more = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
                yield event("tool-call-delta", index=0, delta=more)
            yield event("tool-call-end", index=0)
        if said.dies_after is None:
            reason = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"}[said.finish]
            usage = {"usage": self._cohere_usage()} if said.reports else {}
            yield event("message-end", id="c-1", delta={"finish_reason": reason, **usage})

    async def _cohere_embed(self, request: web.Request) -> web.Response:
        asked = await self._note(request)
        if self.said.status != 200:
            return self._failed()
        vectors = [[0.5, float(place)] for place in range(len(asked.body["texts"]))]
        usage = {"billed_units": {"input_tokens": self.said.tokens[0]}}
        return web.json_response({"id": "e-1", "embeddings": {"float": vectors}, "texts": [], "meta": usage})

    # Vertex: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference

    async def _vertex_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return web.json_response({"access_token": "vertex-token", "expires_in": 3600, "token_type": "Bearer"})

    async def _vertex(self, request: web.Request) -> web.Response:
        asked = await self._note(request)
        if request.match_info["verb"] == "streamGenerateContent":
            return await self._stream(request, asked, "text/event-stream", self._vertex_events(asked))
        if self.said.call is not None:
            return web.json_response(self._vertex_called())
        return web.json_response(self._vertex_chunk("".join(self.said.words), len(self.said.words), last=True))

    def _vertex_called(self) -> dict[str, Any]:
        assert self.said.call is not None
        call = {"functionCall": {"name": self.said.call[0], "args": json.loads("".join(self.said.call[1]))}}
        chunk = self._vertex_chunk("", self.said.tokens[1], last=True)
        chunk["candidates"][0]["content"]["parts"] = [call]
        return chunk

    async def _vertex_events(self, asked: Asked) -> AsyncIterator[bytes]:
        if self.said.call is not None:  # Gemini's calls come whole
            yield b"data: " + json.dumps(self._vertex_called()).encode() + b"\r\n\r\n"
            return
        async for word in self._paced(asked):
            chunk = self._vertex_chunk(word, asked.sent, last=asked.sent == len(self.said.words))
            yield b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"

    def _vertex_chunk(self, text: str, so_far: int, *, last: bool) -> dict[str, Any]:
        given = self.said.tokens[0]
        finish = {"finishReason": "STOP"} if last else {}
        counts = {"promptTokenCount": given, "candidatesTokenCount": so_far, "totalTokenCount": given + so_far}
        content = {"role": "model", "parts": [{"text": text}]}
        return {"candidates": [{"index": 0, "content": content, **finish}], "usageMetadata": counts}

    # Bedrock

    async def _bedrock(self, request: web.Request) -> web.Response:
        asked = await self._note(request)
        said = self.said
        if said.status != 200:
            return self._failed()
        reason = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}[said.finish]
        counts = {"inputTokens": said.tokens[0], "outputTokens": said.tokens[1], "totalTokens": sum(said.tokens)}
        if request.match_info["way"] == "converse-stream":
            kind = "application/vnd.amazon.eventstream"
            return await self._stream(request, asked, kind, self._bedrock_frames(asked, reason, counts))
        content: list[Any] = [{"text": "".join(said.words)}]
        if said.call is not None:
            found = json.loads("".join(said.call[1]))
            content = [{"toolUse": {"toolUseId": "call_1", "name": said.call[0], "input": found}}]
        message = {"message": {"role": "assistant", "content": content}}
        return web.json_response(
            {"output": message, "stopReason": reason, "usage": counts, "metrics": {"latencyMs": 1}}
        )

    async def _bedrock_frames(self, asked: Asked, reason: str, counts: dict[str, int]) -> AsyncIterator[bytes]:
        said = self.said
        yield frame("messageStart", {"role": "assistant"})
        if said.call is None:
            async for word in self._paced(asked):
                yield frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}})
        else:
            start = {"toolUse": {"toolUseId": "call_1", "name": said.call[0]}}
            yield frame("contentBlockStart", {"contentBlockIndex": 0, "start": start})
            for piece in said.call[1]:
                if said.delay_s:
                    await asyncio.sleep(said.delay_s)
                yield frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": piece}}})
        if said.dies_after is None:
            yield frame("contentBlockStop", {"contentBlockIndex": 0})
            yield frame("messageStop", {"stopReason": reason})
            if said.reports:
                yield frame("metadata", {"usage": counts, "metrics": {"latencyMs": 1}})


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of AWS's binary event stream: prelude, headers, payload, each with its CRC-32."""
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in (
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    head = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + body
    return head + struct.pack("!I", zlib.crc32(head))
