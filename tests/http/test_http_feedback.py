"""`/v1/feedback`: who may say what of which call, what is kept of it, and what comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.feedback import Feedback
from app.http import feedback
from app.http.feedback import Pace
from app.learner.credit import spoken
from app.learner.labels import call_of, label_of
from app.learner.signs import signs_of
from app.learner.sources import Sources
from app.stores.outcomes_sqlite import SqliteOutcomes
from tests.http.live import Answer, LiveGateway, contract, sha256
from tests.upstream import ScriptedUpstream

UNKNOWN = "req_" + "0" * 27
KEYS = "\n".join(
    f'  - {{name: {name}, sha256: "{sha256(name)}"{more}}}'
    for name, more in (
        ("alice", ""),
        ("bob", ""),
        ("hasty", ""),
        ("boss", ", admin: true"),
        ("judge", ", judges: true"),
    )
)


def as_key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder: Path = tmp_path_factory.mktemp("feedback")
    with ScriptedUpstream() as upstream:
        policy = contract(upstream).split("keys: []")[0] + f"keys:\n{KEYS}\n"
        with LiveGateway(policy, folder) as live:
            yield live


@pytest.fixture
def call(gateway: LiveGateway) -> str:
    """A finished call of alice's, in her task "job"."""
    answer = gateway.chat({**as_key("alice"), "x-bursar-task-id": "job"})
    assert answer.status == 200
    return answer.headers["x-request-id"]


def say(gateway: LiveGateway, key: str = "alice", headers: dict[str, str] | None = None, **body: Any) -> Answer:
    body = {"outcome": "success", "source": "user", **body}
    return gateway.ask("POST", "/v1/feedback", body, {**as_key(key), **(headers or {})})


def said(gateway: LiveGateway, query: str, key: str = "alice") -> list[dict[str, Any]]:
    answer = gateway.ask("GET", f"/v1/feedback?{query}", headers=as_key(key))
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json["data"]
    return found


def test_a_word_is_kept_and_a_later_one_replaces_it(gateway: LiveGateway, call: str) -> None:
    first = say(gateway, request_id=call, score=1)
    assert (first.status, first.json["status"], first.json["matched"]) == (200, "new", True)
    assert first.headers["x-request-id"] != call
    assert say(gateway, request_id=call, outcome="false_done").json["status"] == "replaced"
    assert say(gateway, request_id=call, source="verifier").json["status"] == "new"
    found = [(word["source"], word["outcome"], word["by"]) for word in said(gateway, f"request_id={call}")]
    assert found == [("user", "false_done", "alice"), ("verifier", "success", "alice")]


def test_a_tasks_word_shows_with_its_calls(gateway: LiveGateway, call: str) -> None:
    assert say(gateway, task_id="job", correction="stopped_too_early", outcome="failure").json["matched"] is True
    (word,) = [word for word in said(gateway, f"request_id={call}") if word["by"] == "alice"]  # the boss speaks, too
    assert (word["task_id"], word["outcome"], word["correction"]) == ("job", "failure", "stopped_too_early")
    assert word in said(gateway, "task_id=job")


def test_feedback_on_what_is_not_on_record_is_kept(gateway: LiveGateway) -> None:
    assert say(gateway, request_id=UNKNOWN).json["matched"] is False
    assert say(gateway, task_id="never seen").json["matched"] is False
    assert len(said(gateway, f"request_id={UNKNOWN}")) == 1
    assert said(gateway, f"request_id={UNKNOWN}", key="bob") == []


def test_who_speaks_of_another_keys_task_by_mistake_is_told_how(gateway: LiveGateway, call: str) -> None:
    """A 200 that nothing will ever come of: the task is alice's, and bob's of the same name is another."""
    answer = say(gateway, key="bob", task_id="job")
    assert (answer.status, answer.json["matched"]) == (200, False)
    assert "for the key bob" in answer.json["note"]
    assert "?key=" in answer.json["note"]
    assert "note" in say(gateway, request_id=UNKNOWN).json
    assert "note" not in say(gateway, request_id=call).json
    assert all("note" not in word for word in said(gateway, "task_id=job", key="bob"))


def test_a_key_speaks_of_its_own_calls_and_an_admin_of_all(gateway: LiveGateway, call: str) -> None:
    refused = say(gateway, key="bob", request_id=call)
    assert (refused.status, refused.error["code"]) == (404, "not_found")
    assert say(gateway, key="boss", request_id=call, outcome="failure").status == 200
    assert [word["by"] for word in said(gateway, f"request_id={call}") if "request_id" in word] == ["boss"]
    assert said(gateway, f"request_id={call}", key="bob") == []
    # A task's name is its key's own: bob's "job" is another one.
    assert say(gateway, key="bob", task_id="job").json["key"] == "bob"
    other = gateway.ask(
        "POST", "/v1/feedback?key=alice", {"task_id": "job", "outcome": "failure", "source": "user"}, as_key("bob")
    )
    assert (other.status, other.error["param"]) == (403, "key")
    assert gateway.ask("GET", "/v1/feedback?task_id=job&key=alice", headers=as_key("bob")).status == 403
    by_admin = gateway.ask(
        "POST", "/v1/feedback?key=alice", {"task_id": "job", "outcome": "failure", "source": "human"}, as_key("boss")
    )
    assert (by_admin.json["key"], by_admin.json["by"], by_admin.json["matched"]) == ("alice", "boss", True)
    assert gateway.ask("POST", "/v1/feedback", {"task_id": "t"}).status == 401


