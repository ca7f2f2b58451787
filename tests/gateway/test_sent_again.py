"""An SDK that tries again by itself: the cap of its request binds all tries together."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from app.dialects.openai_chat.parse import parse_chat
from app.gateway import sent_again
from app.gateway.sent_again import SentAgain, name_of, tries_of
from app.stores.task_memory_sqlite import SqliteTaskMemory
from tests.gateway.live import OUTPUT_NANO, Live, policy, usd
from tests.gateway.test_repeats import Away
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Script, words

CAP_NANO = 100_000
PROMPT: list[Any] = [{"role": "user", "content": "Tell me a story."}]


def silent(upstream: ScriptedUpstream) -> dict[str, Any]:
    """A policy whose provider is not waited for long, and bills what it was allowed to, whoever hangs up."""
    rules = policy({"a": upstream}, providers={"a": {"bills_after_cancel": True, "deadlines": {"ttft_secs": 0.1}}})
    rules["routes"]["auto"]["retries"] = {"attempts": 0}
    return rules


async def test_openais_sdk_stops_where_its_tries_have_used_up_the_cap(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(HANG)
    async with (
        Live(tmp_path, silent(upstream)) as live,
        openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=5) as client,
    ):
        with pytest.raises(openai.APIStatusError) as failure:
            await client.chat.completions.create(
                model="auto", messages=PROMPT, stream=True, extra_body={"max_cost_usd": usd(CAP_NANO)}
            )
        assert failure.value.status_code == 402
        assert failure.value.code == "budget_exceeded"
        assert len(upstream.requests) == 1
        assert (await live.balance("global:total")).spent_nano == CAP_NANO


async def test_another_users_same_request_is_another_request(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.of(HANG), Script.of(words("One two three."))]
    async with Live(tmp_path, {**silent(upstream), "caps": {"user": {}}}) as live:

        async def ask(user: str, tries: str) -> int:
            headers = {"x-bursar-user": user, "x-stainless-retry-count": tries}
            asked = await live.chat(stream=True, headers=headers, max_cost_usd=usd(CAP_NANO), max_tokens=40)
            return asked.status

        assert await ask("ann", "0") == 504
        assert await ask("ann", "1") == 402
        assert await ask("bob", "1") == 200


async def test_what_is_left_is_there_for_another_try(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.of(HANG), Script.of(words("One two three."))]
    async with (
        Live(tmp_path, silent(upstream)) as live,
        anthropic.AsyncAnthropic(base_url=live.url, api_key="none", max_retries=2) as client,
    ):
        cap_nano = 2 * CAP_NANO
        headers = {"x-bursar-max-cost-usd": f"{usd(cap_nano):.9f}"}
        async with client.messages.stream(
            model="auto", max_tokens=60, messages=PROMPT, extra_headers=headers
        ) as stream:
            said = await stream.get_final_text()
        assert said == "One two three."
        first, second = (request.body["max_tokens"] for request in upstream.requests)
        spent = (await live.balance("global:total")).spent_nano
        assert first == 60
        assert second < 60
        assert CAP_NANO < spent <= cap_nano + OUTPUT_NANO


async def test_a_request_that_is_no_retry_begins_anew(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.of(HANG), Script.of(words("One two three."))]
    asked: dict[str, Any] = {"model": "auto", "stream": True, "max_cost_usd": usd(CAP_NANO)}
    async with Live(tmp_path, silent(upstream)) as live:
        assert (await live.chat(**asked)).status == 504
        for number in ("0", ""):
            headers = {"x-stainless-retry-count": number} if number else {}
            assert (await live.chat(headers=headers, **asked)).finishes == ["stop"]
        other = {**asked, "messages": [{"role": "user", "content": "Something else."}]}
        again = {"x-stainless-retry-count": "1"}
        assert (await live.chat(headers=again, **other)).finishes == ["stop"]
        assert (await live.chat(headers=again, **asked)).status == 402


async def test_another_gateway_knows_what_the_first_try_cost(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(HANG)
    asked: dict[str, Any] = {"model": "auto", "stream": True, "max_cost_usd": usd(CAP_NANO)}
    shared = f"t{secrets.token_hex(6)}"
    async with (
        Live(tmp_path, silent(upstream), ledger_url, namespace=shared) as one,
        Live(tmp_path, silent(upstream), ledger_url, namespace=shared) as two,
    ):
        assert (await one.chat(**asked)).status == 504
        await one.idle()
        again = await two.chat(headers={"x-stainless-retry-count": "1"}, **asked)
        assert (again.status, again.error_code) == (402, "budget_exceeded")
        assert len(upstream.requests) == 1
        assert (await one.balance("global:total")).spent_nano == CAP_NANO


async def test_a_models_own_cap_binds_all_tries_of_a_call_without_a_task(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = [Script.of(HANG), Script.of(words("One two three."))]
    rules = silent(upstream)
    rules["models"]["a"]["budgets"] = {"max_cost_usd": usd(CAP_NANO)}
    async with Live(tmp_path, rules) as live:
        assert (await live.chat(model="auto", stream=True)).status == 504
        answer = await live.chat(model="auto", stream=True, headers={"x-stainless-retry-count": "1"})
        assert (answer.status, answer.headers["x-bursar-scope"]) == (402, "model")
        assert (await live.balance("global:total")).spent_nano == CAP_NANO
        assert len(upstream.requests) == 1


async def test_samples_asked_for_at_once_do_not_use_up_each_others_cap(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Each fails once and is sent again; its cap pays for two tries of its own."""
    good = Script.of(words("One two three."))
    upstream.source = [Script.of(HANG), good, Script.of(HANG), good, Script.of(HANG), good, good]
    cap_nano = 2 * CAP_NANO
    asked: dict[str, Any] = {"model": "auto", "stream": True, "max_tokens": 30, "max_cost_usd": usd(cap_nano)}
    other = {**asked, "messages": [{"role": "user", "content": "Something that keeps the circuit closed."}]}
    async with Live(tmp_path, silent(upstream)) as live:
        for count in ("0", "0", "1"):
            assert (await live.chat(headers={"x-stainless-retry-count": count}, **asked)).status == 504
            assert (await live.chat(**other)).finishes == ["stop"]
        assert (await live.balance("global:total")).spent_nano > cap_nano
        assert (await live.chat(headers={"x-stainless-retry-count": "1"}, **asked)).finishes == ["stop"]


