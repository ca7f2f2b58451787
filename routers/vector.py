"""A request as numbers: a fixed vector read off its surface, and the terms of its text.

Both come from the text that `routers.features.extract` read, so their cost is bounded with it. Counts enter as
logarithms, because the tenth sign of a kind tells less than the first, and everything is scaled and clipped by what
training saw: a request unlike any of the training data lands at the edge of what is known and not beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log1p
from typing import Any, Final

from msgspec.structs import astuple

from routers.features import Features, Instructions, Topics, words_of

MAX_WORDS: Final = 320
"""Words whose terms are looked up: more than an excerpt of ordinary text holds."""

SURFACE: Final = (
    "chars", "words", "lines", "non_latin", "digits", "symbols", "long_words", "fences", "code_lines", "math_marks",
    "options", "has_options", "many_options", "items", "questions",
    *(f"topic_{name}" for name in Topics.__struct_fields__),
    *(f"instruction_{name}" for name in Instructions.__struct_fields__),
    "tools", "tool_schema", "word_length", "variety", "capitals", "negation", "blanks", "quotes", "commas", "stops",
    "numbers", "equals", "dollars", "asks_which", "statements", "tool_words",
)  # fmt: skip
"""The names of the vector's places, in order."""

_NEGATIONS: Final = frozenset({b"not", b"except", b"least", b"false", b"incorrect", b"never", b"neither", b"without"})
_CAPITALS: Final = bytes(range(65, 91))


def surface(features: Features, words: Sequence[bytes]) -> list[float]:
    """The vector of a request whose excerpt has these words; `SURFACE` names its places."""
    f = features
    raw = f.excerpt.encode("utf-8", "replace")
    distinct = set(words)
    count = len(words) or 1
    return [
        log1p(f.chars), log1p(f.words), log1p(f.lines), f.non_latin, f.digits, f.symbols, f.long_words,
        log1p(f.fences), log1p(f.code_lines), log1p(f.math_marks),
        min(f.options, 10) / 10, f.options >= 3, f.options > 4, log1p(f.items), log1p(f.questions),
        *map(log1p, astuple(f.topics)),
        *map(log1p, astuple(f.instructions)),
        log1p(f.n_tools), log1p(f.tool_schema_chars),
        sum(map(len, words)) / count, len(distinct) / count,
        log1p(len(raw) - len(raw.translate(None, _CAPITALS))),
        not _NEGATIONS.isdisjoint(distinct),
        log1p(raw.count(b"_")), log1p(raw.count(b'"')), log1p(raw.count(b",")), log1p(raw.count(b".")),
        log1p(sum(map(bytes.isdigit, distinct))), log1p(raw.count(b"=")), log1p(raw.count(b"$")),
        b"which" in distinct, b"statement" in distinct, log1p(f.tool_schema_chars / (1 + f.n_tools)),
    ]  # fmt: skip


def excerpt_words(features: Features) -> list[bytes]:
    """The words of what was read, lowered, in order."""
    return words_of(features.excerpt)[:MAX_WORDS]


def terms(words: Sequence[bytes]) -> set[bytes]:
    """The distinct words and pairs of neighbouring words."""
    return {*words, *map(b" ".join, pairwise(words))}


def vocabulary(joined: Any) -> dict[bytes, int]:
    """Terms to their places, from the bytes in which an artifact keeps them, one term a line."""
    terms = bytes(joined).split(b"\n") if len(joined) else []  # few rows have no term worth keeping
    return {term: place for place, term in enumerate(terms)}
