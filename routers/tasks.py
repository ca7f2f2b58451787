"""Task types: what kind of work a request asks for, named, from its features.

They name decisions and metrics, and tell how long an answer will be. They do not set the demand: a type is
the largest of several scores, and a demand that jumped with it would not be monotone in the features.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from routers.features import Features

LONG_DOCUMENT_TOKENS: Final = 16_000
"""Input from which reading it is the task: beyond it small models lose accuracy whatever is asked
(https://arxiv.org/abs/2404.06654, RULER: effective contexts of most models tried ended between 4 and 32
thousand tokens)."""


class TaskType(StrEnum):
    """The kinds of work, as they are written in decisions and metric labels."""

    CODE = "code"
    MATH = "math"
    SCIENCE = "science"
    PROFESSIONAL = "professional"
    REASONING = "reasoning"
    EXTRACTION = "extraction"
    CLASSIFICATION = "classification"
    SUMMARISATION = "summarisation"
    TRANSLATION = "translation"
    REWRITING = "rewriting"
    WRITING = "writing"
    TOOL_CALL = "tool_call"
    LONG_DOCUMENT = "long_document"
    QUESTION = "question"
    CHAT = "chat"


class TaskGuess(msgspec.Struct, frozen=True, gc=False):
    """The likeliest task type. `confidence` is its share of the evidence against the runner-up's: 0.5 when
    the two are level, towards 1 when nothing speaks for another."""

    type: TaskType
    confidence: float


# In the order of TaskType; a prior that decides only where nothing else speaks.
_TYPES: Final = tuple(TaskType)
TASK_TYPES: Final = frozenset(kind.value for kind in TaskType)
"""Their names."""
_PRIOR: Final = 0.3


_latest: Final[dict[str, tuple[Features, TaskGuess]]] = {}


def classify(features: Features) -> TaskGuess:
    """The task type with the strongest evidence. All who handle a request ask, so the latest answer is kept."""
    latest = _latest.get("")
    if latest is None or latest[0] is not features:
        latest = _latest[""] = (features, _classify(features))
    return latest[1]


def _classify(features: Features) -> TaskGuess:
    evidence = _evidence(features)
    best = max(evidence)
    place = evidence.index(best)
    evidence[place] = 0.0
    return TaskGuess(_TYPES[place], best / (best + max(evidence)))


def code_strength(features: Features) -> float:
    """How surely the text holds or asks for code, in [0, 1)."""
    signs: float = features.topics.code + 3 * features.fences + features.code_lines
    if features.symbols > 0.04:
        signs += 20 * (features.symbols - 0.04)
    return signs / (signs + 3)


def _evidence(f: Features) -> list[float]:
    """Evidence for each type, about 1 for one clear sign. An instruction's verb outweighs the topic of the text
    it is about; a topic decides only between requests that name no other work."""
    t, i = f.topics, f.instructions
    code = code_strength(f)
    plain = 1.0 - code
    fields = t.science + t.medicine + t.law
    exam = 0.5 if f.options >= 3 else 0.0
    read_only = 1.0 if i.work + i.hard == 0 else 0.5
    math, science, professional = t.math + f.math_marks, t.science, t.medicine + t.law
    conditions, asked = i.constraint + f.items, i.ask + i.explain
    # `saturate` written out: this runs for every request, and a call costs more than what is in it.
    return [
        2.4 * code,
        plain * (math / (math + 2) * 1.6 + (0.4 if f.digits > 0.04 and i.work else 0.0)),
        plain * (science / (science + 1) * (1.4 + exam) if science * 2 >= fields else 0.0),
        plain * (professional / (professional + 1) * (1.4 + exam) if science * 2 < fields else 0.0),
        i.hard / (i.hard + 1) * 1.5 + i.work / (i.work + 2) * 0.7 + conditions / (conditions + 4) * 1.2,
        read_only * (i.extract / (i.extract + 1) * 2.2 + (0.6 if f.wants_json else 0.0)),
        read_only * (i.classify / (i.classify + 1)) * 2.2,
        read_only * (i.summarise / (i.summarise + 1)) * 2.6,
        read_only * (i.translate / (i.translate + 1)) * 3.0,
        read_only * (i.rewrite / (i.rewrite + 1)) * 2.6,
        plain * (i.write / (i.write + 1)) * 1.4,
        (1.5 if f.in_tool_loop else 0.0) + (1.4 if f.n_tools else 0.0),
        1.6 if f.input_tokens > LONG_DOCUMENT_TOKENS and not f.n_tools else 0.0,
        _PRIOR + (0.5 if f.questions else 0.0) + 0.2 * (asked / (asked + 1)),
        _PRIOR + (1.5 if i.chat and f.words <= 8 else 0.0) - (0.2 if f.words > 40 else 0.0),
    ]


def saturate(count: float, half: float) -> float:
    """A count as a level in [0, 1): a half at `half`, so that each further sign adds less."""
    return count / (count + half)
