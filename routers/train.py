"""Trains the learned router from rows of real outcomes: deterministic, in a minute or two for all the data there is.

In order: coordinates of the questions in turn with the models' abilities (`train_items`), the effect of a question's
kind on its words (`train_terms`), abilities of known and unknown models (`train_abilities`), lengths
(`train_lengths`). What is uncertain is measured by cross-validation over families inside the training rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from routers.abilities import Matrix, Vector
from routers.artifact import Weights
from routers.base import Arm, reasons_by_default
from routers.facts import arm_of_name, is_agent
from routers.features import Features, extract
from routers.rows import Row, deduplicated, folds, view_of
from routers.train_items import Outcomes, Places, abilities_at, fit_items
from routers.train_lengths import Lengths, fit_lengths
from routers.train_places import fit_places
from routers.train_tasks import fit_tasks, types_tried
from routers.train_terms import Bag, bag_of, fit_terms, unknown_square, weighted
from routers.trust import TRUST
from routers.vector import SURFACE, excerpt_words, surface, terms

CLIP: Final = 3.0
MIN_SCALE: Final = 1e-6
MIN_TRIED: Final = 20
"""Rows from which a kind of work counts as tried."""
MIN_SHARE: Final = 0.025
"""And the share of all rows: of fewer the rules may have misread."""
CONSTANT_SCALE: Final = 1e6
"""Divides a feature that never changes in training, so that it says nothing when it does."""
FINAL_ABILITY_ROUNDS: Final = 25
TRUST_IF_STRANGE: Final = (0.5, 0.0, 0.0, 0.0)
"""What is left of a coordinate where words are strange. Of ease only what words tell fades, for what the surface
tells carries over to kinds never seen; which models are good at something does not, whatever tells it. Chosen by
leaving out sources."""
FAMILIAR_SHARE, STRANGE_SHARE = 0.5, 0.9
"""Quantiles of the share of unknown words: in questions of known families, at which nothing is strange; in questions
of sources never seen, at which all is."""


def train(rows: Sequence[Row], *, seed: int = 0, own: bool = False) -> Weights:
    """Weights learned from these rows alone; raises ValueError where they hold no outcomes.

    `own`: the rows are of the traffic that the weights will serve, so that all they tell of a model is believed there.
    """
    rows = taught_by(rows)
    if not rows:
        raise ValueError("there are no outcomes to train on")
    features = [extract(view_of(row)) for row in rows]
    words = [excerpt_words(f) for f in features]
    raw = np.array([surface(f, w) for f, w in zip(features, words, strict=True)], dtype=np.float64)
    centre, scale = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(scale < MIN_SCALE, CONSTANT_SCALE, scale)
    arms, seen = _outcomes(rows, np.clip((raw - centre) / scale, -CLIP, CLIP))
    items = fit_items(arms, seen, seed=seed)
    arrays: dict[str, Any] = {
        "item/surface": np.array(SURFACE),
        "item/centre": centre,
        "item/scale": scale,
        "item/slope": items.slope,
        "item/place": fit_places(seen.x, np.unique([row.source for row in rows], return_inverse=True)[1]),
    }
    surely, effect = seen.x @ items.slope, items.effect[seen.family]
    told, u = _terms(rows, [terms(w) for w in words], seen.x, surely, effect, seed)
    arrays |= told
    # At the coordinates that serving would see: a skill that words tell only half of is believed only half. But what
    # they miss of a hard benchmark's level is no fault of the models that were tried on it.
    offset = (surely + effect - u)[:, 0]
    abilities = abilities_at(arms, seen, u, offset, rounds=FINAL_ABILITY_ROUNDS)
    # What a model never seen is good at, facts do not tell: guessed from them, it was worse than not guessed.
    abilities["coef"][:, 2:] = 0.0
    arrays |= {f"ability/{name}": np.asarray(value) for name, value in abilities.items()}
    arrays["serve/trust"] = np.float64(1.0 if own else TRUST)
    arrays["tried/tasks"] = _tried(rows, features)
    arrays |= {f"length/{name}": np.asarray(value) for name, value in _lengths(rows, features).items()}
    return Weights({name: _stored(array) for name, array in arrays.items()})


def taught_by(rows: Sequence[Row]) -> list[Row]:
    """The rows that training learns from, with the outcomes that it does: each question of a source once, no agents."""
    return [row for row in _of_models(deduplicated(rows)) if row.outcomes]


def _of_models(rows: Sequence[Row]) -> list[Row]:
    """The rows without the outcomes of agents, unless there are no others. What scaffolds around one model reach lies
    so far apart that it tells little of the model, and taught as the model's it flattens what facts tell of all."""
    kept = [replace(row, outcomes={m: o for m, o in row.outcomes.items() if not is_agent(m)}) for row in rows]
    return kept if any(row.outcomes for row in kept) else list(rows)


def _tried(rows: Sequence[Row], features: Sequence[Features]) -> np.ndarray[Any, Any]:
    """The kinds of work that outcomes are of."""
    counts = Counter(types_tried(rows, features))
    tasks = sorted(task for task, n in counts.items() if n >= max(MIN_TRIED, MIN_SHARE * len(rows)))
    return np.array([task.value for task in tasks], dtype=np.str_)


