"""`bursar probe` over a live gateway with scripted upstreams: what it asks, judges, reports, and never does twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.commands import probe_calls
from app.commands.tree import cli
from app.http import feedback
from app.settings import SHIPPED_WEIGHTS, Settings
from app.stores.opening import make_outcomes
from app.stores.traces_runs import every_word
from tests.conftest import ROOT
from tests.http.live import LiveGateway, environment, sha256
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Gate, Script, tool, words

NANO = 10**9
POLICY = """\
version: 1
providers:
  a: {{base_url: "{url}"}}
models:
  small: {{provider: a, upstream_model: small-v1, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 0.002}}}}
  large: {{provider: a, upstream_model: large-v1, tier: 4, pricing: {{input_per_1k: 0.01, output_per_1k: 0.02}}}}
routes:
  auto: {{candidates: [small, large], adequacy: 0.5, fallback: [large]}}
keys:
  - {{name: prober, sha256: "{prober}", probes: true}}
  - {{name: narrow, sha256: "{narrow}", probes: true, routes: [auto]}}
  - {{name: alice, sha256: "{alice}"}}
  - {{name: boss, sha256: "{boss}", admin: true}}
"""
COUNT = 40
"""Of small's input nothing is billed: how much it is can only be estimated before. Output is what a cap can hold."""
BOSS = {"authorization": "Bearer boss"}


class Knowing:
    """An upstream that answers sums, but for those that a model has lost, by their numbers."""

    def __init__(self) -> None:
        self.lost: dict[str, set[int]] = {}
        self.gate: Gate | None = None
        self.instead: Callable[[str, int], Script | None] = lambda _model, _number: None

    def __call__(self, received: Received) -> Script:
        number, model = int(received.body["messages"][-1]["content"].split()[3]), str(received.body["model"])
        if (other := self.instead(model, number)) is not None:
            return other
        answer = "no idea" if number in self.lost.get(model, ()) else f"that is {number + 1000}"
        return Script.of(words(answer), gate=self.gate)


@pytest.fixture
def knowing() -> Knowing:
    return Knowing()


