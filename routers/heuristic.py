"""A router without learning: a demand read off the surface of a request, a logistic curve over tiers.

It is what decides before anything was learned, and where a learned router knows too little. By construction
P(success) never falls when the tier rises and never rises when a sign of difficulty is added: the demand is a
saturating sum of non-negative points, and nothing that depends on a largest value (the task type) enters it.

The constants are judgements, each with its reason; none was fitted to benchmark rows. Checked on such rows
afterwards, the demand orders kinds of work and subjects a little (AUC 0.57 to 0.61 for failure on MMLU and
MMLU-Pro, prompt length 0.46 to 0.53); within one subject it is near chance (0.49 to 0.56), and it does not find
the questions that only the stronger of two models answers (APGR 0.49 on RouteLLM's MMLU, chance is 0.50,
prompt length 0.57). It chooses a tier for the kind of request, not for the exam question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erf, exp, log, log2, sqrt
from typing import Final

import msgspec

from routers.base import Arm, Score
from routers.features import HEAD_CHARS, LEADING_WORDS, TAIL_CHARS, Features
from routers.tasks import TaskType, classify, code_strength

ADEQUATE_LOGIT: Final = log(0.8 / 0.2)
"""Demand is defined by it: a demand of 2 is what a tier 2 arm does with probability 0.8, the policy's default
adequacy."""
LOGITS_PER_TIER: Final = 1.0
"""One tier up multiplies the odds of success by e: from 0.60 to 0.8, from 0.8 to 0.92. Steeper would claim
to place a request within less than a tier, which surface signs cannot; flatter would blur 1 and 4."""

EASIEST: Final = 0.2
"""Demand of a request that shows nothing: tier 1 is expected to manage it 9 times in 10."""
HARDEST: Final = 4.0
"""Demand never passes the common top tier: surface signs cannot tell what a frontier model fails at."""
POINTS_SCALE: Final = 3.0
"""Points at which 63 % of the way to HARDEST is gone: one clear sign of work (0.7) leads to demand 1, two
and a half of them to 2, a hard verb over technical material to 3."""

# Points of what is to be done: they count whatever the text around them is.
HARD_POINTS: Final = 3.6  # prove, deadlock, root cause: one word alone (1.8) asks for tier 2, two for more
WORK_POINTS: Final = 1.5  # solve, refactor, analyse: several steps, each of which can fail
EXPLAIN_POINTS: Final = 1.4  # an explanation has more to get right than a fact
CONSTRAINT_POINTS: Final = 2.6  # every condition is another chance to fail; one or two are plain English
CODING_POINTS: Final = 1.0  # code to be written or changed, not only read
EFFORT_POINTS: Final = (0.0, 0.0, 0.0, 0.3, 1.0, 1.5)  # by place in EFFORTS: the client says that it is hard
LOOP_POINTS: Final = 0.4  # an agent's step stands on all steps before it
TOOL_POINTS: Final = 0.1  # per doubling of the tools to choose from: small models call one tool well
IMAGE_POINTS: Final = 0.3  # the router cannot see it
TURN_POINTS: Final = 0.05  # per doubling of the turns
LENGTH_POINTS: Final = 0.2  # per doubling of (1,000 + input) tokens: 16k gives 0.8, about one tier
PROMPT_POINTS: Final = 0.1  # per doubling of (20 + words): longer questions carry more conditions
JSON_POINTS: Final = 0.05  # constrained decoding does most of that work

# Points of what the text is about: they count less where it is only to be translated, shortened, sorted.
CODE_POINTS: Final = 1.2
MATH_POINTS: Final = 2.2
FIELD_POINTS: Final = 2.2  # science, medicine, law: one term (0.9) already asks for more than tier 1
REGISTER_POINTS: Final = 3.0  # long words: technical language of fields that no lexicon here knows
EXAM_POINTS: Final = 0.5  # lettered options: an examiner chose the wrong ones to be tempting
NUMBER_POINTS: Final = 4.0  # share of digits, to 0.1: word problems and tables

ORDINARY_LONG_WORDS: Final = 0.18
"""Share of distinct words with nine letters and more in everyday English; beyond it is register."""
REGISTER_WORDS: Final = 12
"""Distinct long words are a share of few words in a short text: half of the weight at this many words."""
SIMPLE_DISCOUNT: Final = 0.85
"""How much of the topic's points a plainly simple instruction takes away: a summary of a quantum paper
needs its words, not its proofs."""

# The spread of the demand, in tiers: standard deviations that add in squares.
BASE_SPREAD: Final = 0.6  # leaves 0.90 within one tier at best: this is a heuristic
CONFLICT_SPREAD: Final = 0.7  # signs for simple and for hard together
SILENT_SPREAD: Final = 0.5  # nothing was recognised
FOREIGN_SPREAD: Final = 0.8  # the lexicon is English: another script is nearly unread
UNREAD_SPREAD: Final = 0.35  # the middle of a long text, an image, what stands behind a short follow-up

STRAIN_FROM: Final = 0.5
STRAIN_TIERS: Final = 2.0
"""From half of its context window on, an arm is taken for weaker, up to one tier at the full window
(https://arxiv.org/abs/2404.06654: usable contexts are shorter than the claimed ones)."""

VISIBLE_TOKENS: Final[Mapping[TaskType, tuple[float, float, float]]] = {
    # type: (tokens, more per token of the message, at most)
    TaskType.CODE: (350, 0.3, 2500),
    TaskType.MATH: (350, 0.3, 900),
    TaskType.SCIENCE: (250, 0.3, 700),
    TaskType.PROFESSIONAL: (250, 0.2, 700),
    TaskType.REASONING: (500, 0.3, 1500),
    TaskType.EXTRACTION: (60, 0.15, 800),
    TaskType.CLASSIFICATION: (12, 0.0, 12),
    TaskType.SUMMARISATION: (90, 0.08, 500),
    TaskType.TRANSLATION: (10, 1.1, 8000),
    TaskType.REWRITING: (15, 1.0, 8000),
    TaskType.WRITING: (450, 0.3, 1500),
    TaskType.TOOL_CALL: (60, 0.1, 250),
    TaskType.LONG_DOCUMENT: (350, 0.005, 1000),
    TaskType.QUESTION: (150, 0.5, 450),
    TaskType.CHAT: (30, 1.0, 200),
}
"""Visible output by task type: an order of magnitude each. What keeps its length grows with the message,
what is a verdict does not. For scale: the median function call of BFCL is 35 tokens, the median chain of
thought over a short program (ZeroEval CRUX) 150."""
TOKENS_PER_WORD: Final = 1.35
BRIEF_FACTOR: Final = 0.4
LENGTHY_FACTOR: Final = 1.8

VERBOSITY: Final[Mapping[str, float]] = {"claude": 1.3, "gemma": 0.75}
"""Visible length of a family against the median model of ZeroEval CRUX, one short code-reading benchmark, rounded.
The models of the other families there scatter on both sides of 1."""

HIDDEN_TOKENS: Final = (0.0, 60.0, 300.0, 1200.0, 4000.0, 8000.0)
"""Reasoning tokens of a reasoning arm at demand 2, by place in EFFORTS; unasked is medium, the API's default."""
DEFAULT_EFFORT: Final = 3


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What a request asks of a model, on the tier scale: the tier that succeeds 8 times in 10, and the
    standard deviation of that estimate in tiers."""

    level: float
    spread: float

    @property
    def confidence(self) -> float:
        """Probability that the true demand lies within one tier of `level`, errors taken as normal."""
        return erf(1.0 / (self.spread * sqrt(2.0)))


class HeuristicRouter:
    """Scores arms from surface features. Its `confidence` is `Demand.confidence`, the same for every arm."""

    name: Final = "heuristic"
    version: Final = "1"

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        demand = demand_of(features)
        confidence = demand.confidence
        visible = visible_tokens(features)
        hidden = hidden_tokens(features, demand.level)
        level, tokens, limit = demand.level, features.input_tokens, features.max_output_tokens
        return [Score(p_success(level, arm, tokens), confidence, _output(arm, limit, visible, hidden)) for arm in arms]

    def surest(self, features: Features) -> float:
        return 1.0


def demand_of(features: Features) -> Demand:
    """The demand of a request, between EASIEST and HARDEST; it never falls when a sign of difficulty is added."""
    code = code_strength(features)
    discount = SIMPLE_DISCOUNT * _simplicity(features, code)
    points = _work_points(features, code) + (1.0 - discount) * _topic_points(features, code)
    level = HARDEST - (HARDEST - EASIEST) * exp(-points / POINTS_SCALE)
    return Demand(level, _spread(features, code))


def p_success(level: float, arm: Arm, input_tokens: float) -> float:
    """P(success) of an arm on a demand: logistic in the tier, lower where the input strains the arm's context."""
    gap = arm.tier - level
    if arm.context_tokens:
        gap -= STRAIN_TIERS * max(min(input_tokens / arm.context_tokens, 1.0) - STRAIN_FROM, 0.0)
    return 1.0 / (1.0 + exp(-(LOGITS_PER_TIER * gap + ADEQUATE_LOGIT)))


def visible_tokens(features: Features) -> float:
    """Expected visible output tokens of one choice for an arm of median verbosity, before any limit."""
    if features.asked_words:
        return max(features.asked_words * TOKENS_PER_WORD, 4.0)
    base, share, most = VISIBLE_TOKENS[classify(features).type]
    tokens = min(base + share * features.chars * (0.25 + 0.75 * features.cjk), most)
    if features.instructions.brief:
        tokens *= BRIEF_FACTOR
    if features.instructions.lengthy:
        tokens *= LENGTHY_FACTOR
    return tokens


def hidden_tokens(features: Features, level: float) -> float:
    """Expected reasoning tokens of an arm that reasons; they grow with the demand."""
    effort = DEFAULT_EFFORT if features.effort is None else features.effort
    return HIDDEN_TOKENS[effort] * (0.25 + 0.375 * level)


def _output(arm: Arm, limit: int | None, visible: float, hidden: float) -> float:
    expected = visible * VERBOSITY.get(arm.family, 1.0)
    if arm.reasoning:
        expected += hidden
    most = arm.max_output_tokens
    if limit is not None and (most is None or limit < most):
        most = limit
    return expected if most is None or expected <= most else float(most)


def _simplicity(f: Features, code: float) -> float:
    """How plainly a simple operation on given text is asked for, in [0, 1); hard verbs and code take from it."""
    i = f.instructions
    verbs = i.translate + i.summarise + i.extract + i.classify + i.rewrite
    if i.chat and f.words <= LEADING_WORDS // 4:
        verbs += 1
    return verbs / (verbs + 0.3) * (1.0 - code) / (1.0 + i.hard + 0.5 * i.work)


def _work_points(f: Features, code: float) -> float:
    i = f.instructions
    conditions, coding = i.constraint + f.items, i.write + i.work + i.hard
    return (
        HARD_POINTS * (i.hard / (i.hard + 1.0))
        + WORK_POINTS * (i.work / (i.work + 1.5))
        + EXPLAIN_POINTS * (i.explain / (i.explain + 1.0))
        + CONSTRAINT_POINTS * conditions**2 / (conditions**2 + 36.0)
        + CODING_POINTS * code * (coding / (coding + 0.3))
        + EFFORT_POINTS[f.effort or 0]
        + LOOP_POINTS * f.in_tool_loop
        + TOOL_POINTS * log2(1 + f.n_tools)
        + IMAGE_POINTS * (f.n_images > 0)
        + TURN_POINTS * log2(f.n_turns or 1)
        + LENGTH_POINTS * log2(1 + f.input_tokens / 1000)
        + PROMPT_POINTS * log2(1 + f.words / 20)
        + JSON_POINTS * f.wants_json
    )


def _topic_points(f: Features, code: float) -> float:
    t = f.topics
    register = max(f.long_words - ORDINARY_LONG_WORDS, 0.0) * (f.words / (f.words + REGISTER_WORDS))
    math, fields = t.math + f.math_marks, t.science + t.medicine + t.law
    return (
        CODE_POINTS * code
        + MATH_POINTS * (math / (math + 2.0))
        + FIELD_POINTS * (fields / (fields + 1.5))
        + REGISTER_POINTS * register
        + EXAM_POINTS * (f.options >= 3)
        + NUMBER_POINTS * min(f.digits, 0.1)
    )


def _spread(f: Features, code: float) -> float:
    t, i = f.topics, f.instructions
    simple = i.translate + i.summarise + i.extract + i.classify + i.rewrite
    hard = i.hard + i.work
    topics = t.math + t.science + t.medicine + t.law
    both = min(simple, hard)
    variance = BASE_SPREAD**2 + (CONFLICT_SPREAD * (both / (both + 0.5))) ** 2
    if simple + hard + topics + i.chat + i.explain + i.write + i.ask == 0 and code < 0.25:
        variance += SILENT_SPREAD**2
    # English words beside another script: the instruction was read, only the material was not.
    unread = f.non_latin if t.english else 1.0 if code < 0.25 and f.words >= 8 else f.non_latin
    variance += unread * FOREIGN_SPREAD**2
    gaps = (f.chars > HEAD_CHARS + TAIL_CHARS) + (f.n_images > 0) + f.follow_up
    return sqrt(variance + gaps * UNREAD_SPREAD**2)
