"""The official SDK reads what clients of Responses are sent."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseCustomToolCall, ResponseFunctionToolCall
from pydantic import BaseModel

from app.core.errors import BadRequest, BudgetContended, BursarError, ModelNotFound, Unauthorized, UpstreamError
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Event, Finished, Said, Thought
from app.core.types import ChatRequest
from app.dialects.openai_responses.dialect import DIALECT
from tests.dialects.openai_responses.replies import COUNTS, OUT

FIND: Any = {"type": "function", "name": "find", "strict": True, "parameters": {"type": "object", "properties": {}}}
NOTES: Any = {
    "type": "namespace",
    "name": "notes",
    "description": "d",
    "tools": [{"type": "custom", "name": "add"}],
}
SAID: list[Event] = [Begin("x", "deep-1", 17), Thought("hm", ends=True), Said('{"answer": '), Said("42}")]
CALLED: list[Event] = [
    Begin("x", "deep-1", 17),
    CallBegins(0, "a", "find"),
    CallPiece(0, "{}"),
    CallBegins(1, "b", "notes__add"),
    CallPiece(1, '{"input": "x\\ny"}'),
    CallEnds(0),
    CallEnds(1),
]


def client_of(events: list[Event], finish: str = "stop", end: str = "complete") -> OpenAI:
    """A client whose server answers any request with these events."""

    def answer(sent: httpx.Request) -> httpx.Response:
        request = DIALECT.parse(sent.read(), {}, {})
        if not request.stream:
            return httpx.Response(200, content=DIALECT.whole(request, [*events, Finished(finish)], COUNTS, None))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream(request))

    def stream(request: ChatRequest) -> bytes:
        writer = DIALECT.writer(request)
        ends = {
            "complete": lambda: writer.complete([Finished(finish)], COUNTS, []),
            "cut": lambda: writer.cut(OUT, COUNTS),
            "soft": lambda: writer.cut_softly(b"{}", COUNTS),
            "broken": lambda: writer.broken(UpstreamError("gone")),
        }
        return writer.write(events) + ends[end]()

    return made(answer)


def made(answer: Any) -> OpenAI:
    transport = httpx.MockTransport(answer)
    return OpenAI(api_key="k", base_url="http://g/v1", http_client=httpx.Client(transport=transport), max_retries=0)


class Answer(BaseModel):
    answer: int


def test_a_whole_reply() -> None:
    response = client_of(SAID).responses.create(model="m", input="hi")
    assert response.output_text == '{"answer": 42}'
    assert (response.model, response.status, response.created_at) == ("deep-1", "completed", 17)
    assert response.usage
    assert (response.usage.input_tokens_details.cached_tokens, response.usage.total_tokens) == (8, 27)
    assert response.usage.model_extra == {"cost": 0.0000015}


def test_a_structured_reply() -> None:
    response = client_of(SAID).responses.parse(model="m", input="hi", text_format=Answer)
    assert response.output_parsed == Answer(answer=42)


def test_a_stream() -> None:
    with client_of(SAID).responses.stream(model="m", input="hi", text_format=Answer) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("response.output_text.delta") == 2
    assert final.output_parsed == Answer(answer=42)
    assert final.output[0].type == "reasoning"


def test_tools_stream_and_not() -> None:
    client = client_of(CALLED, "tool_calls")
    whole = client.responses.create(model="m", input="hi", tools=[FIND, NOTES])
    with client.responses.stream(model="m", input="hi", tools=[FIND, NOTES]) as stream:
        streamed = stream.until_done().get_final_response()
    for response in (whole, streamed):
        first, second = response.output
        assert isinstance(first, ResponseFunctionToolCall)
        assert (first.name, first.arguments, first.call_id) == ("find", "{}", "a")
        assert isinstance(second, ResponseCustomToolCall)
        assert (second.namespace, second.name, second.input) == ("notes", "add", "x\ny")


@pytest.mark.parametrize(("finish", "end", "code"), [("length", "complete", None), ("stop", "soft", None)])
def test_an_incomplete_stream(finish: str, end: str, code: None) -> None:
    events = list(client_of(SAID, finish, end).responses.create(model="m", input="hi", stream=True))
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details
    assert (last.response.incomplete_details.reason, last.response.error) == ("max_output_tokens", code)


@pytest.mark.parametrize(("end", "code"), [("cut", "budget_exceeded"), ("broken", "upstream_error")])
def test_a_failed_stream_is_raised(end: str, code: str) -> None:
    """By the SDK itself, for what is built on it often reads on past `response.failed` (Pydantic AI, LangChain.js)."""
    with pytest.raises(openai.APIError) as raised:
        list(client_of(SAID, end=end).responses.create(model="m", input="hi", stream=True))
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OUT, openai.BadRequestError),
        (BadRequest("The parameter model is required.", param="model"), openai.BadRequestError),
        (Unauthorized("No key."), openai.AuthenticationError),
        (ModelNotFound("None."), openai.NotFoundError),
        (BudgetContended("Wait."), openai.RateLimitError),
        (UpstreamError("Gone."), openai.InternalServerError),
    ],
)
def test_errors_are_the_sdks_own(error: BursarError, kind: type[openai.APIStatusError]) -> None:
    status, body = DIALECT.error_reply(error)
    with pytest.raises(kind) as raised:
        made(lambda _: httpx.Response(status, content=body)).responses.create(model="m", input="hi")
    assert (raised.value.code, raised.value.type, raised.value.param) == (error.code, error.type, error.param)
