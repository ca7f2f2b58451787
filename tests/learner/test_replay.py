"""Replaying recorded decisions (synthetic traffic, decided by the real code): the same policy decides the same again,
another one is estimated and covered, and what could never be drawn is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.commands.replay import by_heuristic
from app.core.policy import HEURISTIC, LEARNED, Baseline, Explore, Key
from app.core.types import Placement
from app.gateway.choose import IN_QUARANTINE
from app.gateway.decide import decide
from app.gateway.target import HELD, followed_by, resolve
from app.gateway.view import View
from app.learner.rehearsal import Rehearsal
from app.learner.replay import Replay, replay
from app.learner.replay_calls import UNAVAILABLE, recorded, repriced_usd
from app.settings import SHIPPED_WEIGHTS
from app.stores.prices import Catalogue
from routers.base import Arm
from routers.features import Features
from routers.heuristic import HeuristicRouter
from routers.learned import LearnedRouter, load
from routers.live import Drawn
from routers.probes import PROBE_SHARE
from tests.gateway import test_explore as explore
from tests.gateway.policy_values import FixedRouter, model, policy, provider, request
from tests.learner.replayed import CHEAP, DEAR, SPLIT, ByLength, Traffic, alone, decided, on, record_of, traffic

SEED = 5


@pytest.fixture(scope="module")
def seen() -> Traffic:
    return traffic(on(), 3_000, np.random.default_rng(SEED))


def replayed(seen: Traffic, view: View) -> Replay:
    prices = {name: candidate.price for name, candidate in view.policy.models.items()}
    return replay(recorded(seen.records, seen.words), Rehearsal(view, None), prices)


def test_the_same_policy_decides_the_same_again(seen: Traffic) -> None:
    rehearsal = Rehearsal(on(), None)
    for row in recorded(seen.records, seen.words):
        would = rehearsal.again(row)
        assert would is not None
        assert would.shares[row.chosen] == pytest.approx(row.propensity)
        assert row.possible == set(would.shares)
        told = {c["model"]: c for c in row.decision["candidates"]}
        assert would.cost_usd == pytest.approx({name: c["expected_cost_usd"] for name, c in told.items()})


def test_another_router_is_estimated_and_the_truth_is_covered(seen: Traffic) -> None:
    """Of these requests the learned router sends those below 300 characters to `cheap`."""
    found = replayed(seen, on(alone(LEARNED))).all
    chars = np.array([r["decision"]["asked"]["features"][1] for r in seen.records])
    truth = {
        "cost": np.where(chars < 300, seen.cost["cheap"], seen.cost["dear"]).mean(),
        "success": np.where(chars < 300, seen.success["cheap"], seen.success["dear"]).mean(),
    }
    for name, one in (("cost", found.cost), ("success", found.success)):
        assert one.refusal is None
        assert one.unsupported == 0.0
        for way in (one.ips, one.snips, one.dr):
            assert way.low <= truth[name] <= way.high
        assert abs(one.change.value - (one.dr.value - one.recorded.value)) < 1e-9
    assert found.cost.change.high < 0.0  # it would be cheaper,
    assert found.success.change.high < 0.0  # and worse
    assert found.models["cheap"][1] > found.models["cheap"][0]


def test_the_same_split_changes_nothing_that_is_sure(seen: Traffic) -> None:
    found = replayed(seen, on())
    for one in (found.all.cost, found.all.success):
        assert one.change.low <= 0.0 <= one.change.high
        assert one.ess == pytest.approx(one.units)
    assert sum(group.decisions for group in found.by_task_type.values()) == found.all.decisions == 3_000


def test_a_choice_that_could_never_be_drawn_is_refused_and_named(seen: Traffic) -> None:
    found = replayed(seen, on(alone(LEARNED), learned=ByLength(LEARNED, 10)))  # all to `dear`, the short ones too
    assert found.all.cost.refusal is not None
    assert "never could have" in found.all.cost.refusal
    kinds = {(model_, round(share, 2)) for _, model_, share in found.missing}
    assert all(name == "dear" for name, _ in kinds)
    short = np.mean([r["decision"]["asked"]["features"][1] < 100 for r in seen.records])
    assert found.all.cost.unsupported == pytest.approx(short)
    new = model("newcomer", 10**8, tier=2)
    cheaper = replace(alone(HEURISTIC), candidates=("newcomer", "cheap", "dear"))
    assert replayed(seen, on(cheaper, models=(CHEAP, DEAR, new))).all.cost.refusal is not None


@pytest.mark.parametrize(("adequacy", "model_"), [(0.93, "mid"), (0.985, "dear"), (0.5, "cheap")])
def test_what_exploring_drew_tells_of_every_other_choice(adequacy: float, model_: str) -> None:
    """Thompson sampling draws among three for half of the calls (`tests/gateway/test_explore.py`). Of nine intervals at
    95 % one may miss, but not by half its width."""
    rules = replace(explore.RULES, explore=Explore(0.5, 10**15))
    rng, view = np.random.default_rng(SEED), explore.view_on(rules)
    records, truth = [], 0.0
    for at in range(3_000):
        decision = explore.call(f"ci:{at}", rules, on=view)
        cost = {name: usd * float(rng.uniform(1, 2)) for name, usd in (("cheap", 0.001), ("mid", 0.01), ("dear", 0.1))}
        records.append(record_of(view, decision, at, cost[decision.chosen.name]))
        truth += cost[model_] / 3_000
    rows = recorded(records, [])
    assert all(row.possible == {"cheap", "mid", "dear"} for row in rows)
    other = explore.view_on(replace(rules, adequacy=adequacy, explore=None))
    found = replay(rows, Rehearsal(other, None), {}).all
    assert found.models[model_][1] == pytest.approx(1.0)
    assert (found.cost.unsupported, found.cost.refusal) == (0.0, None)
    for way in (found.cost.ips, found.cost.snips, found.cost.dr):
        assert abs(way.value - truth) < 0.75 * (way.high - way.low)


def test_a_model_in_quarantine_is_passed_over_but_for_probes(seen: Traffic) -> None:
    router = ByLength(LEARNED, 300)
    router.down = {kind: {"cheap": (0.9, 0.5)} for kind in {row.task_type for row in recorded(seen.records, [])}}  # type: ignore[attr-defined]
    would = Rehearsal(on(alone(LEARNED), learned=router), None).again(recorded(seen.records[:1], [])[0])
    assert would is not None
    chars = seen.records[0]["decision"]["asked"]["features"][1]
    expected = {"cheap": PROBE_SHARE, "dear": 1.0 - PROBE_SHARE} if chars < 300 else {"dear": 1.0}
    assert would.shares == pytest.approx(expected)
    spared = dict(seen.records[0]["decision"], propensity=0.95, share=None, explored=None, others=[], chosen="dear")
    spared["candidates"] = [{"model": "cheap", "verdict": IN_QUARANTINE}, {"model": "dear", "verdict": "chosen"}]
    (row,) = recorded([{**seen.records[0], "decision": spared, "model": "dear"}], [])
    assert row.possible == {"cheap", "dear"}


@pytest.mark.parametrize(("spread", "stays"), [(0.1, False), (1.0, True)], ids=["sure", "not sure"])
def test_a_route_with_a_baseline_is_replayed_as_it_would_be_served(seen: Traffic, spread: float, stays: bool) -> None:
    """Below 300 characters as much is expected of `cheap`; how sure that is decides."""

    class Believing(ByLength):
        def drawn(self, features: Features, arms: Sequence[Arm]) -> Drawn:
            p = np.array([score.p_success for score in self.score(features, arms)])
            return Drawn(np.log(p / (1.0 - p)), np.full(len(arms), spread**2))

        def heard(self, arms: Sequence[Arm]) -> list[bool]:
            return [True] * len(arms)

    rules = replace(alone(LEARNED), baseline=Baseline("dear"))
    rehearsal, went = Rehearsal(on(rules, learned=Believing(LEARNED, 300)), None), set()
    for row in recorded(seen.records[:200], []):
        would = rehearsal.again(row)
        assert would is not None
        short = row.decision["asked"]["features"][1] < 300
        went.add((short, *would.shares))
        assert set(would.shares.values()) == {1.0}
    assert went == {(True, "dear" if stays else "cheap"), (False, "dear")}


def test_what_a_baseline_keeps_a_router_from_could_not_have_been_chosen() -> None:
    """In a split each choice of another router is one that might have been drawn, but what was not left for is none."""

    class Doubtful(FixedRouter):
        def drawn(self, features: Features, arms: Sequence[Arm]) -> Drawn:
            return Drawn(np.full(len(arms), 2.4), np.full(len(arms), 1.0))

        def heard(self, arms: Sequence[Arm]) -> list[bool]:
            return [True] * len(arms)

    learned = Doubtful({"cheap": (0.5, 100.0), "mid": (0.9, 100.0), "dear": (0.95, 100.0)}, LEARNED)
    heuristic = FixedRouter({"cheap": (0.9, 100.0), "mid": (0.9, 100.0), "dear": (0.95, 100.0)})
    rules = replace(SPLIT, candidates=("cheap", "mid", "dear"), baseline=Baseline("dear"))
    models = policy([CHEAP, model("mid", 2 * 10**9), DEAR], [rules])
    view, chosen = View(models, {LEARNED: learned, HEURISTIC: heuristic}, Catalogue(b"{}")), set()
    for n in range(20):
        decision = decided(view, request(), f"u{n}")
        chosen.add(decision.chosen.name)
        (row,) = recorded([record_of(view, decision, n)], [])
        assert row.possible == {"cheap", "dear"}
    assert chosen == {"cheap", "dear"}


def test_the_heuristic_alone_keeps_to_no_baseline(seen: Traffic) -> None:
    """Beside a router that is not loaded a live route would; here the heuristic is what was asked for."""
    rules, rows = replace(alone(LEARNED), baseline=Baseline("dear")), recorded(seen.records[:200], [])
    row = next(row for row in rows if row.decision["asked"]["features"][1] < 100)
    view = on(rules)
    heuristic = {HEURISTIC: view.routers[HEURISTIC]}
    kept = Rehearsal(View(view.policy, heuristic, Catalogue(b"{}")), None).again(row)
    without = Rehearsal(View(by_heuristic(view.policy), heuristic, Catalogue(b"{}")), None).again(row)
    plain = Rehearsal(on(alone(HEURISTIC)), None).again(row)
    assert kept is not None
    assert kept.shares == {"dear": 1.0}
    assert without == plain
    assert plain is not None
    assert plain.shares == {"cheap": 1.0}


def test_a_model_that_was_left_out_at_all_its_providers_cannot_be_asked_again(seen: Traffic) -> None:
    copied = replace(CHEAP, copies=tuple(replace(CHEAP, provider=provider(p), is_copy=True) for p in ("x", "y")))
    view = on(alone(HEURISTIC), models=(copied, DEAR))
    short = next(r for r in seen.records if r["decision"]["asked"]["features"][1] < 100)
    told = dict(short["decision"], share=None, explored=None, others=[], chosen="dear", propensity=1.0)
    for verdict, models in (("passed over", {"cheap"}), (UNAVAILABLE, {"dear"})):
        told["candidates"] = [{"model": "cheap", "verdict": verdict}, {"model": "dear", "verdict": "chosen"}]
        (row,) = recorded([{**short, "decision": told, "model": "dear"}], [])
        would = Rehearsal(view, None).again(row)
        assert would is not None
        assert set(would.shares) == models


def test_a_price_cut_in_the_policy_is_a_cost_cut(seen: Traffic) -> None:
    cut = replace(CHEAP, price=model("cheap", 10**8).price)
    found = replayed(seen, on(models=(cut, DEAR))).all
    chosen = np.array([r["model"] for r in seen.records])
    now = np.where(chosen == "cheap", seen.cost["cheap"] / 10, seen.cost["dear"]).mean()
    assert found.cost.recorded.value == pytest.approx(now, rel=1e-6)


def test_little_traffic_is_too_little() -> None:
    few = traffic(on(), 40, np.random.default_rng(SEED))
    found = replayed(few, on(alone(LEARNED)))
    assert "too little data" in (found.all.cost.refusal or "")
    assert found.all.expected_success[1] > 0  # what the router itself expects is told all the same


def test_what_cannot_be_decided_again_is_counted(seen: Traffic) -> None:
    other = json.loads(json.dumps(seen.records[:3]))
    other[0]["decision"]["asked"]["features"][0] = 0  # another version's
    other[1]["requested_model"] = "gone"
    found = replay(recorded(other, []), Rehearsal(on(), None), {})
    assert found.left_out == {"recorded by another version": 1, "not served: model_not_found": 1}
    assert found.all.decisions == 1
    json.dumps(found.as_json(), allow_nan=False)


def test_a_key_that_may_not_use_the_route_is_not_served(seen: Traffic) -> None:
    key = Key("ci", "0" * 64, routes=("other",))
    would = Rehearsal(on(keys={key.sha256: key}), None).again(recorded(seen.records[:1], [])[0])
    assert would is not None
    assert (would.shares, would.refused) == ({}, "forbidden")


def test_calls_that_go_on_in_a_tool_loop_belong_to_the_decision_before_them() -> None:
    view = on(alone(LEARNED))
    decision = decided(view, request(prompt={"last_user": "hi"}), "ci:t")
    first = record_of(view, decision, 1, 0.5, task_id="t")
    held = record_of(view, decision, 2, 0.25, task_id="t")
    held["decision"] = {**held["decision"], "reason": HELD, "objective": None}
    by_hand = record_of(view, decision, 3, 9.0, task_id="t")
    by_hand["decision"] = {**by_hand["decision"], "route": None}
    denied = record_of(view, decision, 4, 0.0, task_id="t", model=None)
    (row,) = recorded([held, first, by_hand, denied], [])
    assert (row.record["request_id"], row.cost_usd, len(row.calls)) == (first["request_id"], 0.75, 2)
    cheaper = {"cheap": model("cheap", 10**8).price, "dear": DEAR.price}
    assert repriced_usd(row, cheaper) == pytest.approx(0.75 - 2 * 150 * 0.9e-6)
    assert repriced_usd(row, {"cheap": None}) is None


PROMPTS = (
    "Write a Python function that merges two sorted lists. Include type hints.",
    "Solve for x: 3x^2 - 5x + 2 = 0.",
    "Which particle carries the electromagnetic force?\nA. gluon\nB. photon\nC. neutrino\nD. electron",
    "Translate into French: the house by the lake was sold.",
    "Hi! How are you?",
)


def test_the_learned_router_decides_again_without_the_text() -> None:
    """The shipped weights, with what was recorded of the text in the text's place: to the digits that are recorded."""
    weights = load(SHIPPED_WEIGHTS)
    models = [model("cheap", 10**8), model("gpt-4o", 10**10, tier=4)]
    route = replace(alone(LEARNED), candidates=("cheap", "gpt-4o"), adequacy=0.6)
    read = 0
    for at, text in enumerate(PROMPTS):
        before = fresh(weights, models, route)
        decision = decided(before, request(prompt={"last_user": text, "first_user": text, "tools": at % 2}), f"ci:{at}")
        record = record_of(before, decision, at)
        assert text[:12] not in json.dumps(record)
        read += "u" in record["decision"]["item"]
        again = Rehearsal(fresh(load(SHIPPED_WEIGHTS), models, route), load(SHIPPED_WEIGHTS))
        would = again.again(recorded([record], [])[0])
        assert would is not None
        assert would.shares == {decision.chosen.name: 1.0}
        scores = {one.candidate.name: one.score.p_success for one in decision.considered}
        assert would.p_success == pytest.approx(scores, abs=2e-3)
    assert read


def test_what_a_client_said_of_who_may_serve_it_is_decided_again() -> None:
    view = on(alone(HEURISTIC))
    asked = request(prompt={"last_user": "Hi", "placement": Placement(max_input_rate=1)})
    asked.others = ("free",)
    free = model("free", 0)
    among = on(alone(HEURISTIC), models=(CHEAP, DEAR, free))
    target = followed_by(resolve(among, asked.model), among, asked.others, None)
    decision = decide(
        asked, target, among, unit="u",
        input_tokens=lambda _: 100, available=lambda _: True, capped=lambda _: False,
    )  # fmt: skip
    assert decision.chosen is free
    (row,) = recorded([record_of(among, decision, 1)], [])
    would = Rehearsal(among, None).again(row)
    assert would is not None
    assert would.shares == {"free": 1.0}
    gone = Rehearsal(view, None).again(row)
    assert gone is not None
    assert gone.refused == "model_not_found"


def fresh(weights: LearnedRouter, models: list[Any], route: Any) -> View:
    return View(policy(models, [route]), {LEARNED: weights, HEURISTIC: HeuristicRouter()}, Catalogue(b"{}"))
