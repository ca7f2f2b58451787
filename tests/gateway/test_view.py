"""What routers are told of a candidate."""

from __future__ import annotations

from dataclasses import replace

from app.gateway.view import arm_of
from tests.gateway.policy_values import model, policy, view


def test_an_arm_is_what_the_policy_knows_of_the_model() -> None:
    known = replace(
        model("mine", 3_000_000, tier=2, context_tokens=8_000, max_output_tokens=900, hidden_reasoning=True),
        upstream_model="qwen2.5-72b-instruct",
    )
    arm = arm_of(known)
    assert (arm.name, arm.model, arm.family, arm.tier) == ("mine", "qwen2.5-72b-instruct", "qwen", 2)
    assert (arm.input_rate, arm.output_rate, arm.reasoning) == (3_000_000, 3_000_000, True)
    assert (arm.context_tokens, arm.max_output_tokens) == (8_000, 900)
    assert arm_of(model("unpriced", None)).input_rate is None


def test_a_deployment_whose_name_says_nothing_may_be_like_one_that_does() -> None:
    deployment = replace(model("eu-prod"), upstream_model="deployment-7", like="gpt-4o-mini")
    assert (arm_of(deployment).model, arm_of(deployment).family) == ("gpt-4o-mini", "gpt")
    assert arm_of(replace(deployment, like=None)).family == ""


def test_an_arm_is_made_once() -> None:
    of = view(policy([model("m")]))
    assert of.arm(of.policy.models["m"]) is of.arm(of.policy.models["m"])
