"""The plan of an attempt: what it holds covers what it may spend, and the clamp never lets it pass a cap."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.core.book import Book
from app.core.budget import Claim, Granted, Reserve
from app.core.money import MAX_NANO, Price, Rates, tokens_cost
from app.core.policy import Candidate, Capabilities, ModelBudget, Provider
from app.core.types import ChatRequest
from app.gateway.fees import UNSEEN_USES
from app.gateway.limits import ClientCaps, Limits, limits_for
from app.gateway.plan import BLIND_TOKENS, SHARE, STEP_TOKENS, Mode, Plan, clamps, folded, plan_attempt, token_clamp
from tests.gateway.policy_values import model, policy, price, provider, request

FREE_RIDE = Limits((), None, "request")


def capped(nano: int, scope: str = "request") -> Limits:
    """A cap that is the call's own."""
    return Limits((), nano, scope)


def clamp_tokens(plan: Plan, asked: ChatRequest, limits: Limits, grant: Granted) -> int | None:
    """The output limit alone."""
    return clamps(plan, asked, limits, grant)[0]


def test_a_small_whole_reply_is_plain_and_holds_its_worst_case() -> None:
    plan = plan_attempt(request(stream=False, output_limit=50), model("m"), capped(1000), 100)
    assert (plan.mode, plan.strict, plan.share) == (Mode.PLAIN, True, 1)
    assert (plan.input_nano, plan.need_nano, plan.want_nano, plan.risk_nano) == (100, 150, 150, 150)


def test_a_whole_reply_that_a_cap_would_clamp_is_folded() -> None:
    for asked in (request(stream=False, output_limit=5000), request(stream=False)):
        plan = plan_attempt(asked, model("m"), capped(1000), 100)
        assert (plan.mode, plan.strict, plan.share) == (Mode.FOLD, False, SHARE)
        assert (plan.need_nano, plan.want_nano, plan.risk_nano) == (101, 1000, 100 + STEP_TOKENS)


def test_without_any_limit_or_price_a_whole_reply_is_plain() -> None:
    for candidate in (model("m"), model("free", 0), model("unpriced", None)):
        assert plan_attempt(request(stream=False), candidate, FREE_RIDE, 100).mode is Mode.PLAIN
    plan = plan_attempt(request(stream=False), model("free", 0), capped(0), 100)
    assert (plan.mode, plan.need_nano, plan.want_nano) == (Mode.PLAIN, 0, 0)


def test_the_model_bounds_what_the_client_does_not() -> None:
    candidate = model("m", max_output_tokens=40)
    plan = plan_attempt(request(stream=False, choices=3), candidate, capped(1000), 100)
    assert (plan.mode, plan.worst_tokens, plan.need_nano) == (Mode.PLAIN, 120, 220)
    assert plan_attempt(request(output_limit=9), candidate, FREE_RIDE, 1).worst_tokens == 9


@pytest.mark.parametrize(
    "candidate", [model("m", hidden_reasoning=True), model("m", at=provider(bills_after_cancel=True))]
)
def test_what_cannot_be_seen_or_cancelled_is_held_whole(candidate: Candidate) -> None:
    plan = plan_attempt(request(output_limit=5000), candidate, FREE_RIDE, 100)
    assert (plan.mode, plan.strict, plan.blind, plan.share) == (Mode.STREAM, True, True, 1)
    assert plan.want_nano == plan.risk_nano == 5100
    assert folded(plan).strict
    assert folded(plan).risk_nano == 5100
    unknown = plan_attempt(request(choices=2), candidate, FREE_RIDE, 100)
    assert unknown.want_nano == 100 + 2 * BLIND_TOKENS


def test_a_plain_plan_folds_into_a_metered_one() -> None:
    plan = plan_attempt(request(stream=False, output_limit=5000, choices=2), model("m"), FREE_RIDE, 100)
    fold = folded(plan)
    assert (fold.mode, fold.strict, fold.need_nano, fold.want_nano) == (Mode.FOLD, False, 102, 10_100)
    assert fold.risk_nano == 100 + STEP_TOKENS


