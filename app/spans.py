"""A span of every call, as OpenTelemetry's conventions for generative AI name things; the extra `otel`.

Spans are made from the records that traces are made of, in a thread of their own, so that a gateway without them does
nothing for them and one with them does no more on its event loop than to pass a record on. Prompts are not in them.

https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/client-inference.md
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.core.policy import Policy
from app.core.types import Outcome
from app.dialects.registry import GEMINI
from app.stores.traces import Make, Record, Traces

log = structlog.get_logger()

MAX_WAITING = 10_000
"""Records waiting to become spans; beyond it they are left out: memory stays bounded."""
CLOSE_S = 5.0
_PROVIDERS = (
    ("openai.azure.com", "azure.ai.openai"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("amazonaws.com", "aws.bedrock"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("api.cohere.com", "cohere"),
)
"""Hosts and what `gen_ai.provider.name` calls them; others go by the policy's name for them."""
_NO_ERRORS = frozenset(
    {
        Outcome.COMPLETED,
        Outcome.CLIENT_GONE,
        Outcome.COST_KILLED,
        Outcome.STEP_EXHAUSTED,
        Outcome.THRASH_KILLED,
        Outcome.TASK_TIMEOUT,
        Outcome.DENIED,
    }
)
"""Outcomes, not errors: what a cap does is what it is for."""


class SpannedTraces:
    """Traces that also leave as spans. `policy` is the one in force: it knows hosts and upstream models."""

    def __init__(self, traces: Traces, processor: SpanProcessor, policy: Callable[[], Policy], version: str) -> None:
        self._traces = traces
        self._policy = policy
        self._queue: queue.Queue[Make | None] = queue.Queue(MAX_WAITING)
        # Not at exit: a receiver that is away must not keep a gateway that has drained.
        self._provider = TracerProvider(resource=resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("bursar", version)
        self._thread = threading.Thread(target=self._export, name="spans", daemon=True)
        self.dropped = 0

    async def start(self) -> None:
        self._thread.start()
        await self._traces.start()

    def append(self, request_id: str, make: Make) -> None:
        self._traces.append(request_id, make)
        try:
            self._queue.put_nowait(make)
        except queue.Full:
            if not self.dropped:
                log.error("spans are sent too slowly: some are left out", waiting=MAX_WAITING)
            self.dropped += 1

    async def get(self, request_id: str) -> Record | None:
        return await self._traces.get(request_id)

    async def of_task(self, key: str, task_id: str, began_s: float) -> tuple[list[Record], bool]:
        return await self._traces.of_task(key, task_id, began_s)

    async def due(self) -> bool:
        return await self._traces.due()

    async def close(self) -> None:
        """Send what is waiting, for as long as that is worth while."""
        await self._traces.close()
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, CLOSE_S)

    def _export(self) -> None:
        while (make := self._queue.get()) is not None:
            try:
                self._emit(make())
            except Exception:  # a record that is not as expected must not end the spans of all others
                log.exception("a call's span could not be made")
        self._provider.shutdown()

    def _emit(self, record: Record) -> None:
        begun_ns = int(record["created_s"] * 1e9)
        timings, client = record["timings"], record["client"]
        above = TraceContextTextMapPropagator().extract({"traceparent": client.get("traceparent") or ""})
        attributes = attributes_of(record, self._policy())
        operation, model = attributes["gen_ai.operation.name"], attributes.get("gen_ai.request.model")
        span = self._tracer.start_span(
            f"{operation} {model}" if model else str(operation),
            context=above,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=begun_ns,
        )
        for attempt in record["attempts"][:-1]:
            span.add_event("bursar.attempt_failed", failed_attempt(attempt), begun_ns)
        if timings["ttft_ms"] is not None and record["stream"]:
            span.add_event("bursar.first_token", {}, begun_ns + int(timings["ttft_ms"] * 1e6))
        if record["outcome"] not in _NO_ERRORS:
            span.set_attribute("error.type", str(record["outcome"]))
            span.set_status(Status(StatusCode.ERROR))
        span.end(begun_ns + int(timings["duration_ms"] * 1e6))


