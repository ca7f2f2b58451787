"""Which caps bind a call: the tightest wins, the client can lower and never raise, and tasks keep apart."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Balance, Claim, Denied
from app.core.caps import Caps, Users, Windows
from app.core.policy import Key, Team
from app.core.terms import Reason, TaskCaps
from app.core.windows import refills_at, window_of
from app.gateway.denials import denial, denial_headers
from app.gateway.limits import (
    ANONYMOUS,
    NO_CAPS,
    ClientCaps,
    Used,
    is_task_scope,
    limits_for,
    scope_kind,
    scope_word,
    task_scope,
    user_claims,
)
from tests.gateway.policy_values import model, policy

MOMENT = "2026-11-20T10:30"
NOW = dt.datetime(2026, 12, 31, 23, 59, 50, tzinfo=dt.UTC)
KEY = Key("k", "0" * 64)
amounts = st.none() | st.integers(0, 100)


@pytest.mark.parametrize(("late_s", "wait"), [(-60, "60"), (-59.5, "60"), (-0.5, "1"), (0, "1"), (90, "1")])
def test_the_wait_is_until_the_end_of_the_window_that_a_call_is_counted_in(late_s: float, wait: str) -> None:
    """Which may be over when the call is denied; then it can begin anew at once, and not in a minute or an hour."""
    ends = dt.datetime(2026, 11, 20, 10, 31, tzinfo=dt.UTC)
    calls, money = f"key:k:minute:{MOMENT}", "key:k:hour:2026-11-20T09"
    cases: tuple[tuple[str, Reason], ...] = ((calls, "calls"), (money, "budget"))
    for scope, reason in cases:
        ends = ends.replace(minute=31 if reason == "calls" else 0)
        denied = Denied(scope, 5, 5, 0, contended=False, killed=False, reason=reason, limit=5, used=5)
        error = denial(denied, 1, ends + dt.timedelta(seconds=late_s))
        assert error.headers["x-bursar-reset"] == f"{ends:%Y-%m-%dT%H:%M:%S}Z"
        if late_s > -30 or reason == "calls":
            assert (error.status, error.headers["retry-after"]) == (429, wait)
        else:
            assert error.status == 402


@given(amounts, amounts, amounts, amounts, amounts)
def test_the_tightest_cap_binds_a_call_without_a_task(
    request_nano: int | None, task_nano: int | None, model_nano: int | None, own: int | None, own_task: int | None
) -> None:
    candidate = model("m", cap=model_nano)
    caps = Caps(request_nano=request_nano, task_nano=task_nano)
    limits = limits_for(policy([candidate], caps=caps), candidate, None, None, ClientCaps(own, own_task), MOMENT)
    given_caps = {
        "request": [c for c in (request_nano, own) if c is not None],
        "task": [c for c in (task_nano, own_task) if c is not None],
        "model": [c for c in (model_nano,) if c is not None],
    }
    every = [c for found in given_caps.values() for c in found]
    assert limits.call_nano == (min(every) if every else None)
    assert not every or limits.call_nano in given_caps[limits.call_scope]
    assert limits.capped == bool(every)
    assert not any(is_task_scope(claim.scope) for claim in limits.claims)


@given(st.lists(st.integers(0, 100), min_size=5, max_size=5), st.lists(st.tuples(st.booleans(), st.integers(0, 60))))
def test_attempts_together_never_have_more_than_the_caps(caps: list[int], attempts: list[tuple[bool, int]]) -> None:
    """Each attempt spends what it wants of what it may; the caps that are a call's own bind all of them together."""
    request_nano, task_nano, own, own_task, model_nano = caps
    candidates = model("m", cap=model_nano), model("n", cap=model_nano)
    of = policy(list(candidates), caps=Caps(request_nano=request_nano, task_nano=task_nano, task_tokens=50, task_s=1))
    spent = {"m": 0, "n": 0}
    for at, (second, wanted) in enumerate(attempts):
        candidate = candidates[second]
        used = Used(sum(spent.values()), spent[candidate.name], tokens=9 * at, ms=300 * at)
        limits = limits_for(of, candidate, None, None, ClientCaps(own, own_task), MOMENT, used)
        assert limits.call_nano is not None
        assert limits.call_cap_nano in caps
        assert limits.call_used_nano <= sum(spent.values())
        assert (limits.call_tokens, limits.call_ms) == (max(50 - 9 * at, 0), max(1000 - 300 * at, 0))
        spent[candidate.name] += min(wanted, limits.call_nano)
        assert sum(spent.values()) <= min(request_nano, task_nano, own, own_task)
        assert max(spent.values()) <= model_nano
        in_task = limits_for(of, candidate, None, "t", ClientCaps(own, own_task), MOMENT, used)
        assert in_task.call_nano == max(min(request_nano, own) - used.nano, 0)
        assert in_task.claims[:2] == limits_for(of, candidate, None, "t", ClientCaps(own, own_task), MOMENT).claims[:2]