@pytest.mark.parametrize(
    ("dialect", "fee", "limits", "mode", "open_nano"),
    [
        ("anthropic", 70, capped(10**6), Mode.FOLD, 8_070),
        ("openai_responses", 70, capped(10**6), Mode.FOLD, 8_070),
        ("anthropic", 70, FREE_RIDE, Mode.PLAIN, 8_070),
        ("anthropic", 0, capped(10**6), Mode.PLAIN, 0),  # it costs nothing but tokens
        ("gemini", 70, capped(10**6), Mode.PLAIN, 0),  # a stream would show it no sooner
    ],
)
def test_a_reply_with_tools_that_nobody_counts_beforehand_is_folded_under_a_cap(
    dialect: str, fee: int, limits: Limits, mode: Mode, open_nano: int
) -> None:
    at = Provider("p", dialect, "http://127.0.0.1:9/v1")
    candidate = dataclasses.replace(
        model("m", at=at), price=Price(Rates(10**6, 10**6), tool_fees=(("web_search", fee),))
    )
    asked = request(stream=False, output_limit=50, dialect=dialect, prompt={"server_tools": ("web_search",)})
    plan = plan_attempt(asked, candidate, limits, 100)
    seen_nano = 0 if plan.uses is None else plan.uses.dearest_nano
    assert (plan.mode, seen_nano, plan.unbounded) == (mode, open_nano, open_nano > 0)
    # What shows at the end only is set aside before the call.
    unseen = UNSEEN_USES * fee if dialect == "gemini" else 0
    assert plan.input_nano == 100 + unseen
    streamed = plan_attempt(msgspec.structs.replace(asked, stream=True), candidate, limits, 100)
    assert (streamed.strict, streamed.unseen_nano) == (dialect == "gemini", unseen)
    free = dataclasses.replace(candidate, price=Price(Rates(0, 0), tool_fees=(("web_search", fee),)))
    assert plan_attempt(asked, free, limits, 100).step_nano == (fee if open_nano else 0)


def test_no_amount_is_too_large_for_the_ledger() -> None:
    huge = request(stream=False, output_limit=2**31 - 1, choices=128)
    plan = plan_attempt(huge, model("m", 10**12), FREE_RIDE, 10**6)
    assert plan.need_nano == plan.want_nano == MAX_NANO


def test_a_long_prompt_is_planned_at_the_rates_of_its_tier() -> None:
    tiered = Price(Rates(10**6, 10**6), tiers=((1000, Rates(2 * 10**6, 3 * 10**6)),))
    candidate = Candidate("m", provider(), "m", 1, tiered, ModelBudget(None))
    assert plan_attempt(request(output_limit=10), candidate, FREE_RIDE, 1001).want_nano == 2002 + 30


def test_the_clamp_is_what_the_tightest_cap_affords() -> None:
    asked = request()
    plan = plan_attempt(asked, model("m"), capped(1000), 100)
    assert clamp_tokens(plan, asked, capped(1000), Granted(1000, None, None)) == 900
    assert clamp_tokens(plan, asked, capped(1000), Granted(200, 300, "task:a:b")) == 400
    assert clamp_tokens(plan, asked, FREE_RIDE, Granted(200, 300, "task:a:b")) == 400
    assert clamp_tokens(plan, asked, FREE_RIDE, Granted(200, -50, "task:a:b")) == 100
    assert clamp_tokens(plan, asked, FREE_RIDE, Granted(200, None, None)) is None
    blind = plan_attempt(asked, model("m", hidden_reasoning=True), FREE_RIDE, 100)
    assert clamp_tokens(blind, asked, FREE_RIDE, Granted(200, 300, "task:a:b")) == 100


def test_a_tighter_limit_of_the_clients_or_the_models_needs_no_clamp() -> None:
    for asked, candidate in ((request(output_limit=900), model("m")), (request(), model("m", max_output_tokens=900))):
        plan = plan_attempt(asked, candidate, capped(1000), 100)
        assert clamp_tokens(plan, asked, capped(1000), Granted(1000, None, None)) is None
        assert clamp_tokens(plan, asked, capped(999), Granted(999, None, None)) == 899
    free = plan_attempt(request(), model("m", 0), capped(10), 100)
    assert clamp_tokens(free, request(), capped(10), Granted(0, 0, "x")) is None


rates = st.builds(Rates, st.integers(0, 10**11), st.integers(0, 10**11), reasoning=st.none() | st.integers(0, 10**11))
caps = st.none() | st.integers(0, 10**10)


