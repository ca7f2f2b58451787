"""Text completions (`POST /v1/completions`): priced, metered, clamped, cut, settled once, in their own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.money import nano_from_usd
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Answer, Live, policy, read, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Script, error_event, words

PROMPT = "def add(a, b):\n    return "
FIVE = words("a + b # done")
LONG = words(" ".join("w" * 5 for _ in range(400)))


async def complete(live: Live, *, headers: dict[str, str] | None = None, **body: Any) -> Answer:
    sent = {"model": "a", "prompt": PROMPT, **body}
    async with live.client.session.post(f"{live.url}/v1/completions", json=sent, headers=headers) as response:
        return await read(response)


def text_of(answer: Answer, index: int = 0) -> str:
    """What one choice says, streamed or whole."""
    stream = answer.headers["content-type"].startswith("text/event-stream")
    found = answer.events if stream else [answer.json]
    return "".join(c["text"] for one in found for c in one.get("choices", ()) if c["index"] == index)


async def record_of(live: Live, answer: Answer) -> dict[str, Any]:
    return await live.client.decision(answer.request_id)


@pytest.mark.parametrize("stream", [True, False])
async def test_it_passes_as_it_came_and_is_charged(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool
) -> None:
    upstream.source = Script.of(FIVE)
    asked: dict[str, Any] = {"suffix": "\n\nprint(add(1, 2))", "logprobs": 1, "stop": ["\n\n"], "max_tokens": 64}
    asked["guided_regex"] = ".*"
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with Live(tmp_path, policy({"a": upstream}), ledger_url) as live:
        answer = await complete(live, **asked, **options, max_cost_usd=1)
        assert (answer.status, text_of(answer)) == (200, "a + b # done")
        (sent,) = upstream.requests
        assert sent.path == "/v1/completions"
        assert {name: sent.body[name] for name in asked} == asked
        assert (sent.body["prompt"], sent.body["model"], "max_cost_usd" in sent.body) == (PROMPT, "m", False)
        record = await record_of(live, answer)
        assert record["outcome"] == "completed"
        assert nano_from_usd(record["cost_usd"]) == upstream.bill(PRICE) == sent.tokens.bill(PRICE)
        assert record["usage"]["output_tokens"] == 5
        usage = answer.usage if stream else answer.json["usage"]
        assert usage is not None
        assert (usage["completion_tokens"], usage["cost"]) == (5, record["cost_usd"])
        if stream:
            assert answer.done
            assert {event["object"] for event in answer.events} == {"text_completion"}
        else:
            assert answer.json["object"] == "text_completion"


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ("one", 1), (["one", "two", "three"], 3), ([1, 2, 3, 4], 1), ([[1, 2], [3]], 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
async def test_prompts_of_all_kinds(
    tmp_path: Path, upstream: ScriptedUpstream, prompt: Any, answers: int, stream: bool
) -> None:
    upstream.source = Script.of(FIVE)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await complete(live, prompt=prompt, n=2, stream=stream)
        assert answer.status == 200
        assert [text_of(answer, index) for index in range(answers * 2)] == ["a + b # done"] * answers * 2
        record = await record_of(live, answer)
        assert (record["outcome"], record["usage"]["output_tokens"]) == ("completed", 5 * 2 * answers)
        assert nano_from_usd(record["cost_usd"]) == upstream.bill(PRICE)


async def test_usage_is_told_to_those_who_asked(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await complete(live, stream=True)
        assert upstream.requests[0].body["stream_options"] == {"include_usage": True}
        assert not any(event.get("usage") for event in answer.events)
        assert answer.done


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_asked_for_is_clamped_to_the_cap(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool
) -> None:
    upstream.source = Script.of(LONG)
    cap = 40 * INPUT_NANO + 50 * OUTPUT_NANO
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap)}}), ledger_url) as live:
        answer = await complete(live, stream=stream, max_tokens=1000, headers={"x-bursar-task-id": "t"})
        clamp = upstream.requests[0].body["max_tokens"]
        assert 0 < clamp < 80
        if stream:
            assert answer.error_code == "budget_exceeded"
            assert answer.done
            assert text_of(answer).startswith("wwwww ")
        else:
            assert answer.status == 402
        record = await record_of(live, answer)
        assert (record["outcome"], record["cut"]["by"]) == ("cost_killed", "clamp")
        await live.idle()
        balance = await live.balance("task:t")
        assert (balance.held_nano, balance.spent_nano <= cap) == (0, True)
        assert (await complete(live, headers={"x-bursar-task-id": "t"})).status == 402


@pytest.mark.parametrize("softly", [False, True])
async def test_a_stream_that_passes_the_cap_is_cut_by_the_meter(
    tmp_path: Path, upstream: ScriptedUpstream, softly: bool
) -> None:
    upstream.source = Script.of(LONG, obeys_limit=False, delay_s=0.0005)
    cap = 40 * INPUT_NANO + 50 * OUTPUT_NANO
    headers = {"x-bursar-on-cut": "length" if softly else "error"}
    async with Live(tmp_path, policy({"a": upstream}, caps={"request": {"max_cost_usd": usd(cap)}})) as live:
        answer = await complete(live, stream=True, headers=headers, stream_options={"include_usage": True})
        record = await record_of(live, answer)
        assert (record["outcome"], record["cut"]["by"]) == ("cost_killed", "meter")
        assert answer.usage is not None
        assert answer.done
        if softly:
            (cut,) = [event for event in answer.events if "bursar" in event]
            assert cut["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]
            assert (answer.error, cut["object"]) == (None, "text_completion")
        else:
            assert answer.error_code == "budget_exceeded"
            assert not any(c["finish_reason"] for event in answer.events for c in event.get("choices", ()))
        assert nano_from_usd(record["cost_usd"]) <= cap + 6 * OUTPUT_NANO


async def test_a_whole_reply_under_a_cap_is_streamed_and_folded(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Where nobody says how much it may write, as with servers of local models."""
    logprobs: dict[str, list[Any]] = {"tokens": ["a"], "token_logprobs": [-0.5], "text_offset": [0]}
    logprobs["top_logprobs"] = [{"index": -0.5}]

    def chunk(text: str, finish: str | None = None) -> bytes:
        said = {"index": 0, "text": text, "logprobs": None if finish else logprobs, "finish_reason": finish}
        whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [said]}
        return b"data: " + json.dumps(whole).encode() + b"\n\n"

    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}\n\n'
    upstream.source = Script.replay(chunk("a") + chunk(" b") + chunk("", "stop") + usage + b"data: [DONE]\n\n")
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.01}})) as live:
        answer = await complete(live)
        assert upstream.requests[0].body["stream"] is True
        body = answer.json
        assert body["object"] == "text_completion"
        twice = {name: [*values, *values] for name, values in logprobs.items()}
        assert body["choices"] == [{"index": 0, "text": "a b", "logprobs": twice, "finish_reason": "stop"}]
        assert (body["usage"]["completion_tokens"], body["id"]) == (2, "cmpl-1")
        assert (
            body["usage"]["cost"]
            == (await record_of(live, answer))["cost_usd"]
            == usd(9 * INPUT_NANO + 2 * OUTPUT_NANO)
        )


