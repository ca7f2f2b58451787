"""Fits `routers.lengths`: a regression of log2 tokens per kind of request, and a verbosity per model.

Both are fitted in turns on absolute errors (reweighted least squares), every source with the same say, then the
verbosities are regressed on facts and lines for models that were never measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from routers.abilities import Matrix, Vector
from routers.base import Arm
from routers.facts import line_of
from routers.features import Features
from routers.lengths import CALL, KINDS, OTHER, REGRESSORS, VERBOSITY_FACTS, describe, length_name, verbosity_facts

ROUNDS: Final = 12
RIDGE: Final = 10.0
"""Observations' worth of belief that a regressor changes nothing."""
CONSTANT_RIDGE: Final = 1e-3
MODEL_RIDGE: Final = 2.0
"""Observations' worth of belief that a model is of median verbosity."""
FACT_RIDGE: Final = 4.0
"""Models' worth of belief that a fact or a line says nothing about verbosity."""
SOFT: Final = 0.3
"""Errors below this, in log2, weigh alike: reweighting by 1 / |error| makes the fit one of medians."""
TRUST_AT: Final = 40.0
"""Distinct requests of a kind at which half of its correction is used."""
SOURCE_SHARE: Final = 2000.0
"""Weight that every source has in sum."""

Places = NDArray[np.int64]


class Lengths(NamedTuple):
    """Measured lengths, one entry each: places in lists of requests and arms, visible output tokens, source number."""

    request: Places
    arm: Places
    tokens: Vector
    source: Places


def fit_lengths(features: Sequence[Features], arms: Sequence[Arm], seen: Lengths) -> dict[str, Any]:
    """Arrays for `LengthWeights.of`. Only arms that do not reason should be in `seen`: what is hidden is no part of
    this regression. Deterministic."""
    described = [describe(f) for f in features]
    kind_of = np.array([kind for kind, _ in described], dtype=np.int64)
    x = np.array([row for _, row in described]).reshape(len(features), REGRESSORS)
    names, model_of = _models(arms)
    request, model = seen.request, model_of[seen.arm]
    kind, mode = kind_of[request], (kind_of[request] == CALL).astype(np.int64)
    y = np.log2(np.maximum(seen.tokens, 1.0))
    share = SOURCE_SHARE / np.bincount(seen.source)[seen.source]
    centre, scale = _standards(x, kind_of, np.unique(request))
    z = np.clip((x[request] - centre[kind]) / scale[kind], -2.0, 2.0)
    coef, speaks = np.zeros((len(KINDS) + 1, REGRESSORS)), np.zeros((2, len(names)))
    for _ in range(ROUNDS):
        error = y - (coef[kind] * z).sum(axis=1) - speaks[mode, model]
        weight = share / np.maximum(np.abs(error), SOFT) * SOFT
        for at in range(len(KINDS)):
            of = kind == at
            if of.any():
                coef[at] = _ridge(z[of], (y - speaks[mode, model])[of], weight[of])
        left = y - (coef[kind] * z).sum(axis=1)
        for at in (0, 1):
            of = (mode == at) & (kind != OTHER)
            total = np.bincount(model[of], (weight * left)[of], len(names))
            speaks[at] = total / (np.bincount(model[of], weight[of], len(names)) + MODEL_RIDGE)
    measured = np.array([np.bincount(model[(mode == at) & (kind != OTHER)], minlength=len(names)) for at in (0, 1)])
    lines, verbosity = _by_facts(arms, names, model_of, speaks, measured)
    distinct = np.array([len(np.unique(request[kind == at])) for at in range(len(KINDS))], dtype=np.float64)
    return {
        "coef": coef[: len(KINDS)],
        "centre": centre[: len(KINDS)],
        "scale": scale[: len(KINDS)],
        "trust": distinct / (distinct + TRUST_AT),
        "lines": np.array(lines, dtype=np.str_),
        "verbosity": verbosity,
        "known": np.array(names, dtype=np.str_),
        "known_verbosity": np.where(measured > 0, speaks, np.nan),
    }


def _models(arms: Sequence[Arm]) -> tuple[list[str], Places]:
    places: dict[str, int] = {}
    at = [places.setdefault(length_name(arm), len(places)) for arm in arms]
    return list(places), np.array(at, dtype=np.int64)


def _standards(x: Matrix, kind_of: Places, requests: Places) -> tuple[Matrix, Matrix]:
    """Centre and scale of the regressors of each kind; the constant stays a constant."""
    centre, scale = np.zeros((len(KINDS) + 1, x.shape[1])), np.ones((len(KINDS) + 1, x.shape[1]))
    for at in range(len(KINDS)):
        of = x[requests[kind_of[requests] == at]]
        if len(of) > 1:
            centre[at, 1:], scale[at, 1:] = of.mean(axis=0)[1:], np.maximum(of.std(axis=0)[1:], 0.05)
    return centre, scale


def _ridge(z: Matrix, y: Vector, weight: Vector) -> Vector:
    penalty = np.diag([CONSTANT_RIDGE] + [RIDGE] * (z.shape[1] - 1))
    return np.asarray(np.linalg.solve((z * weight[:, None]).T @ z + penalty, z.T @ (weight * y)), np.float64)


def _by_facts(
    arms: Sequence[Arm], names: Sequence[str], model_of: Places, speaks: Matrix, measured: NDArray[np.int64]
) -> tuple[list[str], Matrix]:
    """Verbosity from facts and lines, by ridge over measured models."""
    lines = sorted({line_of(arm.model or arm.name) or arm.family for arm in arms} - {""})
    first = [arms[int(np.flatnonzero(model_of == m)[0])] for m in range(len(names))]
    facts = np.array([verbosity_facts(arm, lines) for arm in first])
    verbosity = np.zeros((2, facts.shape[1]))
    penalty = np.diag([1.0] + [FACT_RIDGE] * (len(VERBOSITY_FACTS) + len(lines)))
    for at in (0, 1):
        of = measured[at] > 0
        if of.any():
            verbosity[at] = np.linalg.solve(facts[of].T @ facts[of] + penalty, facts[of].T @ speaks[at, of])
    return lines, verbosity
