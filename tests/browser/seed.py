"""A gateway's past, made up: a week of tasks by three programs on five models, with outcomes, cuts, denials and
names that would be harmful if anybody took them for HTML. Deterministic but for the time it ends."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from app.core.budget import Claim, Settle
from app.core.feedback import Feedback, Speaker, Turned, task_thing
from app.core.money import nano_from_usd
from app.core.quarantined import Quarantined
from app.stores.budgets_sqlite import SqliteBudgets
from app.stores.outcomes_sqlite import SqliteOutcomes
from app.stores.snapshots import Snapshot, Status, Trial
from app.stores.snapshots_sqlite import SqliteSnapshots
from app.stores.traces_files import FileTraces
from tests.http.live import sha256

HOSTILE = "<img src=x onerror=\"window.pwned='yes'\">"
HOSTILE_TASK = "job-<script>window.pwned=1</script>&lt;b&gt;"
DAY_S = 86_400.0
KEYS = ("alice", "bob", "ci")
TEAMS = {"alice": "web", "bob": "web"}


@dataclass(frozen=True, slots=True)
class Model:
    """One made-up model: dollars per 1,000 tokens, tokens per second, seconds to the first token, share of tasks that
    succeed, and its share of the work."""

    provider: str
    tier: int
    input: float
    output: float
    speed: float
    ttft_s: float
    success: float
    weight: float


MODELS = {
    "qwen3-8b": Model("vllm", 1, 0.0001, 0.0004, 95.0, 0.25, 0.71, 5),
    "gemini-2.5-flash": Model("google", 2, 0.0003, 0.0025, 180.0, 0.4, 0.84, 4),
    "gpt-4.1-mini": Model("openai", 2, 0.0004, 0.0016, 70.0, 0.6, 0.80, 3),
    "claude-sonnet-4-5": Model("anthropic", 4, 0.003, 0.015, 62.0, 1.1, 0.93, 3),
    "gpt-5.2": Model("openai", 4, 0.00175, 0.014, 48.0, 4.5, 0.95, 2),
    "llama-3.3-70b": Model("cpu", 3, 0.0002, 0.0006, 1.1, 9.0, 0.78, 1),
}
HARNESSES = ("claude-code", "codex", "opencode")
KINDS = ("code", "math", "plain_questions", "agent_step")
POLICY_VERSION = "5eeded0000000001"


def policy(url: str, *, keys: bool = True, cap: float = 40.0) -> str:
    """The policy that this past is under; every provider is the upstream at `url`."""
    providers = {model.provider for model in MODELS.values()}
    lines = ["version: 1", "providers:"]
    lines += [f'  {name}: {{base_url: "{url}", api_key: "${{A_KEY:-none}}"}}' for name in sorted(providers)]
    lines.append("models:")
    lines += [
        f"  {name}: {{provider: {m.provider}, tier: {m.tier}, "
        f"pricing: {{input_per_1k: {m.input}, output_per_1k: {m.output}}}}}"
        for name, m in MODELS.items()
    ]
    names = ", ".join(MODELS)
    lines += ["routes:", f"  auto: {{candidates: [{names}], adequacy: 0.8, split: {{learned: 0.8, heuristic: 0.2}}}}"]
    lines += [
        f"caps: {{task: {{max_cost_usd: 2.0}}, key: {{day: {{max_cost_usd: 12}}, month: {{max_cost_usd: 150}}}}, "
        f"global: {{day: {{max_cost_usd: {cap}}}, month: {{max_cost_usd: 600}}}}}}"
    ]
    if keys:
        lines.append("teams: {web: {caps: {month: {max_cost_usd: 250}}}}")
        lines.append("keys:")
        teams = {name: f", team: {TEAMS[name]}" if name in TEAMS else "" for name in KEYS}
        lines += [f'  - {{name: {name}, sha256: "{sha256(name)}"{team}}}' for name, team in teams.items()]
        lines.append(f'  - {{name: boss, sha256: "{sha256("boss")}", admin: true}}')
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Past:
    """What was made."""

    records: list[dict[str, Any]] = field(default_factory=list)
    words: list[Feedback] = field(default_factory=list)

    def spent(self, key: str | None = None, since_s: float = 0.0) -> float:
        """Dollars."""
        return sum(
            r["cost_usd"] or 0.0 for r in self.records if r["created_s"] >= since_s and (key is None or r["key"] == key)
        )


def make(now_s: float, *, tasks: int = 260, days: float = 6.5, seed: int = 7) -> Past:
    """The past that ends now."""
    rng = random.Random(seed)
    past = Past()
    for number in range(tasks):
        # Twice as busy at the end as at the beginning.
        age_s = days * DAY_S * (1 - (number + rng.random()) / tasks) ** 1.5
        begin_s = now_s - max(age_s, 900.0) + rng.uniform(-300, 0)
        _task(past, rng, number, begin_s, now_s)
    _odd(past, now_s)
    past.records.sort(key=lambda record: record["created_s"])
    return past


def _task(past: Past, rng: random.Random, number: int, begin_s: float, now_s: float) -> None:
    name = rng.choices(list(MODELS), [m.weight for m in MODELS.values()])[0]
    model, harness = MODELS[name], rng.choice(HARNESSES)
    key, task_id = rng.choices(KEYS, [5, 3, 2])[0], f"{rng.choice(('fix', 'add', 'port', 'test'))}-{number:03d}"
    # The slow decline of one model, for the trend to find.
    slower = 1.9 if name == "gpt-4.1-mini" and now_s - begin_s < 2 * DAY_S else 1.0
    at_s = begin_s
    turns = rng.randint(2, 7)
    for turn in range(turns):
        output = int(rng.lognormvariate(6.3, 0.5))
        prompt = int(rng.lognormvariate(9.4, 0.6)) + 2_000 * turn
        ttft = model.ttft_s * slower * rng.lognormvariate(0, 0.25)
        duration = ttft + output / model.speed * slower
        fate = rng.random()
        record = _record(rng, name, at_s, key, task_id, harness, prompt, output, ttft, duration)
        if fate < 0.02:
            _fail(record, rng.choice(("api_error", "timeout", "rate_limit")))
        elif fate < 0.03 and turn == turns - 1:
            _cut(record)
        past.records.append(record)
        at_s += duration + rng.uniform(0.5, 6)
    if rng.random() < 0.9:
        went = Turned.SUCCESS if rng.random() < model.success else Turned.FAILURE
        said_s = min(at_s + 1, now_s)
        past.words.append(Feedback(task_thing(key, task_id), key, Speaker.VERIFIER, went, said_s, key))


def _record(
    rng: random.Random, name: str, at_s: float, key: str, task_id: str | None, harness: str, prompt: int, output: int,
    ttft_s: float, duration_s: float,
) -> dict[str, Any]:  # fmt: skip
    model = MODELS[name]
    cost = round(prompt * model.input / 1000 + output * model.output / 1000, 9)
    overhead = 0.4 * rng.lognormvariate(0, 0.35)
    kind = rng.choice(KINDS)
    learned = rng.random() < 0.8
    drawn = learned and rng.random() < 0.06
    other = rng.choice([known for known in MODELS if known != name])
    candidates = [
        {
            "model": known, "provider": m.provider, "tier": m.tier,
            "verdict": "chosen" if known == name else "passed over",
            "p_success": round(min(max(m.success + rng.uniform(-0.08, 0.06), 0.02), 0.99), 4),
            "confidence": round(rng.uniform(0.6, 0.95), 4), "expected_output_tokens": output,
            "expected_cost_usd": prompt * m.input / 1000 + output * m.output / 1000,
            "price_usd_per_1k": {"input": m.input, "output": m.output, "source": "policy"},
        }
        for known, m in MODELS.items()
    ]  # fmt: skip
    return {
        "request_id": f"req_{int(at_s * 1000):011x}{rng.getrandbits(64):016x}",
        "created_s": at_s, "key": key, "team": TEAMS.get(key), "task_id": task_id, "parent_id": None,
        "harness": harness,
        "requested_model": "auto", "stream": True, "outcome": "completed", "error": None, "model": name,
        "provider": model.provider, "cost_usd": cost, "provenance": "metered",
        "usage": {"input_tokens": prompt, "output_tokens": output}, "cut": None, "seen": None, "denied_scope": None,
        "denials": [],
        "decision": {
            "route": "auto", "reason": "cheapest with P(success) at or above adequacy", "chosen": name,
            "order": [name], "task_type": kind, "objective": "cheapest_adequate", "adequacy": 0.8,
            "min_confidence": 0.7, "propensity": 0.8 if learned else 0.2,
            "router": "learned@3" if learned else "heuristic@2",
            "assigned": "learned" if learned else "heuristic", "share": 0.8 if learned else 0.2, "deferred": False,
            "explored": drawn if learned else None, "instead_of": other if drawn else None,
            "candidates": candidates, "others": [],
        },
        "caps": [{"scope": "task", "name": f"task:{key}:{task_id}", "limit_usd": 2.0}] if task_id else [],
        "attempts": [
            {
                "model": name, "provider": model.provider, "outcome": "completed", "status": 200, "mode": "stream",
                "clamp_tokens": None, "cost_usd": cost, "provenance": "metered", "ttft_ms": ttft_s * 1000,
                "error": None,
                "budget": {
                    "scope": f"task:{key}:{task_id}", "held_usd": cost * 1.4, "remaining_usd": 1.8 - cost,
                    "refunded_usd": cost * 0.4, "remaining_after_usd": 1.8 - cost,
                },
            }
        ],
        "cost_killed_at_usd": None,
        "timings": {
            "duration_ms": duration_s * 1000, "ttft_ms": ttft_s * 1000, "overhead_ms": overhead,
            "first_attempt_ms": ttft_s * 1000 * 1.3, "generation_ms": (duration_s - ttft_s) * 1000,
        },
        "versions": {"policy": POLICY_VERSION, "prices": "1", "router": "learned@3"},
        "client": {"request_id": None, "retry_count": None, "traceparent": None},
    }  # fmt: skip


def _fail(record: dict[str, Any], outcome: str) -> None:
    record.update(outcome=outcome, error="The provider failed to serve the request.", cost_usd=0.0)
    record["usage"] = {}
    record["attempts"][0].update(outcome=outcome, status=503, cost_usd=0.0)


def _cut(record: dict[str, Any]) -> None:
    cut = {"scope": "task", "by": "meter", "killed_at_usd": str(record["cost_usd"]), "in_tool_call": False}
    record.update(outcome="cost_killed", cut=cut, provenance="estimated", cost_killed_at_usd=record["cost_usd"])
    record["attempts"][0]["outcome"] = "cost_killed"


def _odd(past: Past, now_s: float) -> None:
    """Calls that each view must tell apart: hostile names, a denial, a cut, a call without a task."""
    rng = random.Random(1)

    def record(age_s: float, task: str | None, **more: Any) -> dict[str, Any]:
        made = _record(rng, "qwen3-8b", now_s - age_s, "alice", task, "codex", 900, 200, 0.3, 2.5)
        made.update(more)
        past.records.append(made)
        return made

    record(120, HOSTILE_TASK, requested_model=HOSTILE, error=HOSTILE, outcome="api_error", model=HOSTILE, cost_usd=0.0)
    denied = record(90, "fix-denied", outcome="denied", denied_scope="task", model=None, provider=None, cost_usd=0.0)
    denied.update(attempts=[], usage={}, denials=[{"model": "qwen3-8b", "scope": "task", "limit_usd": "2"}])
    for turn in range(6):
        made = {"model": "claude-sonnet-4-5", "provider": "anthropic", "cost_usd": round((turn + 3) / 16.5, 9)}
        last = record(600 - 100 * turn, "fix-cut", **made)
    _cut(last)
    record(30, None, harness="", outcome="client_gone", cost_usd=0.0001)


def ledger_ops(past: Past, now_s: float) -> Iterator[Settle]:
    """What the ledger would have been told of these calls."""
    month = _day(now_s)[:7]
    for record in past.records:
        nano, key, at = nano_from_usd(record["cost_usd"] or 0.0), record["key"], _day(record["created_s"])
        windows = (f"day:{at}", f"month:{at[:7]}", "total")
        owners = [f"key:{key}", *([f"team:{TEAMS[key]}"] if key in TEAMS else []), "global"]
        scopes = [f"{owner}:{window}" for owner in owners for window in windows]
        if record["task_id"] is not None:
            scopes.append(f"task:{key}:{record['task_id']}")
        if at[:7] != month:
            scopes = [scope for scope in scopes if ":month:" not in scope]
        claims = tuple(Claim(scope, 2 * 10**9 if scope.startswith("task:") else _limit(scope)) for scope in scopes)
        name = record["request_id"]
        killed = tuple(s for s in scopes if s.startswith("task:")) if record["cut"] else ()
        usage = record["usage"]
        tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        yield Settle(name, nano, killed, tokens, claims=claims, now_ms=int(record["created_s"] * 1000))


def _limit(scope: str) -> int | None:
    """The policy's, in nano-dollars."""
    parts = scope.split(":")
    owner, window = parts[0], parts[1] if parts[0] == "global" else parts[2]
    keys, everybody = {("key", "day"): 12, ("key", "month"): 150}, {("global", "day"): 40, ("global", "month"): 600}
    dollars = keys | {("team", "month"): 250} | everybody
    return None if (owner, window) not in dollars else dollars[owner, window] * 10**9


