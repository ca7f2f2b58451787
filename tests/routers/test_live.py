"""The live router: what the weights say before anything was learned, what outcomes say after."""

from __future__ import annotations

import numpy as np
import pytest

from app.settings import SHIPPED_WEIGHTS
from routers.base import Arm, RequestView
from routers.belief import Belief
from routers.features import Features, extract
from routers.learned import load
from routers.live import LiveRouter, prior_of

BASE = load(SHIPPED_WEIGHTS)
PRIOR = prior_of(BASE)
ARMS = (
    Arm("small", 2, input_rate=150_000_000, output_rate=600_000_000, model="gpt-4o-mini"),
    Arm("large", 4, input_rate=2_500_000_000, output_rate=10_000_000_000, model="gpt-4o"),
    Arm("unknown", 1, model="weird-7b"),
)
CODE = extract(
    RequestView(last_user="Write a Python function that sorts a list of integers with quicksort.", first_user="")
)
CHAT = extract(RequestView(last_user="Hi! How are you today?", first_user=""))
LOOP = extract(RequestView(last_user="Fix the test", first_user="", history_chars=9_000, n_turns=8, in_tool_loop=True))


def taught(outcome: float, count: int, features: Features = CHAT, name: str = "small") -> Belief:
    belief = PRIOR.start()
    arm = next(arm for arm in ARMS if arm.name == name)
    belief = PRIOR.joined(belief, arm, BASE.ability(arm))
    for _ in range(count):
        site = belief.site(name, BASE.demand(features), outcome, 1.0)
        belief = belief.told(site)
    return belief


@pytest.mark.parametrize("features", [CODE, CHAT, LOOP])
def test_with_nothing_learned_it_says_what_the_weights_say(features: Features) -> None:
    live = LiveRouter(BASE, PRIOR.start(), "0")
    for now, before in zip(live.score(features, ARMS), BASE.score(features, ARMS), strict=True):
        assert now.p_success == pytest.approx(before.p_success, abs=1e-6)
        assert now.confidence == pytest.approx(before.confidence, abs=1e-4)
        assert now.output_tokens == before.output_tokens
    assert live.task(features) == BASE.task(features)
    assert live.version == f"{BASE.version}+0"
    assert live.score(features, ()) == []


def test_outcomes_make_it_sure_of_work_that_training_knows_nothing_of() -> None:
    before = LiveRouter(BASE, PRIOR.start(), "0").score(CHAT, ARMS)
    after = LiveRouter(BASE, taught(1.0, 40), "1").score(CHAT, ARMS)
    assert before[0].confidence < 0.6
    assert after[0].confidence > 0.75
    assert after[0].p_success > 0.85
    assert before[1].confidence < after[1].confidence < after[0].confidence
    assert LiveRouter(BASE, taught(0.0, 40), "1").score(CHAT, ARMS)[0].p_success < 0.2


@pytest.mark.parametrize("adequacy", [0.5, 0.8, 0.95])
def test_how_surely_a_model_is_adequate_is_the_share_of_draws_that_say_so(adequacy: float) -> None:
    live = LiveRouter(BASE, taught(0.9, 30), "1")
    mean, variance = live.drawn(CHAT, ARMS)
    draws = np.random.default_rng(0).normal(mean[0], variance[0] ** 0.5, 20_000)
    share = float(np.mean(1.0 / (1.0 + np.exp(-draws)) >= adequacy))
    assert live.surely("small", BASE.demand(CHAT).task_type, adequacy) == pytest.approx(share, abs=0.015)


def test_it_tells_of_which_models_it_heard_an_outcome_under_whatever_name() -> None:
    renamed = Arm("little", 2, model="gpt-4o-mini")
    assert LiveRouter(BASE, PRIOR.start(), "0").heard((*ARMS, renamed)) == [False] * 4
    joined = PRIOR.joined(taught(1.0, 1), ARMS[1], BASE.ability(ARMS[1]))
    assert LiveRouter(BASE, joined, "1").heard((*ARMS, renamed)) == [True, False, False, True]


def test_what_a_sampler_draws_from_does_not_depend_on_what_was_scored_before() -> None:
    of, other = taught(1.0, 40), ARMS[:2]
    live = LiveRouter(BASE, of, "1")
    for features, arms in ((CHAT, ARMS), (CODE, ARMS), (CODE, other), (LOOP, other)):
        live.score(features, arms)
        for asked in (CHAT, CODE, LOOP):
            mean, variance = LiveRouter(BASE, of, "1").drawn(asked, ARMS)
            assert live.drawn(asked, ARMS).mean.tolist() == pytest.approx(mean.tolist())
            assert live.drawn(asked, ARMS).variance.tolist() == pytest.approx(variance.tolist())
            live.score(features, arms)


def test_what_was_learned_of_one_kind_of_work_bears_less_on_others() -> None:
    def change(features: Features) -> float:
        before = LiveRouter(BASE, PRIOR.start(), "0").score(features, ARMS)[0].p_success
        return LiveRouter(BASE, taught(1.0, 20, CHAT), "1").score(features, ARMS)[0].p_success - before

    assert change(CHAT) > change(CODE) > 0.0


def test_what_a_sampler_draws_from_narrows_with_outcomes() -> None:
    wide = LiveRouter(BASE, PRIOR.start(), "0").drawn(CHAT, ARMS)
    narrow = LiveRouter(BASE, taught(1.0, 40), "1").drawn(CHAT, ARMS)
    assert (narrow.variance < wide.variance).all()
    assert narrow.variance[0] < 0.35 * wide.variance[0]
    assert narrow.mean[0] > wide.mean[0] + 1.0


def test_text_is_read_only_where_it_tells() -> None:
    live = LiveRouter(BASE, PRIOR.start(), "0")
    assert (live.demand(CODE).read, live.demand(CODE).plain) == (True, True)
    assert (live.demand(CHAT).read, live.demand(CHAT).plain) == (False, True)
    assert (live.demand(LOOP).read, live.demand(LOOP).plain) == (False, False)
    code = live.demand(CODE)
    again = BASE.demand_of(code.u, code.place, code.ood, "code", plain=True, read=True)
    assert (again.var == live.demand(CODE).var).all()
    assert BASE.demand_of([1.0, 2.0], code.place, 0.1, "code", plain=True, read=True).read is False
