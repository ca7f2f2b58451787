"""`python -m tests.bench.landing`: what landing changes for tasks whose cap may not suffice. Synthetic throughout.

A made-up agent works through a real gateway on a scripted upstream. Its task takes a number of steps, each a tool call
of some length, and then an answer; both are drawn (log-normal, seeded), and the conversation grows by every step. The
cap is the same for all, so that some tasks cannot be done within it. How a model takes the note is an assumption, and
named as such: with probability `heeds` it answers at its next step, and else goes on as if it had not read it.
What is measured is the gateway's part: who is cut, who comes to an end, and what was paid for no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gateway.live import Live, policy, usd
from tests.gateway.test_tool_loops import TOOLS
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Piece, Script, text, tool

NOTE = "[Note from the system"
ANSWER_TOKENS = 80
PIECE_TOKENS = 20
CAP_NANO = 16_000_000
AT_ONCE = 8
SMALL = {"input_per_1k": 0.00025, "output_per_1k": 0.0005}
LANDING = {"at": 0.8, "step_share": 0.5, "min_output_tokens": 512}


@dataclass(frozen=True, slots=True)
class Way:
    """One configuration: the policy's landing rules (None: tasks are cut), and how often a note is heeded."""

    name: str
    rules: dict[str, Any] | None
    heeds: float = 0.0


WAYS = (
    Way("cut at the cap", None),
    Way("landing, no note", {**LANDING, "cheaper": False}),
    Way("landing, cheaper candidate", {**LANDING, "switch_in_tool_loop": True}),
    Way("landing, note heeded by 50 %", {**LANDING, "cheaper": False, "note": True}, 0.5),
    Way("landing, note heeded by 90 %", {**LANDING, "cheaper": False, "note": True}, 0.9),
    Way("all of it, note heeded by 90 %", {**LANDING, "note": True, "switch_in_tool_loop": True}, 0.9),
)


@dataclass(slots=True)
class Job:
    """One task's work: the output tokens of its steps, and whether its model heeds a note."""

    name: str
    steps: list[int]
    heeds: bool
    at: int = 0


@dataclass(slots=True)
class Ends:
    """How tasks ended, and what they spent, in shares of the cap."""

    done: int = 0
    concluded: int = 0
    cut: int = 0
    spent: list[float] = field(default_factory=list)
    wasted: float = 0.0

    @property
    def tasks(self) -> int:
        """How many there were."""
        return self.done + self.concluded + self.cut


def jobs_of(way: Way, count: int, seed: int) -> list[Job]:
    """The same work for every way."""
    dice, moods = random.Random(seed), random.Random(seed + 1)
    made = []
    for number in range(count):
        steps = max(round(dice.lognormvariate(math.log(20), 0.4)), 1)
        lengths = [min(max(round(dice.lognormvariate(math.log(200), 0.7)), 10), 1500) for _ in range(steps)]
        made.append(Job(f"job-{number}", lengths, moods.random() < way.heeds))
    return made


def pieces_of(job: Job, body: dict[str, Any]) -> list[Piece]:
    """What the made-up model says next."""
    told = job.heeds and NOTE in str(body["messages"][-1])
    if told or job.at >= len(job.steps):
        return [text("word " * PIECE_TOKENS, tokens=PIECE_TOKENS) for _ in range(ANSWER_TOKENS // PIECE_TOKENS)]
    length = job.steps[job.at]
    opening = tool('{"text":"', id=f"call_{job.at}", name="look")
    middle = [tool("word " * PIECE_TOKENS, tokens=PIECE_TOKENS) for _ in range(max(length // PIECE_TOKENS, 1))]
    return [opening, *middle, tool('"}')]


async def work(live: Live, job: Job, ends: Ends, model: str = "auto") -> None:
    """One task, until it has its answer or is stopped."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Do the work."}]
    answered = False
    while True:
        answer = await live.chat(model=model, task=job.name, user=job.name, messages=messages, tools=TOOLS, stream=True)
        if answer.status != 200 or answer.error_code is not None or answer.finishes not in (["stop"], ["tool_calls"]):
            break
        if answer.finishes == ["stop"]:
            answered = True
            break
        calls = [
            call
            for event in answer.events
            for c in event.get("choices", ())
            for call in c["delta"].get("tool_calls", ())
        ]
        arguments = "".join(call["function"].get("arguments", "") for call in calls)
        call = {"id": calls[0]["id"], "type": "function", "function": {"name": "look", "arguments": arguments}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "ok"},
        ]
        job.at += 1
    await note_end(live, job, ends, answered)


async def note_end(live: Live, job: Job, ends: Ends, answered: bool) -> None:
    """Count how a task ended."""
    spent = (await live.balance(f"task:{job.name}")).spent_nano / CAP_NANO
    ends.spent.append(spent)
    if not answered:
        ends.cut += 1
        ends.wasted += spent
    elif job.at >= len(job.steps):
        ends.done += 1
    else:
        ends.concluded += 1


async def simulate(way: Way, count: int, seed: int) -> Ends:
    """All jobs in one way."""
    jobs = {job.name: job for job in jobs_of(way, count, seed)}
    ends, turns = Ends(), asyncio.Semaphore(AT_ONCE)

    def source(received: Received) -> Script:
        return Script.of(pieces_of(jobs[received.body["user"]], received.body))

    with ScriptedUpstream(source) as upstream, tempfile.TemporaryDirectory() as folder:
        made = policy(
            {"large": upstream, "small": upstream},
            caps={"task": {"max_cost_usd": usd(CAP_NANO)}},
            models={"small": {"pricing": SMALL}, "large": {"tier": 4}},
        )
        made["routes"]["auto"] |= {
            "candidates": ["large", "small"], "fallback": [], "objective": "quality", "max_expected_cost_usd": 10,
            "adequacy": 0.01,
        }  # fmt: skip
        if way.rules is not None:
            made["landing"] = way.rules
        async with Live(Path(folder), made) as live:

            async def in_turn(job: Job) -> None:
                async with turns:
                    await work(live, job, ends)

            for model in ("large", "small"):  # what they bill for such prompts has been learned
                jobs[model] = Job(model, [20] * 60, heeds=False)
                await work(live, jobs[model], Ends(), model)
            counted = [job for name, job in jobs.items() if name not in ("large", "small")]
            await asyncio.gather(*map(in_turn, counted))
    return ends


def line(way: Way, ends: Ends) -> str:
    """One row of the table."""
    n = ends.tasks
    low, high = wilson(ends.done + ends.concluded, n)
    return (
        f"{way.name:34} {(ends.done + ends.concluded) / n:5.0%} ({low:.0%} to {high:.0%})  {ends.done / n:5.0%}"
        f"  {ends.concluded / n:5.0%}  {ends.cut / n:5.0%}  {sum(ends.spent) / n:6.2f}  {max(ends.spent):6.3f}"
        f"  {ends.wasted / sum(ends.spent):5.0%}"
    )


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval)."""
    p = hits / n
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every way over the same jobs."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.landing", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    print(f"synthetic; {chosen.tasks} tasks, seed {chosen.seed}; spend in shares of the cap", flush=True)
    print(f"{'':34} ended by itself       done  early    cut   spent  at most  for nothing", flush=True)
    for way in WAYS:
        print(line(way, asyncio.run(simulate(way, chosen.tasks, chosen.seed))), flush=True)


if __name__ == "__main__":
    main()
