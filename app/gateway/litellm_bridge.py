"""Providers that speak none of the gateway's dialects (Bedrock, Vertex, Cohere, ...), through litellm's translators.

The only file that imports litellm, and that only when such a provider is first asked: the import takes seconds and
200 MB. It lives in a thread with an event loop of its own, so that neither the import nor what litellm does
synchronously (credentials, signing, parsing) stops the gateway's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import structlog

from app.core.errors import BadRequest
from app.core.policy import Provider
from app.gateway.bridge_reply import BridgedReply
from app.gateway.bridged import (
    arguments_for,
    chunk_bytes,
    embeddings_bytes,
    error_bytes,
    usage_bytes,
    whole_bytes,
)
from app.gateway.bridged_cohere import cohere_piece
from app.gateway.upstream import NO_HEADERS, ConnectionBroken, NotConnected, Reply, Upstreams
from app.stores.causes import causes_of, unreachable

log = structlog.get_logger()

JOIN_S = 2.0
JSON: Mapping[str, str] = {"content-type": "application/json"}
STREAM: Mapping[str, str] = {"content-type": "text/event-stream"}
KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "x-amzn-requestid")
_responses: ContextVar[list[Any]] = ContextVar("responses")
"""The HTTP responses that a call has opened: not every stream of litellm's closes its own."""


class BridgedUpstreams:
    """What opens replies: the bridge where the provider needs one, else the pool."""

    def __init__(self, pool: Upstreams) -> None:
        self._pool = pool
        self._bridge: LitellmBridge | None = None

    def open(
        self, provider: Provider, path: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> Coroutine[Any, Any, Reply]:
        """See `Upstreams.open`; not a coroutine itself, so that the way to the pool costs a call and no more."""
        if provider.bridge is None:
            return self._pool.open(provider, path, body, headers)
        if self._bridge is None:
            self._bridge = LitellmBridge()
        return self._bridge.open(provider, path, body)

    async def close(self) -> None:
        """Close all connections."""
        if self._bridge is not None:
            await self._bridge.close()
        await self._pool.close()


class LitellmBridge:
    """litellm in its thread; begun on first use."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="litellm", daemon=True)
        self._thread.start()

    async def open(self, provider: Provider, path: str, body: bytes) -> BridgedReply:
        """Ask. Raises BadRequest for what this provider cannot be told, NotConnected or ConnectionBroken."""
        arguments = arguments_for(provider, path, body)
        reply = BridgedReply(asyncio.get_running_loop(), self._loop)
        reply.begin(_made(reply, path, body, arguments))
        try:
            await reply.opened()
        except BaseException:
            reply.close()
            raise
        return reply

    async def close(self) -> None:
        """Cancel what is under way and end the thread."""
        asyncio.run_coroutine_threadsafe(_wind_up(), self._loop)
        await asyncio.to_thread(self._thread.join, JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _wind_up() -> None:
    loop = asyncio.get_running_loop()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=JOIN_S / 2)
    loop.stop()


@functools.cache
def _litellm() -> Any:
    """litellm, told to keep to itself: no network, no .env file, no prints, no retries of its own."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    litellm: Any = import_module("litellm")  # 3 CPU-seconds and 200 MB: only for who needs it
    handler: Any = import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.telemetry = False
    # Repetition is the meter's to stop; litellm ends a stream that says one thing a hundred times.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = 2**62
    post = handler.post

    @functools.wraps(post)
    async def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        response = await post(self, *arguments, **named)
        if (open_ones := _responses.get(None)) is not None:
            open_ones.append(response)
        return response

    handler.post = noted
    cohere: Any = import_module("litellm.llms.cohere.common_utils").CohereV2ModelResponseIterator
    cohere.convert_str_chunk_to_generic_chunk = lambda _, chunk: cohere_piece(chunk)
    log.info("litellm is loaded: a provider needs it")
    return litellm


async def _made(reply: BridgedReply, path: str, body: bytes, arguments: dict[str, Any]) -> None:
    """Make a reply, in the bridge's loop; however it ends, its connections are closed and its reader is told."""
    open_ones: list[Any] = []
    _responses.set(open_ones)
    ending: Exception | None = ConnectionBroken("the bridge was stopped")
    try:
        litellm = _litellm()
        if path == "/embeddings":
            found = await litellm.aembedding(**arguments)
            reply.say_head(200, JSON)
            await reply.say(embeddings_bytes(found.model_dump(exclude_none=True), body))
        elif arguments.get("stream"):
            await _stream(reply, await litellm.acompletion(**arguments))
        else:
            found = await litellm.acompletion(**arguments)
            reply.say_head(200, JSON)
            await reply.say(whole_bytes(found.model_dump(exclude_none=True), arguments))
        ending = None
    except Exception as error:
        ending = await _failed(reply, error)
    finally:
        for response in open_ones:
            with contextlib.suppress(Exception):
                await response.aclose()
        reply.say_end(ending)


async def _stream(reply: BridgedReply, stream: Any) -> None:
    """Every chunk as an event, usage last, and the end only if the provider ended it."""
    reply.say_head(200, STREAM)
    last: dict[str, Any] = {}
    async with _closed(stream):
        async for chunk in stream:
            last = {**chunk.model_dump(), "id": last.get("id") or chunk.id}
            finishes = any(choice.get("finish_reason") for choice in last["choices"])
            if finishes and not (stream.received_finish_reason or stream.intermittent_finish_reason):
                # litellm says `stop` where a stream merely ended.
                raise ConnectionBroken("the provider's stream ended before it was finished")
            if part := chunk_bytes(last):
                await reply.say(part)
    # Where the provider reports nothing litellm counts by itself; the gateway's own estimate is as good, and says so.
    if last.get("usage") and any(getattr(chunk, "usage", None) for chunk in stream.chunks):
        await reply.say(usage_bytes(last, _without_nulls(last["usage"])))
    await reply.say(b"data: [DONE]\n\n")


@contextlib.asynccontextmanager
async def _closed(stream: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await stream.aclose()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(child) for name, child in value.items() if child is not None}
    return value


async def _failed(reply: BridgedReply, error: Exception) -> Exception | None:
    """Tell the reader of an error: as the provider's status where it has one, else as what to raise."""
    litellm = _litellm()
    if isinstance(error, litellm.UnsupportedParamsError):
        return BadRequest("The provider does not take one of the request's parameters.")
    if isinstance(error, ConnectionBroken) or reply.status:
        return error
    for cause in causes_of(error):
        if isinstance(cause, ImportError):
            log.error("litellm lacks a package to ask this provider: install it", package=cause.name)
    names = {type(cause).__name__ for cause in causes_of(error)}
    if names & {"ConnectError", "ClientConnectorError", "ConnectTimeout"}:
        return NotConnected(unreachable(error))
    status = getattr(error, "status_code", None)
    if isinstance(error, litellm.APIConnectionError) or not isinstance(status, int) or not 400 <= status < 600:
        return ConnectionBroken(f"{type(error).__name__}: the provider gave no answer that can be read")
    told = getattr(getattr(error, "response", None), "headers", None) or {}
    code = "context_length_exceeded" if isinstance(error, litellm.ContextWindowExceededError) else None
    reply.say_head(status, {**JSON, **{name: told[name] for name in KEPT_HEADERS if name in told}})
    await reply.say(error_bytes(status, str(error), code))
    return None
