"""What calls cost: unpriced and free models, caches, long-context tiers, and providers that say it themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Live, model, policy, until, usd
from tests.gateway.test_clamp import CAP_NANO
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, ListPrice, Script, words

SHORT = Script.of(words("One two three."), input_tokens=20)
LONG = Script.of(words(" ".join(["w"] * 300)))
NO_PRICE = {"a": {"pricing": None, "upstream_model": "nobody-knows-this-model"}}
FREE = {"a": {"pricing": "free"}}


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, {"max_cost_usd": 1}),
        ({}, {"headers": {"x-bursar-task-max-cost-usd": "1"}}),
        ({"caps": {"task": {"max_cost_usd": 1}}}, {}),
        ({"caps": {"global": {"day": {"max_cost_usd": 1}}}}, {}),
    ],
)
async def test_an_unpriced_model_under_a_cap_is_refused(
    tmp_path: Path, upstream: ScriptedUpstream, more: dict[str, Any], asked: dict[str, Any]
) -> None:
    async with Live(tmp_path, policy({"a": upstream}, models=NO_PRICE, **more)) as live:
        for stream in (True, False):
            answer = await live.chat(stream=stream, task="t1", **asked)
            assert (answer.status, answer.error_code) == (400, "unpriced_model")
        assert upstream.requests == []


async def raise_cap(live: Live, task: str, **fields: Any) -> None:
    """Amend a task, as `bursar run --cap` and `bursar task raise` do."""
    async with live.client.session.patch(f"{live.url}/v1/tasks/{task}", json=fields) as answer:
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unpriced_model_is_refused_under_a_cap_that_only_the_ledger_knows(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool
) -> None:
    upstream.source = SHORT
    async with Live(tmp_path, policy({"a": upstream}, models=NO_PRICE), ledger_url) as live:
        await raise_cap(live, "t1", max_cost_usd=1)
        below = {"headers": {"x-bursar-parent-task-id": "t1"}}
        for task, more in (("t1", {}), ("t2", below)):
            answer = await live.chat(stream=stream, task=task, **more)
            assert (answer.status, answer.error_code) == (400, "unpriced_model")
            assert answer.headers["x-should-retry"] == "false"
        assert upstream.requests == []
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.held_nano, balance.tokens) == (0, 0, 0)
        assert (await live.chat(stream=stream, task="t3")).status == 200, "no cap binds this one"


async def test_under_such_a_cap_a_priced_candidate_serves(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with ScriptedUpstream() as other:
        other.source = SHORT
        async with Live(tmp_path, policy({"a": upstream, "b": other}, models=NO_PRICE)) as live:
            await raise_cap(live, "t1", max_cost_usd=1)
            answer = await live.chat(model="auto", task="t1")
            assert answer.status == 200, answer.body
            assert answer.headers["x-bursar-model"] == "b"
            assert upstream.requests == []


async def test_such_a_cap_also_bounds_a_reply_that_nothing_else_does(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Neither the client nor the policy says how long a reply may be, and it does not stream."""
    upstream.source = LONG
    async with Live(tmp_path, policy({"a": upstream})) as live:
        await raise_cap(live, "t1", max_cost_usd=usd(40 * INPUT_NANO + 50 * OUTPUT_NANO))
        answer = await live.chat(task="t1")
        assert (answer.status, answer.error_code) == (402, "budget_exceeded")
        assert (await live.balance("task:t1")).spent_nano <= 40 * INPUT_NANO + 60 * OUTPUT_NANO