def _day(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).date().isoformat()


async def _write(past: Past, data: Path, now_s: float) -> None:
    traces = FileTraces(data / "traces")
    await traces.start()
    for record in past.records:
        traces.append(record["request_id"], record.copy)
    await traces.close()
    budgets = SqliteBudgets(data / "ledger.sqlite")
    await budgets.start()
    await asyncio.gather(*[budgets.apply(op) for op in ledger_ops(past, now_s)])
    await budgets.close()
    outcomes = SqliteOutcomes(data / "outcomes.sqlite", keeps_comments=False)
    await outcomes.start()
    for word in past.words:
        await outcomes.put(word)
    await outcomes.close()
    await _write_snapshots(data, now_s)


async def _write_snapshots(data: Path, now_s: float) -> None:
    """Three, of which one was no better and one is in force."""
    snapshots = SqliteSnapshots(data / "snapshots.sqlite")
    await snapshots.start()
    fallen = Quarantined("gpt-4.1-mini", "math", now_s - DAY_S, 0.81, 0.27)
    body = msgspec.msgpack.encode({"down": (fallen,)})  # as much of a body as tells who is in quarantine
    for age_s, labels, trial, refused in (
        (3 * DAY_S, 96, Trial(40, 0.4412, 0.4603, 0.0071), False),
        (2 * DAY_S, 41, Trial(52, 0.4527, 0.4412, 0.0052), True),
        (DAY_S, 103, Trial(75, 0.4290, 0.4412, 0.0049), False),
    ):
        status: Status = "refused" if refused else "published"
        why = "no better on held-out outcomes" if refused else "better on held-out outcomes"
        made = Snapshot(0, now_s - age_s, "3", labels=labels, models=6, trial=trial, status=status, why=why)
        await snapshots.publish(made, None if refused else body, head=await snapshots.head(), keep=5)
    await snapshots.close()


def write(past: Past, data: Path, now_s: float) -> None:
    """Lay it down in a data folder, as a gateway would have."""
    data.mkdir(parents=True, exist_ok=True)
    # In a thread of its own: a browser's driver may have a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _write(past, data, now_s)).result()
