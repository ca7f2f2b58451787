"""The baselines that are fitted: length alone, kNN, a logistic regression per model on TF-IDF, matrix factorisation.

Each is fitted on some rows of one table and forecasts others. The text representation (TF-IDF weights, its leading
singular vectors) is made once from all prompts of the table, without any outcome: that favours them a little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from routers.eval_table import Floats, Table
from routers.rows import Indices

READ_CHARS: Final = 4000
TOKENS: Final = r"\w+|[^\w\s]"
VOCABULARY: Final = 20_000
DIMENSIONS: Final = 64
ROWS_PER_DIMENSION: Final = 20
RANK: Final = 6
NEIGHBOURS: Final = 40
PRIOR_NEIGHBOURS: Final = 4.0
"""The model's mean counts as this many neighbours."""
ITERATIONS: Final = 60
SINGLE_RIDGE: Final = 20.0
MIN_ROWS: Final = 30
MAX_SPAN: Final = 1500
"""With more rows their span costs more than it saves."""
WORDS_PER_ROW: Final = 3

Fit = Callable[[Table, Indices, Indices], Floats]
"""(table, rows to fit on, rows to forecast) -> P(success) of each model, (rows, models)."""


class Texts:
    """Representations of a table's prompts, made when first asked for."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table, self._seed = table, seed
        self._tfidf: Any = None
        self._dense: Floats | None = None

    def tfidf(self) -> Any:
        """Words and pairs of words, sublinear, rows of length 1, sparse."""
        if self._tfidf is None:
            texts = [row.prompt[:READ_CHARS] for row in self._table.rows]
            least = 2 if len(texts) > 50 else 1
            make = TfidfVectorizer(
                sublinear_tf=True, ngram_range=(1, 2), min_df=least, max_features=VOCABULARY, token_pattern=TOKENS
            )
            try:
                self._tfidf = make.fit_transform(texts)
            except ValueError:  # no text holds a word
                self._tfidf = np.zeros((len(texts), 1))
        return self._tfidf

    def dense(self) -> Floats:
        """The leading directions of the TF-IDF matrix, each of unit spread."""
        if self._dense is None:
            text = self.tfidf()
            size = min(DIMENSIONS, min(text.shape) - 1)
            if size < 1:
                self._dense = np.zeros((len(self._table.rows), 1))
            else:
                with np.errstate(invalid="ignore"):  # texts that are all alike have no variance to explain
                    reduced = TruncatedSVD(size, random_state=self._seed).fit_transform(text)
                self._dense = _standard(reduced)
        return self._dense

    def length(self) -> Floats:
        """The logarithm of the prompt's length, standardised: (rows, 1)."""
        return _standard(np.log1p([[float(len(row.prompt))] for row in self._table.rows]))


def fits(texts: Texts) -> dict[str, Fit]:
    """The fitted baselines by name."""
    return {
        "prompt length": lambda table, fit, ask: _linear(texts.length(), table, fit, ask),
        "kNN": lambda table, fit, ask: _neighbours(texts.tfidf(), table, fit, ask),
        "logistic on TF-IDF": lambda table, fit, ask: _linear(texts.tfidf(), table, fit, ask),
        "matrix factorisation": lambda table, fit, ask: _factors(texts.dense(), table, fit, ask),
    }


def _standard(values: Floats) -> Floats:
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _known(table: Table, rows: Indices) -> tuple[Floats, Floats]:
    """Scores with gaps set to 0, and 1 where a score is known."""
    score = table.score[rows]
    known = (~np.isnan(score)).astype(np.float64)
    return np.nan_to_num(score), known


def _means(score: Floats, known: Floats) -> Floats:
    """Each model's success rate, drawn a little to 1/2 so that it is never certain."""
    return np.asarray((score.sum(axis=0) + 0.5) / (known.sum(axis=0) + 1.0))


def _log_odds(p: Floats) -> Floats:
    return np.asarray(np.log(p / (1 - p)))


def _linear(x: Any, table: Table, fit: Indices, ask: Indices) -> Floats:
    """Logistic regressions for all models at once; half the squared weights weigh as much as the summed loss."""
    score, known = _known(table, fit)
    inputs, back = _compact(x[fit])
    start = np.zeros((inputs.shape[1] + 1, score.shape[1]))
    start[-1] = _log_odds(_means(score, known))

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(start.shape)
        z = np.asarray(inputs @ weights[:-1]) + weights[-1]
        residual = known * (expit(z) - score)
        value = float((known * (np.logaddexp(0.0, z) - score * z)).sum() + 0.5 * (weights[:-1] ** 2).sum())
        slope = np.vstack([np.asarray(inputs.T @ residual) + weights[:-1], residual.sum(axis=0)])
        return value, slope.ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    weights = found.x.reshape(start.shape)
    return np.asarray(expit(np.asarray(x[ask] @ back(weights[:-1])) + weights[-1]))


