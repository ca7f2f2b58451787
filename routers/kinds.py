"""Kinds of work as coordinates: how a model's success on one kind bears on another, before anything is known of it.

A request has the coordinates u of the learned router, a place among all requests (what its surface looks like, in a few
numbers), a task type, and circumstances: plain, or such as no outcome in training was recorded in (long instructions or
histories, pictures, open tool loops). On live traffic a model has an offset of its own for each type and for such
circumstances, and a slope along each coordinate of the place: requests of a house that look alike are of a family, and
how hard each family is shows in the outcomes of all models. Offsets of types that resemble each other are correlated: a
Gaussian process over types (Rasmussen and Williams 2006, http://gaussianprocess.org/gpml/, chapter 2), so that a type
never seen in traffic begins at what its nearest types show, and its own outcomes soon weigh more.
"""

from __future__ import annotations

import functools
from typing import Final

import msgspec
import numpy as np

from routers.abilities import Matrix, Vector
from routers.base import RequestView
from routers.features import extract
from routers.tasks import TaskType
from routers.vector import excerpt_words, surface

TYPES: Final = tuple(TaskType)
N_TYPES: Final = len(TYPES)
_NUMBERS: Final = {kind.value: number for number, kind in enumerate(TYPES)}
NEAREST: Final = 3
"""The kernel's width is the mean distance to so many nearest types."""


class Demand(msgspec.Struct, frozen=True, eq=False):
    """What a request asks of models: coordinates `u` (K,), their variance `var` (K,) and its `place` (P,) as
    `learned.Item` has them, its task type, and whether its circumstances are plain. `read`: its text was looked at."""

    u: Vector
    var: Vector
    place: Vector
    ood: float
    task_type: str
    plain: bool = True
    read: bool = True


def extended(demand: Demand) -> Vector:
    """The coordinates, the place, one for each task type and one for circumstances (K + P + N_TYPES + 1,). A type of
    another version has none, and is known by the first alone."""
    k = len(demand.u)
    size = k + len(demand.place)
    z = np.zeros(size + N_TYPES + 1)
    z[:k], z[k:size] = demand.u, demand.place
    number = _NUMBERS.get(demand.task_type)
    if number is not None:
        z[size + number] = 1.0
    z[-1] = 0.0 if demand.plain else 1.0
    return z


def folding(size: int, task_type: str, plain: bool) -> Matrix:
    """(size, size + N_TYPES + 1): abilities over extended coordinates become those over u and the place (`size`)
    on one kind of work, its offsets added to the constant's."""
    fold = np.zeros((size, size + N_TYPES + 1))
    fold[:, :size] = np.eye(size)
    number = _NUMBERS.get(task_type)
    if number is not None:
        fold[0, size + number] = 1.0
    if not plain:
        fold[0, -1] = 1.0
    return fold


