"""What `bursar serve` says once it serves: where it is, what to try, where things live."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

from app.commands.terminal import heading, say
from app.core.policy import Policy
from app.model_keeper import ModelKeeper
from app.settings import Settings, installed_version

WIDTH = 110
LOOK_EVERY_S = 0.05
READY_WITHIN_S = 60.0
_OFF = re.compile(r"provider (\S+) is off: (.+?) (?:is|are) not set")


def greet_when_ready(
    address: tuple[str, int], settings: Settings, policy: Policy, keeper: ModelKeeper | None, note: str | None
) -> Callable[[], None]:
    """Greet, from a thread, as soon as the gateway answers; call the result to give up."""
    stop = threading.Event()

    def wait_and_greet() -> None:
        if _answers(address, stop):
            greet(base_url(address), settings, policy, _model_line(keeper, note))

    threading.Thread(target=wait_and_greet, name="greeting", daemon=True).start()
    return stop.set


def reachable(address: tuple[str, int]) -> tuple[str, int]:
    """The same address as a client on this machine would write it: not the "any" address."""
    host, port = address
    try:
        if ipaddress.ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
    except ValueError:
        pass
    return host, port


def base_url(address: tuple[str, int]) -> str:
    """What clients take for OPENAI_BASE_URL."""
    host, port = reachable(address)
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def greet(url: str, settings: Settings, policy: Policy, model_line: str | None) -> None:
    """Print the greeting."""
    model = _model_to_ask(policy)
    say()
    heading(f"Bursar {installed_version()} serves {url}")
    if model is not None:
        say()
        embedded = any(provider.embedded for provider in policy.providers.values())
        _examples(url, model, with_key=not policy.open_access, with_cut=embedded)
    say()
    for label, text in _places(settings, policy, model_line):
        say(_row(label, text))
    say()


def _row(label: str, text: str) -> str:
    """A label with its text beside it; paths and names stay whole, so that they can be copied."""
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"  {label:<10} " + f"\n{' ' * 13}".join(lines)


def _examples(url: str, model: str, *, with_key: bool, with_cut: bool) -> None:
    auth = ' -H "Authorization: Bearer $BURSAR_API_KEY"' if with_key else ""
    curl = f"curl -N {url}/chat/completions -H 'Content-Type: application/json'{auth} \\\n    -d"
    say(f"  {curl} '{_body(model, 0.01, 'Say hello.')}'")
    if with_cut:
        say("  # and a stream that is cut in mid-sentence, because its cap pays for some 40 tokens:")
        say(f"  {curl} '{_body(model, 0.00002, 'Write a long story about a dragon.', stream=True)}'")
    say()
    key = 'os.environ["BURSAR_API_KEY"]' if with_key else '"none"'
    say(f"  from openai import OpenAI{'; import os' if with_key else ''}")
    say(f'  bursar = OpenAI(base_url="{url}", api_key={key})')
    say(
        f'  reply = bursar.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hi!"}}],'
        ' extra_body={"max_cost_usd": 0.01})'
    )
    say("  print(reply.choices[0].message.content, reply.usage.cost)")


def _body(model: str, max_cost_usd: float, content: str, **fields: bool) -> str:
    body = {"model": model, "max_cost_usd": max_cost_usd, **fields, "messages": [{"role": "user", "content": content}]}
    # A number that people may change should look like one: not 2e-05.
    return json.dumps(body).replace(json.dumps(max_cost_usd), f"{max_cost_usd:.5f}".rstrip("0"))


def _places(settings: Settings, policy: Policy, model_line: str | None) -> list[tuple[str, str]]:
    data = str(settings.data_dir.absolute())
    if settings.redis_url is not None:
        data = f"Redis, by BURSAR_REDIS_URL (logs of the local model in {data})"
    rows = [
        ("Policy", f"{Path(policy.source).absolute()} (edits take effect at once)"),
        ("Data", data),
        ("Providers", providers_line(policy)),
    ]
    if missing := variables_off(policy):
        rows.append(("More", f"set {', '.join(missing)} and start again"))
    if model_line is not None:
        rows.append(("Model", model_line))
    bursar = command()
    rows.append(
        ("Look", f"/dashboard, {bursar} spend, {bursar} prices, /v1/models, /v1/decisions/REQUEST_ID, /metrics")
    )
    return rows


def command() -> str:
    """How `bursar` is to be typed here: by its path where it is not on PATH, as after `make run`."""
    beside = Path(sys.executable).with_name("bursar")
    return "bursar" if shutil.which("bursar") or not beside.exists() else os.path.relpath(beside)


def providers_line(policy: Policy) -> str:
    """The providers that take part."""
    names = [f"{p.name} ({p.embedded} on this machine)" if p.embedded else p.name for p in policy.providers.values()]
    return ", ".join(names) or "none: every call will be refused"


def variables_off(policy: Policy) -> list[str]:
    """The variables that would let the policy's optional providers join."""
    found = (_OFF.match(warning) for warning in policy.warnings)
    return [match[2] for match in found if match is not None]


def _model_to_ask(policy: Policy) -> str | None:
    if "auto" in policy.routes:
        return "auto"
    return next(iter((*policy.routes, *policy.models)), None)


def _model_line(keeper: ModelKeeper | None, note: str | None) -> str | None:
    if keeper is None or keeper.ready.is_set():
        return note
    state = "could not start yet" if keeper.settled.is_set() else "is still loading"
    return f"the local model {state}: see {keeper.log_path}"


def _answers(address: tuple[str, int], stop: threading.Event) -> bool:
    """Wait until the gateway answers; False where it never does."""
    for _ in range(int(READY_WITHIN_S / LOOK_EVERY_S)):
        if stop.wait(LOOK_EVERY_S):
            return False
        connection = http.client.HTTPConnection(*reachable(address), timeout=1.0)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
    return False
