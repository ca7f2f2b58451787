"""Reasoning that this account or model cannot read: asked once more without it, and paid for once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, read
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

CODE = {"message": "The encrypted content gAAA... could not be verified.", "code": "invalid_encrypted_content"}
REFUSAL = Script(
    status=400,
    body=json.dumps({"error": {"type": "invalid_request_error", "param": None, **CODE}}).encode(),
    headers={"content-type": "application/json"},
)
ANSWER = Script(
    body=json.dumps(
        {
            "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
            "output": [
                {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": "Done.", "annotations": []}]}
            ],
            "usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)  # fmt: skip
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
SAID: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "up"},
]


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    providers = {"a": {"dialect": "openai_responses"}}
    async with Live(tmp_path, policy({"a": upstream}, providers=providers)) as running:
        yield running


async def ask(live: Live, items: list[dict[str, Any]]) -> Any:
    body = {"model": "a", "input": items, "max_output_tokens": 50, "metadata": {"task_id": "t"}}
    async with live.client.session.post(f"{live.url}/v1/responses", json=body) as response:
        return await read(response)


async def test_it_is_asked_again_without_them(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = [REFUSAL, ANSWER]
    answer = await ask(live, [SAID[0], THOUGHT, *SAID[1:]])
    assert (answer.status, answer.json["output"][0]["content"][0]["text"]) == (200, "Done.")
    first, second = upstream.requests
    assert first.body["input"] == [SAID[0], THOUGHT, *SAID[1:]]
    assert second.body["input"] == SAID
    assert {**first.body, "input": 0} == {**second.body, "input": 0}
    task = await live.task("t")
    assert (round(task["spent_usd"] * 10**9), task["calls"]) == (7 * INPUT_NANO + 2 * OUTPUT_NANO, 1)


async def test_once(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = REFUSAL
    answer = await ask(live, [THOUGHT, *SAID])
    assert (answer.status, answer.error_code) == (400, "invalid_encrypted_content")
    assert len(upstream.requests) == 2


async def test_what_has_none_is_not_asked_again(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = REFUSAL
    assert (await ask(live, SAID)).status == 400
    assert len(upstream.requests) == 1


SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
LOOP: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": [SIGNED, {"type": "tool_use", "id": "t1", "name": "look", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "up"}]},
]
BARE = [LOOP[0], {**LOOP[1], "content": LOOP[1]["content"][1:]}, LOOP[2]]
MESSAGE = Script(
    body=json.dumps(
        {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
            "content": [{"type": "text", "text": "Done."}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 7, "output_tokens": 2},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)  # fmt: skip
REFUSALS = (
    "messages.1.content.0: Invalid `signature` in `thinking` block",
    "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation.",
    "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified",
    "messages.1.content.0.thinking: each thinking block must contain thinking",
)


def refusal(message: str) -> Script:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return Script(status=400, body=json.dumps(error).encode(), headers={"content-type": "application/json"})


@pytest.fixture
async def claude(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    upstream.requests.clear()
    models = {"a": {"upstream_model": "claude-opus-5-5"}}
    async with Live(tmp_path, policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models)) as it:
        yield it


async def post(live: Live, path: str, **body: Any) -> Any:
    async with live.client.session.post(live.url + path, json={"model": "a", **body}) as response:
        return await read(response)


@pytest.mark.parametrize("message", REFUSALS)
async def test_thinking_that_claude_does_not_take_back_is_left_out(
    claude: Live, upstream: ScriptedUpstream, message: str
) -> None:
    upstream.source = [refusal(message), MESSAGE]
    answer = await post(claude, "/v1/messages", messages=LOOP, max_tokens=50, tools=[TOOL], metadata={"task_id": "t"})
    assert (answer.status, answer.json["content"][0]["text"]) == (200, "Done.")
    first, second = upstream.requests
    assert (first.body["messages"], second.body["messages"]) == (LOOP, BARE)
    assert {**first.body, "messages": 0} == {**second.body, "messages": 0}
    assert (await claude.attempts(answer))[0]["left_out"] == ["thinking"]
    assert round((await claude.task("t"))["spent_usd"] * 10**9) == 7 * INPUT_NANO + 2 * OUTPUT_NANO


async def test_a_loop_without_its_thinking_goes_on_without_a_budget(claude: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = [refusal(REFUSALS[0]), MESSAGE]
    thinking = {"type": "enabled", "budget_tokens": 2000}
    asked = {"messages": LOOP, "max_tokens": 5000, "tools": [TOOL], "thinking": thinking}
    models = {"a": {"upstream_model": "claude-sonnet-4-5"}}
    providers = {"a": {"dialect": "anthropic"}}
    async with Live(claude.folder, policy({"a": upstream}, providers=providers, models=models)) as live:
        assert (await post(live, "/v1/messages", **asked)).status == 200
    first, second = upstream.requests
    assert (first.body["thinking"], second.body.get("thinking")) == (thinking, None)


async def test_thinking_that_travelled_through_another_dialect_is_left_out_too(
    claude: Live, upstream: ScriptedUpstream
) -> None:
    upstream.source = [refusal(REFUSALS[1]), MESSAGE]
    thought = {**THOUGHT, "encrypted_content": "bursar:anthropic:signature:EqQB"}
    answer = await post(claude, "/v1/responses", input=[SAID[0], thought, *SAID[1:]], max_output_tokens=50)
    assert answer.status == 200
    first, second = [request.body["messages"][1]["content"] for request in upstream.requests]
    assert [block["type"] for block in first] == ["thinking", "tool_use"]
    assert [block["type"] for block in second] == ["tool_use"]


async def test_other_refusals_are_told_at_once(claude: Live, upstream: ScriptedUpstream) -> None:
    for message, messages in (("messages: bad", LOOP), (REFUSALS[0], BARE)):
        upstream.source, upstream.requests[:] = refusal(message), []
        answer = await post(claude, "/v1/messages", messages=messages, max_tokens=50, tools=[TOOL])
        assert (answer.status, answer.json["error"]["message"]) == (400, message)
        assert len(upstream.requests) == 1


GEMINI_SAID = Script(
    body=json.dumps(
        {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "Done."}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)
GEMINI_REFUSALS = (
    "Corrupted thought signature.",
    "Unable to submit request because Thought signature is not valid.",
    "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly.",
)
SKIP = "skip_thought_signature_validator"


def gemini_refusal(message: str) -> Script:
    error = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    return Script(status=400, body=json.dumps(error).encode(), headers={"content-type": "application/json"})


def gemini_call(name: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": {}}, **more}


GEMINI_ANSWERED = {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"output": "up"}}}]}
GEMINI_LOOP: list[dict[str, Any]] = [
    {"role": "user", "parts": [{"text": "hi"}]},
    {"role": "model", "parts": [{"text": "Hm.", "thought": True, "thoughtSignature": "QQ=="}]},
    {
        "role": "model",
        "parts": [
            {"text": "I look", "thoughtSignature": "QQ=="},
            {"text": "", "thought_signature": "QQ=="},
            gemini_call("look", thoughtSignature="QQ=="),
            gemini_call("look"),
        ],
    },
    GEMINI_ANSWERED,
    {"role": "model", "parts": [gemini_call("look", thought_signature="QQ==")]},
    GEMINI_ANSWERED,
    {"role": "model", "parts": [gemini_call("look")]},
    GEMINI_ANSWERED,
]
GEMINI_BARE = [
    GEMINI_LOOP[0],
    {"role": "model", "parts": [{"text": "I look"}, gemini_call("look", thoughtSignature=SKIP), gemini_call("look")]},
    GEMINI_ANSWERED,
    {"role": "model", "parts": [gemini_call("look", thoughtSignature=SKIP)]},
    GEMINI_ANSWERED,
    {"role": "model", "parts": [gemini_call("look", thoughtSignature=SKIP)]},
    GEMINI_ANSWERED,
]


@pytest.fixture
async def gemini(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    upstream.requests.clear()
    models = {"a": {"upstream_model": "gemini-3-pro-preview"}}
    async with Live(tmp_path, policy({"a": upstream}, providers={"a": {"dialect": "gemini"}}, models=models)) as it:
        yield it


@pytest.mark.parametrize("message", GEMINI_REFUSALS)
async def test_signatures_that_gemini_does_not_take_back_are_left_out(
    gemini: Live, upstream: ScriptedUpstream, message: str
) -> None:
    upstream.source = [gemini_refusal(message), GEMINI_SAID]
    answer = await post(gemini, "/v1beta/models/a:generateContent", contents=GEMINI_LOOP)
    assert (answer.status, answer.json["candidates"][0]["content"]["parts"][0]["text"]) == (200, "Done.")
    first, second = upstream.requests
    assert (first.body["contents"][1], second.body["contents"]) == (GEMINI_LOOP[1], GEMINI_BARE)


async def test_signatures_that_travelled_through_another_dialect_are_left_out_too(
    gemini: Live, upstream: ScriptedUpstream
) -> None:
    upstream.source = [gemini_refusal(GEMINI_REFUSALS[0]), GEMINI_SAID]
    signed = {"extra_content": {"google": {"thought_signature": "QQ=="}}}
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    calls = [{**call, "id": "c1", **signed}, {**call, "id": "c2"}]
    results = [{"role": "tool", "tool_call_id": id, "content": "up"} for id in ("c1", "c2")]
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    assert (await post(gemini, "/v1/chat/completions", messages=said)).status == 200
    first, second = [request.body["contents"][1]["parts"] for request in upstream.requests]
    assert [part.get("thoughtSignature") for part in first] == ["QQ==", None]
    assert [part.get("thoughtSignature") for part in second] == [SKIP, None]


async def test_gemini_is_asked_no_third_time_and_not_for_other_refusals(
    gemini: Live, upstream: ScriptedUpstream
) -> None:
    for message, contents, times in (
        (GEMINI_REFUSALS[0], GEMINI_LOOP, 2),
        (GEMINI_REFUSALS[0], GEMINI_BARE, 1),
        (GEMINI_REFUSALS[0], [{"role": "user"}, *GEMINI_LOOP[:1]], 1),
        ("Please use a valid role.", GEMINI_LOOP, 1),
    ):
        upstream.source, upstream.requests[:] = gemini_refusal(message), []
        answer = await post(gemini, "/v1beta/models/a:generateContent", contents=contents)
        assert (answer.status, answer.json["error"]["message"]) == (400, message)
        assert len(upstream.requests) == times


CHAT_SAID = Script(
    body=json.dumps(
        {
            "id": "x", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)  # fmt: skip
MISSED = (
    "The `reasoning_content` in the thinking mode must be passed back to the API.",
    "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
)
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CHAT_LOOP: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."},
    {"role": "user", "content": "go"},
    {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL], "reasoning_content": ""},
    {"role": "tool", "tool_call_id": "c1", "content": "up"},
    {"role": "assistant", "content": "So.", "reasoning": "Then."},
    {"role": "user", "content": "on"},
]


@pytest.fixture
async def deepseek(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    upstream.requests.clear()
    models = {"a": {"upstream_model": "deepseek-v4-pro"}}
    async with Live(tmp_path, policy({"a": upstream}, models=models)) as running:
        yield running


@pytest.mark.parametrize("message", MISSED)
async def test_thoughts_that_a_chat_provider_misses_are_filled_in(
    deepseek: Live, upstream: ScriptedUpstream, message: str
) -> None:
    upstream.source = [refusal(message), CHAT_SAID]
    answer = await post(deepseek, "/v1/chat/completions", messages=CHAT_LOOP, max_tokens=50)
    assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, "Done.")
    first, second = upstream.requests
    assert first.body["messages"] == CHAT_LOOP
    filled = {1: "Hm.", 3: " ", 5: "Then."}
    for place, said in enumerate(CHAT_LOOP):
        more = {"reasoning_content": filled[place]} if place in filled else {}
        assert second.body["messages"][place] == {**said, **more}
    assert {**first.body, "messages": 0} == {**second.body, "messages": 0}


async def test_they_are_filled_in_for_clients_of_other_dialects(deepseek: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = [refusal(MISSED[0]), CHAT_SAID]
    assert (await post(deepseek, "/v1/messages", messages=LOOP, max_tokens=50, tools=[TOOL])).status == 200
    first, second = [request.body["messages"][1] for request in upstream.requests]
    assert (first.get("reasoning_content"), second["reasoning_content"]) == (None, " ")


async def test_they_are_filled_in_once(deepseek: Live, upstream: ScriptedUpstream) -> None:
    for path, messages in (("/v1/chat/completions", CHAT_LOOP), ("/v1/messages", LOOP)):
        upstream.source, upstream.requests[:] = refusal(MISSED[0]), []
        assert (await post(deepseek, path, messages=messages, max_tokens=50)).status == 400
        assert len(upstream.requests) == 2
        upstream.source, upstream.requests[:] = refusal("reasoning_content: bad"), []
        assert (await post(deepseek, path, messages=messages, max_tokens=50)).status == 400
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "message",
    [
        "The `content[].thinking` in the thinking mode must be passed back to the API.",
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`.",
    ],
)
async def test_a_model_that_misses_its_thinking_thinks_no_more(
    claude: Live, upstream: ScriptedUpstream, message: str
) -> None:
    upstream.source = [refusal(message), MESSAGE]
    asked = {"messages": BARE, "max_tokens": 5000, "tools": [TOOL]}
    answer = await post(claude, "/v1/messages", **asked, thinking={"type": "enabled", "budget_tokens": 2000})
    assert answer.status == 200
    first, second = upstream.requests
    assert second.body == {**first.body, "thinking": {"type": "disabled"}}
    upstream.source, upstream.requests[:] = refusal(message), []
    assert (await post(claude, "/v1/responses", input=SAID, max_output_tokens=50)).status == 400
    assert [request.body.get("thinking") for request in upstream.requests] == [None, {"type": "disabled"}]
