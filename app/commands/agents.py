"""How each agent program is told to go through the gateway: environment, arguments, a settings file of its own.

Nothing of the user's own configuration is changed. What each program reads was tried with the versions in
`tests/agents` (Claude Code, codex, gemini-cli, opencode, pi) and `docs/clients.md` (the others); any other program gets
the common variables.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.commands.ending import Refused

PROVIDER = "bursar"
KEY_VARIABLE = "BURSAR_API_KEY"
NO_KEY = "no-key-needed"
"""For a gateway without keys: programs refuse to start without one."""
ELSEWHERE = (
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_VERTEX",
    "GOOGLE_API_KEY",
    "GOOGLE_GENAI_USE_GCA",
    "GOOGLE_GENAI_USE_VERTEXAI",
)
"""Variables that would lead a program past the gateway, where no cap binds it, or have it show another's key."""


@dataclass(slots=True)
class Outfit:
    """What is added: to the environment, and to the arguments right behind the program's name; and which of the user's
    own `words` stand behind those."""

    environment: dict[str, str]
    words: list[str]
    arguments: list[str] = field(default_factory=list)

    def over(self, environment: Mapping[str, str]) -> dict[str, str]:
        """This environment as the program gets it: without what leads past the gateway, and no proxy on the way."""
        kept = {name: value for name, value in environment.items() if name not in ELSEWHERE}
        host = urlsplit(self.environment["ANTHROPIC_BASE_URL"]).hostname or ""
        near = [",".join(filter(None, (environment.get(name), host))) for name in ("no_proxy", "NO_PROXY")]
        return {**kept, **self.environment, "no_proxy": near[0], "NO_PROXY": near[1]}


@dataclass(frozen=True, slots=True)
class Way:
    """`base`: the gateway's URL with the task in its path, without /v1. `folder`: an empty one, for settings files.
    `words`: the user's own arguments."""

    base: str
    key: str
    model: str
    folder: Path
    words: tuple[str, ...] = ()


def outfit_for(program: str, way: Way) -> Outfit:
    """What this program needs, by its file's name. Raises Refused."""
    outfit = Outfit(_common(way), list(way.words))
    special = _SPECIAL.get(Path(program).name.removesuffix(".exe"))
    if special is not None:
        special(way, outfit)
    return outfit


def _common(way: Way) -> dict[str, str]:
    openai = f"{way.base}/v1"
    return {
        "OPENAI_BASE_URL": openai,
        "OPENAI_API_BASE": openai,
        "OPENAI_API_KEY": way.key,
        "ANTHROPIC_BASE_URL": way.base,
        "ANTHROPIC_API_KEY": way.key,
        "GOOGLE_GEMINI_BASE_URL": way.base,
        "GEMINI_API_KEY": way.key,
        KEY_VARIABLE: way.key,
    }


