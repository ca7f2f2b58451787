"""The learned router, on weights trained from synthetic rows and on the shipped ones."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import routers
from routers.abilities import Ability, AbilityWeights, prior
from routers.artifact import FORMAT, Weights, WeightsError, read, save
from routers.base import Arm, RequestView
from routers.facts import arm_of_name
from routers.features import Features, extract
from routers.learned import LearnedRouter, load
from routers.tasks import TaskType, classify
from tests.conftest import ROOT
from tests.routers import outcomes

SHIPPED = Path(routers.__path__[0]) / "weights"
EASY, HARD = "What is 4 + 17 apples?", outcomes._sum(np.random.default_rng(3), True)
ARMS = [arm_of_name(name) for name in outcomes.MODELS]


@pytest.fixture(scope="module")
def router() -> LearnedRouter:
    return LearnedRouter(outcomes.weights())


def ask(prompt: str, **fields: Any) -> RequestView:
    return RequestView(prompt, first_user=prompt, **fields)


def p(router: LearnedRouter, prompt: str, arms: list[Arm] = ARMS) -> list[float]:
    return [score.p_success for score in router.score(extract(ask(prompt)), arms)]


def test_no_arms_no_scores(router: LearnedRouter) -> None:
    assert router.score(extract(ask("hello")), []) == []


def test_scores_are_probabilities_in_the_order_of_the_arms(router: LearnedRouter) -> None:
    scores = router.score(extract(ask(EASY)), ARMS)
    assert len(scores) == len(ARMS)
    assert all(0.0 < s.p_success < 1.0 and 0.0 <= s.confidence <= 1.0 and s.output_tokens >= 1.0 for s in scores)
    backwards = router.score(extract(ask(EASY)), ARMS[::-1])
    assert backwards[::-1] == pytest.approx(scores)


def test_what_was_learned_of_questions_and_models_is_used(router: LearnedRouter) -> None:
    easy, hard = p(router, EASY), p(router, HARD)
    assert all(e > h + 0.1 for e, h in zip(easy, hard, strict=True))
    assert easy[0] > easy[3]
    assert hard[0] > hard[3]


def test_probabilities_are_calibrated_on_new_questions(router: LearnedRouter) -> None:
    fresh = outcomes.rows(400, seed=7)
    expected = np.array([p(router, row.prompt) for row in fresh])
    actual = np.array([[row.outcomes[model].score for model in outcomes.MODELS] for row in fresh])
    assert abs(expected.mean() - actual.mean()) < 0.06
    assert np.abs(expected.mean(axis=0) - actual.mean(axis=0)).max() < 0.12


def test_an_unfamiliar_text_is_told_from_a_familiar_one(router: LearnedRouter) -> None:
    strange = "Vergleiche bitte zwei Gedichte der Romantik und deute deren wiederkehrende Bilder ausführlich"
    near, far = router.item(extract(ask(EASY))), router.item(extract(ask(strange)))
    assert near.ood < far.ood == 1.0
    assert (near.var <= far.var).all()
    by_near, by_far = (router.score(extract(ask(text)), ARMS)[0].confidence for text in (EASY, strange))
    assert by_near > by_far


def test_a_model_never_seen_is_scored_and_less_sure(router: LearnedRouter) -> None:
    new = arm_of_name("falcon-180b-chat")
    known, unknown = router.score(extract(ask(EASY)), [ARMS[0], new])
    assert unknown.confidence < known.confidence


def test_given_abilities_go_before_what_the_weights_know() -> None:
    arm = ARMS[3]
    told = router_with = LearnedRouter(
        outcomes.weights(), {arm.name: Ability(np.array([4.0, 1, 0, 0, 0]), np.eye(5) / 99)}
    )
    assert router_with.score(extract(ask(EASY)), [arm])[0].p_success > 0.9
    assert told.ability(arm).mean[0] == 4.0


def test_odd_requests_are_scored(router: LearnedRouter) -> None:
    for text in ("", " ", "\ud800", "\0" * 5000, "好" * 5000, "a" * 200_000, "😀 " * 900):
        score = router.score(extract(ask(text)), ARMS[:1])[0]
        assert 0.0 < score.p_success < 1.0
        assert np.isfinite(score.confidence)


def test_weights_survive_the_file(tmp_path: Path, router: LearnedRouter) -> None:
    save(outcomes.weights(), tmp_path)
    again = load(tmp_path)
    assert again.version == router.version
    assert p(again, HARD) == p(router, HARD)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read(tmp_path / "nothing.npz")
    (tmp_path / "router.npz").write_bytes(b"PK nothing")
    with pytest.raises(WeightsError, match=r"router\.npz"):
        read(tmp_path)
    arrays: dict[str, Any] = dict(outcomes.weights().arrays)
    np.savez(tmp_path / "router.npz", format=np.int64(99), **arrays)
    with pytest.raises(WeightsError, match="format is 99"):
        read(tmp_path)
    np.savez(tmp_path / "router.npz", format=np.int64(FORMAT), version=np.str_("0"), **arrays)
    with pytest.raises(WeightsError, match="does not match"):
        read(tmp_path)


def test_weights_for_other_features_are_refused() -> None:
    arrays: dict[str, Any] = dict(outcomes.weights().arrays)
    arrays["item/surface"] = arrays["item/surface"][::-1]
    with pytest.raises(ValueError, match="train again"):
        LearnedRouter(Weights(arrays))


def test_the_shipped_weights_load_fast() -> None:
    """20 ms of CPU are usual; the best of a few loads says what the machine's other work does to one of them."""
    spent = []
    for _ in range(5):
        start = time.process_time()
        router = load(SHIPPED)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.1
    assert router.name == "learned"
    assert len(router.version) == 12


