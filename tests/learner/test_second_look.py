"""Looking back at who lies: many cells, few words in each; nothing here is real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.learner.second_look import Honesty, looked_back

KEYS = [f"key-{n}" for n in range(10)]


@dataclass
class Said:
    words: float = 0.0
    mean: float = 0.5

    def hear(self, good: bool) -> None:
        self.words += 1.0
        self.mean += (float(good) - self.mean) / self.words


def cells_of(
    seed: int, words: int, cells: int = 40, liars: tuple[str, ...] = (), spread: float = 0.0
) -> list[dict[str, Said]]:
    """So many words of ten keys in cells of random success rates; each honest key is better or worse than others by up
    to `spread`."""
    rng = np.random.default_rng(seed)
    rates, own = rng.uniform(0.1, 0.9, cells), rng.uniform(-spread, spread, len(KEYS))
    found: list[dict[str, Said]] = [{} for _ in range(cells)]
    for _ in range(words):
        at, who = int(rng.integers(cells)), int(rng.integers(len(KEYS)))
        good = bool(rng.random() < min(max(rates[at] + own[who], 0.0), 1.0))
        found[at].setdefault(KEYS[who], Said()).hear(good != (KEYS[who] in liars))
    return found


def look(cells: list[dict[str, Said]]) -> dict[str, Honesty]:
    return looked_back(cells, lambda _: True, ())


@pytest.mark.parametrize("liars", [("key-0",), ("key-0", "key-1")])
def test_a_liar_of_two_words_a_cell_is_condemned_and_nobody_else(liars: tuple[str, ...]) -> None:
    for seed in range(10):
        found = look(cells_of(seed, 1_000, liars=liars))
        assert {key for key, one in found.items() if one.condemned} == set(liars)
        assert not any(found[key].cleared for key in liars)
        assert sum(one.cleared for one in found.values()) >= 6


def test_keys_whose_requests_are_harder_or_easier_are_not_condemned() -> None:
    for seed in range(10):
        assert not any(one.condemned for one in look(cells_of(seed, 2_000, spread=0.2)).values())


def test_who_lies_of_one_thing_alone_is_not_cleared() -> None:
    for seed in range(10):
        cells = cells_of(seed, 1_000)
        for key in KEYS:
            cells[0][key] = Said(10.0, 0.1 if key == "key-0" else 0.9)
        found = look(cells)
        assert not found["key-0"].cleared
        assert sum(found[key].cleared for key in KEYS[1:]) >= 7


def test_without_two_others_nobody_is_judged() -> None:
    """Of two that contradict each other none can tell which one lies."""
    alone, two = [{"key-0": Said(50.0, 0.1)}], [{"key-0": Said(50.0, 0.1), "key-1": Said(50.0, 0.9)}]
    assert look(alone) == look(two) == {}
    three = [{**two[0], "key-2": Said(50.0, 0.9)}]
    assert look(three)["key-0"].condemned
    assert looked_back(three, lambda _: True, ("key-2",)) == {}
    young = looked_back(three, lambda key: key != "key-0", ())
    assert set(young) == {"key-0"}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(KEYS[:4]), st.booleans()), max_size=80))
def test_it_makes_no_difference_which_way_round_success_is(words: list[tuple[int, str, bool]]) -> None:
    cells: list[dict[str, Said]] = [{} for _ in range(4)]
    turned: list[dict[str, Said]] = [{} for _ in range(4)]
    for at, key, good in words:
        cells[at].setdefault(key, Said()).hear(good)
        turned[at].setdefault(key, Said()).hear(not good)
    one, other = look(cells), look(turned)
    assert one.keys() == other.keys()
    for key, honesty in one.items():
        assert honesty.odds == pytest.approx(other[key].odds, abs=1e-6)
        assert honesty.worst == pytest.approx(other[key].worst, abs=1e-6)
