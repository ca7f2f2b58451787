"""Rows of real outcomes: one question, and how each of many models did on it. Read for training and evaluation only.

The format is one JSON object a line, gzipped or not: `{id, source, family, prompt, tools?, outcomes: {model:
{score, in_tokens?, out_tokens?, out_chars?, cost_usd?}}}`, `score` in [0, 1]; a key that is missing, `null` or `NaN`
was not recorded.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from routers.base import RequestView

FoldKind = Literal["random", "family", "source"]
CHARS_PER_TOKEN: Final = 4.0
MAX_FOLDS: Final = 5
MAX_NOTED: Final = 3
"""Bad lines of one file that are named one by one; the others are counted."""
GENERIC_STEM_CHARS: Final = 32
"""A question shorter than this ("Which statement is true?") is told apart by its options."""

Indices = np.ndarray[Any, np.dtype[np.int64]]

OTHER_SCALE: Final = 0.05
"""The share of a file's lines with scores beyond 1, and more than MAX_NOTED of them, from which it counts as one of
another scale, such as per cent. What could be read of it would be its failures."""
FORMAT: Final = '{"prompt": "...", "outcomes": {"model": {"score": 0 to 1}}}'


class RowsError(ValueError):
    """The data cannot be used; the message names the file, and the line where there is one."""


class _BeyondOne(RowsError):
    """A score above 1."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one model did on one question. `score` is in [0, 1]; None stands for what was not recorded."""

    score: float
    in_tokens: float | None = None
    out_tokens: float | None = None
    out_chars: float | None = None
    cost_usd: float | None = None

    @property
    def length_tokens(self) -> float | None:
        """How long the answer is: as recorded, else by its characters."""
        if self.out_tokens is None and self.out_chars is not None:
            return self.out_chars / CHARS_PER_TOKEN
        return self.out_tokens