@functools.cache
def resemblance() -> Matrix:
    """The correlation of the offsets of task types (N_TYPES, N_TYPES): a Gaussian of the distance between typical
    requests of each, in standard deviations of what their surface shows. Positive definite."""
    centres = np.array([np.mean([_read(text) for text in EXAMPLES[kind]], axis=0) for kind in TYPES])
    spread = centres.std(axis=0)
    scaled = (centres - centres.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    square = ((scaled[:, None, :] - scaled[None, :, :]) ** 2).sum(axis=2)
    near = np.sort(np.sqrt(square), axis=1)[:, 1 : 1 + NEAREST].mean()
    found: Matrix = np.exp(-square / (2.0 * near**2))
    return found


def _read(text: str) -> Vector:
    tools = 2 if text.startswith(_TOOL) else 0
    view = RequestView(last_user=text.removeprefix(_TOOL), n_tools=tools, tool_schema_chars=300 * tools)
    features = extract(view)
    return np.array(surface(features, excerpt_words(features)), dtype=np.float64)


_TOOL: Final = "[tools] "
"""Before an example that comes with tools."""
_ARTICLE: Final = (
    "The council met on Tuesday to discuss the new bridge. Members disagreed about its cost, which has risen from 4 to "
    "7 million since spring. A decision is expected in March, after the engineers have reported. "
)
EXAMPLES: Final = {
    TaskType.CODE: (
        "Write a Python function that merges two sorted lists. Include type hints and unit tests.",
        "Fix this bug:\n```python\ndef f(x):\n    return x[0] + x[len(x)]\n```\nIt raises IndexError.",
        "Refactor this class to use async/await and explain what the compiler does with the generator.",
    ),
    TaskType.MATH: (
        "Solve for x: 3x^2 - 5x + 2 = 0. Show every step.",
        "A train travels 120 km in 1.5 hours. How far does it travel in 4 hours at the same speed?",
        "Prove that the sum of the first n odd integers equals n^2.",
    ),
    TaskType.SCIENCE: (
        "Which particle carries the electromagnetic force?\nA. gluon\nB. photon\nC. neutrino\nD. electron",
        "Explain why the reaction rate doubles when the temperature of the solution rises by 10 degrees.",
        "What happens to the energy of an electron when an atom emits light of a shorter wavelength?",
    ),
    TaskType.PROFESSIONAL: (
        "A 54-year-old patient presents with chest pain and fever. What is the most likely diagnosis?",
        "Under contract law, is the seller liable if the plaintiff accepted the goods before inspection?",
        "Which drug is contraindicated in a patient with renal failure?\nA. metformin\nB. aspirin\nC. insulin",
    ),
    TaskType.REASONING: (
        "Three friends have different pets. Anna has no cat. Ben is older than the dog's owner. Deduce who owns what.",
        "Plan a schedule under these constraints: each team plays once a week, no team travels twice in a row.",
        "Analyse the argument step by step and decide which premise fails. Compare it with its converse.",
    ),
    TaskType.EXTRACTION: (
        "Extract all names, dates and amounts from this text as JSON: " + _ARTICLE,
        "List every e-mail address in the message below. Return only the fields name and address.",
        "Find the invoice number and the total in the following document and return them as a table.",
    ),
    TaskType.CLASSIFICATION: (
        "Classify the sentiment of this review as positive, negative or neutral: The food was cold, the staff kind.",
        "Label each ticket with one category: billing, bug or other.",
        "Is this message spam? Categorize it. Answer with one label.",
    ),
    TaskType.SUMMARISATION: (
        "Summarise the following article in three sentences: " + _ARTICLE,
        "Give me a short summary of this meeting. " + _ARTICLE,
        "Write the key points and a TL;DR of the text below. " + _ARTICLE,
    ),
    TaskType.TRANSLATION: (
        "Translate into French: The house by the lake was sold last summer.",
        "How do you say 'where is the station' in Japanese? Translate it.",
        "Translate the following text to English: Der Zug ist heute leider ausgefallen.",
    ),
    TaskType.REWRITING: (
        "Rewrite this paragraph in a friendlier tone: " + _ARTICLE,
        "Proofread and improve the grammar of my letter. Keep its meaning.",
        "Paraphrase the following sentence and make it shorter: The results were not as good as had been hoped.",
    ),
    TaskType.WRITING: (
        "Write a short story about a lighthouse keeper who finds a letter.",
        "Draft a polite e-mail to my landlord about the broken heating.",
        "Write a poem about autumn in the style of a nursery rhyme.",
    ),
    TaskType.TOOL_CALL: (
        _TOOL + "What is the weather in Paris tomorrow?",
        _TOOL + "Book a table for two at seven and tell Anna.",
        _TOOL + "Open the file src/main.py and run the tests.",
    ),
    TaskType.LONG_DOCUMENT: (
        _ARTICLE * 6 + "According to the document, what did the members disagree about?",
        _ARTICLE * 5 + "Which year is mentioned last in the report above?",
    ),
    TaskType.QUESTION: (
        "What is the capital of Australia?",
        "Who painted the ceiling of the Sistine Chapel, and when?",
        "Why is the sky blue?",
    ),
    TaskType.CHAT: (
        "Hi! How are you today?",
        "Thanks, that was helpful.",
        "Tell me something nice.",
    ),
}
"""A few typical requests of each type, made up for this."""
