"""How long an answer will be, in billed tokens: the request's part, the model's part, and hidden reasoning.

    log2 tokens = r(request) + verbosity(model, tool call or prose)

r is a regression on the request where requests like it were seen, and fades into the heuristic's order of magnitude
for the kind of work with the distance from them, so that a translation or a letter of 500 words
is judged as the heuristic judges it. Verbosity is the model's own where it was measured, else what models of its
line and with its facts showed, shrunk to zero. Numbers are medians: a sum of log-normal tokens has a mean that is
higher by a fifth or so, the same for every candidate. `routers.train_lengths` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf, log2
from typing import Any, Final

import numpy as np

from routers.abilities import Matrix, Vector
from routers.base import Arm
from routers.facts import facts_of, line_of
from routers.features import Features
from routers.heuristic import demand_of, hidden_tokens, visible_tokens
from routers.identity import canonical
from routers.tasks import TaskType, classify, code_strength, saturate

CALL, EXAM, CODE, QUESTION, OTHER = range(5)
KINDS: Final = ("call", "exam", "code", "question")
"""Kinds of requests that are told apart for length; the rest is the heuristic's."""
REGRESSORS: Final = 11
"""A constant, and what `describe` reads."""
VERBOSITY_FACTS: Final = ("base", "tools", "released", "size")
FAR: Final = 9.0
"""Squared distance, in standard deviations summed over the regressors beyond what is usual, at which exp(-1) of the
correction is left."""
MAX_LOG2: Final = 15.0
EPOCH: Final = 2024.5
_QUESTIONS: Final = frozenset(
    {TaskType.MATH, TaskType.SCIENCE, TaskType.PROFESSIONAL, TaskType.REASONING, TaskType.QUESTION}
)


