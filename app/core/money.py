"""Money as integers: nano-dollars (`_nano`), and prices as nano-dollars per million tokens.

A float never holds an amount: dollars enter through `nano_from_usd` and leave through
`usd_text` or `usd_float`, both exact to the nano-dollar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, Context, Decimal, InvalidOperation

import msgspec

NANO_PER_USD = 10**9
TOKENS_PER_PRICE = 10**6
MAX_NANO = 2**53 - 1
"""Largest amount any store may hold: Redis' Lua numbers are exact up to 2^53 (9.0 million dollars)."""

ORDINARY_TIER = "default"
"""The tier of service in which a call is served that asks for no other; a price of another one knows by it the plain
one."""
_DATED = re.compile(r"-\d{8}$")
_SCALING = Context(prec=40, rounding=ROUND_CEILING, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation])
"""Rounds up only, so that scaling and then rounding up to whole nano-dollars is rounding up once."""


def _scaled(usd: float | int | str | Decimal, factor: int) -> int:
    if isinstance(usd, bool) or (isinstance(usd, str) and ("_" in usd or not usd.isascii())):
        raise ValueError("an amount in dollars must be a number")
    try:
        amount = _SCALING.multiply(Decimal(str(usd)), Decimal(factor))
    except InvalidOperation:
        raise ValueError("an amount in dollars must be a number") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("an amount in dollars must be finite and not negative")
    if amount > MAX_NANO:
        raise ValueError("an amount in dollars must be below nine million")
    return int(amount.to_integral_value(ROUND_CEILING)) if amount else 0


def nano_from_usd(usd: float | int | str | Decimal) -> int:
    """Dollars to nano-dollars, rounded up; ValueError unless finite, >= 0 and below 9.0 million."""
    return _scaled(usd, NANO_PER_USD)


