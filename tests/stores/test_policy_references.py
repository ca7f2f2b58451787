"""How a route chooses, as policies say it: objectives, pins, routers and splits, and what is wrong with them."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from app.core.policy import ANY_TASK, Baseline, Explore, Route
from app.stores.policy_model import json_schema
from tests.stores.policy_texts import BASE, all_problems, build

TASKS = (
    "code, math, science, professional, reasoning, extraction, classification, summarisation, translation, rewriting, "
    "writing, tool_call, long_document, question, chat"
)


def policy(route: str) -> str:
    """A policy with models `m` and `l`; the route's settings stand in line 9."""
    return BASE + f"  l: {{provider: p, pricing: free}}\nroutes:\n  auto: {{candidates: [m],\n    {route}}}\n"


def found(route: str, **env: str) -> list[str]:
    return [str(problem).removeprefix("p.yaml:") for problem in all_problems(policy(route), env)]


def route_of(route: str, **env: str) -> Route:
    jsonschema.validate(yaml.safe_load(policy(route)), json_schema())
    return build(policy(route), env).routes["auto"]


def test_nothing_said_is_the_cheapest_adequate_of_the_best_router_there_is() -> None:
    route = route_of("adequacy: 0.8")
    assert (route.objective, route.max_expected_nano, route.success_value_nano) == ("cheapest_adequate", None, None)
    assert (dict(route.pin), route.router, dict(route.split)) == ({}, None, {})


def test_what_is_said_is_read() -> None:
    quality = route_of("objective: quality, max_expected_cost_usd: 0.01")
    assert (quality.objective, quality.max_expected_nano) == ("quality", 10_000_000)
    utility = route_of("objective: utility, success_value_usd: 0.05")
    assert (utility.objective, utility.success_value_nano) == ("utility", 50_000_000)
    assert route_of("objective: cheapest_adequate").objective == "cheapest_adequate"
    assert route_of("pin: l").pin == {ANY_TASK: "l"}
    assert route_of("adequacy: 0.8").explore is None
    assert route_of("explore: {max_usd_per_day: 2}").explore == Explore(0.05, 2 * 10**9)
    assert route_of("explore: {share: 0.2, max_usd_per_day: 0.5}").explore == Explore(0.2, 5 * 10**8)
    careful = route_of("explore: {max_usd_per_day: 2, never_for: [code, math]}").explore
    assert careful == Explore(0.05, 2 * 10**9, frozenset({"code", "math"}))
    assert route_of("baseline: m").baseline == Baseline("m", 0.95)
    assert route_of("baseline: {model: m, sure: 0.9}").baseline == Baseline("m", 0.9)
    assert route_of("adequacy: 0.8").baseline is None
    assert route_of("pin: {code: l, tool_call: m}").pin == {"code": "l", "tool_call": "m"}
    assert route_of("router: heuristic").router == "heuristic"
    assert route_of("split: {learned: 0.9, heuristic: 0.1}").split == {"learned": 0.9, "heuristic": 0.1}
    assert route_of("split: {learned: 1, heuristic: 0}").split == {"learned": 1.0}


def test_shares_and_pins_may_come_from_the_environment() -> None:
    route = route_of("split: {learned: '${A}', heuristic: '${B:-0.25}'}, pin: '${PIN}'", A="0.75", PIN="l")
    assert (route.split, route.pin) == ({"learned": 0.75, "heuristic": 0.25}, {ANY_TASK: "l"})
    assert found("pin: '${PIN}'", PIN="sk-secret") == [
        "9:10: routes.auto.pin: what the variable holds is not the name of a model"
    ]
    assert found("objective: quality, max_expected_cost_usd: '${MAX}'") == [
        "9:48: routes.auto.max_expected_cost_usd: the variable MAX is not set; ${MAX:-...} gives a default"
    ]


