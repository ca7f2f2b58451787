"""Circuits open on a pattern, let one probe through, and never fail themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.health import COOLDOWN_S, FAILURES_TO_OPEN, MAX_COOLDOWN_S, PROBE_LIMIT_S, Breaker, Circuit, Health


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(0.0)
    return breaker


def test_three_failures_in_a_row_open_and_a_success_between_does_not() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state(0.0) is Circuit.CLOSED
    assert opened().state(0.0) is Circuit.OPEN
    assert not opened().available(COOLDOWN_S - 0.01)


def test_half_open_lets_one_probe_through() -> None:
    breaker = opened()
    assert breaker.state(COOLDOWN_S) is Circuit.HALF_OPEN
    assert breaker.available(COOLDOWN_S)
    breaker.sent(COOLDOWN_S)
    assert not breaker.available(COOLDOWN_S)
    assert breaker.available(COOLDOWN_S + PROBE_LIMIT_S)
    breaker.succeeded()
    assert breaker.state(COOLDOWN_S) is Circuit.CLOSED
    assert breaker.available(COOLDOWN_S)


def test_each_failed_probe_doubles_the_cooldown_up_to_its_limit() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(8):
        waits.append(breaker.open_until_s - now_s)
        now_s = breaker.open_until_s
        breaker.sent(now_s)
        breaker.failed(now_s)
    assert waits == [5, 10, 20, 40, 80, 120, 120, 120]


def test_a_burst_that_was_under_way_counts_as_one_opening() -> None:
    breaker = Breaker()
    for _ in range(5000):
        breaker.failed(1.0)
    assert breaker.open_until_s == 1.0 + COOLDOWN_S


def test_an_outage_of_any_length_is_survived() -> None:
    breaker, now_s = opened(), 0.0
    for _ in range(3000):
        now_s = breaker.open_until_s
        breaker.failed(now_s)
    assert breaker.open_until_s == now_s + MAX_COOLDOWN_S


def test_retry_after_opens_at_once_for_as_long_as_it_says_within_reason() -> None:
    breaker = Breaker()
    breaker.failed(0.0, retry_after_s=7.0)
    assert not breaker.available(6.9)
    assert breaker.available(7.0)
    breaker = Breaker()
    breaker.failed(0.0, retry_after_s=86_400.0)
    assert breaker.available(MAX_COOLDOWN_S)
    breaker = opened()
    breaker.failed(1.0, retry_after_s=60.0)
    assert not breaker.available(60.9)
    breaker.failed(2.0, retry_after_s=1.0)
    assert not breaker.available(60.9)


@given(st.lists(st.tuples(st.sampled_from("fsrp"), st.floats(0, 500)), max_size=60))
def test_it_is_always_available_again_after_the_longest_wait(steps: list[tuple[str, float]]) -> None:
    breaker, now_s = Breaker(), 0.0
    for verb, wait_s in steps:
        now_s += wait_s
        if verb == "f":
            breaker.failed(now_s)
        elif verb == "r":
            breaker.failed(now_s, retry_after_s=wait_s)
        elif verb == "p":
            breaker.sent(now_s)
        else:
            breaker.succeeded()
    assert breaker.available(now_s + MAX_COOLDOWN_S)


def test_health_makes_breakers_when_asked_and_forgets_those_that_left() -> None:
    health = Health()
    assert health.available("a", 0.0)
    assert health.breakers == {}
    for name in ("a", "b"):
        for _ in range(FAILURES_TO_OPEN):
            health.of(name).failed(0.0)
    assert not health.available("a", 0.0)
    health.keep(frozenset({"b", "c"}))
    assert set(health.breakers) == {"b"}
    assert health.available("a", 0.0)


def test_how_long_all_are_left_out() -> None:
    health = Health()
    assert health.wait_s(["a", "b"], 0.0) == 0.0
    health.of("a").failed(0.0, retry_after_s=60.0)
    health.of("b").failed(0.0, retry_after_s=7.0)
    assert health.of("c").available(0.0)
    assert health.wait_s(["a", "b", "c", "d"], 3.0) == 4.0
    assert health.wait_s(["a"], 3.0) == 57.0
    assert health.wait_s(["b"], 8.0) == 0.0