def usd_text(nano: int) -> str:
    """Nano-dollars as plain decimal dollars without exponent or trailing zeros: 1500 -> "0.0000015"."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, part = divmod(nano, NANO_PER_USD)
    if not part:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{str(NANO_PER_USD + part)[1:].rstrip('0')}"  # padding by format takes twice as long


def usd_json(nano: int | None) -> bytes:
    """Nano-dollars as a JSON number in dollars, exact; null where they are unknown."""
    return b"null" if nano is None else usd_text(nano).encode()


def nano_from_report(usd: object) -> int | None:
    """A cost in dollars as a provider tells it, to the nearest nano-dollar; None for what can be none: no number, below
    nothing, a million and more."""
    if not isinstance(usd, int | float) or isinstance(usd, bool) or not 0 <= usd < 1e6:
        return None
    return round(usd * NANO_PER_USD)


def usd_float(nano: int) -> float:
    """Nano-dollars as a float, for metrics and displays only."""
    return nano / NANO_PER_USD


def price_from_usd_per_1k(usd: float | int | str) -> int:
    """Dollars per 1,000 tokens to nano-dollars per million tokens, rounded up; ValueError as `nano_from_usd`,
    with the bound on the price of a million tokens."""
    return _scaled(usd, NANO_PER_USD * TOKENS_PER_PRICE // 1000)


def price_from_usd_per_token(usd: float | int | str) -> int:
    """Dollars per token to nano-dollars per million tokens, rounded up; ValueError as `price_from_usd_per_1k`."""
    return _scaled(usd, NANO_PER_USD * TOKENS_PER_PRICE)


def _times(rate: int | None, factor: Decimal) -> int | None:
    return None if rate is None else int((rate * factor).to_integral_value(ROUND_CEILING))


@dataclass(frozen=True, slots=True)
class Rates:
    """What one token of each kind costs, in nano-dollars per million tokens.

    `None` means undeclared. An undeclared cache rate is *not priced* (it is not the input rate:
    that overstated a real run 3.8 times); an undeclared reasoning, audio or image rate is that of plain tokens.
    """

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None

    def times(self, factor: Decimal) -> Rates:
        """All rates multiplied, rounded up."""
        told: dict[str, int | None] = {member.name: getattr(self, member.name) for member in fields(Rates)}
        return Rates(**{name: _times(rate, factor) for name, rate in told.items()})  # type: ignore[arg-type]

    @property
    def dearest_input(self) -> int:
        """The most one input token can cost: what a reservation has to assume."""
        if not (self.cache_read or self.cache_write or self.cache_write_1h):
            return self.input
        return max(self.input, self.cache_read or 0, self.cache_write or 0, self.cache_write_1h or 0)

    @property
    def dearest_output(self) -> int:
        """The most one output token can cost, hidden reasoning included."""
        output, reasoning = self.output, self.reasoning
        return output if reasoning is None or reasoning < output else reasoning


@dataclass(frozen=True, slots=True)
class MediaRates(Rates):
    """The rates of a call with sound in it (`hears`), or that asks for sound or pictures (`speaks`): any of its tokens
    may be one of those."""

    hears: bool = False
    speaks: bool = False

    @property
    def dearest_input(self) -> int:
        plain = max(self.input, self.cache_read or 0, self.cache_write or 0, self.cache_write_1h or 0)
        return max(plain, self.audio_input or 0) if self.hears else plain

    @property
    def dearest_output(self) -> int:
        plain = max(self.output, self.reasoning or 0)
        return max(plain, self.audio_output or 0, self.image_output or 0) if self.speaks else plain


@dataclass(frozen=True, slots=True)
class ChainRates(Rates):
    """The rates of a call that other models may answer: any of its tokens may cost what the dearest takes."""

    most_input: int = 0
    most_output: int = 0

    @property
    def dearest_input(self) -> int:
        return self.most_input

    @property
    def dearest_output(self) -> int:
        return self.most_output


@dataclass(frozen=True, slots=True)
class Price:
    """The rates of one model, with long-context tiers: `tiers` is ((above_tokens, Rates), ...) ascending.

    A tier applies to the whole request once its input passes `above_tokens`, as providers bill it. `tool_fees`: what
    one use of each of the provider's own tools costs beside tokens; `tool_uses`: how many a call is taken to make at
    most, where that shows at its end. `service_tiers`: what is paid in other tiers of the provider's service, by name.
    `others`: the prices of models that may answer a call in this one's place, by their names at the provider.
    """

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    source: str = "policy"
    tool_fees: tuple[tuple[str, int], ...] = ()
    service_tiers: tuple[tuple[str, Price], ...] = ()
    tool_uses: tuple[tuple[str, int], ...] = ()
    others: tuple[tuple[str, Price], ...] = ()

    def of_model(self, name: str) -> Price | None:
        """What the model of this name costs, which the provider may date (`NAME-20260615`); "": the asked one. None:
        nobody knows."""
        if not name:
            return self
        known = dict(self.others)
        return known.get(name) or known.get(_DATED.sub("", name))

    def served(self, service_tier: str) -> Price | None:
        """The price of a call in this tier of service, which knows those of the others; None: undeclared. What is free
        in the ordinary one is so in any, and every price but one of a tier's is that of the ordinary one."""
        if self.free and not self._of_a_tier:
            return self
        found = next((price for name, price in self.service_tiers if name == service_tier), None)
        if found is None:
            return self if service_tier == ORDINARY_TIER and not self._of_a_tier else None
        if service_tier == ORDINARY_TIER:
            return found
        rest = self.service_tiers if self._of_a_tier else ((ORDINARY_TIER, self), *self.service_tiers)
        return replace(found, service_tiers=rest)

    @property
    def _of_a_tier(self) -> bool:
        return any(name == ORDINARY_TIER for name, _ in self.service_tiers)

    def times(self, factor: Decimal) -> Price:
        """The same price with all rates multiplied, rounded up; fees of tools stay."""
        tiers = tuple((above, rates.times(factor)) for above, rates in self.tiers)
        return replace(self, base=self.base.times(factor), tiers=tiers, service_tiers=())

    def fee_nano(self, tool: str) -> int | None:
        """What one use of this tool of the provider's costs; None: undeclared. Where tokens are free, so are tools."""
        for name, nano in self.tool_fees:
            if name == tool:
                return nano
        return 0 if self.free else None

    def rates(self, input_tokens: int) -> Rates:
        """The rates in force for a request with this many input tokens."""
        chosen = self.base
        for above, rates in self.tiers:
            if input_tokens > above:
                chosen = rates
        return chosen

    def for_media(self, *, hears: bool, speaks: bool) -> Price:
        """The price of a call with sound in it, or that asks for sound or pictures."""

        def media(rates: Rates) -> Rates:
            plain: dict[str, int] = {member.name: getattr(rates, member.name) for member in fields(Rates)}
            return MediaRates(**plain, hears=hears, speaks=speaks)

        return replace(self, base=media(self.base), tiers=tuple((above, media(rates)) for above, rates in self.tiers))

    @property
    def knows_caches(self) -> bool:
        """True when the provider's cache can be used and all of it be paid for: its undeclared rates are not priced."""
        return self.free or (self.base.cache_read is not None and self.base.cache_write is not None)

    @property
    def free(self) -> bool:
        """True when no token of any kind costs anything."""
        every = (self.base, *(rates for _, rates in self.tiers))
        return not any(rates.dearest_input or rates.dearest_output for rates in every) and not any(
            rates.audio_input or rates.audio_output or rates.image_output for rates in every
        )


