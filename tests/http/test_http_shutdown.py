"""SIGTERM: the gateway says that it is going, lets streams finish, settles, and leaves with 0."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.live import SAY, LiveGateway, Served, until
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Gate, Script, words

SAID = "one two three four five"
TASK = {"x-bursar-task-id": "draining"}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        yield live


def settled(served: Served) -> tuple[int, int, int]:
    """Spent and held of the task, in nano-dollars, and how many holds are left."""
    with contextlib.closing(sqlite3.connect(served.folder / "data" / "ledger.sqlite")) as db:
        spent, held = db.execute("SELECT spent_nano, held_nano FROM scopes WHERE name = 'task:-:draining'").fetchone()
        (holds,) = db.execute("SELECT count(*) FROM holds").fetchone()
    return spent, held, holds


def policy(upstream: ScriptedUpstream) -> str:
    return f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 1}}}}}}
"""


def serve(upstream: ScriptedUpstream, folder: Path, drain_s: float = 20, **settings: object) -> Served:
    return Served(policy(upstream), folder, drain_s, **settings)


def test_streams_finish_and_the_ledger_is_settled(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gate()
    upstream.source = Script.of(words(SAID), gate=gate)
    with serve(upstream, tmp_path) as served:
        kept = served.connect()
        kept.request("GET", "/readyz")
        assert json.loads(kept.getresponse().read()) == {"status": "ready"}
        gate.release(2)
        stream = served.stream("m", TASK)
        served.process.send_signal(signal.SIGTERM)
        while True:  # the signal is handled at the loop's next turn
            kept.request("GET", "/readyz")
            ready = kept.getresponse()
            said = json.loads(ready.read())
            if ready.status != 200:
                break
        assert (ready.status, said["error"]["code"]) == (503, "shutting_down")
        until(lambda: refuses(served))
        kept.request("POST", "/v1/chat/completions", b"{}")
        late = kept.getresponse()
        assert (late.status, json.loads(late.read())["error"]["code"]) == (503, "shutting_down")
        assert late.headers["retry-after"] == "1"
        assert served.process.poll() is None
        gate.open()
        answer = stream.rest()
        assert (answer.text, answer.events[-1]) == (SAID, "[DONE]")
        kept.close()
        assert served.process.wait(PATIENCE_S) == 0
    assert settled(served) == (5_000_000, 0, 0)


def test_what_does_not_finish_in_time_is_ended_honestly(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gate()
    upstream.source = Script.of(words(SAID), gate=gate)
    with serve(upstream, tmp_path, drain_s=0.2) as served:
        gate.release(2)
        stream = served.stream("m", TASK)
        served.process.send_signal(signal.SIGTERM)
        answer = stream.rest()
        assert "[DONE]" not in answer.events
        error = answer.events[-1]["error"]
        assert (error["message"], error["code"]) == ("The gateway is shutting down.", "shutting_down")
        assert served.process.wait(PATIENCE_S) == 0
    upstream.wait_for_disconnect(0)
    assert settled(served) == (2_000_000, 0, 0)


def test_a_second_ctrl_c_ends_calls_by_a_word_and_settles_them(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gate()
    gate.release(2)
    upstream.source = Script.of(words(SAID), gate=gate)
    log = tmp_path / "log"
    with serve(upstream, tmp_path, drain_s=600) as served:
        stream = served.stream("m", TASK)
        served.process.send_signal(signal.SIGINT)
        until(lambda: "Calls under way: 1. They may finish for 600 s; Ctrl-C again ends them now." in log.read_text())
        served.process.send_signal(signal.SIGINT)
        assert stream.rest().events[-1]["error"]["code"] == "shutting_down"
        served.process.wait(PATIENCE_S)
    assert "Traceback" not in log.read_text()
    upstream.wait_for_disconnect(0)
    assert settled(served) == (2_000_000, 0, 0)


ENDINGS = {
    "/v1/chat/completions": (b'"error":', b"[DONE]"),
    "/v1/responses": (b"event: response.failed", b"event: response.completed"),
    "/v1/messages": (b"event: error", b"message_stop"),
    "/v1beta/models/m:streamGenerateContent?alt=sse": (b'"error":', b"finishReason"),
}
"""How each dialect says that a stream ended before its end, and what it must not say."""


def test_each_dialect_is_told_in_its_own_words(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gates = [Gate() for _ in ENDINGS]
    for gate in gates:
        gate.release(2)
    upstream.source = [Script.of(words(SAID), gate=gate) for gate in gates]
    with LiveGateway(policy(upstream), tmp_path, drain_s=0.2) as gateway:
        say = {"model": "m", "stream": True, "max_tokens": 50}
        bodies: list[dict[str, object]] = [
            {**say, "messages": SAY},
            {"model": "m", "stream": True, "input": "Say hello."},
            {**say, "messages": SAY},
            {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]},
        ]
        streams = [gateway.stream("POST", path, body) for path, body in zip(ENDINGS, bodies, strict=True)]
    for stream, (said, unsaid) in zip(streams, ENDINGS.values(), strict=True):
        body = stream.rest().body
        assert said in body
        assert b"The gateway is shutting down." in body
        assert unsaid not in body
    for number in range(len(ENDINGS)):
        upstream.wait_for_disconnect(number)


def test_readiness_fails_first_while_it_serves_on(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.source = Script.of(words(SAID))
    with serve(upstream, tmp_path, drain_notice_s=600) as served:
        served.process.send_signal(signal.SIGTERM)
        until(lambda: served.get("/readyz")[0] == 503)
        assert json.loads(served.get("/readyz")[1])["error"]["code"] == "shutting_down"
        assert served.get("/healthz")[0] == 200  # it lives: nobody should kill it
        assert served.stream("m", TASK).rest().text == SAID
        for _ in range(2):  # Ctrl-C, and once more: it need not wait
            served.process.send_signal(signal.SIGINT)
        served.process.wait(PATIENCE_S)


@pytest.mark.parametrize("finishes", [True, False], ids=["in time", "too late"])
def test_workers_drain_too(upstream: ScriptedUpstream, tmp_path: Path, finishes: bool) -> None:
    gates = [Gate(), Gate()]
    upstream.source = [Script.of(words(SAID), gate=gate) for gate in gates]
    drain_s = 20 if finishes else 0.5
    with serve(upstream, tmp_path, drain_s=drain_s, drain_notice_s=0.3, workers=2) as served:
        for gate in gates:
            gate.release(2)
        streams = [served.stream_on(number, "m", TASK) for number in range(2)]
        served.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(served))  # nobody is left waiting at a port that no worker serves
        if finishes:
            assert len(served.workers()) == 2
            for gate in gates:
                gate.open()
        answers = [stream.rest() for stream in streams]
        assert served.process.wait(PATIENCE_S) == 0
    if finishes:
        assert [(answer.text, answer.events[-1]) for answer in answers] == [(SAID, "[DONE]")] * 2
        assert settled(served) == (10_000_000, 0, 0)
    else:
        assert {answer.events[-1]["error"]["message"] for answer in answers} == {"The gateway is shutting down."}
        assert settled(served) == (4_000_000, 0, 0)


def refuses(served: Served) -> bool:
    try:
        served.connect().connect()
    except OSError:
        return True
    return False
