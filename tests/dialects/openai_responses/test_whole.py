"""Replies that are not streamed, and errors."""

from __future__ import annotations

import json

import pytest

from app.core.errors import BadRequest, BursarError, UpstreamError, UpstreamRejected
from app.core.events import Begin, CallBegins, CallPiece, Done, Event, Finished, Said, Used
from app.core.money import Usage
from app.dialects.base import Counts
from app.dialects.openai_responses.dialect import DIALECT
from tests.dialects.openai_responses import replies
from tests.dialects.openai_responses.replies import COUNTS, OUT, events_of, request_of


def test_an_upstreams_own_last_word_is_the_reply() -> None:
    message = {**replies.MESSAGE, "phase": "final_answer"}
    last = replies.ends({"type": "web_search_call", "id": "ws", "status": "completed"}, message)
    events = events_of(replies.sse(*replies.begins(), *replies.saying(), last))
    reply = json.loads(DIALECT.whole(request_of(), events, COUNTS, None))
    assert reply["output"] == last["response"]["output"]
    assert reply["usage"] == {**replies.USAGE, "cost": 0.0000015}


def test_a_last_word_without_the_items_is_made_up_for_under_the_ids_that_proofs_are_bound_to() -> None:
    events = events_of(replies.sse(*replies.begins(), *replies.thinking(), *replies.saying(1), replies.ends()))
    thought, message = json.loads(DIALECT.whole(request_of(), events, COUNTS, None))["output"]
    assert (thought["id"], thought["encrypted_content"]) == ("rs_1", "gAAA")
    assert message["content"] == replies.MESSAGE["content"]


def test_a_soft_cut_is_made_of_what_was_said() -> None:
    events: list[Event] = [*events_of(replies.text_reply())[:2], CallBegins(0, "a", "find"), CallPiece(0, '{"q')]
    reply = json.loads(DIALECT.whole(request_of(), events, COUNTS, b'{"limit":"task"}'))
    assert (reply["status"], reply["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["content"][0]["text"] for item in reply["output"]] == ["Hé "]
    assert reply["bursar"] == {"cut": {"limit": "task"}}


def test_a_reply_at_the_clients_own_limit() -> None:
    events: list[Event] = [
        Begin("x"),
        Said("a"),
        CallBegins(0, "a", "find"),
        CallPiece(0, '{"q'),
        Finished("length"),
        Done(),
    ]
    reply = json.loads(DIALECT.whole(request_of(), events, COUNTS, None))
    assert reply["status"] == "incomplete"
    assert [item["status"] for item in reply["output"]] == ["completed", "incomplete"]


def test_a_cost_is_added_and_nothing_else_changes() -> None:
    body = b'{"id": "r", "output" : [ 1.50 ],"usage":{"input_tokens" : 3,"output_tokens":2}, "z":null}'
    assert DIALECT.with_cost(request_of(), body, COUNTS) == (
        b'{"id":"r","output":[ 1.50 ],"usage":{"input_tokens":3,"output_tokens":2,"cost":0.0000015},"z":null}'
    )


@pytest.mark.parametrize("body", [b'{"output":[]}', b'{"output":[],"usage":null}'])
def test_an_estimate_is_added_where_there_is_no_usage(body: bytes) -> None:
    usage = json.loads(DIALECT.with_cost(request_of(), body, Counts(Usage(3, 2), exact=False, cost_nano=None)))["usage"]
    assert (usage["input_tokens"], usage["estimated"], usage["cost"]) == (3, True, None)


def test_used_events_say_nothing_that_counts_does_not() -> None:
    events: list[Event] = [Begin("x"), Said("a"), Finished("stop"), Used(Usage(1, 1)), Done()]
    assert json.loads(DIALECT.whole(request_of(), events, COUNTS, None))["usage"]["input_tokens"] == 20


REJECTED = UpstreamRejected("no", upstream_status=422, body=b'{"message":"no","type":"x","param":null,"code":null}')


@pytest.mark.parametrize(
    ("error", "status"), [(OUT, 400), (BadRequest("b"), 400), (UpstreamError("u"), 502), (REJECTED, 422)]
)
def test_errors_before_the_first_byte(error: BursarError, status: int) -> None:
    got, body = DIALECT.error_reply(error)
    assert got == status
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_the_denial_is_the_contracts() -> None:
    assert json.loads(DIALECT.error_reply(OUT)[1]) == {
        "error": {"message": OUT.message, "type": "insufficient_quota", "param": None, "code": "budget_exceeded"}
    }


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error":{"message":"m","type":"t","code":"c","param":null}}', ("m", "c")),
        (b'{"error":{"message":"m","type":"t","code":null}}', ("m", "t")),
        (b'{"error":"m"}', ("m", "invalid_request_error")),
        (b'{"detail":"m"}', ("m", "invalid_request_error")),
        (b"<html>", None),
    ],
)
def test_a_providers_error(body: bytes, found: tuple[str, str] | None) -> None:
    assert DIALECT.error_object(body) == found
