"""The task over HTTP: `GET /v1/tasks`, `GET /v1/tasks/{id}`, and `PATCH` to raise, lower, freeze, close or hang it."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.core.amend import Amend, Amended
from app.core.budget import Balance
from app.core.errors import BadRequest, Forbidden, NotFound
from app.core.feedback import Feedback
from app.core.money import nano_from_usd
from app.core.policy import Key, Policy
from app.core.runs import pace_of, run_of, things_of
from app.core.terms import State, TaskCaps
from app.dialects.openai_chat.parse import checked_task_id
from app.gateway.limits import MODEL_PART, ClientCaps, in_ms, task_caps, task_scope
from app.gateway.services import Services
from app.http.asking import as_json, asked_limit, caller, is_operator, may_see, named_owner
from app.http.bodies import bounded_body, read_json
from app.http.caps import MAX_COUNT, MAX_PARALLEL, MAX_SECONDS
from app.http.hot import key_name
from app.http.routes import Routes
from app.http.task_json import balance_json, lone_call_json, speed_json, task_json
from app.stores.budgets import LedgerUnavailable
from app.stores.outcomes import Outcomes, OutcomesUnavailable

MAX_BODY_BYTES = 64 * 1024
MAX_LISTED = 200
LOOKED_AT = 5_000
"""Scopes looked through for a list of tasks: those of their models stand among them."""
MODELS_OF_TASK = 100
REFUSED = {
    "raises": "Only an admin key may raise a limit of this task.",
    "reopens": "Only an admin key may thaw or reopen this task.",
    "has_parent": "This task hangs below another one already.",
    "has_children": "Tasks hang below this one, so it stays at the top.",
    "cycle": "The parent hangs below this task.",
    "depth": "The tree would be too deep.",
}


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a PATCH; what is not there stays as it is. `state`: as it is shown; or its parts, by name."""

    state: State | None = None
    max_cost_usd: float | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    max_parallel_requests: int | None = None
    frozen: bool | None = None
    closed: bool | None = None
    parent: str | None = None


_change = msgspec.json.Decoder(Change)


def serve_tasks(api: Routes, services: Services, outcomes: Outcomes) -> None:
    """Add the routes."""

    def asked(request: Request, task_id: str) -> tuple[Key | None, str]:
        """Who asks, and the scope of the task. Raises NotFound for another key's."""
        key = caller(services, request)
        checked_task_id(task_id, "task_id")
        owner = request.query_params.get("key", key_name(key))
        if not may_see(key, owner):
            raise NotFound("No such task is on record.")
        return key, task_scope(owner, task_id)

    @api.get("/v1/tasks")
    async def tasks(request: Request) -> Response:
        key = caller(services, request)
        owner = named_owner(request, key)
        if owner is not None and not may_see(key, owner):
            raise NotFound("No such key is on record.")
        limit = asked_limit(request, 20, MAX_LISTED)
        state = request.query_params.get("state")
        if state not in (None, "open", "frozen", "closed"):
            raise BadRequest("state must be open, frozen or closed.", param="state")
        prefix = "task:" if owner is None else f"task:{owner}:"
        return as_json({"object": "list", "data": await recent(services, prefix, limit, state)})

    @api.get("/v1/tasks/{task_id:path}")
    async def task(request: Request, task_id: str) -> Response:
        _, scope = asked(request, task_id)
        found = await shown(services, scope)
        if _flag(request, "speed", default=True):
            began_s = dt.datetime.fromisoformat(found["began_at"]).timestamp() if found["began_at"] else 0.0
            found["speed"] = await speed(services, outcomes, found["key"], task_id, began_s)
        return as_json(found)

    @api.patch("/v1/tasks/{task_id:path}")
    async def amend(request: Request, task_id: str) -> Response:
        key, scope = asked(request, task_id)
        body = await bounded_body(request, MAX_BODY_BYTES)
        op = amendment(scope, body, services.view.policy, by_client=not is_operator(key))
        result = await services.ledger.budgets.apply(op)
        assert isinstance(result, Amended)
        if result.refused in ("raises", "reopens"):
            raise Forbidden(REFUSED[result.refused])
        if result.refused is not None:
            raise BadRequest(REFUSED[result.refused], param="parent")
        return as_json(await shown(services, scope))


