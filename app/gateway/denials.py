"""A ledger's denials as errors: what a client is told of the limit in its way, and when it may come again."""

from __future__ import annotations

import datetime as dt
import math

from app.core.budget import Denied
from app.core.errors import BudgetContended, BursarError, RateLimited, TooManyAtOnce
from app.core.money import usd_text
from app.core.windows import ends_at, window_of
from app.dialects.openai_chat.errors import budget_error, stopped_error
from app.gateway.limits import scope_kind, scope_word

WAIT_HELPS_S = 30.0
"""A window that refills within this time is worth a Retry-After; a longer wait is a hard cap to a client."""


def denial(denied: Denied, need_nano: int, now: dt.datetime) -> BursarError:
    """A store's denial of this need as an error: 402 for a hard cap, 429 only where a short wait helps."""
    kind, reset = scope_kind(denied.scope), ends_at(denied.scope)
    if denied.reason == "parallel":
        headers = {"retry-after": "1", **_rate_headers(denied), "x-bursar-scope": kind}
        return TooManyAtOnce("Too many requests run at a time; one of them has to end first.", headers=headers)
    if denied.reason != "budget":
        if reset is not None:
            return rate_error(denied, reset, now)
        return stopped_error(denied.reason, stopped_headers(denied))
    headers = scope_headers(denied.scope, denied.limit_nano, denied.spent_nano, denied.held_nano)
    if denied.contended and not denied.killed:
        return BudgetContended(
            "Other calls hold what is left of this budget at the moment.", headers={**headers, "retry-after": "1"}
        )
    wait_s = (reset - now).total_seconds() if reset else None
    if wait_s is not None and wait_s <= WAIT_HELPS_S:
        return BudgetContended(
            "This budget's window is used up; it begins anew shortly.",
            headers={**headers, "retry-after": _wait(wait_s)},
        )
    error = budget_error(kind, headers)
    error.final = denied.killed and kind == "task"
    error.lacking_nano = need_nano + denied.spent_nano - denied.limit_nano
    return error


def rate_error(denied: Denied, reset: dt.datetime, now: dt.datetime) -> RateLimited:
    """The denial by a limit of rate: the window's calls or tokens are used up until it begins anew."""
    headers = {
        "retry-after": _wait((reset - now).total_seconds()),
        **_rate_headers(denied),
        "x-bursar-reset": _iso(reset),
    }
    return RateLimited("The rate limit set for this client is reached; it lifts within a minute.", headers=headers)


def _rate_headers(denied: Denied) -> dict[str, str]:
    return {
        "x-bursar-reason": denied.reason,
        "x-bursar-scope": scope_word(denied.scope),
        "x-bursar-limit": str(denied.limit),
        "x-bursar-used": str(denied.used),
    }


def _wait(wait_s: float) -> str:
    """At least a second: the window may be over, for a call is counted in the one in which it began."""
    return str(max(math.ceil(wait_s), 1))


def _iso(time: dt.datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def stopped_headers(denied: Denied) -> dict[str, str]:
    """The limit of a task that is no money, and what is used of it: calls, tokens or seconds."""
    if denied.reason in ("frozen", "closed"):
        return {}
    unit = 1000 if denied.reason == "time" else 1
    return {"x-bursar-limit": _number(denied.limit / unit), "x-bursar-used": _number(denied.used / unit)}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def scope_headers(scope: str, limit_nano: int, spent_nano: int, held_nano: int) -> dict[str, str]:
    """The amounts of one of the ledger's scopes."""
    return denial_headers(scope_kind(scope), window_of(scope), limit_nano, spent_nano, held_nano, ends_at(scope))


def denial_headers(
    kind: str, window: str | None, limit_nano: int, spent_nano: int, held_nano: int, reset: dt.datetime | None
) -> dict[str, str]:
    """The amounts, in headers, because numbers in a message make agents retry."""
    headers = {
        "x-bursar-reason": "budget",
        "x-bursar-scope": f"{kind}_{window}" if window else kind,
        "x-bursar-limit-usd": usd_text(limit_nano),
        "x-bursar-spent-usd": usd_text(spent_nano),
        "x-bursar-reserved-usd": usd_text(held_nano),
        "x-bursar-remaining-usd": usd_text(max(limit_nano - spent_nano - held_nano, 0)),
    }
    if reset is not None:
        headers["x-bursar-reset"] = _iso(reset)
    return headers


def call_denial(kind: str, need_nano: int, limit_nano: int, spent_nano: int) -> BursarError:
    """The denial of this need by a cap that is the call's own."""
    error = budget_error(kind, denial_headers(kind, None, limit_nano, spent_nano, 0, None))
    error.lacking_nano = need_nano + spent_nano - limit_nano
    return error
