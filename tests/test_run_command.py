"""`bursar run`: a program as one task under a cap, against a real gateway; and what each agent is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.commands.agents import Way, outfit_for
from app.commands.ending import Refused
from app.commands.run import receipt, status_line
from tests.conftest import Served
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

PROGRAM = """
import json, os, sys, urllib.error, urllib.request
body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40}
for call in range(4):
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
    )
    try:
        with urllib.request.urlopen(request) as reply:
            print(json.load(reply)["choices"][0]["message"]["content"])
    except urllib.error.HTTPError as error:
        print(error.code, json.load(error)["error"]["code"])
        sys.exit(7)
"""


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


def test_a_program_is_one_task_under_its_cap(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.source = Script.of(words("One two three four."), input_tokens=10)
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: a, pricing: {{input_per_1k: 0.001, output_per_1k: 0.002}}, budgets: {{max_cost_usd: 0}}}}}}
routes: {{auto: {{candidates: [m], adequacy: 0}}}}
""")
    gateway = Served("--policy", str(policy), cwd=tmp_path)
    try:
        url = gateway.url.removesuffix("/v1")
        command = [sys.executable, "-m", "app.cli", "run", "--cap", "0.00004", "--task", "job", "--gateway", url, "--"]
        done = subprocess.run(
            [*command, sys.executable, "-c", PROGRAM],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
    finally:
        gateway.close()
    assert done.returncode == 7, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "One two three four."
    assert done.stdout.splitlines()[-1] == "402 budget_exceeded"
    assert "task job" in done.stderr
    assert "of $0.000040" in done.stderr


def test_no_such_program_and_no_gateway(tmp_path: Path) -> None:
    def run(*words_: str) -> int:
        command = [sys.executable, "-m", "app.cli", "run", *words_]
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode

    assert run("--", "no-such-program-anywhere") == 127
    assert run("--gateway", "http://127.0.0.1:9", "--", sys.executable, "-c", "pass") == 2


def test_the_receipt_says_what_it_cost() -> None:
    task = {
        "spent_usd": 0.25, "reserved_usd": 0.01, "limit_usd": 0.5, "calls": 3, "cost_killed_at_usd": 0.25,
        "models": {"small": {"spent_usd": 0.25}},
    }  # fmt: skip
    assert status_line(task) == "bursar: $0.2600 of $0.5, 3 calls"
    shown = "\n".join(receipt("job", task))
    assert "$0.250000 of $0.500000" in shown
    assert "small: $0.250000" in shown
    assert "cap was reached" in shown
    assert "nothing was asked" in "\n".join(receipt("job", None))


@pytest.mark.parametrize("program", ["claude", "codex", "gemini", "opencode", "pi", "/usr/bin/python3"])
def test_every_program_is_pointed_at_the_task(program: str, tmp_path: Path) -> None:
    base = "http://127.0.0.1:8080/t/job"
    outfit = outfit_for(program, Way(base, "key", "auto", tmp_path))
    assert outfit.environment["OPENAI_BASE_URL"] == base + "/v1"
    assert outfit.environment["ANTHROPIC_BASE_URL"] == outfit.environment["GOOGLE_GEMINI_BASE_URL"] == base
    said = json.dumps([outfit.environment, outfit.arguments, [p.read_text() for p in tmp_path.rglob("*.json")]])
    assert said.count(base) >= 4
    if program == "codex":
        assert 'wire_api = "responses"' in outfit.arguments[3]
    if program == "gemini":
        written = json.loads((tmp_path / ".gemini" / "settings.json").read_text())
        assert written["security"]["auth"]["selectedType"] == "gemini-api-key"


THEIRS = {"model": "opus", "env": {"ANTHROPIC_BASE_URL": "https://elsewhere", "EDITOR": "vi"}}


@pytest.mark.parametrize("how", ["json", "joined", "file"])
def test_what_the_user_tells_claude_of_settings_is_part_of_ours(how: str, tmp_path: Path) -> None:
    """It takes one `--settings`: another one behind ours would be the only one, and lead past the gateway."""
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(THEIRS))
    given = {
        "json": ("--settings", json.dumps(THEIRS)),
        "joined": (f"--settings={json.dumps(THEIRS)}",),
        "file": ("--settings", str(file)),
    }[how]
    words_ = ("-p", "go", *given, "--", "--settings", "no option")
    outfit = outfit_for("claude", Way("http://127.0.0.1:8080/t/job", "key", "auto", tmp_path, words_))
    assert outfit.words == ["-p", "go", "--", "--settings", "no option"]
    option, text = outfit.arguments
    said = json.loads(text)
    assert (option, said["model"], said["env"]["EDITOR"]) == ("--settings", "opus", "vi")
    assert said["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8080/t/job"


@pytest.mark.parametrize("given", ["{not json", "no-such-file.json", "[]"])
def test_settings_that_cannot_be_read_are_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    given = str(tmp_path / "list.json") if given == "[]" else given
    with pytest.raises(Refused, match="--settings"):
        outfit_for("claude", Way("http://127.0.0.1:8080/t/job", "key", "auto", tmp_path, ("--settings", given)))


@pytest.mark.parametrize("program", ["qwen", "cline", "cn", "aider", "mini"])
def test_programs_with_settings_of_their_own_get_them(program: str, tmp_path: Path) -> None:
    base = "http://127.0.0.1:8080/t/job"
    way = Way(base, "key", "auto", tmp_path)
    common, outfit = outfit_for("python3", way), outfit_for(program, way)
    environment = {name: value for name, value in outfit.environment.items() if name not in common.environment}
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    said = json.dumps([environment, outfit.arguments]) + "".join(files)
    assert "auto" in said
    assert program == "mini" or f"{base}/v1" in said
    assert "key" not in outfit.arguments
