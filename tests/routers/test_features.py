"""What is read of a request, and that it stays bounded and true for any text."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from routers.base import RequestView
from routers.features import (
    EFFORTS,
    FEATURES,
    HEAD_CHARS,
    OPENING_CHARS,
    TAIL_CHARS,
    Features,
    Instructions,
    Topics,
    counts,
    extract,
    of_counts,
)
from routers.lexicon import INSTRUCTIONS, TOPICS


def of(text: str) -> Features:
    return extract(RequestView(text, text))


def test_groups_and_fields_are_the_same_in_the_same_order() -> None:
    assert Topics.__struct_fields__ == tuple(TOPICS)
    assert Instructions.__struct_fields__ == tuple(INSTRUCTIONS)


@pytest.mark.parametrize("groups", [TOPICS, INSTRUCTIONS], ids=["topics", "instructions"])
def test_no_word_stands_in_two_groups(groups: dict[str, set[bytes]]) -> None:
    shared = {(a, b): words for a, b in combinations(groups, 2) if (words := groups[a] & groups[b])}
    assert not shared


@given(st.text(max_size=400), st.text(max_size=100), st.integers(1, 30))
def test_any_text_gives_counts_and_shares_in_range(text: str, system: str, n_turns: int) -> None:
    found = extract(RequestView(text, text, system=system, n_turns=n_turns))
    for share in (found.non_latin, found.cjk, found.digits, found.symbols, found.long_words):
        assert 0.0 <= share <= 1.0
    assert min((*astuple(found.topics), *astuple(found.instructions))) >= 0
    assert (found.chars, found.input_chars) == (len(text), len(text) + len(system))


def test_a_lone_surrogate_from_json_is_read_like_any_other_character() -> None:
    assert of("translate \ud800 this").instructions.translate == 1


def test_of_a_long_text_only_head_and_tail_are_read() -> None:
    found = of("Summarise this. " + "filler " * 200_000 + " photon " + "filler " * 200_000 + " Prove it.")
    assert len(found.excerpt) == HEAD_CHARS + 1 + TAIL_CHARS
    assert found.chars > 2_000_000
    assert (found.instructions.summarise, found.instructions.hard, found.topics.science) == (1, 1, 0)


def test_verbs_in_the_middle_of_a_text_are_material() -> None:
    found = of("Shorten this. " + "The town grew. " * 40 + "They prove and derive. " + "The town grew. " * 40)
    assert (found.instructions.rewrite, found.instructions.hard) == (1, 0)


def test_words_are_counted_once_each_and_in_their_forms() -> None:
    assert of("enzyme enzyme Enzymes").topics.science == 2
    assert of("deriving, derived; DERIVES").instructions.hard == 3
    assert of("Summarize").instructions.summarise == of("summarise").instructions.summarise == 1


def test_phrases_count_whatever_joins_their_words() -> None:
    assert of("Think step-by-step.").instructions.work == 1
    assert of("There is a race\ncondition here").instructions.hard == 1
    assert of("The race was held in good condition").instructions.hard == 0


def test_a_follow_up_is_read_with_the_opening() -> None:
    opening = "Prove the lemma. " + "x" * 1000
    found = extract(RequestView("go on", opening, n_turns=3))
    assert (found.follow_up, found.instructions.hard) == (True, 2)
    assert len(found.excerpt) == OPENING_CHARS + 1 + len("go on")
    assert not extract(RequestView("go on " * 50, opening, n_turns=3)).follow_up
    assert not extract(RequestView("go on", "go on", n_turns=1)).follow_up


def test_a_short_system_prompt_instructs_and_a_long_one_does_not() -> None:
    task = "You translate everything into Danish."
    assert extract(RequestView("The bridge is closed.", system=task)).instructions.translate == 1
    assert extract(RequestView("The bridge is closed.", system=task + " " * 1000)).instructions.translate == 0


@pytest.mark.parametrize(
    "text",
    ["Which?\nA. one\nB. two\nC. x\nD. y", "Which?\n(A) one\n(B) two\n(C) x\n(D) y", "Which? A) a B) b C) c D) d"],
)
def test_lettered_options_are_counted(text: str) -> None:
    assert of(text).options == 4


def test_plain_prose_has_no_options_and_no_items() -> None:
    found = of("Then A. Smith met B. Jones. They spoke.\nThen they left.")
    assert (found.options, found.items) == (0, 0)


def test_code_math_and_lists_leave_marks() -> None:
    code = of("Fix:\n```c\nint main(void) {\n  return 0;\n}\n```")
    assert (code.fences, code.code_lines) == (2, 3)
    assert code.symbols > 0.1
    assert of(r"Show \frac{a}{b} ∑ x^2 ≤ 1").math_marks == 4
    assert of("Buy:\n- milk\n- bread\n1. eggs\n2) tea").items == 4


def test_scripts_are_shares_of_characters() -> None:
    assert of("翻译这句话").cjk == of("翻译这句话").non_latin == 1.0
    russian = of("Переведи это")
    assert russian.cjk == 0.0
    assert russian.non_latin == pytest.approx(11 / 12)
    assert of("déjà vu, naïve café").non_latin == 0.0
    assert (of("日本語").input_tokens, of("abcd" * 10).input_tokens) == (3.0, 10.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Answer in 200 words", 200),
        ("in two sentences", 40),
        ("one short paragraph", 90),
        ("write words", 0),
        ("200 lines", 0),
        ("0 words", 0),
    ],
)
def test_a_named_length_is_read(text: str, words: int) -> None:
    assert of(text).asked_words == words


def test_what_is_not_text_is_taken_from_the_view() -> None:
    view = RequestView(
        "hi", "hi", "sys", 100, 5, n_tools=2, tool_schema_chars=50, n_images=1, wants_json=True, in_tool_loop=True
    )
    found = extract(view)
    assert found.input_chars == 2 + 3 + 100 + 50
    assert (found.n_turns, found.n_tools, found.n_images, found.wants_json, found.in_tool_loop) == (5, 2, 1, True, True)


@pytest.mark.parametrize(("effort", "place"), [*EFFORTS.items(), ("unheard-of", None), (None, None)])
def test_effort_is_its_place_and_an_unknown_word_is_none(effort: str | None, place: int | None) -> None:
    assert extract(RequestView("hi", reasoning_effort=effort)).effort == place


def test_counts_bring_all_back_but_the_text() -> None:
    view = RequestView(
        "Prove that 2 is prime. Then translate it.", system="Be brief.", n_tools=2, reasoning_effort="low"
    )
    features = extract(view)
    written = msgspec.json.encode(counts(features))
    told = msgspec.json.decode(written)
    assert b"prove" not in written.lower()
    assert of_counts(told) == replace(features, excerpt="", system="")
    assert of_counts([FEATURES + 1, *told[1:]]) is None
    assert of_counts(told[:-1]) is None
    assert of_counts([]) is None
