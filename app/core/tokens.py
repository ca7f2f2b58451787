"""Counting tokens without a tokenizer: fast estimates, corrected by what providers report.

Output is counted in *pieces*: what a byte-pair tokenizer of the GPT family would roughly emit, from
three counts that run in C, since it is done for every event. Per model, `Calibration` learns the ratio of
billed tokens to pieces, and of billed input tokens to prompt bytes, and leans to the safe side by their spread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_SHORT_CHARS = 8
_ORDINARY = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ "
_LETTERS_PER_PIECE = 8

BYTES_PER_INPUT_TOKEN = 3.3
"""Prompts as JSON run from 2.5 (code, digits) to 4.8 (English) bytes a token in o200k_base: start low, calibrate."""
TOKENS_PER_MESSAGE = 5
"""Chat templates add three to five tokens a message (OpenAI cookbook, "How to count tokens")."""
TOKENS_PER_ATTACHMENT = 1105
"""OpenAI bills 85 + 170 per 512-pixel tile: 1,105 for a 2048 x 1024 picture at high detail
(https://platform.openai.com/docs/guides/images-vision). Audio and files are taken as one picture each: usage
settles them."""
MAX_RATIO = 8.0
PRIOR_WEIGHT = 3
"""The starting value counts as this many observations."""


def pieces(text: str) -> int:
    """Estimated tokens of one streamed delta; a non-empty delta is at least one.

    Short deltas without inner white space are one token: providers stream token by token. Otherwise words count
    one each (long ones more), signs and digits one for two, characters beyond ASCII one each.
    """
    if not text:
        return 0
    length = len(text)
    if not text.isascii():
        ascii_part = text.encode("ascii", "ignore")
        return length - len(ascii_part) + (pieces(ascii_part.decode()) if ascii_part else 0)
    if length <= _SHORT_CHARS and " " not in text[1:-1]:
        return 1
    # A run of spaces counts with the word behind it: an indent is one token however wide.
    words = text.split()
    signs = len(text.encode().translate(None, _ORDINARY))
    letters = len("".join(words)) - signs
    return max(len(words), letters // _LETTERS_PER_PIECE) + (signs + 1) // 2 or 1


@dataclass(slots=True)
class Ratio:
    """A running mean and spread of a positive ratio, exponentially forgetting (weight 1/8 after the first five)."""

    mean: float
    spread: float
    seen: int = 0
    upper: float = field(init=False)
    """The mean plus twice the mean absolute deviation: about the 95th percentile."""

    def __post_init__(self) -> None:
        self.upper = self.mean + 2 * self.spread

    def learn(self, value: float) -> None:
        """Take in one observation; wild values are clipped, so that one bad report cannot take over."""
        value = min(max(value, 1 / MAX_RATIO), MAX_RATIO)
        self.seen += 1
        weight = max(1 / (self.seen + PRIOR_WEIGHT), 0.125)
        self.spread += weight * (abs(value - self.mean) - self.spread)
        self.mean += weight * (value - self.mean)
        self.upper = self.mean + 2 * self.spread


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


def estimate_input(text_bytes: int, messages: int, attachments: int) -> int:
    """Estimated input tokens of a request, before calibration."""
    text_tokens = int(text_bytes / BYTES_PER_INPUT_TOKEN)
    return text_tokens + TOKENS_PER_MESSAGE * messages + TOKENS_PER_ATTACHMENT * attachments + 3
