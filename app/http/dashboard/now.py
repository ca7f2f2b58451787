"""One moment of the gateway: what runs and what it costs, how the ledger, providers and policy stand."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import Any

import msgspec

from app.core.health import Circuit
from app.gateway.inflight import MAX_SHOWN, under_way
from app.gateway.services import Services
from app.http.dashboard.others import Others, Told
from app.http.task_json import balance_json
from app.stores.budgets import LedgerUnavailable
from app.stores.policies import Policies

MAX_CIRCUITS = 200


async def moment(services: Services, policies: Policies, others: Others) -> bytes | None:
    """The moment as an event of a stream; None once the gateway has drained."""
    calls = services.calls
    if calls.draining and not len(calls):
        return None
    told = [own_word(services), *await others.heard()]
    oldest = sorted((call for one in told for call in one.calls), key=lambda call: -call["age_s"])
    shown = {
        "at_s": time.time(),
        "draining": calls.draining,
        "workers": len(told),
        "in_flight": sum(one.count for one in told),
        "calls": oldest[:MAX_SHOWN],
        "circuits": circuits(services),
        "ledger_up": services.ledger.up,
        "everybody": await everybody(services),
        "policy": {"version": services.view.policy.version, "problems": len(policies.last_error)},
    }
    return b"event: moment\ndata: " + msgspec.json.encode(shown) + b"\n\n"


def own_word(services: Services) -> Told:
    """What this worker has under way."""
    return Told(len(services.calls), under_way(services.calls.under_way(), time.perf_counter()))


def circuits(services: Services) -> list[dict[str, Any]]:
    """Every model of the policy with its circuit, those in trouble first."""
    now_s = asyncio.get_running_loop().time()
    found = []
    for name, candidate in services.view.policy.models.items():
        breaker = services.health.breakers.get(name)
        state = Circuit.CLOSED if breaker is None else breaker.state(now_s)
        again_s = max(breaker.open_until_s - now_s, 0.0) if breaker is not None and state is Circuit.OPEN else None
        found.append(
            {
                "model": name,
                "provider": candidate.provider.name,
                "state": state.name.lower(),
                "failures": breaker.failures if breaker else 0,
                "again_s": again_s,
            }
        )
    return sorted(found, key=lambda one: (one["state"] == "closed", not one["failures"]))[:MAX_CIRCUITS]


async def everybody(services: Services) -> dict[str, Any] | None:
    """Today's spending of all keys together, held money included; None while the ledger does not answer."""
    day = dt.datetime.now(dt.UTC).date().isoformat()
    try:
        (balance,) = await services.ledger.budgets.balances([f"global:day:{day}"])
    except LedgerUnavailable:
        return None
    return {} if balance is None else balance_json(balance)
