"""Which notices of money are due, and what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Balance
from app.core.notices import Due, of_task, of_window

USD = 1_000_000_000
AT = (0.8, 1.0)


def due(scope: str, spent_nano: int, *, cut: bool = False) -> Due | None:
    limit = 20 * USD
    balance = Balance(spent_nano, limit_nano=limit)
    if cut:
        balance.killed_at_nano, balance.killed_limit_nano = spent_nano, limit
    return of_window(scope, balance, limit, AT)


@pytest.mark.parametrize(
    ("scope", "spent", "text"),
    [
        (
            "key:alice:month:2026-12",
            16_400_000_001,
            "Key alice has spent 82% of its budget of this month: $16.40 of $20.00.",
        ),
        ("global:day:2026-12-01", 20 * USD, "All keys together have spent 100% of their budget of this day"),
        ("team:lab:total", 17 * USD, "Team lab has spent 85% of its total budget: $17.00 of $20.00."),
        ("key:ci:hour:2026-12-01T07", 18 * USD, "Key ci has spent 90% of its budget of this hour"),
    ],
)
def test_a_window_is_told_in_words(scope: str, spent: int, text: str) -> None:
    found = due(scope, spent)
    assert found is not None
    assert found.notice.text.startswith(text)


def test_what_programs_are_told() -> None:
    found = due("key:alice:month:2026-12", 16 * USD)
    assert found is not None
    said = found.notice
    assert (said.kind, said.scope, said.owner, said.window) == ("budget", "key_month", "alice", "2026-12")
    assert (said.spent_usd, said.limit_usd, said.used_share, said.task_id) == (16.0, 20.0, 0.8, None)
    everybody = due("global:total", 16 * USD)
    assert everybody is not None
    assert (everybody.notice.scope, everybody.notice.owner, everybody.notice.window) == ("global_total", None, None)


@given(st.integers(0, 40 * USD))
def test_a_window_is_told_of_the_highest_share_that_it_reached(spent: int) -> None:
    found = due("key:k:day:2026-12-01", spent)
    share = None if found is None else found.once.split()[1]
    assert share == ("1" if spent >= 20 * USD else "0.8" if spent >= 16 * USD else None)


def test_a_cut_at_the_limit_spends_it_and_another_limit_is_another_notice() -> None:
    cut = due("key:k:day:2026-12-01", 17 * USD, cut=True)
    raised = of_window("key:k:day:2026-12-01", Balance(spent_nano=29 * USD), 30 * USD, AT)
    below = due("key:k:day:2026-12-01", 17 * USD)
    assert cut is not None
    assert raised is not None
    assert below is not None
    assert len({cut.once, raised.once, below.once}) == 3


def test_a_cap_that_was_raised_is_not_spent_though_no_call_has_come_since() -> None:
    """The ledger has the limit of the last call; what is told by mistake would be remembered, and not told when due."""
    cut = Balance(19 * USD, limit_nano=20 * USD, killed_at_nano=19 * USD, killed_limit_nano=20 * USD)
    assert of_window("key:k:day:2026-12-01", cut, 40 * USD, AT) is None
    lowered = of_window("key:k:day:2026-12-01", cut, 20 * USD, AT)
    assert lowered is not None
    assert lowered.once.split()[1] == "1"


@pytest.mark.parametrize("name", ["<!channel>", "@everyone", "[bill](https://evil.example)"])
def test_the_name_of_a_task_calls_nobody(name: str) -> None:
    found = of_task("ci", name, Balance(5, limit_nano=5, killed_at_nano=5, killed_limit_nano=5))
    assert found is not None
    assert found.notice.task_id == name
    assert not set("<>@[]") & set(found.notice.text)


def test_a_task_is_told_when_it_was_cut_and_again_at_a_higher_cap() -> None:
    open_ = Balance(spent_nano=500_000, limit_nano=USD)
    assert of_task("ci", "run:1", open_) is None
    cut = Balance(spent_nano=512_345, limit_nano=512_400, killed_at_nano=512_345, killed_limit_nano=512_400)
    found = of_task("ci", "run:1", cut)
    assert found is not None
    assert found.notice.text == "Task run:1 of key ci was cut at its cap: $0.000512 of $0.000512 spent."
    assert (found.notice.kind, found.notice.task_id, found.notice.owner) == ("task", "run:1", "ci")
    nobodys = of_task(None, "run:1", cut)
    assert nobodys is not None
    assert nobodys.notice.text.startswith("Task run:1 was cut")
    assert nobodys.once != found.once
    raised = Balance(spent_nano=512_345, limit_nano=USD, killed_at_nano=512_345, killed_limit_nano=512_400)
    assert of_task("ci", "run:1", raised) is None