@given(amounts, amounts, amounts, amounts)
def test_a_client_lowers_and_never_raises(
    policy_nano: int | None, own: int | None, task_nano: int | None, own_task: int | None
) -> None:
    candidate = model("m")
    of = policy([candidate], caps=Caps(request_nano=policy_nano, task_nano=task_nano))
    limits = limits_for(of, candidate, None, "t", ClientCaps(own, own_task), MOMENT)
    if policy_nano is not None:
        assert limits.call_nano is not None
        assert limits.call_nano <= policy_nano
    task = next(c for c in limits.claims if c.scope == task_scope(ANONYMOUS, "t"))
    effective = Balance(limit_nano=task.limit_nano, own_limit_nano=task.own_limit_nano).effective_limit_nano
    assert effective == min((c for c in (task_nano, own_task) if c is not None), default=None)


def test_every_scope_that_applies_is_claimed_once() -> None:
    candidate = model("m", cap=7)
    caps = Caps(9, 8, key=Windows(1, 2, 3), everyone=Windows(4, 5, 6))
    limits = limits_for(policy([candidate], caps=caps), candidate, KEY, "t", ClientCaps(task_nano=5), MOMENT)
    assert limits.claims == (
        Claim("task:k:t", 8, 5),
        Claim("task:k:t|model:m", 7),
        Claim("key:k:day:2026-11-20", 1),
        Claim("key:k:month:2026-11", 2),
        Claim("key:k:total", 3),
        Claim("global:day:2026-11-20", 4),
        Claim("global:month:2026-11", 5),
        Claim("global:total", 6),
    )
    assert (limits.call_nano, limits.call_scope) == (9, "request")
    own = Key("k", "0" * 64, caps=Windows(total_nano=99))
    limits = limits_for(policy([candidate], caps=caps), candidate, own, "t", ClientCaps(), MOMENT)
    assert Claim("key:k:day:2026-11-20", None) in limits.claims
    assert Claim("key:k:total", 99) in limits.claims


def test_a_teams_windows_bind_beside_its_keys_own() -> None:
    candidate = model("m")
    caps = Caps(key=Windows(1, 2, 3), team=Windows(7, 8, 9), everyone=Windows(4, 5, 6))
    key = Key("k", "0" * 64, team="t")
    claims = limits_for(policy([candidate], caps=caps), candidate, key, None, ClientCaps(), MOMENT).claims
    assert claims[3:6] == (
        Claim("team:t:day:2026-11-20", 7),
        Claim("team:t:month:2026-11", 8),
        Claim("team:t:total", 9),
    )
    assert len(claims) == 9
    own = dataclasses.replace(policy([candidate], caps=caps), teams={"t": Team("t", Windows(total_nano=1))})
    assert limits_for(own, candidate, key, None, ClientCaps(), MOMENT).claims[3:6] == (
        Claim("team:t:day:2026-11-20", None),
        Claim("team:t:month:2026-11", None),
        Claim("team:t:total", 1),
    )


def test_a_users_windows_bind_beside_its_keys() -> None:
    candidate, caps = model("m"), Caps(key=Windows(1, 2, 3), user=Users(Windows(day_nano=7, hour_nano=5)))

    def claims(key: Key | None, user: str | None) -> tuple[Claim, ...]:
        of = policy([candidate], caps=caps)
        return limits_for(of, candidate, key, None, ClientCaps(), MOMENT, user=user).claims

    assert claims(KEY, "ann")[:4] == (
        Claim("user:k:ann:day:2026-11-20", 7),
        Claim("user:k:ann:month:2026-11"),
        Claim("user:k:ann:total"),
        Claim("user:k:ann:hour:2026-11-20T10", 5),
    )
    assert claims(KEY, "ann")[4:] == claims(KEY, None)
    assert claims(None, "ann")[0] == Claim("user:-:ann:day:2026-11-20", 7), "where the gateway is open"
    own = Key("own", "", users=Users(Windows(month_nano=9)))
    assert claims(own, "ann")[:2] == (Claim("user:own:ann:day:2026-11-20"), Claim("user:own:ann:month:2026-11", 9))
    with_task = limits_for(policy([candidate], caps=caps), candidate, KEY, "t", ClientCaps(), MOMENT, user="ann")
    assert with_task.claims[0].scope == "task:k:t", "calls are numbered by the task"
    assert [(scope_kind(c.scope), scope_word(c.scope)) for c in claims(KEY, "ann")[:3]] == [
        ("user", "user_day"),
        ("user", "user_month"),
        ("user", "user_total"),
    ]


@given(amounts, amounts, amounts)
def test_a_keys_limits_beside_its_users_are_the_users(
    request_nano: int | None, day: int | None, hour: int | None
) -> None:
    candidate, users = model("m", cap=9), Users(Windows(day_nano=day, hour_nano=hour))
    of = policy([candidate], caps=Caps(request_nano=request_nano, key=Windows(1, 2, 3), user=users))
    plain = limits_for(of, candidate, KEY, None, NO_CAPS, MOMENT)
    assert plain.told
    assert plain.capped
    found = plain.beside(user_claims("k", "ann", users.windows, MOMENT))
    whole = limits_for(of, candidate, KEY, None, NO_CAPS, MOMENT, user="ann")
    assert (found, found.capped, found.told) == (whole, whole.capped, whole.told)


