"""`GET /v1/success-metrics`: the ten measures of success, by kind of work, model, harness, key or day."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from app.core.efficiency import GROUPS
from app.core.errors import BadRequest
from app.core.policy import Policy
from app.gateway.services import Services
from app.http.asking import asked_owner, caller
from app.http.efficiency import Commands, asked_since
from app.http.routes import Routes


def serve_success_metrics(api: Routes, services: Services, aside: Commands) -> None:
    """Add the route. A key sees its own runs, an admin's all of them."""

    @api.get("/v1/success-metrics")
    async def success_metrics(request: Request) -> Response:
        key = caller(services, request)
        owner = asked_owner(request, key)
        by = request.query_params.get("by", "task_type")
        if by not in GROUPS:
            raise BadRequest(f"by must be one of {', '.join(GROUPS)}.", param="by")
        asked = ["success-metrics", "--json", "--by", by, "--since", asked_since(request)]
        asked += target_arguments(services.view.policy)
        if owner is not None:
            asked.append(f"--key={owner}")
        return Response(await aside.ask(*asked), media_type="application/json")


def target_arguments(policy: Policy) -> list[str]:
    """The policy's targets, as the command takes them."""
    return [f"--target={name}={value!r}" for name, value in sorted(policy.targets.items())]
