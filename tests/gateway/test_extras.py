"""What a provider of Messages does not know of Claude Code's requests: left out, and asked once more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.gateway.attempt import MOST_MENDINGS
from tests.gateway.live import Live, policy, read
from tests.gateway.test_thoughts import MESSAGE, refusal
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

TEXT = {"type": "text", "text": "You are"}
SCOPED = {**TEXT, "cache_control": {"type": "ephemeral", "scope": "global"}}
MARKED = {**TEXT, "cache_control": {"type": "ephemeral"}}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
EDITS = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
BODY: dict[str, Any] = {
    "model": "a",
    "max_tokens": 50,
    "system": [SCOPED, TEXT, SCOPED],
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{**TOOL, "defer_loading": True}, TOOL],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "high"},
    "context_management": EDITS,
    "cache_control": {"type": "ephemeral", "ttl": "1h"},
}
BETAS = "claude-code-20250219,context-management-2025-06-27, effort-2025-11-24"


def extra(path: str) -> str:
    return f"{path}: Extra inputs are not permitted"


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    models = {"a": {"upstream_model": "claude-sonnet-5"}}
    async with Live(tmp_path, policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models)) as it:
        yield it


async def ask(live: Live, body: dict[str, Any], betas: str = BETAS) -> Any:
    headers = {"anthropic-beta": betas}
    async with live.client.session.post(f"{live.url}/v1/messages", json=body, headers=headers) as response:
        return await read(response)


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("context_management", {"context_management": None}),
        ("output_config", {"output_config": None}),
        ("system.0.cache_control.ephemeral.scope", {"system": [MARKED, TEXT, MARKED]}),
        ("tools.0.custom.defer_loading", {"tools": [TOOL, TOOL]}),
        ("cache_control", {"cache_control": None}),
        ("system.0.cache_control", {"system": [TEXT, TEXT, TEXT]}),
        ("cache_control.ephemeral.ttl", {"cache_control": {"type": "ephemeral"}}),
        ("thinking.adaptive.display", {"thinking": {"type": "adaptive"}}),
        (
            "messages.0.content.0.text.cache_control.ephemeral.scope",
            {"messages": [{"role": "user", "content": [MARKED]}]},
        ),
    ],
)
async def test_an_unknown_member_is_left_out(
    live: Live, upstream: ScriptedUpstream, path: str, changed: dict[str, Any]
) -> None:
    upstream.source = [refusal(extra(path)), MESSAGE]
    messages = [{"role": "user", "content": [SCOPED]}] if path.startswith("messages") else BODY["messages"]
    assert (await ask(live, {**BODY, "messages": messages})).status == 200
    first, second = upstream.requests
    expected = {name: value for name, value in {**first.body, **changed}.items() if value is not None}
    assert second.body == expected
    assert second.headers["anthropic-beta"] == BETAS


@pytest.mark.parametrize(("others", "left"), [([], None), ([{"type": "clear_tool_uses_20250919"}], 1)])
async def test_thinking_is_not_cleared_where_there_is_none(
    live: Live, upstream: ScriptedUpstream, others: list[dict[str, str]], left: int | None
) -> None:
    said = "`clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive"
    upstream.source = [refusal(said), MESSAGE]
    edits = {"edits": [*EDITS["edits"], *others], "x": 1}
    assert (await ask(live, {**BODY, "context_management": edits})).status == 200
    second = upstream.requests[1].body.get("context_management")
    assert second == (None if left is None else {"edits": others, "x": 1})
    upstream.source, upstream.requests[:] = refusal(said), []
    without = {name: value for name, value in BODY.items() if name != "context_management"}
    assert (await ask(live, without)).status == 400
    assert len(upstream.requests) == 1


async def test_one_after_the_other(live: Live, upstream: ScriptedUpstream) -> None:
    said = [extra("context_management"), extra("output_config"), extra("tools.1.custom.defer_loading")]
    upstream.source = [*map(refusal, said), MESSAGE]
    answer = await ask(live, BODY)
    assert answer.status == 200
    assert len(upstream.requests) == 4
    (attempt,) = await live.attempts(answer)
    assert attempt["left_out"] == ["context_management", "output_config", "tools.1.custom.defer_loading"]
    assert upstream.requests[-1].body.keys() == BODY.keys() - {"context_management", "output_config"}


async def test_not_for_ever(live: Live, upstream: ScriptedUpstream) -> None:
    """A provider that knows none of many, and names one at a time."""
    betas = [f"beta-{place}" for place in range(100)]
    unknown = iter(betas)
    upstream.source = lambda _: refusal(f"Unexpected value(s) `{next(unknown)}` {HEADER}")
    answer = await ask(live, BODY, ",".join(betas))
    assert (answer.status, len(upstream.requests)) == (400, 1 + MOST_MENDINGS)
    (attempt,) = await live.attempts(answer)
    assert (attempt["outcome"], attempt["cost_usd"]) == ("bad_request", 0)


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (b"Unexpected value(s) `\xff` for the `anthropic-beta` header", b"1"),
        (extra("metadata.scope").encode(), b"1e999"),
    ],
)
async def test_a_refusal_or_a_member_that_cannot_be_read_is_told(
    live: Live, upstream: ScriptedUpstream, message: bytes, number: bytes
) -> None:
    upstream.source = Script(
        status=400,
        body=b'{"type":"error","error":{"type":"invalid_request_error","message":"%b"}}' % message,
        headers={"content-type": "application/json"},
    )
    body = json.dumps({**BODY, "metadata": {"scope": 0}}).encode().replace(b'"scope": 0', b'"scope": %b' % number)
    headers = {"anthropic-beta": BETAS, "content-type": "application/json"}
    async with live.client.session.post(f"{live.url}/v1/messages", data=body, headers=headers) as response:
        assert (await read(response)).status == 400
    assert len(upstream.requests) == 1


EDITING, EFFORT = "context-management-2025-06-27", "effort-2025-11-24"
HEADER = "for the `anthropic-beta` header. Please consult our documentation"


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (f"Unexpected value(s) `{EDITING}` {HEADER}", "claude-code-20250219,effort-2025-11-24"),
        (f"Unexpected value(s) `{EFFORT}`, `{EDITING}` {HEADER}", "claude-code-20250219"),
        ("invalid beta flag", None),
    ],
)
async def test_an_unknown_beta_is_left_out(
    live: Live, upstream: ScriptedUpstream, message: str, left: str | None
) -> None:
    upstream.source = [refusal(message), MESSAGE]
    answer = await ask(live, BODY)
    assert answer.status == 200
    assert (await live.attempts(answer))[0]["left_out"] == ["anthropic-beta"]
    first, second = upstream.requests
    assert (first.headers["anthropic-beta"], second.headers.get("anthropic-beta")) == (BETAS, left)
    assert first.body == second.body


@pytest.mark.parametrize(
    "message",
    [
        extra("temprature"),
        extra("messages.0.foo"),
        extra("messages.0.scope"),
        extra("metadata.scope"),
        "Unexpected value(s) `other-2026` for the `anthropic-beta` header",
        "system: bad",
    ],
)
async def test_all_else_is_told(live: Live, upstream: ScriptedUpstream, message: str) -> None:
    upstream.source = refusal(message)
    answer = await ask(live, {**BODY, "temprature": 1})
    assert (answer.status, answer.json["error"]["message"]) == (400, message)
    assert len(upstream.requests) == 1


async def test_the_wanted_shape_of_the_answer_is_not_left_out(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = refusal(extra("output_config"))
    shape = {"type": "json_schema", "schema": {"type": "object"}}
    assert (await ask(live, {**BODY, "output_config": {"format": shape}})).status == 400
    assert len(upstream.requests) == 1
