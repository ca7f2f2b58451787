"""A call's record with what the page tells besides: how sure the router was, and how the caps stand now."""

from __future__ import annotations

from math import exp, log
from statistics import NormalDist
from typing import Any

import msgspec

from app.core.policy import LEARNED
from app.gateway.services import Services
from app.http.dashboard.ask import Record
from app.http.dashboard.kept import Kept
from app.http.tasks import caps_now

LEVEL = 0.95


async def explained(services: Services, answer: Kept, request_id: str) -> dict[str, Any] | None:
    """The record while it is at hand, else from Parquet; None where there is none. Raises TracesDown."""
    record = await services.traces.get(request_id)
    if record is None:
        record = msgspec.json.decode(await answer(Record(request_id)))
    else:  # a record that waits to be written has parts that are JSON already
        record = msgspec.json.decode(msgspec.json.encode(record))
    if record is None:
        return None
    _add_intervals(record.get("decision") or {})
    return {**record, "caps_now": await caps_now(services, record["caps"])}


def _add_intervals(decision: dict[str, Any]) -> None:
    """Where the learned router scored: what its confidence says of P(success)."""
    if not (decision.get("router") or "").startswith(f"{LEARNED}@"):
        return
    from routers.learned import CONFIDENT_LOGITS  # noqa: PLC0415  (numpy costs 100 ms to import)

    for candidate in decision["candidates"]:
        candidate["p_interval"] = interval(candidate["p_success"], candidate["confidence"], CONFIDENT_LOGITS)


def interval(p: float, confidence: float, within: float) -> tuple[float, float] | None:
    """Where P(success) lies with probability LEVEL, its logit being normal and, with probability `confidence`, no
    farther than `within` from that of `p` (routers/learned.py); None where that says nothing."""
    if not (0.0 < p < 1.0 and 0.0 < confidence < 1.0):
        return None
    spread = within / NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    reach, logit = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0) * spread, log(p / (1.0 - p))
    return _chance(logit - reach), _chance(logit + reach)


def _chance(logit: float) -> float:
    return 1.0 / (1.0 + exp(-max(min(logit, 700.0), -700.0)))