async def test_a_prompt_that_is_repeated_is_no_output(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Harnesses have it measured: `echo`, `logprobs`, and no new tokens."""
    prompt = "the quick brown fox jumps over the lazy dog " * 20
    upstream.source = Script.of(words(prompt.strip()), words(" or so"), obeys_limit=False, usage="missing")
    async with Live(tmp_path, policy({"a": upstream})) as live:
        for stream in (True, False):
            answer = await complete(live, prompt=prompt, echo=True, logprobs=1, max_tokens=0, stream=stream)
            assert text_of(answer).startswith("the quick")
            record = await record_of(live, answer)
            assert upstream.requests[-1].body["max_tokens"] == 0
            assert record["usage"]["output_tokens"] <= 3, stream


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("told", [True, False])
async def test_a_prompt_in_tokens_that_is_repeated_is_no_output(
    tmp_path: Path, upstream: ScriptedUpstream, prompts: int, stream: bool, told: bool
) -> None:
    """As lm-evaluation-harness sends it: some four characters a token come back."""
    text = "the quick brown fox jumps over the lazy dog " * 20
    choices = [{"index": n, "text": text, "logprobs": None, "finish_reason": "length"} for n in range(prompts)]
    usage = {"prompt_tokens": 181 * prompts, "completion_tokens": prompts, "total_tokens": 182 * prompts}
    reply = json.dumps({"choices": choices, **({"usage": usage} if told else {})})
    body, kind = (f"data: {reply}\n\ndata: [DONE]\n\n", "event-stream") if stream else (reply, "json")
    upstream.source = Script(
        body=body.encode(), headers={"content-type": f"text/{kind}" if stream else "application/json"}
    )
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await complete(live, prompt=[[5] * 181] * prompts, echo=True, max_tokens=1, stream=stream)
        assert answer.status == 200
        output = (await record_of(live, answer))["usage"]["output_tokens"]
        assert output == prompts if told else output < 60 * prompts


async def test_the_best_of_several_is_held_and_clamped_whole(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    """Answers that nobody sees are billed; there is no stream of them that could be cut."""
    reply = {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "text": "best", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 40, "total_tokens": 48},
    }  # fmt: skip
    upstream.source = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    cap = 40 * INPUT_NANO + 100 * OUTPUT_NANO
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap)}}), ledger_url) as live:
        first = await complete(live, best_of=5, n=1, headers={"x-bursar-task-id": "t"})
        assert (first.status, first.json["choices"][0]["text"]) == (200, "best")
        assert upstream.requests[0].body["max_tokens"] == 16, "what the API takes where nobody says more"
        record = await record_of(live, first)
        assert nano_from_usd(record["cost_usd"]) == 8 * INPUT_NANO + 40 * OUTPUT_NANO
        second = await complete(live, best_of=5, max_tokens=500, headers={"x-bursar-task-id": "t"})
        sent = upstream.requests[1].body
        assert (second.status, sent.get("stream", False)) == (200, False)
        assert 0 < sent["max_tokens"] * 5 <= 80
        third = await complete(live, best_of=5, max_tokens=500, headers={"x-bursar-task-id": "t"})
        assert third.status in (200, 402)
        await live.idle()
        assert (await live.balance("task:t")).held_nano == 0


@pytest.mark.parametrize("prompt", [None, "one", ["one", "two"]])
async def test_prompts_as_vectors_are_set_aside_for_and_answered_each(
    tmp_path: Path, upstream: ScriptedUpstream, prompt: Any
) -> None:
    vectors, tokens = ["A" * 40_960, "B" * 4096], 44
    answers = 2 + (0 if prompt is None else 1 if isinstance(prompt, str) else len(prompt))
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await complete(live, prompt=prompt, prompt_embeds=vectors, max_tokens=10)
        assert upstream.requests[0].body["prompt_embeds"] == vectors
        (attempt,) = (await record_of(live, answer))["attempts"]
        held_nano = nano_from_usd(attempt["budget"]["held_usd"])
        assert held_nano >= tokens * INPUT_NANO + answers * 10 * OUTPUT_NANO
        wrong = await complete(live, prompt_embeds=7)
        assert (wrong.status, wrong.json["error"]["param"]) == (400, "prompt_embeds")


@pytest.mark.parametrize("limit", [20, 300])
async def test_answers_that_nobody_sees_and_nobody_counts_cost_what_was_set_aside(
    tmp_path: Path, upstream: ScriptedUpstream, limit: int
) -> None:
    reply = {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "text": "best", "logprobs": None, "finish_reason": "stop"}],
    }  # fmt: skip
    upstream.source = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await complete(live, best_of=5, max_tokens=limit)
        record = await record_of(live, answer)
        (attempt,) = record["attempts"]
        assert attempt["provenance"] == "conservative"
        assert nano_from_usd(record["cost_usd"]) == nano_from_usd(attempt["budget"]["held_usd"])
        assert nano_from_usd(record["cost_usd"]) >= 5 * limit * OUTPUT_NANO


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": {"text": "x"}}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [[1], "a"]}, "prompt[1]"), ({"n": 0}, "n"), ({"n": 129}, "n"), ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"), ({"max_tokens": -1}, "max_tokens"), ({"suffix": 1}, "suffix"),
        ({"model": None}, "model"), ({"echo": "yes", "stream": True}, "echo"),
        ({"n": 128, "prompt": ["x"] * 40}, "prompt"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(tmp_path: Path, upstream: ScriptedUpstream, wrong: Any, param: str) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await complete(live, **wrong)
        assert (answer.status, answer.error and answer.error["param"]) == (400, param)
        assert not upstream.requests


async def test_a_provider_without_text_completions_is_passed_over(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with ScriptedUpstream() as claude:
        rules = policy({"c": claude, "a": upstream}, providers={"c": {"dialect": "anthropic"}})
        async with Live(tmp_path, rules) as live:
            assert (await complete(live, model="auto")).headers["x-bursar-model"] == "a"
            no = await complete(live, model="c")
            assert (no.status, no.error_code) == (400, "no_capable_model")
            assert no.error is not None
            assert "text completions" in no.error["message"]
            assert not claude.requests


async def test_a_server_that_has_no_such_path_is_an_error_or_the_next_is_asked(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with ScriptedUpstream(Script.failure(404, "This is a chat model.")) as chats:
        async with Live(tmp_path, policy({"c": chats, "a": upstream})) as live:
            no = await complete(live, model="c")
            assert (no.status, no.error and no.error["message"]) == (404, "This is a chat model.")
            assert (await complete(live, model="auto")).headers["x-bursar-model"] == "a"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_that_breaks_or_fails_is_an_honest_error(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.source = Script.of(FIVE[:2], error_event("It broke."))
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.01}})) as live:
        answer = await complete(live, stream=stream)
        assert answer.error is not None
        assert not stream or (answer.error["message"], answer.done) == ("It broke.", False)
        record = await record_of(live, answer)
        assert record["outcome"] == "api_error"
        assert nano_from_usd(record["cost_usd"]) >= 2 * OUTPUT_NANO


async def test_an_index_that_is_none_is_no_failure_of_the_gateway(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    body = b'{"choices": [{"index": -1, "text": "x", "finish_reason": "stop"}]}'
    upstream.source = Script(body=body, headers={"content-type": "application/json"})
    async with Live(tmp_path, policy({"a": upstream})) as live:
        assert [(await complete(live, stream=stream)).status for stream in (False, True)] == [200, 200]


async def test_an_index_written_as_text_is_that_choice(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    chunks = ['{"index": "1", "text": "b", "finish_reason": "stop"}', '{"text": "a", "finish_reason": "stop"}']
    body = "".join(f'data: {{"choices": [{chunk}]}}\n\n' for chunk in chunks) + "data: [DONE]\n\n"
    upstream.source = Script(body=body.encode(), headers={"content-type": "text/event-stream"})
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await complete(live, n=2, max_cost_usd=0.001)
        assert [(one["index"], one["text"]) for one in answer.json["choices"]] == [(0, "a"), (1, "b")]


async def test_another_text_is_no_repeat(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """An editor completes as one types."""
    upstream.source = Script.of(FIVE)
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_repeats": 1}})) as live:
        asked = [{"prompt": "de"}, {"prompt": "def"}, {"prompt": "def", "suffix": ":"}, {"prompt": "def"}]
        statuses = [(await complete(live, headers={"x-bursar-task-id": "t"}, **one)).status for one in asked]
        assert statuses == [200, 200, 200, 402]


async def test_whoever_leaves_pays_for_what_came(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(FIVE, HANG)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        async with live.client.open(task="t", path="/v1/completions", prompt=PROMPT, stream=True) as response:
            await response.content.readany()
        await live.idle()
        balance = await live.balance("task:t")
        assert (balance.held_nano, balance.running) == (0, 0)
        assert balance.spent_nano >= 5 * OUTPUT_NANO


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_llamacpps_own_limit_is_one_too(tmp_path: Path, upstream: ScriptedUpstream, path: str) -> None:
    """It goes before `max_tokens` there: a clamp that left it would clamp nothing."""
    upstream.source = Script.of(LONG)
    cap = 40 * INPUT_NANO + 50 * OUTPUT_NANO
    async with Live(tmp_path, policy({"a": upstream}, caps={"request": {"max_cost_usd": usd(cap)}})) as live:
        for limits, sent in (
            ({"n_predict": 5000, "max_tokens": 10}, range(10, 11)),
            ({"n_predict": 7, "max_tokens": 10}, range(7, 8)),
            ({"n_predict": 5000}, range(1, 80)),
            ({"n_predict": -1}, range(1, 80)),
        ):
            for stream in (True, False):
                await live.chat(path=path, prompt=PROMPT, stream=stream, **limits)
                body = upstream.requests[-1].body
                assert body["max_tokens"] in sent
                assert "n_predict" not in body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("capped", [True, False])
async def test_mistrals_fill_in_the_middle_is_put_into_shape(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, stream: bool, capped: bool
) -> None:
    """It answers as Chat does, at a path of its own, and tells usage unasked."""
    upstream.source = Script.of(FIVE, usage="always")
    monkeypatch.setattr("app.stores.policy_compile.host_matches", lambda host, listed: listed.endswith("mistral.ai"))
    caps = {"caps": {"task": {"max_cost_usd": 0.01}}} if capped else {}
    async with Live(tmp_path, policy({"a": upstream}, **caps)) as live:
        answer = await complete(live, suffix="\n", stream=stream)
        assert (answer.status, text_of(answer)) == (200, "a + b # done")
        (sent,) = upstream.requests
        assert (sent.path, sent.body["suffix"], "stream_options" in sent.body) == ("/v1/fim/completions", "\n", False)
        found = answer.events if stream else [answer.json]
        assert {one["object"] for one in found} == {"text_completion"}
        assert not any({"delta", "message"} & choice.keys() for one in found for choice in one["choices"])
        assert answer.done if stream else answer.json["usage"]["cost"] > 0
        record = await record_of(live, answer)
        assert (record["outcome"], nano_from_usd(record["cost_usd"])) == ("completed", upstream.bill(PRICE))
        for more in ({"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"n": 2}, {"echo": True}, {"logprobs": 2}):
            no = await complete(live, **more)
            assert (no.status, no.error is not None) == (400, True), more
        assert len(upstream.requests) == 1


async def test_mistrals_stream_is_cut_in_the_clients_shape(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.source = Script.of(LONG, obeys_limit=False, delay_s=0.0005)
    monkeypatch.setattr("app.stores.policy_compile.host_matches", lambda host, listed: listed.endswith("mistral.ai"))
    cap, headers = 40 * INPUT_NANO + 50 * OUTPUT_NANO, {"x-bursar-on-cut": "length"}
    async with Live(tmp_path, policy({"a": upstream}, caps={"request": {"max_cost_usd": usd(cap)}})) as live:
        answer = await complete(live, stream=True, headers=headers)
        (cut,) = [event for event in answer.events if "bursar" in event]
        assert cut["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]
        assert text_of(answer).startswith("wwwww")
        assert (await record_of(live, answer))["outcome"] == "cost_killed"
