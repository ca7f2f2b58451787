"""Which task a request belongs to, and which program asks: what agents send was measured (shared WIRE.md)."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import BadRequest
from app.core.types import ChatRequest, Prompt
from app.http.whose import harness_of, task_of


def request(**said: Any) -> ChatRequest:
    return ChatRequest({}, "auto", False, False, 1, None, (), Prompt(), **said)


def test_what_is_said_on_purpose_beats_what_is_sent_unasked() -> None:
    headers = {"x-bursar-task-id": "header", "x-claude-code-session-id": "session"}
    said = request(task_id="body", session="s")
    assert task_of(headers, said, "path").task_id == "header"
    del headers["x-bursar-task-id"]
    assert task_of(headers, said, "path").task_id == "body"
    assert task_of(headers, request(session="s"), "path").task_id == "path"
    assert task_of(headers, request(session="s"), None).task_id == "session"
    assert task_of({}, request(session="s"), None).task_id == "s"
    assert task_of({}, request(), None).task_id is None
    assert task_of({}, None, None).task_id is None


@pytest.mark.parametrize("header", ["x-claude-code-session-id", "session-id", "session_id", "x-session-id"])
def test_every_agents_own_header(header: str) -> None:
    assert task_of({header: "0199-abc"}, request(), None).task_id == "0199-abc"


def test_a_wrong_id_is_an_error_only_where_it_was_meant() -> None:
    with pytest.raises(BadRequest, match="X-Bursar-Task-Id"):
        task_of({"x-bursar-task-id": "a|b"}, request(), None)
    with pytest.raises(BadRequest, match="X-Bursar-Parent-Task-Id"):
        task_of({"x-bursar-task-id": "a", "x-bursar-parent-task-id": ""}, request(), None)
    assert task_of({"session-id": "a|b"}, request(session="x" * 300), None).task_id is None


@pytest.mark.parametrize("sent", ["Bärn ☃".encode(), "Bärn".encode(), "Bärn".encode("latin-1")])
@pytest.mark.parametrize("header", ["x-bursar-task-id", "session-id"])
def test_a_name_that_is_not_ascii_is_the_one_that_paths_and_bodies_name(sent: bytes, header: str) -> None:
    """Go and curl send UTF-8, Node Latin-1."""
    assert task_of({header: sent.decode("latin-1")}, request(), None).task_id in ("Bärn", "Bärn ☃")
    parent = {"x-bursar-task-id": "child", "x-bursar-parent-task-id": sent.decode("latin-1")}
    assert task_of(parent, request(), None).parent_id in ("Bärn", "Bärn ☃")


@pytest.mark.parametrize("sent", ["job ", " job", "job\t "])
def test_white_space_around_a_name_is_none_of_it(sent: str) -> None:
    """RFC 9110, 5.5; the parser leaves what stands behind. A task under two names would have two caps."""
    assert task_of({"x-bursar-task-id": sent}, request(), None).task_id == "job"
    assert task_of({"session-id": sent}, request(), None).task_id == "job"
    parent = {"x-bursar-task-id": "child", "x-bursar-parent-task-id": sent}
    assert task_of(parent, request(), None).parent_id == "job"


def test_a_child_names_its_parent() -> None:
    assert task_of({"x-session-id": "child", "x-parent-session-id": "root"}, request(), None).parent_id == "root"
    assert task_of({"x-session-id": "me", "x-parent-session-id": "me"}, request(), None).parent_id is None
    assert task_of({"x-parent-session-id": "root"}, request(), None).parent_id is None
    # A session and its sub-agent's under one base URL: both are that one task, which is below neither.
    assert task_of({"x-session-id": "child", "x-parent-session-id": "root"}, request(), "job").parent_id is None
    with pytest.raises(BadRequest, match="X-Bursar-Task-Id") as caught:
        task_of(
            {"x-bursar-parent-task-id": "root"}, request(), None
        )  # else its cap would not bind what is meant for it
    assert caught.value.param == "X-Bursar-Parent-Task-Id"
    explicit = {"x-bursar-task-id": "c", "x-bursar-parent-task-id": "p", "x-parent-session-id": "other"}
    assert task_of(explicit, request(), None).parent_id == "p"


@pytest.mark.parametrize(
    ("headers", "harness"),
    [
        ({"user-agent": "claude-cli/2.1.329 (external, sdk-cli)"}, "claude-code"),
        ({"user-agent": "whatever", "x-claude-code-session-id": "x"}, "claude-code"),
        ({"user-agent": "codex_exec/0.169.0 (Linux)", "originator": "codex_exec"}, "codex"),
        ({"user-agent": "GeminiCLI/0.61.0/gemini-2.5-pro (linux; x64)"}, "gemini-cli"),
        ({"user-agent": "opencode/1.18.33 ai-sdk/provider-utils/3"}, "opencode"),
        ({"user-agent": "pi/0.73.1"}, "pi"),
        ({"user-agent": "our-api/1.0"}, ""),
        ({"user-agent": "QwenCode/0.15.10 (linux; x64)"}, "qwen-code"),
        ({"user-agent": "google-genai-sdk/3.6.1 gl-python/3.11.7 pydantic-ai/2.32.2"}, "pydantic-ai"),
        ({"user-agent": "google-genai-sdk/2.34.0 gl-python/3.11.7 google-adk/2.13.0"}, "google-adk"),
        ({"user-agent": "Agents/Python 0.24.0"}, "openai-agents"),
        ({"user-agent": "Agents/JavaScript 0.20.0"}, "openai-agents"),
        ({"user-agent": "OpenAI/Python 2.1.0"}, "openai-sdk"),
        ({"user-agent": "Anthropic/JS 0.60"}, "anthropic-sdk"),
        ({"user-agent": "curl/8"}, ""),
        ({}, ""),
    ],
)
def test_which_program_asks(headers: dict[str, str], harness: str) -> None:
    assert harness_of(headers) == harness
