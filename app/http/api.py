"""Everything that is not hot, as a FastAPI app: models, decisions, tasks, health, metrics, dashboard."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import (
    BursarError,
    Draining,
    LedgerDown,
    MethodNotAllowed,
    NotFound,
    ResponsesDown,
)
from app.gateway.metrics import Metrics
from app.gateway.services import Services
from app.http.asking import as_json, caller, may_see
from app.http.budgets import serve_budgets
from app.http.dashboard.routes import Dashboard, serve_dashboard
from app.http.efficiency import Commands, serve_efficiency
from app.http.feedback import serve_feedback
from app.http.keys import serve_keys
from app.http.models import serve_models
from app.http.routes import Routes
from app.http.speaking import spoken_by
from app.http.stored_responses import serve_stored_responses
from app.http.success_metrics import serve_success_metrics
from app.http.tasks import caps_now, serve_tasks
from app.stores.budgets import LedgerUnavailable
from app.stores.outcomes import Outcomes
from app.stores.responses import ResponsesUnavailable

Handlers = dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]


def error_response(error: BursarError, request: Request) -> Response:
    """An error in the client's dialect, as far as the request tells it."""
    status, body = spoken_by(request).error_reply(error)
    return Response(body, status, error.headers, media_type="application/json")


def build_api(services: Services, outcomes: Outcomes, aside: Commands, dashboard: Dashboard) -> FastAPI:
    """The app; the raw ASGI front gives it what is not a hot route, and every answer its id."""
    api = Routes()
    serve_models(api, services)
    serve_stored_responses(api, services)
    serve_tasks(api, services, outcomes)
    serve_budgets(api, services)
    serve_keys(api, services, dashboard.policies, editable=dashboard.editable)
    serve_feedback(api, services, outcomes)
    serve_efficiency(api, services, aside)
    serve_success_metrics(api, services, aside)
    serve_dashboard(api, dashboard)

    @api.get("/healthz")
    async def healthz(_: Request) -> Response:
        return as_json({"status": "ok"})

    @api.get("/readyz")
    async def readyz(_: Request) -> Response:
        if services.calls.leaving:
            raise Draining("The gateway is shutting down.")
        if not services.ledger.up:
            raise LedgerDown("The ledger does not answer.")
        return as_json({"status": "ready"})

    @api.get("/metrics")
    async def metrics(_: Request) -> Response:
        return Response(await services.shown_metrics(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/decisions/{request_id}")
    async def decision(request: Request, request_id: str) -> Response:
        key = caller(services, request)
        record = await services.traces.get(request_id)
        if record is None or not may_see(key, record["key"]):
            raise NotFound("No such request is on record.")
        return as_json({**record, "caps_now": await caps_now(services, record["caps"])})

    # No redirects: they would name the client's host with http, whatever is in front, and lose the path's task.
    errors = _errors(services.metrics, api)
    return FastAPI(openapi_url=None, routes=[*api.added], exception_handlers=errors, redirect_slashes=False)


def _errors(metrics: Metrics, api: Routes) -> Handlers:
    def reply(error: BursarError, request: Request) -> Response:
        metrics.errors.labels(error.label).inc()
        return error_response(error, request)

    async def ours(request: Request, error: BursarError) -> Response:
        return reply(error, request)

    async def ledger(request: Request, _: LedgerUnavailable) -> Response:
        return reply(LedgerDown("The ledger does not answer."), request)

    async def responses(request: Request, _: ResponsesUnavailable) -> Response:
        return reply(ResponsesDown("The store of responses does not answer."), request)

    async def starlettes(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allowed = {"allow": ", ".join([*api.methods_at(request.scope), "OPTIONS"])}
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=allowed)
            return reply(MethodNotAllowed("This path does not take that method.", headers=allowed), request)
        return reply(NotFound("There is nothing at this path."), request)

    async def unexpected(request: Request, _: Exception) -> Response:
        # The server logs it: the exception goes on after this answer.
        return reply(BursarError("The gateway failed to serve the request."), request)

    return {
        BursarError: ours,
        LedgerUnavailable: ledger,
        ResponsesUnavailable: responses,
        HTTPException: starlettes,
        Exception: unexpected,
    }