@dataclass(frozen=True)
class LengthWeights:
    """What was learned about lengths; P = REGRESSORS, V facts of verbosity, L lines, M known models.

    `coef` (kinds, P): log2 tokens on standardised regressors, `centre`, `scale` (kinds, P) theirs, `trust` (kinds,)
    the weight of it against the heuristic at the centre. `verbosity` (2, 1 + V + L): of prose and of
    calls, from facts and lines. `known`, `known_verbosity` (2, M): measured ones, NaN where not measured.
    """

    coef: Matrix
    centre: Matrix
    scale: Matrix
    trust: Vector
    lines: tuple[str, ...]
    verbosity: Matrix
    known: tuple[str, ...]
    known_verbosity: Matrix
    _known_at: Mapping[str, int] = field(init=False, repr=False)
    _rows: tuple[tuple[tuple[float, float, float], ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known_at", {name: at for at, name in enumerate(self.known)})
        rows = zip(self.coef.tolist(), self.centre.tolist(), self.scale.tolist(), strict=True)
        object.__setattr__(self, "_rows", tuple(tuple(zip(*row, strict=True)) for row in rows))

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> LengthWeights:
        """The weights of arrays as `fit_lengths` returns and an .npz file holds them."""
        given: dict[str, Any] = {name: tuple(str(text) for text in arrays[name]) for name in ("lines", "known")}
        for name in ("coef", "centre", "scale", "trust", "verbosity", "known_verbosity"):
            given[name] = np.asarray(arrays[name], np.float64)
        return cls(**given)

    def corrected(self, kind: int, x: Sequence[float], heuristic: float) -> float:
        """Log2 tokens of a request of a kind: what was learned, and the heuristic's number the more, the farther it
        lies from the requests that were seen."""
        total = distance = 0.0
        for value, (coef, centre, scale) in zip(x, self._rows[kind], strict=True):
            z = (value - centre) / scale
            beyond = abs(z) - 2.0
            if beyond > 0.0:
                distance += beyond * beyond
                z = 2.0 if z > 0.0 else -2.0
            total += coef * z
        return heuristic + float(self.trust[kind]) * exp(-distance / FAR) * (total - heuristic)

    def known_at(self, name: str) -> int | None:
        """The place of a measured model."""
        return self._known_at.get(name)


@dataclass(frozen=True, slots=True)
class RequestLength:
    """The request's part: log2 of the visible tokens of a model of median verbosity, whether a call is answered, and
    the reasoning tokens that a model adds which reasons."""

    visible_log2: float
    call: bool
    hidden_tokens: float


@dataclass(frozen=True, slots=True)
class ArmLengths:
    """The part of some arms, one entry for each: the verbosity in log2, whether it reasons (0 or 1) and its limit in
    tokens. `prose` and `calls` differ in verbosity alone."""

    prose: tuple[tuple[float, float, float], ...]
    calls: tuple[tuple[float, float, float], ...]


def describe(features: Features) -> tuple[int, list[float]]:
    """The kind of a request and its regressors, a constant first."""
    f = features
    type_ = classify(f).type
    if f.asked_words:
        kind = OTHER
    elif f.n_tools:
        kind = CALL
    elif f.options >= 3:
        kind = EXAM
    elif type_ in _QUESTIONS:
        kind = QUESTION
    else:
        kind = CODE if type_ is TaskType.CODE else OTHER
    work = saturate(f.instructions.work + f.instructions.hard, 2.0)
    return kind, [
        1.0,
        log2(1 + f.chars),
        log2(1 + f.words),
        log2(1 + f.lines),
        min(f.digits, 0.3),
        min(f.symbols, 0.3),
        log2(1 + f.options),
        log2(1 + f.n_tools + f.tool_schema_chars / 500),
        work + saturate(f.instructions.constraint, 4.0),
        saturate(f.topics.math + f.math_marks, 2.0),
        code_strength(f) + saturate(f.topics.science, 2.0),
    ]


def request_length(features: Features, weights: LengthWeights, *, reasoning: bool = True) -> RequestLength:
    """The request's part of the length. `reasoning`: whether any arm needs `hidden_tokens`, which cost some time."""
    visible = log2(max(visible_tokens(features), 1.0))
    kind, x = describe(features)
    if kind != OTHER:
        visible = weights.corrected(kind, x, visible)
    hidden = hidden_tokens(features, demand_of(features).level) if reasoning else 0.0
    return RequestLength(min(max(visible, 0.0), MAX_LOG2), kind == CALL, hidden)


def arm_lengths(arms: Sequence[Arm], weights: LengthWeights) -> ArmLengths:
    """The arms' part of the length; it depends on no request, so keep it with the arms."""
    both = [verbosity(arm, weights) for arm in arms]
    rest = [(float(arm.reasoning), inf if arm.max_output_tokens is None else arm.max_output_tokens) for arm in arms]
    prose, calls = (tuple((own[at], *more) for own, more in zip(both, rest, strict=True)) for at in (0, 1))
    return ArmLengths(prose, calls)


def expected_tokens(request: RequestLength, arms: ArmLengths, most: int | None = None) -> list[float]:
    """Output tokens of one choice for each arm, hidden reasoning included, within the limits of the arm and of the
    request (`most`). A route has few arms, for which plain numbers are quicker than arrays."""
    visible, hidden, ceiling = request.visible_log2, request.hidden_tokens, inf if most is None else most
    return [
        min(2.0 ** min(max(visible + wordy, 0.0), MAX_LOG2) + hidden * reasons, limit, ceiling)
        for wordy, reasons, limit in (arms.calls if request.call else arms.prose)
    ]


def verbosity(arm: Arm, weights: LengthWeights) -> tuple[float, float]:
    """Log2 of an arm's length against the median model's, of prose and of calls."""
    guess = weights.verbosity @ verbosity_facts(arm, weights.lines)
    at = weights.known_at(length_name(arm))
    if at is not None:
        measured = weights.known_verbosity[:, at]
        guess = np.where(np.isnan(measured), guess, measured)
    return float(guess[0]), float(guess[1])


def length_name(arm: Arm) -> str:
    """The name under which an arm's verbosity is kept: function calling is another way of answering."""
    model = arm.model or arm.name
    return canonical(model) + (" fc" if facts_of(model).tools else "")


def verbosity_facts(arm: Arm, lines: Sequence[str]) -> Vector:
    """A constant, VERBOSITY_FACTS (0 where unknown) and the line, for the regression of verbosity."""
    model = arm.model or arm.name
    facts = facts_of(model)
    line = line_of(model) or arm.family
    size = facts.effective_b
    own = [
        1.0,
        float(not facts.tuned),
        float(facts.tools),
        0.0 if facts.released is None else min(max(facts.released - EPOCH, -1.5), 1.5),
        0.0 if size is None else min(max(log2(max(size, 0.1) / 20.0) / 2.0, -2.0), 2.0),
    ]
    return np.array(own + [float(line == known) for known in lines])