def amendment(scope: str, body: bytes, policy: Policy, *, by_client: bool) -> Amend:
    """The verb for a PATCH. Raises BadRequest."""
    change = read_json(_change, body, {"state": get_args(State)})
    try:
        nano = None if change.max_cost_usd is None else nano_from_usd(change.max_cost_usd)
    except ValueError as error:
        raise BadRequest(f"max_cost_usd is wrong: {error}.", param="max_cost_usd") from None
    for name, most in (("max_calls", MAX_COUNT), ("max_tokens", MAX_COUNT), ("max_seconds", MAX_SECONDS)):
        value = getattr(change, name)
        if value is not None and not 0 <= value <= most:
            raise BadRequest(f"{name} must not be negative, nor too large.", param=name)
    parallel = change.max_parallel_requests
    if parallel is not None and not 1 <= parallel <= MAX_PARALLEL:
        raise BadRequest(f"max_parallel_requests must be from 1 to {MAX_PARALLEL}.", param="max_parallel_requests")
    if change.state is not None and (change.frozen, change.closed) != (None, None):
        raise BadRequest("Give either state, or frozen and closed.", param="state")
    parent = None
    if change.parent is not None:
        parent = task_scope(scope.split(":", 2)[1], checked_task_id(change.parent, "parent"))
    return Amend(
        f"amend {secrets.token_hex(8)}",
        scope,
        nano,
        change.max_calls,
        change.max_tokens,
        in_ms(change.max_seconds),
        _state(change),
        parent,
        by_client,
        policy.caps.task_nano,
        task_caps(policy, ClientCaps()) or TaskCaps(),
        parallel,
    )


def _state(change: Change) -> State | None:
    if change.state is not None:
        return change.state
    if change.closed:
        return "closed"
    if change.frozen:
        return "frozen"
    return None if change.closed is None and change.frozen is None else "open"


async def recent(services: Services, prefix: str, limit: int, state: str | None) -> list[dict[str, Any]]:
    """The latest used tasks, the last one first."""
    scopes = await services.ledger.budgets.scopes(prefix, LOOKED_AT)
    found = (task_json(name, balance) for name, balance in scopes if MODEL_PART not in name)
    return [task for task in found if state in (None, task["state"])][:limit]


async def shown(services: Services, scope: str) -> dict[str, Any]:
    """A task with its models; a lone call is a task of its own. Raises NotFound."""
    budgets = services.ledger.budgets
    balance: Balance | None
    (balance,) = await budgets.balances([scope])
    if balance is None:
        _, owner, task_id = scope.split(":", 2)
        record = await services.traces.get(task_id)
        if record is None or record["key"] != owner or record["task_id"] is not None:
            raise NotFound("No such task is on record.")
        return {**lone_call_json(record), "as_of": now()}
    models = await budgets.scopes(scope + MODEL_PART, MODELS_OF_TASK)
    parts = {name.partition(MODEL_PART)[2]: balance_json(part) for name, part in models}
    return {**task_json(scope, balance), "models": parts, "as_of": now()}


async def speed(
    services: Services, outcomes: Outcomes, key: str, task_id: str, began_s: float
) -> dict[str, Any] | None:
    """How fast a task went, from its records; None where there are none, or they cannot be read now."""
    try:
        lone = await services.traces.get(task_id) if began_s and task_id.startswith("req_") else None
        if lone is not None and lone["key"] == key and lone["task_id"] is None:
            records, whole = [lone], True
        else:
            records, whole = await services.traces.of_task(key, task_id, began_s)
        calls = [pace_of(record) for record in records]
        words: dict[str, list[Feedback]] = {}
        for word in await outcomes.about(things_of(calls)):
            words.setdefault(word.thing, []).append(word)
    except (LedgerUnavailable, OutcomesUnavailable):
        return None
    return speed_json(run_of(calls, words), whole=whole) if calls else None


def _flag(request: Request, name: str, *, default: bool) -> bool:
    value = request.query_params.get(name)
    if value not in (None, "true", "false"):
        raise BadRequest(f"{name} must be true or false.", param=name)
    return default if value is None else value == "true"


def now() -> str:
    """The time, as answers tell it."""
    return dt.datetime.now(dt.UTC).isoformat()


async def caps_now(services: Services, caps: list[dict[str, Any]]) -> dict[str, Any]:
    """How the shared scopes that bound a call stand at this moment; empty while the ledger does not answer."""
    names = list(dict.fromkeys(cap["name"] for cap in caps if "name" in cap))
    try:
        balances = await services.ledger.budgets.balances(names)
    except LedgerUnavailable:
        return {}
    return {name: balance_json(balance) for name, balance in zip(names, balances, strict=True) if balance is not None}
