"""Belief over all models: exact for Gaussian evidence, in any order, and evidence can be taken back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import SHIPPED_WEIGHTS
from routers.abilities import Vector
from routers.base import Arm
from routers.belief import Belief, Prior, Site, alike
from routers.kinds import TYPES, Demand, extended, resemblance
from routers.learned import load
from routers.live import prior_of

BASE = load(SHIPPED_WEIGHTS)
PRIOR: Prior = prior_of(BASE)
ARMS = [Arm(f"m{n}", 1 + n, model=model) for n, model in enumerate(("gpt-4o-mini", "weird-7b", "gpt-4o"))]
NAMES = [arm.name for arm in ARMS]


def start() -> Belief:
    belief = PRIOR.start()
    for arm in ARMS:
        belief = PRIOR.joined(belief, arm, BASE.ability(arm))
    return belief


def demand(task_type: str = "chat", plain: bool = True) -> Demand:
    return BASE.demand_of((), (), 1.0, task_type, plain=plain, read=False)


def drawn(rng: np.random.Generator) -> Site:
    u, place, kind = rng.normal(size=5), rng.normal(size=BASE.places), TYPES[rng.integers(len(TYPES))].value
    z = extended(Demand(u, np.zeros(5), place, 0.0, kind))
    return Site(NAMES[rng.integers(3)], z, float(rng.uniform(0.05, 0.5)), float(rng.normal()))


def whole(belief: Belief) -> tuple[Vector, Vector]:
    """The mean and covariance of what is common and all models' abilities, side by side."""
    size = len(belief.mean)
    count = 1 + len(belief.own)
    mean, cov = np.zeros(size * count), np.zeros((size * count, size * count))
    slopes = [np.eye(size), *(own.slope for own in belief.own.values())]
    bases = [np.zeros(size), *(own.base for own in belief.own.values())]
    for i in range(count):
        at = slice(i * size, (i + 1) * size)
        mean[at] = slopes[i] @ belief.mean + bases[i]
        for j in range(count):
            cov[at, j * size : (j + 1) * size] = slopes[i] @ belief.cov @ slopes[j].T
        if i:
            cov[at, at] += list(belief.own.values())[i - 1].cov
    return mean, cov


