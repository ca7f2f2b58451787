"""Who decides for whom on a split route: true to the shares, stable by unit, and moved as little as can be."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.split import assign

UNITS = [f"key:task-{i}" for i in range(4_000)]
shares_of = st.floats(0.01, 0.99)


def drawn(shares: dict[str, float], route: str = "auto") -> list[str]:
    return [assign(shares, route, unit) for unit in UNITS]


@pytest.mark.parametrize(
    "shares",
    [{"learned": 0.9, "heuristic": 0.1}, {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 1.0}, {"a": 0.001, "b": 0.999}],
)
def test_each_name_gets_its_share(shares: dict[str, float]) -> None:
    counts = Counter(drawn(shares))
    for name, share in shares.items():
        spread = sqrt(share * (1 - share) / len(UNITS))
        assert abs(counts[name] / len(UNITS) - share) <= 4 * spread


def test_assignments_are_fixed_for_good() -> None:
    """A change here moves every running test's tasks between its arms."""
    shares = {"learned": 0.5, "heuristic": 0.5}
    assert "".join(assign(shares, "auto", f"k:{i}")[0] for i in range(24)) == "lhhllhhlhhllhhhllhllhhhh"


@given(st.text(), st.text(), shares_of)
def test_the_same_unit_falls_to_the_same_name_in_any_order(route: str, unit: str, share: float) -> None:
    shares = {"learned": share, "heuristic": 1 - share}
    name = assign(shares, route, unit)
    assert name in shares
    assert assign(dict(reversed(shares.items())), route, unit) == name
    assert assign({"learned": 7 * share, "heuristic": 7 * (1 - share)}, route, unit) == name


@settings(max_examples=20, deadline=None)
@given(shares_of, shares_of)
def test_only_those_move_that_must(before: float, after: float) -> None:
    old = drawn({"learned": before, "heuristic": 1 - before})
    new = drawn({"learned": after, "heuristic": 1 - after})
    moved = {(was, now) for was, now in zip(old, new, strict=True) if was != now}
    assert moved <= ({("heuristic", "learned")} if after > before else {("learned", "heuristic")})


def test_a_new_name_takes_from_all_and_moves_nobody_else() -> None:
    old = drawn({"a": 0.6, "b": 0.4})
    new = drawn({"a": 0.3, "b": 0.2, "c": 0.5})
    assert {now for was, now in zip(old, new, strict=True) if was != now} == {"c"}


def test_routes_draw_for_themselves() -> None:
    shares = {"learned": 0.5, "heuristic": 0.5}
    same = sum(a == b for a, b in zip(drawn(shares, "auto"), drawn(shares, "other"), strict=True))
    assert abs(same / len(UNITS) - 0.5) < 0.04


def test_who_has_no_share_gets_nothing() -> None:
    assert set(drawn({"learned": 0.0, "heuristic": 1.0})) == {"heuristic"}
