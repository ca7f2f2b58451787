"""What passes between a program and the gateway, written down small and without anything of a machine or a person.

A recording holds each request once, and for every scenario which requests were made, in order, and how each was
answered. Prose of the programs (their prompts, their tools' descriptions) is not kept: what stands for it says how
long it was. Ids and folders are replaced by made ones, the same for the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agents.stage import MAKE, OUT_OF_BUDGET, PROMPT

PACKAGES = {
    "claude": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
    "opencode": "opencode-ai",
    "pi": "@mariozechner/pi-coding-agent",
}
RECORDED = Path(__file__).resolve().parent / "recorded"
MOST_CHARS = 60
"""Longer strings are prose."""
OURS = (PROMPT, MAKE, "The file is made", OUT_OF_BUDGET)
DROPPED = {"host", "content-length", "connection", "accept-encoding", "accept-language", "transfer-encoding"}
KEYS = {"authorization": "Bearer dummy", "x-api-key": "dummy", "x-goog-api-key": "dummy"}
SHOWN = ("content-type", "retry-after", "x-should-retry")
IDS = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|\b[0-9a-fA-F]{16,}\b"
    r"|(?<=ses_)[0-9A-Za-z]{20,}|(?<=msg_)[0-9A-Za-z]{20,}|(?<=prj_)[0-9A-Za-z]{20,}"
)
SYSTEM = re.compile(r"(?i)(?:linux|ubuntu|debian)[ /][\w.+-]+")


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as they passed."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answered: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""


class Tape:
    """Stands before a gateway and remembers the POSTs that pass."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def clear(self) -> None:
        """Forget."""
        self.exchanges.clear()

    def before(self, app: Any) -> Callable[..., Awaitable[None]]:
        """The ASGI application with the tape before it."""

        async def taped(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                return await app(scope, receive, send)  # type: ignore[no-any-return]
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            kept = Exchange("POST", scope["path"], scope["query_string"].decode(), headers, b"")
            self.exchanges.append(kept)

            async def hear() -> Any:
                message = await receive()
                kept.body += message.get("body", b"")
                return message

            async def say(message: Any) -> None:
                if message["type"] == "http.response.start":
                    kept.status = message["status"]
                    kept.answered = {n.decode().lower(): v.decode("latin-1") for n, v in message["headers"]}
                kept.answer += message.get("body", b"")
                await send(message)

            # Without the server's short way, on which answers would pass by unheard.
            return await app({**scope, "extensions": {}}, hear, say)  # type: ignore[no-any-return]

        return taped


class Scrubber:
    """Takes out what is of a machine, of a person, or prose; the same becomes the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._ids: dict[str, str] = {}

    def text(self, value: str) -> str:
        """A string without folders, ids and names of systems."""
        plain = value.replace(self._folder, "/folder")
        return SYSTEM.sub("Linux", IDS.sub(self._made, plain))

    def _made(self, found: re.Match[str]) -> str:
        old = found.group()
        if old not in self._ids:
            number = len(self._ids) + 1
            short, long = f"{number:020d}", f"00000000-0000-4000-8000-{number:012d}"
            self._ids[old] = long if "-" in old else short[-min(len(old), 20) :].rjust(len(old), "0")
        return self._ids[old]

    def value(self, value: Any, name: str = "") -> Any:
        """JSON, its prose left out."""
        if isinstance(value, Mapping):
            return {self.text(key): self.value(child, key) for key, child in value.items()}
        if isinstance(value, list):
            return [self.value(child, name) for child in value]
        return self._string(value, name) if isinstance(value, str) else value

    def _string(self, value: str, name: str) -> str:
        plain = self.text(value)
        if any(own in value for own in OURS) and len(value) < 400:
            return plain
        if value.startswith("{") and len(value) < 400:
            try:
                return json.dumps(self.value(json.loads(value)))
            except ValueError:
                pass
        if len(value) > MOST_CHARS or (name == "description" and value):
            return f"({len(value)} characters)"
        return plain


def request_of(exchange: Exchange, scrubber: Scrubber) -> dict[str, Any]:
    """A request as it is kept; the task in its path is named {task}."""
    headers = {
        name: KEYS.get(name) or scrubber.text(value) for name, value in exchange.headers.items() if name not in DROPPED
    }
    return {
        "method": exchange.method,
        "path": re.sub(r"^/t/[^/]+", "/t/{task}", exchange.path),
        "query": exchange.query,
        "headers": headers,
        "body": scrubber.value(json.loads(exchange.body)),
    }


def ending_of(status: int, headers: Mapping[str, str], answer: bytes) -> dict[str, Any]:
    """How a reply ended: its status, what its head says of trying again, and the shape of its last bytes.

    Of a stream the last two blocks (of Gemini's the last, for providers differ in where they end a candidate), with
    every number as 0 and every text that is not an error's as "...".
    """
    shown = {name: headers[name] for name in SHOWN if name in headers}
    text = answer.decode()
    blocks = [text]
    if "event-stream" in shown["content-type"]:
        blocks = re.split(r"\r?\n\r?\n", text.rstrip("\r\n"))[-1 if '"candidates"' in text else -2 :]
    return {"status": status, "headers": shown, "last": [_block(block) for block in blocks]}


def _block(block: str) -> str:
    """A block of a stream, or a whole body, its JSON reduced to its shape."""
    lines = []
    for line in block.splitlines():
        before, mark, after = line.partition("data: ") if line.startswith("data: ") else ("", "", line)
        try:
            lines.append(before + mark + json.dumps(_shape(json.loads(after)), separators=(",", ":")))
        except ValueError:
            lines.append(line)
    return "\n".join(lines)


_WORDS = re.compile(r"[a-z_.]{1,40}|[A-Z_]{2,40}|" + "Task is out of budget.*")
_INCIDENTAL = re.compile(
    r"system_fingerprint|estimated|\w+_tokens_details|\w+TokensDetails|thoughtsTokenCount|max_output_tokens"
)
"""What depends on the upstream behind the gateway, not on how a reply ends."""
_SAID = ("text", "delta", "content", "partial_json", "arguments", "input", "id", "item_id", "call_id")


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        said = {name: "..." for name in _SAID if isinstance(value.get(name), str) or name == "content"}
        kept = {name: child for name, child in value.items() if not _INCIDENTAL.fullmatch(name)}
        return {name: said.get(name) or _shape(child) for name, child in kept.items()}
    if isinstance(value, list):
        return [_shape(child) for child in value][:1]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return 0
    return value if _WORDS.fullmatch(value) else "..."


def keep(name: str, scenario: str, tape: Tape, folder: Path) -> None:
    """Add a scenario to the program's recording."""
    path = RECORDED / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    requests: list[Any] = kept.get("requests", [])
    scrubber = Scrubber(folder)
    made = []
    for exchange in tape.exchanges:
        request = request_of(exchange, scrubber)
        if request not in requests:
            requests.append(request)
        ending = ending_of(exchange.status, exchange.answered, exchange.answer)
        made.append({"request": requests.index(request), "ending": ending})
    scenarios = {**kept.get("scenarios", {}), scenario: made}
    version = kept.get("version") or _version(name)
    whole = {"program": name, "version": version, "requests": requests, "scenarios": scenarios}
    RECORDED.mkdir(exist_ok=True)
    path.write_text(_written(whole))


def _written(whole: dict[str, Any]) -> str:
    """The recording with one request, and one scenario's step, to a line."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    requests = ",\n".join(line(request) for request in whole["requests"])
    scenarios = [
        f"{line(name)}:[\n" + ",\n".join(line(step) for step in steps) + "\n]"
        for name, steps in whole["scenarios"].items()
    ]
    head = f'{{"program":{line(whole["program"])},"version":{line(whole["version"])},'
    return head + f'"requests":[\n{requests}\n],"scenarios":{{\n' + ",\n".join(scenarios) + "\n}}\n"


def _version(name: str) -> str:
    lock = json.loads((Path(__file__).resolve().parent / "package.json").read_text())
    version: str = lock["dependencies"][PACKAGES[name]]
    return version
