"""Every client dialect on an upstream of every dialect, through real gateways, with the official SDKs.

A far gateway in front of a scripted model gives it each dialect; the near one, which is tested, has a provider of each.
So both sides of every dialect are under test at once, and the bill is known to the token.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as gemini_errors
from google.genai import types as gemini_types

from tests.gateway.live import OUTPUT_NANO, PRICE, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Delta, Script, text, tool, words

PATHS = {"openai_chat": "/v1", "openai_responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
SAID = "One two three four."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LONG = " ".join(["word"] * 2000)


@dataclass
class Said:
    """A reply as its SDK understood it."""

    text: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish: str = ""
    tokens: tuple[int, int] | None = None


@pytest.fixture
async def near(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    for part in ("far", "near"):
        (tmp_path / part).mkdir()
    async with Live(tmp_path / "far", policy({"m": upstream})) as far:
        urls = {name: far.url + path for name, path in PATHS.items()}
        providers = {name: {"dialect": name, "base_url": url} for name, url in urls.items()}
        models = {name: {"upstream_model": "m"} for name in urls}
        async with Live(tmp_path / "near", policy(urls, providers=providers, models=models)) as live:
            yield live


class Chat:
    """openai, chat completions."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=2, default_headers=headers)
        self.refused: type[Exception] = openai.APIStatusError
        self.broken: type[Exception] = openai.APIError

    async def ask(self, model: str, *, stream: bool, tools: bool = False, limit: int = 100) -> Said:
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": limit}
        if tools:
            asked["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
        if not stream:
            reply = await self.sdk.chat.completions.create(**asked)
            choice, usage = reply.choices[0], reply.usage
            found = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
            assert usage.model_extra["cost"] > 0
            return Said(
                choice.message.content or "",
                found,
                choice.finish_reason,
                (usage.prompt_tokens, usage.completion_tokens),
            )
        said = Said()
        names: dict[int, str] = {}
        arguments: dict[int, str] = {}
        async for chunk in await self.sdk.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        ):
            if chunk.usage:
                said.tokens = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                said.text += choice.delta.content or ""
                said.finish = choice.finish_reason or said.finish
                for call in choice.delta.tool_calls or ():
                    names.setdefault(call.index, call.function.name)
                    arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
        said.calls = [(names[index], arguments[index]) for index in names]
        return said


class Responses:
    """openai, responses."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=2, default_headers=headers)
        self.refused: type[Exception] = openai.BadRequestError
        self.broken: type[Exception] = openai.APIError

    async def ask(self, model: str, *, stream: bool, tools: bool = False, limit: int = 100) -> Said:
        asked: dict[str, Any] = {"model": model, "input": "hi", "max_output_tokens": limit, "store": False}
        if tools:
            asked["tools"] = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
        if not stream:
            return self._of(await self.sdk.responses.create(**asked))
        written, numbers = "", list[int]()
        last: Any = None
        async for event in await self.sdk.responses.create(**asked, stream=True):
            numbers.append(event.sequence_number)
            last = event
            if event.type == "response.output_text.delta":
                written += event.delta
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        said = self._of(last.response)
        assert said.text == written
        return said

    def _of(self, reply: Any) -> Said:
        found = [(item.name, item.arguments) for item in reply.output if item.type == "function_call"]
        finish = "tool_calls" if found else {"completed": "stop", "incomplete": "length"}[reply.status]
        return Said(reply.output_text, found, finish, (reply.usage.input_tokens, reply.usage.output_tokens))


class Messages:
    """anthropic, messages."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.sdk = anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=2, default_headers=headers)
        self.refused: type[Exception] = anthropic.APIStatusError
        self.broken: type[Exception] = anthropic.APIError

    async def ask(self, model: str, *, stream: bool, tools: bool = False, limit: int = 100) -> Said:
        asked: dict[str, Any] = {
            "model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": limit,
        }  # fmt: skip
        if tools:
            asked["tools"] = [{"name": "weather", "input_schema": SCHEMA}]
        if stream:
            async with self.sdk.messages.stream(**asked) as events:
                reply = await events.get_final_message()
        else:
            reply = await self.sdk.messages.create(**asked)
        words_: dict[str | None, str] = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
        return Said(
            "".join(block.text for block in reply.content if block.type == "text"),
            [(block.name, block.input) for block in reply.content if block.type == "tool_use"],
            words_[reply.stop_reason],
            (reply.usage.input_tokens, reply.usage.output_tokens),
        )


