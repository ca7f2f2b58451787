"""10 % of adversarial feedback flips no route, in a synthetic population (`population.py`): nothing here is real."""

from __future__ import annotations

import numpy as np
import pytest

from tests.learner.population import RIGHT, TASKS, Run, Says, Speaks, run

HONEST = {f"key-{number}": Speaks() for number in range(9)}
QUIET = {name: Speaks(often=0.2) for name in HONEST}
"""They say something of one call in five."""


def inverts(_: np.random.Generator, __: str, good: bool) -> bool:
    return not good


def runs(liar: Speaks, *, guarded: bool, others: dict[str, Speaks] = HONEST) -> list[Run]:
    return [run({**others, "liar": liar}, guarded=guarded, seed=seed, words=1_600) for seed in range(4)]


LIARS = {
    "inverts": (Speaks(says=inverts), HONEST),
    "smears the model that is right for easy tasks": (
        Speaks(says=lambda *_: False, cell=("cheap", "easy")), HONEST,
    ),
    "smears the model that is right for hard tasks": (
        Speaks(says=lambda *_: False, cell=("middle", "hard")), HONEST,
    ),
    "praises a model that is not adequate": (Speaks(says=lambda *_: True, cell=("cheap", "hard")), HONEST),
    "calls little and speaks of all of it": (
        Speaks(calls=0.2, says=lambda *_: False, cell=("cheap", "easy")), QUIET,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIARS)
def test_a_key_with_a_tenth_of_the_words_flips_no_route(name: str) -> None:
    liar, others = LIARS[name]
    for ran in runs(liar, guarded=True, others=others):
        assert 0.05 < ran.untrue < 0.13
        assert (ran.wrong, ran.routes) == (0, RIGHT)
        assert ran.gateway.guard.trust("liar") < 0.5
        assert min(ran.gateway.guard.trust(key) for key in HONEST) > 0.9


@pytest.mark.parametrize("name", [name for name in LIARS if "smears" in name or "little" in name])
def test_without_the_guard_they_do(name: str) -> None:
    liar, others = LIARS[name]
    assert all(ran.routes != RIGHT for ran in runs(liar, guarded=False, others=others))


def test_learning_anew_forgets_what_a_liar_said_before_it_was_found_out() -> None:
    liar, others = LIARS["smears the model that is right for easy tasks"]
    for ran in runs(liar, guarded=True, others=others):
        before = ran.gateway.believed("cheap", "easy")
        ran.gateway.learn_anew()
        assert ran.gateway.believed("cheap", "easy") > before + 0.01
        assert ran.gateway.believed("cheap", "easy") == pytest.approx(0.94, abs=0.03)


def test_lies_scattered_over_all_keys_cost_accuracy_and_no_route() -> None:
    """Nobody can be found out here; what remains is that the estimates move by a few points, and a route whose model
    is adequate by less than that can flip (a few seeds in a hundred here; asserted is what holds for these)."""

    def lies_a_little(rng: np.random.Generator, _: str, good: bool) -> bool:
        return good != bool(rng.random() < 0.1)

    keys = {name: Speaks(says=lies_a_little) for name in HONEST}
    for seed in range(4):
        ran = run(keys, guarded=True, seed=seed, words=2_500, settled=2_400)
        assert ran.routes == RIGHT
        assert abs(ran.gateway.believed("cheap", "easy") - 0.91) < 0.08


def test_without_liars_the_guard_changes_nothing() -> None:
    for seed in range(2):
        clean, guarded = (run(HONEST, guarded=on, seed=seed, words=800) for on in (False, True))
        for cell in (("cheap", "easy"), ("middle", "hard")):
            assert guarded.gateway.believed(*cell) == pytest.approx(clean.gateway.believed(*cell), abs=0.01)


def many(total: float, n: int, says: Says, cell: tuple[str, str]) -> dict[str, Speaks]:
    """So many keys that make this many keys' worth of calls together, and lie about one cell."""
    return {f"liar-{number}": Speaks(calls=total / n, says=says, cell=cell) for number in range(n)}


@pytest.mark.parametrize("n", [10, 80])
def test_a_tenth_of_the_words_spread_over_many_keys_is_found_out_as_one(n: int) -> None:
    """All of them aim at one cell, where they are as many as the others. What they said before they were found out,
    some ten words, weighs for a while: in 20 other seeds of this no route was flipped at the end, and at 1 look in 40
    on the way one was (without YOUNG and the weighted median: in all of them). It does not when it is learned anew."""
    liars = many(1.0, n, lambda *_: False, ("cheap", "easy"))
    for seed in range(4):
        ran = run({**HONEST, **liars}, guarded=True, seed=seed, words=1_600)
        guard = ran.gateway.guard
        assert 0.05 < ran.untrue < 0.13
        assert min(guard.trust(key) for key in HONEST) > 0.9
        assert sum(guard.trust(key) for key in liars) / n < 0.1
        told = [label for label in ran.gateway.labels if label.key in liars]
        assert sum(label.weight for label in told) < 0.15 * len(told)
        ran.gateway.learn_anew()
        assert {task: ran.gateway.route(task) for task in TASKS} == RIGHT