def _stored(array: Any) -> np.ndarray[Any, Any]:
    """Single precision is plenty, and hides what the order of a sum changes in the last digits."""
    kept: np.ndarray[Any, Any] = np.asarray(array)
    return kept.astype(np.float32) if kept.dtype == np.float64 else kept


def _outcomes(rows: Sequence[Row], x: Matrix) -> tuple[list[Arm], Outcomes]:
    """The outcomes of all rows; a family is one of its source."""
    arms: dict[str, int] = {}
    families: dict[tuple[str, str], int] = {}
    family = [families.setdefault((row.source, row.family), len(families)) for row in rows]
    flat = [
        (number, arms.setdefault(model, len(arms)), outcome.score)
        for number, row in enumerate(rows)
        for model, outcome in row.outcomes.items()
    ]
    item, arm, score = (np.array(column) for column in zip(*flat, strict=True))
    seen = Outcomes(item, arm, score.astype(np.float64), np.array(family, dtype=np.int64), x)
    return [arm_of_name(name) for name in arms], seen


def _terms(
    rows: Sequence[Row], texts: Sequence[set[bytes]], surfaces: Matrix, surely: Matrix, target: Matrix, seed: int
) -> tuple[dict[str, Any], Matrix]:
    """What words tell of a question's kind (`target`) beside its surface (`surely`), and how far both can be trusted;
    and the coordinates of each row as they are served when it was not among those that words were learned from."""
    bag, everything = bag_of(texts), np.arange(len(rows))
    x, _, idf = weighted(bag, everything, everything)
    inside, outside = (_held_out(bag, target, folds(rows, kind, seed)) for kind in ("random", "family"))
    strange = [weighted(bag, fit, ask)[1] for fit, ask in folds(rows, "source", seed)]
    low = float(np.quantile(inside.share, FAMILIAR_SHARE))
    high = max(float(np.quantile(np.concatenate(strange), STRANGE_SHARE)) if strange else 1.0, low + 0.05)
    u = _served(surely, inside, (low, high))
    known, unknown = (((of - surely - target) ** 2).mean(axis=0) for of in (u, _served(surely, outside, (low, high))))
    arrays: dict[str, Any] = {f"task/{name}": array for name, array in fit_tasks(rows, surfaces, x).items()}
    arrays |= {
        "term/words": np.frombuffer(b"\n".join(bag.terms), dtype=np.uint8),
        "term/table": fit_terms(x, target).astype(np.float16),
        "term/idf": idf,
        "term/rare": np.float64(unknown_square(len(rows))),
        "term/shares": np.array([low, high]),
        "term/trust": np.array(TRUST_IF_STRANGE),
        "item/variance_known": np.concatenate([[0.0], known]),
        "item/variance_unknown": np.concatenate([[0.0], np.maximum(unknown, known)]),
    }
    return arrays, u


class _Told(NamedTuple):
    """What words tell of rows that were held out (rows, SKILLS), and each row's share of unknown words."""

    local: Matrix
    share: Vector


def _held_out(bag: Bag, target: Matrix, splits: Sequence[tuple[Places, Places]]) -> _Told:
    """What words tell of every row when it is held out; nothing, where there is no fold to learn from."""
    told = _Told(np.zeros_like(target), np.ones(len(target)))
    for fit, ask in splits:
        x, told.share[ask], _ = weighted(bag, fit, ask)
        told.local[ask] = x @ fit_terms(weighted(bag, fit, fit)[0], target[fit])
    return told


def _served(surely: Matrix, told: _Told, shares: tuple[float, float]) -> Matrix:
    """Coordinates as `routers.learned` makes them."""
    ood = np.clip((told.share - shares[0]) / (shares[1] - shares[0]), 0.0, 1.0)
    trust = 1.0 - ood[:, None] * (1.0 - np.array(TRUST_IF_STRANGE))
    return np.asarray(np.column_stack([surely[:, :1], surely[:, 1:] * trust[:, 1:]]) + told.local * trust)


def _lengths(rows: Sequence[Row], features: Sequence[Features]) -> dict[str, Any]:
    """Lengths of answers where they were recorded, of models whose reasoning is not hidden in them."""
    arms: dict[str, int] = {}
    sources: dict[str, int] = {}
    flat: list[tuple[int, int, float, int]] = []
    for number, row in enumerate(rows):
        source = sources.setdefault(row.source, len(sources))
        for model, outcome in row.outcomes.items():
            place = arms.setdefault(model, len(arms))
            tokens = outcome.length_tokens
            if tokens and not reasons_by_default(model):
                flat.append((number, place, tokens, source))
    columns = np.array(flat, dtype=np.float64).reshape(len(flat), 4)
    request, arm, source_of = (columns[:, at].astype(np.int64) for at in (0, 1, 3))
    seen = Lengths(request, arm, columns[:, 2], source_of)
    return fit_lengths(features, [arm_of_name(name) for name in arms], seen)
