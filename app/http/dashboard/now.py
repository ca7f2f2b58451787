"""One moment of all gateways under one ledger: what runs and costs, how ledger, providers and policy stand."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
_WORST = ["closed", "half_open", "open"]


@dataclass(frozen=True, slots=True)
class Whose:
    """The gateway that this process belongs to: `gateway` tells gateways apart, `name` is for people."""

    gateway: str
    name: str


def this_gateway(port: int, folder: Path | None) -> Whose:
    """This process's gateway, by what its workers share, if it has any; named after the host, which in a container or
    pod has a name of its own."""
    return Whose(folder.name if folder else secrets.token_hex(8), host_and_port(port))


def host_and_port(port: int) -> str:
    """A gateway's name; port 0, chosen by the system, is none."""
    host = socket.gethostname()
    return f"{host}:{port}" if port else host


async def moment(services: Services, policies: Policies, others: Others, whose: Whose) -> bytes | None:
    """The moment as an event of a stream; None once this process has drained."""
    calls = services.calls
    if calls.draining and not len(calls):
        return None
    told = [own_word(services, whose), *await others.heard()]
    running = sorted(((call, one.name) for one in told for call in one.calls), key=lambda pair: -pair[0]["age_s"])
    shown = {
        "at_s": time.time(),
        "draining": calls.draining,
        "workers": len(told),
        "gateways": gateways(told),
        "in_flight": sum(one.count for one in told),
        "calls": [{**call, "gateway": name} for call, name in running[:MAX_SHOWN]],
        "circuits": worst(circuits(services), told),
        "ledger_up": services.ledger.up,
        "everybody": await everybody(services),
        "policy": {"version": services.view.policy.version, "problems": len(policies.last_error)},
    }
    return b"event: moment\ndata: " + msgspec.json.encode(shown) + b"\n\n"


def own_word(services: Services, whose: Whose) -> Told:
    """What this process has under way."""
    calls = services.calls
    oldest = under_way(calls.under_way(), time.perf_counter())
    troubled = [one for one in circuits(services) if one["state"] != "closed"]
    return Told(whose.gateway, whose.name, calls.leaving, len(calls), oldest, troubled)


def gateways(told: Sequence[Told]) -> list[dict[str, Any]]:
    """Each gateway with the sums of its workers, by name."""
    found: dict[str, dict[str, Any]] = {}
    for one in told:
        fresh = {"id": one.gateway, "name": one.name, "workers": 0, "in_flight": 0, "draining": False}
        gateway = found.setdefault(one.gateway, fresh)
        gateway["workers"] += 1
        gateway["in_flight"] += one.count
        gateway["draining"] |= one.draining
    return sorted(found.values(), key=lambda gateway: (gateway["name"], gateway["id"]))


def circuits(services: Services) -> list[dict[str, Any]]:
    """Every model of the policy at each of its providers, with its circuit in this process, those in trouble first."""
    now_s = asyncio.get_running_loop().time()
    found = []
    for name, candidate in services.view.circuits.items():
        breaker = services.health.breakers.get(name)
        state = Circuit.CLOSED if breaker is None else breaker.state(now_s)
        again_s = max(breaker.open_until_s - now_s, 0.0) if breaker is not None and state is Circuit.OPEN else None
        found.append(
            {
                "model": candidate.name,
                "provider": candidate.provider.name,
                "state": state.name.lower(),
                "failures": breaker.failures if breaker else 0,
                "again_s": again_s,
                "why": None if breaker is None or state is Circuit.CLOSED else breaker.left_out_for,
            }
        )
    return sorted(found, key=_by_trouble)[:MAX_CIRCUITS]


def worst(own: Sequence[dict[str, Any]], told: Sequence[Told]) -> list[dict[str, Any]]:
    """The circuits of this process's policy, each as where it is worst; in `processes` it is not closed."""
    found = {(one["model"], one["provider"]): {**one, "processes": 0} for one in own}
    for word in told:
        for one in word.troubled:
            if (known := found.get((one["model"], one["provider"]))) is not None:
                worse = max(known, one, key=lambda circuit: (_WORST.index(circuit["state"]), circuit["again_s"] or 0.0))
                known |= {**worse, "processes": known["processes"] + 1}
    return sorted(found.values(), key=_by_trouble)


def _by_trouble(circuit: dict[str, Any]) -> tuple[bool, bool]:
    return circuit["state"] == "closed", not circuit["failures"]


async def everybody(services: Services) -> dict[str, Any] | None:
    """Today's spending of all keys together, held money included; None while the ledger does not answer."""
    day = dt.datetime.now(dt.UTC).date().isoformat()
    try:
        (balance,) = await services.ledger.budgets.balances([f"global:day:{day}"])
    except LedgerUnavailable:
        return None
    return {} if balance is None else balance_json(balance)
