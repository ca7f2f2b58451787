"""The running cost: an integer that never falls while adding, and is exact as soon as the provider reports."""

from __future__ import annotations

import dataclasses

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.meter import MOST_TOKENS, RESULT_TOKENS, Meter
from app.core.money import FREE, Price, Rates, Usage, cost_nano, tokens_cost, tools_cost
from app.core.types import SERVER_TOOLS

rates = st.builds(
    Rates,
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
)
prices = st.builds(Price, rates)
usages = st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**3), st.integers(0, 10**3))
permilles = st.integers(1, 30_000)
deltas = st.lists(st.integers(0, 5000), max_size=30)
ONE_NANO = Price(Rates(1_000_000, 1_000_000))


@given(prices, st.integers(0, 10**6), permilles, deltas)
def test_the_running_cost_is_an_integer_that_never_falls(
    price: Price, given_tokens: int, permille: int, added: list[int]
) -> None:
    meter = Meter(price, given_tokens, permille)
    last = meter.running_nano
    assert last == tokens_cost(given_tokens, price.base.dearest_input)
    for pieces in added:
        meter.add(pieces)
        assert isinstance(meter.running_nano, int)
        assert meter.running_nano >= last
        last = meter.running_nano
    assert meter.pieces == sum(added)
    exact = sum(added) * permille * price.base.dearest_output
    assert (last - tokens_cost(given_tokens, price.base.dearest_input)) == -(-exact // 10**9)
    assert meter.cost_nano == last


@given(prices, permilles, deltas, usages)
def test_after_a_report_the_cost_is_exact(price: Price, permille: int, added: list[int], usage: Usage) -> None:
    meter = Meter(price, 100, permille)
    for pieces in added:
        meter.add(pieces)
    meter.report(usage)
    if usage.output or not meter.pieces:
        assert meter.exact
        assert meter.running_nano == meter.cost_nano == cost_nano(price, usage)
        assert meter.output_tokens == usage.output
        meter.add(1)
        assert not meter.exact
        assert meter.running_nano >= cost_nano(price, usage)


@given(prices, permilles, deltas, usages, st.integers(MOST_TOKENS + 1, 2**63), st.booleans())
def test_a_count_that_cannot_be_true_changes_nothing(
    price: Price, permille: int, added: list[int], usage: Usage, wild: int, of_output: bool
) -> None:
    """Counters that ran below nought: what was seen is charged, as where nothing is told."""
    meter = Meter(price, 100, permille)
    for pieces in added:
        meter.add(pieces)
    before = meter.cost_nano, meter.output_tokens, meter.exact
    untrue = msgspec.structs.replace(usage, output=wild) if of_output else msgspec.structs.replace(usage, input=wild)
    assert not meter.report(untrue)
    assert (meter.cost_nano, meter.output_tokens, meter.exact) == before
    meter.report(usage)
    if usage.output or not meter.pieces:
        assert meter.cost_nano == cost_nano(price, usage)


@given(prices, st.lists(st.tuples(st.integers(0, 50), st.integers(0, 200), st.booleans()), max_size=20))
def test_reports_only_ever_grow(price: Price, steps: list[tuple[int, int, bool]]) -> None:
    meter = Meter(price, 10, 1000)
    largest = 0
    for pieces, output, final in steps:
        meter.add(pieces)
        meter.report(Usage(10, output), final=final)
        reported = meter.usage.output if meter.usage else 0
        assert reported >= largest
        largest = reported
        assert meter.output_tokens >= largest


@given(prices, st.lists(st.integers(1, 9), min_size=4, max_size=60), st.integers(0, 500))
def test_reports_that_count_each_chunk_alone_are_added_up(price: Price, chunks: list[int], given_tokens: int) -> None:
    """Once it shows: the chunks are about alike, as a stream's are."""
    chunks = [min(chunk, 2 * chunks[0]) for chunk in chunks]
    meter = Meter(price, given_tokens, 1000)
    for number, chunk in enumerate(chunks):
        meter.add(chunk)
        meter.report(Usage(given_tokens, chunk), final=number == len(chunks) - 1)
    if meter.summed:
        assert meter.exact
        assert meter.usage == Usage(given_tokens, sum(chunks))
        assert meter.running_nano == cost_nano(price, Usage(given_tokens, sum(chunks)))


def test_one_token_a_chunk_is_added_up_from_the_fifth_on() -> None:
    meter = Meter(ONE_NANO, 10, 1000)
    totals = []
    for _ in range(6):
        meter.add(1)
        meter.report(Usage(10, 1, 4, reasoning=1, cost_nano=3), final=False)
        totals.append(meter.output_tokens)
    assert totals == [1, 2, 3, 4, 5, 6]
    assert meter.usage == Usage(10, 6, 4, reasoning=6, cost_nano=18)
    meter.report(Usage(10, 6, 4))  # a total at the end is taken for one
    assert meter.usage == Usage(10, 6, 4)


@given(
    prices,
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=60),
    st.sampled_from([1, 2, 4]),
)
def test_cumulative_reports_are_never_added_up(price: Price, steps: list[tuple[int, int]], every: int) -> None:
    """Whether they come late, stand still for a while, or count far less than was estimated (as of some scripts)."""
    meter, true, reported = Meter(price, 10, 1000), 0, 0
    for number, (tokens, extra) in enumerate(steps):
        true += tokens
        meter.add(tokens + extra * tokens)
        if number % every == 0:
            reported = true
        meter.report(Usage(10, reported), final=False)
    meter.report(Usage(10, true))
    if true:
        assert not meter.summed or every > 1
        assert meter.usage is not None
        assert meter.usage.output >= true