def attributes_of(record: Record, policy: Policy) -> dict[str, Any]:
    """What a call's span says: the conventions' names where they have one, `bursar.` for the rest."""
    name, provider_name = record["model"], record["provider"]
    candidate, provider = policy.models.get(name or ""), policy.providers.get(provider_name or "")
    decision, usage, cut = record["decision"] or {}, record["usage"], record["cut"] or {}
    choices, ttft_ms = (decision.get("asked") or {}).get("choices", 1), record["timings"]["ttft_ms"]
    upstream = candidate.upstream_model if candidate else (name or "").removeprefix(f"{provider_name}/")
    host = urlsplit(provider.base_url) if provider else None
    found: dict[str, Any] = {
        "gen_ai.operation.name": _operation(record, provider.dialect if provider else None),
        "gen_ai.provider.name": _well_known(host.hostname if host else None, provider_name),
        "gen_ai.request.model": upstream or record["requested_model"],
        "gen_ai.conversation.id": record["task_id"],
        "gen_ai.request.stream": record["stream"] or None,
        "gen_ai.request.choice.count": choices if choices != 1 else None,
        "gen_ai.response.time_to_first_chunk": ttft_ms / 1000 if record["stream"] and ttft_ms is not None else None,
        "gen_ai.usage.input_tokens": usage.get("input_tokens"),
        "gen_ai.usage.output_tokens": usage.get("output_tokens"),
        "gen_ai.usage.cache_read.input_tokens": usage.get("cache_read_tokens") or None,
        "gen_ai.usage.reasoning.output_tokens": usage.get("reasoning_tokens") or None,
        "server.address": host.hostname if host else None,
        "server.port": (host.port or (443 if host.scheme == "https" else 80)) if host else None,
        "bursar.request_id": record["request_id"],
        "bursar.requested_model": record["requested_model"],
        "bursar.model": name,
        "bursar.key": record["key"],
        "bursar.team": record["team"],
        "enduser.pseudo.id": record.get("user"),
        "bursar.tags": record.get("tags"),
        "bursar.harness": record["harness"] or None,
        "bursar.stream": record["stream"],
        "bursar.outcome": str(record["outcome"]),
        "bursar.route": decision.get("route"),
        "bursar.router": decision.get("router"),
        "bursar.task_type": decision.get("task_type"),
        "bursar.cost_usd": record["cost_usd"],
        "bursar.provenance": str(record["provenance"]),
        "bursar.cached.request_id": (record.get("cached") or {}).get("request_id"),
        "bursar.cut.scope": cut.get("scope"),
        "bursar.denied.scope": record["denied_scope"],
        "bursar.overhead_ms": record["timings"]["overhead_ms"],
        "bursar.policy_version": record["versions"]["policy"],
    }
    return {key: value for key, value in found.items() if value is not None}


def failed_attempt(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says of an attempt after which another candidate was asked."""
    found = {"model": attempt["model"], "provider": attempt["provider"], "outcome": str(attempt["outcome"])}
    return {**found, **({} if attempt["status"] is None else {"status": attempt["status"]})}


def _operation(record: Record, dialect: str | None) -> str:
    """Every call but an embedding has a decision, unless it was refused, or the cache had its answer, before."""
    cached = record.get("cached")
    if record["decision"] is None and (record["attempts"] or (cached and cached["task_type"] is None)):
        return "embeddings"
    return "generate_content" if dialect == GEMINI else "chat"


def _well_known(host: str | None, name: str | None) -> str:
    known = next((known for sign, known in _PROVIDERS if host and (host == sign or host.endswith(f".{sign}"))), None)
    return known or name or "bursar"


def resource(version: str) -> Resource:
    """Who sends: each process by itself. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are heard."""
    said = {"service.version": version, "service.instance.id": f"{socket.gethostname()}:{os.getpid()}"}
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create(said if named else {**said, "service.name": "bursar"})


def otlp() -> SpanProcessor:
    """Batches over OTLP/HTTP, where and how the OTEL_EXPORTER_OTLP_* and OTEL_BSP_* variables say."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  (requests)
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return BatchSpanProcessor(OTLPSpanExporter())
