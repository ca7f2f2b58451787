"""One model at several providers: calls are spread, tasks stay, what fails is passed over, and money is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.policy import Candidate
from app.gateway.copies import in_turn
from tests.gateway.live import PRICE, Live, policy
from tests.gateway.policy_values import model, provider
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SAID = "One two three."
PLACES = ("a", "b", "c")


def copied(places: tuple[str, ...] = PLACES) -> Candidate:
    """A model at these providers."""
    one = model("m")
    return replace(one, copies=tuple(replace(one, provider=provider(name), is_copy=True) for name in places))


def everywhere(_: str) -> bool:
    return True


@given(st.text(max_size=20), st.sets(st.sampled_from([f"m@{name}" for name in PLACES])))
def test_each_that_is_up_is_asked_once_and_all_where_none_is(unit: str, down: set[str]) -> None:
    asked = [copy.circuit for copy in in_turn(copied(), unit, lambda name: name not in down)]
    every = {f"m@{name}" for name in PLACES}
    assert len(asked) == len(set(asked))
    assert set(asked) == ((every - down) or every)


@given(st.text(max_size=20))
def test_a_unit_moves_only_where_its_copy_goes(unit: str) -> None:
    order = [copy.circuit for copy in in_turn(copied(), unit, everywhere)]
    for gone in order:
        left = [copy.circuit for copy in in_turn(copied(), unit, lambda name, gone=gone: name != gone)]
        assert left == [name for name in order if name != gone]


def test_units_are_spread_evenly() -> None:
    first = Counter(in_turn(copied(), f"alice:job {n}", everywhere)[0].circuit for n in range(3_000))
    assert all(850 < first[f"m@{name}"] < 1_150 for name in PLACES)


def test_without_copies_it_is_the_candidate_itself() -> None:
    one = model("m")
    assert in_turn(one, "u", everywhere) == [one]
    assert one.circuit == "m"


@pytest.fixture
def both() -> Iterator[dict[str, ScriptedUpstream]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(ScriptedUpstream(Script.of(words(SAID)))) for name in ("a", "b")}


def rules(both: dict[str, ScriptedUpstream], **more: Any) -> dict[str, Any]:
    """The model `a`, at both."""
    made = policy(both, models={"a": {"also_at": ["b"]}}, **more)
    made["routes"]["auto"] |= {"candidates": ["a"], "fallback": []}
    return made


async def test_calls_are_spread_and_tasks_and_conversations_stay(
    tmp_path: Path, both: dict[str, ScriptedUpstream]
) -> None:
    async with Live(tmp_path, rules(both)) as live:
        for _ in range(24):
            assert (await live.chat()).status == 200
        assert min(len(upstream.requests) for upstream in both.values()) >= 3
        begun = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
        for asked in ({"task": "t"}, {"messages": [*begun, {"role": "user", "content": "Go on."}]}):
            at = {(await live.chat(**asked)).headers["x-bursar-provider"] for _ in range(8)}
            assert len(at) == 1, asked
        balances = await live.balances()
        spent = sum(upstream.bill(PRICE) for upstream in both.values())
        assert balances["global:total"].spent_nano == spent
        assert "task:-:t|model:a" in balances


@pytest.mark.parametrize("stream", [True, False])
async def test_one_that_fails_is_passed_over_at_once_and_then_left_out(
    tmp_path: Path, both: dict[str, ScriptedUpstream], stream: bool
) -> None:
    both["a"].source = Script.failure(503)
    async with Live(tmp_path, rules(both)) as live:
        for _ in range(24):
            answer = await live.chat(stream=stream)
            assert (answer.status, answer.headers["x-bursar-provider"]) == (200, "b")
        assert len(both["a"].requests) == 3, "its circuit is open; the other's is not"
        attempts = await live.attempts(answer)
        assert [attempt["provider"] for attempt in attempts] == ["b"]
        shown = {row["provider"]: row["state"] for row in circuits(live)}
        assert shown == {"a": "open", "b": "closed"}
        both["b"].source = Script.failure(503)
        assert (await live.chat(stream=stream)).status == 502


def circuits(live: Live) -> list[dict[str, Any]]:
    """What the dashboard shows of the model."""
    from app.http.dashboard.now import circuits as shown

    return [row for row in shown(live.services) if row["model"] == "a"]


async def test_a_bad_request_is_not_asked_twice(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    for upstream in both.values():
        upstream.source = Script.failure(400)
    async with Live(tmp_path, rules(both)) as live:
        assert (await live.chat()).status == 400
        assert sum(len(upstream.requests) for upstream in both.values()) == 1


async def test_embeddings_are_spread_too(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    both["a"].source = Script.failure(503)
    both["b"].source = Script.failure(503)
    async with Live(tmp_path, rules(both)) as live:
        assert (await live.chat(path="/v1/embeddings", messages=None, input="Say it.")).status == 502
        assert [len(upstream.requests) for upstream in both.values()] == [1, 1]
