"""Whatever comes in, nothing but the dialect's own errors comes out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadRequest, BursarError
from app.core.sse import Frame
from app.dialects.base import BadEvent
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.proof import MARKED
from app.dialects.gemini.schema import json_schema
from app.dialects.gemini.write import GeminiWriter
from tests.dialects.gemini.exchange import COUNTS, SIGNATURE, WEATHER, streamed
from tests.dialects.gemini.test_gemini_parse import PATH, fault

CALL = {"functionCall": {"id": "a", "name": "weather", "args": {"place": "Rome"}}}
REQUEST: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "Hi"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": SIGNATURE}]},
        {"role": "model", "parts": [CALL | {"thoughtSignature": SIGNATURE}, CALL]},
        {"parts": [{"functionResponse": {"id": "a", "name": "weather", "response": {"output": "sun"}, "parts": []}}]},
        {"role": "model", "parts": [{"text": "", "thought": True, "thoughtSignature": MARKED.decode()}]},
        {"parts": [{"fileData": {"fileUri": "https://e.org/x", "mimeType": "image/png"}}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be kind."}]},
    "tools": [
        {
            "functionDeclarations": [
                WEATHER,
                {"name": "old", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}},
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
    "generationConfig": {
        "topK": 3,
        "stopSequences": ["E"],
        "candidateCount": 1,
        "maxOutputTokens": 5,
        "responseSchema": {"type": "STRING", "nullable": True},
        "responseModalities": ["TEXT"],
        "thinkingConfig": {"thinkingBudget": 5, "thinkingLevel": "LOW", "includeThoughts": True},
    },
    "metadata": {"task_id": "t"},
}
CHUNK: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "hm", "thought": True, "thoughtSignature": SIGNATURE},
                    {"functionCall": {"id": "a", "name": "f", "args": {"a": 1}}},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                ],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
            "groundingMetadata": {},
        }
    ],
    "promptFeedback": {"blockReason": "OTHER"},
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 5, "cost": 0.5},
    "responseId": "r",
    "modelVersion": "m",
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(
        [[], {}, [[]], [{}], {"a": 1}, [None], {"text": 1}, "STOP", "SAFETY", "https://[", "YnVyc2FyLXByb29m"]
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    """The value with another one at this place."""
    if not path:
        return to
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], to)
    return copy


@given(st.sampled_from(places(REQUEST)), VALUES)
def test_requests(place: tuple[Any, ...], value: Any) -> None:
    with contextlib.suppress(BursarError):
        request = DIALECT.parse(json.dumps(changed(REQUEST, place, value)).encode(), {}, PATH)
        try:
            json.loads(DIALECT.patch(request, model="gemini-3-x", limit_tokens=9, stream=True).body)
        except BursarError as error:
            raise AssertionError("what was parsed can be patched") from error
        talk = DIALECT.conversation(request)
        json.loads(DIALECT.render(request, talk, model="gemini-3-x", limit_tokens=9, stream=True).body)


@given(st.sampled_from(places(CHUNK)), VALUES)
def test_replies(place: tuple[Any, ...], value: Any) -> None:
    reader, writer = DIALECT.reader(), GeminiWriter(streamed())
    data = json.dumps(changed(CHUNK, place, value)).encode()
    with contextlib.suppress(BadEvent):
        events = reader.read(Frame(b"data: " + data + b"\n\n", data))
        writer.write(events)
        DIALECT.whole(streamed(), DIALECT.reader().whole(data), COUNTS, None)
        writer.passed(Frame(b"", data), events)
        writer.complete([], COUNTS, [Frame(b"", data)])


@pytest.mark.parametrize(
    "part",
    [
        b'{"functionCall":{"name":"f","args":{"x":"\xff"}}}',
        b'{"text":"\xff"}',
        b'{"inlineData":{"mimeType":"image/png","data":"\xff"}}',
    ],
)
def test_what_is_no_text(part: bytes) -> None:
    body = b'{"contents":[{"parts":[%b]}]}' % part
    with pytest.raises(BadRequest, match="not valid JSON"):
        DIALECT.conversation(DIALECT.parse(body, {}, PATH))


def test_responses_that_are_no_text() -> None:
    body = (
        b'{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f"}}]},'
        b'{"parts":[{"functionResponse":{"name":"f","response":{"output":"\xff"}}}]}]}'
    )
    with pytest.raises(BursarError, match="not valid JSON"):
        DIALECT.conversation(DIALECT.parse(body, {}, PATH))
    assert fault(b'{"contents":[{"parts":[{"text":"x"}]}],"systemInstruction":"\xff"}')[0] == "systemInstruction"


SCHEMA = {
    "type": "OBJECT",
    "properties": {"type": {"anyOf": [{"type": "STRING"}]}, "b": {"type": ["ARRAY"], "items": {"enum": ["x"]}}},
    "nullable": True,
    "minItems": "1",
}


@given(st.sampled_from(places(SCHEMA)[1:]), VALUES)
def test_a_converted_schema_is_json_schema_and_stays(place: tuple[Any, ...], value: Any) -> None:
    schema = changed(SCHEMA, place, value)
    try:
        once = json_schema(msgspec.Raw(json.dumps(schema).encode()), "parameters")
    except BursarError:
        return
    assert json_schema(once, "parameters") == once


def test_pictures_in_results_are_no_text() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "A" * 50_000}}
    response = {"name": "f", "response": {"output": "seen"}, "parts": [picture]}
    turns = [
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": response}]},
    ]
    prompt = DIALECT.parse(json.dumps({"contents": turns}).encode(), {}, PATH).prompt
    assert (prompt.images, prompt.attachments) == (1, 1)
    assert prompt.text_bytes < 400
