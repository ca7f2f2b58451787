"""How likely a draw from what is believed makes a choice, by each objective of a route. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.policy import Route
from app.gateway.choose import Considered
from routers.thompson import first_adequate, likeliest, most_useful


def chance_of(
    rules: Route, options: Sequence[Considered], means: Sequence[float], spreads: Sequence[float], at: int
) -> float:
    """The probability that the option in place `at` is chosen, where one draw of each option's logit (means and
    standard deviations, independent of each other) is taken for the truth. The options stand cheapest first."""
    if rules.objective == "cheapest_adequate":
        return first_adequate(means, spreads, at, rules.adequacy)
    costs = [option.expected_nano or 0 for option in options]
    if rules.objective == "quality":
        fitting = [place for place, cost in enumerate(costs) if cost <= (rules.max_expected_nano or 0)]
        if not fitting:
            return float(at == 0)
        if at not in fitting:
            return 0.0
        return likeliest([means[j] for j in fitting], [spreads[j] for j in fitting], fitting.index(at))
    return most_useful(means, spreads, at, costs, rules.success_value_nano or 0)
