"""The gateway's learner in the harness. Rows and weights are synthetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from routers.abilities import AbilityStack
from routers.eval_contenders import Readings
from routers.eval_table import Table, tables
from routers.eval_told import Listener, in_common, predicted
from routers.kinds import extended
from tests.routers.outcomes import rows, weights


@pytest.fixture(scope="module")
def table() -> Table:
    return tables(rows(), lambda _name: (1.0, 1.0))[0]


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener(weights(), Readings())


def test_many_predictions_are_as_one_by_one(table: Table, listener: Listener) -> None:
    belief, arm = listener.heard(table, [0, 1], np.arange(20)), Readings().arms(table)[1]
    ability, demands = belief.ability(arm.name), listener.demands(table)
    z = np.array([extended(demand) for demand in demands])
    var = np.pad(np.array([demand.var for demand in demands]), ((0, 0), (0, z.shape[1] - len(demands[0].var))))
    one_by_one = [AbilityStack([ability]).predict(at, of)[0][0] for at, of in zip(z, var, strict=True)]
    everything = np.arange(len(table.rows))
    assert predicted(ability, z, var) == pytest.approx(np.array(one_by_one))
    assert listener.chances(belief, arm, table, everything) == pytest.approx(np.array(one_by_one))


def test_outcomes_narrow_what_is_believed_of_a_model_and_tell_of_the_others(table: Table, listener: Listener) -> None:
    arms = Readings().arms(table)
    untold = listener.joined(listener.heard(table, [0], np.arange(0)), arms[1])
    told = untold
    for row in range(40):
        told = listener.told(told, arms[0], table, row, 0.0)
    for arm in arms[:2]:
        assert np.trace(told.ability(arm.name).cov) < np.trace(untold.ability(arm.name).cov)
        before, after = (listener.chances(belief, arm, table, np.arange(40)).mean() for belief in (untold, told))
        assert after < before - 0.1


def test_outcomes_of_one_request_count_for_what_they_do_not_share(table: Table, listener: Listener) -> None:
    """Four models that always fail together are as one; what each does for itself counts whole."""
    rng = np.random.default_rng(0)
    together = np.repeat(rng.integers(0, 2, (80, 1)).astype(float), 4, axis=1)
    apart = rng.integers(0, 2, (4_000, 4)).astype(float)
    assert in_common(together) == pytest.approx(1.0)
    assert in_common(apart) == pytest.approx(0.0, abs=0.03)
    assert in_common(together[:, :1]) == 0.0
    one = replace(table, score=np.vstack([together, table.score[80:]]))
    belief = listener.heard(one, range(4), np.arange(80))
    assert [own.labels for own in belief.own.values()] == pytest.approx([20.0] * 4)


def test_what_was_not_asked_is_not_heard(table: Table, listener: Listener) -> None:
    gone = table.score.copy()
    gone[:, 1] = np.nan
    belief = listener.heard(replace(table, score=gone), [0, 1], np.arange(30))
    labels = [belief.own[arm.name].labels for arm in Readings().arms(table)[:2]]
    assert labels == [30.0, 0.0]
