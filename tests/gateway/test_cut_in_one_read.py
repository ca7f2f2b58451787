"""A stream that comes in one read, as from a fast provider or through a proxy that waits for all of it: it is billed
whole, and what its cap has paid for is shown before the cut."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PROMPT, Answer, Live, policy, usd
from tests.gateway.test_cut import CAPS, CLOSES_TASK, assert_cut, assert_denied
from tests.upstream import ScriptedUpstream
from tests.upstream_script import END, Pause, Piece, Raw, Script

INPUT_TOKENS = 10
MOST_INPUT_TOKENS = 60
"""What the gateway takes the prompt for at the most."""


def chunk(delta: dict[str, Any], choice: int = 0, finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream."""
    choices = [{"index": choice, "delta": delta, "finish_reason": finish}]
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"


def said(tokens: int, choices: int = 1) -> list[bytes]:
    """So many tokens of text in all, by turns of the choices."""
    return [chunk({"content": f" w{number}"}, number % choices) for number in range(tokens)]


def called(tokens: int) -> list[bytes]:
    """A tool call with so many pieces."""
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "["}}
    return [
        chunk({"tool_calls": [first]}),
        *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": f"{n},"}}]}) for n in range(tokens)),
    ]


def ended(tokens: int, choices: int = 1, finish: str = "stop") -> list[bytes]:
    """The end of it all, with usage."""
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": tokens, "total_tokens": INPUT_TOKENS + tokens}
    finishes = [chunk({}, choice, finish) for choice in range(choices)]
    return [*finishes, b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n", b"data: [DONE]\n\n"]


def shown_tokens(answer: Answer) -> int:
    """How many events of the answer the client has."""
    deltas = [choice["delta"] for event in answer.events for choice in event.get("choices", ())]
    return sum(1 for delta in deltas if delta.get("content") or delta.get("tool_calls"))


def affordable_tokens(cap_nano: int) -> range:
    """How many tokens of output a cap must have paid for, and may have."""
    return range(
        (cap_nano - MOST_INPUT_TOKENS * INPUT_NANO) * 9 // (10 * OUTPUT_NANO),
        (cap_nano - INPUT_TOKENS * INPUT_NANO) // OUTPUT_NANO + 1,
    )


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("tokens", [120, 2000])
async def test_what_a_cap_has_paid_for_is_shown(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, cap: str, tokens: int
) -> None:
    more, asked, scope = CAPS[cap]
    cap_nano = 200_000
    upstream.source = Script.replay(b"".join([*said(tokens), *ended(tokens)]))
    async with Live(tmp_path, policy({"a": upstream}, **more), ledger_url) as live:
        answer = await live.chat(stream=True, task="t1", **asked)
        assert_cut(answer)
        assert shown_tokens(answer) in affordable_tokens(cap_nano)
        charged = INPUT_TOKENS * INPUT_NANO + tokens * OUTPUT_NANO
        (settled,) = {balance.spent_nano for balance in (await live.balances()).values()}
        assert cap_nano < settled <= charged
        if scope in CLOSES_TASK:
            assert_denied(await live.chat(stream=True, task="t1", **asked), scope)


CALLING = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}
REPLIES: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "two choices": ([*said(400, 2), *ended(400, 2)], {"n": 2}),
    "a tool call": ([*called(400), *ended(401, finish="tool_calls")], CALLING),
    "text and a tool call": ([*said(40), *called(400), *ended(441, finish="tool_calls")], CALLING),
    "no usage": ([*said(400), chunk({}, finish="stop"), b"data: [DONE]\n\n"], {}),
    "no end": (said(400), {}),
}


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("cap_nano", [150_000, 500_000])
async def test_whatever_it_says(tmp_path: Path, upstream: ScriptedUpstream, reply: str, cap_nano: int) -> None:
    events, asked = REPLIES[reply]
    upstream.source = Script.replay(b"".join(events))
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap_nano)}})) as live:
        answer = await live.chat(stream=True, task="t1", **asked)
        assert_cut(answer)
        assert shown_tokens(answer) in affordable_tokens(cap_nano)
        record = await live.client.decision(answer.request_id)
        assert record["cut"]["in_tool_call"] == ("tool" in reply)


PROMPT_OF_GEMINI = [{"role": "user", "parts": [{"text": "Tell me"}]}]
PATHS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"max_tokens": 2000},
    "/v1/responses": {"input": "Tell me a story.", "messages": None},
    "/v1beta/models/a:streamGenerateContent?alt=sse": {"contents": PROMPT_OF_GEMINI},
}


SHORT, LONG = 80, 400


@pytest.mark.parametrize("gemini", [False, True], ids=["chat", "to Gemini"])
async def test_a_choice_that_ends_earlier_ends_no_other(
    tmp_path: Path, upstream: ScriptedUpstream, gemini: bool
) -> None:
    cap_nano = 300_000
    first = [*(chunk({"content": f" s{number}"}) for number in range(SHORT)), chunk({}, finish="stop")]
    second = [*(chunk({"content": f" w{number}"}, 1) for number in range(LONG)), chunk({}, 1, "stop")]
    upstream.source = Script.replay(b"".join([*first, *second, *ended(SHORT + LONG)[1:]]))
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap_nano)}})) as live:
        if gemini:
            path = "/v1beta/models/a:streamGenerateContent?alt=sse"
            asked = {"contents": PROMPT_OF_GEMINI, "generationConfig": {"candidateCount": 2}}
            async with live.client.session.post(live.url + path, json=asked) as response:
                got = (await response.read()).decode()
        else:
            answer = await live.chat(stream=True, task="t1", n=2)
            assert (answer.error_code, answer.finishes) == ("budget_exceeded", ["stop"])
            got = answer.body.decode()
        words = re.findall(r'" [sw](\d+)"', got)
        assert len(words) in affordable_tokens(cap_nano)
        assert "out of budget" in got


