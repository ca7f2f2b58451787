"""The official SDK reads what we write, sends what we read, and raises its own exceptions for our errors."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from google.genai import errors, types
from pydantic import BaseModel

from app.core.conversation import Conversation, Text, Thinking, ToolCall, ToolResult
from app.core.errors import (
    BadRequest,
    BudgetContended,
    BursarError,
    ModelNotFound,
    Unauthorized,
    UpstreamBusy,
    UpstreamError,
    UpstreamRejected,
)
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Event, Finished, Said, Thought
from app.core.types import ChatRequest
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.models import ModelFacts, models_list, one_model
from app.dialects.gemini.parse import count_reply, parse_count
from app.dialects.gemini.write import GeminiWriter
from app.gateway.verdict import of_status
from tests.dialects.gemini.exchange import COUNTS, SIGNATURE, client, denied, parsed, streamed, written

EVENTS: list[Event] = [
    Begin("r1", "claude"),
    Thought("hm", origin="anthropic"),
    Thought("", signature="c2lnbmVk", ends=True, origin="anthropic"),
    Said("Hel"),
    Said("lo"),
    CallBegins(0, "id0", "weather"),
    CallPiece(0, '{"place":"Par'),
    CallPiece(0, 'is"}'),
    CallEnds(0),
    CallBegins(1, "id1", "weather"),
    CallPiece(1, '{"place":"Rome"}'),
    CallEnds(1),
    Finished("tool_calls"),
]
MODEL = "gemini-2.5-pro"


def check(replies: list[types.GenerateContentResponse]) -> None:
    """What the SDK made of EVENTS."""
    parts = [part for reply in replies for part in (reply.candidates or [])[0].content.parts or []]  # type: ignore[union-attr]
    assert "".join(part.text or "" for part in parts if part.thought) == "hm"
    assert "".join(part.text or "" for part in parts if not part.thought) == "Hello"
    calls = [part.function_call for part in parts if part.function_call]
    assert [(call.id, call.name, call.args) for call in calls] == [
        ("id0", "weather", {"place": "Paris"}),
        ("id1", "weather", {"place": "Rome"}),
    ]
    last = replies[-1]
    assert last.candidates
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata is not None
    assert (last.usage_metadata.prompt_token_count, last.usage_metadata.thoughts_token_count) == (10, 2)
    assert (last.usage_metadata.candidates_token_count, last.usage_metadata.total_token_count) == (5, 17)
    assert (last.response_id, last.model_version) == ("r1", "claude")


def test_a_stream() -> None:
    check(list(client(written(streamed(), EVENTS)).models.generate_content_stream(model=MODEL, contents="Hi")))


def test_a_stream_in_single_bytes() -> None:
    body = written(streamed(), EVENTS)
    slow = client([bytes([byte]) for byte in body])
    check(list(slow.models.generate_content_stream(model=MODEL, contents="Hi")))


def test_a_whole_reply() -> None:
    body = DIALECT.whole(parsed(), EVENTS, COUNTS, None)
    check([client(body).models.generate_content(model=MODEL, contents="Hi")])


async def test_the_asynchronous_client() -> None:
    body = written(streamed(), EVENTS)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    options = types.HttpOptions(httpx_async_client=httpx.AsyncClient(transport=transport))
    from google import genai

    stream = await genai.Client(
        api_key="unused", vertexai=False, http_options=options
    ).aio.models.generate_content_stream(model=MODEL, contents="Hi")
    check([reply async for reply in stream])


def test_a_cut_is_the_sdks_client_error_and_no_more_is_asked() -> None:
    writer = GeminiWriter(streamed())
    pieces = [writer.write(EVENTS[:5]), writer.cut(denied(), COUNTS)]
    asked: list[httpx.Request] = []
    stream = client(pieces, seen=asked.append).models.generate_content_stream(model=MODEL, contents="Hi")
    said: list[str | None] = []
    with pytest.raises(errors.ClientError) as caught:
        said.extend(reply.text for reply in stream)
    assert said[-1] == "Hello"
    assert (caught.value.code, caught.value.status) == (402, "FAILED_PRECONDITION")
    assert caught.value.message == denied().message
    assert len(asked) == 1


def test_a_dead_upstream_is_the_sdks_server_error() -> None:
    writer = GeminiWriter(streamed())
    pieces = [writer.write(EVENTS[:5]), writer.broken(UpstreamError("The provider's stream ended early."))]
    with pytest.raises(errors.ServerError) as caught:
        list(client(pieces).models.generate_content_stream(model=MODEL, contents="Hi"))
    assert (caught.value.code, caught.value.status) == (502, "UNAVAILABLE")


def test_a_soft_cut_reads_as_the_output_limit() -> None:
    writer = GeminiWriter(streamed())
    body = writer.write(EVENTS[:5]) + writer.cut_softly(b'{"reason":"cost"}', COUNTS)
    *_, last = client(body).models.generate_content_stream(model=MODEL, contents="Hi")
    assert last.candidates
    assert last.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (denied(), 402, "FAILED_PRECONDITION"),
        (BadRequest("The parameter contents is required.", param="contents"), 400, "INVALID_ARGUMENT"),
        (Unauthorized("No such key."), 401, "UNAUTHENTICATED"),
        (ModelNotFound("No such model."), 404, "NOT_FOUND"),
        (BudgetContended("Wait."), 429, "RESOURCE_EXHAUSTED"),
        (UpstreamBusy("Busy."), 429, "RESOURCE_EXHAUSTED"),
        (UpstreamError("Dead."), 502, "UNAVAILABLE"),
        (BursarError("Ours."), 500, "INTERNAL"),
        (UpstreamRejected("No.", upstream_status=413, body=b'{"message":"No.","code":null}'), 413, "INVALID_ARGUMENT"),
    ],
)
def test_errors_before_the_stream(error: BursarError, code: int, status: str) -> None:
    number, body = DIALECT.error_reply(error)
    assert number == code
    kind = errors.ClientError if code < 500 else errors.ServerError
    with pytest.raises(kind) as caught:
        client(body, number).models.generate_content(model=MODEL, contents="Hi")
    assert (caught.value.code, caught.value.status, caught.value.message) == (code, status, error.message)
    with pytest.raises(kind):
        list(client(body, number).models.generate_content_stream(model=MODEL, contents="Hi"))


def test_the_denial_is_the_contracts() -> None:
    status, body = DIALECT.error_reply(denied())
    expected = {"error": {"code": 402, "message": denied().message, "status": "FAILED_PRECONDITION"}}
    assert (status, json.loads(body)) == (402, expected)


REFUSED = {"code": 400, "message": "Bad schema.", "status": "INVALID_ARGUMENT"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"error": REFUSED | {"details": [{"reason": "X"}]}}, REFUSED | {"details": [{"reason": "X"}]}),
        ({"error": REFUSED | {"status": "OUT_OF_RANGE"}}, REFUSED | {"status": "OUT_OF_RANGE"}),
        ([{"error": REFUSED}], REFUSED),
        ({"error": {"message": "Bad schema.", "type": "t", "param": "tools", "code": "c"}}, REFUSED),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "Bad schema."}}, REFUSED),
        ({"error": "Bad schema."}, REFUSED),
        ({"detail": "Bad schema."}, REFUSED),
        ("?", REFUSED | {"message": "The provider refused the request."}),
    ],
)
def test_what_a_rejecting_upstream_said_goes_on(said: Any, expected: dict[str, Any]) -> None:
    """As the gateway judges its reply."""
    rejected = of_status(400, {}, json.dumps(said).encode(), 0.0).error
    status, body = DIALECT.error_reply(rejected)
    assert (status, json.loads(body)) == (400, {"error": expected})


def test_the_parameter_at_fault_stands_in_the_details() -> None:
    error = json.loads(DIALECT.error_reply(BadRequest("Wrong.", param="contents[0]"))[1])["error"]
    assert error["details"][0]["fieldViolations"] == [{"field": "contents[0]", "description": "Wrong."}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED"}}, ("Slow.", "RESOURCE_EXHAUSTED")),
        ([{"error": {"message": "Slow."}}], ("Slow.", "")),
        (
            {
                "error": {
                    "message": "API key not valid.",
                    "status": "INVALID_ARGUMENT",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
                        5,
                    ],
                }
            },
            ("API key not valid.", "INVALID_ARGUMENT API_KEY_INVALID"),
        ),
        ({"message": "x"}, None),
        ({"error": "x"}, None),
        ([], None),
    ],
)
def test_errors_of_upstreams(body: Any, expected: Any) -> None:
    assert DIALECT.error_object(json.dumps(body).encode()) == expected
    assert DIALECT.error_object(b"<html>") is None


def asked(call: Any) -> tuple[ChatRequest, Conversation]:
    """What the SDK sends for this call, read by us."""
    seen: list[httpx.Request] = []
    call(client(written(streamed(), EVENTS), seen=seen.append))
    return _read(seen[0])


def _read(request: httpx.Request) -> tuple[ChatRequest, Conversation]:
    model, _, verb = unquote(request.url.path).rpartition("/models/")[2].rpartition(":")
    path = {"model": model, "verb": verb, **dict(request.url.params)}
    parsed_request = DIALECT.parse(request.content, dict(request.headers), path)
    return parsed_request, DIALECT.conversation(parsed_request)


class Recipe(BaseModel):
    """A shape of an answer."""

    name: str
    steps: list[str] | None = None


def test_what_the_sdk_sends() -> None:
    config = types.GenerateContentConfig(
        system_instruction="Be kind.",
        temperature=0.5,
        max_output_tokens=50,
        stop_sequences=["END"],
        response_mime_type="application/json",
        response_schema=Recipe,
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=1024),
        tools=[
            types.Tool(
                function_declarations=[
                    types.FunctionDeclaration(
                        name="weather",
                        parameters=types.Schema(
                            type=types.Type.OBJECT, properties={"place": types.Schema(type=types.Type.STRING)}
                        ),
                    )
                ]
            )
        ],
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
        ),
    )
    picture = types.Part.from_bytes(data=b"\xff\xfe\xfd", mime_type="image/png")
    request, talk = asked(
        lambda sdk: list(sdk.models.generate_content_stream(model=MODEL, contents=["See", picture], config=config))
    )
    assert (request.model, request.stream, request.array, request.output_limit) == (MODEL, True, False, 50)
    assert request.prompt.images == 1
    assert [message.role for message in talk.messages] == ["system", "user"]
    assert talk.messages[1].parts[1].data == "//79"  # type: ignore[union-attr]
    assert json.loads(bytes(talk.tools[0].schema or b"")) == {
        "type": "object",
        "properties": {"place": {"type": "string"}},
    }
    assert talk.shape is not None
    assert json.loads(bytes(talk.shape.schema or b""))["properties"]["steps"]["type"] == ["array", "null"]
    assert (talk.tool_choice, talk.think_tokens, talk.show_thoughts, talk.stop) == ("required", 1024, True, ["END"])
    assert talk.dropped == []


def test_the_sdks_chat_brings_back_what_we_wrote() -> None:
    """Calls keep their ids, results find them, and Anthropic's signature returns to Anthropic."""
    seen: list[httpx.Request] = []
    chat = client(written(streamed(), EVENTS), seen=seen.append).chats.create(model=MODEL)
    list(chat.send_message_stream("Hi"))
    answers: list[Any] = [
        types.Part.from_function_response(name="weather", response={"output": "sun"}) for _ in range(2)
    ]
    list(chat.send_message_stream(answers))
    _, talk = _read(seen[1])
    assert talk.messages[1].parts[:2] == [Thinking("hm", signature="c2lnbmVk", origin="anthropic"), Text("Hello")]
    calls = [part for part in talk.messages[1].parts if isinstance(part, ToolCall)]
    assert [(call.id, json.loads(call.arguments)) for call in calls] == [
        ("id0", {"place": "Paris"}),
        ("id1", {"place": "Rome"}),
    ]
    assert [part.id for part in talk.messages[2].parts if isinstance(part, ToolResult)] == ["id0", "id1"]