async def test_an_unpriced_model_without_a_cap_costs_nobody_knows_what(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = SHORT
    async with Live(tmp_path, policy({"a": upstream}, models=NO_PRICE)) as live:
        streamed = await live.chat(stream=True, stream_options={"include_usage": True})
        plain = await live.chat()
        for answer in (streamed, plain):
            assert answer.usage is not None
            assert answer.usage["cost"] is None
            assert "x-bursar-cost-usd" not in answer.headers
            record = await live.client.decision(answer.request_id)
            assert (record["cost_usd"], record["provenance"]) == (None, "unknown")


async def test_so_does_an_embedding(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    models = {"a": model("a", embeddings=True, **NO_PRICE["a"])}
    async with Live(tmp_path, policy({"a": upstream}, models=models)) as live:
        answer = await live.chat(path="/v1/embeddings", messages=None, input="some words to embed")
        assert answer.status == 200
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["cost_usd"], record["provenance"]) == ("completed", None, "unknown")
        assert [attempt["provenance"] for attempt in record["attempts"]] == ["unknown"]


async def test_an_unpriced_model_whose_provider_names_the_cost_is_metered_by_it(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(words("One."), usage_override={"cost": 0.0125})
    async with Live(tmp_path, policy({"a": upstream}, models=NO_PRICE)) as live:
        for stream in (True, False):
            answer = await live.chat(
                stream=stream, task="t1", stream_options={"include_usage": True} if stream else None
            )
            assert answer.usage is not None
            assert answer.usage["cost"] == 0.0125
        assert (await live.balance("task:t1")).spent_nano == 25_000_000


async def test_a_free_model_is_never_cut(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = LONG
    rules = policy({"a": upstream}, models=FREE, caps={"task": {"max_cost_usd": usd(1000)}})
    async with Live(tmp_path, rules) as live:
        for stream in (True, False):
            answer = await live.chat(stream=stream, task="t1", max_cost_usd=0.000001)
            assert (answer.status, answer.error) == (200, None)
            assert "max_tokens" not in upstream.requests[-1].body
            record = await live.client.decision(answer.request_id)
            assert (record["cost_usd"], record["provenance"]) == (0, "free")
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.calls) == (0, 2)


async def test_a_cap_of_zero_on_a_model_is_a_passive_tally(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = LONG
    async with Live(tmp_path, policy({"a": upstream})) as live:  # its models say max_cost_usd: 0
        for _ in range(3):
            assert (await live.chat(stream=True, task="t1")).finishes == ["stop"]
        task = await live.task("t1")
        assert task["models"]["a"]["limit_usd"] is None
        assert task["models"]["a"]["spent_usd"] == task["spent_usd"] == usd(upstream.bill(PRICE))
        assert task["calls"] == 3


async def test_a_model_without_a_cap_of_its_own_has_the_formulas(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """min($0.50, 64 * input_per_1k + 32 * output_per_1k), for one task's spending on it."""
    upstream.source = SHORT
    async with Live(tmp_path, policy({"a": upstream}, models={"a": {"budgets": {}}})) as live:
        await live.chat(task="t1")
        assert (await live.task("t1"))["models"]["a"]["limit_usd"] == pytest.approx(64 * 0.001 + 32 * 0.002)


@pytest.mark.parametrize("rate", ["0.0001", None])
async def test_cached_input_is_priced_by_its_own_rate_or_not_at_all(
    tmp_path: Path, upstream: ScriptedUpstream, rate: str | None
) -> None:
    upstream.source = Script.of(words("One two three."), input_tokens=1000, cached_tokens=900)
    pricing = {
        "input_per_1k": 0.001,
        "output_per_1k": 0.002,
        **({} if rate is None else {"cache_read_per_1k": float(rate)}),
    }
    async with Live(tmp_path, policy({"a": upstream}, models={"a": {"pricing": pricing}})) as live:
        for stream in (True, False):
            await live.chat(task="t1", stream=stream)
        cached = ListPrice("0.001", "0.002", rate or "0")
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(cached)


async def test_a_long_prompt_is_billed_whole_at_its_tiers_rates(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    tiers = [{"above_tokens": 500, "input_per_1k": 0.002, "output_per_1k": 0.003}]
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tiers": tiers}
    upstream.source = [
        Script.of(words("One two three."), input_tokens=500),
        Script.of(words("One two three."), input_tokens=501),
    ]
    async with Live(tmp_path, policy({"a": upstream}, models={"a": {"pricing": pricing}})) as live:
        await live.chat(task="below")
        await live.chat(task="above")
        assert (await live.balance("task:below")).spent_nano == 500 * 1000 + 3 * 2000
        assert (await live.balance("task:above")).spent_nano == 501 * 2000 + 3 * 3000


async def test_a_long_prompt_is_reserved_at_its_tiers_rates(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Else the clamp would let through twice what the cap affords."""
    tiers = [{"above_tokens": 500, "input_per_1k": 0.002, "output_per_1k": 0.2}]
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tiers": tiers}
    upstream.source = LONG
    prompt = [{"role": "user", "content": "story " * 600}]
    async with Live(tmp_path, policy({"a": upstream}, models={"a": {"pricing": pricing}})) as live:
        answer = await live.chat(task="t1", stream=True, messages=prompt, max_cost_usd=0.01)
        assert answer.error_code == "budget_exceeded"
        assert upstream.bill(ListPrice("0.002", "0.2")) <= 10_000_000


@pytest.mark.parametrize("stream", [True, False])
async def test_the_providers_own_figure_wins(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.source = Script.of(words("One two three."), input_tokens=20, usage_override={"cost": 0.000777})
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await live.chat(task="t1", stream=stream, stream_options={"include_usage": True} if stream else None)
        assert answer.usage is not None
        assert answer.usage["cost"] == 0.000777
        assert (await live.balance("task:t1")).spent_nano == 777_000


async def test_usage_is_shown_to_those_who_asked_only(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = SHORT
    async with Live(tmp_path, policy({"a": upstream})) as live:
        assert (await live.chat(stream=True)).usage is None
        assert upstream.requests[0].body["stream_options"] == {"include_usage": True}


async def test_the_cost_of_a_stream_rises_in_the_ledger_while_it_runs(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    gate = Gate()
    upstream.source = Script.of(words(" ".join(["w"] * 400)), gate=gate, input_tokens=10)
    rules = policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.1}})
    async with Live(tmp_path, rules, ledger_url) as live:
        asking = asyncio.ensure_future(live.chat(task="t1", stream=True))
        seen: list[tuple[int, float]] = []
        for words_sent in (1, 20, 40, 200):
            gate.release(words_sent)
            least = OUTPUT_NANO * (words_sent + sum(sent for sent, _ in seen))

            async def written(least: int = least) -> dict[str, Any] | None:
                if await live.services.ledger.budgets.balances(["task:-:t1"]) == [None]:
                    return None
                task = await live.task("t1")
                return task if task["spent_usd"] >= usd(least) else None

            task = await until(written)
            assert task["reserved_usd"] > 0
            assert task["remaining_usd"] == pytest.approx(0.1 - task["spent_usd"] - task["reserved_usd"])
            seen.append((words_sent, task["spent_usd"]))
        gate.open()
        await asking
        task = await live.task("t1")
        assert (task["reserved_usd"], task["spent_usd"]) == (0, usd(upstream.bill(PRICE)))


async def test_the_cost_is_not_written_on_every_word(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(" ".join(["w"] * 400)), delay_s=0.001)
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        budgets, apply, verbs = live.services.ledger.budgets, live.services.ledger.budgets.apply, []

        def counting(op: Any) -> Any:
            verbs.append(type(op).__name__)
            return apply(op)

        budgets.apply = counting  # type: ignore[method-assign]
        await live.chat(task="t1", stream=True)
        assert verbs[0] == "Reserve"
        assert verbs[-1] == "Settle"
        assert len(verbs) < 400 / 10


async def test_remaining_and_cost_are_in_the_headers(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = SHORT
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await live.chat(task="t1", max_tokens=10)
        cost = 20 * INPUT_NANO + 3 * OUTPUT_NANO
        assert float(answer.headers["x-bursar-cost-usd"]) == usd(cost)
        assert float(answer.headers["x-bursar-remaining-usd"]) == usd(10**9 - cost)
        capped = await live.chat(task="t1", max_tokens=10, max_cost_usd=usd(CAP_NANO))
        assert float(capped.headers["x-bursar-remaining-usd"]) == usd(CAP_NANO - cost)
