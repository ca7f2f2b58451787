"""The `bursar` command: what it prints, its exit codes, and how it serves, stops and refuses to start."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import multiprocessing
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner, Result

from app.commands.greeting import base_url, command, providers_line, variables_off
from app.commands.server import MOST_FILES, _Worker, bound_socket
from app.commands.tree import cli
from app.core.budget import Claim, Reserve, Settle
from app.stores.budgets import Budgets
from app.stores.budgets_redis import RedisBudgets
from app.stores.budgets_sqlite import SqliteBudgets
from app.stores.keys import hash_key
from app.stores.policy_file import load_policy
from app.stores.policy_model import json_schema
from tests.conftest import ROOT, Served
from tests.redis_server import shared_server
from tests.stores.policy_texts import CATALOGUE, CONTRACT, DEFAULT_POLICY
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

WITHIN_S = 60.0
NANO = 10**9
ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Say five words."}]}


def bursar(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), env=env)


def rows(text: str, first: str) -> list[str]:
    """The cells of the first line that begins with a word."""
    line = next(line for line in text.splitlines() if line.startswith(first))
    return re.split(r"\s{2,}", line)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(CONTRACT)
    return path


# Policies


def test_a_good_policy_is_shown_with_prices_and_caps(policy: Path) -> None:
    done = bursar("policy", "check", str(policy))
    assert done.exit_code == 0
    assert rows(done.stdout, "small ") == ["small", "a", "1", "0.0001", "0.0004", "0.0192"]
    assert rows(done.stdout, "large") == ["large", "b", "4", "0.015", "0.075", "0.3"]
    assert "route auto: small, small-b, large" in done.stdout
    assert "caps: task $1" in done.stdout
    assert "keys: none, so it is served on loopback only" in done.stdout


def test_how_many_may_run_at_a_time_is_shown(policy: Path) -> None:
    more = "task: {max_cost_usd: 1.00, max_parallel_requests: 8}\n  key: {max_parallel_requests: 4}"
    policy.write_text(CONTRACT.replace("task: {max_cost_usd: 1.00}", more))
    done = bursar("policy", "check", str(policy))
    assert "caps: task $1, task 8 requests at a time, key 4 requests at a time" in done.stdout


def test_what_each_end_user_may_spend_is_shown(policy: Path) -> None:
    more = "task: {max_cost_usd: 1.00}\n  user: {day: {max_cost_usd: 0.5}, minute: {max_calls: 9}, require: true}"
    policy.write_text(CONTRACT.replace("task: {max_cost_usd: 1.00}", more))
    done = bursar("policy", "check", str(policy))
    assert "caps: task $1, user a day $0.5, user 9 calls a minute, requests must name their user" in done.stdout


def test_every_problem_of_a_bad_policy_is_a_line_with_file_line_and_column(policy: Path) -> None:
    policy.write_text(CONTRACT.replace("provider: a,", "provider: c,").replace("tier: 4", "tier: high"))
    done = bursar("policy", "check", str(policy))
    assert done.exit_code == 1
    problems = done.stderr.splitlines()
    assert len(problems) == 2
    assert problems[0].startswith(f"{policy}:6:23: models.small.provider: there is no provider 'c'")
    assert problems[1].startswith(f"{policy}:8:")


def test_notes_name_what_is_off(policy: Path) -> None:
    policy.write_text(
        CONTRACT.replace("models:", "  c: {base_url: 'http://c/v1', api_key: '${C_KEY}', optional: true}\nmodels:")
    )
    done = bursar("policy", "check", str(policy))
    assert done.exit_code == 0
    assert "note: provider c is off: C_KEY is not set" in done.stdout


def test_the_schema_is_the_one_beside_the_default_policy() -> None:
    done = bursar("policy", "schema")
    assert json.loads(done.stdout) == json_schema()


# Prices


def test_prices_of_the_policy_in_force(policy: Path) -> None:
    done = bursar("prices", env={"BURSAR_POLICY": str(policy)})
    assert done.exit_code == 0
    assert rows(done.stdout, "large") == ["large", "b", "4", "0.015", "0.075", "-", "-", "0.3", "policy"]
    assert "Catalogue" not in done.stdout


def test_prices_by_part_of_a_name_search_policy_and_catalogue(policy: Path) -> None:
    done = bursar("prices", "GPT-4o-mini", "--policy", str(policy), "--json")
    assert done.exit_code == 0
    found = {model["model"]: model for model in json.loads(done.stdout)["models"]}
    mini = found["gpt-4o-mini"]
    assert mini["price_usd_per_1k"]["input"] == pytest.approx(0.00015)
    assert mini["source"] == "catalogue:gpt-4o-mini"
    assert mini["provider"] is None
    shown = bursar("prices", "gpt-4o-mini", "--policy", str(policy))
    assert rows(shown.stdout, "gpt-4o-mini")[:3] == ["gpt-4o-mini", "0.00015", "0.0006"]


def test_a_long_list_of_prices_is_cut_short_and_says_so(policy: Path) -> None:
    done = bursar("prices", "gpt", "--policy", str(policy))
    assert re.search(r"and \d+ more", done.stdout)
    assert len(done.stdout.splitlines()) < 50


def test_no_such_model_is_an_answer_of_no_with_close_names(policy: Path) -> None:
    done = bursar("prices", "gpt-4o-minni", "--policy", str(policy))
    assert done.exit_code == 1
    assert "gpt-4o-mini" in done.stderr


def test_prices_outlive_a_bad_policy(policy: Path) -> None:
    policy.write_text("version: 2\n")
    done = bursar("prices", "gpt-4o-mini", "--policy", str(policy))
    assert done.exit_code == 0
    assert str(policy) in done.stderr
    assert bursar("prices", "--policy", str(policy)).exit_code == 2


# Spending


def today() -> str:
    """Not that of when this file was read: a suite may run past midnight."""
    return dt.datetime.now(dt.UTC).date().isoformat()


async def fill(budgets: Budgets) -> None:
    """A task of no key with $0.25 of $1 spent and $0.05 held; a task of key ci that was cut at $0.02."""
    await budgets.start()
    windows = (Claim(f"global:day:{today()}", 50 * NANO), Claim(f"global:month:{today()[:7]}"), Claim("global:total"))
    mine = (Claim("task:-:run:17", NANO), Claim("task:-:run:17|model:small", NANO // 2), *windows)
    lab = (Claim(f"team:lab:day:{today()}", 20 * NANO), Claim("team:lab:total"))
    ci = (
        *(Claim("task:ci:run:17", NANO // 50), Claim(f"key:ci:day:{today()}", 10 * NANO), Claim("key:ci:total")),
        *(*lab, *windows),
    )
    await budgets.apply(Reserve("a", budgets.owner, mine, 0, NANO // 4, 0))
    await budgets.apply(Settle("a", NANO // 4))
    await budgets.apply(Reserve("b", budgets.owner, ci, 0, NANO // 50, 0))
    await budgets.apply(Settle("b", NANO // 50, killed_scopes=("task:ci:run:17",)))
    await budgets.apply(Reserve("c", budgets.owner, mine, 0, NANO // 20, 0))


@contextlib.contextmanager
def filled(budgets: Budgets) -> Any:
    """The ledger while the gateway that filled it still runs."""
    with asyncio.Runner() as runner:
        runner.run(fill(budgets))
        try:
            yield
        finally:
            runner.run(budgets.close())


@pytest.fixture(params=["sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The environment that finds a filled ledger."""
    if request.param == "sqlite":
        with filled(SqliteBudgets(tmp_path / "ledger.sqlite")):
            yield {"BURSAR_DATA_DIR": str(tmp_path)}
        return
    server = shared_server()
    namespace = f"cli-{time.time_ns()}"
    with filled(RedisBudgets(server.url, namespace=namespace)):
        yield {"BURSAR_REDIS_URL": server.url, "BURSAR_REDIS_NAMESPACE": namespace}


