"""The purse's rules hold under any interleaving of calls, limits, kills and deaths."""

from __future__ import annotations

import copy
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.core.amend import Amend, Amended
from app.core.book import Book
from app.core.budget import Advance, Balance, Claim, Denied, Granted, Hold, Lost, Reserve, Settle, Settled
from app.core.terms import State, TaskCaps, Terms

SCOPES = ("task:k:1", "task:k:1|model:m", "user:k:0f:day:2026-11-20", "key:k:day:2026-11-20", "global:total")

amounts = st.integers(0, 100)
limits = st.none() | amounts
wishes = st.tuples(amounts, amounts, amounts, st.integers(1, 6))
"""How much is needed, how much more is wanted, the risk, the share."""
picks = st.integers(0, 50)
few = st.none() | st.integers(0, 9)
caps = st.none() | st.none() | st.builds(TaskCaps, few, few, few, few, few, few, st.booleans(), few, few)
claims = st.lists(
    st.builds(Claim, st.sampled_from(SCOPES), limits, limits, caps), min_size=1, max_size=5, unique_by=lambda c: c.scope
).map(tuple)


class Purse(RuleBasedStateMachine):
    """Random calls on a few scopes. What each scope must have spent is kept beside the book."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.serial = 0
        self.charged = dict.fromkeys(SCOPES, 0)
        self.grants = dict.fromkeys(SCOPES, 0)
        self.killed_at: dict[str, int] = {}
        self.ended: list[str] = []
        self.lapsed: dict[str, tuple[tuple[str, ...], int]] = {}
        self.remembered: list[str] = []
        self.tokens = dict.fromkeys(SCOPES, 0)
        self.begun: dict[str, int] = {}
        self.now_ms = 1

    @rule(
        claims=claims,
        wish=wishes,
        passed_ms=st.integers(0, 4),
        need_tokens=st.integers(0, 4),
        held_share=st.sampled_from([0, 0, 1, 3]),
    )
    def reserve(
        self,
        claims: tuple[Claim, ...],
        wish: tuple[int, int, int, int],
        passed_ms: int,
        need_tokens: int,
        held_share: int,
    ) -> None:
        self.serial += 1
        self.now_ms += passed_ms
        need, more, risk, share = wish
        call_id, before = f"c{self.serial}", copy.deepcopy(self.book)
        op = Reserve(call_id, "me", claims, need, need + more, risk, share, self.now_ms, need_tokens, held_share)
        result = self.book.apply(op)
        if isinstance(result, Denied):
            assert call_id not in self.book.holds
            self.check_denial(result, op, before)
            return
        assert isinstance(result, Granted)
        if held_share:
            assert not self.crowded(op, before)
        assert need <= result.held_nano <= need + more
        self.begun[call_id] = need_tokens
        for claim in claims:
            self.grants[claim.scope] += 1
            self.tokens[claim.scope] += need_tokens if self.counts_at_entry(claim.scope) else 0
        self.check_grant(call_id, result)
        for claim in claims:
            self.check_terms(self.book.balances[claim.scope], result, need_tokens)

    def counts_at_entry(self, scope: str) -> bool:
        terms = self.book.balances[scope].terms
        return terms is not None and terms.at_entry

    def check_terms(self, balance: Balance, result: Granted, need_tokens: int) -> None:
        """What was granted fits the limits that are not money, this call among the calls."""
        terms = balance.terms
        assert 0 < balance.began_ms <= self.now_ms
        if terms is None:
            return
        assert terms.state == "open"
        assert terms.max_calls is None or balance.calls <= terms.max_calls
        assert terms.max_parallel is None or balance.running <= terms.max_parallel
        if terms.at_entry:
            assert terms.max_tokens is None or balance.tokens - need_tokens < terms.max_tokens
            return
        if terms.max_tokens is not None:
            assert result.tokens_left is not None
            assert max(need_tokens, 1) <= result.tokens_left <= terms.max_tokens - balance.tokens
        if terms.max_ms is not None:
            assert result.ms_left is not None
            assert 0 < result.ms_left <= terms.max_ms - (self.now_ms - balance.began_ms)

    def crowded(self, op: Reserve, before: Book) -> set[str]:
        """The scopes in which all holds and this need would be more than their share of what is not spent."""
        held = {name: before.balances.get(name, Balance()).held_nano + op.need_nano for name in SCOPES}
        limits = {claim.scope: self.book.balances[claim.scope].effective_limit_nano for claim in op.claims}
        spent = {name: self.book.balances[name].spent_nano for name in limits}
        return {
            name
            for name, limit in limits.items()
            if limit is not None and held[name] * op.held_share > max(limit - spent[name], 0)
        }

    def check_denial(self, result: Denied, op: Reserve, before: Book) -> None:
        """A denial changes no money, and has a reason in the scope it names."""
        for name in SCOPES:
            old, new = before.balances.get(name, Balance()), self.book.balances.get(name, Balance())
            unlimited = replace(new, limit_nano=old.limit_nano, own_limit_nano=old.own_limit_nano, terms=old.terms)
            assert unlimited == old
        denier = self.book.balances[result.scope]
        assert result.limit_nano == (denier.effective_limit_nano or 0)
        assert (result.spent_nano, result.held_nano) == (denier.spent_nano, denier.held_nano)
        need, rooms = op.need_nano, [self.book.balances[claim.scope].room_nano for claim in op.claims]
        if result.reason != "budget":
            assert denier.terms is not None
            assert result.contended == (result.reason == "parallel")
            assert not result.killed
            assert denier.terms.state == result.reason or result.used + 4 >= result.limit
            if result.contended:
                assert (result.limit, result.used) == (denier.terms.max_parallel, denier.running)
                assert all(room is None or room >= need for room in rooms), "a hard cap is told first"
        elif result.killed:
            assert denier.exhausted
            assert not result.contended
        else:
            least = min(room for room in rooms if room is not None)
            if op.held_share and least >= need:
                assert result.scope in self.crowded(op, before)
            else:
                assert denier.room_nano == least < need
            if result.contended:
                assert denier.held_nano > 0

    @precondition(lambda self: self.book.holds)
    @rule(pick=picks, spend=amounts, wish=wishes, strict=st.booleans())
    def advance(self, pick: int, spend: int, wish: tuple[int, int, int, int], strict: bool) -> None:
        call_id = self.some_call(pick)
        need, more, risk, share = wish
        before, held = self.book.holds[call_id].spent_nano, self.book.holds[call_id].held_nano
        spent = max(before + spend - 20, 0)  # a total that fell must change nothing
        result = self.book.apply(Advance(call_id, spent, need, need + more, risk, share, strict))
        assert isinstance(result, Granted)
        hold = self.book.holds[call_id]
        assert hold.spent_nano == max(before, spent)
        kept = max(held - (hold.spent_nano - before), 0) if strict else 0
        assert kept <= result.held_nano <= max(need + more, kept)
        if result.held_nano == kept > 0:
            return  # what was held already is no grant, and may be more than the limits allow by now
        self.check_grant(call_id, result)
        balances = [self.book.balances[scope] for scope in hold.scopes]
        if any(b.exhausted for b in balances):
            assert result.held_nano == 0
        elif result.held_nano < need:
            assert min(b.room_nano for b in balances if b.room_nano is not None) <= 0

    def check_grant(self, call_id: str, result: Granted) -> None:
        """What was granted fits into every scope, and the answer names the tightest."""
        hold = self.book.holds[call_id]
        rooms = {scope: self.book.balances[scope].room_nano for scope in hold.scopes}
        limited = {scope: room for scope, room in rooms.items() if room is not None}
        assert result.held_nano == hold.held_nano
        assert hold.held_nano == 0 or all(room >= 0 for room in limited.values())
        if limited:
            assert result.scope in limited
            assert result.remaining_nano == min(limited.values()) == limited[result.scope]
        else:
            assert (result.scope, result.remaining_nano) == (None, None)

    @precondition(lambda self: self.book.holds)
    @rule(pick=picks, cost=amounts, killed=st.lists(st.sampled_from(SCOPES), max_size=2).map(tuple))
    def settle(self, pick: int, cost: int, killed: tuple[str, ...]) -> None:
        call_id = self.some_call(pick)
        hold = self.book.holds[call_id]
        begun = self.begun[call_id]
        result = self.book.apply(Settle(call_id, cost, killed, cost % 5, begun))
        for scope in hold.scopes:
            self.tokens[scope] += cost % 5
            if self.counts_at_entry(scope):
                self.tokens[scope] = max(self.tokens[scope] - begun, 0)
        assert isinstance(result, Settled)
        assert result.charged_nano == cost
        assert result.charged_nano + result.refunded_nano == max(hold.spent_nano + hold.held_nano, cost)
        self.end(hold, cost)
        for scope in set(killed) & set(hold.scopes):
            self.killed_at.setdefault(scope, self.book.balances[scope].spent_nano)
            assert self.book.balances[scope].effective_limit_nano is None or self.book.balances[scope].exhausted

    @rule(
        scope=st.sampled_from(SCOPES[:2]),
        limits=st.tuples(limits, few, few, few, few),
        state=st.sampled_from([None, "open", "frozen", "closed"]),
        by_client=st.booleans(),
    )
    def amend(self, scope: str, limits: tuple[int | None, ...], state: State | None, by_client: bool) -> None:
        before = copy.deepcopy(self.book.balances.get(scope, Balance()))
        nano, calls, tokens, ms, parallel = limits
        op = Amend("amendment", scope, nano, calls, tokens, ms, state, by_client=by_client, max_parallel=parallel)
        result = self.book.apply(op)
        assert isinstance(result, Amended)
        after = self.book.balances[scope]
        if result.refused is not None:
            assert by_client
            assert after == before
            return
        assert (after.spent_nano, after.held_nano, after.calls) == (before.spent_nano, before.held_nano, before.calls)
        for wish, was, now in zip(limits, bounds(before), bounds(after), strict=True):
            assert now == (was if wish is None else wish)
        again = copy.deepcopy(self.book)
        assert again.apply(op) == result
        assert again == self.book

    @precondition(lambda self: self.book.holds)
    @rule(pick=picks)
    def expire(self, pick: int) -> None:
        call_id = self.some_call(pick)
        hold = copy.copy(self.book.holds[call_id])
        charge = self.book.expire(call_id)
        assert charge is not None
        assert hold.spent_nano <= charge <= hold.spent_nano + hold.held_nano
        assert charge == hold.spent_nano + min(hold.held_nano, hold.risk_nano)
        self.end(hold, charge)
        self.ended.remove(call_id)
        self.lapsed[call_id] = hold.scopes, charge

    @precondition(lambda self: self.lapsed)
    @rule(pick=picks, cost=amounts, killed=st.lists(st.sampled_from(SCOPES), max_size=2).map(tuple))
    def settle_after_expiry(self, pick: int, cost: int, killed: tuple[str, ...]) -> None:
        """What was charged for the owner's silence is made good."""
        call_id = list(self.lapsed)[pick % len(self.lapsed)]
        scopes, charge = self.lapsed.pop(call_id)
        assert self.book.apply(Advance(call_id, 5, 5, 5, 5)) == Lost(call_id)
        begun = self.begun[call_id]
        result = self.book.apply(Settle(call_id, cost, killed, cost % 5, begun))
        assert isinstance(result, Settled)
        assert (result.charged_nano, result.refunded_nano, result.lapsed) == (cost, max(charge - cost, 0), True)
        for scope in scopes:
            self.charged[scope] += cost - charge
            self.tokens[scope] += cost % 5
            if self.counts_at_entry(scope):
                self.tokens[scope] = max(self.tokens[scope] - begun, 0)
        for scope in set(killed) & set(scopes):
            self.killed_at.setdefault(scope, self.book.balances[scope].spent_nano)
        self.remembered.append(call_id)

    @rule(claims=st.just(()) | claims, cost=amounts)
    def settle_what_was_not_answered(self, claims: tuple[Claim, ...], cost: int) -> None:
        self.serial += 1
        call_id = f"c{self.serial}"
        result = self.book.apply(Settle(call_id, cost, (), cost % 5, 3, claims, self.now_ms))
        assert isinstance(result, Settled)
        assert (result.charged_nano, result.refunded_nano, result.lapsed) == (cost, 0, False)
        for claim in claims:
            self.grants[claim.scope] += 1
            self.charged[claim.scope] += cost
            self.tokens[claim.scope] += cost % 5
            assert self.book.balances[claim.scope].began_ms > 0
        self.remembered.append(call_id)

    @precondition(lambda self: self.book.holds)
    @rule(pick=picks, claims=st.just(()) | claims, cost=amounts)
    def settle_what_was_carried_out_unanswered(self, pick: int, claims: tuple[Claim, ...], cost: int) -> None:
        """The hold's own scopes are charged, and nothing else."""
        call_id = self.some_call(pick)
        hold, begun = self.book.holds[call_id], self.begun[call_id]
        assert isinstance(self.book.apply(Settle(call_id, cost, (), 0, begun, claims)), Settled)
        for scope in hold.scopes:
            if self.counts_at_entry(scope):
                self.tokens[scope] = max(self.tokens[scope] - begun, 0)
        self.end(hold, cost)
        self.ended.remove(call_id)
        self.remembered.append(call_id)

    @precondition(lambda self: self.remembered)
    @rule(pick=picks, claims=st.none() | st.just(()) | claims)
    def a_remembered_call_changes_nothing_more(self, pick: int, claims: tuple[Claim, ...] | None) -> None:
        call_id, before = self.remembered[pick % len(self.remembered)], copy.deepcopy(self.book)
        assert isinstance(self.book.apply(Settle(call_id, 7, SCOPES, 7, 7, claims)), Settled)
        assert self.book.apply(Advance(call_id, 5, 5, 5, 5)) == Lost(call_id)
        assert self.book.apply(Reserve(call_id, "me", claims or (), 1, 99, 1)) == Lost(call_id)
        assert self.book.expire(call_id) is None
        assert self.book == before

    @precondition(lambda self: self.ended)
    @rule(pick=picks)
    def end_twice(self, pick: int) -> None:
        call_id, before = self.ended[pick % len(self.ended)], copy.deepcopy(self.book)
        assert self.book.apply(Settle(call_id, 5, SCOPES)) == Lost(call_id)
        assert self.book.apply(Advance(call_id, 5, 5, 5, 5)) == Lost(call_id)
        assert self.book.expire(call_id) is None
        assert self.book == before

    @precondition(lambda self: self.book.holds)
    @rule(pick=picks, claims=claims)
    def reserve_twice(self, pick: int, claims: tuple[Claim, ...]) -> None:
        call_id, before = self.some_call(pick), copy.deepcopy(self.book)
        result = self.book.apply(Reserve(call_id, "me", claims, 1, 99, 1))
        assert isinstance(result, Granted)
        assert result.held_nano == before.holds[call_id].held_nano
        assert self.book == before

    def some_call(self, pick: int) -> str:
        return list(self.book.holds)[pick % len(self.book.holds)]

    def end(self, hold: Hold, charge: int) -> None:
        assert hold.call_id not in self.book.holds
        self.ended.append(hold.call_id)
        for scope in hold.scopes:
            self.charged[scope] += charge

    @invariant()
    def every_nano_is_accounted_for(self) -> None:
        for name, balance in self.book.balances.items():
            mine = [hold for hold in self.book.holds.values() if name in hold.scopes]
            assert balance.held_nano == sum(hold.held_nano for hold in mine)
            assert balance.spent_nano == self.charged[name] + sum(hold.spent_nano for hold in mine)
            assert balance.calls == self.grants[name]
            assert balance.running == len(mine)
            assert balance.tokens == self.tokens[name]
            assert min(balance.held_nano, balance.spent_nano) >= 0
        assert all(hold.held_nano >= 0 for hold in self.book.holds.values())

    @invariant()
    def the_first_kill_stays_on_record(self) -> None:
        assert self.killed_at == {
            name: b.killed_at_nano for name, b in self.book.balances.items() if b.killed_at_nano is not None
        }


