"""`python -m tests.bench.landing_note`: does a real model heed landing's note? SmolLM2-135M, the embedded model.

Each question goes through a real gateway three times, at temperature 0: as it is; as the last call of a task that
lands, so that the gateway adds its note; and with a placebo, words of that length and place that ask for nothing. What
is compared, question by question, is how long the answers are and how many end by themselves within the limit. The
questions are made of a few forms and topics, so they are no sample of anyone's traffic, and a model of 135 million
parameters says little of larger ones.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from app.commands.serve import free_port
from tests.bench.landing import wilson
from tests.conftest import Served

FORMS = (
    "Explain to a beginner how {} works.",
    "Write a short story about {}.",
    "List what one should know about {}, with a reason for each.",
)
TOPICS = (
    "a lighthouse", "bread", "the moon", "a bicycle", "a bank account", "rain", "a library", "honey", "a sailing boat",
    "the heart", "an old clock", "a city garden",
)  # fmt: skip
PLACEBO = (
    "[Note from the system that runs this task, not from the user: the clocks of this house show the hours and the"
    " minutes, and on most days they agree. On the wall beside them hangs a picture of a harbour, with three boats and"
    " a white house on the hill behind it. It was painted many years ago; nobody remembers by whom, and nobody has"
    " asked.]"
)
POLICY = """
version: 1
providers: {local: {base_url: "http://127.0.0.1:${BURSAR_LOCAL_PORT:-8089}/v1", embedded: smollm2}}
models: {m: {provider: local, upstream_model: smollm2, pricing: free, context_tokens: 4096}}
caps: {task: {max_calls: 2}}
landing: {at: 0.5, note: true}
"""
ARMS = ("as it is", "note", "placebo")


def ask(url: str, text: str, limit: int, task: str | None) -> tuple[int, bool, bool]:
    """One answer: its tokens, whether it ended by itself, and whether the note was read."""
    headers = {"content-type": "application/json", **({} if task is None else {"x-bursar-task-id": task})}
    asked = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": limit, "temperature": 0}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        found, call = json.load(answer), answer.headers["x-request-id"]
    with urllib.request.urlopen(f"{url}/decisions/{call}", timeout=600) as answer:
        record = json.load(answer)
    noted = bool((record.get("landing") or {}).get("noted"))
    return found["usage"]["completion_tokens"], found["choices"][0]["finish_reason"] == "stop", noted


def compare(url: str, questions: Sequence[str], limit: int) -> list[dict[str, tuple[int, bool]]]:
    """Every question in every arm."""
    rows = []
    for number, question in enumerate(questions):
        ask(url, "Hi.", 1, f"t{number}")  # the first of the two calls that this task may make
        row: dict[str, tuple[int, bool]] = {}
        for arm in ARMS:
            text = f"{question}\n\n{PLACEBO}" if arm == "placebo" else question
            tokens, ended, noted = ask(url, text, limit, f"t{number}" if arm == "note" else None)
            assert noted == (arm == "note")
            row[arm] = (tokens, ended)
        rows.append(row)
        print(number + 1, question, row, flush=True)
    return rows


def interval(values: Sequence[float], seed: int = 1, draws: int = 10_000) -> tuple[float, float]:
    """The 95 % interval of their mean, by bootstrap."""
    dice = random.Random(seed)
    means = sorted(mean(dice.choices(values, k=len(values))) for _ in range(draws))
    return means[draws // 40], means[-draws // 40]


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and say what the note changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.landing_note", description=__doc__)
    parser.add_argument("--questions", type=int, default=len(FORMS) * len(TOPICS))
    parser.add_argument("--limit", type=int, default=300, help="output tokens of an answer at most")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    every = [form.format(topic) for topic in TOPICS for form in FORMS]
    random.Random(chosen.seed).shuffle(every)
    with tempfile.TemporaryDirectory() as folder:
        (policy := Path(folder) / "policy.yaml").write_text(POLICY)
        served = Served("--policy", str(policy), cwd=Path(folder), env={"BURSAR_LOCAL_PORT": str(free_port())})
        try:
            served.rest_of_greeting()
            rows = compare(served.url, every[: chosen.questions], chosen.limit)
        finally:
            served.close()
    for arm in ARMS:
        ended = sum(row[arm][1] for row in rows)
        low, high = wilson(ended, len(rows))
        print(f"{arm:10} {mean(row[arm][0] for row in rows):6.1f} tokens, {ended / len(rows):4.0%} ended by themselves"
              f" ({low:.0%} to {high:.0%})")  # fmt: skip
    for arm in ARMS[1:]:
        change = [row[arm][0] - row[ARMS[0]][0] for row in rows]
        low, high = interval(change)
        print(f"{arm} against as it is: {mean(change):+.1f} tokens [{low:+.1f}, {high:+.1f}], {len(rows)} questions")


if __name__ == "__main__":
    main()
