"""How much of each capped hour, day, month and total is spent, as gauges: read from the ledger now and then, aside of
all calls, so that somebody can be told before a cap is reached."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from app.core.budget import Balance, Claim
from app.core.policy import Policy
from app.core.windows import moment_of
from app.gateway.limits import scope_word, window_claims
from app.gateway.services import Services
from app.stores.budgets import Budgets, LedgerUnavailable

EVERY_S = 15.0
MOST_SHOWN = 1_000
"""Of more windows than this those that are nearest to their caps are shown, so that series do not grow with keys."""
ASKED_AT_ONCE = 200

Labels = tuple[str, str]
"""A window as key_day or global_month, and whose it is: a key's or a team's name, nothing for everybody."""


def capped_windows(policy: Policy, moment: str) -> dict[Labels, Claim]:
    """The windows that have a cap in dollars, at a moment (core/windows). Pure."""
    return {
        (scope_word(claim.scope), name): claim
        for name, claims in _claims(policy, moment)
        for claim in claims
        if claim.limit_nano is not None
    }


def _claims(policy: Policy, moment: str) -> Iterator[tuple[str, tuple[Claim, ...]]]:
    yield "", window_claims("global", policy.caps.everyone, moment)
    for team in policy.teams:
        yield team, window_claims(f"team:{team}", policy.team_windows(team), moment)
    for name, key in policy.named_keys().items():
        yield name, window_claims(f"key:{name}", policy.key_windows(key), moment)


async def balances_of(budgets: Budgets, claims: Sequence[Claim]) -> AsyncIterator[tuple[Claim, Balance | None]]:
    """What the ledger has of each; None: nothing yet. Raises LedgerUnavailable."""
    for at in range(0, len(claims), ASKED_AT_ONCE):
        some = claims[at : at + ASKED_AT_ONCE]
        for claim, balance in zip(some, await budgets.balances([claim.scope for claim in some]), strict=True):
            yield claim, balance


class WindowsUsed:
    """Keeps the gauges of one process. `shown`: what was shown last: where a cap has gone its gauge becomes NaN, for a
    gauge cannot be taken back from other workers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.shown: set[Labels] = set()

    async def keep(self, *, every_s: float = EVERY_S) -> None:
        """Bring the gauges up to date, for ever. While the ledger does not answer they stay as they are."""
        while True:
            try:
                self.show(await self.read(moment_of(dt.datetime.now(dt.UTC))))
            except LedgerUnavailable as error:
                self._services.ledger.is_down(error)
            await asyncio.sleep(every_s)

    async def read(self, moment: str) -> dict[Labels, float]:
        """The spent share of each window, those nearest to their caps. Raises LedgerUnavailable."""
        windows, used = capped_windows(self._services.view.policy, moment), {}
        labelled = {claim.scope: labels for labels, claim in windows.items()}
        async for claim, balance in balances_of(self._services.ledger.budgets, list(windows.values())):
            share = balance.spent_nano / claim.limit_nano if balance and claim.limit_nano else 0.0
            used[labelled[claim.scope]] = share
        return dict(sorted(used.items(), key=lambda one: -one[1])[:MOST_SHOWN])

    def show(self, used: Mapping[Labels, float]) -> None:
        """Set the gauges."""
        gauge = self._services.metrics.window_used
        for labels in self.shown - used.keys():
            gauge.labels(*labels).set(float("nan"))
        for labels, share in used.items():
            gauge.labels(*labels).set(share)
        self.shown = set(used)
