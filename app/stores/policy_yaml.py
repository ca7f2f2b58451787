"""YAML as the policy needs it: plain values, where each stood, and every problem with file and line.

Scalars follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `no`, `on` and
`2024-05-13` are text, `1e-4` is a number. `${VAR}` is replaced after parsing, so that a value from
the environment can never change the structure of the file.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

KeyPath = tuple[str | int, ...]
SUFFIXES = (".yaml", ".yml")
NO_FILE = "is not a file, and so cannot be read again after an edit"

MAX_DEPTH = 32
"""How deep values may be nested: a policy needs seven levels."""
MAX_REPEATED = 50_000
"""How many values aliases may repeat: a small file could name more than fit into memory."""
_NAMED: tuple[KeyPath, ...] = (("providers",), ("models",), ("routes",))
_PLAIN_TAGS = {"!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))}
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}|\$\{")
_NULL = ("", "~", "null", "Null", "NULL")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a policy: where (line and column from 1; `where` is a dotted path) and what."""

    file: str
    line: int
    column: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class PolicyError(Exception):
    """The policy cannot be used; `problems` are all of them, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.where, p.message)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the policy, as read."""

    file: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, counted from 1."""

    file: str
    line: int
    column: int


@dataclass(slots=True)
class Document:
    """The values of all files as one mapping, where they stood, which came from variables, and which were not set.

    `marks` is where a value is best pointed at (a mapping at its key), `key_marks` where its key is.
    """

    data: dict[str, Any] = field(default_factory=dict, repr=False)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    key_marks: dict[KeyPath, Mark] = field(default_factory=dict)
    unset: dict[KeyPath, tuple[str, ...]] = field(default_factory=dict)
    expanded: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    start: Mark = Mark("", 1, 1)

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """A problem at a path, or at the nearest of its parents that stands in a file."""
        where = ".".join(map(str, path))
        while path and path not in self.marks:
            path = path[:-1]
        mark = (self.key_marks.get(path) if at_key else None) or self.marks.get(path, self.start)
        return Problem(mark.file, mark.line, mark.column, where, message)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's composer with no opinion on types: those are given by `resolve` below."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


def read_sources(path: Path) -> tuple[Source, ...]:
    """The policy's files: the file itself, or a directory's *.yaml and *.yml in order of name (no hidden ones).

    Raises PolicyError; also for a pipe, which would be waited for, perhaps for ever.
    """
    try:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
        for file in files:
            if not stat.S_ISREG(file.stat().st_mode):
                raise PolicyError([Problem(str(file), 1, 1, "", NO_FILE)])
        sources = tuple(Source(str(file), file.read_bytes()) for file in files)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PolicyError([Problem(error.filename or str(path), 1, 1, "", f"cannot be read: {reason}")]) from None
    if not sources:
        raise PolicyError([Problem(str(path), 1, 1, "", "the directory holds no .yaml or .yml file")])
    return sources


def digest(sources: Sequence[Source]) -> str:
    """A short digest of the files' text: the policy's version."""
    total = hashlib.sha256()
    for source in sources:
        total.update(len(source.data).to_bytes(8, "big") + source.data)
    return total.hexdigest()[:12]


def read_document(sources: Sequence[Source], env: Mapping[str, str]) -> Document:
    """Parse and merge the files; PolicyError if one is not YAML, every other problem goes into the document."""
    roots: list[yaml.MappingNode] = []
    broken: list[Problem] = []
    for source in sources:
        root = _compose(source)
        if isinstance(root, yaml.MappingNode):
            roots.append(root)
        elif isinstance(root, Problem):
            broken.append(root)
    if broken:
        raise PolicyError(broken)
    reader = _Reader(env, sources[0].file)
    reader.read(roots)
    return reader.document


def _compose(source: Source) -> yaml.MappingNode | Problem | None:
    try:
        stream = io.StringIO(source.data.decode("utf-8-sig"))
        stream.name = source.file  # the parser's marks take the file's name from here
        root = yaml.compose(stream, Loader=_Loader)
    except UnicodeDecodeError as error:
        line = source.data.count(b"\n", 0, error.start) + 1
        return Problem(source.file, line, 1, "", "is not UTF-8 text")
    except yaml.MarkedYAMLError as error:
        return _syntax_problem(source, error)
    except yaml.YAMLError:
        return Problem(source.file, 1, 1, "", "is not YAML: it holds a character that YAML does not allow")
    except RecursionError:
        return Problem(source.file, 1, 1, "", "is nested too deeply")
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return None
    if not isinstance(root, yaml.MappingNode):
        return Problem(source.file, 1, 1, "", "must be a mapping, such as `version: 1`")
    return root


def _syntax_problem(source: Source, error: yaml.MarkedYAMLError) -> Problem:
    """The parser's complaint without its excerpt of the file and without names, which may be secrets."""
    mark = error.problem_mark or error.context_mark
    message = re.sub(r"\s+(['\"])(?!.\1 or \1).{2,}\1", "", error.problem or "cannot be parsed")
    if error.context and not re.search(r"['\"]", error.context):
        message = f"{error.context}, {message}"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    text = b"".join(source.data.splitlines()[line - 1 : line])
    if text.lstrip(b" ").startswith(b"\t"):
        message = "it is indented with a tab; YAML wants spaces"
    elif b"${" in text:
        message += "; inside {...} and [...] a ${VARIABLE} needs quotes"
    return Problem(source.file, line, column, "", f"is not YAML: {message}")


