"""What is set aside for tools whose uses show at the end only, and what of it stays charged when there is no end."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from app.core.meter import Meter
from app.core.money import Usage
from app.gateway.fees import UNSEEN_USES, unseen_fee_nano
from tests.gateway.test_uses import SEARCH, asked, candidate

COUNTS = st.integers(0, 3 * UNSEEN_USES)


@given(
    dialect=st.sampled_from(["gemini", "openai_chat"]),
    model=st.sampled_from(["gemini-3.1-pro", "gemini-2.5-pro"]),
    declared=st.none() | st.integers(0, 20),
    told=st.lists(COUNTS, max_size=4).map(sorted),
    output=st.lists(st.integers(1, 1000), min_size=4, max_size=4).map(sorted),
    made=COUNTS,
    maps=st.booleans(),
)
def test_what_is_charged_without_an_end_covers_what_is_stated_and_refunds_only_what_is_known(
    dialect: str, model: str, declared: int | None, told: list[int], output: list[int], made: int, maps: bool
) -> None:
    """`told`: the searches so far, report by report; `made`: those that the provider bills in the end."""
    offers = dataclasses.replace(candidate(dialect, web_search=SEARCH, maps=7), upstream_model=model)
    assert offers.price is not None
    uses = () if declared is None else (("web_search", declared),)
    offers = dataclasses.replace(offers, price=dataclasses.replace(offers.price, tool_uses=uses))
    call = asked(dialect, *(("web_search", "maps") if maps else ("web_search",)))
    set_aside_nano = unseen_fee_nano(call, offers)
    once = model == "gemini-2.5-pro"
    most = declared if declared is not None else 1 if once else UNSEEN_USES
    assert set_aside_nano == most * SEARCH + 7 * maps

    meter = Meter(offers.price, 100, 1000)
    last = 0
    for searches, tokens in zip(told, output, strict=False):
        last = min(searches, 1) if once else searches
        meter.report(Usage(100, tokens, tools=(("web_search", last),) if last else ()), final=False)
    tokens_nano = meter.running_nano - last * SEARCH
    charged_nano = meter.running_nano + unseen_fee_nano(call, offers, meter.tools)
    stated = most if not last else last + (not once)
    assert charged_nano == tokens_nano + stated * SEARCH + 7 * maps
    bill_nano = tokens_nano + min(max(made, last), stated) * SEARCH
    assert bill_nano <= charged_nano
    assert charged_nano - meter.running_nano <= max(set_aside_nano, SEARCH + 7 * maps)
