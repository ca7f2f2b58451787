"""The caps of a policy, and who they bind: keys and their teams. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.caps import Caps, Users, Windows
from app.core.money import nano_from_usd
from app.core.policy import Key, Route, Team
from app.stores.policy_model import PolicySpec
from app.stores.policy_model_caps import CapSpec, CapsSpec, KeySpec, TaskCapSpec, UserSpec, WindowsSpec
from app.stores.policy_routes import usd_nano
from app.stores.policy_types import epoch_s


def caps_of(given: CapsSpec) -> Caps:
    """The caps of `caps:`."""
    task = given.task or TaskCapSpec()
    return Caps(
        request_nano=_nano(given.request),
        task_nano=usd_nano(task.max_cost_usd),
        task_calls=task.max_calls,
        task_tokens=task.max_tokens,
        task_s=task.max_seconds,
        task_repeats=task.max_repeats,
        task_parallel=task.max_parallel_requests,
        task_idle_days=task.idle_days,
        key=_windows(given.key),
        team=_windows(given.team),
        everyone=_windows(given.everyone),
        user=_users(given.user),
    )


def _nano(cap: CapSpec | None) -> int | None:
    return None if cap is None else nano_from_usd(cap.max_cost_usd)


def _windows(given: WindowsSpec) -> Windows:
    rate = given.minute
    return Windows(
        day_nano=_nano(given.day),
        month_nano=_nano(given.month),
        total_nano=_nano(given.total),
        hour_nano=_nano(given.hour),
        minute_calls=None if rate is None else rate.max_calls,
        minute_tokens=None if rate is None else rate.max_tokens,
        parallel=given.max_parallel_requests,
    )


def _users(given: UserSpec | None) -> Users | None:
    return None if given is None else Users(_windows(given), given.require)


def teams_of(spec: PolicySpec, routes: Mapping[str, Route]) -> dict[str, Team]:
    """The teams, by name. `routes`: those that are on."""
    return {
        name: Team(name, None if given.caps is None else _windows(given.caps), _those_on(given.routes, routes))
        for name, given in spec.teams.items()
    }


def keys_of(spec: PolicySpec, routes: Mapping[str, Route]) -> dict[str, Key]:
    """The keys, by each SHA-256 that is good for them. `routes`: those that are on."""
    keys = [
        Key(
            name=given.name,
            sha256=given.sha256,
            admin=given.admin,
            judges=given.judges,
            caps=None if given.caps is None else _windows(given.caps),
            routes=_those_on(_routes_of(given, spec), routes),
            team=given.team,
            former_sha256=given.former_sha256,
            expires_s=None if given.expires is None else epoch_s(given.expires),
            users=_users(given.user_caps),
            probes=given.probes,
        )
        for given in spec.keys
    ]
    return {good: key for key in keys for good in (key.sha256, key.former_sha256) if good is not None}


def _routes_of(given: KeySpec, spec: PolicySpec) -> list[str] | None:
    return given.routes if given.routes is not None or given.team is None else spec.teams[given.team].routes


def _those_on(names: list[str] | None, routes: Mapping[str, Route]) -> tuple[str, ...] | None:
    return None if names is None else tuple(name for name in names if name in routes)
