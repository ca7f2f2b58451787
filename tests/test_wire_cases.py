"""The wire cases agree with themselves: an independent reader finds in each body what its expectation says."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script
from tests.wire_cases import WIRE, WireCase, stream_cases, whole_cases, wire_case, wire_cases

PROVIDERS = {
    "anthropic", "azure", "deepseek", "framing", "gemini", "groq", "llamacpp", "mistral", "ollama", "openai",
    "openrouter", "sglang", "together", "vllm",
}  # fmt: skip


def test_every_file_belongs_to_a_case_and_every_provider_has_one() -> None:
    bodies = {f.name.split(".")[0] for f in WIRE.iterdir() if f.name.endswith((".sse", ".body.json"))}
    assert bodies == {case.name for case in wire_cases()}
    assert {case.name.split("_")[0] for case in wire_cases()} == PROVIDERS
    assert wire_case("llamacpp_plain").recorded
    assert not wire_case("openai_plain").recorded


@pytest.mark.parametrize("case", stream_cases(), ids=repr)
def test_streams_say_what_is_expected(case: WireCase) -> None:
    events = _events(case.body)
    assert ("[DONE]" in events) == case.done
    chunks = [json.loads(e) for e in (events[: events.index("[DONE]")] if case.done else events)]
    said: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk.get("choices", []):
            into = said.setdefault(choice["index"], {"calls": {}, "finish": None})
            _add(into, choice.get("delta", {}))
            into["finish"] = choice.get("finish_reason") or into["finish"]
    _compare(case, said)
    assert {c["model"] for c in chunks if c.get("model")} == {case.model}
    assert [c["error"] for c in chunks if "error" in c] == ([] if case.error is None else [_full(case, chunks)])
    reports = [c.get("usage") or (c.get("x_groq") or {}).get("usage") for c in chunks]
    _compare_usage(case, next((r for r in reversed(reports) if r), None))


@pytest.mark.parametrize("case", whole_cases(), ids=repr)
def test_bodies_say_what_is_expected(case: WireCase) -> None:
    body = json.loads(case.body)
    said: dict[int, dict[str, Any]] = {}
    for choice in body.get("choices", []):
        into = said.setdefault(choice["index"], {"calls": {}, "finish": choice["finish_reason"]})
        _add(into, choice["message"])
    _compare(case, said)
    assert body.get("model") == case.model
    assert (case.status == 200) == (case.error is None)
    _compare_usage(case, body.get("usage"))


# openai-python keeps the last `id:` and then takes each comment for an event without data: it fails on this one.
READABLE = [case for case in stream_cases() if case.error is None and case.name != "framing_crlf"]


@pytest.mark.parametrize("case", READABLE, ids=repr)
def test_the_official_sdk_reads_the_streams(case: WireCase) -> None:
    with ScriptedUpstream(Script.replay(case.body, case.content_type, segment=7)) as upstream:
        client = openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0)
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))
    finishes = {c.index: c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason}
    assert finishes == {index: choice.finish for index, choice in case.choices.items()}


def _events(body: bytes) -> list[str]:
    """The data of each event, by splitting text: slow, simple, and no kin of the gateway's parser."""
    lines = body.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    events, data = [], []
    for line in [*lines, ""]:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            events.append("\n".join(data))
            data = []
    return events


def _add(into: dict[str, Any], delta: dict[str, Any]) -> None:
    content = delta.get("content") or ""
    parts: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
    for part in parts:
        thought = "".join(t["text"] for t in part.get("thinking", []))
        into["text"] = into.get("text", "") + part.get("text", "")
        into["reasoning"] = into.get("reasoning", "") + thought
    into["reasoning"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
    into["refusal"] = into.get("refusal", "") + (delta.get("refusal") or "")
    for call in delta.get("tool_calls") or []:
        kept = into["calls"].setdefault(call.get("index", call.get("id")), ["", "", ""])
        kept[0] = call.get("id") or kept[0]
        kept[1] = call["function"].get("name") or kept[1]
        kept[2] += call["function"].get("arguments", "")
    function = delta.get("function_call") or {}
    name, arguments = into.get("function", ("", ""))
    into["function"] = (function.get("name") or name, arguments + function.get("arguments", ""))
    for key, value in (delta.get("audio") or {}).items():
        audio = into.setdefault("audio", {"id": "", "data": "", "transcript": ""})
        audio[key] = value if key == "id" else audio.get(key, "") + str(value)


def _compare(case: WireCase, said: dict[int, dict[str, Any]]) -> None:
    assert set(said) == set(case.choices)
    for index, expected in case.choices.items():
        got = said[index]
        assert (got["text"], got["reasoning"], got["refusal"]) == (expected.text, expected.reasoning, expected.refusal)
        assert [tuple(c) for c in got["calls"].values()] == [(c.id, c.name, c.arguments) for c in expected.tool_calls]
        assert got["finish"] == expected.finish
        assert got["function"] == (expected.function_call or ("", ""))
        assert {k: got["audio"][k] for k in expected.audio} == expected.audio if expected.audio else "audio" not in got


def _compare_usage(case: WireCase, report: dict[str, Any] | None) -> None:
    if case.usage is None or report is None:
        assert case.usage is None
        assert report is None
        return
    details = report.get("prompt_tokens_details") or {}
    assert case.usage.input == report["prompt_tokens"]
    assert case.usage.output == report["total_tokens"] - report["prompt_tokens"]
    assert case.usage.cached == details.get("cached_tokens", report.get("prompt_cache_hit_tokens", 0))
    thought = (report.get("completion_tokens_details") or {}).get("reasoning_tokens", report.get("reasoning_tokens", 0))
    assert case.usage.reasoning == thought or case.usage.output - report["completion_tokens"] == case.usage.reasoning
    assert case.cost_usd == (str(report["cost"]) if "cost" in report else None)


def _full(case: WireCase, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The one error on the wire, once what is expected of it has been checked."""
    error: dict[str, Any] = next(c["error"] for c in chunks if "error" in c)
    assert case.error is not None
    assert {k: error[k] for k in case.error} == case.error
    return error
