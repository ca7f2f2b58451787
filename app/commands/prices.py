"""`bursar prices`: what models cost, by the policy in force and by the catalogue."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.commands.ending import Refused
from app.commands.policy import per_1k, read_catalogue, read_policy, read_settings
from app.commands.terminal import complain, heading, say, say_json, table
from app.core.money import Price, usd_float, usd_text
from app.core.policy import Policy
from app.gateway.record import rates_json
from app.stores.prices import Catalogue

SHOWN_ROWS = 40
"""Rows of the catalogue that fit a screen; `--json` gives them all."""


@dataclass(frozen=True, slots=True)
class Found:
    """One priced model: of the policy where `provider` says whose, else of the catalogue."""

    name: str
    provider: str | None
    tier: int | None
    price: Price | None
    cap_nano: int | None


def prices(model: str | None, *, policy: Path | None, as_json: bool) -> int:
    """Print prices; the exit code. A policy that cannot be used is reported, and the catalogue shown all the same."""
    try:
        path = policy or read_settings().policy
        catalogue = read_catalogue()
    except Refused as problem:
        complain(str(problem))
        return 2
    listed: list[Found] = []
    try:
        listed = _of_policy(read_policy(path, catalogue), model)
    except Refused as problem:
        complain(str(problem))
        if model is None:
            return 2
    others = [] if model is None else _of_catalogue(catalogue, model)
    if as_json:
        say_json({"catalogue": catalogue.version, "models": [_json(found) for found in (*listed, *others)]})
    else:
        _show(path, catalogue, listed, others)
    if not listed and not others:
        complain(_nothing(catalogue, model))
        return 1
    return 0


def _of_policy(policy: Policy, part: str | None) -> list[Found]:
    wanted = (part or "").lower()
    return [
        Found(c.name, c.provider.name, c.tier, c.price, c.budget.max_cost_nano)
        for c in policy.models.values()
        if wanted in c.name.lower() or wanted in c.upstream_model.lower()
    ]


def _of_catalogue(catalogue: Catalogue, part: str) -> list[Found]:
    names = sorted((name for name in catalogue.names() if part.lower() in name.lower()), key=lambda n: (len(n), n))
    entries = [entry for name in names if (entry := catalogue.entry(name)) is not None]
    return [Found(entry.name, None, None, entry.price, None) for entry in entries]


def _show(path: Path, catalogue: Catalogue, listed: list[Found], others: list[Found]) -> None:
    numbers = ("tier", "input", "output", "cache read", "cache write", "task cap $")
    if listed:
        heading(f"Policy {path}, dollars per 1,000 tokens")
        columns = ("model", "provider", "tier", "input", "output", "cache read", "cache write", "task cap $", "source")
        rows = [
            (f.name, f.provider or "", str(f.tier), *_rates(f.price), _cap(f), f.price.source if f.price else "")
            for f in listed
        ]
        table(columns, rows, right=numbers)
    if others:
        heading(f"Catalogue {catalogue.version}, dollars per 1,000 tokens")
        few = ("model", "input", "output", "cache read", "cache write", "dearer above")
        table(few, [(f.name, *_rates(f.price), _tiers(f.price)) for f in others[:SHOWN_ROWS]], right=numbers)
        if len(others) > SHOWN_ROWS:
            say(f"and {len(others) - SHOWN_ROWS} more: give more of the name, or --json")


def _rates(price: Price | None) -> tuple[str, str, str, str]:
    if price is None:
        return ("no price", "no price", "-", "-")
    base = price.base
    return (per_1k(base.input), per_1k(base.output), per_1k(base.cache_read), per_1k(base.cache_write))


def _tiers(price: Price | None) -> str:
    return ", ".join(f"{above} tokens" for above, _ in price.tiers) if price else ""


def _cap(found: Found) -> str:
    return "none" if found.cap_nano is None else usd_text(found.cap_nano)


def _json(found: Found) -> dict[str, Any]:
    price = found.price
    return {
        "model": found.name,
        "provider": found.provider,
        "tier": found.tier,
        "price_usd_per_1k": None if price is None else rates_json(price.base),
        "dearer_above_tokens": [] if price is None else [above for above, _ in price.tiers],
        "source": None if price is None else price.source,
        "task_cap_usd": None if found.cap_nano is None else usd_float(found.cap_nano),
    }


def _nothing(catalogue: Catalogue, model: str | None) -> str:
    if model is None:
        return "the policy lists no models"
    close = difflib.get_close_matches(model, catalogue.names(), n=3)
    return f"no model's name contains '{model}'" + (f"; similar names: {', '.join(close)}" if close else "")
