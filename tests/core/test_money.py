"""Money is exact: in and out of dollars, and from tokens to cost."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.money import (
    FREE,
    MAX_NANO,
    NANO_PER_USD,
    Price,
    Rates,
    Usage,
    added,
    affordable_tokens,
    cost_nano,
    default_model_cap,
    expected_nano,
    nano_from_report,
    nano_from_usd,
    price_from_usd_per_1k,
    price_from_usd_per_token,
    tokens_cost,
    usd_float,
    usd_json,
    usd_text,
)
from app.core.types import SERVER_TOOLS

rate_values = st.integers(0, 10**12)
maybe_rates = st.none() | rate_values
rates = st.builds(Rates, rate_values, rate_values, maybe_rates, maybe_rates, maybe_rates, maybe_rates)
tokens = st.integers(0, 10**7)
prices = st.builds(
    Price,
    rates,
    st.lists(st.tuples(st.integers(1, 10**6), rates), max_size=3, unique_by=lambda t: t[0]).map(
        lambda tiers: tuple(sorted(tiers, key=lambda tier: tier[0]))
    ),
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """A consistent usage: parts never exceed their whole."""
    fresh, read, write, write_1h, output = (draw(tokens) for _ in range(5))
    reasoning = draw(st.integers(0, output))
    return Usage(fresh + read + write + write_1h, output, read, write, write_1h, reasoning)


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0, 0),
        (1, 10**9),
        (0.1, 10**8),
        ("0.30", 3 * 10**8),
        ("1e-9", 1),
        ("0.0000000001", 1),
        (0.1 + 0.2, 300_000_001),
        (Decimal("2.5"), 25 * 10**8),
        ("9007199.254740991", MAX_NANO),
        ("1." + "0" * 40 + "1", 10**9 + 1),
        ("1e-400", 1),
        ("1e-999999999", 1),
        ("0e999999999", 0),
    ],
)
def test_dollars_enter_rounded_up(usd: float | str | Decimal, nano: int) -> None:
    assert nano_from_usd(usd) == nano


@pytest.mark.parametrize(
    "usd",
    ["", "abc", "NaN", "sNaN", "inf", "-inf", -0.01, "-1e-12", float("nan"), float("inf"), True, False,
     "1_0", "\u0663", "1,0", "9007199.2547409911", 1e300, "1e999999", "1e999999999999999999999"],
)  # fmt: skip
def test_anything_else_is_refused(usd: float | str) -> None:
    for enter in (nano_from_usd, price_from_usd_per_1k, price_from_usd_per_token):
        with pytest.raises(ValueError, match="dollars"):
            enter(usd)


@given(st.integers(0, MAX_NANO))
def test_text_and_back_is_exact(nano: int) -> None:
    text = usd_text(nano)
    assert nano_from_usd(text) == nano
    assert "e" not in text.lower()
    assert text == (text.rstrip("0") if "." in text else text)
    assert text[-1] != "."
    assert usd_text(-nano) == ("-" + text if nano else "0")


@given(st.fractions(0, 9_000_000).map(lambda f: Decimal(f.numerator) / Decimal(f.denominator)))
def test_entering_never_loses_a_nano(usd: Decimal) -> None:
    exact = Fraction(usd) * NANO_PER_USD
    assert exact <= nano_from_usd(usd) < exact + 1


@given(st.none() | st.integers(0, MAX_NANO))
def test_json_is_exact_and_says_what_is_unknown(nano: int | None) -> None:
    told = json.loads(usd_json(nano), parse_float=Decimal)
    assert told is None if nano is None else told * NANO_PER_USD == nano


@given(st.integers(0, 10**15 - 1))
def test_a_providers_own_cost_is_read_to_the_nano(nano: int) -> None:
    assert abs((nano_from_report(nano / NANO_PER_USD) or 0) - nano) <= 1


@pytest.mark.parametrize("usd", [None, True, "1", -1e-9, 1e6, float("nan"), float("inf"), {}, []])
def test_what_can_be_no_cost_is_unknown(usd: object) -> None:
    assert nano_from_report(usd) is None


def test_floats_are_for_displays() -> None:
    assert usd_float(1_500_000_000) == 1.5


def test_prices_per_thousand_and_per_token_agree() -> None:
    assert price_from_usd_per_1k(0.0001) == 100_000_000  # $0.10 a million
    assert price_from_usd_per_1k("0.015") == price_from_usd_per_token("0.000015") == 15 * NANO_PER_USD
    assert price_from_usd_per_token(1.5e-7) == 150_000_000


@given(prices, usages())
def test_a_cost_is_the_exact_total_rounded_up_once(price: Price, usage: Usage) -> None:
    rates = price.base
    for above, tier in price.tiers:
        rates = tier if usage.input > above else rates
    fresh = usage.input - usage.cache_read - usage.cache_write - usage.cache_write_1h
    write_1h = rates.cache_write if rates.cache_write_1h is None else rates.cache_write_1h
    exact = Fraction(
        fresh * rates.input
        + usage.cache_read * (rates.cache_read or 0)
        + usage.cache_write * (rates.cache_write or 0)
        + usage.cache_write_1h * (write_1h or 0)
        + (usage.output - usage.reasoning) * rates.output
        + usage.reasoning * (rates.output if rates.reasoning is None else rates.reasoning),
        10**6,
    )
    assert exact <= cost_nano(price, usage) < exact + 1


@given(prices, usages())
def test_a_reservation_at_the_dearest_rates_covers_any_usage(price: Price, usage: Usage) -> None:
    rates = price.rates(usage.input)
    bound = tokens_cost(usage.input, rates.dearest_input) + tokens_cost(usage.output, rates.dearest_output)
    assert 0 <= cost_nano(price, usage) <= bound


media_rates = st.builds(
    Rates, *(rate_values, rate_values), *(maybe_rates,) * 4, audio_input=maybe_rates, audio_output=maybe_rates,
    image_output=maybe_rates,
)  # fmt: skip


@st.composite
def media_usages(draw: st.DrawFn) -> Usage:
    """The same, with sound and pictures among what is fresh and what is no reasoning."""
    plain = draw(usages())
    fresh = plain.input - plain.cache_read - plain.cache_write - plain.cache_write_1h
    spoken = draw(st.integers(0, plain.output - plain.reasoning))
    drawn = draw(st.integers(0, plain.output - plain.reasoning - spoken))
    heard = draw(st.integers(0, fresh))
    return msgspec.structs.replace(plain, audio_input=heard, audio_output=spoken, image_output=drawn)


@given(media_rates, media_usages())
def test_sound_and_pictures_have_their_own_rates_and_each_token_is_counted_once(rates: Rates, usage: Usage) -> None:
    price = Price(rates)
    plain = msgspec.structs.replace(usage, audio_input=0, audio_output=0, image_output=0)
    beyond = Fraction(
        usage.audio_input * ((rates.input if rates.audio_input is None else rates.audio_input) - rates.input)
        + usage.audio_output * ((rates.output if rates.audio_output is None else rates.audio_output) - rates.output)
        + usage.image_output * ((rates.output if rates.image_output is None else rates.image_output) - rates.output),
        10**6,
    )
    assert abs(cost_nano(price, usage) - cost_nano(price, plain) - beyond) < 1
    one = Price(Rates(7, 7, 7, 7, 7, 7, 7, 7, 7))
    assert cost_nano(one, usage) == tokens_cost(usage.input + usage.output, 7)


@given(media_rates, media_usages())
def test_the_reservation_of_a_call_with_media_covers_any_usage(rates: Rates, usage: Usage) -> None:
    price = Price(rates, ((10**6, rates),)).for_media(hears=True, speaks=True)
    found = price.rates(usage.input)
    bound = tokens_cost(usage.input, found.dearest_input) + tokens_cost(usage.output, found.dearest_output)
    assert 0 <= cost_nano(price, usage) <= bound
    assert cost_nano(price, usage) == cost_nano(Price(rates), usage)


def test_a_call_without_sound_reserves_nothing_for_it() -> None:
    rates = Rates(2, 10, audio_input=32, audio_output=64, image_output=30)
    assert (rates.dearest_input, rates.dearest_output) == (2, 10)
    heard = Price(rates).for_media(hears=True, speaks=False).base
    assert (heard.dearest_input, heard.dearest_output) == (32, 10)
    assert not Price(Rates(0, 0, audio_output=5)).free


def test_a_declared_zero_is_a_rate_and_an_undeclared_one_is_not_priced() -> None:
    usage = Usage(input=3_000_000, output=0, cache_write=1_000_000, cache_write_1h=1_000_000)
    assert cost_nano(Price(Rates(5, 0)), usage) == 5
    assert cost_nano(Price(Rates(5, 0, cache_write=7)), usage) == 5 + 7 + 7
    assert cost_nano(Price(Rates(5, 0, cache_write=7, cache_write_1h=0)), usage) == 5 + 7


def test_a_provider_that_counts_wrong_cannot_make_a_cost_negative() -> None:
    usage = Usage(input=10, output=5, cache_read=10**6, reasoning=10**6)
    assert cost_nano(Price(Rates(10**6, 10**6)), usage) == 5


@given(st.integers(-(10**6), MAX_NANO), st.integers(1, 10**12))
def test_affordable_is_the_most_that_fits(nano: int, rate: int) -> None:
    count = affordable_tokens(nano, rate)
    assert tokens_cost(count, rate) <= max(nano, 0)
    assert (count + 1) * rate > max(nano, 0) * 10**6


def test_a_long_context_tier_applies_past_its_threshold() -> None:
    price = Price(Rates(1, 2), ((200_000, Rates(3, 4)), (1_000_000, Rates(5, 6))))
    assert [price.rates(n).input for n in (200_000, 200_001, 1_000_000, 1_000_001)] == [1, 3, 3, 5]


def test_free_means_every_rate_of_every_tier() -> None:
    assert FREE.free
    assert not Price(Rates(0, 0, cache_read=1)).free
    assert not Price(Rates(0, 0, reasoning=1)).free
    assert not Price(Rates(0, 0), ((100, Rates(0, 1)),)).free


def test_a_cache_can_be_used_where_both_of_its_rates_are_known() -> None:
    assert FREE.knows_caches
    assert Price(Rates(1, 2, cache_read=0, cache_write=1)).knows_caches
    assert not Price(Rates(1, 2, cache_read=1)).knows_caches
    assert not Price(Rates(1, 2, cache_write=1)).knows_caches


@pytest.mark.parametrize(
    ("input_per_1k", "output_per_1k", "cap_usd"),
    [(".0003", ".0012", "0.0576"), (".0006", ".00208", "0.10496"), (".015", ".075", "0.5")],
)
def test_the_default_cap_of_a_model(input_per_1k: str, output_per_1k: str, cap_usd: str) -> None:
    price = Price(Rates(price_from_usd_per_1k(input_per_1k), price_from_usd_per_1k(output_per_1k)))
    assert default_model_cap(price) == nano_from_usd(cap_usd)


def test_a_free_model_has_no_default_cap() -> None:
    assert default_model_cap(FREE) is None


@given(
    tools=st.dictionaries(st.sampled_from(SERVER_TOOLS), st.integers(0, 1000)),
    fees=st.dictionaries(st.sampled_from(SERVER_TOOLS), st.integers(0, 10**9)),
    given_=st.integers(0, 10**6),
)
def test_tools_cost_their_fees_beside_the_tokens(tools: dict[str, int], fees: dict[str, int], given_: int) -> None:
    price = Price(Rates(10**9, 10**9), tool_fees=tuple(fees.items()))
    billed = sum(times * fees.get(tool, 0) for tool, times in tools.items())
    usage = Usage(given_, 3, tools=tuple(tools.items()))
    assert cost_nano(price, usage) == cost_nano(Price(price.base), Usage(given_, 3)) + billed
    assert all(price.fee_nano(tool) == fees.get(tool) for tool in SERVER_TOOLS)
    assert FREE.fee_nano("web_search") == 0
    doubled = added(usage, usage)
    assert dict(doubled.tools) == {tool: 2 * times for tool, times in tools.items()}


rate = st.integers(0, 10**12)
maybe = st.none() | rate


@given(st.builds(Rates, rate, rate, maybe, maybe, maybe, maybe), st.decimals(0, 100, places=3))
def test_a_price_times_a_factor_is_never_less(rates: Rates, factor: Decimal) -> None:
    price = Price(rates, ((1000, rates),), tool_fees=(("web_search", 7),), service_tiers=(("flex", Price(rates)),))
    times = price.times(factor)
    for name in Rates.__dataclass_fields__:
        before, after = getattr(rates, name), getattr(times.base, name)
        assert (before is None) == (after is None)
        assert before is None or Fraction(after) - 1 < before * Fraction(factor) <= after
    assert times.tiers == ((1000, times.base),)
    assert times.tool_fees == price.tool_fees


def test_a_tier_of_service_has_its_own_price_or_none() -> None:
    plain, dear = Price(Rates(1, 2)), Price(Rates(2, 4))
    price = Price(Rates(1, 2), service_tiers=(("priority", dear),))
    assert (price.served("flex"), plain.served("priority")) == (None, None)
    assert price.served("default") is price
    assert FREE.served("priority") is FREE
    served = price.served("priority")
    assert served is not None
    assert served.base == dear.base


def test_a_price_of_one_tier_knows_those_of_the_others() -> None:
    base = {"default": Rates(2, 4), "flex": Rates(1, 2), "priority": Rates(4, 8)}
    price = Price(base["default"], service_tiers=tuple((t, Price(base[t])) for t in ("flex", "priority")))
    for first in base:
        for then in base:
            for last, rates in base.items():
                found: Price | None = price
                for tier in (first, then, last):
                    assert found is not None
                    found = found.served(tier)
                assert found is not None
                assert found.base == rates
                assert found.served("fast") is None


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**6)
)
def test_what_is_expected_is_the_cost_of_both_kinds_at_the_rates_of_the_prompts_tier(
    given_tokens: int, out_tokens: int, base: int, long: int, above: int
) -> None:
    for price in (Price(Rates(base, long)), Price(Rates(base, long), tiers=((above, Rates(long, base)),))):
        rates = price.rates(given_tokens)
        wanted = tokens_cost(given_tokens, rates.input) + tokens_cost(out_tokens, rates.output)
        assert expected_nano(price, given_tokens, out_tokens) == wanted
