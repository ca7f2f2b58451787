"""What a record makes of several attempts."""

from __future__ import annotations

from itertools import combinations

import pytest

from app.core.types import Provenance
from app.gateway.attempt_record import AttemptRecord
from app.gateway.record import total_usd, worst_provenance
from tests.gateway.policy_values import model

BY_CERTAINTY = (
    Provenance.FREE,
    Provenance.METERED,
    Provenance.ESTIMATED,
    Provenance.CONSERVATIVE,
    Provenance.LIST_PRICE,
    Provenance.UNKNOWN,
)


def attempt(provenance: Provenance, nano: int | None = 1_000_000) -> AttemptRecord:
    return AttemptRecord(model("m"), provenance=provenance, charged_nano=nano)


@pytest.mark.parametrize(("better", "worse"), list(combinations(BY_CERTAINTY, 2)))
def test_a_calls_dollars_are_as_uncertain_as_those_of_its_least_certain_attempt(
    better: Provenance, worse: Provenance
) -> None:
    assert worst_provenance([attempt(better), attempt(worse)]) is worse
    assert worst_provenance([attempt(worse), attempt(better), attempt(better)]) is worse
    assert worst_provenance([attempt(better)]) is better


def test_dollars_are_unknown_where_those_of_one_attempt_are() -> None:
    known, unknown = attempt(Provenance.METERED), attempt(Provenance.UNKNOWN, None)
    assert total_usd([known, known]) == 0.002
    assert total_usd([unknown, known]) is None
    assert (total_usd([]), worst_provenance([])) == (0.0, Provenance.METERED)