def test_spending_of_everybody(ledger: dict[str, str]) -> None:
    done = bursar("spend", env=ledger)
    assert done.exit_code == 0, done.stderr
    assert rows(done.stdout, f"day {today()}") == [f"day {today()}", "0.27", "0.05", "50", "49.68", "3"]
    assert rows(done.stdout, "total") == ["total", "0.27", "0.05", "none", "-", "3"]
    assert "Key ci" in done.stdout
    assert "Team lab" in done.stdout
    assert rows(done.stdout, "run:17 of ci")[-1] == "cut at $0.02"


def test_spending_of_a_task_in_every_key_that_has_one_of_that_name(ledger: dict[str, str]) -> None:
    done = bursar("spend", "--task", "run:17", env=ledger)
    assert done.exit_code == 0, done.stderr
    assert rows(done.stdout, "all models") == ["all models", "0.25", "0.05", "1", "0.7", "2"]
    assert rows(done.stdout, "small") == ["small", "0.25", "0.05", "0.5", "0.2", "2"]
    assert "Task run:17 of ci" in done.stdout
    only = bursar("spend", "--task", "run:17", "--key", "ci", "--json", env=ledger)
    (task,) = json.loads(only.stdout)
    assert (task["id"], task["key"], task["spent_usd"], task["exhausted"]) == ("run:17", "ci", 0.02, True)


