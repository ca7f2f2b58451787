"""The file of `bursar probe`: what is read, and what is refused, with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.commands.ending import Refused
from app.commands.probe_checks import Number, is_right
from app.commands.probe_set import Probe, digest_of, read_set
from tests.conftest import ROOT

ONE: dict[str, Any] = {"id": "one", "prompt": "1 + 1?", "max_tokens": 9, "check": {"number": 2}}
TWO: dict[str, Any] = {
    "id": "two", "kind": "tools",
    "messages": [{"role": "system", "content": "é"}, {"role": "user", "content": "Rome?"}],
    "tools": [{"type": "function", "function": {"name": "f"}}], "check": {"tool_call": {"name": "f"}},
}  # fmt: skip


def written(tmp_path: Path, *entries: Any, name: str = "probes.jsonl") -> Path:
    path = tmp_path / name
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) if name.endswith("l") and "." in name else json.dumps(entries), encoding="utf-8")
    return path


def test_a_probe_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    one, two = read_set(written(tmp_path, ONE, "", TWO))
    assert (one.id, one.kind, two.kind) == ("one", "", "tools")
    sent = one.request("auto")
    assert json.loads(sent) == {
        "model": "auto", "messages": [{"role": "user", "content": "1 + 1?"}], "max_tokens": 9,
    }  # fmt: skip
    assert json.loads(two.request("auto")) == {
        "model": "auto", "messages": TWO["messages"], "tools": TWO["tools"],
    }  # fmt: skip
    assert "é".encode() in two.request("auto")
    again = read_set(written(tmp_path, TWO, ONE, name="again.jsonl"))
    assert [probe.request("auto") for probe in again] == [two.request("auto"), sent]
    assert [probe.name for probe in again] == [two.name, one.name]
    assert digest_of(again) == digest_of([one, two]) != digest_of([one])


@pytest.mark.parametrize("change", [{"prompt": "1 + 2?"}, {"max_tokens": 8}, {"check": {"number": 3}}])
def test_changed_it_is_another(tmp_path: Path, change: dict[str, Any]) -> None:
    (one,), (other,) = (read_set(written(tmp_path, entry)) for entry in (ONE, {**ONE, **change}))
    assert (one.id, one.name == other.name) == (other.id, False)
    assert read_set(written(tmp_path, {**ONE, "kind": "sums"}))[0].name == one.name


def test_yaml_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "probes.yaml"
    path.write_text("- {id: one, prompt: 1 + 1?, max_tokens: 9, check: {number: 2}}\n")
    assert read_set(path) == read_set(written(tmp_path, ONE))
    path.write_text("- {id: one, messages: [{role: user, content: 2024-01-31}], check: {number: 2}}\n")
    with pytest.raises(Refused, match=r"entry 1: it cannot be sent as JSON: .*date"):
        read_set(path)
    path.write_text("probes: []")
    with pytest.raises(Refused, match="a list of probes is wanted"):
        read_set(path)
    path.write_text("- {")
    with pytest.raises(Refused, match="not YAML"):
        read_set(path)


def test_what_windows_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(json.dumps(one).encode() + b"\r\n" for one in (ONE, TWO)))
    assert read_set(path) == read_set(written(tmp_path, ONE, TWO))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{", ":2: not JSON"),
        ([], ":2: Expected `object`, got `array`"),
        ({**TWO, "check": {"number": "x"}}, r":2: .*number"),
        ({**TWO, "check": {"equal": "x"}}, ":2: .*unknown field `equal`"),
        ({**TWO, "check": {}}, ":2: a check is one of"),
        ({**TWO, "prompt": "x"}, ":2: give either prompt or messages"),
        ({"id": "x", "check": {"number": 1}}, ":2: give either prompt or messages"),
        ({**TWO, "id": ""}, ":2: id must be a printable name"),
        ({**TWO, "id": "a\nb"}, ":2: id must be a printable name"),
        ({**TWO, "stream": True}, ":2: stream cannot be set: answers are asked for whole"),
        ({**TWO, "model": "m"}, ":2: model cannot be set"),
        ({**TWO, "id": "one"}, r":2: it has the id of the one at .*:1"),
        ("[" * 100_000 + "]" * 100_000, ":2: not JSON"),
        ('{"id": "x", "prompt": "\\ud800", "check": {"number": 1}}', ":2: it cannot be sent as JSON"),
        ('{"id": "x", "prompt": "x", "temperature": NaN, "check": {"number": 1}}', ":2: it cannot be sent as JSON"),
        ({**ONE, "id": "other"}, r":2: it looks to the gateway like the one at .*:1"),
    ],
)
def test_what_is_no_probe_is_told_with_its_line(tmp_path: Path, entry: Any, problem: str) -> None:
    with pytest.raises(Refused, match=problem):
        read_set(written(tmp_path, ONE, entry))


def test_long_texts_that_differ_in_the_middle_alone_are_told_before_they_confuse(tmp_path: Path) -> None:
    """The learner tells requests apart by their ends."""
    one, other = ("a" * 300 + middle + "b" * 300 for middle in ("x", "y"))
    with pytest.raises(Refused, match="looks to the gateway like"):
        read_set(written(tmp_path, {**ONE, "prompt": one}, {**ONE, "id": "two", "prompt": other}))
    assert len(read_set(written(tmp_path, {**ONE, "prompt": one}, {**ONE, "id": "two", "prompt": "q" + other}))) == 2


def test_no_file_and_no_probe(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        read_set(tmp_path / "none.jsonl")
    with pytest.raises(Refused, match="there is no probe in it"):
        read_set(written(tmp_path, ""))


def test_the_example_is_three_kinds_of_questions_with_answers() -> None:
    probes = read_set(ROOT / "policies" / "probes.jsonl")
    assert {probe.kind for probe in probes} == {"math", "tool_call", "extraction"}
    assert len(probes) == 33
    for probe in probes:
        assert isinstance(probe.body["max_tokens"], int)
        assert is_right(probe.check, ideal(probe)), probe.id
        assert not is_right(probe.check, {"content": "I cannot help with that."}), probe.id


def ideal(probe: Probe) -> dict[str, Any]:
    """An answer that is right by the check."""
    check = probe.check
    if check.tool_call is not None:
        arguments = json.dumps(check.tool_call.arguments)
        return {"tool_calls": [{"function": {"name": check.tool_call.name, "arguments": arguments}}]}
    if check.json_schema is not None:
        said = {name: member["const"] for name, member in check.json_schema["properties"].items()}
        return {"content": f"```json\n{json.dumps(said)}\n```"}
    number = check.number.value if isinstance(check.number, Number) else check.number
    return {"content": f"3 steps lead to **{number}**."}
