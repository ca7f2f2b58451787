"""The relay: what is held back, what blocks, and how a stream ends. Shared WIRE.md is the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.sse import SseParser
from app.dialects.openai_chat.errors import budget_error, error_object
from app.dialects.openai_chat.fold import Folder
from tests.dialects.stream_texts import (
    DONE,
    ERROR,
    ROLE,
    calls,
    chunk,
    ends,
    finishes,
    frames,
    relay,
    says,
    sse,
    texts,
    told,
    usage,
)

TOTAL = chunk(usage=usage(10, 3))


def test_nothing_goes_out_before_the_first_real_event() -> None:
    stream = relay()
    assert stream.feed(SseParser().feed(b": wait\n\n" + sse(ROLE) + b": wait\n\n")) == b""
    assert not stream.opened
    assert stream.feed(frames(says("Hi"))) == sse(ROLE, says("Hi"))
    assert stream.opened
    assert stream.feed(SseParser().feed(b": later\n\n")) == b": later\n\n"


@pytest.mark.parametrize("first", [calls("", name="bash"), ends(), says("", refusal="x"), says("x")])
def test_a_tool_call_or_an_end_is_a_real_event(first: bytes) -> None:
    stream = relay()
    out = stream.feed(frames(ROLE, first))
    assert out == (sse(ROLE, first) if stream.opened else b"")
    assert stream.opened == (first != says("", refusal="x"))


@pytest.mark.parametrize("done", [b"[DONE]", b" [DONE]", b"[DONE] \t"])
def test_the_end_is_told_once_with_usage_for_those_who_asked(done: bytes) -> None:
    for show in (True, False):
        stream = relay(show=show)
        out = stream.feed(frames(ROLE, says("Hi"), ends(), TOTAL, done, done, says("late"))) + stream.end_complete(3)
        assert stream.done
        assert stream.ended
        assert [e for e in told(out) if e == "[DONE]"] == ["[DONE]"]
        assert [e for e in told(out)[:-1] if not e["choices"]] == (
            [json.loads(TOTAL) | {"usage": usage(10, 3, cost=3e-09)}] if show else []
        )
        assert texts(out) == "Hi"
        assert finishes(out) == [(0, "stop")]


def test_usage_in_the_finish_chunk_is_moved_to_a_chunk_of_its_own() -> None:
    stream = relay()
    out = stream.feed(frames(says("Hi"), ends(usage=usage(10, 3), system_fingerprint="fp"), DONE))
    out += stream.end_complete(None)
    assert told(out)[1:] == [
        json.loads(ends(system_fingerprint="fp")),
        {**json.loads(chunk()), "usage": usage(10, 3, cost=None), "system_fingerprint": "fp"},
        "[DONE]",
    ]


def test_usage_in_json_of_several_lines_stays_one_event() -> None:
    stream = relay()
    pretty = json.dumps(json.loads(ends(usage=usage(10, 3))), indent=1).replace("\n", "\ndata: ").encode()
    out = stream.feed(frames(says("Hi"), pretty)) + stream.end_complete(3)
    assert len(told(out)) == 4
    assert finishes(out) == [(0, "stop")]
    error = json.dumps({"error": {"message": "no"}}, indent=1).replace("\n", "\ndata: ").encode()
    stream.feed(frames(error))
    assert told(stream.end_broken(ERROR))[0]["error"]["message"] == "no"


def test_without_any_usage_an_estimate_is_shown_and_says_so() -> None:
    stream = relay(given=7)
    out = stream.feed(frames(says("Hi"), says(" you"), ends(), DONE)) + stream.end_complete(9)
    assert told(out)[-2]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "estimated": True,
        "cost": 9e-09,
    }
    assert told(out)[-2]["id"] == "chatcmpl-1"


def test_usage_null_beside_groqs_own_does_not_break_the_end() -> None:
    stream = relay()
    stream.feed(frames(says("Hi"), ends(usage=None, x_groq={"usage": usage(10, 3)}), DONE))
    assert told(stream.end_complete(3))[0]["usage"] == usage(10, 3, cost=3e-09)


@pytest.mark.parametrize("data", [b"{", b"null", b"[]", b"5", b'{"choices":5}', b'"\xff"', b'{"id":"\xff","choices":"'])
def test_an_event_that_is_no_chunk_breaks_the_stream(data: bytes) -> None:
    stream = relay()
    assert stream.feed(frames(says("Hi"), data, says("more"), DONE)) == sse(says("Hi"))
    assert stream.broken == "an event is not a chat completion chunk"
    assert stream.error is None
    assert "[DONE]" not in told(stream.end_broken(ERROR))


@pytest.mark.parametrize("data", [b"", b" ", b"\t"])
def test_an_empty_event_is_dropped(data: bytes) -> None:
    stream = relay()
    assert stream.feed(frames(says("Hi"), data, ends())) == sse(says("Hi"), ends())
    assert stream.broken is None


@pytest.mark.parametrize(
    "error", [{"message": "no", "code": 502}, {"message": "no"}, "no", {"message": "no", "type": "t", "code": "c"}]
)
def test_a_providers_error_is_told_in_the_openai_shape(error: Any) -> None:
    stream = relay()
    stream.feed(frames(ROLE, says("Hi")))
    assert stream.feed(frames(says("lost", error=error), says("more"))) == b""
    assert stream.broken == "the provider reported an error"
    (event,) = told(stream.end_broken(ERROR))
    assert {"message", "type", "param", "code"} <= set(event["error"])
    assert event["error"]["message"] == "no"
    assert stream.meter.pieces == 2


@pytest.mark.parametrize("error", [None, False, "", {}])
def test_an_empty_error_is_none(error: Any) -> None:
    stream = relay()
    assert stream.feed(frames(says("Hi", error=error))) == sse(says("Hi", error=error))
    assert stream.broken is None


def test_an_error_that_cannot_be_read_still_has_a_shape() -> None:
    stream = relay()
    stream.feed(frames(chunk(error=[1, 2])))
    assert json.loads(stream.error or b"")["message"] == "The provider reported an error in its stream."


def test_what_passes_the_allowance_waits_and_nothing_is_lost() -> None:
    stream = relay()
    stream.allowance_nano = 2
    out = stream.feed(frames(ROLE, says("a"), says("b"), says("c"), says("d")))
    assert out == sse(ROLE, says("a"), says("b"))
    assert stream.blocked
    assert stream.resume() == b""
    assert stream.feed(frames(says("e"))) == b""
    stream.allowance_nano = 4
    assert stream.resume() == sse(says("c"), says("d"))
    assert stream.blocked
    stream.allowance_nano = 5
    assert stream.resume() == sse(says("e"))
    assert not stream.blocked


def test_no_end_is_sent_of_what_fits_in_part_only() -> None:
    """Thinking that only usage shows: the text fits by itself, and the whole does not."""
    stream = relay()
    stream.allowance_nano = 1
    out = stream.feed(frames(says("a"), says("b"), says("c"), ends(), chunk(usage=usage(0, 9)), DONE))
    stream.allowance_nano = 8
    assert out + stream.resume() == sse(says("a"), says("b"), says("c"))
    assert stream.blocked
    assert told(stream.end_cut(ERROR, 9))[-1] == "[DONE]"


def test_exact_usage_in_the_same_read_lifts_the_block() -> None:
    stream = relay()
    stream.allowance_nano = 3
    out = stream.feed(frames(says("a b c d e f"), ends(), chunk(usage=usage(0, 2)), DONE))
    assert (out, stream.blocked) == (b"", True)
    assert stream.resume() == sse(says("a b c d e f"), ends())
    assert stream.done
    assert not stream.clamped


def test_reaching_the_kill_delivers_what_was_paid_for_and_stops() -> None:
    stream = relay()
    stream.allowance_nano = stream.kill_nano = 2
    assert stream.feed(frames(says("a"), says("b"), says("c"))) == sse(says("a"), says("b"))
    assert stream.blocked
    assert stream.resume() == b""


def test_an_answer_that_ends_at_the_cap_is_not_cut() -> None:
    stream = relay()
    stream.allowance_nano = stream.kill_nano = 2
    last = chunk({"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"})
    assert stream.feed(frames(says("a"), last)) == sse(says("a"), last)
    assert not stream.blocked
    one = relay()
    one.allowance_nano = one.kill_nano = 2
    out = one.feed(frames(says("a"), says("b"), ends()))
    assert one.blocked
    assert out + one.resume() == sse(says("a"), says("b"), ends())


def test_thinking_that_only_usage_shows_reaches_the_kill_too() -> None:
    stream = relay()
    stream.allowance_nano = stream.kill_nano = 50
    for tokens in (20, 40, 60):
        stream.feed(frames(chunk({"index": 0, "delta": {}, "finish_reason": None}, usage=usage(0, tokens))))
    assert stream.blocked
    alone = relay()
    alone.allowance_nano = alone.kill_nano = 50
    alone.feed(frames(chunk(usage=usage(0, 60))))
    assert alone.blocked
    assert alone.resume() == b""


def test_one_choice_of_two_ending_is_not_the_end() -> None:
    stream = relay(choices=2)
    stream.allowance_nano = stream.kill_nano = 3
    out = stream.feed(frames(says("a"), ends(), says("b", 1), says("c", 1), says("d", 1)))
    assert stream.blocked
    assert not stream.ended
    assert (texts(out, 0), texts(out, 1)) == ("a", "bc")


def test_usage_of_one_choice_is_not_taken_for_all() -> None:
    """llama.cpp sends a usage chunk for each choice; vLLM's continuous usage counts one choice."""
    stream = relay(choices=2)
    stream.feed(frames(says("a b c", usage=usage(5, 3)), says("d e f", 1, usage=usage(5, 3))))
    assert stream.meter.running_nano >= 6
    stream.feed(frames(ends(), chunk(usage=usage(5, 3))))
    assert stream.meter.running_nano >= 6
    stream.feed(frames(ends(index=1), chunk(usage=usage(5, 4)), DONE))
    assert stream.meter.exact
    assert stream.meter.running_nano == 5 + 7
    assert told(stream.end_complete(12))[0]["usage"] == usage(5, 7, cost=1.2e-08)


