"""The five agent programs: installed from npm at pinned versions, run once on a task, as `bursar run` would run them.

Each gets a home and a working folder of its own. Nothing leaves loopback: the only service they know is the gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.commands.agents import Way, outfit_for
from tests.node_sdk import NODE, NPM
from tests.tools import TOOLS

SOURCE = Path(__file__).resolve().parent
RUN_S = 120.0
PI = {
    "openai_chat": ("openai-completions", "/v1"),
    "openai_responses": ("openai-responses", "/v1"),
    "anthropic": ("anthropic-messages", ""),
    "gemini": ("google-generative-ai", "/v1beta"),
}
"""What pi calls each dialect, and where it looks for it below the gateway."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended, and what it showed."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def shown(self) -> str:
        """All that a person would see."""
        return self.out + self.err


def installed() -> Path:
    """The folder with the programs; installed on first use. Raises RuntimeError where npm has no registry."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    target = TOOLS / "agents" / hashlib.sha256(lock).hexdigest()[:16]
    if target.exists():
        return target
    work = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, work / name)
    # With scripts, for Claude Code puts its native part in place by one. Not `ci`, which wants the native parts of
    # every platform in the lock file: mirrors do not all have them.
    command = [str(NODE), str(NPM), "install", "--no-audit", "--no-fund", "--loglevel=error"]
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=work, check=False, capture_output=True, text=True, timeout=600, env={**os.environ, "PATH": path}
    )
    if done.returncode != 0:
        shutil.rmtree(work, ignore_errors=True)
        raise RuntimeError(f"npm install failed: {done.stderr.strip()[-500:]}")
    work.rename(target)
    return target


async def run(
    name: str,
    base: str,
    folder: Path,
    prompt: str,
    *,
    model: str = "auto",
    key: str = "dummy",
    more: Mapping[str, str] | None = None,
    dialect: str | None = None,
) -> Ran:
    """One run of a program without a person at it, with the gateway at `base` (the task in its path), and `more` in the
    environment that it is started in. `dialect`: for pi, which speaks each."""
    (settings := folder / "settings").mkdir(parents=True, exist_ok=True)
    outfit = outfit_for(name, Way(base, key, model, settings))
    if dialect is not None:
        written = settings / "models.json"
        told = json.loads(written.read_text())
        (provider,) = told["providers"].values()
        provider["api"], below = PI[dialect]
        provider["baseUrl"] = base + below
        written.write_text(json.dumps(told))
    given = outfit.over({**_environment(name, folder), **(more or {})})
    return await _ran(name, [str(_program(name)), *outfit.arguments, *_asked(name, prompt)], given, folder)


async def run_by_command(name: str, url: str, folder: Path, prompt: str, *, task: str, cap_usd: float) -> Ran:
    """The same by `bursar run`, with the gateway at `url`."""
    command = [sys.executable, "-m", "app.cli", "run", "--gateway", url, "--task", task, "--cap", str(cap_usd), "--"]
    given = {**_environment(name, folder), "PYTHONPATH": str(SOURCE.parents[1])}
    return await _ran(name, [*command, str(_program(name)), *_asked(name, prompt)], given, folder)


def _program(name: str) -> Path:
    return installed() / "node_modules" / ".bin" / name


def _environment(name: str, folder: Path) -> dict[str, str]:
    """What a program is started in: a home and a working folder of its own."""
    for part in ("home", "work", "tmp"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        **_QUIET.get(name, {}),
    }


async def _ran(name: str, command: list[str], environment: dict[str, str], folder: Path) -> Ran:
    work = folder / "work"
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=work,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), RUN_S)
    except TimeoutError:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = await child.communicate()
        raise AssertionError(f"{name} did not end: {out[-2000:]!r} {err[-2000:]!r}") from None
    return Ran(child.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"), work)


_QUIET: Mapping[str, dict[str, str]] = {
    "opencode": {
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_PERMISSION": json.dumps({"bash": "allow", "edit": "allow"}),
    },
}


def _asked(name: str, prompt: str) -> list[str]:
    """The arguments that make a program do one task by itself and leave."""
    by_name: dict[str, list[Any]] = {
        "claude": [
            "-p", prompt, "--output-format", "stream-json", "--verbose", "--permission-mode", "acceptEdits",
            "--allowedTools", "Bash",
        ],
        "codex": ["exec", "--skip-git-repo-check", "--json", "-s", "danger-full-access", prompt],
        "gemini": ["-m", "gemini-2.5-pro", "--yolo", "--skip-trust", "--output-format", "json", "-p", prompt],
        "opencode": ["run", prompt],
        "pi": ["-p", prompt],
    }  # fmt: skip
    return by_name[name]
