"""Everything that is not hot, as a FastAPI app: models, decisions, tasks, health, metrics."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.exceptions import HTTPException

from app.core.budget import Balance
from app.core.errors import (
    BursarError,
    Draining,
    LedgerDown,
    MethodNotAllowed,
    NotFound,
)
from app.core.money import usd_float
from app.core.policy import Key
from app.dialects.openai_chat.errors import error_body
from app.dialects.openai_chat.parse import checked_task_id
from app.gateway.limits import task_scope
from app.gateway.metrics import Metrics
from app.gateway.services import Services
from app.http.auth import KeyRing
from app.http.feedback import serve_feedback
from app.http.hot import key_name
from app.http.models import serve_models
from app.stores.budgets import LedgerUnavailable
from app.stores.outcomes import Outcomes


def error_response(error: BursarError) -> Response:
    """An error in the OpenAI shape."""
    return Response(error_body(error), error.status, error.headers, media_type="application/json")


def build_api(services: Services, outcomes: Outcomes) -> FastAPI:
    """The app; the raw ASGI front gives it what is not a hot route, and every answer its id."""
    api = FastAPI(title="Bursar", docs_url=None, redoc_url=None)
    _errors(api, services.metrics)
    serve_models(api, services)
    serve_feedback(api, services, outcomes)

    def caller(request: Request) -> Key | None:
        return KeyRing(services.view.policy).authenticate(request.headers)

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> dict[str, str]:
        if services.calls.draining:
            raise Draining("The gateway is shutting down.")
        if not services.ledger.up:
            raise LedgerDown("The ledger does not answer.")
        return {"status": "ready"}

    @api.get("/metrics")
    async def metrics() -> Response:
        services.show_circuits()
        return Response(await asyncio.to_thread(exposition, services.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/decisions/{request_id}")
    async def decision(request_id: str, request: Request) -> Response:
        key = caller(request)
        record = await services.traces.get(request_id)
        if record is None or not _may_see(key, record["key"]):
            raise NotFound("No such request is on record.")
        shown = {**record, "caps_now": await caps_now(services, record["caps"])}
        return Response(msgspec.json.encode(shown), media_type="application/json")

    @api.get("/v1/tasks/{task_id:path}")
    async def task(task_id: str, request: Request) -> dict[str, Any]:
        key = caller(request)
        checked_task_id(task_id, "task_id")
        owner = request.query_params.get("key", key_name(key))
        if not _may_see(key, owner):
            raise NotFound("No such task is on record.")
        return await task_json(services, owner, task_id)

    return api


def _errors(api: FastAPI, metrics: Metrics) -> None:
    def reply(error: BursarError) -> Response:
        metrics.errors.labels(error.label).inc()
        return error_response(error)

    @api.exception_handler(BursarError)
    async def ours(_: Request, error: BursarError) -> Response:
        return reply(error)

    @api.exception_handler(LedgerUnavailable)
    async def ledger(_: Request, __: LedgerUnavailable) -> Response:
        return reply(LedgerDown("The ledger does not answer."))

    @api.exception_handler(HTTPException)
    async def starlettes(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allowed = {"allow": "GET, HEAD, OPTIONS"}
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=allowed)
            return reply(MethodNotAllowed("This path does not take that method.", headers=allowed))
        return reply(NotFound("There is nothing at this path."))

    @api.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        # The server logs it: the exception goes on after this answer.
        return reply(BursarError("The gateway failed to serve the request."))


def exposition(registry: CollectorRegistry) -> bytes:
    """The metrics as text; of all workers where prometheus_client runs in multiprocess mode."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _may_see(key: Key | None, owner: str) -> bool:
    return key is None or key.admin or key.name == owner


async def task_json(services: Services, owner: str, task_id: str) -> dict[str, Any]:
    """A task's money: spent, reserved, limit, calls, per model too; a lone call is a task of its own."""
    scope = task_scope(owner, task_id)
    budgets = services.ledger.budgets
    (balance,) = await budgets.balances([scope])
    if balance is None:
        record = await services.traces.get(task_id)
        if record is None or record["key"] != owner or record["task_id"] is not None:
            raise NotFound("No such task is on record.")
        return lone_call_json(record)
    models = await budgets.scopes(f"{scope}|model:", 100)
    return {
        "id": task_id,
        "object": "task",
        **balance_json(balance),
        "models": {name.partition("|model:")[2]: balance_json(part) for name, part in models},
        "as_of": dt.datetime.now(dt.UTC).isoformat(),
    }


async def caps_now(services: Services, caps: list[dict[str, Any]]) -> dict[str, Any]:
    """How the shared scopes that bound a call stand at this moment; empty while the ledger does not answer."""
    names = list(dict.fromkeys(cap["name"] for cap in caps if "name" in cap))
    try:
        balances = await services.ledger.budgets.balances(names)
    except LedgerUnavailable:
        return {}
    return {name: balance_json(balance) for name, balance in zip(names, balances, strict=True) if balance is not None}


def balance_json(balance: Balance) -> dict[str, Any]:
    """A balance in dollars."""
    limit, killed = balance.effective_limit_nano, balance.killed_at_nano
    return {
        "spent_usd": usd_float(balance.spent_nano),
        "reserved_usd": usd_float(balance.held_nano),
        "limit_usd": None if limit is None else usd_float(limit),
        "remaining_usd": None if limit is None else usd_float(max(limit - balance.spent_nano - balance.held_nano, 0)),
        "calls": balance.calls,
        "cost_killed_at_usd": None if killed is None else usd_float(killed),
        "exhausted": balance.exhausted,
    }


def lone_call_json(record: dict[str, Any]) -> dict[str, Any]:
    """A call without a task, seen as the task it is."""
    limits = [cap["limit_usd"] for cap in record["caps"] if cap["scope"] in ("request", "task", "model")]
    limit, spent = min(limits, default=None), record["cost_usd"]
    killed = spent if record["cut"] is not None else None
    return {
        "id": record["request_id"],
        "object": "task",
        "spent_usd": spent,
        "reserved_usd": 0.0,
        "limit_usd": limit,
        "remaining_usd": None if limit is None or spent is None else max(limit - spent, 0.0),
        "calls": 1,
        "cost_killed_at_usd": killed,
        "exhausted": killed is not None,
        "models": {},
        "as_of": dt.datetime.now(dt.UTC).isoformat(),
    }