def test_a_placeholder_does_not_erase_what_was_seen() -> None:
    meter = Meter(ONE_NANO, 10, 1000)
    meter.add(5)
    for placeholder in (Usage(0, 0), Usage(10, 0)):
        for final in (True, False):
            meter.report(placeholder, final=final)
            assert (meter.running_nano, meter.exact) == (15, False)
    meter.report(Usage(12, 4))
    meter.add(1)
    meter.report(Usage(0, 0))
    assert meter.running_nano == 17


def test_a_report_that_stands_still_covers_nothing_unless_it_is_the_last() -> None:
    meter = Meter(ONE_NANO, 10, 1000)
    meter.report(Usage(10, 1), final=False)
    meter.add(3)
    meter.report(Usage(10, 1), final=False)
    assert (meter.running_nano, meter.exact) == (14, False)
    meter.report(Usage(10, 1))
    assert (meter.running_nano, meter.exact) == (11, True)


def test_the_providers_own_figure_wins_and_zero_is_no_figure() -> None:
    meter = Meter(ONE_NANO, 10, 1000)
    meter.report(Usage(10, 5, cost_nano=99))
    assert meter.cost_nano == 99
    meter.report(Usage(10, 5, cost_nano=0))
    assert meter.cost_nano == 15
    free = Meter(FREE, 10, 1000)
    free.report(Usage(10, 5))
    assert free.cost_nano == 0


def test_without_a_price_the_cost_is_unknown_until_the_provider_names_one() -> None:
    meter = Meter(None, 10, 1000)
    meter.add(7)
    assert (meter.cost_nano, meter.running_nano, meter.output_tokens) == (None, 0, 7)
    meter.report(Usage(10, 6))
    assert meter.cost_nano is None
    meter.report(Usage(10, 6, cost_nano=0))
    assert meter.cost_nano == 0
    meter.report(Usage(10, 7, cost_nano=42))
    assert meter.cost_nano == 42


def test_calibration_scales_the_estimate_and_not_the_report() -> None:
    meter = Meter(ONE_NANO, 0, 1500)
    meter.add(3)
    assert (meter.running_nano, meter.output_tokens) == (5, 5)
    meter.report(Usage(0, 4))
    meter.add(1)
    assert (meter.running_nano, meter.output_tokens) == (6, 6)