def test_spending_of_a_key(ledger: dict[str, str]) -> None:
    done = bursar("spend", "--key", "ci", "--json", env=ledger)
    seen = json.loads(done.stdout)
    assert seen["windows"]["day"]["spent_usd"] == 0.02
    assert seen["windows"]["day"]["limit_usd"] == 10
    assert [task["id"] for task in seen["tasks"]] == ["run:17"]
    everybody = json.loads(bursar("spend", "--json", env=ledger).stdout)
    assert everybody["global"]["total"]["reserved_usd"] == 0.05
    assert list(everybody["keys"]) == ["ci"]
    assert everybody["teams"]["lab"]["total"]["spent_usd"] == 0.02
    assert bursar("spend", "--key", "nobody", env=ledger).exit_code == 1


def test_spending_of_a_team(ledger: dict[str, str]) -> None:
    shown = bursar("spend", "--team", "lab", env=ledger)
    assert rows(shown.stdout, f"day {today()}") == [f"day {today()}", "0.02", "0", "20", "19.98", "1"]
    told = json.loads(bursar("spend", "--team", "lab", "--json", env=ledger).stdout)
    assert (told["team"], told["windows"]["day"]["limit_usd"]) == ("lab", 20)
    nobody = bursar("spend", "--team", "nobody", env=ledger)
    assert (nobody.exit_code, "nothing is on record for the team 'nobody'" in nobody.stderr) == (1, True)


def test_what_nobody_has_spent(ledger: dict[str, str]) -> None:
    assert bursar("spend", "--task", "nothing", env=ledger).exit_code == 1


@pytest.mark.parametrize("beside", ["--task", "--key"])
def test_a_team_is_asked_for_alone(ledger: dict[str, str], beside: str) -> None:
    done = bursar("spend", "--team", "lab", beside, "x", env=ledger)
    assert (done.exit_code, "--team" in done.stderr) == (2, True)


def test_looking_takes_no_part_in_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with filled(SqliteBudgets(path)), contextlib.closing(sqlite3.connect(path)) as db:
        before = db.execute("SELECT owner FROM owners").fetchall()
        assert bursar("spend", env={"BURSAR_DATA_DIR": str(tmp_path)}).exit_code == 0
        assert db.execute("SELECT owner FROM owners").fetchall() == before


def test_where_there_is_no_ledger_none_is_made(tmp_path: Path) -> None:
    done = bursar("spend", env={"BURSAR_DATA_DIR": str(tmp_path / "none")})
    assert done.exit_code == 1
    assert "BURSAR_DATA_DIR" in done.stderr
    assert not (tmp_path / "none").exists()


# Keys, help, looks


@pytest.mark.parametrize("options", [(), ("--admin",), ("--judges",), ("--probes",), ("--expires", "2031-01-01")])
def test_a_new_key_is_shown_once_with_the_line_that_lets_the_policy_know_it(
    options: Sequence[str], policy: Path
) -> None:
    done = bursar("keys", "new", "ci", *options)
    assert done.exit_code == 0
    secret = next(line.strip() for line in done.stdout.splitlines() if line.startswith("  sk-bursar-"))
    lines = done.stdout[done.stdout.index("keys:") :]
    policy.write_text(CONTRACT.replace("keys: []", "") + lines)
    (key,) = load_policy(policy, env={}, catalogue=CATALOGUE).keys.values()
    assert (key.name, key.sha256, key.admin) == ("ci", hash_key(secret), "--admin" in options)
    assert (key.judges, key.probes) == ("--judges" in options, "--probes" in options)
    assert key.expires_s == (1_924_992_000 if "--expires" in options else None)
    assert ("keys: ci (until 2031-01-01 00:00 UTC)" in bursar("policy", "check", str(policy)).stdout) == (
        "--expires" in options
    )


@pytest.mark.parametrize("moment", ["2020-01-01", "soon"])
def test_a_key_that_has_expired_already_is_not_made(moment: str) -> None:
    done = bursar("keys", "new", "ci", "--expires", moment)
    assert done.exit_code == 2
    assert "sk-bursar-" not in done.stdout


@pytest.mark.parametrize("options", [("--admin",), ("--probes",), ("--team", "lab")])
def test_a_key_that_judges_is_nothing_else(options: Sequence[str]) -> None:
    done = bursar("keys", "new", "ci", "--judges", *options)
    assert done.exit_code == 2
    assert "sk-bursar-" not in done.stdout


