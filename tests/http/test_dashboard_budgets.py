"""The budgets as the dashboard shows them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from app.core.budget import Balance
from app.core.policy import Caps, Key, Team, Windows
from app.http.dashboard.budgets import budgets_of
from tests.gateway.policy_values import model, policy

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


class Spent:
    """A ledger that knows what was spent in total, by owner."""

    def __init__(self, **nano: int) -> None:
        self._balances = {f"{owner}:{name}:total": Balance(spent) for owner in ("team", "key") for name, spent in
                          nano.items()}  # fmt: skip

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        return [self._balances.get(scope) for scope in scopes]

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        return [(scope, balance) for scope, balance in self._balances.items() if scope.startswith(prefix)][:limit]


async def test_owners_that_the_policy_names_no_more_have_spent_and_have_no_limits() -> None:
    caps = Caps(key=Windows(total_nano=10**9), team=Windows(total_nano=2 * 10**9))
    keys = {"0" * 64: Key("here", "0" * 64, team="here")}
    rules = policy([model("m")], caps=caps, keys=keys, teams={"here": Team("here")})
    shown = (await budgets_of(Spent(here=5, gone=7), rules, None, NOW))["windows"]
    assert [(row["team"], row["key"], row["limit_usd"]) for row in shown] == [
        ("here", None, 2.0),
        ("gone", None, None),
        (None, "here", 1.0),
        (None, "gone", None),
    ]