def bounds(balance: Balance) -> tuple[int | None, ...]:
    """The limits that bind a task: dollars, calls, tokens, time, calls at a time."""
    terms = balance.terms or Terms()
    return balance.effective_limit_nano, terms.max_calls, terms.max_tokens, terms.max_ms, terms.max_parallel


TestPurse = Purse.TestCase
TestPurse.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def reserved(book: Book, call_id: str, *claims: Claim, need: int = 10, want: int = 10, share: int = 1) -> object:
    return book.apply(Reserve(call_id, "me", claims, need, want, 0, share))


@given(policy=amounts, own=amounts, want=st.integers(0, 200))
def test_a_clients_own_limit_lowers_and_never_raises(policy: int, own: int, want: int) -> None:
    plain, limited = Book(), Book()
    without = reserved(plain, "c", Claim("s", policy), need=0, want=want)
    granted = reserved(limited, "c", Claim("s", policy, own), need=0, want=want)
    assert isinstance(without, Granted)
    assert isinstance(granted, Granted)
    assert granted.held_nano == min(without.held_nano, own)


def test_a_clients_limit_is_remembered_and_the_policys_is_the_latest() -> None:
    book = Book()
    reserved(book, "1", Claim("s", 100, 20), need=0, want=0)
    reserved(book, "2", Claim("s", 50), need=0, want=0)
    assert book.balances["s"].effective_limit_nano == 20
    reserved(book, "3", Claim("s", None, 70), need=0, want=0)
    assert book.balances["s"].effective_limit_nano == 70
    reserved(book, "4", Claim("s", 50), need=0, want=0)
    assert book.balances["s"].effective_limit_nano == 50