def test_one_usage_for_all_choices_counts_once() -> None:
    stream = relay(choices=2)
    stream.feed(frames(says("a"), says("b", 1), ends(), ends(index=1), chunk(usage=usage(5, 9)), DONE))
    assert stream.meter.running_nano == 14
    merged = relay(choices=2)
    merged.feed(frames(says("a"), says("b", 1), ends(), ends(index=1, usage=usage(5, 9)), DONE))
    assert merged.meter.running_nano == 14
    lone = relay(choices=2)  # a server that ignores n
    lone.feed(frames(says("a"), ends(), chunk(usage=usage(5, 9)), DONE))
    assert lone.meter.running_nano == 14


def test_continuous_usage_never_lowers_the_cost_wrongly() -> None:
    stream = relay()
    costs = []
    for tokens, text in ((0, "a"), (1, "b"), (1, "c"), (3, "d"), (2, "e"), (0, "f")):
        stream.feed(frames(says(text, usage=usage(10, tokens))))
        costs.append(stream.meter.running_nano)
    assert costs == sorted(costs)
    assert costs[-1] == 10 + 3 + 2
    stream.feed(frames(ends(), chunk(usage=usage(10, 4)), chunk(usage=usage(0, 0)), DONE))
    assert stream.meter.running_nano == 14
    assert told(stream.end_complete(14))[0]["usage"] == usage(10, 4, cost=1.4e-08)


