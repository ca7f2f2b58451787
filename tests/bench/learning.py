"""The whole loop on a live gateway: as it learns, spend falls and success holds. Synthetic, and said to be.

    python -m tests.bench.learning --out FOLDER [--calls 2500] [--seeds 3] [--per-second 25]

`bursar serve` as its users run it, embedded, learner included; scripted upstreams behind it. Of each model and kind of
work there is a hidden success rate (`RATES`, made up). Whether an answer succeeded is drawn from it, by call and model,
so that two runs meet the same luck; a part of the outcomes is told through `POST /v1/feedback`, some of it wrong. The
same traffic runs four times: with the learner off, with it on, with it on and exploring, and so from a baseline, the
dearest; that for each seed. Calls
come at a steady pace, slow enough for the learner, as a house's own do: what a snapshot holds then depends little on
the machine. Writes `learning.json` and `learning.png` and prints a table. Bounds are Wilson's 95 % intervals over the
calls of all seeds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from app.commands.serve import free_port
from tests.conftest import ROOT
from tests.http.live import environment
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

MODELS = {
    "house-small": (1, 0.00005, 0.0002),
    "house-mid": (2, 0.0004, 0.0016),
    "house-large": (4, 0.003, 0.012),
}
"""Tier, and dollars per 1,000 tokens of input and output. No router knows these names."""
KINDS = ("chat", "writing", "translation", "classification", "extraction", "code", "math", "reasoning")
RATES = {
    "house-small": (0.95, 0.93, 0.94, 0.92, 0.91, 0.90, 0.45, 0.50),
    "house-mid": (0.95, 0.95, 0.95, 0.94, 0.94, 0.93, 0.88, 0.87),
    "house-large": (0.97, 0.97, 0.97, 0.97, 0.96, 0.95, 0.94, 0.94),
}
"""The cheap models are better than their tiers suggest, at some kinds of work: what a house would want to find out."""
ADEQUACY = 0.8
TOLD = 0.4
"""The share of calls that somebody says something of; WRONG of these words are untrue."""
WRONG = 0.03
BIN = 250

_THINGS = ("bridge", "garden", "invoice", "engine", "river", "letter", "market", "planet", "recipe", "violin")
_TEMPLATES = {
    "chat": ("Hi! How are you today? I saw a {thing} ({n}).", "Thanks, that was helpful, {thing} number {n}!"),
    "writing": ("Write a short story about a {thing} and the number {n}.", "Write a poem about {thing} {n} in autumn."),
    "translation": (
        "Translate into French: the {thing} was sold {n} days ago.",
        "Translate this to German: we found {n} parts of the {thing}.",
    ),
    "classification": (
        "Classify the sentiment as positive or negative: my {thing} broke after {n} days.",
        "Classify this ticket into one category: {thing} {n} does not arrive.",
    ),
    "extraction": (
        "Extract all names and amounts from this text: Anna paid {n} euros for the {thing} and Ben paid 12.",
        "Extract the date and the {thing} from: on 12 May, order {n} was sent.",
    ),
    "code": (
        "Write a Python function that parses a {thing} record and returns its field {n}. Include unit tests.",
        "Fix this bug:\n```python\ndef {thing}(x):\n    return x[{n}]\n```\nIt raises IndexError.",
    ),
    "math": (
        "Solve for x: {n}x + 7 = 3x + 91. Show every step.",
        "A {thing} travels {n} km in 3 hours. How far does it travel in 11 hours at the same speed?",
    ),
    "reasoning": (
        "Three {thing}s have different owners. Deduce step by step who owns number {n}, given the constraints.",
        "Analyse step by step whether the {thing} argument number {n} is valid, and prove which premise fails.",
    ),
}

POLICY = """\
version: 1
providers:
  up: {{base_url: "{url}"}}
models:
{models}
routes:
  auto: {{candidates: [{names}], adequacy: {adequacy}{explore}}}