@given(limit=st.integers(1, 100), raised=st.integers(0, 200), later=amounts)
def test_a_killed_scope_revives_when_its_limit_is_raised_and_only_then(limit: int, raised: int, later: int) -> None:
    book = Book()
    reserved(book, "1", Claim("s", limit), need=limit, want=limit)
    reserved(book, "2", Claim("s", None), need=later, want=later)
    book.balances["s"].limit_nano = limit
    book.apply(Settle("1", limit, ("s",)))
    assert book.balances["s"].killed_at_nano == limit
    book.apply(Settle("2", later, ("s",)))  # counting goes on after a kill
    assert (book.balances["s"].killed_at_nano, book.balances["s"].spent_nano) == (limit, limit + later)
    result = reserved(book, "3", Claim("s", raised), need=0, want=0)
    assert (isinstance(result, Denied) and result.killed) == (raised <= limit)


def test_waiting_helps_only_if_every_scope_would_fit() -> None:
    book = Book()
    reserved(book, "1", Claim("a", 100), Claim("b", 100), need=90, want=90)
    in_the_way = reserved(book, "2", Claim("a", 100), Claim("b", 100), need=50)
    assert isinstance(in_the_way, Denied)
    assert in_the_way.contended
    hopeless = reserved(book, "2", Claim("a", 100), Claim("c", 49), need=50)
    assert isinstance(hopeless, Denied)
    assert not hopeless.contended


