"""When a stream has its running cost written: early enough not to wait, and no more often than that takes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Granted
from app.core.meter import Meter
from app.core.money import tokens_cost
from app.core.policy import LedgerRules
from app.gateway.limits import Limits
from app.gateway.plan import STEP_TOKENS, Mode, Plan
from app.gateway.purse import Purse
from tests.gateway.policy_values import price

PRICE = price(1_000_000, 4_000_000)
RATE = PRICE.base.output
STEP = tokens_cost(STEP_TOKENS, RATE)


def purse(held_nano: int, input_nano: int = 0) -> Purse:
    """A metered stream's, with this much set aside; no ledger is asked."""
    risk = input_nano + STEP
    plan = Plan(Mode.STREAM, False, 0, input_nano, RATE, 10_000, input_nano, input_nano + STEP, risk)
    found = Purse(cast(Any, None), LedgerRules(), plan, Limits((), None, "request"), Meter(PRICE, 0, 1000), "call")
    found._allow(0, Granted(held_nano, 10**15, "global:total"), risk)
    return found


@pytest.mark.parametrize("input_nano", [0, STEP // 7, 100 * STEP])
def test_a_whole_step_lasts_for_three_quarters_whatever_the_input_has_cost(input_nano: int) -> None:
    of = purse(input_nano + STEP, input_nano)
    assert not of.runs_short(input_nano)
    assert not of.runs_short(input_nano + 3 * STEP // 4 - 1)
    assert of.runs_short(input_nano + 3 * STEP // 4)


def test_of_less_than_a_step_half_is_enough_to_ask() -> None:
    of = purse(STEP // 8)
    assert not of.runs_short(STEP // 16 - 1)
    assert of.runs_short(STEP // 16)


@given(st.integers(1, 2 * STEP), st.integers(0, 10 * STEP), st.integers(0, 12 * STEP))
def test_it_is_never_too_late_to_ask(held_nano: int, input_nano: int, more_nano: int) -> None:
    of = purse(input_nano + held_nano, input_nano)
    assert of.allowance_nano is not None
    if input_nano + more_nano >= of.allowance_nano:
        assert of.runs_short(input_nano + more_nano)


def test_the_input_is_none_of_a_read() -> None:
    """Where the ledger has said that no more is to be had before the first read, as with a provider that thinks for
    long: a read of a role alone, with an input that costs more than what is left, would have cut the call."""
    meter = Meter(PRICE, 1000, 1000)
    input_nano = meter.running_nano
    plan = Plan(Mode.STREAM, False, 0, input_nano, RATE, 10_000, input_nano, input_nano + STEP, STEP)
    of = Purse(cast(Any, None), LedgerRules(), plan, Limits((), None, "request"), meter, "call")
    left_nano = tokens_cost(60, RATE)
    assert input_nano > left_nano
    of._allow(0, Granted(input_nano + left_nano, 0, "task:t"), input_nano + STEP)
    of._dry = True
    assert not of.overruns(input_nano)
    meter.add(20)
    assert not of.overruns(meter.running_nano)
    meter.add(30)
    assert of.overruns(meter.running_nano)


@pytest.mark.parametrize(("most", "cut"), [(60, False), (61, True)])
def test_a_limit_that_the_rest_pays_for_is_no_overrun(most: int, cut: bool) -> None:
    """The client's own: a busy gateway reads half of the answer at a time, and the other half still fits."""
    meter = Meter(PRICE, 10, 1000)
    input_nano, left_nano = meter.running_nano, tokens_cost(60, RATE)
    plan = Plan(Mode.STREAM, False, 10, input_nano, RATE, most, input_nano, input_nano + STEP, STEP)
    of = Purse(cast(Any, None), LedgerRules(), plan, Limits((), None, "request"), meter, "call")
    of._allow(0, Granted(input_nano + left_nano, 0, "task:t"), input_nano + STEP)
    of._dry = True
    meter.add(40)
    assert of.overruns(meter.running_nano) == cut