def test_a_name_that_the_policy_would_refuse_is_refused() -> None:
    done = bursar("keys", "new", 'x", admin: true')
    assert done.exit_code == 2
    assert "sk-bursar-" not in done.stdout


@pytest.mark.parametrize(
    "words", [["serve"], ["policy", "check"], ["policy", "schema"], ["prices"], ["spend"], ["keys", "new"]]
)
def test_help_has_an_example_and_no_boxes_when_piped(words: list[str]) -> None:
    done = bursar(*words, "--help")
    assert done.exit_code == 0
    assert f"bursar {' '.join(words)}" in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout
    assert "│" not in done.stdout


def test_exit_codes_of_wrong_usage() -> None:
    assert bursar("serve", "--port", "99999").exit_code == 2
    assert bursar("nonsense").exit_code == 2
    assert bursar("version").stdout.startswith("bursar ")
    assert bursar("--version").stdout == bursar("version").stdout


@pytest.mark.parametrize("words", [[], ["task"], ["traces"], ["eval"], ["router"], ["policy"], ["keys"]])
def test_no_command_is_described_by_half_a_sentence(words: list[str]) -> None:
    assert "..." not in bursar(*words, "--help").stdout.partition("Commands:")[2]


def test_the_command_costs_a_worker_nothing() -> None:
    heavy = "'typer', 'rich', 'uvicorn', 'pydantic', 'asyncio'"
    code = f"import sys, app.cli; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# The greeting


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 8080), "http://127.0.0.1:8080/v1"),
        (("0.0.0.0", 80), "http://127.0.0.1:80/v1"),
        (("::", 80), "http://[::1]:80/v1"),
        (("10.0.0.7", 80), "http://10.0.0.7:80/v1"),
    ],
)
def test_the_base_url_is_one_that_works_on_this_machine(address: tuple[str, int], url: str) -> None:
    assert base_url(address) == url


def test_the_greeting_says_the_command_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert command() == "bursar"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "bursar").touch(mode=0o755)
    assert command() == ".venv/bin/bursar"
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    assert command() == "bursar"


def test_the_greeting_knows_who_joined_and_what_would_let_others_join() -> None:
    policy = load_policy(DEFAULT_POLICY, env={"OPENAI_API_KEY": "sk-x"}, catalogue=CATALOGUE)
    assert providers_line(policy) == "local (smollm2 on this machine), openai"
    off = variables_off(policy)
    assert "OPENAI_API_KEY" not in off
    assert {"ANTHROPIC_API_KEY", "GROQ_API_KEY", "BURSAR_CUSTOM_BASE_URL"} <= set(off)


def test_a_taken_port_is_known_before_anything_is_started() -> None:
    with contextlib.closing(bound_socket("127.0.0.1", 0)) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            bound_socket("127.0.0.1", first.getsockname()[1])


# Serving, for real


Serve = Callable[..., Served]


def contract(upstream: ScriptedUpstream, path: Path) -> str:
    path.write_text(re.sub(r"http://127.0.0.1:900\d/v1", upstream.url, CONTRACT))
    return str(path)


