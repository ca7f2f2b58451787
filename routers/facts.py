"""What the name of a model tells about it: its line, size, age, kind and, where recalled, its price.

Evaluation data hold only names, and a policy may hold little more. Everything is a guess that a prior over abilities
turns into a broad distribution; what a name does not tell is None, never a default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import log2, sqrt
from typing import Final, NamedTuple

from routers.base import MIN_TIER, Arm, family_of, reasons_by_default, tier_of_rates
from routers.facts_ratings import RATINGS
from routers.facts_table import KNOWN, NEWEST, Known

MAX_NAME_CHARS: Final = 200
NANO: Final = 10**9
LAST_BARE: Final = 2024.9
GUESSED_TIERS: Final = 5
"""No guess goes beyond the frontier and one above: the rest of the scale is for who knows better."""

_KNOWN: Final = tuple((re.compile(rf"(?<!\d)(?:{known.pattern})(?!\d)"), known) for known in KNOWN)
_RATED: Final = tuple((re.compile(rf"(?<!\d)(?:{pattern})(?!\d)"), float(points)) for pattern, points in RATINGS)
_TOKENS: Final = re.compile(r"[a-z]+|\d+")
POINT: Final = re.compile(r"(?<=\d)p(?=\d)")
"""Fireworks writes "v3p1" for 3.1."""
_EXPERTS: Final = re.compile(r"(?<![a-z\d.])(\d{1,3})\s?x\s?(\d{1,3}(?:\.\d+)?)\s?b(?![a-z])")
_BILLIONS: Final = re.compile(r"(?<![\d.])(\d{1,4}(?:\.\d{1,3})?)\s?b(?![a-z])")
_ACTIVE: Final = re.compile(r"(?<![a-z\d])a(\d{1,3}(?:\.\d{1,2})?)\s?b(?![a-z])")
_MILLIONS: Final = re.compile(r"(?<![\d.])(\d{2,3})\s?m(?![a-z])")
_DATE: Final = re.compile(r"(?<!\d)(20[2-3]\d)[-_ ]?(0[1-9]|1[0-2])(?:[-_ ]?(?:[0-2]\d|3[01]))?(?!\d)")
_SHORT_DATE: Final = re.compile(r"(?<!\d)(2[2-9])[-_]?(0[1-9]|1[0-2])(?:[-_]?(?:[0-2]\d|3[01]))?(?!\d)")
_VERSION: Final = re.compile(r"^(?: [a-z]{1,8}){0,2} (?:v )?(\d{1,2})(?: (\d))?\b(?! ?[btx]\b)")
_SERVED: Final = re.compile(r"^(?:mistral(?:ai)?[^a-z])?open[^a-z]mi[sx]tral|(?:^|/)llama[23]")
"""Mistral's own names for its open models, and hosts' for Llama ("llama3.1-8b"; Meta's have a hyphen): none untuned."""
_BASE: Final = re.compile(
    r"\bbase\b|(?<!chat )(?<!instruct )\bhf$|"
    r"\b(?:pythia|llemma|gpt (?:j|neo|neox)|opt \d|bloom|(?:star|santa)coder|codegen)\b(?!.*(?:inst|chat))"
)
_BARE: Final = re.compile(r"\d b(?: v 0 \d)?$")
_TAG: Final = re.compile(r":(?:\d+x)?\d+(?:\.\d+)?b$")
"""Ollama's names: what is tagged by its size alone is tuned."""
_TUNED: Final = re.compile(
    r"instruct|inst\b|chat|\bit\b|sft|dpo|simpo|hermes|nemotron|athene|cogito|\br 1|coder v 2|gemma 2|stral 7 b$|"
    r"mathstral"
)
_OPEN_BASES: Final = frozenset({"llama", "mistral", "mixtral", "qwen", "gemma", "codegemma", "yi", "phi", "deepseek"})
_CODE: Final = re.compile(r"code|coder|codex|devstral|codestral|starcoder|swe\b")
_TOOLS: Final = re.compile(r"\bfc\b|function|xlam|raven|tool")
_OFF: Final = re.compile(r"non (?:reasoning|thinking)|no (?:reasoning|thinking)|instant\b")
_EFFORT: Final = re.compile(r"\b(minimal|low|medium|high|xhigh)\b(?: reasoning| effort|$| \d{4})")
_AGENT: Final = re.compile(r"20\d{6}_")
_LINES: Final = re.compile(
    r"\b(yi|reka|dbrx|arctic|olmo|falcon|solar|hermes|xlam|functionary|athene|sonnet|opus|haiku)\b"
)
_CLAUDE: Final = frozenset({"sonnet", "opus", "haiku"})


@dataclass(frozen=True, slots=True)
class Facts:
    """`family`: a model line, "" when unknown. `released`: year and fraction. `size_b`, `active_b`: parameters in
    billions, all and those active per token. `input_price`, `output_price`: dollars per million tokens near
    release. `tuned`: False for a bare base model. `tools`: a mode or a model made for function calls. `rating`: points
    in `facts_ratings`."""

    family: str = ""
    released: float | None = None
    size_b: float | None = None
    active_b: float | None = None
    input_price: float | None = None
    output_price: float | None = None
    reasoning: bool = False
    tuned: bool = True
    code: bool = False
    tools: bool = False
    rating: float | None = None

    @property
    def effective_b(self) -> float | None:
        """The size of a dense model of like ability, in billions: the geometric mean of all and active parameters,
        a common rule of thumb for mixtures of experts."""
        if self.size_b is None:
            return None
        return sqrt(self.size_b * (self.active_b or self.size_b))

    @property
    def blank(self) -> bool:
        """The name tells nothing of how able the model is."""
        return self.size_b is None and self.input_price is None and self.released is None

    @property
    def blended_price(self) -> float | None:
        """Dollars per million tokens, three of input to one of output."""
        if self.input_price is None or self.output_price is None:
            return None
        return 0.75 * self.input_price + 0.25 * self.output_price


def spelled(name: str) -> str:
    """A name in lower case with letters and numbers apart: "Claude3.5-Sonnet" -> "claude 3 5 sonnet"."""
    return " ".join(_TOKENS.findall(name[:MAX_NAME_CHARS].lower())).replace("llama v ", "llama ")


@lru_cache(maxsize=4096)
def facts_of(name: str) -> Facts:
    """What a model's name tells; any string will do."""
    raw = POINT.sub(".", name[:MAX_NAME_CHARS].lower())
    words = spelled(raw)
    family = line_of(raw)
    known = _known(words)
    size, active = _size(raw)
    if size is None and known is not None and known.size is not None:
        size, active = known.size
    elif size is not None and known is not None and known.size is not None:
        if size == known.size[1]:  # Llama 4's names state what is active
            size, active = known.size
        elif 0.8 < known.size[0] / size < 1.25:
            active = known.size[1]
        else:
            known = known._replace(price=None)  # a distillation that bears the name of its teacher
    another = _bears_a_name(known, size)
    released = _released(raw, words, known, family)
    price = known.price if known is not None else None
    tuned = _tuned(raw, words, family, released)
    if price is None and size is not None:
        price = _hosted_price(size, active or size)
    return Facts(
        family,
        released,
        size,
        active,
        price[0] if price else None,
        price[1] if price else None,
        reasoning=_reasons(raw, words),
        tuned=tuned,
        code=_CODE.search(words) is not None,
        tools=_TOOLS.search(words) is not None,
        rating=_rating(words) if tuned and not another else None,
    )


@lru_cache(maxsize=4096)
def line_of(name: str) -> str:
    """`family_of`, with lines that no policy is likely to name; for names of agents, the line of their model."""
    family = family_of(name) or family_of(spelled(name).replace(" ", "-"))
    if family:
        return "gpt" if family[0] == "o" else family  # OpenAI's o1 to o4
    found = _LINES.search(spelled(name))
    if found is None:
        return ""
    return "claude" if found.group(1) in _CLAUDE else found.group(1)


class Recalled(NamedTuple):
    """What the tables hold of a name: the row that was found, and the rating."""

    known: Known | None
    rating: float | None


def recalled(name: str) -> Recalled:
    """What the tables say of a model, by its name alone."""
    words = spelled(POINT.sub(".", name.lower()))
    return Recalled(_known(words), _rating(words))


def is_agent(name: str) -> bool:
    """True for a dated submission to a leaderboard (SWE-bench's): an agent around a model, which it may name."""
    return _AGENT.match(name) is not None


def arm_of_name(name: str, price: tuple[float, float] | None = None) -> Arm:
    """An arm for a model of which only the name is known. `price`: dollars per million tokens, input and output,
    where it is known better than by recall; the tier follows it where the name tells nothing."""
    facts = facts_of(name)
    if price is None and facts.input_price is not None and facts.output_price is not None:
        price = (facts.input_price, facts.output_price)
    rates = (None, None) if price is None else (round(price[0] * NANO), round(price[1] * NANO))
    return Arm(
        name,
        tier_of_rates(*rates) if facts.blank else tier_of(facts),
        facts.family,
        input_rate=rates[0],
        output_rate=rates[1],
        reasoning=facts.reasoning,
        model=name,
    )


def tier_of(facts: Facts) -> int:
    """A guess at the tier that a policy's author would give, from size, price and age.

    By size, 7 B of 2024 is tier 2 and 400 B tier 4; by price, $0.30 is tier 2 and $10 tier 4. Two years are worth
    a tier. Unknown on all counts is 2, the tier of a small hosted model."""
    level = 2.0
    if facts.effective_b is not None:
        level += 0.36 * log2(max(facts.effective_b, 0.1) / 8.0)
    elif facts.blended_price is not None:
        level += 0.2 + 0.4 * log2(max(facts.blended_price, 0.01) / 0.3)
    if facts.released is not None:
        level += 0.5 * (facts.released - 2024.5)
    level += 0.4 * facts.reasoning - 0.3 * (not facts.tuned)
    return min(max(round(level), MIN_TIER), GUESSED_TIERS)


def _known(words: str) -> Known | None:
    for pattern, known in _KNOWN:
        if pattern.search(words):
            return known
    return None


def _bears_a_name(known: Known | None, size: float | None) -> bool:
    """True for a model of another size than the one whose name it bears: a distillation of it, say."""
    return size is not None and known is not None and known.size is not None and not 0.8 < known.size[0] / size < 1.25


def _rating(words: str) -> float | None:
    return next((points for pattern, points in _RATED if pattern.search(words)), None)


def _size(raw: str) -> tuple[float | None, float | None]:
    """All and active parameters in billions, as the name states them."""
    experts = _EXPERTS.search(raw)
    if experts is not None:
        count, each = int(experts.group(1)), float(experts.group(2))
        # Experts share the attention layers: Mixtral 8x7B has 46.7 B of 56 B, two of eight experts active.
        return (0.83 * count * each, 0.23 * count * each) if count * each else (None, None)
    stated = [float(found) for found in _BILLIONS.findall(raw) if 0.05 <= float(found) <= 5000]
    if not stated:
        small = _MILLIONS.search(raw)
        return (None, None) if small is None else (int(small.group(1)) / 1000, int(small.group(1)) / 1000)
    active = _ACTIVE.search(raw)
    total = max(stated)
    return total, min(float(active.group(1)), total) if active is not None else total


def _hosted_price(size: float, active: float) -> tuple[float, float]:
    """What hosts ask for open weights of a size, $ per million tokens: 8 B about 0.2, 70 B about 0.9."""
    price = min(max(0.045 * sqrt(size * active) ** 0.7, 0.03), 8.0)
    return price, price


def _released(raw: str, words: str, known: Known | None, family: str) -> float | None:
    stamp = _DATE.search(raw)
    dated = None
    if stamp is not None:
        dated = int(stamp.group(1)) + (int(stamp.group(2)) - 0.5) / 12
    elif family and (short := _SHORT_DATE.search(raw)) is not None:
        dated = 2000 + int(short.group(1)) + (int(short.group(2)) - 0.5) / 12
    if known is None:
        return dated if dated is not None else NEWEST if _newer(raw, family) else None
    if _newer(raw, family):
        return NEWEST
    return known.released if dated is None or dated < known.released or dated - known.released > 1 else dated


_LAST: Final = {
    "gpt": 5.2, "claude": 4.6, "gemini": 3.1, "llama": 4.0, "qwen": 3.0, "gemma": 3.0, "deepseek": 3.2, "grok": 4.1,
    "phi": 4.0, "glm": 4.7, "kimi": 2.0, "granite": 4.0, "smollm": 3.0, "nova": 2.0,
}  # fmt: skip
"""The last version of a line that `facts_table` knows."""
MAX_VERSIONS_AHEAD: Final = 10
"""A larger number is no version: "claude35sonnet"."""


def _newer(raw: str, family: str) -> bool:
    """True where the line is known and the version, which no size is, is beyond those recalled."""
    words = spelled(_BILLIONS.sub(" ", raw))
    last = _LAST.get(family)
    at = words.find(family)
    if last is None or at < 0:
        return False
    found = _VERSION.search(words[at + len(family) :])
    if found is None:
        return False
    return last < float(f"{found.group(1)}.{found.group(2) or 0}") < last + MAX_VERSIONS_AHEAD


def _reasons(raw: str, words: str) -> bool:
    if _OFF.search(words) or "minimal" in words:
        return False
    return reasons_by_default(raw.replace(" ", "-")) or (_EFFORT.search(words) is not None and "reasoning" in words)


def _tuned(raw: str, words: str, family: str, released: float | None) -> bool:
    """False for a model whose name says that it is a base model, or for weights whose name says nothing, as it was
    the custom before LAST_BARE."""
    if _BASE.search(words):
        return False
    if _SERVED.search(raw):
        return True
    bare = family in _OPEN_BASES and _BARE.search(words) is not None and not (_TUNED.search(words) or _TAG.search(raw))
    return not bare or (released or 0.0) > LAST_BARE