def test_a_cut_is_exactly_the_contract() -> None:
    for show in (True, False):
        stream = relay(show=show, given=3)
        stream.allowance_nano = 4
        out = stream.feed(frames(ROLE, says("a"), says("b")))
        error = budget_error("task")
        end = stream.end_cut(error, 5)
        assert finishes(out + end) == []
        tail = told(end)
        assert tail[-2:] == [{"error": json.loads(error_object(error))}, "[DONE]"]
        assert [set(e) for e in tail[:-2]] == ([{"id", "object", "created", "model", "choices", "usage"}] * show)
        if show:
            assert tail[0]["choices"] == []
            assert tail[0]["usage"]["cost"] == 5e-09
            assert tail[0]["usage"]["estimated"] is True
        assert end.endswith(b'data: {"error":' + error_object(error) + b"}\n\ndata: [DONE]\n\n")


def test_a_length_at_our_clamp_is_held_back_and_is_a_cut() -> None:
    for report in ((chunk(usage=usage(5, 8)),), (chunk(usage=usage(5, 7)),), ()):
        stream = relay(clamp=8)
        out = stream.feed(frames(ROLE, says("a"), ends("length"), *report, DONE))
        assert out == sse(ROLE, says("a"))
        assert stream.clamped
        assert finishes(out + stream.end_cut(ERROR, 8)) == []


def test_the_models_own_length_is_told_apart_by_exact_usage() -> None:
    stream = relay(clamp=100)
    out = stream.feed(frames(ROLE, says("a"), ends("length"), chunk(usage=usage(5, 60)), DONE))
    assert not stream.clamped
    assert finishes(out + stream.end_complete(65)) == [(0, "length")]
    asked = relay()  # no clamp of ours: the client's own limit
    out = asked.feed(frames(says("a"), ends("length"), DONE))
    assert not asked.clamped
    assert finishes(out) == [(0, "length")]