@pytest.fixture
def upstream(knowing: Knowing) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(knowing) as made:
        yield made


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast machine says more in a second than a key may."""
    monkeypatch.setattr(feedback, "BURST", 1e6)


def policy(upstream: ScriptedUpstream) -> str:
    return POLICY.format(url=upstream.url, **{name: sha256(name) for name in ("prober", "narrow", "alice", "boss")})


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[LiveGateway]:
    with LiveGateway(policy(upstream), tmp_path, learn=False) as live:
        yield live


def sums(folder: Path, count: int) -> Path:
    """A file of so many sums."""
    path = folder / "probes.jsonl"
    each = [  # all as long, so that the gateway knows after a few how many tokens they are
        {"id": f"sum-{n}", "prompt": f"Calculate the sum {n:03} + 1000.", "max_tokens": 20,
         "check": {"number": n + 1000}}
        for n in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in each))
    return path


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    return sums(tmp_path, COUNT)


def probe(gateway: LiveGateway, path: Path, *options: str, key: str = "prober", usd: str | None = "1") -> Result:
    cap = () if usd is None else ("--max-usd", usd)
    said = ["probe", str(path), "--gateway", f"http://127.0.0.1:{gateway.port}", *cap, *options]
    return CliRunner().invoke(cli, said, env={"BURSAR_API_KEY": key})


def begun(gateway: LiveGateway, path: Path, *options: str) -> subprocess.Popen[bytes]:
    """The same as a process of its own, which a test may kill."""
    command = [sys.executable, "-m", "app.cli", "probe", str(path), "--max-usd", "1", *options]
    command += ["--gateway", f"http://127.0.0.1:{gateway.port}"]
    env = environment(BURSAR_API_KEY="prober")
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def told(done: Result) -> dict[str, Any]:
    """What --json said; the gateway of this process may log beside it."""
    first, last = done.stdout.index("{\n"), done.stdout.index("\n}\n")
    found: dict[str, Any] = json.loads(done.stdout[first : last + 2])
    return found


def line_of(done: Result, model: str) -> dict[str, Any]:
    found: dict[str, Any] = next(line for line in told(done)["lines"] if line["model"] == model)
    return found


def record_of(gateway: LiveGateway, call: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.ask("GET", f"/v1/decisions/{call}", headers=BOSS).json
    return found


def nano(usd: float) -> int:
    return round(usd * NANO)


def words_of(gateway: LiveGateway) -> list[tuple[str, str, str]]:
    """All feedback on record: call, outcome, source."""

    async def read() -> list[tuple[str, str, str]]:
        outcomes = make_outcomes(Settings(data_dir=gateway.data_dir))
        await outcomes.start()
        try:
            found = [word for said in (await every_word(outcomes)).values() for word in said]
        finally:
            await outcomes.close()
        return [(word.thing, str(word.outcome), str(word.source)) for word in found]

    return gateway.run(read())


def test_the_same_bytes_in_another_order_each_answer_judged_and_said(
    gateway: LiveGateway, upstream: ScriptedUpstream, knowing: Knowing, probes: Path
) -> None:
    knowing.lost = {"small-v1": {3, 4}}
    runs = []
    for _ in range(2):
        upstream.requests.clear()
        done = probe(gateway, probes, "--json")
        assert done.exit_code == 0, done.output
        runs.append([(str(r.body["model"]), r.raw) for r in upstream.requests])
    assert runs[0] != runs[1]
    assert sorted(runs[0]) == sorted(runs[1])
    assert len(runs[0]) == 2 * COUNT
    small, large = line_of(done, "small"), line_of(done, "large")
    assert (small["right"], small["asked"], large["right"]) == (38, COUNT, COUNT)
    assert (small["last_right"], small["lost"], small["p"]) == (38, [], 1.0)
    said = words_of(gateway)
    assert (len(said), len({call for call, _, _ in said})) == (4 * COUNT, 4 * COUNT)
    assert sum(outcome == "failure" for _, outcome, _ in said) == 4
    assert {source for _, _, source in said} == {"program"}
    record = record_of(gateway, said[0][0])
    assert (record["probe"], record["tags"], record["task_id"][:6]) == (True, ["probe"], "probe-")
    assert small["work"] == record["decision"]["task_type"]


def test_a_model_that_becomes_worse_is_told_until_it_is_back(
    gateway: LiveGateway, knowing: Knowing, probes: Path
) -> None:
    assert probe(gateway, probes).exit_code == 0
    knowing.lost = {"small-v1": set(range(7, 16))}
    for change in ("-22.5", "same"):
        worse = probe(gateway, probes)
        assert worse.exit_code == 1
        row = next(line.split() for line in worse.stdout.splitlines() if line.startswith("small"))
        assert (row[2:7], row[-1]) == (["31", "40", change, "9", "0"], "WORSE")
        assert "lost: sum-10, sum-11, sum-12" in worse.stdout
        assert "small has become worse" in worse.stderr
        assert "large has become" not in worse.stderr
    again = probe(gateway, probes, "--json")
    small = line_of(again, "small")
    assert told(again)["worse"] == ["small"]
    assert (len(small["lost"]), small["won"], small["worse"], small["p"]) == (9, [], True, 1 / 512)
    knowing.lost = {}
    assert probe(gateway, probes).exit_code == 0


def test_a_few_that_flip_are_no_fall_and_what_is_accepted_is_none(
    gateway: LiveGateway, knowing: Knowing, probes: Path
) -> None:
    knowing.lost = {"small-v1": {1, 2}}
    assert probe(gateway, probes).exit_code == 0
    knowing.lost = {"small-v1": {2, 5, 6, 7}}
    done = probe(gateway, probes, "--json")
    assert done.exit_code == 0
    small = line_of(done, "small")
    assert (small["lost"], small["won"]) == (["sum-5", "sum-6", "sum-7"], ["sum-1"])
    knowing.lost = {"small-v1": set(range(10, 25))}
    assert probe(gateway, probes).exit_code == 1
    assert probe(gateway, probes, "--accept").exit_code == 0
    assert probe(gateway, probes).exit_code == 0


def test_the_ledger_keeps_the_budget_to_the_nano_dollar(
    gateway: LiveGateway, upstream: ScriptedUpstream, probes: Path
) -> None:
    whole = told(probe(gateway, probes, "--model", "small", "--json"))
    spent = nano(whole["spent_usd"])
    bills = [nano(record_of(gateway, call)["cost_usd"]) for call, _, _ in words_of(gateway)]
    assert (len(bills), sum(bills), nano(whole["lines"][0]["cost_usd"])) == (COUNT, spent, spent)
    cap = spent // 2 - 1
    found = told(done := probe(gateway, probes, "--model", "small", "--json", usd=f"{cap / NANO:.9f}"))
    assert 0 < found["lines"][0]["asked"] < COUNT
    assert found["unasked"]["small"] + found["lines"][0]["asked"] + sum(u["calls"] for u in found["unjudged"]) == COUNT
    assert "not asked: the budget is used up (task)" in done.stderr
    task = gateway.ask("GET", f"/v1/tasks/{found['run']}?key=prober", headers=BOSS).json
    assert nano(task["spent_usd"]) == nano(found["spent_usd"]) <= cap
    assert (task["reserved_usd"], nano(task["limit_usd"])) == (0, cap)


def test_what_is_not_the_models_doing_is_not_judged(gateway: LiveGateway, knowing: Knowing, probes: Path) -> None:
    def instead(model: str, number: int) -> Script | None:
        if model == "small-v1" and number < 2:
            return Script.failure(500 if number else 400)
        return Script.of(words("a b c")) if number == 4 else None

    knowing.instead = instead
    done = probe(gateway, probes, "--json", "--concurrency", "1")
    found = told(done)
    assert done.exit_code == 0, done.output
    asked = {line["model"]: (line["right"], line["asked"]) for line in found["lines"]}
    assert asked == {"small": (COUNT - 3, COUNT - 2), "large": (COUNT - 1, COUNT)}
    assert sum(one["calls"] for one in found["unjudged"]) == 2
    assert {one["model"] for one in found["unjudged"]} == {"small"}
    assert len(words_of(gateway)) == 2 * COUNT - 2
    knowing.instead = lambda model, _: Script.failure(400) if model == "small-v1" else None
    dead = probe(gateway, probes, "--json")
    assert (dead.exit_code, told(dead)["worse"]) == (1, [])
    assert "small: nothing is known of it" in dead.stderr
    assert COUNT - 20 - 4 <= told(dead)["unasked"]["small"] <= COUNT - 20  # four are asked at a time
    assert "not asked: nothing could be said of the last 20" in dead.stderr
    knowing.instead = lambda _model, _number: None
    assert line_of(probe(gateway, probes, "--json"), "small")["last_asked"] == COUNT - 2


def test_a_provider_that_only_says_later_ends_no_run(
    gateway: LiveGateway, upstream: ScriptedUpstream, knowing: Knowing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_calls, "PAUSE_S", (0.001, 0.002))
    monkeypatch.setattr(probe_calls, "TRIES", 3)
    knowing.instead = lambda model, _: Script.failure(429) if model == "small-v1" else None
    done = probe(gateway, sums(tmp_path, 5), "--json")
    assert done.exit_code == 1
    assert (line_of(done, "large")["right"], line_of(done, "small")["asked"]) == (5, 0)
    assert sum(one["calls"] for one in told(done)["unjudged"]) == 5
    knowing.instead = lambda _model, _number: None
    assert len(words_of(gateway)) == 5


def test_checks_of_tools_and_shapes_and_kinds_of_ones_own(
    gateway: LiveGateway, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    def source(received: Received) -> Script:
        if received.body.get("tools"):
            return Script.of(tool(id="c", name="weather"), tool('{"city": "Rome"}'))
        shaped = "shape" in received.body["messages"][-1]["content"]
        return Script.of(words('```json\n{"a": 1}\n```' if shaped else "a" * 60 + "b"))

    upstream.source = source
    path = tmp_path / "probes.yaml"
    path.write_text("""\