def test_geminis_signature_comes_back_in_either_alphabet() -> None:
    seen: list[httpx.Request] = []
    events: list[Event] = [CallBegins(0, "id0", "weather", signature=SIGNATURE), CallEnds(0), Finished("tool_calls")]
    chat = client(written(streamed(), events), seen=seen.append).chats.create(model=MODEL)
    list(chat.send_message_stream("Hi"))
    list(chat.send_message_stream("Well?"))
    _, talk = _read(seen[1])
    assert [part.signature for part in talk.messages[1].parts if isinstance(part, ToolCall)] == [SIGNATURE]


def test_models_and_token_counts() -> None:
    facts = [ModelFacts("gemini-2.5-pro", 1_048_576, 65_536), ModelFacts("route/cheap", None, None)]
    models = list(client(models_list(facts)).models.list())
    assert [(m.name, m.input_token_limit, m.output_token_limit) for m in models] == [
        ("models/gemini-2.5-pro", 1_048_576, 65_536),
        ("models/route/cheap", None, None),
    ]
    assert client(one_model(facts[0])).models.get(model=MODEL).display_name == "gemini-2.5-pro"
    seen: list[httpx.Request] = []
    counted = client(count_reply(12), seen=seen.append).models.count_tokens(model=MODEL, contents="Hello")
    assert counted.total_tokens == 12
    assert parse_count(seen[0].content, {"model": MODEL, "verb": "countTokens"}).prompt.last_user == "Hello"