@pytest.mark.parametrize(
    ("route", "problems"),
    [
        ("objective: quality", ["9:16: routes.auto.objective: quality needs max_expected_cost_usd beside it"]),
        ("objective: utility", ["9:16: routes.auto.objective: utility needs success_value_usd beside it"]),
        ("objective: best", ["9:16: routes.auto.objective: must be 'cheapest_adequate', 'quality' or 'utility'"]),
        (
            "success_value_usd: 1",
            ["9:5: routes.auto.success_value_usd: only `objective: utility` uses this"],
        ),
        (
            "objective: utility, max_expected_cost_usd: 1",
            [
                "9:16: routes.auto.objective: utility needs success_value_usd beside it",
                "9:25: routes.auto.max_expected_cost_usd: only `objective: quality` uses this",
            ],
        ),
        (
            "objective: quality, max_expected_cost_usd: -1",
            ["9:48: routes.auto.max_expected_cost_usd: must be greater than or equal to 0"],
        ),
        ("pin: mm", ["9:10: routes.auto.pin: there is no model 'mm'; did you mean 'm'?"]),
        ("pin: [m]", ["9:5: routes.auto.pin: must be a model, or a mapping of task types to models"]),
        ("pin: {}", ["9:5: routes.auto.pin: must not be empty"]),
        ("pin: {code: x}", ["9:17: routes.auto.pin.code: there is no model 'x'"]),
        (
            "pin: {cod: m}",
            [f"9:11: routes.auto.pin.cod: there is no task type 'cod' (only {TASKS}); did you mean 'code'?"],
        ),
        ("router: learnt", ["9:13: routes.auto.router: must be 'learned' or 'heuristic'"]),
        ("split: 0.9", ["9:12: routes.auto.split: must be a mapping"]),
        ("split: {}", ["9:5: routes.auto.split: must not be empty"]),
        ("split: {learned: 0.9}", ["9:5: routes.auto.split: the shares must add up to 1, not to 0.9"]),
        ("split: {learned: 90, heuristic: 10}", [
            "9:5: routes.auto.split: the shares must add up to 1, not to 100",
            "9:22: routes.auto.split.learned: must be less than or equal to 1",
            "9:37: routes.auto.split.heuristic: must be less than or equal to 1",
        ]),
        ("split: {learned: most, heuristic: 0.1}", ["9:22: routes.auto.split.learned: must be a number"]),
        (
            "split: {learnt: 0.9, heuristic: 0.1}",
            ["9:13: routes.auto.split.learnt: there is no router 'learnt' (only learned, heuristic); "
             "did you mean 'learned'?"],
        ),
        (
            "split: {learned: 0.9, heuristic: 0.1}, explore: {max_usd_per_day: 1}",
            ["9:44: routes.auto.explore: a `split` compares routers: leave one out"],
        ),
        (
            "explore: {share: 0.9, max_usd_per_day: 1}",
            ["9:22: routes.auto.explore.share: must be less than or equal to 0.5"],
        ),
        (
            "explore: {max_usd_per_day: 1, never_for: [maths]}",
            ["9:47: routes.auto.explore.never_for.0: there is no task type 'maths'; did you mean 'math'?"],
        ),
        ("baseline: x", ["9:15: routes.auto.baseline: there is no model 'x'"]),
        ("baseline: {model: x}", ["9:23: routes.auto.baseline.model: there is no model 'x'"]),
        ("baseline: l", ["9:15: routes.auto.baseline: 'l' is none of this route's candidates"]),
        ("baseline: {model: m, sure: 0.3}", ["9:32: routes.auto.baseline.sure: must be greater than or equal to 0.5"]),
        ("baseline: [m]", ["9:5: routes.auto.baseline: must be one of the candidates, or a mapping with a `model`"]),
        (
            "baseline: m, split: {heuristic: 1}",
            ["9:5: routes.auto.baseline: is left only by what the learned router knows: leave one out"],
        ),
        ("baseline: {sure: 0.9}", ["9:5: routes.auto.baseline.model: is required"]),
        (
            "baseline: m, router: heuristic",
            ["9:5: routes.auto.baseline: is left only by what the learned router knows: leave one out"],
        ),
        (
            "split: {learned: 0.9, heuristic: 0.1}, router: learned",
            ["9:44: routes.auto.router: `split` says whose scores decide: leave one out"],
        ),
    ],
)  # fmt: skip
def test_each_mistake_has_its_line_and_words(route: str, problems: list[str]) -> None:
    assert found(route) == problems


@pytest.mark.parametrize("route", ["pin: {cod: m}", "split: {learnt: 1}", "objective: best", "pin: [m]", "split: {}"])
def test_editors_see_the_same_from_the_schema(route: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(policy(route)), json_schema())


def test_a_pin_to_a_model_that_is_off_is_off_and_said_to_be() -> None:
    text = BASE.replace("models:\n", '  q: {base_url: "${Q_URL}", optional: true}\nmodels:\n  big: {provider: q}\n')
    built = build(text + "routes: {auto: {candidates: [m], pin: {code: big, math: big, chat: m}}}\n")
    assert built.routes["auto"].pin == {"chat": "m"}
    assert "route auto: the pin to big is off, for that model is" in built.warnings
    assert len(built.warnings) == 2


@pytest.mark.parametrize(
    ("route", "warning"),
    [
        ("baseline: m", "baseline without explore: the other candidates are hardly ever tried"),
        ("baseline: u, explore: {max_usd_per_day: 1}", "the baseline has no price: nothing is explored from it"),
        (
            "baseline: u, explore: {max_usd_per_day: 1}, objective: utility, success_value_usd: 1",
            "the baseline has no price: objective utility does not keep to it",
        ),
        ("baseline: m, explore: {max_usd_per_day: 1}", None),
    ],
)
def test_a_baseline_that_nothing_can_be_learned_beside_is_warned_of(route: str, warning: str | None) -> None:
    text = f"{BASE}  u: {{provider: p}}\nroutes:\n  auto: {{candidates: [m, u], {route}}}\n"
    told = [said for said in build(text).warnings if said.startswith("route")]
    assert told == ([] if warning is None else [f"route auto: {warning}"])
