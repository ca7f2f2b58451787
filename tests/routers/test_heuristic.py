"""The heuristic router: the contract of every router, monotonicity, and a table of plain cases."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from routers.base import Arm, RequestView, Router, Score
from routers.features import Features, Instructions, Topics, extract
from routers.heuristic import EASIEST, HARDEST, HeuristicRouter, demand_of, p_success
from routers.lexicon import INSTRUCTIONS, TOPICS

ROUTER: Router = HeuristicRouter()
TIERS = [Arm(f"tier-{tier}", tier) for tier in range(1, 10)]
ADEQUACY = 0.8

CACHE = """
class Cache{n}:
    def __init__(self):
        self.items = {{}}
        self.lock = threading.Lock()

    def get(self, key):
        if key in self.items:
            return self.items[key]
        with self.lock:
            self.items[key] = self.load(key)
            return self.items[key]

    def evict(self, key):
        del self.items[key]
"""

TIER_1 = [
    "hi",
    "Hello! How are you today?",
    "Thanks, that is all for now.",
    "What is the capital of Portugal?",
    "Translate to French: The meeting was moved to Thursday because the room is taken.",
    "Translate the following into German.\n\nThe enzyme binds the ligand and the receptor changes its shape.",
    "Extract the name, the phone number and the city from this text as JSON: Anna Keller lives in Bern, 555 0134.",
    "Summarise this in two sentences: The council met on Monday. It will repair the bridge before winter and raise "
    "parking fees. Shop owners complained about the noise.",
    "Is the sentiment of this review positive or negative? 'The soup was cold and the waiter rude.'",
    "Rewrite this politely: send me the file now.",
    "Which of these words is a colour: table, green, seven?",
]
TIER_2 = [
    "Write a Python function that returns the longest common prefix of a list of strings.",
    "Write a SQL query that returns the three best paid employees of each department.",
    "Explain how a heat pump can deliver more heat than the electricity it uses.",
    "Compare renting and buying a flat for a couple that may move within five years.",
    "A tank is filled by one pipe in 6 hours and drained by another in 9 hours. Both are open. How long until the "
    "tank is full? Show your calculation.",
    "Why did the Roman Republic fall? Discuss three causes.",
    "Write a regex in JavaScript that matches ISO dates and explain it.",
]
HARD = [
    "Prove that there are infinitely many primes congruent to 3 modulo 4.",
    "Find a counterexample or prove: every bounded continuous function on a compact space is uniformly continuous.",
    "Derive the dispersion relation of a relativistic plasma with a thermal electron distribution.",
    "What is the ground state degeneracy of the toric code Hamiltonian on a surface of genus two?",
    "Which product forms when a chiral allylic carbonate meets a malonate nucleophile under palladium catalysis, and "
    "with what stereochemistry?",
    "This cache returns stale values under load. Debug the race condition and fix it without a global lock.\n```python"
    + "".join(CACHE.format(n=n) for n in range(13))
    + "```",
    "Plan a four day conference for 180 people: each speaker must talk exactly once, no two talks on one topic may "
    "overlap, every room holds at most 60, the budget must not exceed 40,000, vegetarians need a separate buffet, "
    "nobody should change buildings between sessions, and talks must end before 17:00 except on Friday.",
    "Design a lock-free queue for many producers and one consumer, state its invariants and prove them.",
]


def read(text: str, **more: Any) -> Features:
    return extract(RequestView(text, text, **more))


def adequate_tier(features: Features) -> int:
    """The lowest tier that reaches the adequacy."""
    return 1 + sum(score.p_success < ADEQUACY for score in ROUTER.score(features, TIERS))


@pytest.mark.parametrize("text", TIER_1, ids=[text[:32] for text in TIER_1])
def test_a_simple_request_is_for_tier_1(text: str) -> None:
    assert adequate_tier(read(text)) == 1


@pytest.mark.parametrize("text", TIER_2, ids=[text[:32] for text in TIER_2])
def test_ordinary_work_is_for_tier_2(text: str) -> None:
    assert adequate_tier(read(text)) == 2


@pytest.mark.parametrize("text", HARD, ids=[text[:32] for text in HARD])
def test_hard_work_is_above_tier_2_and_within_tier_4(text: str) -> None:
    assert 3 <= adequate_tier(read(text)) <= 4


@pytest.mark.parametrize("text", TIER_1 + TIER_2 + HARD, ids=lambda text: text[:32])
def test_english_requests_are_scored_with_the_default_confidence(text: str) -> None:
    assert ROUTER.score(read(text), TIERS[:1])[0].confidence >= 0.7


@pytest.mark.parametrize("text", TIER_1 + TIER_2, ids=lambda text: text[:32])
def test_asking_for_proof_raises_the_demand(text: str) -> None:
    harder = demand_of(read(f"{text} Then prove formally that the worst case cannot be avoided."))
    assert harder.level > demand_of(read(text)).level + 0.3


# Features of any request, whether or not a text could give them.
COUNTS = ("fences", "code_lines", "math_marks", "options", "items", "n_tools", "n_images")
_counts = st.integers(0, 12)
_shares = st.floats(0.0, 1.0)
anything = st.builds(
    lambda base, topics, instructions, counts, shares, flags, effort, chars: replace(
        base,
        topics=Topics(*topics),
        instructions=Instructions(*instructions),
        **dict(
            zip(("fences", "code_lines", "math_marks", "options", "items", "n_tools", "n_images"), counts, strict=True)
        ),
        **dict(zip(("digits", "symbols", "long_words"), shares, strict=True)),
        **dict(zip(("wants_json", "in_tool_loop"), flags, strict=True)),
        effort=effort,
        input_chars=chars,
    ),
    st.builds(read, st.sampled_from([*TIER_1, *TIER_2, *HARD, "", "Привет, как дела?", "x " * 4000])),
    st.lists(_counts, min_size=len(TOPICS), max_size=len(TOPICS)),
    st.lists(_counts, min_size=len(INSTRUCTIONS), max_size=len(INSTRUCTIONS)),
    st.lists(_counts, min_size=len(COUNTS), max_size=len(COUNTS)),
    st.lists(_shares, min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=2, max_size=2),
    st.one_of(st.none(), st.integers(0, 4)),
    st.integers(0, 2_000_000),
)

HARDER_TOPICS = ("code", "math", "science", "medicine", "law")
HARDER_WORDS = ("hard", "work", "explain", "constraint")
HARDER_COUNTS = (*COUNTS, "n_turns", "words")
EASIER_WORDS = ("translate", "summarise", "extract", "classify", "rewrite", "chat")


def one_harder(features: Features, sign: str) -> Features:
    """The same request with one more sign of difficulty."""
    if sign in HARDER_TOPICS:
        return replace(features, topics=replace(features.topics, **{sign: getattr(features.topics, sign) + 1}))
    if sign in HARDER_WORDS:
        return replace(features, instructions=one_more(features.instructions, sign))
    if sign in HARDER_COUNTS:
        return with_value(features, sign, getattr(features, sign) + 1)
    if sign == "input_chars":
        return replace(features, input_chars=features.input_chars * 2 + 4000)
    if sign == "effort":
        return replace(features, effort=(features.effort or 0) + 1)
    if sign in ("wants_json", "in_tool_loop"):
        return with_value(features, sign, True)
    return with_value(features, sign, min(getattr(features, sign) + 0.05, 1.0))


def with_value(features: Features, name: str, value: Any) -> Features:
    return replace(features, **{name: value})


def one_more(words: Instructions, name: str) -> Instructions:
    return replace(words, **{name: getattr(words, name) + 1})


@pytest.mark.parametrize(
    "sign",
    [
        *HARDER_TOPICS,
        *HARDER_WORDS,
        *HARDER_COUNTS,
        "input_chars",
        "effort",
        "wants_json",
        "in_tool_loop",
        "digits",
        "symbols",
        "long_words",
    ],
)
@given(features=anything)
def test_p_never_rises_with_a_sign_of_difficulty(sign: str, features: Features) -> None:
    arms = [*TIERS, Arm("narrow", 3, context_tokens=8_000)]
    before, after = ROUTER.score(features, arms), ROUTER.score(one_harder(features, sign), arms)
    assert all(a.p_success <= b.p_success + 1e-12 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("sign", EASIER_WORDS)
@given(features=anything)
def test_p_never_falls_with_a_sign_of_a_simple_task(sign: str, features: Features) -> None:
    easier = replace(features, instructions=one_more(features.instructions, sign))
    assert demand_of(easier).level <= demand_of(features).level + 1e-12


@given(features=anything, context=st.one_of(st.none(), st.integers(1, 300_000)))
def test_p_never_falls_with_the_tier(features: Features, context: int | None) -> None:
    scores = ROUTER.score(features, [Arm(str(tier), tier, context_tokens=context) for tier in range(1, 10)])
    assert all(low.p_success <= high.p_success for low, high in pairwise(scores))


@given(features=anything, limit=st.one_of(st.none(), st.integers(0, 5000)))
def test_every_score_is_in_range_and_repeats(features: Features, limit: int | None) -> None:
    features = replace(features, max_output_tokens=limit)
    arms = [*TIERS, Arm("thinker", 4, "claude", reasoning=True), Arm("short", 1, max_output_tokens=20)]
    scores = ROUTER.score(features, arms)
    assert scores == HeuristicRouter().score(features, arms)
    assert len(scores) == len(arms)
    for score in scores:
        assert min(score.p_success, score.confidence) > 0.0
        assert max(score.p_success, score.confidence) < 1.0
        assert 0.0 <= score.output_tokens <= (100_000 if limit is None else limit)
    assert scores[-1].output_tokens <= 20
    assert EASIEST <= demand_of(features).level <= HARDEST


def test_no_arms_give_no_scores_and_each_arm_is_scored_on_its_own() -> None:
    features = read(HARD[0])
    assert ROUTER.score(features, []) == []
    assert ROUTER.score(features, TIERS[::-1]) == ROUTER.score(features, TIERS)[::-1]
    assert (ROUTER.name, ROUTER.version) == ("heuristic", "1")


def test_demand_means_the_tier_that_reaches_the_default_adequacy() -> None:
    assert p_success(2.0, Arm("a", 2), 100) == pytest.approx(ADEQUACY)


def test_a_nearly_full_context_window_weakens_an_arm() -> None:
    features = read("What does it say?", history_chars=40_000)
    arms = [Arm("wide", 2, context_tokens=200_000), Arm("narrow", 2, context_tokens=11_000)]
    wide, narrow = ROUTER.score(features, arms)
    assert narrow.p_success < wide.p_success


def confidence(text: str, **more: Any) -> float:
    return demand_of(read(text, **more)).confidence


def test_confidence_falls_where_the_reading_is_poor() -> None:
    plain = confidence("What is the capital of Portugal?")
    assert confidence("Translate and prove this theorem: a lemma follows.") < plain
    assert confidence("Столица этой страны находится где именно, скажи пожалуйста") < 0.7 < plain
    assert confidence("Zdá se že tohle nikdo nečte protože slova nejsou anglická vůbec") < 0.7
    assert confidence("What is the capital of Portugal?", n_images=1) < plain
    assert confidence("thing") < plain
    assert confidence("Summarise this. " + "The town grew. " * 1000) < confidence("Summarise this. The town grew.")


def output(text: str, arm: Arm = TIERS[0], **more: Any) -> Score:
    return ROUTER.score(read(text, **more), [arm])[0]


def test_output_length_follows_the_task() -> None:
    assert output("Is the sentiment positive or negative? 'Lovely.'").output_tokens < 30
    assert output("Write a Python function that sorts a list.").output_tokens > 200
    assert output("Write about rain in 400 words").output_tokens == pytest.approx(540)
    text = "Translate into French: " + "the shop is closed today and the street is empty. " * 40
    assert output(text).output_tokens == pytest.approx(len(text) / 4, rel=0.3)


def test_brief_is_shorter_and_detailed_is_longer() -> None:
    plain = output("Why is the sky blue?").output_tokens
    assert output("Why is the sky blue? Be brief.").output_tokens < plain
    assert output("Why is the sky blue? Be thorough.").output_tokens > plain


def test_limits_of_the_request_and_of_the_arm_bound_the_output() -> None:
    assert output("Write a story", max_output_tokens=50).output_tokens == 50
    assert output("Write a story", Arm("a", 1, max_output_tokens=16)).output_tokens == 16
    assert output("Write a story", max_output_tokens=0).output_tokens == 0


def test_reasoning_arms_are_longer_and_more_so_with_effort_and_demand() -> None:
    thinker = Arm("thinker", 4, reasoning=True)
    hard, easy = HARD[0], "hi"
    assert output(hard, thinker).output_tokens > 2 * output(hard).output_tokens
    assert output(hard, thinker, reasoning_effort="none").output_tokens == output(hard).output_tokens
    levels = [output(hard, thinker, reasoning_effort=effort).output_tokens for effort in ("minimal", "low", "high")]
    assert levels == sorted(set(levels))
    hidden = [output(text, thinker).output_tokens - output(text).output_tokens for text in (easy, hard)]
    assert hidden[0] < hidden[1]


def test_a_verbose_family_is_longer() -> None:
    assert output("Why?", Arm("c", 1, "claude")).output_tokens > output("Why?", Arm("g", 1, "gpt")).output_tokens
