"""Rows of outcomes: what is read, what is said of lines that cannot be, question groups, folds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.rows import Outcome, Row, RowsError, deduplicated, folds, groups, question_key, read_rows, view_of
from tests.routers.made_rows import line_of, made_rows, write_rows

GOOD: dict[str, Any] = {"id": "x:1", "source": "x", "family": "f", "prompt": "Why?", "outcomes": {"m": {"score": 1}}}


def row(prompt: str, source: str = "s", family: str = "f", score: float = 1.0) -> Row:
    return Row(f"{source}:{prompt}", source, family, prompt, (), {"m": Outcome(score)})


def test_rows_are_read_back_from_plain_and_gzipped_files(tmp_path: Path) -> None:
    rows = made_rows(6)
    write_rows(tmp_path / "one.jsonl", rows[:3])
    write_rows(tmp_path / "two.jsonl.gz", rows[3:])
    (tmp_path / "sealed").mkdir()
    write_rows(tmp_path / "sealed" / "three.jsonl", rows)
    (tmp_path / "README.md").write_text("not rows")
    assert read_rows(tmp_path) == rows
    assert read_rows(tmp_path / "one.jsonl") == rows[:3]


def test_what_is_missing_is_not_recorded_and_never_0(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps({"prompt": "Why?", "outcomes": {"m": {"score": 0.5, "out_chars": 8}, "n": {}}}))
    (read,) = read_rows(file)
    assert (read.id, read.source, read.family) == ("bench.jsonl:1", "bench", "bench")
    assert read.outcomes == {"m": Outcome(0.5, None, None, 8.0, None)}


def test_what_a_table_writes_for_missing_is_not_recorded_and_costs_no_other_outcome(tmp_path: Path) -> None:
    file = tmp_path / "table.jsonl"
    outcomes = '{"a": null, "b": NaN, "c": {"score": NaN}, "d": {"score": 1, "cost_usd": NaN, "out_tokens": null}}'
    file.write_text(f'{{"prompt": "Why?", "tools": null, "family": null, "outcomes": {outcomes}}}')
    (read,) = read_rows(file)
    assert (read.family, read.outcomes) == ("table", {"d": Outcome(1.0)})


def test_one_line_in_another_encoding_costs_that_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    good = json.dumps(GOOD).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n" + good.replace(b"Why", b"caf\xe9") + b"\n" + good)
    notes: list[str] = []
    assert len(read_rows(file, notes)) == 2
    assert len(notes) == 1
    assert notes[0].startswith("mixed.jsonl:2: not UTF-8")


def test_a_first_line_without_outcomes_costs_that_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "late.jsonl"
    file.write_text(json.dumps({"id": "x:0", "prompt": "Who?"}) + "\n" + json.dumps(GOOD))
    notes: list[str] = []
    assert [row.id for row in read_rows(file, notes)] == ["x:1"]
    assert notes == ["late.jsonl:1: no `outcomes`; skipped"]


def test_half_a_surrogate_pair_is_read_as_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(
        json.dumps({**GOOD, "source": "\ud800", "family": "\U0001f600", "outcomes": {"\udfff": {"score": 1}}})
    )
    (read,) = read_rows(file)
    assert (read.source, read.family, list(read.outcomes)) == ("?", "\U0001f600", ["?"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps({**GOOD, "prompt": 3}), "`prompt` must be a string"),
        (json.dumps({**GOOD, "outcomes": []}), "`outcomes` an object"),
        (json.dumps({**GOOD, "tools": "none"}), "`tools` must be a list"),
        (json.dumps({**GOOD, "outcomes": {"m": "right"}}), "m: an outcome must be an object, or a score"),
        (json.dumps({**GOOD, "outcomes": {"m": {"score": 2}}}), "between 0 and 1"),
        (json.dumps({**GOOD, "outcomes": {"m": {"score": "yes"}}}), "`score` must be a number"),
        (json.dumps({**GOOD, "outcomes": {"m": {"score": 1, "cost_usd": -1}}}), "`cost_usd` must be a number"),
        ('{"prompt": "a", "outcomes": {"m": {"score": Infinity}}}', "`score` must be"),
        (json.dumps({**GOOD, "outcomes": {"m": {"score": 1, "in_tokens": 10**400}}}), "`in_tokens` must be a number"),
        ('{"prompt": "a", "outcomes": {"m": {"score": ' + "9" * 5000 + "}}}", "not JSON"),
    ],
)
def test_a_bad_line_is_named_or_noted(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n" + line + "\n" + json.dumps({**GOOD, "id": "x:4"}) + "\n")
    with pytest.raises(RowsError, match=r"x\.jsonl:3: .*" + says.replace("`", ".")):
        read_rows(file)
    notes: list[str] = []
    assert [read.id for read in read_rows(file, notes)] == ["x:1", "x:4"]
    assert len(notes) == 1
    assert says in notes[0]


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + "{\n" * 10)
    notes: list[str] = []
    assert len(read_rows(file, notes)) == 1
    assert len(notes) == 4
    assert notes[-1] == "x.jsonl: 7 more lines skipped"


def test_other_files_are_skipped_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text('{"messages": []}\n{"messages": []}\n')
    write_rows(tmp_path / "x.jsonl", made_rows(2))
    notes: list[str] = []
    assert len(read_rows(tmp_path, notes)) == 2
    assert notes == ["traces.jsonl: skipped, its objects have no `outcomes`"]


def test_a_file_cut_short_gives_what_it_holds(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(line_of(r)) + "\n" for r in made_rows(400)).encode())
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(whole[: len(whole) // 2])
    notes: list[str] = []
    assert 0 < len(read_rows(file, notes)) < 400
    assert "cannot be read further" in notes[-1]
    with pytest.raises(RowsError, match="cannot be read further"):
        read_rows(file)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match="no such file"):
        read_rows(tmp_path / "none")
    with pytest.raises(RowsError, match=r"no \*\.jsonl"):
        read_rows(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RowsError, match=r"no rows with outcomes; a row is \{.*\}\n.*skipped"):
        read_rows(tmp_path)


def test_outcomes_under_another_name_are_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({**GOOD, "outcomes": {"m": {"correct": 1}}}))
    with pytest.raises(RowsError, match=r"no rows with outcomes.*\nx\.jsonl: no outcome has a `score`"):
        read_rows(tmp_path)


@pytest.mark.parametrize("score", [1, 0.25, True, False, 0])
def test_an_outcome_may_be_its_score_alone(tmp_path: Path, score: float) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({**GOOD, "outcomes": {"m": score}}))
    (read,) = read_rows(tmp_path)
    assert read.outcomes == {"m": Outcome(float(score))}


def test_a_file_of_another_scale_is_not_read_by_its_failures_alone(tmp_path: Path) -> None:
    lines = [json.dumps({**GOOD, "id": str(n), "outcomes": {"m": {"score": 100 * (n % 2)}}}) for n in range(40)]
    (tmp_path / "percent.jsonl").write_text("\n".join(lines))
    write_rows(tmp_path / "x.jsonl", made_rows(2))
    notes: list[str] = []
    assert len(read_rows(tmp_path, notes)) == 2
    assert notes == ["percent.jsonl: skipped, on 20 lines `score` is above 1: scores must lie between 0 and 1"]


def test_a_source_that_lists_only_successes_gets_its_failures(tmp_path: Path) -> None:
    one = {**GOOD, "outcomes": {"m": {"score": 1}, "n": {"score": 1}}}
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(json.dumps(r) for r in (one, GOOD, {**GOOD, "outcomes": {}})))
    notes: list[str] = []
    scores = [{m: o.score for m, o in read.outcomes.items()} for read in read_rows(file, notes)]
    assert scores == [{"m": 1.0, "n": 1.0}, {"m": 1.0, "n": 0.0}, {"m": 0.0, "n": 0.0}]
    assert "only successes" in notes[0]


def test_one_failure_says_that_what_is_missing_was_not_recorded(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(
        "\n".join(json.dumps({**GOOD, "outcomes": o}) for o in ({"m": {"score": 0}}, {"n": {"score": 1}}, {}))
    )
    assert [len(read.outcomes) for read in read_rows(file)] == [1, 1, 0]


def test_one_tool_may_stand_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({**GOOD, "tools": {"name": "look"}}))
    (read,) = read_rows(file)
    view = view_of(read)
    assert (view.n_tools, view.last_user, view.first_user) == (1, "Why?", "Why?")
    assert view.tool_schema_chars == len('{"name":"look"}')


def test_a_question_is_known_again_in_other_clothes() -> None:
    same = [
        "In general, how does an ion move across a membrane?\nA. fast\nB. slowly\nAnswer:",
        "[Clinical Knowledge]\nIn general, how does an ion move across a membrane?\n  (A) slowly\n  (B) fast\nAnswer",
        "Question: In general, how does an ion move across a MEMBRANE\nChoices: (A) fast, (B) slowly",
        "In general, how does an ion move across a membrane?",
    ]
    assert len({question_key(prompt) for prompt in same}) == 1


def test_a_question_that_says_nothing_is_told_apart_by_its_options() -> None:
    assert question_key("Which is true?\nA) tea\nB) milk") != question_key("Which is true?\nA) ink\nB) sand")


def test_deduplicated_keeps_one_of_each_source() -> None:
    rows = [row("Why is it so?"), row("why is it so"), row("Why is it so?", source="t"), row("Why not?")]
    assert deduplicated(rows) == [rows[0], rows[2], rows[3]]


prompts = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.sampled_from("pqr")), min_size=4)


@given(prompts, st.sampled_from(["random", "family", "source"]), st.integers(0, 5))
def test_a_question_is_never_on_both_sides(which: list[tuple[str, str, str]], kind: Any, seed: int) -> None:
    rows = [row(f"What about {letter}, for once and for all?", source, family) for letter, family, source in which]
    group = groups(rows)
    tested: list[int] = []
    for train, test in folds(rows, kind, seed):
        assert not set(group[train]) & set(group[test])
        if kind != "random":
            unit = [r.family if kind == "family" else r.source for r in rows]
            assert not {unit[i] for i in train} & {unit[i] for i in test}
        tested += test.tolist()
    assert len(tested) == len(set(tested))


def test_folds_test_every_row_once_and_are_the_same_for_a_seed() -> None:
    rows = made_rows(60, families=[f"f{i}" for i in range(12)])
    for kind in ("random", "family"):
        first, again = folds(rows, kind, 3), folds(rows, kind, 3)
        assert len(first) == 5
        assert np.array_equal(np.sort(np.concatenate([test for _, test in first])), np.arange(60))
        assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
        assert {len(test) for _, test in first} <= {10, 12, 15, 5}
    assert folds(rows, "source", 0) == []