def ask(served: Served, **fields: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/chat/completions", json={**ASK, **fields}, timeout=WITHIN_S, trust_env=False)


def listens(address: tuple[str, int]) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(address) == 0


def test_it_serves_greets_accounts_and_stops_in_order(serve: Serve, tmp_path: Path) -> None:
    with ScriptedUpstream(Script.of(words("one two three"))) as upstream:
        # The option beats the variable, which names a file that is not there.
        path = contract(upstream, tmp_path / "p.yaml")
        served = serve("--policy", path, env={"BURSAR_POLICY": "/nowhere"})
        answer = ask(served)
        assert answer.status_code == 200
        assert "server" not in answer.headers
        assert "date" in answer.headers
        greeting = served.rest_of_greeting()
        assert f"curl -N {served.url}/chat/completions" in greeting
        assert f'OpenAI(base_url="{served.url}", api_key="none")' in greeting
        assert path in greeting
        assert str(tmp_path / "data") in greeting
        assert "\x1b" not in greeting
        spent = json.loads(bursar("spend", "--json", env={"BURSAR_DATA_DIR": str(tmp_path / "data")}).stdout)
        assert spent["global"]["total"]["spent_usd"] == answer.json()["usage"]["cost"]
        assert served.stop() == 0
        assert not listens(served.address)


def test_it_may_open_as_many_files_as_the_system_grants(serve: Serve, tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        few = ("sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh")
        served = serve("--policy", contract(upstream, tmp_path / "p.yaml"), under=few)
        assert ask(served).status_code == 200
        limits = Path(f"/proc/{served.process.pid}/limits").read_text()
        (soft, hard) = re.findall(r"Max open files +(\d+) +(\d+)", limits)[0]
        assert int(soft) == min(int(hard), MOST_FILES) > 200
        assert served.stop() == 0


def test_a_stream_under_way_is_let_finish_after_sigterm(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    gate.release(1)
    with ScriptedUpstream(Script.of(words("one two three"), gate=gate)) as upstream:
        served = serve("--policy", contract(upstream, tmp_path / "p.yaml"))
        address = served.address
        with httpx.stream(
            "POST", f"{served.url}/chat/completions", json={**ASK, "stream": True}, timeout=WITHIN_S, trust_env=False
        ) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if "one" in line)
            served.process.send_signal(signal.SIGTERM)
            until = time.monotonic() + WITHIN_S
            while listens(address):
                assert time.monotonic() < until
                time.sleep(0.01)
            gate.open()
            rest = list(lines)
        assert "data: [DONE]" in rest
        assert served.process.wait(WITHIN_S) == 0


def test_a_stream_that_outlasts_the_drain_ends_with_an_honest_error(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    gate.release(1)
    with ScriptedUpstream(Script.of(words("one two three"), gate=gate)) as upstream:
        served = serve("--policy", contract(upstream, tmp_path / "p.yaml"), env={"BURSAR_DRAIN_S": "0.05"})
        with httpx.stream(
            "POST", f"{served.url}/chat/completions", json={**ASK, "stream": True}, timeout=WITHIN_S, trust_env=False
        ) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if "one" in line)
            served.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert any('"error"' in line for line in rest)
        assert "data: [DONE]" not in rest
        assert served.process.wait(WITHIN_S) == 0


def test_workers_share_metrics_and_leave_with_their_parent(serve: Serve, tmp_path: Path) -> None:
    with ScriptedUpstream(Script.of(words("one two three"))) as upstream:
        served = serve("--policy", contract(upstream, tmp_path / "p.yaml"), "--workers", "2")
        for _ in range(8):
            assert ask(served).status_code == 200

        def counted() -> float:
            page = httpx.get(f"http://127.0.0.1:{served.address[1]}/metrics", trust_env=False).text
            return sum(float(x.split()[-1]) for x in page.splitlines() if x.startswith("bursar_requests_total{"))

        told = time.monotonic() + WITHIN_S
        while counted() != 8:  # the other worker's are shown as soon as it has added them up
            assert time.monotonic() < told
        address = served.address
        served.stop(signal.SIGKILL)
        until = time.monotonic() + WITHIN_S
        while listens(address):
            assert time.monotonic() < until, "workers outlived their parent"
            time.sleep(0.01)


@pytest.mark.parametrize("command", [("serve",), ("spend",), ("learn", "--once")])
def test_a_bad_redis_url_is_told_in_one_line_without_it(command: tuple[str, ...], policy: Path) -> None:
    named = {"BURSAR_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0?ssl=true", "BURSAR_POLICY": str(policy)}
    done = bursar(*command, env=named)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("BURSAR_REDIS_URL: the Redis URL is not valid")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


def test_a_pipe_can_be_checked(tmp_path: Path, policy: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=(policy.read_text(),), daemon=True).start()
    assert bursar("policy", "check", str(tmp_path / "pipe")).exit_code == 0


def test_a_worker_that_ends_while_it_is_asked_is_not_waited_for() -> None:
    worker = _Worker(uvicorn.Config("app.main:app_from_env"), [])
    worker.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.2,))
    worker.process.start()
    asking = threading.Thread(target=lambda: answers.append(worker.ping(timeout=10 * WITHIN_S)), daemon=True)
    answers: list[bool] = []
    asking.start()
    asking.join(WITHIN_S)
    assert answers == [False]


HEEDING_HANGUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Under `nohup` it would be ignored, by this test's own gateway too."""


def test_a_closed_terminal_ends_it_in_order(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    gate.release()
    with ScriptedUpstream(Script.of(words("one two three"), gate=gate)) as upstream:
        policy = contract(upstream, tmp_path / "p.yaml")
        served = serve("--policy", policy, under=(sys.executable, "-c", HEEDING_HANGUP))
        with httpx.stream(
            "POST", f"{served.url}/chat/completions", json={**ASK, "stream": True}, timeout=WITHIN_S
        ) as got:
            lines = got.iter_lines()
            next(lines)
            served.process.send_signal(signal.SIGHUP)
            gate.open()
            assert "data: [DONE]" in list(lines)
        assert served.process.wait(WITHIN_S) == 0