keys: []
"""


@dataclass
class Run:
    """What came of one run, call by call; or of several that belong together, one after the other."""

    name: str
    cost: list[float] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)
    routers: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def requests(calls: int, seed: int) -> list[tuple[str, str]]:
    """The kind and the text of each call; no two alike."""
    dice = random.Random(seed)
    found = []
    for number in range(calls):
        kind = dice.choice(KINDS)
        text = dice.choice(_TEMPLATES[kind]).format(thing=dice.choice(_THINGS), n=1000 + number)
        found.append((kind, text))
    return found


def succeeds(seed: int, number: int, model: str, kind: str) -> bool:
    """Whether this model does this call well: always the same."""
    drawn = random.Random(f"{seed}:{number}").random()
    return drawn < RATES[model][KINDS.index(kind)]


def run(name: str, calls: int, seed: int, per_s: float, *, learn: bool, explore: str) -> Run:
    """The traffic through a gateway of its own."""
    done = Run(name)
    with tempfile.TemporaryDirectory() as folder, ScriptedUpstream(Script.of(words("word " * 120))) as upstream:
        models = "\n".join(
            f"  {model}: {{provider: up, tier: {tier}, pricing: {{input_per_1k: {given}, output_per_1k: {out}}}}}"
            for model, (tier, given, out) in MODELS.items()
        )
        policy = Path(folder) / "policy.yaml"
        policy.write_text(
            POLICY.format(url=upstream.url, models=models, names=", ".join(MODELS), adequacy=ADEQUACY, explore=explore)
        )
        port = free_port()
        env = environment(
            BURSAR_DATA_DIR=str(Path(folder) / "data"), BURSAR_LEARN=str(learn).lower(), BURSAR_LEARN_EVERY_S="1",
            BURSAR_SNAPSHOT_LABELS="50", BURSAR_TRACES_COMPACT="false", BURSAR_LOG_LEVEL="warning",
        )  # fmt: skip
        command = [sys.executable, "-m", "app.cli", "serve", "--policy", str(policy), "--port", str(port)]
        gateway = subprocess.Popen(command, env=env, cwd=ROOT)
        try:
            _drive(done, port, calls, seed, per_s)
        finally:
            gateway.terminate()
            gateway.wait(30)
    return done


def _drive(done: Run, port: int, calls: int, seed: int, per_s: float) -> None:
    client = _Client(port)
    dice = random.Random(seed + 1)
    began_s = time.monotonic()
    for number, (kind, text) in enumerate(requests(calls, seed)):
        time.sleep(max(began_s + number / per_s - time.monotonic(), 0.0))
        asked = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 150}
        headers, reply = client.ask("POST", "/v1/chat/completions", asked)
        model = headers["x-bursar-model"]
        good = succeeds(seed, number, model, kind)
        done.cost.append(float(headers["x-bursar-cost-usd"]))
        done.success.append(good)
        done.models.append(model)
        assert reply["choices"]
        speaks, errs = dice.random() < TOLD, dice.random() < WRONG
        if speaks:
            outcome = "success" if good != errs else "failure"
            word = {"request_id": headers["x-bursar-request-id"], "outcome": outcome, "source": "verifier"}
            client.ask("POST", "/v1/feedback", word)
        if number % BIN == BIN - 1:
            _, record = client.ask("GET", f"/v1/decisions/{headers['x-bursar-request-id']}", None)
            done.routers.append(record["decision"]["router"])


class _Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        end = time.monotonic() + 60
        while True:
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                self.ask("GET", "/readyz", None)
                return
            except (OSError, AssertionError):
                assert time.monotonic() < end
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: object) -> tuple[dict[str, str], Any]:
        """Headers in lower case, and the JSON."""
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"content-type": "application/json"})
        response = self._connection.getresponse()
        raw = response.read()
        while response.status == 429:  # feedback comes faster than a key may speak
            time.sleep(1.0)
            self._connection.request(method, path, data, {"content-type": "application/json"})
            response = self._connection.getresponse()
            raw = response.read()
        assert response.status == 200, (response.status, raw)
        return {name.lower(): value for name, value in response.getheaders()}, json.loads(raw)


def together(runs: list[Run], calls: int) -> Run:
    """Runs of different seeds as one in which each bin holds their calls."""
    whole = Run(runs[0].name)
    for start in range(0, calls, BIN):
        for one in runs:
            part = slice(start, start + BIN)
            whole.cost += one.cost[part]
            whole.success += one.success[part]
            whole.models += one.models[part]
    whole.routers = [one.routers[-1] for one in runs]
    return whole


def oracle(runs: list[Run], calls: int, seeds: range) -> dict[str, float]:
    """Success, and dollars per 1,000 calls at what each model cost on the average, of the cheapest model that is
    adequate by its hidden rate, and of the dearest for everything."""
    paid = {model: [c for r in runs for c, m in zip(r.cost, r.models, strict=True) if m == model] for model in MODELS}
    mean = {model: 1000 * sum(cost) / max(len(cost), 1) for model, cost in paid.items()}
    best = dear = 0
    spent = 0.0
    for seed in seeds:
        for number, (kind, _) in enumerate(requests(calls, seed)):
            at = KINDS.index(kind)
            model = next((m for m in MODELS if RATES[m][at] >= ADEQUACY), "house-large")
            spent += mean[model]
            best += succeeds(seed, number, model, kind)
            dear += succeeds(seed, number, "house-large", kind)
    of = calls * len(seeds)
    return {
        "success": best / of, "usd_per_1000": spent / of, "dearest_success": dear / of,
        "dearest_usd_per_1000": mean["house-large"],
    }  # fmt: skip


def wilson(good: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z, p = 1.96, good / of
    middle, half = p + z * z / (2 * of), z * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def bins(done: Run, seeds: int) -> list[dict[str, Any]]:
    """BIN calls of each seed: dollars per 1,000 calls, success with its interval."""
    found = []
    for start in range(0, len(done.cost), BIN * seeds):
        cost, good = done.cost[start : start + BIN * seeds], done.success[start : start + BIN * seeds]
        low, high = wilson(sum(good), len(good))
        found.append(
            {
                "calls": (start + len(cost)) // seeds, "usd_per_1000": 1000 * sum(cost) / len(cost),
                "success": sum(good) / len(good), "low": low, "high": high,
            }
        )  # fmt: skip
    return found


def plot(runs: list[Run], best: dict[str, float], seeds: int, path: Path) -> None:
    """Spend and success over calls."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="tight")
    spend, success = figure.subplots(1, 2)
    for done in runs:
        found = bins(done, seeds)
        x = [b["calls"] for b in found]
        (line,) = spend.plot(x, [b["usd_per_1000"] for b in found], marker=".", label=done.name)
        success.plot(x, [b["success"] for b in found], marker=".", color=line.get_color(), label=done.name)
        success.fill_between(
            x, [b["low"] for b in found], [b["high"] for b in found], color=line.get_color(), alpha=0.1
        )
    spend.axhline(best["usd_per_1000"], ls="--", color="grey", label="cheapest adequate, rates known")
    success.axhline(best["dearest_success"], ls=":", color="grey", label="the dearest model alone")
    success.axhline(best["success"], ls="--", color="grey", label="cheapest adequate, rates known")
    spend.set(xlabel="calls", ylabel="dollars per 1,000 calls", ylim=(0, None))
    success.set(xlabel="calls", ylabel="success (synthetic rates)", ylim=(0.5, 1))
    spend.legend(fontsize=8)
    success.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=2500, help=f"of each run, a multiple of {BIN}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-second", type=float, default=25.0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    explore = ", explore: {share: 0.1, max_usd_per_day: 5}"
    kinds = (
        ("not learning", False, ""),
        ("learning", True, ""),
        ("learning and exploring", True, explore),
        ("exploring from a baseline", True, f", baseline: house-large{explore}"),
    )
    seeds, calls, runs = range(given.seeds), given.calls, []
    for name, learn, exploring in kinds:
        of_seeds = [run(name, calls, seed, given.per_second, learn=learn, explore=exploring) for seed in seeds]
        runs.append(together(of_seeds, calls))
    best = oracle(runs, calls, seeds)
    told: dict[str, Any] = {done.name: bins(done, len(seeds)) for done in runs}
    told["routers"] = {done.name: done.routers for done in runs}
    (given.out / "learning.json").write_text(json.dumps({**told, "known": best}, indent=1))
    plot(runs, best, len(seeds), given.out / "learning.png")
    print(f"SYNTHETIC success rates; {len(seeds)} seeds; load {os.getloadavg()[0]:.1f}")
    for done in runs:
        found = bins(done, len(seeds))
        first, lowest = found[0], min(found, key=lambda b: float(b["success"]))
        last = min(4 * BIN, calls) * len(seeds)
        good, cost = sum(done.success[-last:]), 1000 * sum(done.cost[-last:]) / last
        low, high = wilson(good, last)
        print(
            f"{done.name:26} first {BIN}: ${first['usd_per_1000']:.3f}/1000, {first['success']:.3f}; "
            f"last {last // len(seeds)}: ${cost:.3f}/1000, {good / last:.3f} [{low:.3f}, {high:.3f}]; "
            f"lowest {lowest['success']:.3f} to call {lowest['calls']}; {', '.join(done.routers)}"
        )
    print(
        f"rates known: ${best['usd_per_1000']:.3f}/1000, {best['success']:.3f}; "
        f"the dearest model alone: ${best['dearest_usd_per_1000']:.3f}/1000, {best['dearest_success']:.3f}"
    )


if __name__ == "__main__":
    main()
