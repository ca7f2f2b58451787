"""YAML as the policy reads it: types, variables, duplicates, anchors, several files, and exact places."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stores.policy_yaml import Document, PolicyError, Source, digest, read_document, read_sources, resolve


def read(text: str, /, **env: str) -> Document:
    return read_document([Source("p.yaml", text.encode())], env)


def syntax_problems(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read_document([Source("p.yaml", text if isinstance(text, bytes) else text.encode())], {})
    return [str(problem) for problem in caught.value.problems]


def problems(document: Document) -> list[str]:
    return [str(problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("False", False), ("3", 3), ("-3", -3),
        ("1.5", 1.5), ("1e-4", 1e-4), (".5", 0.5), ("5.", 5.0), ("+1.5E3", 1500.0),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("2024-05-13", "2024-05-13"), ("1:30", "1:30"),
        ("0x1F", "0x1F"), (".inf", ".inf"), (".nan", ".nan"), ("1_000", "1_000"), ("gpt-4o", "gpt-4o"),
    ],
)  # fmt: skip
def test_plain_scalars_are_yaml_1_2(text: str, value: Any) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert read("a: '1'\nb: \"true\"\nc: 1\n").data == {"a": "1", "b": "true", "c": 1}


def test_places_are_those_of_values_and_of_the_keys_of_mappings() -> None:
    document = read("a:\n  b: 1\n  c:\n    d: [x,\n        y]\n")
    at = {path: (mark.line, mark.column) for path, mark in document.marks.items()}
    assert at[("a",)] == (1, 1)
    assert at[("a", "b")] == (2, 6)
    assert at[("a", "c")] == (3, 3)
    assert at[("a", "c", "d", 1)] == (5, 9)
    assert document.problem(("a", "c", "nothing", "here"), "x").line == 3


# Variables


def test_variables_are_replaced_wherever_text_is() -> None:
    document = read(
        'a: ${A}\nb: "x-${A}-${B:-b}"\nc: ${C:-1.5}\nd: "$${A} $A ${E:-}"\nl: [" ${A} "]\n', A="1", B="", C=""
    )
    # Text from the environment stays text: the models decide whether it is a number.
    assert document.data == {"a": "1", "b": "x-1-b", "c": "1.5", "d": "${A} $A ", "l": [" 1 "]}
    assert not document.unset
    assert not document.problems


def test_a_value_from_the_environment_cannot_change_the_structure() -> None:
    assert read("a: ${A}\nb: 1\n", A="x\nb: 2\n${B} *c !d").data == {"a": "x\nb: 2\n${B} *c !d", "b": 1}


def test_variables_without_value_are_remembered_with_their_path() -> None:
    document = read("a:\n  b: ${NOT_SET}/${NOR_THIS}\n  c: ${EMPTY}\n", EMPTY="")
    assert document.unset == {("a", "b"): ("NOT_SET", "NOR_THIS"), ("a", "c"): ("EMPTY",)}


@pytest.mark.parametrize("value", ["${", "${}", "${1A}", "${A", "${A-b}", "${A:-${B}}"])
def test_a_malformed_variable_is_a_problem(value: str) -> None:
    expected = "p.yaml:2:4: b: malformed variable: write ${NAME} or ${NAME:-default}"
    assert expected in problems(read(f"a: 1\nb: '{value}'\n"))


# Structure


def test_duplicate_keys_are_problems_at_the_second() -> None:
    assert problems(read("a: 1\nb: {c: 1, c: 2}\na: 3\n")) == [
        "p.yaml:3:1: a: duplicate key; the first is in p.yaml, line 1",
        "p.yaml:2:11: b.c: duplicate key; the first is in p.yaml, line 2",
    ]


def test_anchors_and_merges_work_and_what_is_written_wins() -> None:
    document = read(
        "x-base: &base {tier: 1, tools: true, n: {k: '${V}'}}\nx-more: &more {tier: 9, vision: true}\n"
        "models:\n  a: {<<: *base, tier: 2}\n  b:\n    <<: [*base, *more]\n  c: *more\n",
        V="v",
    )
    assert document.data == {
        "models": {
            "a": {"tier": 2, "tools": True, "n": {"k": "v"}},
            "b": {"tier": 1, "tools": True, "n": {"k": "v"}, "vision": True},
            "c": {"tier": 9, "vision": True},
        }
    }


def test_what_x_keys_hold_is_not_read() -> None:
    document = read("x-notes: {a: '${NOT_SET}', b: !!int 3}\nversion: 1\n")
    assert document.data == {"version": 1}
    assert not document.unset
    assert not document.problems


def test_empty_sections_and_fields_are_as_if_left_out_but_empty_models_are_kept() -> None:
    assert read("keys:\ncaps:\n  task:\nmodels:\n  a:\n  b:\n    tier:\n").data == {
        "caps": {},
        "models": {"a": None, "b": {}},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [*a]\n", "p.yaml:1:4: a.0: an alias must not contain itself"),
        ("a: &a\n  b: *a\n", "p.yaml:1:4: a.b: an alias must not contain itself"),
        ("a: !secret x\n", "p.yaml:1:4: a: YAML tags (`!...`) are not supported"),
        ("a: !!int 3\n", "p.yaml:1:4: a: YAML tags (`!...`) are not supported"),
        ("a: !m {b: 1}\n", "p.yaml:1:4: a: YAML tags (`!...`) are not supported"),
        ("a:\n  ? [x]\n  : 1\n", "p.yaml:2:5: a: a key must be plain text"),
        ("a: {<<: 3}\n", "p.yaml:1:9: a: `<<` takes a mapping, or a list of mappings"),
        ("a: " + "[" * 33 + "]" * 33, "p.yaml:1:36: a" + ".0" * 31 + ": is nested too deeply"),
    ],
)
def test_what_yaml_allows_and_a_policy_does_not(text: str, expected: str) -> None:
    assert problems(read(text)) == [expected]


@pytest.mark.parametrize(
    "level", ["[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]", "{{<<: [{0}, {0}, {0}, {0}, {0}, {0}, {0}]}}"]
)
def test_aliases_of_aliases_cannot_unfold_without_bound(level: str) -> None:
    lines = ["a0: &a0 {b: 1}", *(f"a{n}: &a{n} " + level.format(f"*a{n - 1}") for n in range(1, 12))]
    with pytest.raises(PolicyError, match=r"p\.yaml:\d+:\d+: its aliases unfold into too many values"):
        read("\n".join(lines))


def test_a_file_that_is_nested_without_end_is_no_policy() -> None:
    with contextlib.suppress(PolicyError):
        assert problems(read("a: " + "[" * 20_000 + "]" * 20_000))


def test_a_number_of_any_length_can_be_read() -> None:
    assert read("a: " + "9" * 5000).data == {"a": float("inf")}  # which no field takes


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "p.yaml:3:"),
        ("a: 1\n b: 2\n", "p.yaml:2:"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:"),
        ("a: 'sk-secret\n", "p.yaml:2:"),
        ("a: 1\nb: *sk-secret\n", "p.yaml:2:"),
        ("a: 1\nb: @sk-secret\n", "p.yaml:2:"),
        ("a: 1\nb: \x00sk-secret\n", "p.yaml:1:"),
        (b"a: 1\nb: \xff\xfe sk-secret\n", "p.yaml:2:"),
        ("- sk-secret\n", "p.yaml:1:"),
        ("sk-secret\n", "p.yaml:1:"),
    ],
)
def test_what_is_not_yaml_is_one_problem_with_its_line_and_without_the_text(text: str | bytes, place: str) -> None:
    found = syntax_problems(text)
    assert [line[: len(place)] for line in found] == [place]
    assert "sk-secret" not in found[0]


def test_an_unquoted_variable_in_braces_gets_a_hint() -> None:
    (found,) = syntax_problems("a: 1\nb: {c: ${D}}\n")
    assert found.startswith("p.yaml:2:")
    assert "needs quotes" in found


def test_a_tab_and_a_missing_bracket_are_named() -> None:
    assert syntax_problems("a: 1\nb:\n\tc: ${D}\n") == [
        "p.yaml:3:1: is not YAML: it is indented with a tab; YAML wants spaces"
    ]
    (found,) = syntax_problems("a: {b: 1\nc: 2\n")
    assert found.endswith("did not find expected ',' or '}'")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(PolicyError):
        assert isinstance(read(f"a: 1\n{text}").data, dict)


# Several files


def folder(path: Path, **files: str) -> list[Source]:
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return list(read_sources(path))


def test_a_directory_is_its_yaml_files_in_order_of_name(tmp_path: Path) -> None:
    sources = folder(
        tmp_path,
        b__yml="version: 1\nmodels: {two: {tier: 2}}\nkeys: [y]\n",
        a__yaml="version: 1\nmodels: {one: {tier: 1}}\nkeys: [x]\n",
        c__txt="not: [yaml",
        policy__schema__json="{}",
    )
    (tmp_path / ".hidden.yaml").write_text("not: [yaml")
    document = read_document(sources, {})
    assert document.data == {"version": 1, "models": {"one": {"tier": 1}, "two": {"tier": 2}}, "keys": ["x", "y"]}
    assert document.marks[("models", "two")].file.endswith("b.yml")
    assert not document.problems


def test_one_name_in_two_files_is_a_problem_in_the_second(tmp_path: Path) -> None:
    sources = folder(
        tmp_path,
        a__yaml="version: 1\non_cut: error\nmodels: {m: {tier: 1}}\ncaps: {task: {}}\n",
        b__yaml="version: 2\non_cut: error\nmodels:\n  m: {tier: 2}\ncaps: {task: {}, key: {}}\n",
    )
    first = str(tmp_path / "a.yaml")
    document = read_document(sources, {})
    assert sorted((p.line, p.where, p.message) for p in document.problems) == [
        (1, "version", f"is already set in {first}, line 1"),
        (2, "on_cut", f"is already set in {first}, line 2"),
        (4, "models.m", f"duplicate key; the first is in {first}, line 3"),
        (5, "caps.task", f"duplicate key; the first is in {first}, line 4"),
    ]
    assert {Path(p.file).name for p in document.problems} == {"b.yaml"}


def test_every_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        read_document(folder(tmp_path, a__yaml="a: [", b__yaml="b: 1", c__yaml="c: {"), {})
    assert [Path(problem.file).name for problem in caught.value.problems] == ["a.yaml", "c.yaml"]


def test_what_would_be_waited_for_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path, tmp_path / "pipe.yaml"):
        with pytest.raises(PolicyError, match=r"pipe\.yaml:1:1: is not a file"):
            read_sources(path)
    (tmp_path / "pipe.yaml").unlink()
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(PolicyError, match=r"folder\.yaml:1:1: is not a file"):
        read_sources(tmp_path)


def test_what_is_not_there_or_empty_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml:1:1: cannot be read: No such file"):
        read_sources(tmp_path / "nowhere.yaml")
    with pytest.raises(PolicyError, match=r"holds no \.yaml or \.yml file"):
        read_sources(tmp_path)


def test_the_digest_tells_texts_apart_and_not_places() -> None:
    one, two = Source("a", b"x"), Source("b", b"y")
    assert digest([one]) == digest([Source("elsewhere", b"x")]) != digest([two])
    assert digest([one, two]) != digest([Source("a", b"xy")])
