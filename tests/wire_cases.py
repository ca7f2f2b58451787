"""The wire cases: provider streams and bodies under `tests/wire`, each with what a reader should find in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

WIRE = Path(__file__).resolve().parent / "wire"


@dataclass(frozen=True, slots=True)
class WireCall:
    """A tool call put together from its fragments."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class WireChoice:
    """What one choice says in the end. `finish` None: the wire never says why it ended."""

    text: str
    reasoning: str
    refusal: str
    tool_calls: tuple[WireCall, ...]
    finish: str | None
    function_call: tuple[str, str] | None = None
    audio: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class WireUsage:
    """Tokens as billed: `input` includes `cached`, `output` includes `reasoning`, hidden reasoning too."""

    input: int
    output: int
    cached: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class WireCase:
    """One recording. `body` is the reply's body to the byte: SSE where `stream`, else JSON.

    `usage` is what the provider reports (None: nothing); `true_output` is what it really generated where its
    report is known to be wrong. `error` holds message, type and code of an error in the stream or the body.
    `done` says whether [DONE] is on the wire.
    """

    name: str
    about: str
    recorded: bool
    stream: bool
    body: bytes
    model: str | None
    choices: Mapping[int, WireChoice]
    usage: WireUsage | None
    done: bool
    status: int = 200
    cost_usd: str | None = None
    true_output: int | None = None
    error: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"WireCase({self.name!r})"

    @property
    def content_type(self) -> str:
        """The Content-Type such a body comes with."""
        return "text/event-stream; charset=utf-8" if self.stream else "application/json"


@cache
def wire_cases() -> tuple[WireCase, ...]:
    """Every case, by name."""
    return tuple(_load(path) for path in sorted(WIRE.glob("*.expect.json")))


def stream_cases() -> tuple[WireCase, ...]:
    """The streams."""
    return tuple(case for case in wire_cases() if case.stream)


def whole_cases() -> tuple[WireCase, ...]:
    """The bodies of replies that were not streamed, error bodies included (`status`)."""
    return tuple(case for case in wire_cases() if not case.stream)


def wire_case(name: str) -> WireCase:
    """One case by name; KeyError without it."""
    return {case.name: case for case in wire_cases()}[name]


def _load(path: Path) -> WireCase:
    name = path.name.removesuffix(".expect.json")
    expect = json.loads(path.read_text("utf-8"))
    stream = WIRE / f"{name}.sse"
    usage = expect.pop("usage")
    return WireCase(
        name=name,
        stream=stream.exists(),
        body=(stream if stream.exists() else WIRE / f"{name}.body.json").read_bytes(),
        choices={int(index): _choice(said) for index, said in expect.pop("choices").items()},
        usage=None if usage is None else WireUsage(**usage),
        **expect,
    )


def _choice(said: dict[str, Any]) -> WireChoice:
    calls = tuple(WireCall(**call) for call in said.pop("tool_calls"))
    function = said.pop("function_call", None)
    return WireChoice(
        tool_calls=calls, function_call=(function["name"], function["arguments"]) if function else None, **said
    )
