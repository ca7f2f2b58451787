"""What is kept of an answer while it passes."""

from __future__ import annotations

from app.core.events import CallBegins, CallPiece, Finished, Said, Thought
from app.core.heard import Heard


def test_an_opening_is_kept_and_the_rest_let_go() -> None:
    heard = Heard(10, 0)
    for _ in range(100):
        heard.say("12345")
    assert len(heard.text) <= 20
    assert not heard.all_text
    assert not heard.open
    assert heard.said


def test_calls_are_put_together_whether_they_are_numbered_or_not() -> None:
    for numbered in (True, False):
        heard = Heard(10, 1_000)
        for index, name in enumerate(("ls", "cat")):
            at = index if numbered else None
            heard.call(at, name)
            heard.argue(at, '{"path":')
            heard.argue(at, '"a"}')
        assert heard.calls == [("ls", '{"path":"a"}'), ("cat", '{"path":"a"}')]
        assert heard.open


def test_interleaved_calls_and_arguments_too_long() -> None:
    heard = Heard(10, 20)
    heard.call(0, "a")
    heard.call(1, "b")
    heard.argue(1, "1")
    heard.argue(0, "0")
    heard.argue(7, "nobody's")
    assert heard.calls == [("a", "0"), ("b", "1")]
    heard.argue(0, "x" * 30)
    assert heard.calls is None


def test_events_of_the_first_choice() -> None:
    heard = Heard(100, 100)
    heard.take([Thought("hm"), Said("no", 1), Said("I will "), Said("not", refusal=True), Finished("length", 1)])
    heard.take([CallBegins(0, "id", "ls"), CallPiece(0, "{}"), Finished("tool_calls")])
    assert (heard.text, heard.refused, heard.finish, heard.calls) == ("I will not", True, "tool_calls", [("ls", "{}")])
    assert not Heard().said
