"""`GET /v1/budgets`: what a key may still spend, by its own caps and its team's; for operators everybody's, too; and
what one of its end users may, who is named in the query or, as in calls, by the header.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.core.budget import Balance, Claim
from app.core.errors import NotFound
from app.core.policy import Key, Policy
from app.core.windows import moment_of, refills_at, window_of
from app.gateway.limits import ANONYMOUS, scope_word, user_claims, window_claims
from app.gateway.services import Services
from app.http.asking import as_json, caller, is_operator, may_see
from app.http.end_users import hash_of, named_in
from app.http.hot import key_name
from app.http.routes import Routes
from app.http.task_json import window_json


def serve_budgets(api: Routes, services: Services) -> None:
    """Add the route."""

    @api.get("/v1/budgets")
    async def budgets(request: Request) -> Response:
        policy, now = services.view.policy, dt.datetime.now(dt.UTC)
        asking = caller(services, request)
        name = request.query_params.get("key", key_name(asking))
        of = policy.named_keys().get(name)
        if not may_see(asking, name) or (of is None and name != ANONYMOUS):
            raise NotFound("No such key is on record.")
        windows = list(_windows(policy, of, moment_of(now), everybody=is_operator(asking)))
        user, users = request.query_params.get("user") or named_in(request.headers), policy.users_of(of)
        if user is not None and users is not None:
            hashed = hash_of(user, services.salt)
            windows += [(user, claim) for claim in user_claims(name, hashed, users.windows, moment_of(now))]
        balances = await services.ledger.budgets.balances([claim.scope for _, claim in windows])
        rows = [_row(whose, claim, balance, now) for (whose, claim), balance in zip(windows, balances, strict=True)]
        return as_json({"object": "list", "data": [row for row in rows if row is not None]})


def _windows(policy: Policy, key: Key | None, moment: str, *, everybody: bool) -> Iterator[tuple[str | None, Claim]]:
    """Each window with the name of the key or team whose it is."""
    if key is not None:
        for claim in window_claims(f"key:{key.name}", policy.key_windows(key), moment):
            yield key.name, claim
        if key.team is not None:
            for claim in window_claims(f"team:{key.team}", policy.team_windows(key.team), moment):
                yield key.team, claim
    if everybody:
        for claim in window_claims("global", policy.caps.everyone, moment):
            yield None, claim


def _row(whose: str | None, claim: Claim, balance: Balance | None, now: dt.datetime) -> dict[str, Any] | None:
    """A window that is limited or used; None for others."""
    if balance is None and claim.limit_nano is None and claim.caps is None:
        return None
    resets = refills_at(window_of(claim.scope), now)
    caps = claim.caps
    rate: dict[str, int | None] = {}
    if caps is not None and caps.parallel is not None:
        rate = {"max_parallel_requests": caps.parallel}
    elif caps is not None:
        rate = {"max_calls": caps.calls, "max_tokens": caps.tokens}
    return {
        "scope": scope_word(claim.scope),
        "name": whose,
        **window_json(balance or Balance(), claim.limit_nano),
        **rate,
        "resets_at": resets.isoformat() if resets else None,
    }
