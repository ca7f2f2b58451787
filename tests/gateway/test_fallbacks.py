"""What a call with fallbacks may cost, by what is known of the models that may answer in the asked one's place."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from app.core.errors import Forbidden
from app.core.money import Price, Rates, Usage, cost_nano
from app.core.policy import Candidate, Key, Provider
from app.core.types import ChatRequest
from app.gateway.fallbacks import unpriced_fallbacks_error, with_fallbacks
from tests.gateway.policy_values import model, policy, request, view

AT = Provider("p", "anthropic", "http://127.0.0.1:9/v1")
ELSEWHERE = Provider("q", "anthropic", "http://127.0.0.1:9/v1")


def priced(name: str, given: int, output: int, at: Provider = AT, **tiers: Any) -> Candidate:
    price = Price(Rates(given * 10**6, output * 10**6), **tiers)
    return dataclasses.replace(model(name, at=at), upstream_model=f"claude-{name}", price=price)


ASKED, CHEAP, DEAR = priced("asked", 10, 50), priced("cheap", 5, 25), priced("dear", 20, 40)
VIEW = view(policy([ASKED, CHEAP, DEAR, priced("other", 99, 99, ELSEWHERE)]))


def asked(*names: str, **prompt: str) -> ChatRequest:
    return request(dialect="anthropic", prompt={"fallbacks": names, **prompt})


def test_what_is_held_is_what_the_dearest_takes_and_what_is_charged_is_each_ones_own() -> None:
    found, unpriced = with_fallbacks(asked("claude-cheap", "claude-dear"), ASKED, VIEW, None, 100)
    assert unpriced == ()
    assert found.price is not None
    rates = found.price.rates(100)
    assert (rates.dearest_input, rates.dearest_output) == (20 * 10**6, 50 * 10**6)
    assert cost_nano(found.price, Usage(10, 1)) == 10 * 10 + 50
    turn = Usage(30, 3, by_model=(("claude-asked", Usage(10, 1)), ("claude-dear-20260615", Usage(20, 2))))
    assert cost_nano(found.price, turn) == (10 * 10 + 50) + (20 * 20 + 2 * 40)
    assert found.price.of_model("claude-cheap") == CHEAP.price
    assert found.price.of_model("claude-other") is None


def test_a_model_of_another_provider_of_that_name_says_nothing_of_the_price() -> None:
    found, unpriced = with_fallbacks(asked("claude-other"), ASKED, VIEW, None, 100)
    assert unpriced == ("claude-other",)
    assert found.price is not None
    assert found.price.rates(100).dearest_input == 10 * 10**6
    error = unpriced_fallbacks_error(unpriced)
    assert (error.param, error.headers["x-should-retry"]) == ("fallbacks", "false")
    assert "claude-other" in error.message


def test_the_providers_own_choice_may_be_any_model_that_is_known() -> None:
    found, unpriced = with_fallbacks(asked("default"), CHEAP, VIEW, None, 100)
    assert unpriced == ()
    assert found.price is not None
    rates = found.price.rates(100)
    assert (rates.dearest_input, rates.dearest_output) == (20 * 10**6, 50 * 10**6)


def test_long_prompts_are_held_at_the_rates_of_each_models_tier() -> None:
    tiered = priced("tiered", 1, 1, tiers=((200, Rates(70 * 10**6, 90 * 10**6)),))
    known = view(policy([ASKED, tiered]))
    for tokens, most in ((100, 50), (201, 90)):
        found, _ = with_fallbacks(asked("claude-tiered"), ASKED, known, None, tokens)
        assert found.price is not None
        assert found.price.rates(tokens).dearest_output == most * 10**6
        back, _ = with_fallbacks(asked("claude-asked"), tiered, known, None, tokens)
        assert back.price is not None
        assert back.price.rates(tokens).dearest_output == most * 10**6


def test_a_tier_of_service_is_that_of_all() -> None:
    assert CHEAP.price is not None
    assert DEAR.price is not None
    fast = dataclasses.replace(CHEAP, price=dataclasses.replace(CHEAP.price, service_tiers=(("fast", DEAR.price),)))
    known = view(policy([ASKED, fast, DEAR]))
    found, unpriced = with_fallbacks(asked("claude-cheap", "claude-dear", service_tier="fast"), ASKED, known, None, 1)
    assert unpriced == ("claude-dear",)  # what it costs when fast, nobody has said
    assert found.price is not None
    cheap = found.price.of_model("claude-cheap")
    assert cheap is not None
    assert DEAR.price is not None
    assert cheap.base == DEAR.price.base


def test_nothing_is_to_be_known_where_they_do_not_reach_the_provider() -> None:
    chat = msgspec.structs.replace(asked("claude-other"), dialect="openai_chat")
    assert with_fallbacks(chat, ASKED, VIEW, None, 1) == (ASKED, ())
    unpriced = dataclasses.replace(ASKED, price=None)
    assert with_fallbacks(asked("claude-other"), unpriced, VIEW, None, 1) == (unpriced, ())


@pytest.mark.parametrize("candidate", [ASKED, dataclasses.replace(ASKED, price=None)])
@pytest.mark.parametrize(
    ("named", "allowed", "served"),
    [
        ("claude-cheap", None, True),
        ("claude-cheap", ("asked", "cheap"), True),
        ("claude-cheap", ("asked",), False),
        ("default", None, True),
        ("default", ("asked", "cheap", "dear"), True),
        ("default", ("asked", "cheap", "other"), False),
    ],
)
def test_a_key_may_fall_back_only_on_what_it_may_use(
    candidate: Candidate, named: str, allowed: tuple[str, ...] | None, served: bool
) -> None:
    key = Key("k", "0" * 64, routes=allowed)
    if served:
        assert with_fallbacks(asked(named), candidate, VIEW, key, 1)[1] == ()
        return
    with pytest.raises(Forbidden) as refused:
        with_fallbacks(asked(named), candidate, VIEW, key, 1)
    assert refused.value.param == "fallbacks"
