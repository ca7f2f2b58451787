"""Streams that their provider marks as ended without a finish reason, and what their clients read."""

from __future__ import annotations

import json

import pytest

from app.core.events import Finished
from app.dialects.openai_chat.fold import Folder
from app.dialects.registry import CHAT, GEMINI, MESSAGES, NAMES, RESPONSES
from app.dialects.unended import HALF_A_CALL, is_object, reason_of
from tests.dialects.pairs import read, relayed
from tests.dialects.stream_texts import DONE, ROLE, calls, chunk, ends, finishes, frames, relay, says, sse, told, usage


@pytest.mark.parametrize(
    ("arguments", "limited", "reason"),
    [
        ([], False, "stop"),
        ([], True, "length"),
        (['{"a": 1}'], False, "tool_calls"),
        (['{"a": 1}', " {} "], True, "tool_calls"),
        (['{"a": 1}', '{"a": '], False, None),
        ([""], False, None),
        (["12"], False, None),
        (['"text"'], False, None),
        (["{}{}"], False, None),
        ([b'{"a": "\xff"}'.decode("utf-8", "surrogateescape")], False, None),
        (["[" * 100_000], False, None),
    ],
)
def test_how_a_choice_ends_that_does_not_say_so(arguments: list[str], limited: bool, reason: str | None) -> None:
    assert reason_of(arguments, limited=limited) == reason


def test_no_beginning_of_an_object_is_one() -> None:
    whole = '{"cmd": "ls {a}", "n": {"x": [1, "}"]}}'
    assert is_object(whole)
    assert not any(is_object(whole[:end]) for end in range(len(whole)))


def test_text_has_an_ordinary_end() -> None:
    stream = relay()
    out = stream.feed(frames(ROLE, says("Hi"), chunk(usage=usage(1, 2)), DONE)) + stream.end_complete(3)
    assert finishes(out) == [(0, "stop")]
    assert [e for e in told(out) if e != "[DONE]"][-1]["usage"]["completion_tokens"] == 2
    assert told(out)[-1] == "[DONE]"


def test_text_as_long_as_it_may_be_has_the_limits() -> None:
    for clamp, limit in ((None, 2), (2, None)):
        stream = relay(clamp=clamp, limit=limit)
        out = stream.feed(frames(ROLE, says("Hi"), chunk(usage=usage(1, 2)), DONE))
        assert stream.finished == {0: "length"}
        assert stream.clamped == (clamp is not None)
        assert finishes(out) == ([] if stream.clamped else [(0, "length")])


def test_a_call_is_whole_or_breaks_the_stream() -> None:
    whole = relay()
    out = whole.feed(frames(calls('{"a"', name="bash"), calls(":1}"), DONE)) + whole.end_complete(3)
    assert finishes(out) == [(0, "tool_calls")]
    for arguments in ('{"a"', "", "1"):
        half = relay()
        half.feed(frames(calls(arguments, name="bash"), DONE))
        assert (half.broken, half.finished) == (HALF_A_CALL, {})


def test_each_of_several_choices_has_its_own() -> None:
    stream = relay(choices=3)
    said = frames(says("a"), calls('{"a":1}', 1, name="bash"), ends("length"), DONE)
    out = stream.feed(said) + stream.end_complete(3)
    assert finishes(out) == [(0, "length"), (1, "tool_calls")]
    assert stream.came == 2
    half = relay(choices=2)
    half.feed(frames(says("a"), ends(), calls('{"a":', 1, name="bash"), DONE))
    assert half.broken == HALF_A_CALL


def test_what_waits_for_money_waits_with_its_end() -> None:
    stream = relay()
    stream.allowance_nano = 1
    assert finishes(stream.feed(frames(says("a"), says("b"), says("c"), DONE))) == []
    assert stream.blocked
    stream.allowance_nano = 9
    assert finishes(stream.resume()) == [(0, "stop")]


def test_a_folded_one_has_it_too() -> None:
    folder = Folder()
    stream = relay(folder=folder)
    stream.feed(frames(ROLE, calls('{"a":1}', name="bash"), DONE))
    assert json.loads(stream.folded(3, None))["choices"][0]["finish_reason"] == "tool_calls"


TEXT, CALL, HALF = says("Hi"), calls('{"a":1}', name="bash"), calls('{"a":', name="bash")


@pytest.mark.parametrize("client", [name for name in NAMES if name != CHAT])
@pytest.mark.parametrize("folds", [False, True])
def test_clients_of_every_dialect(client: str, folds: bool) -> None:
    for said, reason in ((TEXT, "stop"), (CALL, "tool_calls")):
        out, seen = relayed(CHAT, client, sse(ROLE, said, DONE), folds=folds)
        assert seen.broken is None
        if not folds:
            assert [e.reason for e in read(client, out) if isinstance(e, Finished)] == [reason]
        else:
            word = {MESSAGES: {"stop": "end_turn", "tool_calls": "tool_use"}, RESPONSES: {}, GEMINI: {}}[client]
            assert word.get(reason, "") in out.decode()
    out, seen = relayed(CHAT, client, sse(ROLE, HALF, DONE), folds=folds)
    assert seen.broken == HALF_A_CALL
    assert not any(isinstance(event, Finished) for event in read(client, out))


def test_a_gemini_stream_that_says_done() -> None:
    said = b'{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"index":0}]}'
    out, _ = relayed(GEMINI, GEMINI, sse(said, DONE))
    assert [e.reason for e in read(GEMINI, out) if isinstance(e, Finished)] == ["stop"]
    assert b"DONE" not in out


def test_without_the_mark_fewer_choices_are_not_all() -> None:
    """A dialect that has a mark would have given it."""
    for mark, whole in ((b"", False), (sse(DONE), True)):
        _, seen = relayed(CHAT, GEMINI, sse(says("a"), ends()) + mark, choices=2)
        assert (seen.whole or seen.done, seen.came) == (whole, 1)