async def test_the_oldest_and_the_late_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    known, now_s = SentAgain(Away()), [0.0]
    monkeypatch.setattr(sent_again, "MAX_KEPT", 2)
    monkeypatch.setattr("app.gateway.sent_again.time.monotonic", lambda: now_s[0])
    for name in (b"a", b"b", b"a", b"c"):
        await known.note(name, 0, {"m": 5})
    assert [await known.spent(name, 1) for name in (b"a", b"b", b"c")] == [{"m": 5}, {}, {"m": 5}]
    now_s[0] = sent_again.KEPT_S
    assert await known.spent(b"c", 1) == {}


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
async def test_each_try_goes_by_the_one_before_it(tmp_path: Path, shared: bool) -> None:
    """Whoever served that, where the store answers; else as far as this process did."""
    memories = [SqliteTaskMemory(tmp_path / "tasks.sqlite") if shared else Away() for _ in range(2)]
    known = SentAgain(memories[0])
    other = SentAgain(memories[1]) if shared else known
    for _ in "two of the same at once":
        await known.note(b"a", 0, {"m": 5})
    await other.note(b"a", 1, {"m": 7, "n": 3})
    for one in (known, other):
        assert [sum((await one.spent(b"a", tries)).values()) for tries in (1, 2, 3)] == [5, 10, 10]
    await known.note(b"a", 0, {})  # asked anew, and refused before anything was spent
    assert await known.spent(b"a", 1) == await other.spent(b"a", 1) == {}
    assert (await other.spent(b"b", 1), known.any, other.any) == ({}, not shared, True)
    for memory in memories:
        await memory.close()


def test_a_count_is_read_as_sdks_write_it() -> None:
    most = sent_again.MAX_TRIES
    assert [tries_of(count) for count in ("1", "7", "99999999", "9" * 5_000)] == [1, 7, most, most]
    assert [tries_of(count) for count in ("x", "\u00b2", "")] == [1, 1, 1]


def test_a_request_is_known_by_all_it_says() -> None:
    one = parse_chat(b'{"model":"m","messages":[{"role":"user","content":"a"}]}')
    same = parse_chat(b'{"model":"m","messages":[{"role":"user","content":"a"}]}')
    assert name_of(one, "k", None) == name_of(same, "k", None)
    others = [
        (parse_chat(b'{"model":"m","messages":[{"role":"user","content":"b"}]}'), "k", None),
        (parse_chat(b'{"model":"n","messages":[{"role":"user","content":"a"}]}'), "k", None),
        (one, "j", None),
        (one, "k", "t"),
    ]
    assert len({name_of(*other) for other in others} | {name_of(one, "k", None)}) == 5
