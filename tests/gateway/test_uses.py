"""Uses of a provider's own tools: what they may cost, how many a cap affords, and that no cap is passed by more than is
stated."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.book import Book
from app.core.budget import Claim, Granted, Reserve
from app.core.meter import RESULT_TOKENS, Meter
from app.core.money import Price, Rates, tokens_cost
from app.core.policy import Candidate, Provider
from app.core.types import ChatRequest
from app.dialects.server_tools import TOGETHER
from app.gateway.fees import UNSEEN_USES
from app.gateway.limits import Limits
from app.gateway.plan import Mode, clamps, folded, plan_attempt
from app.gateway.uses import OPEN_USES, TOOLS_PART, Uses, uses_of
from tests.gateway.policy_values import model, request

SEARCH = 1_000
READ = RESULT_TOKENS["web_search"]
"""Nano-dollars of what a search adds to the input, at a nano-dollar a token."""


def candidate(dialect: str, rate: int = 1_000_000, *, hidden: bool = False, **fees: int) -> Candidate:
    at = Provider("p", dialect, "http://127.0.0.1:9/v1")
    price = Price(Rates(rate, rate), tool_fees=tuple(fees.items()))
    return dataclasses.replace(model("m", at=at, hidden_reasoning=hidden), price=price)


def asked(dialect: str, *tools: str, limits: tuple[tuple[str, int], ...] = (), **values: Any) -> ChatRequest:
    return request(dialect=dialect, prompt={"server_tools": tools, "tool_limits": limits}, **values)


def test_what_each_use_is_taken_to_cost() -> None:
    offers = candidate("anthropic", web_search=SEARCH, advisor=50, code_execution=7)
    uses = uses_of(asked("anthropic", "web_search", "advisor", "code_execution"), offers, 10)
    assert uses == Uses(((None, SEARCH + READ), (None, 50)), False, None, 7)
    assert uses.cost_nano(3) == 3 * (SEARCH + READ + 50) + 7
    assert (uses.wanted, uses.limited, uses.dearest_nano) == (OPEN_USES, False, SEARCH + READ)
    limited = uses_of(asked("anthropic", "web_search", "advisor", limits=(("web_search", 2),)), offers, 10)
    assert limited is not None
    assert limited.cost_nano(3) == 2 * (SEARCH + READ) + 3 * 50
    assert not limited.limited


def test_one_limit_counts_the_calls_of_all_tools_in_responses() -> None:
    offers = candidate("openai_responses", web_search=SEARCH, file_search=5, code_execution=7)
    tools = ("web_search", "file_search", "code_execution")
    uses = uses_of(asked("openai_responses", *tools, limits=((TOGETHER, 3),)), offers, 10)
    assert uses is not None
    dearest = max(SEARCH + READ, 5 + RESULT_TOKENS["file_search"])
    assert (uses.wanted, uses.limited) == (3, True)
    assert uses.worst_nano == uses.cost_nano(9) == 7 + 3 * dearest


@pytest.mark.parametrize(
    ("dialect", "tools", "limits"),
    [
        ("anthropic", (), ()),
        ("anthropic", ("maps",), ()),  # nobody declares its fee: refused under a cap, and free without one
        ("anthropic", ("web_search",), (("web_search", 0),)),
        ("openai_responses", ("web_search", "code_execution"), ((TOGETHER, 0),)),
        ("gemini", ("web_search",), ()),  # shown at the end only
        ("openai_chat", ("web_search",), ()),
    ],
)
def test_calls_without_such_uses(dialect: str, tools: tuple[str, ...], limits: tuple[tuple[str, int], ...]) -> None:
    offers = candidate(dialect, web_search=SEARCH, code_execution=7)
    assert uses_of(asked(dialect, *tools, limits=limits), offers, 10) is None


def test_a_tool_for_a_provider_of_another_dialect_is_never_used() -> None:
    assert uses_of(asked("anthropic", "web_search"), candidate("openai_responses", web_search=SEARCH), 10) is None


def test_what_the_answer_leaves_goes_to_tools_and_a_part_at_least() -> None:
    uses = Uses(((None, 10),))
    assert uses.afforded(100, 60, 1) == 4
    assert uses.afforded(100, 95, 1) == 100 // TOOLS_PART // 10
    assert uses.afforded(100, 10**9, 1) == 100 // TOOLS_PART // 10
    assert uses.afforded(20, 10**9, 10) == 1
    assert uses.afforded(10**6, 10, 1) == OPEN_USES


def clamped(dialect: str, cap: int, *, hidden: bool = False, **values: Any) -> int | None:
    offers, limits = candidate(dialect, hidden=hidden, web_search=SEARCH), Limits((), cap, "request")
    wants = asked(dialect, "web_search", **values)
    plan = plan_attempt(wants, offers, limits, 100)
    return clamps(plan, wants, limits, Granted(plan.want_nano, None, None))[1]


@pytest.mark.parametrize("dialect", ["anthropic", "openai_responses"])
@pytest.mark.parametrize("hidden", [False, True])
def test_the_limit_is_what_the_cap_pays_beside_the_answer(dialect: str, hidden: bool) -> None:
    use, name = SEARCH + READ, "web_search" if dialect == "anthropic" else TOGETHER
    base = 100 + 500
    assert clamped(dialect, base + 3 * use, hidden=hidden, output_limit=500) == 3
    assert clamped(dialect, base + 4 * use - 1, hidden=hidden, output_limit=500) == 3
    assert clamped(dialect, base + 3 * use, hidden=hidden, output_limit=500, limits=((name, 2),)) is None
    assert clamped(dialect, base + 3 * use, hidden=hidden, output_limit=500, limits=((name, 9),)) == 3
    plenty = clamped(dialect, base + 100 * use, hidden=hidden, output_limit=500)
    # A stream shows what it does; what is hidden holds its worst case, so that case must be bounded.
    assert plenty == (OPEN_USES if hidden else None)
    assert clamped(dialect, base + 100 * use, hidden=hidden, output_limit=500, limits=((name, 90),)) is None


@pytest.mark.parametrize("dialect", ["anthropic", "openai_responses"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_call_needs_what_one_use_costs(dialect: str, stream: bool) -> None:
    offers, limits = candidate(dialect, web_search=SEARCH), Limits((), 10**6, "request")
    plan = plan_attempt(asked(dialect, "web_search", stream=stream, output_limit=50), offers, limits, 100)
    assert plan.mode is (Mode.STREAM if stream else Mode.FOLD)
    assert plan.need_nano == folded(plan).need_nano == 100 + SEARCH + READ + 1
    free = plan_attempt(asked(dialect, "web_search"), candidate(dialect, 0, web_search=0), limits, 100)
    assert (free.need_nano, free.uses) == (0, None)


@pytest.mark.parametrize(
    ("dialect", "upstream_model", "declared", "uses"),
    [
        ("gemini", "gemini-3.1-pro", (), UNSEEN_USES),
        ("gemini", "gemini-3.1-pro", (("web_search", 3),), 3),
        ("gemini", "gemini-2.5-pro", (), 1),
        ("gemini", "models/gemini-2.0-flash", (), 1),
        ("openai_chat", "some/model", (), UNSEEN_USES),
    ],
)
def test_what_shows_at_the_end_is_held_for_the_most_uses(
    dialect: str, upstream_model: str, declared: tuple[tuple[str, int], ...], uses: int
) -> None:
    offers = dataclasses.replace(candidate(dialect, web_search=SEARCH), upstream_model=upstream_model)
    assert offers.price is not None
    offers = dataclasses.replace(offers, price=dataclasses.replace(offers.price, tool_uses=declared))
    plan = plan_attempt(asked(dialect, "web_search"), offers, Limits((), 10**6, "request"), 100)
    assert (plan.unseen_nano, plan.need_nano) == (uses * SEARCH, 100 + uses * SEARCH + 1)


own = st.none() | st.integers(1, 40)


@given(
    dialect=st.sampled_from(["anthropic", "openai_responses"]),
    rate=st.sampled_from([0, 1, 1_000_000, 30_000_000]),
    fees=st.dictionaries(st.sampled_from(["web_search", "advisor", "image_generation"]), st.integers(1, 10**5)),
    code=st.none() | st.integers(1, 10**5),
    limit=st.none() | st.integers(1, 10**5),
    hidden=st.booleans(),
    stream=st.booleans(),
    own=own,
    call_cap=st.none() | st.integers(0, 10**7),
    scope_limit=st.integers(0, 10**7),
    does=st.lists(st.integers(0, 3) | st.sampled_from(["web_search", "advisor", "image_generation"]), max_size=60),
)
def test_no_sequence_of_uses_passes_a_cap_by_more_than_is_stated(
    dialect: str,
    rate: int,
    fees: dict[str, int],
    code: int | None,
    limit: int | None,
    hidden: bool,
    stream: bool,
    own: int | None,
    call_cap: int | None,
    scope_limit: int,
    does: list[int | str],
) -> None:
    """A provider that keeps the limits it was sent bills no more than the cap, whatever it does; one whose uses nobody
    limits, for a stream shows them, is cut after the one that passes it."""
    offers = candidate(dialect, rate, hidden=hidden, **fees, **({} if code is None else {"code_execution": code}))
    own_limits = () if own is None else ((TOGETHER, own),) if dialect != "anthropic" else tuple((t, own) for t in fees)
    tools = (*fees, *(() if code is None else ("code_execution",)))
    wants = asked(dialect, *tools, limits=own_limits, stream=stream, output_limit=limit)
    limits = Limits((Claim("s", scope_limit),), call_cap, "request")
    plan = plan_attempt(wants, offers, limits, 100)
    if call_cap is not None and plan.need_nano > call_cap:
        return  # denied
    grant = Book().apply(Reserve("c", "me", limits.claims, plan.need_nano, plan.want_nano, 0, plan.share))
    if not isinstance(grant, Granted):
        return  # denied
    cap = scope_limit if call_cap is None else min(scope_limit, call_cap)
    tokens, most = clamps(plan, wants, limits, grant)
    if plan.uses is not None:
        assert most is None or 1 <= most <= plan.uses.wanted
        allowed = plan.uses.wanted if most is None else most
        bound = plan.worst_tokens if tokens is None else tokens
        if bound is not None or not plan.output_rate:
            worst = plan.input_nano + tokens_cost(bound or 0, plan.output_rate) + plan.uses.cost_nano(allowed)
            assert worst <= cap
    left = plan.worst_tokens if tokens is None else tokens
    meter, ran = Meter(offers.price, 100, 1000), dict.fromkeys(fees, 0)
    bounded = plan.uses is None or most is not None or plan.uses.limited
    if code is not None:
        meter.ran("code_execution")
    for one in does:
        if isinstance(one, int):
            said = one if left is None else min(one, left)
            left = None if left is None else left - said
            meter.add(said)
        elif one in ran:
            counted = sum(ran.values()) if dialect != "anthropic" else ran[one]
            if any(n is not None and counted >= n for n in (own, most)):
                continue  # the provider was told not to
            ran[one] += 1
            meter.ran(one)
        if meter.running_nano > cap:
            break  # the cut
    use = 0 if plan.uses is None else plan.uses.dearest_nano
    assert meter.running_nano <= cap + (0 if bounded else max(use, tokens_cost(3, rate)))
