"""The official Python SDK against bytes that this dialect writes: every reply, end and error is read as its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest
from pydantic import BaseModel

from app.core.errors import (
    BadRequest,
    BudgetExceeded,
    BursarError,
    Draining,
    Forbidden,
    ModelNotFound,
    TooLarge,
    Unauthorized,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Done, Event, Finished, Said, Thought
from app.core.money import Usage
from app.dialects.anthropic.count import count_reply
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.anthropic.parse import parse_count
from app.dialects.base import Counts
from app.dialects.openai_chat.errors import budget_error, budget_message
from tests.dialects.anthropic.texts import end, start, text, thinking, tool

SAY: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"name": "bash", "input_schema": {"type": "object", "properties": {"cmd": {"type": "string"}}}}]
COUNTS = Counts(Usage(155, 89, 100, 20, 10, 5), exact=True, cost_nano=1_500_000)
REPLY: list[Event] = [
    Begin("msg_9", "claude-opus-5-5"),
    Thought("hm", signature="sig", ends=True, origin="anthropic"),
    Said("I "),
    Said("look"),
    CallBegins(0, "toolu_1", "bash"),
    CallPiece(0, '{"cmd": '),
    CallPiece(0, '"ls"}'),
    CallEnds(0),
    CallBegins(1, "toolu_2", "bash"),
    CallPiece(1, "{}"),
    CallEnds(1),
]
ENDS: list[Event] = [Finished("tool_calls")]
Handler = Callable[[httpx2.Request], httpx2.Response]


def client(handler: Handler) -> anthropic.Anthropic:
    transport = httpx2.MockTransport(handler)
    return anthropic.Anthropic(
        api_key="key", base_url="http://gateway", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def sse(stream: bytes) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=stream)


def answering(ends: list[Event] = ENDS, cut: BursarError | None = None) -> anthropic.Anthropic:
    """A gateway that says REPLY to whatever it is asked, streamed or not."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked = DIALECT.parse(request.content, dict(request.headers), {})
        assert asked.forward["anthropic-version"]
        if not asked.stream:
            body = DIALECT.whole(asked, [*REPLY, *ends, Done()], COUNTS, None)
            return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)
        writer = DIALECT.writer(asked)
        said = b"".join(writer.write([event]) for event in REPLY)
        return sse(said + (writer.complete(ends, COUNTS, []) if cut is None else writer.cut(cut, COUNTS)))

    return client(handle)


def check(message: Any) -> None:
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert (message.content[0].thinking, message.content[0].signature) == ("hm", "sig")
    assert message.content[1].text == "I look"
    assert (message.content[2].id, message.content[2].name, message.content[2].input) == (
        "toolu_1",
        "bash",
        {"cmd": "ls"},
    )
    assert message.content[3].input == {}
    assert (message.id, message.model, message.stop_reason) == ("msg_9", "claude-opus-5-5", "tool_use")
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens) == (25, 89)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (100, 30)


def test_whole() -> None:
    message = answering().messages.create(model="auto", max_tokens=100, messages=SAY, tools=TOOLS)
    check(message)
    assert message.usage.model_extra == {"cost": 0.0015}
    assert message.usage.cache_creation is not None
    assert message.usage.cache_creation.ephemeral_1h_input_tokens == 10
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 5


def test_stream() -> None:
    with answering().messages.stream(model="auto", max_tokens=100, messages=SAY, tools=TOOLS) as stream:
        seen = [event.type for event in stream]
        check(stream.get_final_message())
    assert seen.count("content_block_stop") == 4
    assert seen[-1] == "message_stop"
    assert (
        "".join(answering().messages.stream(model="auto", max_tokens=9, messages=SAY).__enter__().text_stream)
        == "I look"
    )


def test_beta_stream() -> None:
    with answering().beta.messages.stream(
        model="auto", max_tokens=100, messages=SAY, betas=["context-management-2025-06-27"]
    ) as stream:
        check(stream.get_final_message())