def test_a_key_that_judges_speaks_of_any_keys_calls_and_tasks_as_an_admin_does(gateway: LiveGateway, call: str) -> None:
    verdict = say(gateway, key="judge", request_id=call, source="verifier", outcome="failure")
    assert (verdict.status, verdict.json["matched"], verdict.json["by"]) == (200, True, "judge")
    of_task = {"task_id": "job", "outcome": "failure", "source": "verifier"}
    answer = gateway.ask("POST", "/v1/feedback?key=alice", of_task, as_key("judge"))
    assert (answer.status, answer.json["key"], answer.json["matched"]) == (200, "alice", True)
    assert {("judge", "failure")} <= {(w["by"], w["outcome"]) for w in said(gateway, f"request_id={call}", key="boss")}

    async def heard() -> list[Feedback]:
        store = SqliteOutcomes(gateway.data_dir / "outcomes.sqlite")
        await store.start()
        words = await store.about([call])
        await store.close()
        return words

    record = gateway.ask("GET", f"/v1/decisions/{call}", headers=as_key("alice")).json
    assert "judge" in {told.key for told in spoken([call_of(record)], gateway.run(heard()))[call]}


def routes(gateway: LiveGateway) -> list[tuple[str, str]]:
    """All that the gateway serves, as (method, path)."""
    front = gateway.gateway.front
    assert front is not None
    api: Any = front._api
    found = [("POST", path) for path in front._hot if path.startswith("/")]
    found += [("POST", f"/v1beta/models/small{verb}") for verb in front._hot if verb.startswith(":")]
    for route in api.routes:
        path = re.sub(r"{[^}]*}", "job", route.path)
        found += [(method, path) for method in route.methods - {"HEAD"}]
    return found


def test_a_key_that_judges_may_do_nothing_else(gateway: LiveGateway) -> None:
    """Whatever asks for a key refuses this one; what asks for none knows nothing of anybody."""
    every = routes(gateway)
    assert len(every) > 40
    unkeyed = {path: answer.status for method, path in every if (answer := gateway.ask(method, path, {})).status != 401}
    served = {path for path, status in unkeyed.items() if status != 404}
    assert not [path for path in served if path.startswith(("/v1", "/dashboard/api"))]
    for method, path in every:
        answer = gateway.ask(method, path, {}, as_key("judge"))
        if path not in unkeyed and (method, path) != ("POST", "/v1/feedback"):
            assert answer.status == 403, (method, path)
            assert "feedback" in answer.body.decode()
    assert gateway.chat(as_key("judge")).status == 403
    assert say(gateway, key="judge", task_id="job").json["key"] == "judge", "without ?key= it is a task of its own"


def test_what_was_said_becomes_labels(gateway: LiveGateway) -> None:
    head = {**as_key("alice"), "x-bursar-task-id": "labelled"}
    ids = [gateway.chat(head, model="auto").headers["x-request-id"] for _ in range(2)]
    say(gateway, request_id=ids[0], source="verifier", outcome="failure")
    say(gateway, task_id="labelled")
    records = [gateway.ask("GET", f"/v1/decisions/{name}", headers=as_key("alice")).json for name in ids]
    calls = [call_of(record) for record in records]

    async def read() -> list[Feedback]:
        store = SqliteOutcomes(gateway.data_dir / "outcomes.sqlite")  # as another process would
        await store.start()
        words = [word for _, word in await store.since(0, 1_000)]
        await store.close()
        return words

    told, sources = spoken(calls, gateway.run(read())), Sources()
    labels = [label_of(call, told[call.request_id], sources, 0.0) for call in calls]
    assert [label.source for label in labels if label] == ["verifier", "task_user"]
    ((_, of_task), ()) = (label.sides for label in labels if label)
    assert of_task.high > 0.0, "the task's success stands beside what the verifier said of its first call"
    assert [label.outcome > label.expected for label in labels if label] == [False, True]
    assert calls[0].expected == next(
        c["p_success"] for c in records[0]["decision"]["candidates"] if c["model"] == calls[0].model
    )
    signs = signs_of(calls, 1e12)
    assert {sign.source for sign in signs[ids[0]]} >= {"refusal", "empty", "truncated", "asked_again"}


