"""`bursar probe`: fixed requests, asked of each model of a route, so that one that becomes worse is found early."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import quote

from app.commands.agents import KEY_VARIABLE
from app.commands.ending import Refused, ending
from app.commands.policy import read_settings
from app.commands.probe_calls import Asking, NoAnswer
from app.commands.probe_report import COLUMNS, Report, kept_after, report, sorted_otherwise, told_by_name
from app.commands.probe_set import Probe, digest_of, read_set
from app.commands.probe_state import Begun, Journal, State, Store, new_run
from app.commands.run import Gateway
from app.commands.terminal import complain, say, say_json, table
from app.core.money import NANO_PER_USD, nano_from_usd, usd_float, usd_text
from app.core.tokens import BYTES_PER_INPUT_TOKEN, TOKENS_PER_MESSAGE

LIMITS: Final = ("max_completion_tokens", "max_tokens")
EXPECTED_COLUMNS: Final = ("model", "requests", "last run $", "at most $")


@ending(NoAnswer)
def probe(
    file: Path, *, models: Sequence[str], route: str, max_usd: str | None, concurrency: int, dry_run: bool,
    accept: bool, alpha: float, state: Path | None, url: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Ask, judge, report; the exit code: 1 where a model became worse, or nothing is known of one."""
    probes = read_set(file)
    settings = read_settings()
    gateway = Gateway(url or f"http://{settings.host}:{settings.port}", os.environ.get(KEY_VARIABLE) or None)
    listed = _listed(gateway, route)
    asked = _asked(models, listed, route)
    store = Store(state or file.with_name(file.name + ".state"))
    if dry_run:
        return _expected(gateway, probes, asked, store.state(), as_json)
    begun = new_run(digest_of(probes), route, asked, _most(max_usd))
    with store.run(lambda other: _same(other, begun), begun) as (before, journal):
        if journal.begun.run != begun.run:
            complain(f"goes on with {journal.begun.run}, which was broken off: {len(journal.answers)} answers")
        asking = Asking(gateway.url, os.environ.get(KEY_VARIABLE) or None, journal, concurrency, say=complain)
        before.untold = asyncio.run(asking.run(probes, before.untold))
        found = report(probes, asked, journal.answers, before, alpha)
        store.keep(kept_after(probes, journal.begun, journal.answers, before, alpha, accept=accept))
        store.ended(journal)
    spent = gateway.task(journal.begun.run)
    _show(found, journal, asking, before, spent, as_json=as_json)
    return 1 if (found.worse and not accept) or found.silent or before.untold else 0


def _same(other: Begun, new: Begun) -> bool:
    """Whether a run is the one that was broken off. It keeps its own cap, which the ledger holds; another is asked
    for where that has changed."""
    mine, theirs = ((b.probes, b.route, b.models, b.most_nano) for b in (new, other))
    return mine == theirs


def _most(max_usd: str | None) -> int:
    if max_usd is None:
        raise Refused("say with --max-usd what a run may cost; --dry-run says what it is expected to")
    try:
        return nano_from_usd(max_usd)
    except ValueError as error:
        raise Refused(f"--max-usd: {error}") from None


def _listed(gateway: Gateway, name: str) -> dict[str, Any]:
    """What the gateway says of a route or a model. Raises Refused."""
    try:
        status, found = gateway.ask("GET", f"/v1/models/{quote(name, safe='')}")
    except (OSError, URLError):
        raise Refused(f"no gateway answers at {gateway.url}; is `bursar serve` running?") from None
    except ValueError as error:
        raise Refused(f"--gateway: {error}") from None
    if status != 200 or not isinstance(found, dict):
        message = found.get("error", {}).get("message") if isinstance(found, dict) else None
        hint = f" Put your key into {KEY_VARIABLE}." if status == 401 else ""
        raise Refused(f"{name}: {message or status}{hint}")
    if not isinstance(found.get("bursar"), dict):
        raise Refused(f"{gateway.url} is no gateway of Bursar's")
    return found


