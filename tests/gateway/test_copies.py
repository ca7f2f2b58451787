"""One model at several providers: calls are spread, tasks stay, what fails is passed over, and money is one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import ne
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


@given(st.text(max_size=20), st.sets(st.sampled_from([f"m at {name}" for name in PLACES])))
def test_each_that_is_up_is_asked_once_and_all_where_none_is(unit: str, down: set[str]) -> None:
    asked = [copy.circuit for copy in in_turn(copied(), unit, lambda name: name not in down)]
    every = {f"m at {name}" for name in PLACES}
    assert len(asked) == len(set(asked))
    assert set(asked) == ((every - down) or every)


@given(st.text(max_size=20))
def test_a_unit_moves_only_where_its_copy_goes(unit: str) -> None:
    order = [copy.circuit for copy in in_turn(copied(), unit, everywhere)]
    for gone in order:
        left = [copy.circuit for copy in in_turn(copied(), unit, partial(ne, gone))]
        assert left == [name for name in order if name != gone]


def test_units_are_spread_evenly() -> None:
    first = Counter(in_turn(copied(), f"alice:job {n}", everywhere)[0].circuit for n in range(3_000))
    assert all(850 < first[f"m at {name}"] < 1_150 for name in PLACES)


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


async def test_a_model_called_like_a_copy_has_a_circuit_of_its_own(
    tmp_path: Path, both: dict[str, ScriptedUpstream]
) -> None:
    both["b"].source = Script.failure(503)
    names = ("a@b", "a:b", "a/b", "a+b")
    made = rules(both)
    made["models"] |= {name: {**made["models"]["a"], "also_at": []} for name in names}
    async with Live(tmp_path, made) as live:
        for _ in range(24):
            await live.chat()
        assert {row["provider"]: row["state"] for row in circuits(live)} == {"a": "closed", "b": "open"}
        for name in names:
            assert (await live.chat(model=name)).status == 200
        breakers = live.services.health.breakers
        assert all(breakers[name].failures == 0 for name in names)


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


TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
GO_ON = [
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "bash", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "done"},
]


async def test_a_tool_loop_stays_where_it_began(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    """Another account could not read the thoughts that its own has signed."""
    async with Live(tmp_path, rules(both)) as live:
        for number in range(12):
            begun: list[dict[str, Any]] = [{"role": "user", "content": f"Do job {number}."}]
            steps = [begun, begun + GO_ON, begun + 2 * GO_ON]
            at = {(await live.chat(messages=s, tools=TOOLS)).headers["x-bursar-provider"] for s in steps}
            assert len(at) == 1


async def test_fallbacks_are_counted_where_they_failed(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    both["a"].source = both["b"].source = Script.failure(404)
    async with Live(tmp_path, rules(both)) as live:
        for _ in range(6):
            assert (await live.chat()).status == 404
        for name in both:
            labels = {"model": "a", "provider": name}
            live.services.fold_metrics()
            assert live.services.metrics.registry.get_sample_value("bursar_fallbacks_total", labels) == 6


async def test_each_copy_costs_what_its_provider_takes(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    """Own hardware first costs nothing, and what the catalogue's provider bills is charged all the same."""
    made = rules(both, providers={"a": {"free": True}, "b": {"catalogue_prefixes": [""]}})
    del made["models"]["a"]["pricing"], made["models"]["a"]["budgets"]
    made["models"]["a"]["upstream_model"] = "gpt-4o-mini"
    async with Live(tmp_path, made) as live:
        free, dear = live.services.view.policy.models["a"].copies
        assert [copy.price is not None and copy.price.free for copy in (free, dear)] == [True, False]
        assert (free.budget.max_cost_nano, dear.budget.max_cost_nano) == (None, 28_800_000)
        for number in range(16):
            answer = await live.chat(task=f"t{number}")
            spent = (await live.balance(f"task:t{number}")).spent_nano
            assert (spent > 0) == (answer.headers["x-bursar-provider"] == "b")
        assert min(len(upstream.requests) for upstream in both.values()) > 0


async def test_of_a_paid_copy_without_a_price_nothing_is_given_away(
    tmp_path: Path, both: dict[str, ScriptedUpstream]
) -> None:
    made = rules(both, providers={"a": {"free": True}}, caps={"task": {"max_cost_usd": 1}})
    del made["models"]["a"]["pricing"]
    async with Live(tmp_path, made) as live:
        for number in range(8):
            answer = await live.chat(task=f"t{number}")
            assert (answer.status, answer.headers["x-bursar-provider"]) == (200, "a")


async def test_a_copy_that_costs_too_much_stands_in_no_others_way(
    tmp_path: Path, both: dict[str, ScriptedUpstream]
) -> None:
    """Own hardware goes on serving for nothing when the money for another provider is spent."""
    made = rules(both, providers={"a": {"free": True}, "b": {"catalogue_prefixes": [""]}})
    del made["models"]["a"]["pricing"], made["models"]["a"]["budgets"]
    made["models"]["a"]["upstream_model"] = "gpt-4o-mini"
    made["caps"] = {"task": {"max_cost_usd": 1e-9}}
    async with Live(tmp_path, made) as live:
        for number in range(8):
            answer = await live.chat(task=f"t{number}")
            assert (answer.status, answer.headers["x-bursar-provider"]) == (200, "a")
        assert not both["b"].requests
        both["a"].source = Script.failure(503)
        for number in range(8):
            live.services.health.of("a at a").succeeded()
            assert (await live.chat(task=f"f{number}")).status == 502, "it may answer again: no 402, which is final"


async def test_where_all_cost_the_same_a_denial_is_told_once(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    async with Live(tmp_path, rules(both, caps={"task": {"max_cost_usd": 1e-9}})) as live:
        answer = await live.chat(task="t")
        assert answer.status == 402
        record = await live.client.decision(answer.request_id)
        assert len(record["denials"]) == 1


async def test_embeddings_pass_over_what_fails(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    async with Live(tmp_path, rules(both)) as live:
        both["a"].source = Script.failure(503)
        for _ in range(24):
            answer = await live.chat(path="/v1/embeddings", messages=None, input="Say it.")
            assert (answer.status, answer.headers["x-bursar-provider"]) == (200, "b")
        assert len(both["a"].requests) == 3
        assert {row["provider"]: row["state"] for row in circuits(live)} == {"a": "open", "b": "closed"}


async def test_counts_are_asked_of_one_that_is_up(tmp_path: Path, both: dict[str, ScriptedUpstream]) -> None:
    counted = Script(body=b'{"input_tokens": 4711}', headers={"content-type": "application/json"})
    both["a"].source, both["b"].source = Script.failure(503), counted
    async with Live(tmp_path, rules(both, providers={name: {"dialect": "anthropic"} for name in both})) as live:
        breaker = live.services.health.of("a at a")
        for _ in range(3):
            breaker.failed(asyncio.get_running_loop().time())
        assert (await live.chat(path="/v1/messages/count_tokens")).json == {"input_tokens": 4711}
        assert not both["a"].requests
