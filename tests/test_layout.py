"""The house rules that a machine can hold (the layers are import-linter's, which `make test` runs too)."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAX_LINES, MAX_TEST_LINES, MAX_FUNCTION_LINES = 400, 600, 60

LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS = {
    "app/gateway/metrics.py:__init__": "the list of all metrics, in one place so that it can be read as one",
}
OWN_TASKS = {
    "app/gateway/calls.py": "a call outlives its client, and is drained at shutdown",
    "app/stores/budgets_redis.py": "lanes live from start to close, which waits for them",
    "app/stores/replays_redis.py": "a write lives until it is done, and close waits for it",
    "app/stores/task_memory_redis.py": "a write lives until it is done, and close waits for it",
    "app/stores/traces_redis.py": "the writer lives from start to close, which waits for it",
}
LITELLM = {"app/gateway/litellm_bridge.py": "the only bridge; importing litellm costs seconds and 200 MB"}

CODE = sorted(file for folder in ("app", "routers") for file in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
PLACES = re.compile(r"/(?:work|home|root|Users)/[a-z]|/opt/py" + r"pi|--(?:extra-)?index-url")


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree(file)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_files_are_short() -> None:
    long = {name(file) for file in CODE if lines(file) > MAX_LINES}
    assert long <= LONG_FILES.keys(), "split these, or say here why not"
    assert not [name(file) for file in TESTS if lines(file) > MAX_TEST_LINES], "split these"


def test_functions_are_short() -> None:
    long = {
        f"{name(file)}:{function.name}"
        for file in CODE
        for function in functions(file)
        if (function.end_lineno or 0) - function.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long <= LONG_FUNCTIONS.keys(), "split these, or say here why not"


def test_exceptions_name_what_is_there() -> None:
    known = {name(file) for file in CODE}
    named = {*LONG_FILES, *OWN_TASKS, *(entry.partition(":")[0] for entry in LONG_FUNCTIONS)}
    assert named <= known


def test_packages_say_nothing_by_themselves() -> None:
    assert not [name(file) for file in CODE if file.name == "__init__.py" and file.read_bytes()]


def test_modules_say_what_they_are() -> None:
    mute = [name(file) for file in (*CODE, *TESTS) if file.name != "__init__.py" and not ast.get_docstring(tree(file))]
    assert not mute


def test_nothing_is_left_for_later() -> None:
    assert not [name(file) for file in (*CODE, *TESTS) if UNFINISHED.search(file.read_text())]


def test_tasks_belong_to_a_group_or_to_a_named_owner() -> None:
    """A task that nobody holds is collected while it runs, and its error is never seen."""
    loose = {f"{name(file)}:{line}" for file in CODE if name(file) not in OWN_TASKS for line in loose_tasks(tree(file))}
    assert not loose


def loose_tasks(module: ast.Module) -> list[int]:
    """Lines that start a task other than through the name of an `async with asyncio.TaskGroup() as name`."""
    groups = {
        item.optional_vars.id
        for node in ast.walk(module)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "TaskGroup" in ast.unparse(item.context_expr)
    }
    return [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("create_task", "ensure_future")
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id in groups)
    ]


@pytest.mark.parametrize(
    ("code", "loose"),
    [
        ("asyncio.create_task(f())", [1]),
        ("asyncio.get_running_loop().create_task(f())", [1]),
        ("asyncio.ensure_future(f())", [1]),
        ("async def f():\n async with asyncio.TaskGroup() as group:\n  group.create_task(f())", []),
    ],
)
def test_the_rule_on_tasks_sees_what_it_should(code: str, loose: list[int]) -> None:
    assert loose_tasks(ast.parse(code)) == loose


def test_litellm_is_imported_by_its_bridge_alone() -> None:
    importers = {name(file) for file in CODE if "litellm" in {module.split(".")[0] for module in imported(tree(file))}}
    assert importers <= LITELLM.keys()


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_no_file_names_a_machine_or_an_index() -> None:
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for path in listed.stdout.splitlines():
        file = ROOT / path
        if file.is_symlink():
            data = os.fsencode(os.readlink(file))  # what is there is kept by git as where it leads
        elif file.is_file():
            data = file.read_bytes()
        else:
            continue
        if b"\0" not in data:
            found += [f"{path}: {match[0]}" for match in PLACES.finditer(data.decode(errors="replace"))]
    assert not found


def test_locks_pin_everything_with_hashes() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        for requirement in re.split(r"\n(?=\S)", lock.read_text().strip()):
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", requirement), (lock.name, requirement[:80])
            assert "--hash=sha256:" in requirement, (lock.name, requirement[:80])


def test_make_test_runs_every_guard() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile[makefile.index("\ntest:") : makefile.index("\nbench:")]
    for guard in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert guard in recipe
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {contract["type"] for contract in tools["importlinter"]["contracts"]} == {"layers", "forbidden"}
    assert tools["mypy"]["strict"] is True
    assert {*tools["mypy"]["packages"]} == {"app", "routers", "scripts", "tests"}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