class Gemini:
    """google-genai."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        options = gemini_types.HttpOptions(base_url=url, headers=headers)
        self.sdk = genai.Client(api_key="x", http_options=options).aio
        self.refused: type[Exception] = gemini_errors.APIError
        self.broken: type[Exception] = gemini_errors.APIError

    async def ask(self, model: str, *, stream: bool, tools: bool = False, limit: int = 100) -> Said:
        config: dict[str, Any] = {"max_output_tokens": limit}
        if tools:
            declared = {"name": "weather", "parameters_json_schema": SCHEMA}
            config["tools"] = [{"function_declarations": [declared]}]
        asked: dict[str, Any] = {"model": model, "contents": "hi", "config": config}
        if not stream:
            return self._of([await self.sdk.models.generate_content(**asked)])
        return self._of([chunk async for chunk in await self.sdk.models.generate_content_stream(**asked)])

    def _of(self, chunks: list[Any]) -> Said:
        said = Said()
        for chunk in chunks:
            for candidate in chunk.candidates or ():
                for part in (candidate.content.parts if candidate.content else None) or ():
                    said.text += part.text or ""
                    if part.function_call:
                        said.calls.append((part.function_call.name, dict(part.function_call.args)))
                if candidate.finish_reason:
                    said.finish = {"STOP": "stop", "MAX_TOKENS": "length"}[candidate.finish_reason.name]
            if chunk.usage_metadata:
                used = chunk.usage_metadata
                said.tokens = (used.prompt_token_count, used.candidates_token_count or 0)
        said.finish = "tool_calls" if said.calls and said.finish == "stop" else said.finish
        return said


CLIENTS: dict[str, Any] = {
    "openai_chat": Chat,
    "openai_responses": Responses,
    "anthropic": Messages,
    "gemini": Gemini,
}
streamed = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
from_to = [pytest.mark.parametrize("client", CLIENTS), pytest.mark.parametrize("model", PATHS)]


def pairs(test: Any) -> Any:
    """Run a test for every client on every upstream."""
    for mark in from_to:
        test = mark(test)
    return test


async def settled(live: Live, task: str = "t") -> int:
    """What the task was charged, in nano-dollars."""
    spent_usd: float = (await live.client.task(task))["spent_usd"]
    return round(spent_usd * 10**9)


TASK = {"X-Bursar-Task-Id": "t"}


@pairs
@streamed
async def test_text(near: Live, upstream: ScriptedUpstream, client: str, model: str, stream: bool) -> None:
    upstream.source = Script.of(words(SAID), input_tokens=12)
    said = await CLIENTS[client](near.url, TASK).ask(model, stream=stream)
    assert (said.text, said.finish, said.tokens) == (SAID, "stop", (12, 4))
    assert await settled(near) == upstream.bill(PRICE)


@pairs
@streamed
async def test_tools_in_parallel(near: Live, upstream: ScriptedUpstream, client: str, model: str, stream: bool) -> None:
    upstream.source = Script.of(
        text("Let me see. "),
        tool(id="call_a", name="weather"),
        tool('{"city":'),
        tool(' "Bern"}'),
        tool(id="call_b", name="weather", index=1),
        tool('{"city": "Biel"}', index=1),
    )
    said = await CLIENTS[client](near.url, TASK).ask(model, stream=stream, tools=True)
    found = [(name, given if isinstance(given, dict) else json.loads(given)) for name, given in said.calls]
    assert found == [("weather", {"city": "Bern"}), ("weather", {"city": "Biel"})]
    assert (said.text, said.finish) == ("Let me see. ", "tool_calls")
    assert upstream.requests[0].body["tools"][0]["function"]["parameters"]["required"] == ["city"]
    assert await settled(near) == upstream.bill(PRICE)


@pairs
@streamed
async def test_the_clients_own_limit(
    near: Live, upstream: ScriptedUpstream, client: str, model: str, stream: bool
) -> None:
    upstream.source = Script.of(words(SAID))
    said = await CLIENTS[client](near.url, TASK).ask(model, stream=stream, limit=2)
    assert said.finish == "length"
    assert said.text.strip() == "One two"
    assert await settled(near) == upstream.bill(PRICE)


@pairs
async def test_a_cut_is_the_sdks_own_error_and_no_second_call(
    near: Live, upstream: ScriptedUpstream, client: str, model: str
) -> None:
    upstream.source = Script.of(words(LONG), input_tokens=12, obeys_limit=False, delay_s=0.001)
    cap_nano = 12_000 + 100 * OUTPUT_NANO
    headers = {**TASK, "X-Bursar-Task-Max-Cost-Usd": f"{usd(cap_nano):.9f}"}
    sdk = CLIENTS[client](near.url, headers)
    with pytest.raises(sdk.broken) as raised:
        await sdk.ask(model, stream=True, limit=4000)
    assert "out of budget" in str(raised.value)
    assert len(upstream.requests) == 1
    task = await near.client.task("t")
    assert task["cost_killed_at_usd"] is not None
    assert 12_000 < await settled(near) <= cap_nano + 20 * OUTPUT_NANO
    with pytest.raises(sdk.refused) as refused:
        await sdk.ask(model, stream=True)
    assert "out of budget" in str(refused.value)
    assert len(upstream.requests) == 1


@pairs
@streamed
async def test_a_denial_is_one_call(
    near: Live, upstream: ScriptedUpstream, client: str, model: str, stream: bool
) -> None:
    upstream.source = Script.of(words(SAID))
    sdk = CLIENTS[client](near.url, {"X-Bursar-Max-Cost-Usd": "0.000000001"})
    with pytest.raises(sdk.refused) as refused:
        await sdk.ask(model, stream=stream)
    assert "out of budget" in str(refused.value)
    assert not upstream.requests
    status = getattr(refused.value, "status_code", None) or getattr(refused.value, "code", None)
    assert status == (400 if client == "openai_responses" else 402)


@pytest.mark.parametrize("model", PATHS)
@streamed
async def test_a_custom_tool_takes_free_text_wherever_it_goes(
    near: Live, upstream: ScriptedUpstream, model: str, stream: bool
) -> None:
    """Chat's custom tools: where a provider knows only functions, one of a string, and back again."""

    def answer(received: Any) -> Script:
        (offered,) = received.body["tools"]
        if offered["type"] == "custom":
            opening = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "run", "input": ""}}
            more = [{"index": 0, "custom": {"input": piece}} for piece in ('print("h', 'i")\n')]
            return Script.of([Delta({"tool_calls": [delta]}) for delta in (opening, *more)])
        assert offered["function"]["parameters"]["required"] == ["input"]
        return Script.of(tool(id="c1", name="run"), tool('{"input": "print(\\"h'), tool('i\\")\\n"}'))

    upstream.source = answer
    sdk = openai.AsyncOpenAI(base_url=f"{near.url}/v1", api_key="x")
    offered: Any = {"type": "custom", "custom": {"name": "run", "description": "Run Python."}}
    asked: Any = {"model": model, "messages": [{"role": "user", "content": "hi"}], "tools": [offered]}
    if stream:
        text, names = "", []
        async for chunk in await sdk.chat.completions.create(**asked, stream=True):
            for call in chunk.choices[0].delta.tool_calls or ():
                custom = (call.model_extra or {}).get("custom") or {}
                text += custom.get("input", "")
                names += [custom["name"]] if "name" in custom else []
        assert (names, text) == (["run"], 'print("hi")\n')
        return
    reply = await sdk.chat.completions.create(**asked)
    (found,) = reply.choices[0].message.tool_calls or []
    assert (found.type, found.custom.name, found.custom.input) == ("custom", "run", 'print("hi")\n')