FREE = Price(Rates(0, 0), source="free")


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call as billed. `input` includes cached and cache-write tokens (each once);
    `output` includes reasoning. `cost_nano` is the provider's own figure, where it reports one; `tools` says how often
    it used which of its own tools, which it bills beside tokens (0: it says that it did not). `audio_input` is part of
    the input that was not cached; `audio_output`, `image_output` are parts of the output that are no reasoning.
    `by_model`: what is billed of which model (`Price.of_model`), where more than one ran or another answered."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    cost_nano: int | None = None
    tools: tuple[tuple[str, int], ...] = ()
    audio_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    by_model: tuple[tuple[str, Usage], ...] = ()


def added(one: Usage, other: Usage) -> Usage:
    """Two reports on different parts of one output: the same input, the outputs together."""
    costs = [usage.cost_nano for usage in (one, other) if usage.cost_nano is not None]
    return Usage(
        max(one.input, other.input),
        one.output + other.output,
        max(one.cache_read, other.cache_read),
        max(one.cache_write, other.cache_write),
        max(one.cache_write_1h, other.cache_write_1h),
        one.reasoning + other.reasoning,
        sum(costs) if costs else None,
        tools=_together(one.tools, other.tools) if one.tools or other.tools else (),
        audio_input=max(one.audio_input, other.audio_input),
        audio_output=one.audio_output + other.audio_output,
        image_output=one.image_output + other.image_output,
    )


def _together(one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    total = dict(one)
    for tool, times in other:
        total[tool] = total.get(tool, 0) + times
    return tuple(total.items())


def tools_cost(price: Price, tools: Iterable[tuple[str, int]]) -> int:
    """What the provider's own tools cost in nano-dollars; one whose fee is undeclared adds nothing."""
    return sum(times * (price.fee_nano(tool) or 0) for tool, times in tools)


def cost_nano(price: Price, usage: Usage) -> int:
    """What this usage costs in nano-dollars, rounded up once from the exact total (of each model where several ran)."""
    if usage.by_model:
        each = (cost_nano(price.of_model(name) or price, part) for name, part in usage.by_model)
        return sum(each) + tools_cost(price, usage.tools)
    rates = price.rates(usage.input)
    cached = usage.cache_read + usage.cache_write + usage.cache_write_1h
    write_1h_rate = rates.cache_write if rates.cache_write_1h is None else rates.cache_write_1h
    reasoning_rate = rates.output if rates.reasoning is None else rates.reasoning
    fresh, said = max(usage.input - cached, 0), max(usage.output - usage.reasoning, 0)
    total = (
        fresh * rates.input
        + usage.cache_read * (rates.cache_read or 0)
        + usage.cache_write * (rates.cache_write or 0)
        + usage.cache_write_1h * (write_1h_rate or 0)
        + said * rates.output
        + min(usage.reasoning, usage.output) * reasoning_rate
    )
    if usage.audio_input or usage.audio_output or usage.image_output:
        total += _beyond_plain(rates, usage, fresh, said)
    return -(-total // TOKENS_PER_PRICE) + (tools_cost(price, usage.tools) if usage.tools else 0)


def _beyond_plain(rates: Rates, usage: Usage, fresh: int, said: int) -> int:
    """What sound and pictures cost beyond plain tokens (less than 0: they are cheaper), per million."""
    heard = min(usage.audio_input, fresh)
    spoken = min(usage.audio_output, said)
    drawn = min(usage.image_output, said - spoken)
    total = 0
    for tokens, rate, plain in (
        (heard, rates.audio_input, rates.input),
        (spoken, rates.audio_output, rates.output),
        (drawn, rates.image_output, rates.output),
    ):
        if rate is not None:
            total += tokens * (rate - plain)
    return total


def tokens_cost(tokens: int, rate: int) -> int:
    """Cost in nano-dollars of `tokens` at `rate` (nano-dollars per million), rounded up."""
    return -(-tokens * rate // TOKENS_PER_PRICE)


def expected_nano(price: Price, input_tokens: int, output_tokens: int) -> int:
    """What tokens of both kinds would cost in nano-dollars at plain rates, each kind rounded up: `tokens_cost` of both,
    written out because every candidate of every call is asked."""
    rates = price.rates(input_tokens) if price.tiers else price.base
    return -(-input_tokens * rates.input // TOKENS_PER_PRICE) - (-output_tokens * rates.output // TOKENS_PER_PRICE)


def affordable_tokens(nano: int, rate: int) -> int:
    """How many tokens at `rate` fit into `nano` nano-dollars; `rate` must be positive."""
    return max(nano, 0) * TOKENS_PER_PRICE // rate


def default_model_cap(price: Price) -> int | None:
    """The cap of a model whose policy names none: min($0.50, 64 input_per_1k + 32 output_per_1k).

    Free models have none. The formula is the one agent benchmarks of the field use (shared PARTS.md).
    """
    if price.free:
        return None
    per_1k = TOKENS_PER_PRICE // 1000
    return min(NANO_PER_USD // 2, -(-(64 * price.base.input + 32 * price.base.output) // per_1k))
