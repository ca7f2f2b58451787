"""`X-Bursar-Probe`: a model asked through its users' route, sorted as their requests are, and counted apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.commands.tree import cli
from app.core.quarantined import Quarantined
from app.learner.pack import pack_belief
from app.settings import SHIPPED_WEIGHTS
from tests.http.live import LiveGateway, contract, environment, sha256
from tests.http.test_http_snapshots import BASE, PRIOR, published
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

CODE = [{"role": "user", "content": "Write a Python function that returns the n-th Fibonacci number."}]
LOOP = [
    *CODE,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "run", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "55"},
]
TOOLS = [{"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """The issue's policy, exploring as much as it may, with a key that may send probes, and one that may not."""
    folder: Path = tmp_path_factory.mktemp("probes")
    keys = "".join(
        f'\n  - {{name: {name}, sha256: "{sha256(name)}"{more}}}'
        for name, more in (("alice", ""), ("prober", ", probes: true"), ("boss", ", admin: true"))
    )
    with ScriptedUpstream(Script.of(words("four words it is"))) as upstream:
        text = contract(upstream).replace("keys: []", f"keys:{keys}\ncache: {{ttl_secs: 600}}\n#")
        text = text.replace(
            "fallback: [small-b, large]", "fallback: [small-b, large], explore: {share: 0.5, max_usd_per_day: 1}"
        )
        assert "explore" in text
        with LiveGateway(text, folder, router_weights=SHIPPED_WEIGHTS, learn=False) as live:
            yield live


def probe(gateway: LiveGateway, model: str, key: str = "prober", **body: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}", "x-bursar-probe": model, "cache-control": "no-cache"}
    answer = gateway.chat(headers, **{"model": "auto", "messages": CODE, **body})
    assert answer.status == 200, answer.body
    return gateway.decision(answer, {"authorization": f"Bearer {key}"})


def asked(gateway: LiveGateway, model: str = "auto", **body: Any) -> dict[str, Any]:
    headers = {"authorization": "Bearer alice", "cache-control": "no-cache"}
    answer = gateway.chat(headers, **{"model": model, "messages": CODE, **body})
    return gateway.decision(answer, headers)


@pytest.mark.parametrize("model", ["small", "small-b", "large"])
@pytest.mark.parametrize("body", [{}, {"messages": LOOP, "tools": TOOLS}], ids=["alone", "in a tool loop"])
def test_a_probe_goes_to_its_model_and_is_sorted_as_users_requests_are(
    gateway: LiveGateway, model: str, body: dict[str, Any]
) -> None:
    if body:  # what is said within a loop goes to the model with which it began
        asked(gateway, tools=TOOLS)
    ours, theirs = probe(gateway, model, **body), asked(gateway, **body)
    assert (ours["model"], ours["probe"], "probe" in theirs) == (model, True, False)
    told, decided = ours["decision"], theirs["decision"]
    assert [told[name] for name in ("order", "reason", "propensity", "explored")] == [
        [model], "a probe of this model", 1.0, None,
    ]  # fmt: skip
    assert [c["model"] for c in told["candidates"]] == [model]
    assert (told["route"], told["task_type"]) == ("auto", decided["task_type"])
    assert told["item"] == decided["item"]
    assert (told["item"] is None) == ("tools" in body)
    assert (ours["seen"]["asked"], ours["seen"]["began"]) == (theirs["seen"]["asked"], theirs["seen"]["began"])


def test_a_model_named_directly_is_sorted_by_simpler_rules(gateway: LiveGateway) -> None:
    """Why there is a header for this."""
    question = [{"role": "user", "content": "Which enzyme unwinds DNA at the replication fork? A) Ligase B) Helicase"}]
    routed, named = (asked(gateway, model, messages=question)["decision"] for model in ("auto", "small"))
    assert routed["task_type"] != named["task_type"] == asked_type(gateway, question, named=True)
    assert probe(gateway, "small", messages=question)["decision"]["task_type"] == routed["task_type"]


def asked_type(gateway: LiveGateway, messages: list[dict[str, Any]], *, named: bool) -> str:
    found: str = asked(gateway, "large" if named else "auto", messages=messages)["decision"]["task_type"]
    return found


