"""Task types are named as a person would name them."""

from __future__ import annotations

import pytest

from routers.base import RequestView
from routers.features import extract
from routers.tasks import LONG_DOCUMENT_TOKENS, TaskType, classify

NAMED = [
    ("hello there", TaskType.CHAT),
    ("What is the capital of Portugal?", TaskType.QUESTION),
    ("Write a Python function that reverses a linked list.", TaskType.CODE),
    ("Why does this fail?\n```js\nconst a = null;\na.b();\n```", TaskType.CODE),
    ("Find the eigenvalues of the matrix with rows (2, 1) and (1, 2) and its determinant.", TaskType.MATH),
    ("Which enzyme unwinds DNA before the polymerase copies the genome?", TaskType.SCIENCE),
    ("A patient has fever, edema and chronic hypertension. Which diagnosis fits?", TaskType.PROFESSIONAL),
    ("Can the tenant sue the landlord for breach of the lease clause?", TaskType.PROFESSIONAL),
    ("Extract all names from: Ann met Bob and Carl.", TaskType.EXTRACTION),
    ("Classify the sentiment: 'I loved it'", TaskType.CLASSIFICATION),
    ("Summarise: the council met, argued for hours and decided nothing.", TaskType.SUMMARISATION),
    ("Translate into Spanish: the shop is closed today", TaskType.TRANSLATION),
    ("Übersetze ins Englische: der Laden ist heute zu", TaskType.TRANSLATION),
    ("Rephrase this: your call is important to us", TaskType.REWRITING),
    ("Write a haiku about autumn rain", TaskType.WRITING),
    ("Plan a trip for six: each day must start after nine, and no hotel twice, within the budget.", TaskType.REASONING),
]


@pytest.mark.parametrize(("text", "wanted"), NAMED, ids=[text[:30] for text, _ in NAMED])
def test_types(text: str, wanted: TaskType) -> None:
    guess = classify(extract(RequestView(text, text)))
    assert guess.type is wanted
    assert 0.5 <= guess.confidence <= 1.0


def test_tools_and_a_tool_loop_make_a_tool_call() -> None:
    view = RequestView("What is the weather in Paris?", n_tools=1, tool_schema_chars=300)
    assert classify(extract(view)).type is TaskType.TOOL_CALL
    loop = RequestView("Book it.", "Find a table for two", n_turns=5, n_tools=4, in_tool_loop=True)
    assert classify(extract(loop)).type is TaskType.TOOL_CALL


def test_a_long_input_is_a_long_document() -> None:
    view = RequestView("What does the second chapter say?", history_chars=LONG_DOCUMENT_TOKENS * 5, n_turns=3)
    assert classify(extract(view)).type is TaskType.LONG_DOCUMENT


def test_a_mixed_request_is_less_certain_than_a_plain_one() -> None:
    plain = classify(extract(RequestView("Translate into Spanish: the shop is closed")))
    mixed = classify(extract(RequestView("Translate and summarise into Spanish: the shop is closed")))
    assert mixed.confidence < plain.confidence


def test_names_are_fit_for_metric_labels() -> None:
    assert all(name.value.replace("_", "").isalpha() and name.value.islower() for name in TaskType)
