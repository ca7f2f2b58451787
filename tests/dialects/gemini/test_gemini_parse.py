"""Gemini requests: the path says model and verb, names come in two spellings, bad input names its parameter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.errors import BadRequest, ModelNotFound, NotFound
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.parse import count_reply, parse_count
from tests.dialects.gemini.exchange import USER, WEATHER, parsed

PATH = {"model": "gemini-2.5-pro", "verb": "generateContent"}


def fault(body: bytes, path: dict[str, str] = PATH) -> tuple[str | None, str]:
    """The parameter and message of the refusal."""
    with pytest.raises(BadRequest) as caught:
        DIALECT.parse(body, {}, path)
    return caught.value.param, caught.value.message


def wrong(**members: Any) -> str | None:
    """The parameter named in the refusal of a request with these members."""
    return fault(json.dumps({"contents": [USER], **members}).encode())[0]


def test_a_plain_request() -> None:
    request = parsed()
    assert (request.model, request.stream, request.array, request.choices) == ("gemini-2.5-pro", False, False, 1)
    assert (request.output_limit, request.limit_fields, request.max_cost_nano, request.task_id) == (
        None,
        (),
        None,
        None,
    )
    assert (request.dialect, request.show_usage) == ("gemini", True)
    assert bytes(request.members["contents"]) == json.dumps([USER]).encode()


@pytest.mark.parametrize(("alt", "array"), [("sse", False), ("", True), ("json", True)])
def test_a_stream_is_an_array_unless_it_is_asked_for_as_events(alt: str, array: bool) -> None:
    request = parsed(verb="streamGenerateContent", alt=alt)
    assert (request.stream, request.array) == (True, array)


def test_the_model_stands_in_the_path() -> None:
    assert parsed(model="models/gemini-3-flash").model == "gemini-3-flash"
    assert parsed(model="tunedModels/mine").model == "tunedModels/mine"
    body = json.dumps({"contents": [USER]}).encode()
    assert fault(body, {"verb": "generateContent"})[0] == "model"
    with pytest.raises(ModelNotFound):
        DIALECT.parse(body, {}, {"model": "x" * 300})
    with pytest.raises(NotFound):
        DIALECT.parse(body, {}, {"model": "m", "verb": "embedContent"})


@pytest.mark.parametrize("snake", [False, True])
def test_both_spellings_are_read(snake: bool) -> None:
    config = {
        ("max_output_tokens" if snake else "maxOutputTokens"): 50,
        ("candidate_count" if snake else "candidateCount"): 3,
        ("response_mime_type" if snake else "responseMimeType"): "application/json",
        ("thinking_config" if snake else "thinkingConfig"): {("thinking_level" if snake else "thinkingLevel"): "HIGH"},
    }
    picture = {("inline_data" if snake else "inlineData"): {"mimeType": "image/png", "data": "AAAA" * 500}}
    members: dict[str, Any] = {
        ("generation_config" if snake else "generationConfig"): config,
        ("system_instruction" if snake else "systemInstruction"): {"parts": [{"text": "Be kind."}]},
        "tools": [{("function_declarations" if snake else "functionDeclarations"): [WEATHER, WEATHER]}],
    }
    request = parsed(contents=[{"parts": [{"text": "What is it?"}, picture]}], **members)
    prompt = request.prompt
    assert (request.output_limit, request.choices) == (50, 3)
    assert (prompt.system, prompt.last_user, prompt.reasoning_effort) == ("Be kind.", "What is it?", "high")
    assert (prompt.images, prompt.attachments, prompt.tools) == (1, 1, 2)
    assert (prompt.wants_json, prompt.wants_schema) == (True, False)
    assert prompt.text_bytes < 900  # the picture is no text


def test_a_lone_object_stands_for_a_list() -> None:
    request = parsed(contents={"parts": {"text": "Hi"}}, tools={"functionDeclarations": WEATHER})
    assert (request.prompt.last_user, request.prompt.messages, request.prompt.tools) == ("Hi", 1, 1)


def test_the_prompt_of_a_tool_loop() -> None:
    called = {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"place": "Rome"}}}]}
    answered = {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"output": "sun"}}}]}
    prompt = parsed(contents=[USER, called, answered], systemInstruction="Short.").prompt
    assert prompt.in_tool_loop
    assert (prompt.first_user, prompt.last_user, prompt.turns, prompt.system) == ("Hello", "Hello", 3, "Short.")
    assert prompt.history_chars > 60
    assert not parsed(contents=[USER, called, answered, USER]).prompt.in_tool_loop


def test_what_is_ours() -> None:
    request = parsed(max_cost_usd="0.25", metadata={"task_id": "t1"})
    assert (request.max_cost_nano, request.task_id) == (250_000_000, "t1")


def test_null_is_absent() -> None:
    request = parsed(generationConfig=None, tools=None, systemInstruction=None, metadata=None)
    assert (request.output_limit, request.prompt.tools, request.prompt.system) == (None, 0, "")
    config = {"maxOutputTokens": None, "thinkingConfig": None, "responseMimeType": None}
    assert parsed(generationConfig=config).limit_fields == ()


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"contents": []}, "contents"),
        ({"contents": "Hi"}, "contents"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"generationConfig": 5}, "generationConfig"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 2**40}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"candidateCount": 9}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"candidate_count": "two"}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"thinkingConfig": []}}, "generationConfig.thinkingConfig"),
        ({"tools": ["weather"]}, "tools[0]"),
        ({"tools": 5}, "tools"),
        ({"max_cost_usd": "much"}, "max_cost_usd"),
        ({"metadata": {"task_id": "a|b"}}, "metadata.task_id"),
    ],
)
def test_bad_input_names_the_parameter(members: dict[str, Any], param: str) -> None:
    assert wrong(**members) == param


def test_what_is_no_request() -> None:
    assert fault(b"{}") == ("contents", "The parameter contents is required.")
    assert fault(b"[]")[1] == "The body must be a JSON object."
    assert fault(b'{"contents":[')[1] == "The body is not valid JSON."
    assert fault(b'{"contents":' + b"[" * 100_000)[1]


def test_tokens_are_counted_of_contents_or_of_a_whole_request() -> None:
    path = {"model": "gemini-2.5-pro", "verb": "countTokens"}
    plain = parse_count(json.dumps({"contents": [USER]}).encode(), path)
    inner = {
        "model": "models/gemini-2.5-pro",
        "contents": [USER],
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
    }
    whole = parse_count(json.dumps({"generateContentRequest": inner}).encode(), path)
    assert plain.prompt.last_user == whole.prompt.last_user == "Hello"
    assert whole.prompt.text_bytes > plain.prompt.text_bytes
    assert count_reply(12) == b'{"totalTokens":12}'
    with pytest.raises(BadRequest, match="must be a JSON object"):
        parse_count(b'{"generateContentRequest":5}', path)
