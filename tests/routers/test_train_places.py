"""Where a request lies: directions of what surfaces differ in, whatever the outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from routers.train_places import PLACES, fit_places


def test_places_are_what_rows_differ_in_most() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 20)) * np.where(np.arange(20) == 3, 5.0, 1.0)
    source = np.zeros(len(x), dtype=np.int64)
    found = fit_places(x, source)
    assert found.shape == (20, PLACES)
    assert np.abs(found[:, 0]).argmax() == 3
    assert found[3, 0] > 0.0
    at = (x - x.mean(axis=0)) @ found
    assert (at**2).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-6)
    assert np.array_equal(found, fit_places(x, source))


def test_a_large_source_is_not_all() -> None:
    """Nine rows of ten differ in one direction; by rows alone the other would be a tenth as wide."""
    rng = np.random.default_rng(1)
    x = np.zeros((1_000, PLACES + 1))
    x[:900, 0], x[900:, 1] = rng.normal(size=900), 1.5 * rng.normal(size=100)
    found = fit_places(x, np.repeat([0, 1], [900, 100]))
    widths = np.linalg.norm(found[:2], axis=1)
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)
    by_rows = x.var(axis=0)
    assert by_rows[1] < by_rows[0] / 3.0
    assert np.abs(found[:, 0]).argmax() == 0


def test_few_rows_leave_directions_all_the_same() -> None:
    assert np.isfinite(fit_places(np.zeros((1, 20)), np.zeros(1, dtype=np.int64))).all()
