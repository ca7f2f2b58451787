"""A router where outcomes speak for it, the static mix elsewhere: the first operating choice, made on validation rows.

Whoever can choose a static mix has outcomes, and can ask them whether a router is better than the mix on requests that
neither has seen. Until they say so, the mix stays. The price is what a router would have won before that can be shown.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np
from scipy.special import stdtrit

from routers.eval_baselines import MAX_CORNERS, mixture, static_weights_at, with_corners
from routers.eval_policies import column_means, spends_of
from routers.eval_runs import Part, Trial
from routers.eval_split import Fold
from routers.eval_table import Floats, Table
from routers.rows import Indices

SURE: Final = 0.95
"""How sure one must be that the router is better, one-sided."""
LEAST_DRAWS: Final = 3
"""With fewer independent draws of what is new nothing is sure."""


def prudent(table: Table, fold: Fold, trial: Trial) -> Trial:
    """A fold as it is if the router is surely better than the static mix on its validation rows; else the mix's own,
    at the same spends and at those of its models. (A router's last setting is repeated for these.)"""
    if surely_positive(lead_by_row(table, fold, trial), draws(table, fold)):
        return Trial(_longer(trial.validation), _longer(trial.test))
    weights = static_weights_at(table, fold, with_corners(table, fold, spends_of(table, fold.validation)))
    validation, test = (mixture(table, rows, weights) for rows in (fold.validation, fold.test))
    return Trial(validation, test)


def _longer(part: Part) -> Part:
    return Part(*(np.pad(values, ((0, 0), (0, MAX_CORNERS)), mode="edge") for values in (part.quality, part.cost)))


def lead_by_row(table: Table, fold: Fold, trial: Trial) -> Floats:
    """What the router is ahead of the static mix on each validation row, averaged over its settings; at each the mix
    spends what the router does. NaN where either has no outcome."""
    mix = mixture(table, fold.validation, static_weights_at(table, fold, column_means(trial.validation.cost)))
    return column_means((trial.validation.quality - mix.quality).T)


def draws(table: Table, fold: Fold) -> Indices:
    """What is drawn anew in the validation rows, as it is in the test rows: a family where test rows are of families
    that no training row has, else a question."""
    family = np.array([row.family for row in table.rows])
    known = family[np.concatenate([fold.train, fold.validation])]
    if len(fold.train) and not np.isin(family[fold.test], known).any():
        return np.unique(family[fold.validation], return_inverse=True)[1]
    return table.group[fold.validation]


def surely_positive(values: Floats, cluster: Indices) -> bool:
    """Whether the mean of some values is above 0 for sure, rows of one cluster being one draw (Student's t on the
    clusters' totals, Cochran 1977, Sampling Techniques, 9A.6); NaN values have no part in it."""
    known = ~np.isnan(values)
    values = values[known]
    _, place = np.unique(cluster[known], return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    if count < LEAST_DRAWS:
        return False
    mean = float(values.mean())
    total = np.bincount(place, weights=values - mean, minlength=count)
    error = sqrt(count / (count - 1) * float(total @ total)) / len(values)
    return mean > float(stdtrit(count - 1, SURE)) * error
