"""Fits which of the topical task types a request is of: what a family's name says its questions are about.

Ridge regression of membership on the surface and on the words, each type scaled to the same spread. Rules keep what
they do well, the types that an instruction names (translation, extraction, ...): no recorded outcomes are of those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from routers.abilities import Matrix
from routers.features import Features
from routers.rows import Row
from routers.tasks import TaskType, classify
from routers.train_terms import fit_terms

SURFACE_RIDGE: Final = 300.0
WORDS_SHARE, SURFACE_SHARE = 0.7, 0.5
"""The two regressions are fitted apart and tell partly the same."""
MIN_ROWS: Final = 20

FAMILIES: Final = (
    (TaskType.CODE, r"mbpp|human_?eval|crux|code|programming|python"),
    (TaskType.MATH, r"math|algebra|gsm|calculus"),
    (TaskType.SCIENCE, r"physics|chemistry|biology|astronomy|genetics"),
    (TaskType.PROFESSIONAL, r"law|medicine|clinical|accounting|jurisprudence|economics|nutrition"),
    (
        TaskType.QUESTION,
        r"trivia|natural_qa|commonsense|truthful|miscellaneous|religions|foreign_policy|history|sports",
    ),
)
"""Types by what a family or its source is called. Others, mixed ones above all, teach nothing."""
_PATTERNS: Final = tuple((type_, re.compile(pattern)) for type_, pattern in FAMILIES)


def type_of(row: Row) -> TaskType | None:
    """The topical type of a row's family; None where its name does not tell, and for tool calls, which rules see."""
    if row.tools:
        return None
    name = f"{row.source}/{row.family}".lower() if row.family == "test" else row.family.lower()
    return next((type_ for type_, pattern in _PATTERNS if pattern.search(name)), None)


def types_tried(rows: Sequence[Row], features: Sequence[Features]) -> list[TaskType]:
    """The kind of work that each row's outcomes are of: by the name of its family, else by the rules."""
    return [
        TaskType.TOOL_CALL if row.tools else type_of(row) or classify(f).type
        for row, f in zip(rows, features, strict=True)
    ]


def fit_tasks(rows: Sequence[Row], x: Matrix, words: sp.csr_matrix) -> dict[str, Any]:
    """Arrays of the topical types: names, and what surface (`x`) and words (as `train_terms.weighted`) tell of each."""
    types = [type_of(row) for row in rows]
    names = [type_ for type_, _ in FAMILIES if types.count(type_) >= MIN_ROWS]
    names = names if len(names) > 1 else []
    told = np.flatnonzero([type_ in names for type_ in types])
    member = np.zeros((len(told), len(names)))
    for column, name in enumerate(names):
        member[:, column] = [types[i] is name for i in told]
    scale = np.maximum(member.std(axis=0), 1e-6) if names else np.ones(0)
    target = (member - member.mean(axis=0)) / scale if names else member
    x = x[told]
    surface = np.linalg.solve(x.T @ x + SURFACE_RIDGE * np.eye(x.shape[1]), x.T @ target)
    return {
        "names": np.array([str(name) for name in names], dtype=np.str_),
        "surface": SURFACE_SHARE * surface,
        "table": (WORDS_SHARE * fit_terms(words[told], target)).astype(np.float16),
    }