def _claude(way: Way, outfit: Outfit) -> None:
    """Claude Code puts what its settings say of the environment over what it is given, so it gets settings, too: those
    on the command line come before the user's and the project's. It takes one such argument, so the user's own is part
    of it."""
    outfit.environment |= {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    said = {name: outfit.environment[name] for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")}
    nothing = {name: "" for name in ELSEWHERE if name.startswith(("ANTHROPIC", "CLAUDE"))}
    theirs: dict[str, Any] = {}
    for given in _taken(outfit.words, "--settings"):
        theirs |= _settings(given)
    theirs_env = theirs.get("env")
    env = {**(theirs_env if isinstance(theirs_env, dict) else {}), **said, **nothing}
    outfit.arguments += ["--settings", json.dumps({**theirs, "env": env})]


def _taken(words: list[str], option: str) -> list[str]:
    """The values of this option, which are taken out of the words."""
    values: list[str] = []
    at = 0
    while at < len(words) and words[at] != "--":
        name, equals, value = words[at].partition("=")
        if name != option or not (equals or at + 1 < len(words)):
            at += 1
            continue
        values.append(value if equals else words[at + 1])
        del words[at : at + (1 if equals else 2)]
    return values


def _settings(given: str) -> dict[str, Any]:
    """Settings as Claude Code takes them on its command line: JSON, or a file of it."""
    try:
        found = json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    except (OSError, ValueError):
        raise Refused(f"--settings: {given} cannot be read: neither a file nor JSON") from None
    if not isinstance(found, dict):
        raise Refused(f"--settings: {given} must hold a JSON object")
    return found


def _codex(way: Way, outfit: Outfit) -> None:
    """codex takes its provider from `config.toml` or from `-c`, whose values are TOML."""
    fields = {"name": "Bursar", "base_url": f"{way.base}/v1", "env_key": KEY_VARIABLE, "wire_api": "responses"}
    table = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    settings = {"model_provider": json.dumps(PROVIDER), f"model_providers.{PROVIDER}": "{" + table + "}"}
    outfit.arguments += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _gemini(way: Way, outfit: Outfit) -> None:
    """gemini-cli asks how to sign in unless its settings say so, and no variable can: it gets a home whose settings are
    the user's but for that."""
    settings: Any = None
    with contextlib.suppress(OSError, ValueError):
        settings = json.loads((Path.home() / ".gemini" / "settings.json").read_text())
    kept: dict[str, Any] = settings if isinstance(settings, dict) else {}
    security = kept.get("security")
    others = security if isinstance(security, dict) else {}
    kept["security"] = {**others, "auth": {"selectedType": "gemini-api-key"}}
    (way.folder / ".gemini").mkdir(exist_ok=True)
    (way.folder / ".gemini" / "settings.json").write_text(json.dumps(kept))
    outfit.environment["GEMINI_CLI_HOME"] = str(way.folder)


def _opencode(way: Way, outfit: Outfit) -> None:
    config = {
        "provider": {
            PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Bursar",
                "options": {"baseURL": f"{way.base}/v1", "apiKey": way.key},
                "models": {way.model: {"name": way.model}},
            }
        },
        "model": f"{PROVIDER}/{way.model}",
        "small_model": f"{PROVIDER}/{way.model}",
    }
    outfit.environment |= {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_AUTOUPDATE": "1"}


def _pi(way: Way, outfit: Outfit) -> None:
    """pi reads providers from its folder only, so it gets one: what it keeps there of sessions goes with it. By itself
    it says only which SDK it uses."""
    provider = {
        "baseUrl": f"{way.base}/v1",
        "api": "openai-completions",
        "apiKey": way.key,
        "headers": {"User-Agent": "pi-coding-agent"},
        "models": [{"id": way.model}],
    }
    (way.folder / "models.json").write_text(json.dumps({"providers": {PROVIDER: provider}}))
    outfit.environment |= {"PI_CODING_AGENT_DIR": str(way.folder), "PI_OFFLINE": "1"}
    outfit.arguments += ["--provider", PROVIDER, "--model", way.model]


def _qwen(way: Way, outfit: Outfit) -> None:
    """Qwen Code keeps how it signs in among its settings; the command line comes before them."""
    outfit.arguments += ["--auth-type", "openai", "--openai-base-url", f"{way.base}/v1", "--model", way.model]


def _cline(way: Way, outfit: Outfit) -> None:
    """Cline reads providers from its folder only, so it gets one: what it keeps there of sessions goes with it."""
    name = "openai-compatible"
    settings = {"provider": name, "apiKey": way.key, "model": way.model, "baseUrl": f"{way.base}/v1"}
    providers = {name: {"settings": settings, "updatedAt": "2026-01-01T00:00:00.000Z", "tokenSource": "manual"}}
    (way.folder / "settings").mkdir(exist_ok=True)
    (way.folder / "settings" / "providers.json").write_text(
        json.dumps({"version": 1, "lastUsedProvider": name, "modes": {}, "providers": providers})
    )
    outfit.arguments += ["--data-dir", str(way.folder)]


def _continue(way: Way, outfit: Outfit) -> None:
    """Continue's command line takes its models from a file. JSON is YAML."""
    model = {
        "name": way.model,
        "provider": "openai",
        "model": way.model,
        "apiBase": f"{way.base}/v1",
        "apiKey": way.key,
        "roles": ["chat"],
        "capabilities": ["tool_use"],
    }
    config = {"name": "Bursar", "version": "1.0.0", "schema": "v1", "models": [model]}
    (way.folder / "config.yaml").write_text(json.dumps(config))
    outfit.arguments += ["--config", str(way.folder / "config.yaml")]


def _aider(way: Way, outfit: Outfit) -> None:
    """aider reads its own variables before its settings."""
    outfit.environment |= {"AIDER_MODEL": f"openai/{way.model}", "AIDER_OPENAI_API_BASE": f"{way.base}/v1"}


def _mini(way: Way, outfit: Outfit) -> None:
    """mini-swe-agent stops where litellm knows no price, and asks ten times, for minutes, whatever it is refused."""
    outfit.environment |= {
        "MSWEA_MODEL_NAME": f"openai/{way.model}",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "3",
    }


_SPECIAL: dict[str, Callable[[Way, Outfit], None]] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
    "pi": _pi,
    "qwen": _qwen,
    "cline": _cline,
    "cn": _continue,
    "aider": _aider,
    "mini": _mini,
}