@given(
    rates,
    st.integers(0, 200_000),
    st.integers(1, 9),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 10**6),
    st.booleans(),
    st.booleans(),
    caps,
    caps,
    caps,
)
def test_input_and_clamped_output_never_pass_a_cap(
    given_rates: Rates,
    input_tokens: int,
    choices: int,
    asked_limit: int | None,
    model_limit: int | None,
    stream: bool,
    hidden: bool,
    call_cap: int | None,
    scope_limit: int | None,
    other_hold: int | None,
) -> None:
    """For any prices, caps and inputs: input cost + clamp x choices x dearest output rate <= every cap."""
    can = Capabilities(max_output_tokens=model_limit, hidden_reasoning=hidden)
    candidate = Candidate("m", provider(), "m", 1, Price(given_rates), ModelBudget(None), can)
    asked = request(stream=stream, output_limit=asked_limit, choices=choices)
    limits = Limits((Claim("s", scope_limit),), call_cap, "request")
    plan = plan_attempt(asked, candidate, limits, input_tokens)
    assert 0 <= plan.need_nano <= plan.want_nano <= MAX_NANO
    book = Book()
    book.apply(Reserve("other", "me", (Claim("s"),), 0, other_hold or 0, 0))
    for attempt in (plan, folded(plan)):
        assume(call_cap is None or attempt.need_nano <= call_cap)
        op = Reserve(attempt.mode.value, "me", limits.claims, attempt.need_nano, attempt.want_nano, 0, attempt.share)
        grant = book.apply(op)
        if not isinstance(grant, Granted):
            continue
        clamp = clamp_tokens(attempt, asked, limits, grant)
        if clamp is None:
            bound = attempt.worst_tokens
        else:
            bound = clamp * choices
            assert clamp >= 1
            assert attempt.worst_tokens is None or bound <= attempt.worst_tokens
        if bound is not None and attempt.output_rate:
            cost = attempt.input_nano + tokens_cost(bound, given_rates.dearest_output)
            assert call_cap is None or cost <= call_cap
            assert scope_limit is None or cost <= scope_limit - (other_hold or 0)
        elif attempt.output_rate:
            assert call_cap is None
            assert scope_limit is None
        return


@given(st.integers(0, 10**6), st.integers(0, 10**4), st.booleans(), st.none() | st.integers(1, 10**4))
def test_a_plan_needs_no_more_than_it_wants_and_risks_no_more_than_it_holds(
    cap: int, input_tokens: int, stream: bool, limit: int | None
) -> None:
    candidate = model("m", 2_000_000, cap=cap)
    bound = limits_for(policy([candidate]), candidate, None, None, ClientCaps(), "2026-11-20")
    plan = plan_attempt(request(stream=stream, output_limit=limit), candidate, bound, input_tokens)
    assert plan.need_nano <= plan.want_nano
    if plan.strict:
        assert plan.risk_nano <= plan.want_nano
    assert (plan.mode is Mode.STREAM) == stream


def test_prices_are_rounded_up_not_down() -> None:
    plan = plan_attempt(request(output_limit=1), model("m", 1), FREE_RIDE, 1)
    assert (plan.input_nano, plan.want_nano) == (1, 2)
    assert price(1, 1).base.dearest_output == 1


@given(
    left=st.integers(0, 5000),
    input_tokens=st.integers(0, 3000),
    limit=st.none() | st.integers(1, 5000),
    choices=st.integers(1, 4),
    rate=st.sampled_from([0, 1_000_000]),
)
def test_a_clamp_keeps_a_call_within_its_tasks_tokens(
    left: int, input_tokens: int, limit: int | None, choices: int, rate: int
) -> None:
    asked = request(output_limit=limit, choices=choices)
    plan = plan_attempt(asked, model("m", rate), FREE_RIDE, input_tokens)
    clamp = token_clamp(plan, asked, left)
    if clamp is None:
        assert limit is not None
        assert input_tokens + choices * limit <= left
    elif left - input_tokens >= choices:  # what the ledger grants has at least a token for each choice
        assert clamp >= 1
        assert input_tokens + choices * clamp <= left < input_tokens + choices * (clamp + 1)
        assert limit is None or clamp < limit
    assert token_clamp(plan, asked, None) is None


@given(
    cap_nano=st.integers(1, 1000),
    limit=st.none() | st.integers(1, 64),
    choices=st.integers(1, 3),
    dialect=st.sampled_from(["openai_chat", "openai_responses"]),
    stream=st.booleans(),
)
def test_no_clamp_is_smaller_than_the_provider_takes(
    cap_nano: int, limit: int | None, choices: int, dialect: str, stream: bool
) -> None:
    """A cap that pays for less than OpenAI's Responses take as a limit is a denial before the call, not a refusal."""
    openai = provider(also=frozenset({"openai_responses"}), responses_least_tokens=16)
    asked = request(dialect=dialect, output_limit=limit, choices=choices, stream=stream)
    plan = plan_attempt(asked, model("m", at=openai), capped(cap_nano), 100)
    least = 16 if dialect == "openai_responses" else 1
    bound = least if limit is None else min(least, limit)
    assert plan.need_nano >= 100 + bound * choices
    if plan.need_nano > cap_nano:
        return  # denied
    assert folded(plan).need_nano == 100 + bound * choices
    clamp = clamp_tokens(plan, asked, capped(cap_nano), Granted(plan.want_nano, None, None))
    assert clamp is None or clamp >= bound
    assert clamp is None or 100 + clamp * choices <= cap_nano
