"""Frames of the same dialect pass as they came, and every end fits what the client has seen of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.errors import UpstreamError
from app.core.money import Usage
from app.core.sse import Frame
from app.dialects.base import Counts, Writer
from app.dialects.openai_responses.dialect import DIALECT
from tests.dialects.openai_responses import replies
from tests.dialects.openai_responses.replies import CALL_A, COUNTS, OUT, frames_of, request_of, told


def passed(stream: bytes, held: int = 0) -> tuple[Writer, bytes, list[Frame]]:
    """A writer that has passed a stream but for its last frames, what it sent, and those frames."""
    reader, writer, out = DIALECT.reader(), DIALECT.writer(request_of()), b""
    frames = frames_of(stream)
    for frame in frames[: len(frames) - held]:
        out += writer.passed(frame, reader.read(frame))
    return writer, out, frames[len(frames) - held :]


@pytest.mark.parametrize("stream", [replies.text_reply(), replies.tools_reply()])
def test_frames_pass_with_their_bytes_and_only_the_cost_is_added(stream: bytes) -> None:
    writer, out, held = passed(stream, held=1)
    whole = out + writer.complete([], COUNTS, held)
    assert whole.startswith(stream[: -len(held[0].raw)])
    events = told(whole)
    before = json.loads(held[0].data or b"")
    before["response"]["usage"]["cost"] = 0.0000015
    assert events[-1] == before


def test_usage_is_added_where_the_provider_sent_none() -> None:
    last = replies.ends(replies.MESSAGE)
    last["response"]["usage"] = None
    writer, _, held = passed(replies.sse(*replies.begins(), *replies.saying(), last), held=1)
    usage = json.loads(frames_of(writer.complete([], Counts(Usage(3, 2), False, None), held))[0].data or b"")[
        "response"
    ]
    assert (usage["usage"]["total_tokens"], usage["usage"]["estimated"], usage["usage"]["cost"]) == (5, True, None)


def test_comments_and_unknown_frames_pass() -> None:
    stream = b': hi\n\nevent: x\ndata: {"type":"new.thing","sequence_number":"odd"}\n\n'
    assert passed(stream)[1] == stream


@pytest.mark.parametrize("end", ["cut", "broken"])
@pytest.mark.parametrize("frames", range(1, 12))
def test_a_failure_goes_on_counting_under_the_same_id(end: str, frames: int) -> None:
    stream = b"".join(frame.raw for frame in frames_of(replies.text_reply())[:frames])
    writer, out, _ = passed(stream[: len(stream)])
    out += writer.cut(OUT, COUNTS) if end == "cut" else writer.broken(UpstreamError("gone"))
    last = told(out)[-1]["response"]
    assert (last["id"], last["model"], last["created_at"], last["status"]) == ("resp_1", "gpt-x", 17, "failed")
    assert last["error"]["code"] == ("invalid_prompt" if end == "cut" else "server_error")
    assert last["tools"] == []


def test_a_failure_tells_what_is_whole_and_the_text_so_far() -> None:
    events = [*replies.begins(), *replies.thinking(), *replies.saying(1)[:4]]
    writer, _, _ = passed(replies.sse(*events))
    output = told(writer.cut(OUT, COUNTS))[-1]["response"]["output"]
    assert output[0] == replies.REASONING
    assert (output[1]["id"], output[1]["status"], output[1]["content"][0]["text"]) == ("msg_1", "incomplete", "Hé llo")


def test_a_soft_cut_closes_the_message_that_is_open() -> None:
    writer, out, _ = passed(replies.sse(*replies.begins(), *replies.saying()[:3]))
    events = told(out + writer.cut_softly(b"{}", COUNTS))
    assert [event["type"] for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert all(
        (event["item_id"], event["output_index"], event["content_index"]) == ("msg_1", 0, 0) for event in events[-4:-2]
    )
    assert events[-2]["item"]["content"][0]["text"] == "Hé "


def half_a_call() -> list[dict[str, Any]]:
    half = {**CALL_A, "arguments": '{"q":', "status": "incomplete"}
    return [*replies.begins(), *replies.calling(0, half)]


def test_the_end_of_half_a_call_is_kept_back_and_a_cut_never_tells_it() -> None:
    writer, out, _ = passed(replies.sse(*half_a_call()))
    events = told(out + writer.cut(OUT, COUNTS))
    assert "response.output_item.done" not in [event["type"] for event in events]
    assert events[-1]["response"]["output"] == []


def test_the_end_of_half_a_call_goes_on_where_the_clients_own_limit_made_it() -> None:
    last = replies.ends(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    stream = replies.sse(*half_a_call(), last)
    writer, out, held = passed(stream, held=1)
    assert (out + writer.complete([], COUNTS, held)).startswith(stream[: -len(held[0].raw)])


def test_a_call_that_is_no_json_is_ended_when_the_model_goes_on() -> None:
    broken = {**CALL_A, "arguments": "no json"}
    stream = replies.sse(*replies.begins(), *replies.calling(0, broken), *replies.saying(1))
    assert passed(stream)[1] == stream


def test_llama_cpps_stream_passes_and_can_be_cut() -> None:
    frames = frames_of(replies.llama_reply())
    writer, out, _ = passed(b"".join(frame.raw for frame in frames[:9]))
    assert out == b"".join(frame.raw for frame in frames[:9])
    last = frames_of(writer.cut(OUT, COUNTS))[-1]
    response = json.loads(last.data or b"")
    assert (response["sequence_number"], response["response"]["id"]) == (9, "resp_l")
