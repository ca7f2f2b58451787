"""Whose call is this: the task a request belongs to, said on purpose or by what agents send of themselves.

What each client sends was measured (shared WIRE.md, "Which task is this?").
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.openai_chat.parse import checked_task_id
from app.http.header_text import meant

_SESSIONS = ("x-claude-code-session-id", "session-id", "session_id", "x-session-id")
"""Claude Code; codex; pi on Responses; opencode."""
_PARENTS = ("x-parent-session-id",)
"""opencode gives a sub-agent an id of its own and names its parent's; the others keep one id."""
_SENT_UNASKED = frozenset(_SESSIONS + _PARENTS)
_HARNESSES = (
    ("claude-cli", "claude-code"),
    ("claude-code", "claude-code"),
    ("codex", "codex"),
    ("opencode", "opencode"),
    ("geminicli", "gemini-cli"),
    ("gemini-cli", "gemini-cli"),
    ("pi-coding-agent", "pi"),
    (" pi/", "pi"),
    ("qwencode", "qwen-code"),
    ("pydantic-ai", "pydantic-ai"),
    ("google-adk", "google-adk"),
    ("agents/python", "openai-agents"),
    ("agents/javascript", "openai-agents"),
    ("ai-sdk", "ai-sdk"),
    ("litellm", "litellm"),
    ("langchain", "langchain"),
    ("anthropic", "anthropic-sdk"),
    ("google-genai", "google-genai"),
    ("openai", "openai-sdk"),
)
"""In this order, for what is built on an SDK often names it, too. " pi/" begins a word: others end in it."""
MAX_SIGN_CHARS = 200
"""Programs name themselves first; what they add of systems and libraries may be long."""


class Whose(msgspec.Struct, frozen=True):
    """The task, None for a call that is a task of its own; its parent, and the program that asks ("" unknown)."""

    task_id: str | None
    parent_id: str | None = None
    harness: str = ""


def task_of(headers: Mapping[str, str], request: ChatRequest | None, path_task: str | None) -> Whose:
    """An explicit header beats the body's metadata, that the base URL's path, and that what a client sends unasked.

    Raises BadRequest for an explicit id that is none; others that are none are ignored.
    """
    task = headers.get("x-bursar-task-id")
    if task is not None:
        task = checked_task_id(meant(task), "X-Bursar-Task-Id")
    elif request is not None and request.task_id is not None:
        task = request.task_id
    else:
        session = request.session if request is not None else None
        task = path_task or _first(headers, _SESSIONS) or (None if session is None else _usable(session))
    parent = headers.get("x-bursar-parent-task-id")
    if parent is None:  # a session's parent is none of the task's that the base URL names: both are in that one
        parent = None if task is not None and task == path_task else _first(headers, _PARENTS)
    elif task is None:
        raise BadRequest("A parent alone names no task: send X-Bursar-Task-Id, too.", param="X-Bursar-Parent-Task-Id")
    else:
        parent = checked_task_id(meant(parent), "X-Bursar-Parent-Task-Id")
    return Whose(task, parent if task is not None and parent != task else None, harness_of(headers))


def harness_of(headers: Mapping[str, str]) -> str:
    """The program that asks, one of a fixed set, from `User-Agent` and what codex and Claude Code add."""
    if "x-claude-code-session-id" in headers:
        return "claude-code"
    return _harness(headers.get("originator", "")[:MAX_SIGN_CHARS], headers.get("user-agent", "")[:MAX_SIGN_CHARS])


@functools.lru_cache(maxsize=512)
def _harness(originator: str, agent: str) -> str:
    said = f"{originator} {agent}".lower()
    return next((name for sign, name in _HARNESSES if sign in said), "")


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    if _SENT_UNASKED.isdisjoint(headers):
        return None  # nearly all
    for name in names:
        if name in headers and (found := _usable(headers[name])) is not None:
            return found
    return None


def _usable(value: str) -> str | None:
    try:
        return checked_task_id(meant(value), "session")
    except BadRequest:
        return None