def _asked(models: Sequence[str], listed: dict[str, Any], route: str) -> list[str]:
    candidates = listed["bursar"].get("candidates") or [route]
    return list(dict.fromkeys(models or candidates))


def _expected(gateway: Gateway, probes: Sequence[Probe], models: Sequence[str], state: State, as_json: bool) -> int:
    """Print what a run would cost: by the last one, and at most, by prices and output limits."""
    rows = []
    for model in models:
        price = _price(gateway, model)
        kept = state.models.get(model)
        last = None
        if kept is not None and kept.last.cost_nano is not None and kept.last.right:
            last = kept.last.cost_nano * len(probes) // len(kept.last.right)
        rows.append((model, last, _at_most(probes, model, price)))
    if as_json:
        say_json({"requests": len(probes), "models": [
            {"model": model, "last_run_usd": _usd(last), "at_most_usd": _usd(most)} for model, last, most in rows
        ]})  # fmt: skip
    else:
        shown = [(m, str(len(probes)), *("unknown" if c is None else usd_text(c) for c in (a, b))) for m, a, b in rows]
        table(EXPECTED_COLUMNS, shown, right=EXPECTED_COLUMNS[1:])
    return 0


def _price(gateway: Gateway, model: str) -> dict[str, Any] | None:
    """None where it has none, or the key may use the route alone, so that it is not told of its models."""
    try:
        price: dict[str, Any] | None = _listed(gateway, model)["bursar"].get("price_usd_per_1k")
    except Refused as error:
        complain(f"{error} So what it costs at most is not known.")
        return None
    return price


def _at_most(probes: Sequence[Probe], model: str, price: dict[str, Any] | None) -> int | None:
    """Nano-dollars; None where the price or an output limit is not known."""
    total = 0.0
    for one in probes:
        limits = [one.body[name] for name in LIMITS if isinstance(one.body.get(name), int)]
        if price is None or not limits:
            return None
        given = len(one.request(model)) / BYTES_PER_INPUT_TOKEN + TOKENS_PER_MESSAGE * len(one.body["messages"])
        total += (given * price["input"] + limits[0] * price["output"]) / 1000.0
    return round(total * NANO_PER_USD)


def _usd(nano: int | None) -> float | None:
    return None if nano is None else usd_float(nano)


def _show(
    found: Report, journal: Journal, asking: Asking, state: State, spent: dict[str, Any] | None, *, as_json: bool
) -> None:
    begun = journal.begun
    spent_usd = None if spent is None else spent["spent_usd"]
    if as_json:
        unjudged = [{"model": m, "why": why, "calls": n} for (m, why), n in sorted(found.unjudged.items())]
        say_json({
            "run": begun.run, "route": begun.route, "spent_usd": spent_usd, "max_usd": usd_float(begun.most_nano),
            "worse": list(found.worse), "lines": [line.as_json() for line in found.lines], "unjudged": unjudged,
            "unasked": dict(found.unasked), "untold": len(state.untold),
        })  # fmt: skip
    else:
        table(COLUMNS, [line.row() for line in found.lines], right=COLUMNS[2:9])
        for text in (*told_by_name(found), *sorted_otherwise(journal.answers.values())):
            say(text)
        cost = "an unknown sum" if spent_usd is None else f"${spent_usd:.9f}".rstrip("0").rstrip(".")
        say(f"{begun.run}: spent {cost} of ${usd_text(begun.most_nano)}")
    for (model, why), count in sorted(found.unjudged.items()):
        complain(f"{model}: {count} not judged: {why}")
    for model, count in found.unasked.items():
        complain(f"{model}: {count} not asked: {asking.left.get(model, 'it was broken off')}")
    for model in found.silent:
        complain(f"{model}: nothing is known of it")
    if state.untold:
        complain(f"what came of {len(state.untold)} calls could not be said; the next run says it")
    for model in found.worse:
        complain(f"{model} has become worse: its route's learner keeps it from such work once it is as sure")