@pytest.mark.parametrize(
    ("key", "model", "route", "status"),
    [("alice", "small", "auto", 403), ("prober", "none", "auto", 400), ("prober", "large", "small", 400),
     ("boss", "small", "auto", 200), ("prober", "small", "small", 200)],
)  # fmt: skip
def test_who_may_probe_what(gateway: LiveGateway, key: str, model: str, route: str, status: int) -> None:
    headers = {"authorization": f"Bearer {key}", "x-bursar-probe": model}
    answer = gateway.chat(headers, model=route)
    assert answer.status == status
    if status != 200:
        assert answer.error["param"] == "X-Bursar-Probe"


def test_without_keys_whoever_is_here_may_probe(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path) as gateway:
        answer = gateway.chat({"x-bursar-probe": "large"}, model="auto")
        assert (answer.status, answer.headers["x-bursar-model"]) == (200, "large")


def test_a_probe_that_fails_goes_nowhere_else(tmp_path: Path) -> None:
    with ScriptedUpstream(Script.failure(500)) as upstream, LiveGateway(contract(upstream), tmp_path) as gateway:
        answer = gateway.chat({"x-bursar-probe": "small"}, model="auto")
        assert answer.status == 502
        assert {request.model for request in upstream.requests} == {"small-v1"}


def test_a_model_in_quarantine_is_asked_all_the_same(gateway: LiveGateway) -> None:
    kind = probe(gateway, "small")["decision"]["task_type"]
    down = (Quarantined("small", kind, 1.0, 0.9, 0.3, "model", 0.5),)
    before = gateway.gateway.services
    assert before is not None
    view = before.view
    number = published(gateway, pack_belief(PRIOR.start(), BASE, down))
    assert number
    gateway.until(lambda: before.view is not view and kind in before.view.down)
    for _ in range(5):
        found = probe(gateway, "small")
        assert (found["model"], found["decision"]["propensity"]) == ("small", 1.0)


def test_probes_count_as_spending_and_not_as_success(gateway: LiveGateway) -> None:
    boss = {"authorization": "Bearer boss"}
    alone = asked(gateway)
    assert gateway.ask("POST", "/v1/feedback", word(alone), {"authorization": "Bearer alice"}).status == 200
    for _ in range(3):
        found = probe(gateway, "small")
        told = gateway.ask("POST", "/v1/feedback", word(found, "failure"), {"authorization": "Bearer prober"})
        assert (told.status, told.json["matched"]) == (200, True)
    env = environment(BURSAR_DATA_DIR=str(gateway.data_dir))

    def rows(sql: str) -> Any:
        done = CliRunner().invoke(cli, ["traces", "query", sql, "--json"], env=env)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    (sums,) = rows("SELECT sum(cost_usd) AS usd, count(*) AS calls FROM traces WHERE probe")
    assert sums["usd"] > 0
    assert rows("SELECT count(*) AS n FROM runs WHERE key = 'prober' AND judged") == [{"n": 0}]
    assert rows("SELECT count(*) AS n FROM runs WHERE key = 'alice' AND judged") == [{"n": 1}]
    measured = gateway.ask("GET", "/v1/success-metrics?by=key", headers=boss).json
    assert "prober" not in json.dumps(measured)
    speed = gateway.ask("GET", "/v1/efficiency?by=key", headers=boss).json
    assert "prober" not in json.dumps(speed)


def test_a_probe_that_the_cache_answers_is_a_probe_all_the_same(gateway: LiveGateway) -> None:
    """Who sends one by hand may forget to ask for it anew: it is no user's run for that."""
    headers = {"authorization": "Bearer prober", "x-bursar-probe": "small"}
    body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Once, and once more."}]}
    first, again = (gateway.chat(headers, **body) for _ in range(2))
    assert (again.headers["x-bursar-cache"], again.json) == ("hit", first.json)
    assert gateway.decision(again, headers)["probe"] is True
    assert "x-bursar-cache" not in gateway.chat({"authorization": "Bearer prober"}, **body).headers


def word(record: dict[str, Any], outcome: str = "success") -> dict[str, str]:
    return {"request_id": record["request_id"], "outcome": outcome, "source": "program"}