def test_content_in_a_held_finish_chunk_is_not_held() -> None:
    for folder in (None, Folder()):
        stream = relay(clamp=2, folder=folder)
        both = chunk({"index": 0, "delta": {"content": "b"}, "logprobs": {"content": []}, "finish_reason": "length"})
        out = stream.feed(frames(says("a"), both, DONE))
        assert stream.clamped
        if folder is None:
            assert texts(out) == "ab"
            assert finishes(out) == []
            assert finishes(stream.end_complete(2)) == [(0, "length")]
        else:
            assert json.loads(folder.body(usage={}, cost_nano=2))["choices"][0]["message"]["content"] == "ab"


def test_what_follows_a_held_finish_stays_behind_it() -> None:
    stream = relay(clamp=100)
    after = chunk({"index": 0, "finish_reason": None, "content_filter_offsets": {}})
    assert stream.feed(frames(says("a"), ends("length"), after, TOTAL, DONE)) == sse(says("a"))
    assert stream.end_complete(3).startswith(sse(ends("length"), after))


def test_two_choices_one_at_the_clamp_keep_their_order() -> None:
    stream = relay(clamp=2, choices=2)
    out = stream.feed(frames(ROLE, ends("length"), says("b", 1), ends("stop", 1), DONE))
    assert out == sse(ROLE, says("b", 1), ends("stop", 1))
    assert stream.clamped


@pytest.mark.parametrize("reason", ["length", "tool_calls", "stop"])
def test_a_tool_call_cut_by_our_clamp_never_ends_in_a_finish_reason(reason: str) -> None:
    """vLLM says `tool_calls` where the limit ended the call half-way; pi runs such a call."""
    stream = relay(clamp=16)
    out = stream.feed(frames(ROLE, calls("", name="bash"), calls('{"command": "rm -r'), ends(reason), DONE))
    assert stream.clamped
    assert stream.in_tool
    assert finishes(out + stream.end_cut(ERROR, 16)) == []


def test_a_whole_tool_call_under_a_clamp_ends_as_the_provider_says() -> None:
    stream = relay(clamp=16)
    out = stream.feed(frames(calls("", name="bash"), calls('{"a":1}'), ends("tool_calls"), chunk(usage=usage(5, 16))))
    assert not stream.clamped
    assert finishes(out) == []
    assert finishes(out + stream.end_complete(5)) == [(0, "tool_calls")]
    assert not stream.in_tool


def test_in_tool_is_what_the_client_has_seen() -> None:
    """The rest of the call and its finish wait behind the block: for the client the call is half a call."""
    stream = relay()
    stream.allowance_nano = 3
    out = stream.feed(frames(calls('{"a', name="bash"), calls('": [1, 2, 3]}'), ends("tool_calls"), DONE))
    assert stream.blocked
    assert stream.ended
    assert finishes(out) == []
    assert stream.in_tool
    other = relay(choices=2, clamp=5)
    other.feed(frames(calls('{"a', name="bash"), ends("length"), says("b", 1), ends("stop", 1), DONE))
    assert other.in_tool
    assert other.clamped


def test_a_soft_cut_gives_length_to_each_choice_that_has_no_end_yet() -> None:
    stream = relay(choices=3)
    stream.allowance_nano = 3
    stream.feed(frames(says("a"), says("b", 1), says("c", 2), ends("stop", 1), says("d"), ends("stop", 2)))
    assert stream.blocked
    end = told(stream.end_cut_softly(b'{"scope":"task"}', 3))
    assert [(c["index"], c["finish_reason"]) for c in end[0]["choices"]] == [(0, "length"), (2, "length")]
    assert end[0]["bursar"] == {"cut": {"scope": "task"}}
    assert {"id", "object", "created", "model"} <= set(end[0])
    assert end[1]["choices"] == []
    assert end[1]["usage"]["cost"] == 3e-09
    assert end[2:] == ["[DONE]"]


def test_a_soft_cut_of_an_answer_whose_end_still_waits_has_a_finish() -> None:
    stream = relay(show=False)
    stream.allowance_nano = 1
    stream.feed(frames(says("a"), says("b"), ends(), DONE))
    end = stream.end_cut_softly(b"{}", 2)
    assert finishes(end) == [(0, "length")]


