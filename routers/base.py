"""What a router is: the values it reads, the score it gives, the protocol every algorithm keeps.

The caller fills one `RequestView` per request and one `Arm` per candidate, has `routers.features.extract`
read the view once, and hands the same `Features` to any number of routers. Nothing here, and nothing a
router does at serving time, reads a clock, draws a random number or waits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from routers.features import Features

MIN_TIER, MAX_TIER = 1, 9
TIER_STEPS_USD = (0.5, 2, 8, 32, 128, 512, 2048, 8192)
"""What tells tiers apart where nobody does, in dollars per million tokens, three of input to one of output."""
UNPRICED_TIER = 3
"""The tier scale of the policy: 1 is the smallest model that can follow an instruction, 4 a frontier model
of the day; 5 to 9 are room above."""


class RequestView(msgspec.Struct, frozen=True, gc=False):
    """A request as the router sees it, free of any dialect.

    Strings are passed whole: a reference costs nothing, and `extract` reads a fixed number of characters of
    each. Text parts of one message are joined with a newline; parts that are not text only count.

    `system`: system and developer messages. `first_user`, `last_user`: the text of the first and the last
    user message (the same string when there is only one); the first states the task of a long conversation,
    the last is what is asked now. `history_chars`: characters of every message other than `system` and
    `last_user`, tool calls and tool results included. `n_turns`: messages other than system ones.
    `in_tool_loop`: the last message is a tool result. `max_output_tokens`: the client's own limit per choice.
    `reasoning_effort`: the client's word for it ("none", "minimal", "low", "medium", "high", "xhigh").
    """

    last_user: str
    first_user: str = ""
    system: str = ""
    history_chars: int = 0
    n_turns: int = 1
    n_tools: int = 0
    tool_schema_chars: int = 0
    n_images: int = 0
    wants_json: bool = False
    in_tool_loop: bool = False
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """What a router may know of a candidate.

    Rates are nano-dollars per million tokens (None: unpriced); `context_tokens` and `max_output_tokens` are
    None where unknown, which is taken as unlimited. `family` is a model line as `family_of` names it.
    `reasoning`: it bills reasoning tokens before it answers. `model`: what the provider calls it, "" for as `name`.
    """

    name: str
    tier: int
    family: str = ""
    input_rate: int | None = None
    output_rate: int | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    reasoning: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        if not MIN_TIER <= self.tier <= MAX_TIER:
            raise ValueError(f"the tier of {self.name!r} must be between {MIN_TIER} and {MAX_TIER}")


class Score(msgspec.Struct, frozen=True, gc=False):
    """What a router expects of one arm on one request.

    `p_success`: probability that the answer is adequate. `confidence`: in [0, 1], how far the router trusts
    that probability; each router says what its own means. `output_tokens`: expected billed output of one
    choice, hidden reasoning included, within the limits of request and arm; at least 1 unless the request
    asks for none.
    """

    p_success: float
    confidence: float
    output_tokens: float


class Router(Protocol):
    """A scorer of arms: pure and deterministic, so that a recorded decision can be replayed.

    `name` and `version` together identify the algorithm and its weights or constants in decisions and traces.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        """One score per arm, in the order of `arms`; an empty list for no arms."""
        ...

    def surest(self, features: Features) -> float:
        """The most that the confidence of any score on this request can be, told without scoring: below what is
        asked for, the router need not be asked."""
        ...


def tier_of_rates(input_rate: int | None, output_rate: int | None) -> int:
    """The tier of a model of which nothing but the price is known, in nano-dollars per million tokens: dearer is taken
    to be abler."""
    if input_rate is None or output_rate is None:
        return UNPRICED_TIER
    return 1 + sum((3 * input_rate + output_rate) / 4 > step * 1e9 for step in TIER_STEPS_USD)


# The first match names the family; specific lines stand before the vendor's general name.
_FAMILIES = re.compile(
    r"(codestral|devstral|magistral|ministral|mixtral|mistral|deepseek|codellama|smollm|tinyllama|llama"
    r"|claude|gemini|codegemma|gemma|qwq|qwen|grok|command|jamba|granite|phi|nemotron|kimi|glm|minimax|nova"
    r"|gpt|chatgpt|\bo[1-9])(?![a-z])"
)

# Models that think before they answer unless told otherwise, by the names their vendors gave them.
_REASONING = re.compile(
    r"\bo[1-9](?![a-z0-9])|gpt-5(?!.*chat)|gpt-oss|deepseek-r\d|reasoner|reasoning|\br1\b|qwq|magistral|thinking"
    r"|gemini-(?:2\.5|3)(?!.*lite)|grok-(?:3-mini|4)|phi-4-reason|kimi-k2-think|minimax-m"
)


def family_of(model: str) -> str:
    """The model line in a model's name: "meta-llama/Llama-3.1-8B-Instruct" -> "llama"; "" when unknown."""
    found = _FAMILIES.search(model.lower())
    if found is None:
        return ""
    line = found.group(1)
    return "gpt" if line == "chatgpt" else line


def reasons_by_default(model: str) -> bool:
    """True for a model whose name says that it thinks before it answers."""
    name = model.lower()
    return _REASONING.search(name) is not None and "non-reasoning" not in name and "no-thinking" not in name