def test_raw_events_and_the_cost() -> None:
    events = list(answering().messages.create(model="auto", max_tokens=100, messages=SAY, stream=True))
    assert [event.type for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[-2].usage.model_extra["cost"] == 0.0015  # type: ignore[union-attr,index]


async def test_the_asynchronous_client() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return sse(
            start() + thinking(0, "hm") + text(1, "Hi") + tool(2, "t", "bash", '{"cmd": "ls"}') + end("tool_use")
        )

    transport = httpx2.MockTransport(handle)
    async with (
        anthropic.AsyncAnthropic(
            api_key="k", base_url="http://gateway", http_client=httpx2.AsyncClient(transport=transport)
        ) as made,
        made.messages.stream(model="auto", max_tokens=100, messages=SAY) as stream,
    ):
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"


def test_a_structured_answer() -> None:
    class City(BaseModel):
        name: str

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked = DIALECT.parse(request.content, dict(request.headers), {})
        shape = DIALECT.conversation(asked).shape
        assert shape is not None
        assert json.loads(bytes(shape.schema or b""))["properties"]["name"]["type"] == "string"
        body = DIALECT.whole(asked, [Begin("m", "x"), Said('{"name": "Bern"}'), Finished("stop")], COUNTS, None)
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)

    answer = client(handle).messages.parse(model="auto", max_tokens=100, messages=SAY, output_format=City)
    assert answer.parsed_output == City(name="Bern")


def test_what_a_reply_said_can_be_sent_back() -> None:
    message = answering().messages.create(model="auto", max_tokens=100, messages=SAY, tools=TOOLS)
    sent: list[bytes] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        return httpx2.Response(500)

    results = [{"type": "tool_result", "tool_use_id": key, "content": "out"} for key in ("toolu_1", "toolu_2")]
    turns: Any = [*SAY, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    with pytest.raises(anthropic.InternalServerError):
        client(handle).messages.create(model="auto", max_tokens=100, messages=turns, tools=TOOLS)
    found = DIALECT.conversation(DIALECT.parse(sent[0], {}, {}))
    assert [message.role for message in found.messages] == ["user", "assistant", "user"]
    assert found.dropped == []


def test_counting_tokens() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/v1/messages/count_tokens"
        assert parse_count(request.content, {}).model == "auto"
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=count_reply(14))

    assert client(handle).messages.count_tokens(model="auto", messages=SAY).input_tokens == 14


class TestEnds:
    def test_a_cut_is_raised_as_an_error(self) -> None:
        said: list[str] = []
        stream = answering(cut=budget_error("task")).messages.create(
            model="auto", max_tokens=9, messages=SAY, stream=True
        )
        with pytest.raises(anthropic.APIStatusError) as caught:
            said.extend(getattr(getattr(event, "delta", None), "text", None) or "" for event in stream)
        assert "".join(said) == "I look"
        assert caught.value.type == "billing_error"
        assert budget_message("task") in str(caught.value)

    def test_a_soft_cut_is_the_limit(self) -> None:
        def handle(request: httpx2.Request) -> httpx2.Response:
            writer = DIALECT.writer(DIALECT.parse(request.content, {}, {}))
            return sse(writer.write(REPLY[:4]) + writer.cut_softly(b'{"scope":"task"}', COUNTS))

        with client(handle).messages.stream(model="auto", max_tokens=9, messages=SAY) as stream:
            message = stream.get_final_message()
        assert (message.stop_reason, message.content[1].text) == ("max_tokens", "I look")  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("reason", "expected"), [("stop", "tool_use"), ("length", "max_tokens"), ("content_filter", "refusal")]
    )
    def test_reasons(self, reason: str, expected: str) -> None:
        made = answering([Finished(reason)])
        assert made.messages.create(model="auto", max_tokens=9, messages=SAY).stop_reason == expected


@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        (BadRequest("x"), anthropic.BadRequestError, "invalid_request_error"),
        (Unauthorized("x"), anthropic.AuthenticationError, "authentication_error"),
        (BudgetExceeded("x"), anthropic.APIStatusError, "billing_error"),
        (Forbidden("x"), anthropic.PermissionDeniedError, "permission_error"),
        (ModelNotFound("x"), anthropic.NotFoundError, "not_found_error"),
        (TooLarge("x"), anthropic.APIStatusError, "request_too_large"),
        (UpstreamBusy("x"), anthropic.RateLimitError, "rate_limit_error"),
        (UpstreamError("x"), anthropic.InternalServerError, "api_error"),
        (Draining("x"), anthropic.APIStatusError, "overloaded_error"),
        (UpstreamTimeout("x"), anthropic.APIStatusError, "timeout_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(error: BursarError, raised: type[anthropic.APIStatusError], kind: str, stream: bool) -> None:
    status, body = DIALECT.error_reply(error)

    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, headers={"content-type": "application/json"}, content=body)

    with pytest.raises(raised) as caught:
        client(handle).messages.create(model="auto", max_tokens=9, messages=SAY, stream=stream)
    assert (caught.value.status_code, caught.value.type, caught.value.api_message) == (status, kind, error.message)
