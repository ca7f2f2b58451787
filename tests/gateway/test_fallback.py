"""What becomes of a call whose provider fails: the next one, the client's own fault, or an honest error; every attempt
is settled."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.core.errors import BadRequest
from app.core.health import COOLDOWN_S
from tests.gateway.live import PRICE, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import (
    CLOSE,
    END,
    HANG,
    RESET,
    Delta,
    Event,
    Gate,
    Raw,
    Script,
    Wait,
    error_body,
    error_event,
    text,
    tool,
    words,
)

CAPS = {"task": {"max_cost_usd": 0.1}}
GOOD = Script.of(words("One two three."))
BROKEN: dict[str, Script] = {
    "500": Script.failure(500),
    "503": Script.failure(503, headers={"retry-after": "0"}),
    "429": Script.failure(429, code="rate_limit_exceeded"),
    "429, long": Script.failure(429, headers={"retry-after": "3600"}),
    "401": Script.failure(401, code="invalid_api_key"),
    "402": Script.failure(402, code="insufficient_quota"),
    "403": Script.failure(403),
    "404": Script.failure(404, code="model_not_found"),
    "context": Script.failure(400, "This model's maximum context length is 10 tokens", code="context_length_exceeded"),
    "context, told in the stream": Script.of(error_event("Your input exceeds the context window of this model"), END),
    "413": Script.failure(413, "Request too large for model", code="rate_limit_exceeded"),
    "422, of a parameter": Script.failure(422, "store: Extra inputs are not permitted"),
    "credit": Script.failure(400, "Your credit balance is too low to access the Anthropic API."),
    "html": Script.html(),
    "html 200": Script.replay(b"<html><body>Welcome to the hotel's network</body></html>", "text/html"),
    "reset": Script(opening=[RESET]),
    "close": Script(opening=[CLOSE]),
    "reset after the head": Script.of(RESET),
    "empty stream": Script.of(END),
    "role only": Script.of(text(""), END),
    "done only": Script.of(Raw(b"data: [DONE]\n\n"), END),
    "role, then done": Script.of(text(""), Raw(b"data: [DONE]\n\n"), END),
    "garbage": Script.of(Raw(b"data: {not json}\n\n"), END),
    "error event first": Script.of(error_event("The server is overloaded"), END),
    "compressed": Script(
        body=gzip.compress(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n'),
        headers={"content-type": "text/event-stream", "content-encoding": "gzip"},
    ),
    "redirect": Script(status=302, body=b"", headers={"location": "http://127.0.0.1:1/"}),
}

TOLD_IN_A_STREAM = ("error event first", "context, told in the stream")


@pytest.fixture
def second() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(GOOD) as running:
        yield running


async def check_settled(live: Live, *upstreams: ScriptedUpstream) -> None:
    """Every attempt is settled, and none for less than was billed."""
    await live.idle()
    balance = await live.balance("task:t1")
    assert balance.held_nano == 0
    assert balance.spent_nano >= sum(u.bill(PRICE) for u in upstreams)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", BROKEN)
async def test_the_next_one_is_asked(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, how: str, stream: bool
) -> None:
    upstream.source = BROKEN[how]
    if not stream and BROKEN[how].pieces and BROKEN[how].body is None and how not in ("reset", "close"):
        pytest.skip("only a stream fails like that")
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        answer = await live.chat(model="auto", task="t1", stream=stream, max_tokens=50)
        assert (answer.status, answer.error) == (200, None)
        assert (answer.text if stream else answer.json["choices"][0]["message"]["content"]) == "One two three."
        assert answer.headers["x-bursar-model"] == "b"
        assert len(second.requests) == 1
        assert 1 <= len(upstream.requests) <= 2
        assert await live.client.metric("bursar_fallbacks_total") == 1
        # A provider that reports an error in the place of an answer does not bill it.
        await check_settled(live, *([] if how in TOLD_IN_A_STREAM else [upstream]), second)


async def test_what_a_folded_reply_said_before_its_error_is_paid_for(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """The client has seen nothing of it, so that the next one is asked; the provider has generated it all the same."""
    upstream.source = Script.of(words("One two three four."), error_event("The server had an error"), END)
    tight = {"task": {"max_cost_usd": 0.001}}
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=tight)) as live:
        answer = await live.chat(model="auto", task="t1")
        assert (answer.status, answer.headers["x-bursar-model"]) == (200, "b")
        first, _ = await live.attempts(answer)
        assert (first["outcome"], first["mode"]) == ("api_error", "fold")
        assert first["cost_usd"] > 0
        await check_settled(live, upstream, second)


async def test_nobody_there_is_the_next_one(tmp_path: Path, second: ScriptedUpstream) -> None:
    with ScriptedUpstream() as gone:
        url = gone.url
    async with Live(tmp_path, policy({"a": url, "b": second}, caps=CAPS)) as live:
        assert (await live.chat(model="auto", task="t1", stream=True)).text == "One two three."
        await check_settled(live, second)


async def test_the_third_one_is_asked_when_two_fail(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.source = Script.failure(500)
    second.source = Script.failure(429)
    with ScriptedUpstream(GOOD) as third:
        async with Live(tmp_path, policy({"a": upstream, "b": second, "c": third}, caps=CAPS)) as live:
            answer = await live.chat(model="auto", task="t1")
            assert answer.headers["x-bursar-model"] == "c"
            outcomes = [(a["model"], a["outcome"]) for a in await live.attempts(answer)]
            assert outcomes == [
                ("a", "api_error"), ("a", "api_error"), ("b", "rate_limit"), ("b", "rate_limit"), ("c", "completed"),
            ]  # fmt: skip
            await check_settled(live, upstream, second, third)


async def test_one_retry_may_be_enough(tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream) -> None:
    upstream.source = [Script.failure(503), GOOD]
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        answer = await live.chat(model="auto", task="t1", stream=True)
        assert answer.headers["x-bursar-model"] == "a"
        assert second.requests == []
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


async def test_a_short_retry_after_is_waited_for(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.failure(429, headers={"retry-after-ms": "150"}), GOOD]
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        assert (await live.chat(model="auto", task="t1")).status == 200
        first, again = upstream.requests
        assert again.received_at_s - first.received_at_s >= 0.15


async def test_a_long_retry_after_goes_to_the_client(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.failure(429, headers={"retry-after": "17"})
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        started_s = time.monotonic()
        answer = await live.chat(model="auto", task="t1")
        assert (answer.status, answer.error_code) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "17"
        assert time.monotonic() - started_s < 5
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_the_clients_own_fault_is_passed_on_as_it_came(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, status: int
) -> None:
    upstream.source = Script.failure(status, "Invalid 'temperature': too hot", code="invalid_value")
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        for stream in (True, False):
            answer = await live.chat(model="auto", task="t1", stream=stream)
            assert answer.status == status
            assert answer.error == {
                "message": "Invalid 'temperature': too hot", "type": "invalid_request_error", "param": None,
                "code": "invalid_value",
            }  # fmt: skip
        assert len(upstream.requests) == 2
        assert second.requests == []
        assert (await live.balance("task:t1")).spent_nano == 0


async def test_a_prompt_that_is_too_long_opens_no_circuit_however_it_is_told(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(error_event("Your input exceeds the context window of this model", None), END)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        for _ in range(12):
            answer = await live.chat(stream=True)
            assert (answer.status, answer.error_code) == (400, "context_length_exceeded")
        upstream.source = GOOD
        assert (await live.chat(stream=True)).text == "One two three."


@pytest.mark.parametrize(
    ("failing", "status", "code"),
    [
        (Script.failure(500), 502, "upstream_error"),
        (Script.failure(401), 502, "upstream_account"),
        (Script.failure(429), 429, "rate_limit_exceeded"),
        (Script(opening=[RESET]), 502, "upstream_error"),
    ],
)
async def test_when_nobody_is_left_the_error_says_what_failed(
    tmp_path: Path, upstream: ScriptedUpstream, failing: Script, status: int, code: str
) -> None:
    upstream.source = failing
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        for stream in (True, False):
            answer = await live.chat(model="auto", task="t1", stream=stream)
            assert (answer.status, answer.error_code) == (status, code)
        await check_settled(live, upstream)


ENDINGS: dict[str, list[Any]] = {
    "reset": [RESET],
    "close": [CLOSE],
    "end": [END],
    "garbage": [Raw(b"data: {no\n\n"), END],
    "error event": [error_event("The model crashed"), END],
    "error, then done": [Event(error_body("The model crashed", type="server_error")), Raw(b"data: [DONE]\n\n"), END],
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_stream_that_dies_after_its_first_event_is_an_honest_error(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, ending: str
) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three"), Wait(gate), *ENDINGS[ending])
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        async with live.client.open(model="auto", task="t1", stream=True) as response:
            seen = b""
            while b"three" not in seen:
                seen += await response.content.readany()
            gate.open()
            seen += await response.read()
        body = seen.decode()
        assert body.count('"error":') == 1
        assert "[DONE]" not in body
        assert '"finish_reason":"' not in body
        assert second.requests == []
        await check_settled(live, upstream)
        record = await live.client.decision(response.headers["x-bursar-request-id"])
        assert (record["outcome"], record["attempts"][0]["provenance"]) == ("api_error", "estimated")


@pytest.mark.parametrize("client", ["chat", "messages"])
async def test_done_within_a_tool_call_is_no_end(tmp_path: Path, upstream: ScriptedUpstream, client: str) -> None:
    """Gateways on the way end a dead provider's stream so, and half a call would be run (shared WIRE.md, trap 1)."""
    half = tool('{"cmd": "rm -rf /tmp/x', id="c1", name="bash")
    upstream.source = Script.of(half, Raw(b"data: [DONE]\n\n"), END)
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        if client == "chat":
            answer = await live.chat(task="t1", stream=True)
            assert answer.error is not None
            assert (answer.error["code"], answer.finishes, answer.done) == ("upstream_error", [], False)
        else:
            sent = {"model": "auto", "max_tokens": 99, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
            async with live.client.session.post(f"{live.url}/v1/messages", json=sent) as response:
                body = await response.text()
            assert body.count("event: error") == 1
            assert "message_stop" not in body
            assert "content_block_stop" not in body


async def test_a_folded_call_whose_stream_dies_goes_to_the_next_one(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """The client has seen nothing yet: what the first one said is paid for and thrown away."""
    upstream.source = Script.of(words("One two"), CLOSE)
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        answer = await live.chat(model="auto", task="t1")
        assert answer.json["choices"][0]["message"]["content"] == "One two three."
        assert answer.headers["x-bursar-model"] == "b"
        await check_settled(live, upstream, second)


async def test_a_model_that_is_left_out_is_logged_once_with_the_reason_and_so_is_its_return(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.source = Script.failure(401, "no such key: sk-none", code="invalid_api_key")
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        with structlog.testing.capture_logs() as logs:
            for _ in range(4):
                await live.chat(model="auto")
                live.services.show_circuits()
        (said,) = [line for line in logs if line["event"] == "a model is left out because its provider fails"]
        assert (said["model"], said["provider"]) == ("a", live.services.view.policy.models["a"].provider.name)
        account = "The provider refused the gateway's own account: its key or its credit."
        assert said["why"] == f"{account} (status 401, invalid_api_key)"
        upstream.source = GOOD
        live.services.health.of("a").open_until_s -= 2 * COOLDOWN_S
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                await live.chat(model="auto")
                live.services.show_circuits()
        assert [line["model"] for line in logs if line["event"] == "a model answers again"] == ["a"]


async def test_a_circuit_opens_and_lets_one_probe_through(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.source = Script.failure(500)
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
        for _ in range(4):
            assert (await live.chat(model="auto", task="t1", stream=True)).headers["x-bursar-model"] == "b"
        failures = len(upstream.requests)
        assert failures in (3, 4)
        assert await live.client.metric("bursar_circuit_state") == 2
        breaker = live.services.health.of("a")
        breaker.open_until_s -= 2 * COOLDOWN_S
        assert await live.client.metric("bursar_circuit_state") == 1
        upstream.source = GOOD
        assert (await live.chat(model="auto", task="t1", stream=True)).headers["x-bursar-model"] == "a"
        assert await live.client.metric("bursar_circuit_state") == 0
        await check_settled(live, upstream, second)


async def test_an_open_circuit_without_a_fallback_answers_at_once(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.failure(500)
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        statuses = [(await live.chat(model="auto", task="t1")).status for _ in range(5)]
        assert statuses == [502] * 5
        assert len(upstream.requests) < 5


async def test_where_nobody_may_be_asked_it_says_for_how_long(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """A client that waits as told is served; the SDKs' own patience ends before a circuit closes."""
    rules = policy({"a": upstream, "b": second}, models={"b": {"tools": False}})
    async with Live(tmp_path, rules) as live:
        live.services.health.of("a").failed(asyncio.get_running_loop().time(), retry_after_s=90.0)
        with_tools = await live.chat(model="auto", tools=[{"type": "function", "function": {"name": "f"}}])
        assert (with_tools.status, with_tools.error_code, upstream.requests) == (502, "upstream_error", [])
        assert 60 < int(with_tools.headers["retry-after"]) <= 90
        assert (await live.chat(model="auto")).headers["x-bursar-model"] == "b"


async def test_a_first_delta_of_white_space_is_an_event(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(Delta({"content": "\n"}), words("yes"))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        assert (await live.chat(stream=True)).text == "\nyes"


async def test_a_dearer_fallback_is_paid_for_at_its_own_price(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.source = Script.failure(500)
    dear = {"b": {"pricing": {"input_per_1k": 0.01, "output_per_1k": 0.02}}}
    async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS, models=dear)) as live:
        await live.chat(model="auto", task="t1", stream=True)
        assert (await live.balance("task:t1")).spent_nano == 10 * second.bill(PRICE)


def silent_first(first: ScriptedUpstream, second: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    """A policy whose first provider is not waited for long, and bills what it was allowed to, whoever hangs up."""
    providers = {"a": {"bills_after_cancel": True, "deadlines": {"ttft_secs": 0.2}}}
    models = {"a": {"budgets": {"max_cost_usd": 0, "hard_timeout_secs": 0.2}}}
    rules = policy({"a": first, "b": second}, providers=providers, models=models, **more)
    rules["routes"]["auto"]["retries"] = {"attempts": 0}
    return rules


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("by", ["client", "policy", "task", "no"])
async def test_a_calls_own_cap_binds_all_of_its_attempts_together(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, stream: bool, by: str
) -> None:
    """The first provider falls silent over an answer nobody sees, which is charged; the second has what is left."""
    cap_nano = 400_000
    upstream.source = Script.of(HANG)
    second.source = Script.of(words("w " * 300))
    caps = {"request" if by == "policy" else "task": {"max_cost_usd": usd(cap_nano)}}
    more = {"caps": caps} if by in ("policy", "task") else {}
    asked = {"max_cost_usd": usd(cap_nano)} if by == "client" else {}
    rules = silent_first(upstream, second, **more)
    options = {"stream_options": {"include_usage": True}} if stream else {}
    async with Live(tmp_path, rules) as live:
        answer = await live.chat(model="auto", stream=stream, max_tokens=150, **asked, **options)
        record = await live.client.decision(answer.request_id)
        charged = [attempt["cost_usd"] for attempt in record["attempts"]]
        assert len(charged) == 2
        assert charged[0] > usd(300_000)  # nearly the whole cap was set aside for it
        assert record["cost_usd"] == pytest.approx(sum(charged))
        limit = second.requests[0].body["max_tokens"]
        if by == "no":
            assert (limit, record["outcome"]) == (150, "completed")
            assert answer.usage is not None
            assert answer.usage["cost"] == pytest.approx(record["cost_usd"])
            return
        assert record["outcome"] == "cost_killed"
        assert limit < 50
        assert record["cost_usd"] <= usd(cap_nano)
        assert [cap["limit_usd"] for cap in record["caps"]] == [usd(cap_nano)]
        assert record["cost_killed_at_usd"] == pytest.approx(record["cost_usd"])
        if not stream:
            assert answer.status == 402
            assert float(answer.headers["x-bursar-limit-usd"]) == usd(cap_nano)
            assert float(answer.headers["x-bursar-spent-usd"]) == pytest.approx(record["cost_usd"])


async def test_attempts_that_used_up_the_cap_leave_nothing_for_another(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.source = Script.of(HANG)
    async with Live(tmp_path, silent_first(upstream, second)) as live:
        answer = await live.chat(model="auto", stream=True, max_cost_usd=usd(100_000))
        assert answer.status == 402
        assert answer.error_code == "budget_exceeded"
        assert answer.headers["x-bursar-scope"] == "request"
        assert answer.headers["x-bursar-limit-usd"] == answer.headers["x-bursar-spent-usd"] == "0.0001"
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["denied_scope"], record["cost_usd"]) == ("denied", "request", usd(100_000))
        assert len(upstream.requests) + len(second.requests) == 1


async def test_a_fallback_too_dear_at_any_time_hides_no_failure(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Nearly all of the cap is left: what failed may be asked again, and the client hears so."""
    upstream.source = Script.of([*words("One two three."), RESET])
    dear = {"b": {"pricing": {"input_per_1k": 1, "output_per_1k": 2}}}
    rules = policy({"a": upstream, "b": second}, models=dear)
    rules["routes"]["auto"]["retries"] = {"attempts": 0}
    async with Live(tmp_path, rules) as live:
        answer = await live.chat(model="auto", max_cost_usd=0.001)
        record = await live.client.decision(answer.request_id)
        assert 0 < record["cost_usd"] < 0.0001
        assert [denial["model"] for denial in record["denials"]] == ["b"]
        assert (answer.status, answer.error_code, record["outcome"]) == (502, "upstream_error", "api_error")
        assert answer.headers.get("x-should-retry") != "false"


async def test_no_time_is_left_for_another_attempt(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.failure(500)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(headers={"x-bursar-task-max-seconds": "0"})
        assert (answer.status, answer.headers["x-bursar-reason"]) == (402, "time")
        assert not upstream.requests


@pytest.mark.parametrize("where", ["purse.clamps", "call.refuse_unpriced", "call.Attempt", "attempt.exchange_for"])
@pytest.mark.parametrize("raised", [ValueError("a defect"), BadRequest("Told to the client.")], ids=["defect", "told"])
async def test_a_defect_leaves_no_hold(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, where: str, raised: Exception
) -> None:
    def broken(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(f"app.gateway.{where}", broken)
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        assert (await live.chat(task="t1")).status == (400 if isinstance(raised, BadRequest) else 500)
        balance = await live.balance("task:t1")
        assert (balance.held_nano, balance.spent_nano) == (0, 0)
