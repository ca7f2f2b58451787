"""What is kept of an answer while it passes."""

from __future__ import annotations

import pytest

from app.core.events import CallBegins, CallPiece, Finished, Said, Thought
from app.core.heard import WRITING_TOOLS, Heard, writes


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


def test_the_first_attempt_is_text_or_a_tool_that_writes() -> None:
    heard = Heard(10, 100)
    heard.say("\n\n")
    heard.call(0, "read_file")
    heard.call(1, "TodoWrite")
    heard.call(2, "bash")
    assert heard.said
    assert not heard.attempted
    heard.call(3, "Edit")
    assert heard.attempted
    spoken = Heard(10, 0)
    spoken.take([Thought("I should say hello."), Said("No", 1)])
    assert not spoken.attempted
    spoken.take([Said("Hello")])
    assert spoken.attempted


@pytest.mark.parametrize(
    "tool",
    [
        *("Write", "Edit", "MultiEdit", "NotebookEdit"),  # Claude Code
        *("apply_patch", "write_file", "replace", "write", "edit", "patch"),  # codex, gemini-cli, opencode, pi
        *("str_replace_based_edit_tool", "write_to_file", "mcp__fs__write_file", "mcp__fs__create_new_file"),
    ],
)
def test_tools_that_change_files(tool: str) -> None:
    assert writes(tool, WRITING_TOOLS)


@pytest.mark.parametrize(
    "tool",
    ["Read", "Bash", "shell", "TodoWrite", "update_plan", "Grep", "web_search", "ls", "read_file", "save_memory"],
)
def test_tools_that_do_not(tool: str) -> None:
    assert not writes(tool, WRITING_TOOLS)


def test_a_policy_may_name_others() -> None:
    heard = Heard(10, 0, ("bash", "git_*"))
    heard.call(0, "Edit")
    assert not heard.attempted
    heard.call(1, "Git_Commit")
    assert heard.attempted


def test_events_of_the_first_choice() -> None:
    heard = Heard(100, 100)
    heard.take([Thought("hm"), Said("no", 1), Said("I will "), Said("not", refusal=True), Finished("length", 1)])
    heard.take([CallBegins(0, "id", "ls"), CallPiece(0, "{}"), Finished("tool_calls")])
    assert (heard.text, heard.refused, heard.finish, heard.calls) == ("I will not", True, "tool_calls", [("ls", "{}")])
    assert not Heard().said
