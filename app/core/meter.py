"""The meter of one call: a running cost in integers, exact as soon as the provider says so."""

from __future__ import annotations

from app.core.money import TOKENS_PER_PRICE, Price, Usage, cost_nano

FAR_TOKENS = 1024
"""Without usage, a stop this far below our clamp is the model's own."""
CLAMP_SLACK_TOKENS, CLAMP_SLACK_PARTS = 4, 20
"""A stop this near below the clamp (four tokens, or one part in twenty) is the clamp's: some providers leave the
last token, or thinking they hide, out of their count."""


class Meter:
    """Adds up one attempt at one candidate.

    Until usage arrives the output is estimated: pieces times the model's calibration. A usage report
    replaces the estimate whole (reports are cumulative: the larger output wins); pieces seen after it
    are added on top. The running cost never falls between reports. Without a price, and without a cost
    named by the provider, only tokens are metered: the cost is None.
    """

    __slots__ = ("_fixed_nano", "_permille", "_pieces_since", "_rate", "input_tokens", "pieces", "price", "usage")

    def __init__(self, price: Price | None, input_tokens: int, output_permille: int) -> None:
        self.price = price
        self.input_tokens = input_tokens
        self.pieces = 0
        self.usage: Usage | None = None
        self._permille = output_permille
        self._pieces_since = 0
        self._fixed_nano = 0
        self._rate = 0
        if price is not None:
            rates = price.rates(input_tokens)
            self._rate = rates.dearest_output
            self._fixed_nano = -(-input_tokens * rates.dearest_input // TOKENS_PER_PRICE)

    def add(self, pieces: int) -> None:
        """Count the pieces of one event, of any kind and any choice."""
        self.pieces += pieces
        self._pieces_since += pieces

    def report(self, usage: Usage, *, final: bool = True) -> None:
        """Take a usage report of the provider. One that says less than was seen changes nothing.

        With `final` false more may come: such a report is news only if its output has grown.
        """
        if not usage.output and self.pieces:
            return  # a placeholder that some servers put on every chunk
        if self.usage is not None:
            grown = usage.output - self.usage.output
            if grown < 0 or (not grown and self._pieces_since and not final):
                return
        self.usage = usage
        self._pieces_since = 0
        if self.price is not None:
            self._fixed_nano = cost_nano(self.price, usage)
        # Zero for a model that has a price is a provider that does not know, or bills elsewhere.
        if usage.cost_nano or (usage.cost_nano is not None and self.price is None):
            self._fixed_nano = usage.cost_nano

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
    def unpriced(self) -> bool:
        """True when the provider has billed what has no declared price: searches, where only tokens have one."""
        usage, price = self.usage, self.price
        if usage is None or not usage.searches or price is None or price.search_nano is not None:
            return False
        return not usage.cost_nano

    @property
    def cost_nano(self) -> int | None:
        """What to settle: None when the price is unknown and the provider named no cost."""
        if self.price is None and (self.usage is None or self.usage.cost_nano is None):
            return None
        return self.running_nano


def stopped_near(meter: Meter, clamp_tokens: int) -> bool:
    """True where a reply ended so near our clamp that the clamp may have ended it; the model's own window may end one
    earlier, and usage tells the two apart, or an estimate far below."""
    slack = max(CLAMP_SLACK_TOKENS, clamp_tokens // CLAMP_SLACK_PARTS)
    return meter.output_tokens >= clamp_tokens - (slack if meter.exact else max(clamp_tokens // 2, FAR_TOKENS))