def test_it_is_the_posterior_of_all_models_together() -> None:
    """The same as one big normal distribution conditioned on every site."""
    rng = np.random.default_rng(0)
    belief = start()
    mean, cov = whole(belief)
    size = len(belief.mean)
    precision = np.linalg.inv(cov)
    shift = precision @ mean
    for site in [drawn(rng) for _ in range(40)]:
        belief = belief.told(site)
        z = np.zeros(len(mean))
        at = (1 + NAMES.index(site.model)) * size
        z[at : at + size] = site.z
        precision += site.precision * np.outer(z, z)
        shift += site.shift * z
    found_mean, found_cov = whole(belief)
    assert np.allclose(found_cov, np.linalg.inv(precision), atol=1e-7)
    assert np.allclose(found_mean, np.linalg.solve(precision, shift), atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_evidence_comes_in_any_order_and_can_be_taken_back(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    sites = [drawn(rng) for _ in range(count)]
    one = other = start()
    for site in sites:
        one = one.told(site)
    for place in rng.permutation(count):
        other = other.told(sites[place])
    for a, b in zip(whole(one), whole(other), strict=True):
        assert np.allclose(a, b, atol=1e-9)
    for place in rng.permutation(count):
        one = one.told(sites[place], back=True)
    for a, b in zip(whole(one), whole(start()), strict=True):
        assert np.allclose(a, b, atol=1e-8)


def test_taking_back_more_than_is_there_leaves_a_belief() -> None:
    belief = start()
    z = extended(demand())
    site = Site("m0", z, 50.0, 40.0)
    for _ in range(3):
        belief = belief.told(site, back=True)
    assert np.linalg.eigvalsh(whole(belief)[1]).min() > 0.0
    assert np.isfinite(whole(belief)[0]).all()


def test_requests_that_look_alike_are_learned_together() -> None:
    """One model fails on requests of one look and does well on those of another, all of one type: so will, it is
    expected, a model that joins."""
    looks = [0.5 * np.eye(BASE.places)[at] for at in (0, 1)]
    read = [BASE.demand_of([1.0, 0.0, 0.0, 0.0, 0.0], look, 0.2, "code", plain=True, read=True) for look in looks]
    belief = start()
    for _ in range(15):
        for outcome, one in enumerate(read):
            belief = belief.told(belief.site("m0", one, float(outcome), 1.0))
    fresh = Arm("m3", 2, model="claude-3-haiku")
    belief = PRIOR.joined(belief, fresh, BASE.ability(fresh))
    hard, easy = (belief.logit("m3", extended(one))[0] for one in read)
    assert easy > hard + 0.5


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_an_outcome_of_one_model_tells_of_all(outcome: float) -> None:
    """Work that training knows nothing of turned out easy, or hard: that bears on every model, most on the one asked,
    and more on types alike than on others."""
    belief = start()
    for _ in range(10):
        site = belief.site("m0", demand("translation"), outcome, 1.0)
        belief = belief.told(site)
    sign = 1.0 if outcome else -1.0

    def moved(name: str, task_type: str) -> float:
        z = extended(demand(task_type))
        return sign * (belief.logit(name, z)[0] - start().logit(name, z)[0])

    assert moved("m0", "translation") > moved("m2", "translation") > 0.2
    assert moved("m0", "translation") > moved("m0", "classification") > moved("m0", "long_document")
    assert (
        belief.logit("m2", extended(demand("translation")))[1] < start().logit("m2", extended(demand("translation")))[1]
    )


def test_a_model_that_joins_begins_with_what_is_common_and_with_its_neighbours() -> None:
    belief = start()
    for name in NAMES:
        for _ in range(30):
            belief = belief.told(belief.site(name, demand("writing"), 0.0, 1.0))
    near, far = Arm("new", 1, model="gpt-4o-mini-2"), Arm("far", 9, model="nothing-like-it")
    z = extended(demand("writing"))
    for arm in (near, far):
        expected = BASE.ability(arm)
        fresh = PRIOR.joined(PRIOR.start(), arm, expected)
        joined = PRIOR.joined(belief, arm, expected)
        assert joined.logit(arm.name, z)[0] < fresh.logit(arm.name, z)[0] - 0.3
        assert joined.logit(arm.name, z)[1] < fresh.logit(arm.name, z)[1]
    assert alike(near, ARMS[0]) > alike(far, ARMS[0])
    assert PRIOR.joined(belief, ARMS[0], BASE.ability(ARMS[0])) is belief
    other = replace(ARMS[0], model="another-one")
    assert PRIOR.joined(belief, other, BASE.ability(other)).own["m0"].labels == 0.0


def test_a_model_that_is_renamed_begins_where_it_was() -> None:
    """And a namesake that turns out otherwise is soon known apart."""
    belief, z = start(), extended(demand("writing"))
    for outcome in [1.0] * 38 + [0.0] * 2:
        belief = belief.told(belief.site("m0", demand("writing"), outcome, 1.0))
    named = replace(ARMS[0], name="new", input_rate=7)
    joined = PRIOR.joined(belief, named, BASE.ability(named))
    (mean, variance), (then, least) = joined.logit("new", z), belief.logit("m0", z)
    assert mean == pytest.approx(then)
    assert least < variance < PRIOR.joined(PRIOR.start(), named, BASE.ability(named)).logit("new", z)[1]
    assert joined.own["new"].labels == 0.0
    assert joined.logit("m0", z) == belief.logit("m0", z)
    for _ in range(30):
        joined = joined.told(joined.site("new", demand("writing"), 0.0, 1.0))
    assert joined.logit("new", z)[0] < 0.0 < joined.logit("m0", z)[0]


def test_task_types_resemble_each_other() -> None:
    found = resemblance()
    assert np.allclose(np.diag(found), 1.0)
    assert np.linalg.eigvalsh(found).min() > 0.01

    def between(one: str, other: str) -> float:
        names = [kind.value for kind in TYPES]
        return float(found[names.index(one), names.index(other)])

    assert between("science", "professional") > between("science", "rewriting")
    assert between("summarisation", "long_document") > between("code", "long_document")
    assert between("chat", "question") > between("chat", "math")