def _compact(inputs: Any) -> tuple[Any, Callable[[Floats], Floats]]:
    """Rows in coordinates of their own span where they are few, and the way back of weights from there.

    A ridge keeps weights within that span, and it is turned, not stretched: the search takes the very same steps, over
    a number for each row instead of each word (Kimeldorf & Wahba 1971, the representer theorem).
    """
    size, words = inputs.shape
    if not MIN_ROWS <= size <= MAX_SPAN or words < WORDS_PER_ROW * size:
        return inputs, lambda weights: weights
    alike = inputs @ inputs.T
    value, vector = eigh(alike.toarray() if hasattr(alike, "toarray") else np.asarray(alike))
    lasting = value > 1e-9 * value[-1]
    length = np.sqrt(value[lasting])
    return vector[:, lasting] * length, lambda weights: np.asarray(inputs.T @ (vector[:, lasting] / length @ weights))


def _neighbours(x: Any, table: Table, fit: Indices, ask: Indices) -> Floats:
    """Mean scores of the nearest training prompts, drawn to each model's mean."""
    score, known = _known(table, fit)
    prior = _means(score, known)
    count = min(NEIGHBOURS, max(len(fit) // 4, 1))
    p = np.empty((len(ask), score.shape[1]))
    for start in range(0, len(ask), 512):
        some = ask[start : start + 512]
        near = x[some] @ x[fit].T
        near = near.toarray() if hasattr(near, "toarray") else np.asarray(near)
        best = np.argpartition(-near, count - 1, axis=1)[:, :count]
        p[start : start + 512] = (score[best].sum(axis=1) + PRIOR_NEIGHBOURS * prior) / (
            known[best].sum(axis=1) + PRIOR_NEIGHBOURS
        )
    return p


def _factors(x: Floats, table: Table, fit: Indices, ask: Indices) -> Floats:
    """Low rank: log-odds = bias + (text x projection) . model vector, after RouteLLM's matrix factorisation router."""
    score, known = _known(table, fit)
    x = x[:, : max(len(fit) // ROWS_PER_DIMENSION, 2)]
    models, rank, ridge = score.shape[1], min(RANK, score.shape[1]), 3.0
    shapes = ((x.shape[1], rank), (rank, models), (1, models))
    sizes = np.cumsum([a * b for a, b in shapes])
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.normal(0.0, 0.1, sizes[1]), _log_odds(_means(score, known))])
    inputs = x[fit]

    def parts(flat: Floats) -> list[Floats]:
        return [each.reshape(shape) for each, shape in zip(np.split(flat, sizes[:2]), shapes, strict=True)]

    def loss(flat: Floats) -> tuple[float, Floats]:
        project, model, bias = parts(flat)
        item = inputs @ project
        z = item @ model + bias
        residual = known * (expit(z) - score)
        penalty = ridge / 2 * float((project**2).sum() + (model**2).sum())
        value = float((known * (np.logaddexp(0.0, z) - score * z)).sum()) + penalty
        slopes = [inputs.T @ (residual @ model.T) + ridge * project, item.T @ residual + ridge * model]
        return value, np.concatenate([*(slope.ravel() for slope in slopes), residual.sum(axis=0)])

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    project, model, bias = parts(found.x)
    return np.asarray(expit(x[ask] @ project @ model + bias))


def fit_single(x: Floats, score: Floats, fit: Indices, ask: Indices) -> Floats:
    """One model's logistic regression on dense features, from few labels: a strong ridge, and the mean drawn to 1/2."""
    inputs, labels = x[fit], score[fit]
    start = np.zeros(x.shape[1] + 1)
    start[-1] = _log_odds(np.asarray((labels.sum() + 0.5) / (len(labels) + 1.0)))

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = inputs @ weights[:-1] + weights[-1]
        residual = expit(z) - labels
        penalty = SINGLE_RIDGE / 2 * float((weights[:-1] ** 2).sum()) + 0.5 * float((weights[-1] - start[-1]) ** 2)
        value = float((np.logaddexp(0.0, z) - labels * z).sum()) + penalty
        slope = np.append(inputs.T @ residual + SINGLE_RIDGE * weights[:-1], residual.sum() + weights[-1] - start[-1])
        return value, slope

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return np.asarray(expit(x[ask] @ found.x[:-1] + found.x[-1]))
