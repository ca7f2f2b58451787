"""The meter of one call: a running cost in integers, exact as soon as the provider says so."""

from __future__ import annotations

import dataclasses

import msgspec

from app.core.money import TOKENS_PER_PRICE, Price, Rates, Usage, added, cost_nano, tokens_cost, tools_cost

FAR_TOKENS = 1024
"""Without usage, a stop this far below our clamp is the model's own."""
CLAMP_SLACK_TOKENS, CLAMP_SLACK_PARTS = 4, 20
"""A stop this near below the clamp (four tokens, or one part in twenty) is the clamp's: some providers leave the
last token, or thinking they hide, out of their count."""

RESULT_TOKENS = {"web_search": 8_000, "file_search": 16_000}
"""Input that one use of a tool is taken to add, until the provider says: what it finds goes to the model. OpenAI bills
some models this block for each web search (https://platform.openai.com/docs/pricing), Anthropic's own example reads
7,300; of files it takes 20 pieces of 800 tokens (https://platform.openai.com/docs/guides/tools-file-search)."""
MOST_TOKENS = 100_000_000
"""No reply has more: a larger count is a counter that ran below nought, or past its end."""
LEAST_REPORTS = 5
"""Reports from which it may be seen that each counts its own chunk only."""


class Meter:
    """Adds up one attempt at one candidate.

    Until usage arrives the output is estimated: pieces times the model's calibration. A usage report replaces the
    estimate whole (reports are cumulative: the larger output wins; those of a provider that reports each chunk alone
    are added up: `summed`); pieces seen after it are added on top. The running cost never falls between reports.
    Without a price, and without a cost named by the provider, only tokens are metered: the cost is None.

    `tools`: uses of the provider's own tools that are sure before it says a word (`sure`), or were seen (`ran`); what a
    report says of a tool replaces what was seen of it by then. `ran_nano`: what those seen were taken to cost.
    """

    __slots__ = (
        "_fixed_nano",
        "_permille",
        "_pieces_since",
        "_rate",
        "_reported",
        "_tools",
        "input_tokens",
        "pieces",
        "price",
        "ran_nano",
        "summed",
        "usage",
    )

    def __init__(
        self, price: Price | None, input_tokens: int, output_permille: int, sure: tuple[tuple[str, int], ...] = ()
    ) -> None:
        self.price = price
        self.input_tokens = input_tokens
        self.pieces = 0
        self.usage: Usage | None = None
        self.summed = False
        self._reported: _Reported | None = None
        self._permille = output_permille
        self._pieces_since = 0
        self._fixed_nano = 0
        self._rate = self.ran_nano = 0
        self._tools = dict(sure) if sure else None
        if price is not None:
            rates = price.rates(input_tokens)
            self._rate = rates.dearest_output
            self._fixed_nano = -(-input_tokens * rates.dearest_input // TOKENS_PER_PRICE)
            if sure:
                self._fixed_nano += tools_cost(price, sure)

    def add(self, pieces: int) -> None:
        """Count the pieces of one event, of any kind and any choice."""
        self.pieces += pieces
        self._pieces_since += pieces

    def ran(self, tool: str) -> None:
        """The provider has used one of its own tools once, and read what came of it."""
        if self._tools is None:
            self._tools = {}
        self._tools[tool] = self._tools.get(tool, 0) + 1
        if self.price is not None:
            nano = use_nano(self.price, self.price.rates(self.input_tokens), tool)
            self._fixed_nano += nano
            self.ran_nano += nano

    def serve(self, tier: str) -> None:
        """The provider says in which tier of its service it served the call, which may be another than was asked for:
        it bills that one (https://platform.openai.com/docs/api-reference/chat/object, `service_tier`). Where nobody has
        declared its price, that of the one asked for stays. Of models that may answer in its place, each its own."""
        price = self.price
        if price is None or not (price.service_tiers or price.others):
            return
        served = price.served(tier) or price
        if price.others:
            others = tuple((name, other.served(tier) or other) for name, other in price.others)
            served = dataclasses.replace(served, others=others)
        if served is not price:
            self.price = served
            every = (served, *(other for _, other in served.others))
            self._rate = max(one.rates(self.input_tokens).dearest_output for one in every)

    def handed_over(self) -> None:
        """The model declined, and another reads the input again to answer in its place: what both read is billed."""
        if self.price is not None:
            self._fixed_nano += tokens_cost(self.input_tokens, self.price.rates(self.input_tokens).dearest_input)

    def report(self, usage: Usage, *, final: bool = True) -> bool:
        """Take a usage report of the provider; True where its counts are those that hold now. One that says less than
        was seen, or what cannot be, changes nothing.

        With `final` false more may come: such a report is news only if its output has grown.
        """
        alone = True
        if not usage.output and self.pieces:
            return False  # a placeholder that some servers put on every chunk
        if usage.output > MOST_TOKENS or usage.input > MOST_TOKENS:
            return False
        if self._reported is None:
            self._reported = _Reported(usage, self.pieces)
        elif (total := self._reported.with_next(usage, self.pieces)) is not None:
            usage, final, self.summed, alone = total, True, True, False
        if self.usage is not None:
            grown = usage.output - self.usage.output
            if grown < 0 or (not grown and self._pieces_since and not final):
                return False
        if self._tools is not None:
            self._tools.update(usage.tools)
            usage = msgspec.structs.replace(usage, tools=tuple(self._tools.items()))
        elif usage.tools:
            self._tools = dict(usage.tools)
        self.usage = usage
        self._pieces_since = 0
        if self.price is not None:
            self._fixed_nano = cost_nano(self.price, usage)
        # Zero for a model that has a price is a provider that does not know, or bills elsewhere.
        if usage.cost_nano or (usage.cost_nano is not None and self.price is None):
            self._fixed_nano = usage.cost_nano
        return alone

    @property
    def running_nano(self) -> int:
        """The cost so far: estimated before a report, exact after one."""
        if not self._pieces_since:
            return self._fixed_nano
        return self._fixed_nano - (-self._pieces_since * self._permille * self._rate // (1000 * TOKENS_PER_PRICE))

    @property
    def output_tokens(self) -> int:
        """Output tokens so far, estimated or exact."""
        base = self.usage.output if self.usage is not None else 0
        return base - (-self._pieces_since * self._permille // 1000)

    @property
    def exact(self) -> bool:
        """True when the provider's own usage covers everything seen."""
        return self.usage is not None and not self._pieces_since

    @property
    def tools(self) -> tuple[tuple[str, int], ...]:
        """How often the provider used which of its own tools, as far as is known."""
        return () if self._tools is None else tuple(self._tools.items())

    @property
    def unpriced(self) -> bool:
        """True when the provider has billed what has no declared price: its tools, where only tokens have one, or a
        model that answered in another's place."""
        price = self.price
        if price is None or (self.usage is not None and self.usage.cost_nano):
            return False
        if self.usage is not None and any(price.of_model(name) is None for name, _ in self.usage.by_model):
            return True
        return self._tools is not None and any(
            times and price.fee_nano(tool) is None for tool, times in self._tools.items()
        )

    @property
    def cost_nano(self) -> int | None:
        """What to settle: None when the price is unknown and the provider named no cost."""
        if self.price is None and (self.usage is None or self.usage.cost_nano is None):
            return None
        return self.running_nano


def use_nano(price: Price, rates: Rates, tool: str) -> int:
    """What one use of this tool of the provider's is taken to cost: its fee, and what it adds to the input."""
    fee = price.fee_nano(tool)
    return fee + tokens_cost(RESULT_TOKENS.get(tool, 0), rates.dearest_input) if fee else 0


class _Reported:
    """The reports of one reply so far: whether they count each chunk alone, which no provider says."""

    __slots__ = ("_adds", "_count", "_largest", "_last", "_pieces", "_stalled", "_total")

    def __init__(self, usage: Usage, pieces: int) -> None:
        self._total = usage
        self._count, self._stalled, self._adds = 1, 0, False
        self._last = self._largest = usage.output
        self._pieces = pieces

    def with_next(self, usage: Usage, pieces: int) -> Usage | None:
        """The sum of all reports with this one, if they are to be added up: most did not grow while more was said, even
        the largest is less than half of what was seen, and the sum is about that."""
        self._stalled += pieces > self._pieces and usage.output <= self._last
        self._count += 1
        self._last, self._pieces = usage.output, pieces
        self._largest = max(self._largest, usage.output)
        self._total = added(self._total, usage)
        total = self._total.output
        self._adds = self._adds or (self._count >= LEAST_REPORTS and 2 * self._stalled >= self._count - 1)
        plausible = 2 * self._largest < pieces <= 2 * total and total <= 2 * pieces
        return self._total if self._adds and plausible else None


def stopped_near(meter: Meter, clamp_tokens: int) -> bool:
    """True where a reply ended so near our clamp that the clamp may have ended it; the model's own window may end one
    earlier, and usage tells the two apart, or an estimate far below."""
    slack = max(CLAMP_SLACK_TOKENS, clamp_tokens // CLAMP_SLACK_PARTS)
    return meter.output_tokens >= clamp_tokens - (slack if meter.exact else max(clamp_tokens // 2, FAR_TOKENS))