SERVED_WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from app.learner import worker
from app.main import load_routers
from pathlib import Path
from routers.base import RequestView
from routers.facts import arm_of_name
from routers.features import extract
from routers.live import LiveRouter, prior_of

learned = load_routers(Path(sys.argv[1]))["learned"]
features = extract(RequestView("Write a python function that merges two lists.", "Write one."))
for router in (learned, LiveRouter(learned, prior_of(learned).start(), "1")):
    (score,) = router.score(features, [arm_of_name("gpt-4o")])
    print(f"{score.p_success:.3f}")
"""


def test_to_serve_and_to_learn_nothing_of_training_is_needed() -> None:
    """As `make run` installs it: scikit-learn and what comes with it are not there, nor torch."""
    absent = "sklearn,scipy,joblib,threadpoolctl,matplotlib,pandas,torch,onnxruntime"
    command = [sys.executable, "-c", SERVED_WITHOUT, str(SHIPPED), absent]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_weights, by_snapshot = done.stdout.split()
    assert 0.5 < float(by_weights) < 1.0
    assert by_snapshot == by_weights


def test_the_shipped_router_knows_strong_from_weak() -> None:
    router = load(SHIPPED)
    question = "A 2 kg block slides down a frictionless incline of 30 degrees. Derive its acceleration."
    strong, weak = p(router, question, [arm_of_name("gpt-4o-2024-08-06"), arm_of_name("mistral-7b-instruct-v0.1")])
    assert strong > weak + 0.2


@pytest.mark.parametrize(
    ("prompt", "type_"),
    [
        ("What is the derivative of x^2 sin x?", TaskType.MATH),
        ("Write a python function that merges two sorted lists.", TaskType.CODE),
        ("Translate to German: the cat sat on the mat.", TaskType.TRANSLATION),
        ("Who wrote the novel about a whale?", TaskType.QUESTION),
        ("Hello!", TaskType.CHAT),
    ],
)
def test_task_types_are_told(prompt: str, type_: TaskType) -> None:
    guess = load(SHIPPED).task(extract(ask(prompt)))
    assert guess.type is type_
    assert 0.5 <= guess.confidence <= 1.0


def test_without_topics_in_training_rules_tell_the_task(router: LearnedRouter) -> None:
    features = extract(ask("Write a python function that merges two sorted lists."))
    assert router.task(features) == classify(features)


@pytest.fixture(scope="module")
def shipped() -> LearnedRouter:
    return load(SHIPPED)


def asked(text: str, **fields: Any) -> Features:
    return extract(RequestView(last_user=text, first_user=text, **fields))


SHIPPED_ARMS = tuple(
    Arm(name, tier, model=name) for name, tier in (("gpt-4o-mini", 2), ("gpt-4o", 4), ("new-model-70b", 3))
)
QUESTION = "Which organelle of a eukaryotic cell makes most of its adenosine triphosphate?"


def surest(router: LearnedRouter, features: Features) -> float:
    return max(score.confidence for score in router.score(features, SHIPPED_ARMS))


def test_it_is_sure_only_of_kinds_of_work_that_outcomes_are_of(shipped: LearnedRouter) -> None:
    assert surest(shipped, asked(QUESTION)) > 0.7
    for text in ("Hi, how are you today?", "Translate to French: where is the station?", "Write a poem about leaves."):
        assert surest(shipped, asked(text)) < 0.7


@pytest.mark.parametrize(
    "circumstances",
    [{"system": "Do as told. " * 400}, {"history_chars": 9_000, "n_turns": 9}, {"n_images": 1}, {"in_tool_loop": True}],
)
def test_nor_in_circumstances_none_was_recorded_in(shipped: LearnedRouter, circumstances: dict[str, Any]) -> None:
    assert surest(shipped, asked(QUESTION, **circumstances)) < 0.7


def test_slopes_are_believed_in_part_but_on_the_traffic_of_training() -> None:
    made = outcomes.weights()
    arm = Arm("cheap", 2, model="gpt-4o-mini")
    abroad, home = LearnedRouter(made).ability(arm), LearnedRouter(made, trust=1.0).ability(arm)
    assert np.isclose(abroad.mean[0], home.mean[0])
    assert np.allclose(home.mean, prior(arm, AbilityWeights.of(made.part("ability"))).mean)
    assert not np.allclose(abroad.mean[1:], home.mean[1:])


def test_the_same_arms_in_another_tuple_score_the_same(shipped: LearnedRouter) -> None:
    features = asked(QUESTION)
    first = shipped.score(features, SHIPPED_ARMS)
    assert shipped.score(features, list(reversed(SHIPPED_ARMS))) == list(reversed(first))
    assert shipped.score(features, SHIPPED_ARMS) == first