class _Reader:
    """Turns nodes into values, once, filling a Document."""

    def __init__(self, env: Mapping[str, str], first_file: str) -> None:
        self.env = env
        self.document = Document(start=Mark(first_file, 1, 1))
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._repeats = 0

    def read(self, roots: Sequence[yaml.MappingNode]) -> None:
        """Read the files' mappings as one: sections are united, lists joined, an empty section is as if left out."""
        sections: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for root in roots:
            seen: dict[str, yaml.Node] = {}
            for key, node in root.value:
                name = self._key(key, ())
                if name is None or self._repeated(name, key, seen, ()):
                    continue
                if name.startswith("x-") or (isinstance(node, yaml.ScalarNode) and _is_null(node)):
                    continue
                sections[name] = self._united(name, key, node, sections.get(name))
        for name, (key, node) in sections.items():
            self.document.data[name] = self._value(node, (name,), key)

    def _united(
        self, name: str, key: yaml.Node, node: yaml.Node, before: tuple[yaml.Node, yaml.Node] | None
    ) -> tuple[yaml.Node, yaml.Node]:
        if before is None:
            return key, node
        first_key, first = before
        if isinstance(node, yaml.CollectionNode) and type(node) is type(first):
            return first_key, type(node)(node.tag, first.value + node.value, first.start_mark, first.end_mark)
        if not (name == "version" and node.value == first.value):
            self._report(key, (name,), f"is already set in {_place(first_key)}")
        return before

    def _value(self, node: yaml.Node, path: KeyPath, key: yaml.Node | None = None) -> Any:
        self.document.marks[path] = _mark(node if key is None or isinstance(node, yaml.ScalarNode) else key)
        if key is not None:
            self.document.key_marks[path] = _mark(key)
        if node.tag not in _PLAIN_TAGS:
            self._report(node, path, "YAML tags (`!...`) are not supported")
            return None
        if id(node) in self._open:
            self._report(node, path, "an alias must not contain itself")
            return None
        if len(path) > MAX_DEPTH:
            self._report(node, path[:MAX_DEPTH], "is nested too deeply")
            return None
        self._unfolded(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            pairs = self._pairs(node, path)
            values = {name: self._value(item, (*path, name), at) for name, (at, item) in pairs.items()}
            # An empty field is as if left out; an empty provider, model or route is a mistake to be reported.
            return values if path in _NAMED else {name: value for name, value in values.items() if value is not None}
        finally:
            self._open.discard(id(node))

    def _unfolded(self, node: yaml.Node) -> None:
        """Count a value; aliases of aliases can stand for any number of them. Raises PolicyError."""
        self._repeats += id(node) in self._seen
        self._seen.add(id(node))
        if self._repeats > MAX_REPEATED:
            mark = _mark(node)
            raise PolicyError(
                [Problem(mark.file, mark.line, mark.column, "", "its aliases unfold into too many values")]
            )

    def _pairs(self, node: yaml.Node, path: KeyPath) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The entries of a mapping; what `<<` brings in stands behind what the mapping says itself."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        seen: dict[str, yaml.Node] = {}
        for key, item in node.value:
            name = self._key(key, path)
            if name == "<<" and not key.style:
                merged += item.value if isinstance(item, yaml.SequenceNode) else [item]
            elif name is not None and not self._repeated(name, key, seen, path):
                own[name] = (key, item)
        for other in merged:
            self._unfolded(other)
            if isinstance(other, yaml.MappingNode) and id(other) not in self._open:
                self._open.add(id(other))
                own = {**self._pairs(other, path), **own}
                self._open.discard(id(other))
            else:
                self._report(other, path, "`<<` takes a mapping, or a list of mappings")
        return own

    def _key(self, key: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(key, yaml.ScalarNode):
            return str(key.value)
        self._report(key, path, "a key must be plain text")
        return None

    def _repeated(self, name: str, key: yaml.Node, seen: dict[str, yaml.Node], path: KeyPath) -> bool:
        if name in seen:
            self._report(key, (*path, name), f"duplicate key; the first is in {_place(seen[name])}")
            return True
        seen[name] = key
        return False

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if "${" in node.value:
            return self._expanded(node, path)
        return str(node.value) if node.style else resolve(node.value)

    def _expanded(self, node: yaml.ScalarNode, path: KeyPath) -> str:
        missing: list[str] = []

        def replaced(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            if match[1] is None:
                self._report(node, path, "malformed variable: write ${NAME} or ${NAME:-default}")
                return ""
            # As in a shell's `:-`, and as compose files pass on what is not set: empty is not set.
            if value := self.env.get(match[1]):
                return value
            if match[2] is None:
                missing.append(match[1])
                return match[0]
            return match[2]

        text = _VARIABLE.sub(replaced, node.value)
        self.document.expanded.add(path)
        if missing:
            self.document.unset[path] = tuple(missing)
        return text

    def _report(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        mark = _mark(node)
        where = ".".join(map(str, path))
        self.document.problems.append(Problem(mark.file, mark.line, mark.column, where, message))


def resolve(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar by YAML 1.2's core schema (without octal, hex, infinity and NaN)."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _is_null(node: yaml.ScalarNode) -> bool:
    return not node.style and node.value in _NULL


def _mark(node: yaml.Node) -> Mark:
    mark = node.start_mark
    return Mark(mark.name, mark.line + 1, mark.column + 1)


def _place(node: yaml.Node) -> str:
    mark = _mark(node)
    return f"{mark.file}, line {mark.line}"