@pytest.mark.parametrize("path", PATHS)
async def test_in_every_dialect(tmp_path: Path, upstream: ScriptedUpstream, path: str) -> None:
    cap_nano = 200_000
    upstream.source = Script.replay(b"".join([*said(400), *ended(400)]))
    body = {name: value for name, value in {"messages": PROMPT, **PATHS[path]}.items() if value is not None}
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap_nano)}})) as live:
        sent = {"model": "a", "stream": True, **body} if "Gen" not in path else body
        async with live.client.session.post(live.url + path, json=sent) as response:
            assert response.status == 200
            got = (await response.read()).decode()
        words = re.findall(r'" w(\d+)"', got.split("response.failed")[0])
        assert [int(word) for word in words] == list(range(len(words)))
        assert len(words) in affordable_tokens(cap_nano)
        assert "out of budget" in got


async def test_a_soft_cut_says_how_far_it_came(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    cap_nano = 200_000
    upstream.source = Script.replay(b"".join([*said(400), *ended(400)]))
    async with Live(tmp_path, policy({"a": upstream}, on_cut="length")) as live:
        for stream in (True, False):
            answer = await live.chat(stream=stream, max_cost_usd=usd(cap_nano))
            assert answer.status == 200
            text = answer.text if stream else answer.json["choices"][0]["message"]["content"]
            finishes = answer.finishes if stream else [answer.json["choices"][0]["finish_reason"]]
            assert (len(text.split()) in affordable_tokens(cap_nano), finishes) == (True, ["length"])


async def test_a_reply_that_costs_as_much_as_its_cap_is_whole(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    tokens = 95
    cap_nano = INPUT_TOKENS * INPUT_NANO + tokens * OUTPUT_NANO
    upstream.source = Script.replay(b"".join([*said(tokens), *ended(tokens)]))
    caps = {"task": {"max_cost_usd": usd(cap_nano)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        for task, asked in (("t1", {}), ("t2", {"max_cost_usd": usd(cap_nano)})):
            answer = await live.chat(stream=True, task=task, **asked)
            assert (answer.error, answer.finishes, shown_tokens(answer)) == (None, ["stop"], tokens)
            assert (await live.balance(f"task:{task}")).spent_nano == cap_nano


@pytest.mark.parametrize("own_cap", [False, True])
async def test_what_others_hold_or_have_spent_is_not_shown(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, own_cap: bool
) -> None:
    """Of all that come at once under one cap, no more is shown than it pays for."""
    cap_nano, calls = 400_000, 4
    asked: dict[str, Any] = {"max_cost_usd": usd(cap_nano - 1_000)} if own_cap else {}
    upstream.source = Script.replay(b"".join([*said(400), *ended(400)]))
    caps = {"task": {"max_cost_usd": usd(cap_nano)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        answers = await asyncio.gather(*(live.chat(stream=True, task="t1", **asked) for _ in range(calls)))
        shown = [answer for answer in answers if answer.status == 200]
        inputs_nano = len(shown) * INPUT_TOKENS * INPUT_NANO
        assert sum(map(shown_tokens, shown)) * OUTPUT_NANO + inputs_nano <= cap_nano
        assert all(answer.error_code == "budget_exceeded" for answer in answers)


@pytest.mark.parametrize("seed", range(16))
async def test_in_any_reads(tmp_path: Path, upstream: ScriptedUpstream, seed: int) -> None:
    """Nothing past the cap is shown, what is shown is the beginning, and all that came is charged."""
    rng = random.Random(seed)
    choices, tokens = rng.choice([1, 1, 2, 3]), rng.randint(10, 900)
    events = [*said(tokens, choices), *ended(tokens, choices)]
    if rng.random() < 0.3 and choices == 1:
        events, tokens = [*said(tokens), *called(200), *ended(tokens + 201, finish="tool_calls")], tokens + 201
    body, pieces = b"".join(events), list[Piece]()
    places = sorted({0, len(body), *(rng.randrange(len(body)) for _ in range(rng.choice([0, 0, 1, 3, 10])))})
    for start, end in itertools.pairwise(places):
        pieces += [Raw(body[start:end]), Pause(rng.choice([0, 0.003]))]
    upstream.source = Script(pieces=[*pieces, END], headers={"content-type": "text/event-stream"})
    cap_nano = rng.choice([110_000, 300_000, 1_000_000, 3_000_000])
    own = rng.random() < 0.5
    caps = {} if own else {"task": {"max_cost_usd": usd(cap_nano)}}
    asked: dict[str, Any] = {"max_cost_usd": usd(cap_nano)} if own else {}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps)) as live:
        answer = await live.chat(stream=True, task="t1", n=choices, **asked)
        spent_nano = (await live.balance("task:t1")).spent_nano
        cost_nano = INPUT_TOKENS * INPUT_NANO + tokens * OUTPUT_NANO
        words = [int(word) for word in re.findall(r'"content": " w(\d+)"', answer.body.decode())]
        assert words == list(range(len(words)))
        if answer.error is None:
            assert (spent_nano, shown_tokens(answer)) == (cost_nano, tokens)
            return
        assert_cut(answer)
        assert cost_nano > cap_nano
        assert spent_nano <= cost_nano + MOST_INPUT_TOKENS * INPUT_NANO
        assert shown_tokens(answer) <= affordable_tokens(cap_nano)[-1]
        if len(places) == 2:
            assert shown_tokens(answer) in affordable_tokens(cap_nano)