@dataclass(frozen=True, slots=True)
class Row:
    """One question with its outcomes by model name. `tools` are function schemas as the request carried them."""

    id: str
    source: str
    family: str
    prompt: str
    tools: tuple[Mapping[str, Any], ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


def read_rows(path: Path | str, notes: list[str] | None = None) -> list[Row]:
    """Every row of a file, or of a folder's own `*.jsonl` and `*.jsonl.gz` files in the order of their names.

    A file none of whose objects has `outcomes` is another kind of data, and skipped. Without `notes` the first bad
    line raises RowsError; with it, bad lines are skipped, as is a file whose scores are on another scale, and what was
    skipped is appended there.
    """
    path = Path(path)
    said: list[str] = [] if notes is None else notes
    rows: list[Row] = []
    for file in _files(path):
        rows += _read_file(file, said, strict=notes is None)
    if not any(row.outcomes for row in rows):
        reasons = "".join(f"\n{note}" for note in said)
        raise RowsError(f"{path}: no rows with outcomes; a row is {FORMAT}{reasons}")
    return _with_failures(rows, said)


def view_of(row: Row) -> RequestView:
    """The request that a row's models were asked, as a router sees it."""
    schemas = sum(len(json.dumps(tool, ensure_ascii=False, separators=(",", ":"))) for tool in row.tools)
    return RequestView(row.prompt, first_user=row.prompt, n_tools=len(row.tools), tool_schema_chars=schemas)


def deduplicated(rows: Sequence[Row]) -> list[Row]:
    """The first row of each source with the same prompt and the same tools."""
    first: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        first.setdefault((row.source, _plain(row.prompt), json.dumps(row.tools, sort_keys=True)), row)
    return list(first.values())


def groups(rows: Sequence[Row]) -> Indices:
    """A number for each row, the same for rows that ask the same question, in whatever file and with whatever options.

    MMLU's questions recur in four of the benchmarks with other options, prefixes and instructions around them: a group
    must never stand on both sides of a split.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(question_key(row.prompt), len(numbers)) for row in rows], dtype=np.int64)


_PREFIX = re.compile(r"^\s*(?:\[[^\]\n]{1,80}\]\s*\n|question\s*:)+", re.IGNORECASE)
_OPTIONS = re.compile(r"\n\s*\(?[A-J1][).:]\s|\n\s*(?:choices|options|answers?|option 1)\s*:|\s\(A\)\s", re.IGNORECASE)
_NOT_WORD = re.compile(r"[\W_]+")


def question_key(prompt: str) -> str:
    """The question in a prompt without its options, its case and its punctuation."""
    text = _PREFIX.sub("", prompt)
    found = _OPTIONS.search(text)
    stem = _plain(text[: found.start()]) if found else ""
    return stem if len(stem) >= GENERIC_STEM_CHARS else _plain(text)


def folds(rows: Sequence[Row], kind: FoldKind, seed: int, *, parts: int = MAX_FOLDS) -> list[tuple[Indices, Indices]]:
    """(training, test) row indices of a cross-validation; every row is tested once, and no group is on both sides.

    `random`: up to `parts` folds over groups. `family`: whole families are held out, by name whatever their source,
    bundled into up to `parts` folds of like size. `source`: one fold a source. Fewer than two units make no fold.
    Training rows that ask a question of the test fold are left out.
    """
    group = groups(rows)
    if kind == "random":
        units: list[str] = [str(number) for number in group]
    else:
        units = [row.family.strip().lower() if kind == "family" else row.source for row in rows]
    fold_of = _bundle(units, len(set(units)) if kind == "source" else parts, seed)
    fold = np.array([fold_of[unit] for unit in units], dtype=np.int64)
    split: list[tuple[Indices, Indices]] = []
    for number in sorted(set(fold_of.values())):
        test = np.flatnonzero(fold == number)
        train = np.flatnonzero((fold != number) & ~np.isin(group, group[test]))
        if len(train):
            split.append((train, test))
    return split


def _bundle(units: Sequence[str], parts: int, seed: int) -> dict[str, int]:
    """Units shuffled, then the largest first into the smallest fold."""
    sizes = Counter(units)
    names = sorted(sizes)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -sizes[name])
    load = [0] * max(min(parts, len(names)), 1)
    fold_of: dict[str, int] = {}
    for name in names:
        smallest = load.index(min(load))
        fold_of[name] = smallest
        load[smallest] += sizes[name]
    return fold_of


def _plain(text: str) -> str:
    return _NOT_WORD.sub(" ", text.lower()).strip()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RowsError(f"{path}: no such file or folder")
    found = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise RowsError(f"{path}: no *.jsonl or *.jsonl.gz files")
    return found


def _lines(file: Path) -> Iterator[bytes]:
    """The file's lines, each decoded by who reads it: one in another encoding is no reason to lose the others."""
    with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as lines:
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix(codecs.BOM_UTF8)


def _read_file(file: Path, notes: list[str], *, strict: bool) -> list[Row]:
    rows: list[Row] = []
    bad: list[str] = []
    number = silent = beyond = 0
    try:
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            try:
                row = _row(line, file, number)
            except RowsError as error:
                if strict:
                    raise
                bad.append(str(error))
                beyond += isinstance(error, _BeyondOne)
                continue
            if row is not None:
                rows.append(row)
            else:
                silent += 1
                bad.append(f"{file.name}:{number}: no `outcomes`")
    except (OSError, EOFError, zlib.error) as error:
        problem = f"{file.name}:{number + 1}: the file cannot be read further: {error}"
        if strict:
            raise RowsError(problem) from None
        bad.append(problem)
    if silent and not rows and silent == len(bad):
        notes.append(f"{file.name}: skipped, its objects have no `outcomes`")
        return []
    if beyond > max(MAX_NOTED, OTHER_SCALE * (len(rows) + len(bad))):
        notes.append(f"{file.name}: skipped, on {beyond} lines `score` is above 1: scores must lie between 0 and 1")
        return []
    if rows and not any(row.outcomes for row in rows):
        notes.append(f"{file.name}: no outcome has a `score`")
    notes += [f"{problem}; skipped" for problem in bad[:MAX_NOTED]]
    if len(bad) > MAX_NOTED:
        notes.append(f"{file.name}: {len(bad) - MAX_NOTED} more lines skipped")
    return rows


def _row(line: bytes, file: Path, number: int) -> Row | None:
    """The row of a line, None where it holds no outcomes; RowsError where it is not in the format."""
    where = f"{file.name}:{number}"
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RowsError(f"{where}: not UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RowsError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RowsError(f"{where}: not a JSON object")
    if "outcomes" not in value:
        return None
    prompt, outcomes, tools = value.get("prompt"), value["outcomes"], value.get("tools") or []
    tools = [tools] if isinstance(tools, dict) else tools
    if not isinstance(prompt, str) or not isinstance(outcomes, dict):
        raise RowsError(f"{where}: `prompt` must be a string and `outcomes` an object")
    if not isinstance(tools, list):
        raise RowsError(f"{where}: `tools` must be a list of schemas, or one")
    source = _whole(value.get("source") or file.name.split(".")[0])
    return Row(
        id=_whole(value.get("id") or where),
        source=source,
        family=_whole(value.get("family") or source),
        prompt=_whole(prompt),
        tools=tuple(tool if isinstance(tool, dict) else {"name": tool} for tool in tools),
        outcomes={
            _whole(model): outcome
            for model, recorded in outcomes.items()
            if (outcome := _outcome(recorded, f"{where}: {model}")) is not None
        },
    )


def _whole(text: Any) -> str:
    """A text with a mark for each half of a surrogate pair: JSON can say these, UTF-8 and so the results cannot."""
    return str(text).encode("utf-8", "replace").decode()


def _outcome(recorded: Any, where: str) -> Outcome | None:
    """The outcome of one model, which may be its score alone; None where it has no score."""
    if recorded is None or isinstance(recorded, int | float):
        recorded = {"score": recorded}
    if not isinstance(recorded, dict):
        raise RowsError(f"{where}: an outcome must be an object, or a score")
    score = _number(recorded, "score", where)
    if score is None:
        return None
    if score > 1.0:
        raise _BeyondOne(f"{where}: `score` must be between 0 and 1")
    return Outcome(
        score,
        _number(recorded, "in_tokens", where),
        _number(recorded, "out_tokens", where),
        _number(recorded, "out_chars", where),
        _number(recorded, "cost_usd", where),
    )


def _number(recorded: Mapping[str, Any], name: str, where: str) -> float | None:
    value = recorded.get(name)
    if value is None or (isinstance(value, float) and isnan(value)):  # what tables write for a number that is missing
        return None
    if not isinstance(value, int | float) or not 0.0 <= value <= sys.float_info.max:
        raise RowsError(f"{where}: `{name}` must be a number, 0 or more")
    return float(value)


def _with_failures(rows: list[Row], notes: list[str]) -> list[Row]:
    """Sources that list only successes (SWE-bench's tables of resolved issues) get the failures they imply.

    Such a source is known by two signs together: no score below 1, and questions with no outcome at all.
    """
    scores: dict[str, set[float]] = {}
    models: dict[str, dict[str, None]] = {}
    unanswered: set[str] = set()
    for row in rows:
        scores.setdefault(row.source, set()).update(outcome.score for outcome in row.outcomes.values())
        models.setdefault(row.source, {}).update(dict.fromkeys(row.outcomes))
        if not row.outcomes:
            unanswered.add(row.source)
    filled = {source for source in unanswered if scores[source] == {1.0}}
    notes += [
        f"{name}: lists only successes; what a row does not list is taken for a failure" for name in sorted(filled)
    ]
    failed = {source: dict.fromkeys(sorted(models[source]), Outcome(0.0)) for source in filled}
    return [replace(r, outcomes={**failed[r.source], **r.outcomes}) if r.source in filled else r for r in rows]
