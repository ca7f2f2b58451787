"""Trees of tasks: what is below counts above, links are made once, and no cap above is passed."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.core.amend import Amend, Amended
from app.core.book import Book
from app.core.budget import Claim, Denied, Granted, Moved, Reserve, Settle
from app.core.terms import MAX_DEPTH, PLAIN, TaskCaps, claimed

TASKS = tuple(f"task:k:{number}" for number in range(12))
tasks = st.sampled_from(TASKS)


class Trees(RuleBasedStateMachine):
    """Calls of tasks that find their parents as a gateway does: by being told that they have some."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.serial = 0
        self.parents: dict[str, str] = {}
        self.counted = dict.fromkeys(TASKS, 0)
        self.calls: dict[str, tuple[str, ...]] = {}

    def line(self, task: str) -> tuple[str, ...]:
        """The task and all above it."""
        return (task, *self.line(self.parents[task])) if task in self.parents else (task,)

    @rule(child=tasks, parent=tasks)
    def link(self, child: str, parent: str) -> None:
        result = self.book.apply(Amend("link", child, parent=parent))
        assert isinstance(result, Amended)
        if child in self.line(parent):
            assert result.refused == "cycle"
        elif self.parents.get(child, parent) != parent:
            assert result.refused == "has_parent"
        elif child not in self.parents and child in self.parents.values():
            assert result.refused == "has_children"
        elif child not in self.parents and len(self.line(parent)) >= MAX_DEPTH:
            assert result.refused == "depth"
        else:
            assert result.refused is None
            self.parents[child] = parent
        assert result.above == self.line(child)[1:]

    @rule(task=tasks, limit=st.integers(0, 200), need=st.integers(0, 60))
    def call(self, task: str, limit: int, need: int) -> None:
        self.serial += 1
        call_id, line = f"c{self.serial}", self.line(task)
        result = self.book.apply(Reserve(call_id, "me", (Claim(task),), need, need, 0))
        if len(line) > 1:
            assert result == Moved(task, line[1:])
            top = Claim(line[-1], limit)
            result = self.book.apply(Reserve(call_id, "me", (*map(Claim, line[:-1]), top), need, need, 0))
        if isinstance(result, Denied):
            assert result.scope in line
            return
        assert isinstance(result, Granted)
        self.calls[call_id] = line
        for scope in line:
            room = self.book.balances[scope].room_nano
            assert room is None or room >= 0

    @precondition(lambda self: self.calls)
    @rule(pick=st.integers(0, 50), cost=st.integers(0, 60))
    def settle(self, pick: int, cost: int) -> None:
        call_id = list(self.calls)[pick % len(self.calls)]
        self.book.apply(Settle(call_id, cost, (), 1))
        for scope in self.calls.pop(call_id):
            self.counted[scope] += cost

    @invariant()
    def all_below_counts_above(self) -> None:
        for name, balance in self.book.balances.items():
            assert balance.spent_nano == self.counted[name]
            assert (balance.terms or PLAIN).above == self.line(name)[1:]


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_terms_without_anything_in_them_are_none() -> None:
    assert claimed(None, TaskCaps()) is None
    limited = claimed(None, TaskCaps(calls=3))
    assert limited is not None
    assert limited.max_calls == 3
    assert claimed(limited, None) is None, "the policy has no such limit any more"


def test_the_clients_own_limit_is_remembered_and_only_lowers() -> None:
    terms = claimed(None, TaskCaps(calls=9, own_calls=4))
    again = claimed(terms, TaskCaps(calls=3))
    assert again is not None
    assert terms is not None
    assert (terms.max_calls, again.max_calls, again.own_calls) == (4, 3, 4)
