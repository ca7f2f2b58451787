"""`bursar policy`: check a policy, print its schema; and how the commands read settings and policy."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

from pydantic import ValidationError

from app.commands.ending import Refused
from app.commands.terminal import complain, heading, say, say_json, table
from app.core.caps import Windows
from app.core.money import usd_text
from app.core.policy import Candidate, Policy
from app.settings import Settings
from app.stores.policy_file import load_policy
from app.stores.policy_model import json_schema
from app.stores.policy_yaml import PolicyError
from app.stores.prices import Catalogue, CatalogueError, load_bundled


def read_settings() -> Settings:
    """The settings of the environment; Refused where a variable is wrong. No value is quoted: it may be secret."""
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [
            f"BURSAR_{'_'.join(map(str, detail['loc'])).upper()}: {detail['msg']}"
            for detail in error.errors(include_input=False, include_url=False)
        ]
        raise Refused("\n".join(lines)) from None
    if settings.redis_url is not None:
        from app.stores.redis_link import check_url  # noqa: PLC0415  (redis-py costs 60 ms to import)

        try:
            check_url(settings.redis_url.get_secret_value())
        except ValueError as error:
            raise Refused(f"BURSAR_REDIS_URL: {error}") from None
    return settings


def read_catalogue() -> Catalogue:
    """The installed price catalogue; Refused where there is none."""
    try:
        return load_bundled()
    except CatalogueError as error:
        raise Refused(str(error)) from None


def read_policy(path: Path, catalogue: Catalogue) -> Policy:
    """The policy at a path in this environment; Refused with every problem as file:line:column."""
    try:
        return load_policy(path, env=os.environ, catalogue=catalogue)
    except PolicyError as error:
        raise Refused(str(error)) from None


def check(path: Path) -> int:
    """Print what a policy comes to, or all that is wrong with it; the exit code."""
    try:
        policy = read_policy(path, read_catalogue())
    except Refused as problems:
        complain(str(problems))
        return 1
    heading(f"{path}: good, version {policy.version}")
    columns = ("model", "provider", "tier", "input $/1k", "output $/1k", "task cap $")
    rows = [_row(candidate) for candidate in policy.models.values()]
    table(columns, rows, right=("tier", "input $/1k", "output $/1k", "task cap $"))
    for name, route in policy.routes.items():
        say(f"route {name}: {', '.join(route.candidates)}")
    for line in _caps(policy):
        say(line)
    for name in policy.teams:
        members = [key.name for key in policy.named_keys().values() if key.team == name]
        say(f"team {name}: {', '.join(members) or 'nobody'}")
    keys = [f"{name}{_expiry(key.expires_s)}" for name, key in policy.named_keys().items()]
    say(f"keys: {', '.join(keys) or 'none, so it is served on loopback only'}")
    for warning in policy.warnings:
        say(f"note: {warning}")
    return 0


def schema() -> None:
    """Print the policy's JSON Schema."""
    say_json(json_schema())


def per_1k(rate: int | None) -> str:
    """A rate (nano-dollars per million tokens) as dollars per 1,000 tokens; a dash where undeclared."""
    if rate is None:
        return "-"
    # usd_text is exact to the nano-dollar and a rate per 1,000 goes three digits further.
    whole, part = divmod(rate, 10**12)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")


def _row(candidate: Candidate) -> tuple[str, ...]:
    price, cap = candidate.price, candidate.budget.max_cost_nano
    if price is None:
        rates: tuple[str, str] = ("no price", "no price")
    else:
        rates = (per_1k(price.base.input), per_1k(price.base.output))
    limit = "none" if cap is None else usd_text(cap)
    where = ", ".join(copy.provider.name for copy in candidate.copies or (candidate,))
    return (candidate.name, where, str(candidate.tier), *rates, limit)


def _expiry(expires_s: float | None) -> str:
    if expires_s is None:
        return ""
    moment = dt.datetime.fromtimestamp(expires_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f" (expired {moment})" if expires_s <= time.time() else f" (until {moment})"


def _caps(policy: Policy) -> list[str]:
    caps = policy.caps
    own = [("request", caps.request_nano), ("task", caps.task_nano)]
    owners = [("key", caps.key), ("team", caps.team), ("global", caps.everyone)]
    owners += [] if caps.user is None else [("user", caps.user.windows)]
    limits = [*own, *(limit for owner, windows in owners for limit in _windows(owner, windows))]
    shown = [f"{name} ${usd_text(nano)}" for name, nano in limits if nano is not None]
    counts = [("calls", caps.task_calls), ("tokens", caps.task_tokens), ("seconds", caps.task_s)]
    counts += [("times the same request", caps.task_repeats), ("requests at a time", caps.task_parallel)]
    shown += [f"task {most:g} {what}" for what, most in counts if most is not None]
    for owner, windows in owners:
        rates = (("calls", windows.minute_calls), ("tokens", windows.minute_tokens))
        shown += [f"{owner} {most} {what} a minute" for what, most in rates if most is not None]
        shown += [] if windows.parallel is None else [f"{owner} {windows.parallel} requests at a time"]
    shown += ["requests must name their user"] if caps.user is not None and caps.user.required else []
    return [f"caps: {', '.join(shown) or 'none'}"]


def _windows(owner: str, windows: Windows) -> list[tuple[str, int | None]]:
    return [
        (f"{owner} an hour", windows.hour_nano),
        (f"{owner} a day", windows.day_nano),
        (f"{owner} a month", windows.month_nano),
        (f"{owner} in total", windows.total_nano),
    ]