def test_users_are_told_apart_only_where_the_policy_wants_it() -> None:
    candidate = model("m")
    for caps in (Caps(), Caps(key=Windows(1, 2, 3))):
        limits = limits_for(policy([candidate], caps=caps), candidate, KEY, None, ClientCaps(), MOMENT, user="ann")
        assert not [claim for claim in limits.claims if claim.scope.startswith("user:")]


def test_hours_and_minutes_are_claimed_only_where_they_are_limited() -> None:
    candidate, rate = model("m"), TaskCaps(calls=7, tokens=9, at_entry=True)
    caps = Caps(key=Windows(hour_nano=5), everyone=Windows(minute_calls=7, minute_tokens=9, day_nano=3))
    claims = limits_for(policy([candidate], caps=caps), candidate, KEY, None, ClientCaps(), MOMENT).claims
    assert [claim for claim in claims if window_of(claim.scope) in ("hour", "minute")] == [
        Claim("key:k:hour:2026-11-20T10", 5),
        Claim("global:minute:2026-11-20T10:30", caps=rate),
    ]
    assert len(claims) == 8
    later = limits_for(policy([candidate], caps=caps), candidate, KEY, None, ClientCaps(), "2026-11-20T10:31").claims
    assert [one.scope for one, other in zip(later, claims, strict=True) if one != other] == [
        "global:minute:2026-11-20T10:31"
    ]


def test_a_limit_of_rate_alone_is_no_cap_in_dollars() -> None:
    candidate = model("m")
    limits = limits_for(
        policy([candidate], caps=Caps(key=Windows(minute_calls=1))), candidate, KEY, None, ClientCaps(), MOMENT
    )
    assert not limits.capped


def test_zero_is_a_cap_and_not_no_cap() -> None:
    candidate = model("m")
    for caps in (ClientCaps(request_nano=0), ClientCaps(task_nano=0)):
        limits = limits_for(policy([candidate]), candidate, None, None, caps, MOMENT)
        assert (limits.call_nano, limits.capped) == (0, True)
    assert limits_for(policy([candidate]), candidate, None, "t", ClientCaps(task_nano=0), MOMENT).capped
    assert not limits_for(policy([candidate]), candidate, KEY, "t", ClientCaps(), MOMENT).capped


key_names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,12}\Z")
task_ids = st.text(st.characters(exclude_characters="|", exclude_categories=["C"]), min_size=1, max_size=12)


@given(key_names, task_ids, key_names, task_ids)
def test_tasks_of_different_keys_never_share_a_scope(key: str, task: str, other_key: str, other_task: str) -> None:
    same = (key, task) == (other_key, other_task)
    assert (task_scope(key, task) == task_scope(other_key, other_task)) == same


@given(key_names, key_names, task_ids, st.sampled_from(["m", "p/m:day:1|model:x", "total"]))
def test_scopes_are_known_by_their_names_whatever_they_are(name: str, team: str, task: str, model_name: str) -> None:
    candidate = model(model_name, cap=1)
    claims = limits_for(policy([candidate]), candidate, Key(name, "", team=team), task, ClientCaps(), MOMENT).claims
    kinds = [(scope_kind(c.scope), window_of(c.scope), is_task_scope(c.scope)) for c in claims]
    assert kinds == [
        ("task", None, True),
        ("model", None, True),
        *(("key", window, False) for window in ("day", "month", "total")),
        *(("team", window, False) for window in ("day", "month", "total")),
        *(("global", window, False) for window in ("day", "month", "total")),
    ]


@pytest.mark.parametrize("name", ["daytime", "month-end", "total", "day", "x.day"])
def test_a_key_that_is_named_like_a_window_is_no_window(name: str) -> None:
    assert window_of(f"key:{name}:total") == "total"
    assert refills_at(window_of(f"key:{name}:total"), NOW) is None
    assert window_of(f"key:{name}:month:2026-11") == "month"
    assert window_of(f"key:{name}:day:2026-11-20") == "day"
    assert window_of(f"key:{name}:hour:2026-11-20T10") == "hour"
    assert window_of(f"key:{name}:minute:2026-11-20T10:30") == "minute"


def test_words_for_a_calls_own_caps_are_kinds_already() -> None:
    for word in ("request", "task", "model"):
        assert (scope_kind(word), window_of(word), is_task_scope(word)) == (word, None, False)


def test_amounts_are_told_in_headers() -> None:
    headers = denial_headers("key", "day", 5_000_000_000, 4_000_000_000, 500_000_000, NOW)
    assert headers == {
        "x-bursar-reason": "budget",
        "x-bursar-scope": "key_day",
        "x-bursar-limit-usd": "5",
        "x-bursar-spent-usd": "4",
        "x-bursar-reserved-usd": "0.5",
        "x-bursar-remaining-usd": "0.5",
        "x-bursar-reset": "2026-12-31T23:59:50Z",
    }