def test_an_idempotency_key_is_honoured(gateway: LiveGateway, call: str) -> None:
    once = {"idempotency-key": f"once-{call}"}
    assert say(gateway, request_id=call, headers=once).json["status"] == "new"
    assert say(gateway, request_id=call, outcome="failure").json["status"] == "replaced"
    assert say(gateway, request_id=call, headers=once).json["status"] == "repeated"
    assert [w["outcome"] for w in said(gateway, f"request_id={call}") if "request_id" in w] == ["failure"]
    other = say(gateway, request_id=call, outcome="blocked", headers=once)
    assert (other.status, other.error["param"]) == (400, "Idempotency-Key")
    assert say(gateway, request_id=call, headers={"idempotency-key": "x" * 300}).status == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"outcome": "success", "source": "user"}, "request_id"),
        ({"outcome": "success", "source": "user", "request_id": UNKNOWN, "task_id": "t"}, "request_id"),
        ({"outcome": "success", "source": "user", "request_id": "chatcmpl-1"}, "request_id"),
        ({"outcome": "success", "source": "user", "request_id": 7}, "request_id"),
        ({"outcome": "success", "source": "user", "task_id": "a|b"}, "task_id"),
        ({"source": "user", "task_id": "t"}, "outcome"),
        ({"outcome": "success", "task_id": "t"}, "source"),
        ({"outcome": "great", "source": "user", "task_id": "t"}, "outcome"),
        ({"outcome": "success", "source": "model", "task_id": "t"}, "source"),
        ({"outcome": "success", "source": "user", "task_id": "t", "correction": "no"}, "correction"),
        ({"outcome": "success", "source": "user", "task_id": "t", "score": 1.5}, "score"),
        ({"outcome": "success", "source": "user", "task_id": "t", "score": "1"}, "score"),
        ({"outcome": "success", "source": "user", "task_id": "t", "comment": "x" * 2_001}, "comment"),
        ({"outcome": "success", "source": "user", "task_id": "t", "reward": 1}, "reward"),
        ([], None),
        (b"{", None),
        (b'{"score": NaN}', None),
        (b"\xff", None),
        (b"[" * 9_000, None),
    ],
)
def test_what_is_wrong_is_named(gateway: LiveGateway, body: object, param: str | None) -> None:
    answer = gateway.ask("POST", "/v1/feedback", body, as_key("alice"))
    assert (answer.status, answer.error["param"]) == (400, param)


def test_a_body_is_bounded(gateway: LiveGateway) -> None:
    answer = gateway.ask("POST", "/v1/feedback", b" " * 20_000, as_key("alice"))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_reading_asks_for_one_thing(gateway: LiveGateway) -> None:
    for query in ("", "request_id=x", f"request_id={UNKNOWN}&task_id=t", "task_id=a%7Cb"):
        assert gateway.ask("GET", f"/v1/feedback?{query}", headers=as_key("alice")).status == 400


def test_comments_are_kept_only_where_the_operator_wants_it(
    gateway: LiveGateway, call: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "comment" not in say(gateway, request_id=call, comment="my secret").json
    assert all("comment" not in word for word in said(gateway, f"request_id={call}"))
    files = [file.read_bytes() for file in gateway.data_dir.rglob("*") if file.is_file()]
    assert not any(b"my secret" in data for data in files)
    assert "my secret" not in gateway.metrics()
    assert "my secret" not in "".join(capfd.readouterr())
    assert 'bursar_feedback_total{outcome="success",source="user"}' in gateway.metrics()


def test_comments_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path, keep_comments=True) as live:
        answer = live.ask(
            "POST", "/v1/feedback", {"task_id": "t", "outcome": "failure", "source": "user", "comment": "no"}
        )
        assert answer.json["comment"] == "no"
        assert live.ask("GET", "/v1/feedback?task_id=t").json["data"][0]["comment"] == "no"


def test_a_key_that_says_too_much_waits(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "BURST", 3.0)
    monkeypatch.setattr(feedback, "PER_S", 0.001)
    answers = [say(gateway, key="hasty", task_id="t") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].error["code"] == "rate_limit_exceeded"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert say(gateway, key="boss", task_id="t").status == 200


def test_pace_fills_again_and_never_beyond_its_burst() -> None:
    pace = Pace()
    for _ in range(int(feedback.BURST)):
        assert pace.take("k", 100.0) == 0.0
    wait_s = pace.take("k", 100.0)
    assert 0.0 < wait_s <= 1.0 / feedback.PER_S
    assert pace.take("k", 100.0 + wait_s + 1e-6) == 0.0
    assert sum(pace.take("k", 1e6) == 0.0 for _ in range(1_000)) == feedback.BURST
    assert pace.take("k", 5.0) > 0.0  # a clock that goes back gives nothing