def test_a_folded_stream_gives_the_folder_everything_and_the_client_nothing() -> None:
    folder = Folder()
    stream = relay(folder=folder, show=False)
    assert stream.feed(frames(ROLE, says("Hi"), ends(), TOTAL, DONE)) == b""
    stream.end_complete(None)
    folded = json.loads(folder.body(usage={}, cost_nano=3))
    assert folded["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
    assert folded["usage"] == usage(10, 3, cost=3e-09)


events = st.lists(st.sampled_from(["a", " b", "c d", "\n", "é"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(events, st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 3))
def test_blocks_and_resumes_in_any_order_lose_and_reorder_nothing(
    said: list[str], raises: list[int], start: int
) -> None:
    stream = relay()
    stream.allowance_nano = start
    out = b""
    rises = iter(raises)
    for data in (ROLE, *map(says, said), ends()):
        out += stream.feed(frames(data))
        stream.allowance_nano += next(rises, 1)
        if stream.blocked:
            out += stream.resume()
    stream.allowance_nano = 10_000
    out += stream.resume()
    assert out == sse(ROLE, *map(says, said), ends())


@settings(max_examples=60, deadline=None)
@given(events, st.integers(0, 12), st.integers(0, 12))
def test_what_goes_out_is_always_covered_by_the_allowance(said: list[str], allowance: int, more: int) -> None:
    """And all that it covers goes out, whenever it was given."""
    stream = relay()
    stream.allowance_nano = allowance
    out = stream.feed(frames(*map(says, said)))
    sent = relay()
    sent.feed(SseParser().feed(out))
    assert sent.meter.running_nano <= allowance
    stream.allowance_nano = allowance + more
    out += stream.resume()
    at_once = relay()
    at_once.allowance_nano = allowance + more
    assert out == at_once.feed(frames(*map(says, said)))


def test_what_is_no_json_by_the_letter_is_read_all_the_same() -> None:
    """Halves of characters, Python's numbers, counts as text, a choice without a number: the answer is paid for."""
    stream = relay()
    said = says("XX").replace(b"XX", rb"a\ud83d")
    odd = chunk({"index": None, "delta": {"content": "b"}, "logprobs": {"x": float("-inf")}, "finish_reason": None})
    counted = chunk(usage={"prompt_tokens": "10", "completion_tokens": "3", "total_tokens": "13"})
    out = stream.feed(frames(said, odd, ends(), counted, DONE)) + stream.end_complete(3)
    assert stream.broken is None
    assert [e["choices"][0]["delta"].get("content") for e in told(out)[:3]] == ["a\ufffd", "b", None]
    assert told(out)[1]["choices"][0]["logprobs"] == {"x": None}
    assert (stream.meter.exact, stream.meter.output_tokens) == (True, 3)


@pytest.mark.parametrize(
    ("word", "told_as"),
    [("eos", "stop"), ("model_length", "length"), ("EOS", "stop"), ("tool_use", "tool_calls"), ("a_new_word", "stop")],
)
def test_a_word_that_clients_do_not_know_is_told_as_one_they_do(word: str, told_as: str) -> None:
    """opencode asks again without end where it does not know the finish reason (shared WIRE.md)."""
    stream = relay(choices=2)
    both = chunk(
        {"index": 0, "delta": {"content": "b"}, "finish_reason": word, "more": 1},
        {"index": 1, "delta": {}, "finish_reason": "length"},
    )
    out = stream.feed(frames(says("a"), both, DONE)) + stream.end_complete(3)
    assert finishes(out) == [(0, told_as), (1, "length")]
    assert texts(out) == "ab"
    assert told(out)[1]["choices"][0]["more"] == 1


@pytest.mark.parametrize("word", ["stop", "length", "tool_calls", "content_filter", "function_call"])
def test_chats_own_words_keep_their_bytes(word: str) -> None:
    assert sse(ends(word)) in relay(show=False).feed(frames(says("a"), ends(word), DONE))


@pytest.mark.parametrize("word", ["error", "insufficient_system_resource", "ERROR"])
def test_an_end_that_is_a_failure_is_no_end(word: str) -> None:
    stream = relay()
    out = stream.feed(frames(says("a"), ends(word), DONE))
    assert stream.broken is not None
    assert finishes(out + stream.end_broken(ERROR)) == []
    assert told(out + stream.end_broken(ERROR))[-1]["error"]["message"] == "The provider ended its reply with an error."
