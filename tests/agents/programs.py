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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.commands.agents import Way, outfit_for
from tests.node_sdk import NODE, NPM
from tests.tools import TOOLS

SOURCE = Path(__file__).resolve().parent
RUN_S = 120.0


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


async def run(name: str, base: str, folder: Path, prompt: str, *, model: str = "auto", key: str = "dummy") -> Ran:
    """One run of a program without a person at it, with the gateway at `base` (the task in its path)."""
    home, work, settings = folder / "home", folder / "work", folder / "settings"
    for made in (home, work, settings, folder / "tmp"):
        made.mkdir(parents=True, exist_ok=True)
    program = installed() / "node_modules" / ".bin" / name
    outfit = outfit_for(name, Way(base, key, model, settings))
    environment = {
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(folder / "tmp"),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        **outfit.environment,
        **_QUIET.get(name, {}),
    }
    arguments = [*outfit.arguments, *_asked(name, prompt)]
    child = await asyncio.create_subprocess_exec(
        program,
        *arguments,
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
