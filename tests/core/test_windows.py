"""Windows of the clock and the calendar: their names, when they begin and when they refill."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.windows import CHARS, Window, began_at, ends_at, moment_at, moment_of, refills_at, scope_in, window_of

LAST = dt.datetime(2026, 12, 31, 23, 59, 50, 123, tzinfo=dt.UTC)
NEW_YEAR = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
moments = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2099, 1, 1), timezones=st.just(dt.UTC))
windows = st.sampled_from(list(CHARS))


@pytest.mark.parametrize("window", list(CHARS))
def test_the_last_moment_of_a_year_is_the_last_of_every_window(window: Window) -> None:
    assert refills_at(window, LAST) == NEW_YEAR
    assert began_at(window, NEW_YEAR) == NEW_YEAR


def test_what_never_refills_never_began() -> None:
    for window in ("total", None):
        assert (began_at(window, LAST), refills_at(window, LAST)) == (None, None)


def test_a_window_is_named_by_the_beginning_of_a_moment() -> None:
    assert moment_of(LAST) == moment_at(LAST.timestamp()) == "2026-12-31T23:59"
    assert scope_in("key:a", "minute", moment_of(LAST)) == "key:a:minute:2026-12-31T23:59"
    assert scope_in("team:a", "hour", moment_of(LAST)) == "team:a:hour:2026-12-31T23"
    assert scope_in("global", "month", moment_of(LAST)) == "global:month:2026-12"
    assert scope_in("global", "total", moment_of(LAST)) == "global:total"


@given(moments, windows)
def test_a_window_lasts_from_its_beginning_to_the_next_ones(now: dt.datetime, window: Window) -> None:
    began, refills = began_at(window, now), refills_at(window, now)
    assert began is not None
    assert refills is not None
    assert began <= now < refills
    assert began_at(window, refills) == refills
    name = scope_in("key:k", window, moment_of(now))
    assert ends_at(name) == refills
    assert window_of(name) == window
    last = refills - dt.timedelta(microseconds=1)
    assert scope_in("key:k", window, moment_of(last)) == scope_in("key:k", window, moment_of(began)) == name
    assert scope_in("key:k", window, moment_of(refills)) != name


@given(st.text(max_size=20), moments, windows)
def test_a_task_may_have_any_name_and_is_no_window(task: str, now: dt.datetime, window: Window) -> None:
    name = scope_in(f"task:k:{task}", window, moment_of(now))
    assert (window_of(name), ends_at(name), ends_at("key:k:total")) == (None, None, None)