- {id: call, kind: tools, prompt: Weather?, tools: [{type: function, function: {name: weather}}],
   check: {tool_call: {name: weather, arguments: {city: Rome}}}}
- {id: shape, kind: shapes, prompt: "A shape.", check: {json_schema: {type: object, required: [a]}}}
- {id: not-shape, kind: shapes, prompt: "Another shape.", check: {json_schema: {type: object, required: [b]}}}
- {id: slow, kind: words, prompt: "Words.", check: {matches: "^(a+)+$"}}
""")
    done = probe(gateway, path, "--model", "small", "--json")
    found = {line["work"]: (line["right"], line["asked"]) for line in told(done)["lines"]}
    assert found == {"tools": (1, 1), "shapes": (1, 2), None: (2, 3)}
    assert told(done)["unjudged"] == [{"model": "small", "why": "the check takes too long", "calls": 1}]
    shown = probe(gateway, path, "--model", "small")
    assert "tools: the gateway sorts it as" in shown.stdout
    assert "(all)" in shown.stdout


def test_kill_9_and_again_loses_and_doubles_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, knowing: Knowing, probes: Path
) -> None:
    knowing.gate = gate = Gate()
    for answers in (5, 7):
        before = len(words_of(gateway))
        process = begun(gateway, probes, "--model", "small", "--concurrency", "3")
        gate.release(3 * answers)  # an answer is three pieces
        least = before + answers - 3
        gateway.until(lambda least=least: len(words_of(gateway)) >= least)  # type: ignore[misc]
        process.kill()
        process.wait()
    journal = probes.with_name("probes.jsonl.state.run")
    assert journal.read_bytes().count(b'"begun"') == 1
    with journal.open("ab") as file:
        file.write(b'{"type":"answered","call":"req_')  # as a power cut may leave it
    gate.open()
    done = probe(gateway, probes, "--model", "small", "--json")
    assert done.exit_code == 0, done.output
    assert "goes on with probe-" in done.stderr
    found = told(done)
    assert (found["lines"][0]["right"], found["lines"][0]["asked"], found["unasked"]) == (COUNT, COUNT, {})
    said = words_of(gateway)
    asked = [record_of(gateway, call) for call, _, _ in said]
    assert len({record["request_id"] for record in asked}) == len(said) == COUNT
    assert {record["task_id"] for record in asked} == {found["run"]}
    assert len(upstream.requests) <= COUNT + 2 * 3
    assert nano(found["spent_usd"]) >= sum(nano(record["cost_usd"]) for record in asked)
    assert journal.read_bytes() == b""


def test_one_that_is_told_to_end_goes_on_later(gateway: LiveGateway, knowing: Knowing, probes: Path) -> None:
    knowing.gate = gate = Gate()
    process = begun(gateway, probes, "--model", "small")
    gate.release(9)
    gateway.until(lambda: words_of(gateway))
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(PATIENCE_S) != 0
    gate.open()
    done = probe(gateway, probes, "--model", "small")
    assert (done.exit_code, "goes on with" in done.stderr) == (0, True)


def test_another_set_begins_anew_and_what_was_left_unsaid_is_said(
    gateway: LiveGateway, knowing: Knowing, probes: Path
) -> None:
    knowing.gate = gate = Gate()
    process = begun(gateway, probes, "--model", "small", "--concurrency", "1")
    gate.release(9)
    gateway.until(lambda: words_of(gateway))
    process.kill()
    process.wait()
    journal = probes.with_name("probes.jsonl.state.run")
    kept = [one for one in journal.read_bytes().splitlines(keepends=True) if b'"told"' not in one]
    journal.write_bytes(b"".join(kept))  # as if it had been killed before each word
    gate.open()
    before = len(words_of(gateway))
    done = probe(gateway, sums(probes.parent, 10), "--model", "small")
    assert (done.exit_code, "goes on with" in done.stderr) == (0, False)
    said = words_of(gateway)
    assert len({call for call, _, _ in said}) == len(said) == max(before, len(kept) - 1) + 10


def test_what_could_not_be_said_is_said_by_the_next_run(
    gateway: LiveGateway, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "BURST", 10.0)
    monkeypatch.setattr(feedback, "PER_S", 1e-6)
    monkeypatch.setattr(probe_calls, "PAUSE_S", (0.001, 0.002))
    done = probe(gateway, probes, "--model", "small", "--json", "--concurrency", "1")
    assert (done.exit_code, told(done)["untold"]) == (1, COUNT - 10)
    assert f"what came of {COUNT - 10} calls could not be said" in done.stderr
    assert len(words_of(gateway)) == 10
    monkeypatch.setattr(feedback, "PER_S", 1e9)
    again = probe(gateway, probes, "--model", "small", "--json")
    assert (again.exit_code, told(again)["untold"]) == (0, 0)
    said = words_of(gateway)
    assert len({call for call, _, _ in said}) == len(said) == 2 * COUNT


def test_two_runs_at_once_are_one_too_many(gateway: LiveGateway, knowing: Knowing, probes: Path) -> None:
    knowing.gate = gate = Gate()
    process = begun(gateway, probes)
    try:
        journal = probes.with_name("probes.jsonl.state.run")
        gateway.until(lambda: journal.exists() and journal.stat().st_size)
        other = probe(gateway, probes)
        assert (other.exit_code, "another run is under way" in other.stderr) == (2, True)
    finally:
        gate.open()
        assert process.wait(PATIENCE_S) == 0


def test_what_a_run_would_cost(gateway: LiveGateway, upstream: ScriptedUpstream, probes: Path) -> None:
    dry = probe(gateway, probes, "--dry-run", "--json", usd=None)
    assert (dry.exit_code, upstream.requests) == (0, [])
    small, large = told(dry)["models"]
    assert small["last_run_usd"] is None
    assert 0 < small["at_most_usd"] < large["at_most_usd"]
    spent = told(probe(gateway, probes, "--json"))["spent_usd"]
    assert spent <= small["at_most_usd"] + large["at_most_usd"]
    again = told(probe(gateway, probes, "--dry-run", "--json", usd=None))["models"]
    assert sum(model["last_run_usd"] for model in again) == pytest.approx(spent, abs=1e-8)
    assert "last run $" in probe(gateway, probes, "--dry-run", usd=None).stdout
    own = probe(gateway, probes, "--dry-run", "--json", usd=None, key="narrow")  # it may use the route alone
    assert [model["at_most_usd"] for model in told(own)["models"]] == [None, None]
    assert told(own)["models"][0]["last_run_usd"] == again[0]["last_run_usd"]


@pytest.mark.parametrize(
    ("options", "key", "usd", "problem"),
    [
        ((), "prober", None, "say with --max-usd what a run may cost"),
        ((), "prober", "much", "--max-usd: "),
        ((), "alice", "1", "This key may not send probes"),
        ((), "nobody", "1", "Put your key into BURSAR_API_KEY"),
        (("--route", "none"), "prober", "1", "none: The policy has no route or model of that name"),
        (("--state", "/proc/none/state"), "prober", "1", "--state says where else"),
    ],
)
def test_wrong_usage_costs_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, probes: Path, options: tuple[str, ...], key: str,
    usd: str | None, problem: str,
) -> None:  # fmt: skip
    done = probe(gateway, probes, *options, key=key, usd=usd)
    assert done.exit_code == 2, done.output
    assert problem in done.stderr
    assert upstream.requests == []


def test_without_a_gateway(probes: Path, free_port: int) -> None:
    done = CliRunner().invoke(cli, ["probe", str(probes), "--gateway", f"http://127.0.0.1:{free_port}"])
    assert (done.exit_code, "no gateway answers at" in done.stderr) == (2, True)
    done = CliRunner().invoke(cli, ["probe", str(probes), "--gateway", "elsewhere"])
    assert (done.exit_code, "--gateway: " in done.stderr) == (2, True)


def test_a_model_that_is_no_candidate_says_so(gateway: LiveGateway, probes: Path) -> None:
    done = probe(gateway, probes, "--model", "none", "--concurrency", "1")
    assert done.exit_code == 1
    assert "What X-Bursar-Probe names is no candidate of this route" in done.stderr
    assert "none: 39 not asked: it is no candidate of this route" in done.stderr


def test_a_fall_of_five_points_is_found_by_the_learner_and_the_command(
    tmp_path: Path, upstream: ScriptedUpstream, knowing: Knowing
) -> None:
    """Synthetic: 200 requests of which 180 are right each time; then ten of these are lost."""
    path, options = sums(tmp_path, 200), {"router_weights": SHIPPED_WEIGHTS, "learn_every_s": 0.1}
    knowing.lost = {"small-v1": set(range(20))}
    with LiveGateway(policy(upstream), tmp_path, **options) as gateway:
        env = environment(BURSAR_DATA_DIR=str(gateway.data_dir))

        def run(code: int) -> None:
            done = probe(gateway, path, "--model", "small", "--concurrency", "16")
            assert done.exit_code == code, done.output

        def down() -> list[dict[str, Any]]:
            command = [sys.executable, "-m", "app.cli", "router", "quarantine", "--json"]
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=True)
            found: list[dict[str, Any]] = json.loads(done.stdout)
            return found

        for _ in range(10):
            run(0)
        assert down() == []
        knowing.lost = {"small-v1": set(range(30))}
        for _ in range(3):  # 600 labels
            run(1)
        gateway.until(down, 60)
        (fallen,) = down()
        assert (fallen["model"], fallen["cause"], fallen["paired"] > 0.9) == ("small", "model", True)
        said = {"model": "auto", "messages": [{"role": "user", "content": "Calculate the sum 005 + 1000."}]}
        alice = {"authorization": "Bearer alice"}

        def spared() -> bool:
            """Whether a user's request is kept from it."""
            decision = gateway.decision(gateway.ask("POST", "/v1/chat/completions", said, alice), alice)["decision"]
            assert decision["task_type"] == fallen["task_type"]
            return any("quarantine" in c["verdict"] for c in decision["candidates"] if c["model"] == "small")

        gateway.until(spared)
        knowing.lost = {"small-v1": set(range(20))}
        for _ in range(2):
            run(0)
        gateway.until(lambda: not down(), 60)
