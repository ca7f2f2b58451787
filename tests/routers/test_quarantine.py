"""Quarantine: found, probed, let back, and told from its provider and from the traffic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from routers.quarantine import Cause, Past, Watch, cause, hear, new_watch, released, state_of, watch_of


def after(watch: Watch, rate: float, labels: int, seed: int) -> Watch:
    """The watch after labels of synthetic outcomes that succeed at this rate, or as soon as its standing changes."""
    rng, was = np.random.default_rng(seed), watch.fallen is None
    for number in range(labels):
        watch = hear(watch, 1.5, float(rng.random() < rate), 1.0, float(number))
        if (watch.fallen is None) != was:
            break
    return watch


def fallen(seed: int = 1) -> Watch:
    watch = after(new_watch(), 0.92, 1500, seed)
    assert watch.fallen is None
    watch = after(watch, 0.7, 300, seed + 1)
    assert watch.fallen is not None
    return watch


def test_a_fall_says_how_deep_it_is() -> None:
    found = fallen().fallen
    assert found is not None
    assert 0.8 < found.level < 0.97
    assert 0.1 < found.drop < 0.45


def test_probes_of_a_model_that_is_still_down_do_not_let_it_back() -> None:
    assert after(fallen(), 0.7, 150, seed=3).fallen is not None


def test_probes_of_one_that_recovered_let_it_back_and_it_can_fall_again() -> None:
    back = after(fallen(), 0.92, 400, seed=4)
    assert back.fallen is None
    assert after(back, 0.92, 400, seed=5).fallen is None
    assert after(back, 0.6, 200, seed=6).fallen is not None


@pytest.mark.parametrize("requests", [1, 5])
def test_few_requests_that_are_right_again_let_a_model_back(requests: int) -> None:
    watch, right = fallen(), 0
    for since in range(300):
        past = Past(right=right // requests, since=since // requests)
        watch, right = hear(watch, 1.5, float(since % 20 != 10), 1.0, 9.0, past), right + (since % 20 != 10)
        if watch.fallen is None:
            break
    assert watch.fallen is None


def test_what_speaks_for_a_recovery_has_a_beginning() -> None:
    watch = hear(fallen(), 1.5, 0.0, 1.0, 7.0)
    assert watch.fallen is not None
    assert (watch.fallen.recovered, watch.fallen.rising_s) == (0.0, 0.0)
    for now_s, outcome, rising_s in ((8.0, 1.0, 8.0), (9.0, 1.0, 8.0), (10.0, 0.0, 0.0), (11.0, 1.0, 11.0)):
        watch = hear(watch, 1.5, outcome, 3.0 if outcome == 0.0 else 1.0, now_s)
        assert watch.fallen is not None
        assert watch.fallen.rising_s == rising_s


def test_the_operator_may_let_it_back() -> None:
    watch = released(fallen())
    assert watch.fallen is None
    assert watch.leaning == 0.0


@pytest.mark.parametrize("watch", [new_watch(), after(new_watch(), 0.9, 777, 8), fallen(9)])
def test_state_survives_json(watch: Watch) -> None:
    again = watch_of(json.loads(json.dumps(state_of(watch))))
    assert state_of(again) == state_of(watch)
    for rate in (0.9, 0.5):
        one, other = after(watch, rate, 205, 10), after(again, rate, 205, 10)
        assert (one.fallen is None) == (other.fallen is None)
        assert one.leaning == pytest.approx(other.leaning, abs=1e-3)


PROVIDERS = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"}


def leanings(**down: float) -> dict[tuple[str, str], float]:
    return {(model, "code"): down.get(model, 0.1) for model in PROVIDERS}


def test_one_model_alone() -> None:
    assert cause(("a1", "code"), leanings(a1=1.0), PROVIDERS) is Cause.MODEL
    assert cause(("a1", "code"), {("a1", "code"): 1.0}, PROVIDERS) is Cause.MODEL


def test_most_of_a_provider() -> None:
    assert cause(("a1", "code"), leanings(a1=1.0, a2=0.8, a3=0.7), PROVIDERS) is Cause.PROVIDER
    assert cause(("a1", "code"), leanings(a1=1.0, a2=0.8), PROVIDERS) is Cause.MODEL
    assert cause(("b1", "code"), leanings(b1=1.0, b2=0.8), PROVIDERS) is Cause.PROVIDER


def test_everybody_means_that_the_work_has_changed() -> None:
    everybody = leanings(a1=1.0, a2=0.8, a3=0.7, b1=0.9, b2=0.7)
    assert cause(("a1", "code"), everybody, PROVIDERS) is Cause.TRAFFIC
    # Of other work it says nothing.
    elsewhere = {(model, "math"): 0.0 for model in PROVIDERS}
    assert cause(("a1", "code"), everybody | elsewhere, PROVIDERS) is Cause.TRAFFIC
