"""Notices of money, for people: a budget is nearly spent, a task was cut. Which are due, and their words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from app.core.budget import Balance
from app.core.money import NANO_PER_USD, usd_float, usd_text
from app.core.secret import Secret

DAY_S = 86_400.0
_KEPT_S = {"hour": DAY_S, "day": 3 * DAY_S, "month": 40 * DAY_S, "total": 400 * DAY_S}
_TASK_KEPT_S = 40 * DAY_S
_CENTS = NANO_PER_USD // 100
_FINE = 1_000
_STEERING = str.maketrans(dict.fromkeys("<>@[]", "_"))
"""By what a text calls all of a channel's people in Slack, Mattermost or Discord, or hides where a link leads."""


@dataclass(frozen=True, slots=True)
class NoticeRules:
    """Where notices are posted, from which shares of a capped window on (ascending), and whether of cut tasks too."""

    webhook: Secret
    at: tuple[float, ...]
    tasks: bool


class Notice(msgspec.Struct, frozen=True):
    """One notice as it is posted. `scope`: key_month, global_day, task; `owner`: the key or team, none for everybody;
    `window`: the hour, day or month (UTC), none for a total or a task; `used_share` is of the limit."""

    kind: Literal["budget", "task"]
    scope: str
    owner: str | None
    window: str | None
    task_id: str | None
    spent_usd: float
    limit_usd: float
    used_share: float
    text: str


class Due(msgspec.Struct, frozen=True):
    """A notice that is due. `once`: its name: each is given once, which is remembered for `kept_s`."""

    once: str
    kept_s: float
    notice: Notice


def of_window(scope: str, balance: Balance, limit_nano: int, at: tuple[float, ...]) -> Due | None:
    """What is to be said of a window (by its name in the ledger), for the highest share that it has reached. A share of
    1 is reached also where a call was cut at the limit. A limit that is changed is a new one."""
    used = balance.spent_nano / limit_nano if limit_nano else 0.0
    # By the limit that the policy has now: the ledger's own is that of the last call.
    cut = balance.killed_at_nano is not None and limit_nano <= (balance.killed_limit_nano or 0)
    reached = [share for share in at if used >= share or (share == 1 and cut)]
    if not reached:
        return None
    who, owner, window, moment = _parts(scope)
    subject, whose = (f"{who.capitalize()} {owner}", "its") if owner else ("All keys together", "their")
    has = "has" if owner else "have"
    span = {"total": f"{whose} total budget"}.get(window, f"{whose} budget of this {window}")
    shown = f"{subject} {has} spent {used:.0%} of {span}: {_usd(balance.spent_nano)} of {_usd(limit_nano)}."
    notice = Notice(
        "budget",
        f"{who}_{window}",
        owner,
        moment,
        None,
        usd_float(balance.spent_nano),
        usd_float(limit_nano),
        round(used, 4),
        shown,
    )
    return Due(f"{scope} {reached[-1]:g} of {limit_nano}", _KEPT_S[window], notice)


def of_task(key: str | None, task_id: str, balance: Balance) -> Due | None:
    """What is to be said of a task: that it was cut at its cap. One that is cut again at a higher one is told again."""
    limit = balance.effective_limit_nano
    if not balance.exhausted or limit is None:
        return None
    whose = f" of key {key}" if key else ""
    text = f"Task {_shown(task_id)}{whose} was cut at its cap: {_usd(balance.spent_nano)} of {_usd(limit)} spent."
    share = round(balance.spent_nano / limit, 4) if limit else 1.0
    spent, most = usd_float(balance.spent_nano), usd_float(limit)
    notice = Notice("task", "task", key, None, task_id, spent, most, share, text)
    return Due(f"task {key or ''}:{task_id} cut at {limit}", _TASK_KEPT_S, notice)


def _parts(scope: str) -> tuple[str, str | None, str, str | None]:
    """Of a window's name in the ledger: whose kind, whose, which window, and its moment."""
    who, *rest = scope.split(":", 2)
    owner = rest.pop(0) if who != "global" else None
    window, _, moment = ":".join(rest).partition(":")
    return who, owner, window, moment or None


def _shown(task_id: str) -> str:
    """A task's name, which a client chose, in words for people: `notices` of the message has it as it is."""
    return task_id.translate(_STEERING)


def _usd(nano: int) -> str:
    """Dollars for people: to the cent, and smaller amounts to a millionth."""
    unit = _CENTS if nano >= NANO_PER_USD else _FINE
    whole = (nano + unit // 2) // unit * unit
    return f"${whole / NANO_PER_USD:,.2f}" if unit == _CENTS else f"${usd_text(whole)}"