def test_an_advance_says_when_other_calls_hold_the_room() -> None:
    book = Book()
    reserved(book, "1", Claim("s", 100), need=60, want=60)
    reserved(book, "2", Claim("s", 100), need=40, want=40)
    assert book.apply(Advance("2", 35, 30, 30, 0)) == Granted(5, 0, "s", contended=True, step=2)
    book.apply(Settle("1", 60))
    assert book.apply(Advance("2", 35, 30, 30, 0)) == Granted(5, 0, "s", contended=False, step=2)


def test_a_share_leaves_room_for_others_but_never_less_than_the_need() -> None:
    book = Book()
    assert reserved(book, "1", Claim("s", 100), need=5, want=90, share=4) == Granted(25, 75, "s", step=1)
    assert reserved(book, "2", Claim("s", 100), need=50, want=90, share=4) == Granted(50, 25, "s", step=2)
    assert book.apply(Advance("1", 20, 4, 90, 0, 4)) == Granted(7, 23, "s", step=2)


def test_spending_past_the_hold_is_recorded_in_full() -> None:
    book = Book()
    reserved(book, "1", Claim("s", 20), need=10)
    assert book.apply(Advance("1", 35, 10, 10, 0)) == Granted(0, -15, "s", step=1)
    assert book.apply(Settle("1", 40)) == Settled(40, 0, -20, "s")


def test_a_lower_limit_takes_nothing_back_from_a_call_that_spends_unseen() -> None:
    """Its provider may bill all that it was granted; what others could have of it would pass the cap of them all."""
    book, team = Book(), Claim("team:t:total", 100)
    blind = book.apply(Reserve("blind", "o", (Claim("task:k:1", 100), team), 80, 80, 80))
    assert isinstance(blind, Granted)
    assert blind.held_nano == 80
    lower = Reserve("other", "o", (Claim("task:k:1", 100, own_limit_nano=30), team), 1, 1, 1)
    assert isinstance(book.apply(lower), Denied)
    renewed = book.apply(Advance("blind", 10, 5, 70, 70, strict=True))
    assert isinstance(renewed, Granted)
    assert renewed.held_nano == 70
    third = book.apply(Reserve("third", "o", (team,), 1, 90, 90))
    assert isinstance(third, Granted)
    book.apply(Settle("third", third.held_nano))
    book.apply(Settle("blind", 80))
    assert book.balances[team.scope].spent_nano == 100
