"""What README and docs say is there: links, anchors, commands and their options, settings, metrics, files, tables."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from typer.main import get_command

from app.commands.agents import KEY_VARIABLE
from app.commands.tree import cli
from app.core.errors import BursarError
from app.settings import Settings
from app.stores.policy_file import load_policy
from app.stores.policy_model import json_schema
from app.stores.prices import PriceBook
from tests import doc_tables
from tests.conftest import ROOT
from tests.deploy.test_alerts import known as known_metrics

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "app/ARCHITECTURE.md", ROOT / "deploy/runbook.md",
         ROOT / "tests/bench/README.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "routers/weights").glob("*.md"))]  # fmt: skip
FOR_USERS = [page for page in PAGES if page.name == "README.md" or page.parent.name in ("docs", "deploy")]
MAX_README_LINES = 200
MAX_PROSE_CHARS = 120
NO_SETTINGS = {"KEY_SHA256", "CUSTOM_BASE_URL", "CUSTOM_MODEL", "LOCAL_PORT", KEY_VARIABLE.removeprefix("BURSAR_")}
"""Variables that the shipped policies or `bursar run` read."""
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TICKED = re.compile(r"`([^`\n]+)`")


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", page.read_text())


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        number = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.add(f"{slug}-{number}" if number else slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / unquote(path)).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= MAX_README_LINES, "a reference belongs into docs/"
    assert not [
        page.name for page in (ROOT / "docs").glob("*") if f"docs/{page.name}" not in readme + linked_from_docs()
    ]


def linked_from_docs() -> str:
    """What pages of docs/ link to, as seen from the README."""
    pages = (ROOT / "docs").glob("*.md")
    return " ".join(f"docs/{target.partition('#')[0]}" for page in pages for target in LINK.findall(page.read_text()))


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "weights"], ids=ids)
def test_prose_is_wrapped(page: Path) -> None:
    """Tables may be wider, whether written by hand or from the code, and so may a command alone on its line."""
    lines = doc_tables.MARKED.sub("", prose(page)).splitlines()
    assert not [line for line in lines if len(line) > MAX_PROSE_CHARS and not line.startswith(("|", "![", "`bursar "))]


def test_nothing_is_said_twice() -> None:
    """A paragraph of substance stands on one page."""
    where: dict[str, list[str]] = {}
    for page in FOR_USERS:
        for paragraph in re.split(r"\n\s*\n", page.read_text()):
            text = " ".join(paragraph.split())
            if len(text) > 120:
                where.setdefault(text, []).append(page.name)
    assert not {text[:80]: pages for text, pages in where.items() if len(pages) > 1}


# Commands


def commands_in(page: Path) -> list[list[str]]:
    """Every `bursar ...` that is to be typed: in shell blocks line by line, and between ticks."""
    text = page.read_text()
    lines = [line for kind, block in FENCE.findall(text) if kind in ("sh", "") for line in block.splitlines()]
    lines += TICKED.findall(FENCE.sub("", text))
    found = []
    for line in lines:
        words = line.strip().replace("\\|", "|").partition(" #")[0].removeprefix(".venv/bin/").split()
        if len(words) > 1 and words[0] == "bursar":
            found.append([word.strip("[]") for word in words[1:]])
    return found


def missing_of(words: list[str]) -> str | None:
    """What of a command the command line does not know; None where it knows all of it."""
    at: Any = get_command(cli)
    while inner := getattr(at, "commands", None):
        if not words:
            return None
        names, words = words[0].split("|"), words[1:]
        if unknown := [name for name in names if name not in inner]:
            return f"command {unknown[0]}"
        at = inner[names[0]]
    options = {option for parameter in at.params for option in parameter.opts} | {"--help", "-h"}
    said = words[: words.index("--")] if "--" in words else words
    return next((word for word in said if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in options), None)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands_in(page):
        if words[0].isupper():  # `bursar COMMAND --help`
            continue
        assert missing_of(list(words)) is None, words


def test_the_page_of_commands_has_all_of_them() -> None:
    said = commands_in(ROOT / "docs" / "cli.md")
    assert len(said) > 20
    named = {name for words in said for name in words[0].split("|")}
    root: Any = get_command(cli)
    hidden = {name for name, command in root.commands.items() if command.hidden}
    assert named - {"COMMAND"} == root.commands.keys() - hidden
    text = (ROOT / "docs" / "cli.md").read_text()
    for name, group in root.commands.items():
        inner = {inner for inner, command in getattr(group, "commands", {}).items() if not command.hidden}
        assert not [one for one in inner if not re.search(rf"\b{re.escape(one)}\b", text)], name


def test_the_check_of_commands_would_have_said_so() -> None:
    assert missing_of(["serve", "--port", "80"]) is None
    assert missing_of(["serv"]) == "command serv"
    assert missing_of(["serve", "--prot", "80"]) == "--prot"
    assert missing_of(["task", "show|melt"]) == "command melt"
    assert missing_of(["run", "--cap", "1", "--", "agent", "--loud"]) is None


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_make_targets_and_modules_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    assert set(re.findall(r"`make ([a-z][a-z-]*)", text)) <= targets
    for module in re.findall(r"`python -m (tests[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), module


# Names


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_and_metrics_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    settings = {name.upper() for name in Settings.model_fields} | NO_SETTINGS
    assert set(re.findall(r"\bBURSAR_([A-Z0-9_]+)", text)) <= settings
    families = known_metrics() | {re.sub(r"_(bucket|sum|count)$", "", name) for name in known_metrics()}
    assert set(re.findall(r"`(bursar_[a-z_]+)", text)) <= families


def test_every_setting_says_what_it_is() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_every_field_of_a_policy_says_what_it_is() -> None:
    schema = json_schema()
    objects = {"the file": schema, **schema["$defs"]}
    fields = {
        f"{of}.{name}": field for of, spec in objects.items() for name, field in spec.get("properties", {}).items()
    }
    assert len(fields) > 100
    assert not [name for name, field in fields.items() if not field.get("description")]


@pytest.mark.parametrize("name", ["X-Bursar-" + tail for tail in ("Reset", "Scope", "Reason", "Landing", "Replayed")])
def test_headers_are_ones_that_are_sent(name: str) -> None:
    assert name in (ROOT / "docs" / "api.md").read_text()
    assert any(name.lower() in file.read_text() for file in (ROOT / "app").rglob("*.py"))


def test_no_header_goes_unmentioned() -> None:
    sent = {
        found
        for file in (ROOT / "app").rglob("*.py")
        for found in re.findall(r"x-bursar-[a-z-]*[a-z]\b", file.read_text())
    }
    told = "".join(page.read_text() for page in FOR_USERS).lower()
    short = told.replace("`-", "`x-bursar-")
    assert not [name for name in sent if name not in told and name not in short]


def test_tables_are_what_the_code_says() -> None:
    marked = [page for page in (ROOT / "docs").glob("*.md") if doc_tables.MARKED.search(page.read_text())]
    names = [name for page in marked for _, name, _ in doc_tables.MARKED.findall(page.read_text())]
    assert sorted(names) == sorted(doc_tables.TABLES)
    stale = [page.name for page in marked if doc_tables.written(page.read_text()) != page.read_text()]
    assert not stale, "python -m tests.doc_tables"


def test_errors_are_all_told() -> None:
    kinds, told = [BursarError], (ROOT / "docs" / "api.md").read_text()
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert kind.code is None or f"`{kind.code}`" in told


# Tests

TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_tests_that_are_named_exist() -> None:
    text = (ROOT / "docs" / "edges.md").read_text()
    named = TEST.findall(text)
    assert len(named) > 100
    for file, name in named:
        found = re.findall(rf"^ *(?:async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
        assert len(found) == 1 or (found and file == "http/test_http_frameworks.py"), f"{file}::{name}"


def test_every_corner_has_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "edges.md").read_text().splitlines() if line.startswith("| ")]
    corners = [row for row in rows if not row.startswith(("| | ", "| what happens", "| complaint"))]
    assert [int(row.split("|")[1]) for row in corners[:22]] == list(range(1, 23))
    assert not [row for row in corners if not TEST.search(row.split("|")[-2])]


# Examples


def test_the_readmes_policy_is_one(tmp_path: Path) -> None:
    (text,) = [block for kind, block in FENCE.findall((ROOT / "README.md").read_text()) if kind == "yaml"]
    page = tmp_path / "policy.yaml"
    page.write_text(text.replace('sha256: "..."', f'sha256: "{"0" * 64}"'))
    policy = load_policy(page, env={"OPENAI_API_KEY": "x"}, catalogue=PriceBook(None).current)
    assert list(policy.routes["auto"].candidates) == ["small", "large"]


def test_what_becomes_of_litellms_configuration_is_a_policy(tmp_path: Path) -> None:
    text = [block for kind, block in FENCE.findall((ROOT / "docs" / "migrate.md").read_text()) if kind == "yaml"][1]
    page = tmp_path / "policy.yaml"
    page.write_text(text)
    policy = load_policy(page, env={"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x"}, catalogue=PriceBook(None).current)
    assert policy.warnings == ()
    assert all(model.price is not None for model in policy.models.values())


def test_fragments_of_policies_are_yaml() -> None:
    blocks = [block for page in FOR_USERS for kind, block in FENCE.findall(page.read_text()) if kind == "yaml"]
    assert len(blocks) >= 3
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)


def test_python_in_the_readme_compiles() -> None:
    blocks = [block for kind, block in FENCE.findall((ROOT / "README.md").read_text()) if kind == "python"]
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