def test_a_long_prompt_is_metered_at_the_rates_of_its_tier() -> None:
    price = Price(Rates(1_000_000, 1_000_000), tiers=((100, Rates(2_000_000, 3_000_000)),))
    short, long = Meter(price, 100, 1000), Meter(price, 101, 1000)
    for meter in (short, long):
        meter.add(10)
    assert (short.running_nano, long.running_nano) == (110, 202 + 30)


FREE_TIER, PRICED = Price(Rates(0, 0)), Price(Rates(0, 1))


@given(prices, prices, prices, permilles, deltas, usages, st.permutations(["flex", "priority", "default"]))
@example(PRICED, FREE_TIER, PRICED, 1000, [], Usage(0, 1), ["flex", "priority", "default"])
def test_it_costs_what_the_tier_costs_in_which_it_was_served(
    plain: Price, flex: Price, priority: Price, permille: int, added: list[int], usage: Usage, order: list[str]
) -> None:
    """Whatever was asked for, and whatever was said of it before: the last word counts."""
    of = {"flex": flex, "priority": priority, "default": plain}
    price = dataclasses.replace(plain, service_tiers=(("flex", flex), ("priority", priority)))
    asked, *served = order
    started = price.served(asked)
    assert started is not None
    meter = Meter(started, 100, permille)
    for pieces in added:
        meter.add(pieces)
    for tier in (*served, "ultrafast"):  # whose price nobody has declared
        meter.serve(tier)
    meter.report(usage)
    if usage.output or not meter.pieces:
        expected = plain if plain.free else of[served[-1]]
        assert meter.cost_nano == cost_nano(expected, usage)
        before = meter.running_nano
        meter.add(1000)
        assert meter.running_nano - before == -(-1000 * permille * expected.base.dearest_output // 10**9)


def test_without_a_price_there_is_none_for_a_tier() -> None:
    meter = Meter(None, 1, 1000)
    meter.serve("priority")
    assert meter.cost_nano is None


def test_one_who_goes_on_where_another_declined_reads_the_input_again() -> None:
    meter = Meter(Price(Rates(1_000_000, 2_000_000)), 100, 1000)
    meter.add(5)
    meter.handed_over()
    assert meter.running_nano == 2 * 100 + 5 * 2
    meter.report(Usage(100, 7, by_model=(("other", Usage(50, 7)),)))
    assert (meter.running_nano, meter.unpriced) == (50 + 7 * 2, True)  # as the asked one, for want of a price
    known = Price(Rates(1_000_000, 2_000_000), others=(("other", Price(Rates(3_000_000, 4_000_000))),))
    meter = Meter(known, 100, 1000)
    meter.report(Usage(100, 7, by_model=(("other", Usage(50, 7)),)))
    assert (meter.running_nano, meter.unpriced) == (50 * 3 + 7 * 4, False)


tool_counts = st.dictionaries(st.sampled_from(SERVER_TOOLS), st.integers(0, 5))


@given(
    st.dictionaries(st.sampled_from(SERVER_TOOLS), st.integers(0, 10**9)),
    tool_counts,
    st.lists(st.sampled_from(SERVER_TOOLS) | tool_counts, max_size=12),
)
def test_tools_are_counted_as_they_are_seen_and_as_the_provider_says(
    fees: dict[str, int], sure: dict[str, int], told: list[str | dict[str, int]]
) -> None:
    price = Price(Rates(1_000_000, 1_000_000), tool_fees=tuple(fees.items()))
    meter, known, output, read = Meter(price, 10, 1000, tuple(sure.items())), dict(sure), 0, 0
    for one in told:
        if isinstance(one, str):
            meter.ran(one)
            known[one] = known.get(one, 0) + 1
            # Until a report says how much was read, what it finds is taken to add to the input.
            read += RESULT_TOKENS.get(one, 0) if fees.get(one) else 0
        else:
            output, read = output + 1, 0
            meter.add(1)
            meter.report(Usage(10, output, tools=tuple(one.items())))
            known.update(one)  # what a report names, it knows; of the rest it says nothing
        assert dict(meter.tools) == known
        assert meter.running_nano == 10 + read + output + tools_cost(price, known.items())
    assert meter.unpriced == any(times and tool not in fees for tool, times in known.items())
