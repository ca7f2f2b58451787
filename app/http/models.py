"""The lists of models, as each dialect's clients want them: routes first, then the policy's models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import ModelNotFound
from app.core.money import usd_float
from app.core.policy import Candidate, Key, Policy
from app.dialects.gemini.models import ModelFacts, models_list, one_model
from app.dialects.registry import GEMINI, MESSAGES
from app.gateway.record import price_json
from app.gateway.services import Services
from app.gateway.target import of_tier
from app.http.asking import as_json
from app.http.auth import KeyRing
from app.http.routes import Routes
from app.http.speaking import spoken_by

EPOCH = "1970-01-01T00:00:00Z"
"""The policy does not know when a model was made."""


def serve_models(api: Routes, services: Services) -> None:
    """Add the routes of the lists."""

    def caller(request: Request) -> Key | None:
        return KeyRing(services.view.policy).authenticate(_with_query_key(request))

    def listed(request: Request) -> list[dict[str, Any]]:
        key = caller(request)
        return [model for model in _models(services.view.policy) if _may_use(key, model["id"])]

    def one(name: str, request: Request) -> dict[str, Any]:
        key = caller(request)
        view = services.view
        listed = {model["id"]: model for model in _models(view.policy)}
        meant = name if name in listed else view.policy.meant_by(name)
        known = listed.get(meant)
        if known is None and meant.startswith("tier:"):
            known = _choice(meant, [candidate.name for candidate in of_tier(view, meant)])
        candidate = view.find(meant) if known is None else None
        if not _may_use(key, meant) or (known is None and candidate is None):
            raise ModelNotFound(
                "The policy has no route or model of that name; GET /v1/models lists what it has.", param="model"
            )
        return (known if known is not None else _model(candidate)) | {"id": name}  # type: ignore[arg-type]

    @api.get("/v1beta/models")
    @api.get("/v1/models")
    async def models(request: Request) -> Response:
        found, dialect = listed(request), spoken_by(request).name
        if dialect == GEMINI:
            return Response(models_list(map(_facts, found)), media_type="application/json")
        if dialect == MESSAGES:
            ids = [model["id"] for model in found]
            ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": False}
            return as_json({"data": [_for_messages(model) for model in found], **ends})
        return as_json({"object": "list", "data": found})

    @api.get("/v1beta/models/{name:path}")
    @api.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        found, dialect = one(name, request), spoken_by(request).name
        if dialect == GEMINI:
            return Response(one_model(_facts(found)), media_type="application/json")
        return as_json(_for_messages(found) if dialect == MESSAGES else found)

    @api.get("/api/hello")
    async def hello(_: Request) -> Response:
        # Claude Code asks this before anything else, to see whether somebody is there.
        return as_json({"status": "ok"})


def _with_query_key(request: Request) -> dict[str, str]:
    """Gemini's clients may put their key into the URL."""
    key = request.query_params.get("key")
    return {**({"x-goog-api-key": key} if key else {}), **request.headers}


def _for_messages(model: dict[str, Any]) -> dict[str, Any]:
    return {"type": "model", "id": model["id"], "display_name": model["id"], "created_at": EPOCH}


def _facts(model: dict[str, Any]) -> ModelFacts:
    more = model["bursar"]
    return ModelFacts(model["id"], more.get("context_tokens"), more.get("max_output_tokens"))


def _models(policy: Policy) -> list[dict[str, Any]]:
    routes = [_choice(name, route.candidates) for name, route in policy.routes.items()]
    return [*routes, *(_model(candidate) for candidate in policy.models.values())]


def _choice(name: str, candidates: Iterable[str]) -> dict[str, Any]:
    """A route, or a tier."""
    among = {"candidates": list(candidates)}
    return {"id": name, "object": "model", "created": 0, "owned_by": "bursar", "bursar": among}


def _model(candidate: Candidate) -> dict[str, Any]:
    cap, capabilities = candidate.budget.max_cost_nano, candidate.capabilities
    return {
        "id": candidate.name,
        "object": "model",
        "created": 0,
        "owned_by": candidate.provider.name,
        "bursar": {
            "tier": candidate.tier,
            "price_usd_per_1k": price_json(candidate.price),
            "max_cost_usd": None if cap is None else usd_float(cap),
            "context_tokens": capabilities.context_tokens,
            "max_output_tokens": capabilities.max_output_tokens,
        },
    }


def _may_use(key: Key | None, name: str) -> bool:
    return key is None or key.routes is None or name in key.routes
