"""Counting tokens without a tokenizer: fast estimates, corrected by what providers report.

Output is counted in *pieces*: what a byte-pair tokenizer of the GPT family would roughly emit
(a word with its leading space, up to three digits, a run of punctuation, one character of other
scripts). Per model, `Calibration` learns the ratio of billed tokens to pieces, and of billed
input tokens to prompt bytes, and leans to the safe side by their spread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PIECE = re.compile(r" ?[A-Za-z]{1,12}|\d{1,3}|[^\x00-\x7f]| ?[^\sA-Za-z0-9\x80-\U0010ffff]{1,3}|\s{2,}|\n")
_SHORT_CHARS = 8
_MANY_CHARS = 4096

BYTES_PER_INPUT_TOKEN = 3.3
"""Prompts as JSON run from 2.5 (code, digits) to 4.8 (English) bytes a token in o200k_base: start low, calibrate."""
TOKENS_PER_MESSAGE = 5
"""Chat templates add three to five tokens a message (OpenAI cookbook, "How to count tokens")."""
TOKENS_PER_IMAGE = 1105
"""OpenAI bills 85 + 170 per 512-pixel tile: 1,105 for a 2048 x 1024 picture at high detail
(https://platform.openai.com/docs/guides/images-vision)."""
MAX_RATIO = 8.0
PRIOR_WEIGHT = 3
"""The starting value counts as this many observations."""


def pieces(text: str) -> int:
    """Estimated tokens of one streamed delta; a non-empty delta is at least one.

    Short deltas without inner white space are one token: providers stream token by token. Long
    texts are counted by length, so that the cost stays bounded.
    """
    length = len(text)
    if length <= _SHORT_CHARS and not any(c.isspace() for c in text[1:-1]) and text.isascii():
        return 1 if length else 0
    if length > _MANY_CHARS:
        head = len(_PIECE.findall(text[:_MANY_CHARS]))
        return -(-head * length // _MANY_CHARS)
    return max(len(_PIECE.findall(text)), 1)


@dataclass(slots=True)
class Ratio:
    """A running mean and spread of a positive ratio, exponentially forgetting (weight 1/8 after the first five)."""

    mean: float
    spread: float
    seen: int = 0

    def learn(self, value: float) -> None:
        """Take in one observation; wild values are clipped, so that one bad report cannot take over."""
        value = min(max(value, 1 / MAX_RATIO), MAX_RATIO)
        self.seen += 1
        weight = max(1 / (self.seen + PRIOR_WEIGHT), 0.125)
        self.spread += weight * (abs(value - self.mean) - self.spread)
        self.mean += weight * (value - self.mean)

    @property
    def upper(self) -> float:
        """The mean plus twice the mean absolute deviation: about the 95th percentile."""
        return self.mean + 2 * self.spread


@dataclass(slots=True)
class Calibration:
    """What one model's provider has taught us: billed tokens per piece, and per estimated input token."""

    output: Ratio
    input: Ratio

    @classmethod
    def fresh(cls) -> Calibration:
        """Before any report: pieces are tokens; input is taken a quarter dearer than estimated."""
        return cls(Ratio(1.0, 0.0), Ratio(1.0, 0.125))

    def learn(self, *, out_pieces: int, out_tokens: int, in_estimate: int, in_tokens: int) -> None:
        """Learn from one finished call's usage; tiny samples say nothing about a ratio."""
        if out_pieces >= 8 and out_tokens > 0:
            self.output.learn(out_tokens / out_pieces)
        if in_estimate >= 8 and in_tokens > 0:
            self.input.learn(in_tokens / in_estimate)

    def input_tokens(self, estimate: int) -> int:
        """The input tokens to reserve for: leaning high."""
        return int(estimate * self.input.upper) + 1

    @property
    def output_permille(self) -> int:
        """Tokens per 1,000 pieces, leaning high: an integer, so that the meter stays exact."""
        return max(int(self.output.upper * 1000), 1)


def estimate_input(text_bytes: int, messages: int, images: int) -> int:
    """Estimated input tokens of a request, before calibration."""
    return int(text_bytes / BYTES_PER_INPUT_TOKEN) + TOKENS_PER_MESSAGE * messages + TOKENS_PER_IMAGE * images + 3
