"""The file of `bursar probe`: fixed requests with a check each, as JSON lines or YAML, read strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from app.commands.ending import Refused
from app.commands.probe_checks import Check
from app.gateway.seen import HASHED_CHARS

NAME_CHARS: Final = 100
OURS: Final = {
    "model": "--model and --route say it",
    "models": "a probe is of one model",
    "n": "a check is of one answer",
    "provider": "the gateway chooses among a model's own",
    "stream": "answers are asked for whole",
}
"""Members that a probe's request may not have, and why."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One fixed request. `kind`: as the file groups it, "" as the gateway sorts it. `body`: all of the request but the
    model, in the file's order, so that its bytes are the same each time. `name`: its id, and a digest of what it asks
    and how it is checked: changed, it is another."""

    id: str
    kind: str
    body: Mapping[str, Any]
    check: Check
    name: str

    def request(self, model: str) -> bytes:
        """The bytes to send."""
        return json.dumps({"model": model, **self.body}, ensure_ascii=False).encode()


def read_set(path: Path) -> list[Probe]:
    """The probes of a file. Raises Refused, a line for each problem."""
    probes: list[Probe] = []
    problems: list[str] = []
    known: dict[str, str] = {}
    for where, value in _entries(path):
        try:
            probe = _probe(value)
            for mark, what in ((f"id {probe.id}", "has the id of"), (_as_seen(probe), "looks to the gateway like")):
                if (other := known.setdefault(mark, where)) != where:
                    raise ValueError(f"it {what} the one at {other}: they could not be told apart")
            probes.append(probe)
        except ValueError as error:  # msgspec's own among them
            problems.append(f"{where}: {error}")
    if not probes and not problems:
        problems = [f"{path}: there is no probe in it"]
    if problems:
        raise Refused("\n".join(problems))
    return probes


def digest_of(probes: list[Probe]) -> str:
    """What tells a set of probes from another."""
    return digest(*sorted(probe.name for probe in probes))


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Each with the place where it stands. Raises Refused."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}") from None
    if path.suffix in {".yaml", ".yml"}:
        try:
            found = yaml.load(text, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise Refused(f"{path}: not YAML: {error}") from None
        if not isinstance(found, list):
            raise Refused(f"{path}: a list of probes is wanted")
        yield from ((f"{path}: entry {number}", entry) for number, entry in enumerate(found, 1))
        return
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{number}: not JSON: {error}")
    if problems:
        raise Refused("\n".join(problems))


class _Entry(msgspec.Struct):
    id: str
    check: Check
    kind: str = ""
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None


def _probe(value: Any) -> Probe:
    entry = msgspec.convert(value, _Entry)
    if fault := _fault(entry, value):
        raise ValueError(fault)
    rest = {name: given for name, given in value.items() if name not in {"id", "kind", "check", "prompt"}}
    asked = {"messages": [{"role": "user", "content": entry.prompt}]} if entry.prompt is not None else {}
    body = {**asked, **rest}
    check = msgspec.json.encode(entry.check).decode()
    try:
        asked_for = json.dumps(body, allow_nan=False)
        json.dumps(body, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # dates of YAML, NaN, half a surrogate pair
        raise ValueError(f"it cannot be sent as JSON: {error}") from None
    return Probe(entry.id, entry.kind, body, entry.check, f"{entry.id}#{digest(asked_for, check)}")


def _fault(entry: _Entry, value: Mapping[str, Any]) -> str | None:
    for name, text, least in (("id", entry.id, 1), ("kind", entry.kind, 0)):
        if not least <= len(text) <= NAME_CHARS or not (text.isprintable() or not text) or text != text.strip():
            return f"{name} must be a printable name of at most {NAME_CHARS} characters"
    if (entry.prompt is None) == (entry.messages is None):
        return "give either prompt or messages"
    if ours := next((name for name in value if name in OURS), None):
        return f"{ours} cannot be set: {OURS[ours]}"
    return entry.check.fault()


def _as_seen(probe: Probe) -> str:
    """What the learner tells requests by (`gateway/seen`): of each end of the texts so many characters."""
    said = [str(message.get("content")) for message in probe.body["messages"]]
    ends = [(text[:HASHED_CHARS], text[-HASHED_CHARS:], len(text)) for text in (*said[:1], *said[-1:])]
    return digest(repr(ends), str([len(text) for text in said]), str(len(probe.body.get("tools") or ())))


def digest(*said: str) -> str:
    """Short, and the same for the same texts alone."""
    return hashlib.blake2b("\0".join(said).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
