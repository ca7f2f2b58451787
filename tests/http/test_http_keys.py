"""Keys keep clients apart, secrets and prompts stay out of everything written, and an open gateway serves this
machine only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from app.core.errors import Unauthorized
from app.core.policy import Policy
from app.http import auth
from app.http.auth import KeyRing, is_loopback
from tests.http.live import SAY, LiveGateway, sha256
from tests.upstream import ScriptedUpstream
from tests.upstream_script import END, Event, Script, error_body, text

ALICE, BOB, LIMITED, ADMIN = (
    {"authorization": f"Bearer sk-bursar-{name}-0123456789"} for name in ("alice", "bob", "limited", "admin")
)
TEMPORARY, EXPIRY_S = {"x-api-key": "sk-bursar-temporary-0123456789"}, 1_924_992_000
PROVIDER_KEY = "sk-provider-key-0123456789"
PROMPT = "the quick brown secret of the lazy dog"
SAID = "an answer that nobody else should read"


def policy(upstream: ScriptedUpstream) -> str:
    return f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}", api_key: "${{PROVIDER_KEY}}", headers: {{x-own: header-secret-0123}}}}}}
models:
  small: {{provider: a, pricing: {{input_per_1k: 0.0001, output_per_1k: 0.0004}}}}
  large: {{provider: a, pricing: {{input_per_1k: 0.015, output_per_1k: 0.075}}}}
routes: {{auto: {{candidates: [small, large], fallback: [large]}}, cheap: {{candidates: [small]}}}}
caps: {{task: {{max_cost_usd: 1.0}}}}
keys:
  - {{name: alice, sha256: {sha256("sk-bursar-alice-0123456789")}}}
  - name: bob
    sha256: {sha256("sk-bursar-bob-0123456789").upper()}
    former_sha256: {sha256("sk-bursar-bobs-first-0123").upper()}
  - {{name: limited, sha256: {sha256("sk-bursar-limited-0123456789")}, routes: [cheap]}}
  - {{name: admin, sha256: {sha256("sk-bursar-admin-0123456789")}, admin: true}}
  - {{name: temporary, sha256: {sha256("sk-bursar-temporary-0123456789")}, expires: 2031-01-01T02:00+02:00}}
"""


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROVIDER_KEY", PROVIDER_KEY)
        with LiveGateway(policy(shared_upstream), tmp_path_factory.mktemp("keys")) as live:
            yield live


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_a_key_may_come_in_any_dialects_header(gateway: LiveGateway, name: str) -> None:
    secret = "sk-bursar-alice-0123456789"
    for value in (secret, f"Bearer {secret}", f"bearer  {secret}"):
        answer = gateway.chat({name: value})
        assert answer.status == 200
        assert gateway.decision(answer, ALICE)["key"] == "alice"
    assert gateway.chat({"authorization": "Bearer nonsense", "x-api-key": secret}).status == 200


def test_a_secret_and_the_one_that_it_replaces_are_one_key(gateway: LiveGateway) -> None:
    former = {"x-api-key": "sk-bursar-bobs-first-0123"}
    for headers in (BOB, former):
        assert gateway.chat({**headers, "x-bursar-task-id": "rotated"}).status == 200
    assert gateway.ask("GET", "/v1/tasks/rotated", headers=former).json["calls"] == 2


def test_a_key_is_refused_from_its_expiry_on(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for now_s, status in ((EXPIRY_S - 1, 200), (EXPIRY_S, 401)):
        monkeypatch.setattr("app.http.auth.time", SimpleNamespace(time=partial(float, now_s)))
        for path, method in (("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/v1/budgets", "GET")):
            body = {"model": "small", "messages": SAY} if method == "POST" else None
            answer = gateway.ask(method, path, body, TEMPORARY)
            assert answer.status == status, path
    assert (answer.error["code"], answer.error["message"]) == ("invalid_api_key", "This key has expired.")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_clients_key_does_not_go_upstream(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    gateway.chat({**ALICE, "x-client": "own", "cookie": "session=1"})
    sent = upstream.requests[-1].headers
    assert sent["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert sent["x-own"] == "header-secret-0123"
    assert {"x-client", "cookie", "x-api-key"} & set(sent) == set()


def test_tasks_of_two_keys_do_not_mix(gateway: LiveGateway) -> None:
    for headers, calls in ((ALICE, 2), (BOB, 1)):
        for _ in range(calls):
            assert gateway.chat({**headers, "x-bursar-task-id": "same-name"}).status == 200
    for headers, calls in ((ALICE, 2), (BOB, 1)):
        assert gateway.ask("GET", "/v1/tasks/same-name", headers=headers).json["calls"] == calls
    assert gateway.ask("GET", "/v1/tasks/same-name", headers=ADMIN).status == 404
    shown = gateway.ask("GET", "/v1/tasks/same-name?key=bob", headers=ADMIN)
    assert (shown.status, shown.json["calls"]) == (200, 1)
    for name in ("alice", "nobody", "-"):
        assert gateway.ask("GET", f"/v1/tasks/same-name?key={name}", headers=BOB).status == 404


def test_a_task_that_looks_like_anothers_scope_is_another_task(gateway: LiveGateway) -> None:
    gateway.chat({**ALICE, "x-bursar-task-id": "t%_*"})
    gateway.chat({**ALICE, "x-bursar-task-id": "t100"}, model="large")
    shown = gateway.ask("GET", "/v1/tasks/t%25_*", headers=ALICE).json
    assert (shown["id"], list(shown["models"])) == ("t%_*", ["small"])
    assert gateway.ask("GET", "/v1/tasks/alice:t100", headers=BOB).status == 404
    assert gateway.ask("GET", "/v1/tasks/t100|model:large", headers=ALICE).status in (400, 404)


def test_decisions_are_for_their_key_and_for_admins(gateway: LiveGateway) -> None:
    answer = gateway.chat(ALICE)
    path = f"/v1/decisions/{answer.headers['x-request-id']}"
    assert gateway.ask("GET", path, headers=ALICE).json["key"] == "alice"
    assert gateway.ask("GET", path, headers=ADMIN).json["key"] == "alice"
    others = gateway.ask("GET", path, headers=BOB)
    assert (others.status, others.body) == (404, gateway.ask("GET", "/v1/decisions/req_0", headers=BOB).body)
    lone = f"/v1/tasks/{answer.headers['x-request-id']}"
    assert [gateway.ask("GET", lone, headers=key).status for key in (ALICE, BOB)] == [200, 404]


def test_a_key_limited_to_routes(gateway: LiveGateway) -> None:
    assert [m["id"] for m in gateway.ask("GET", "/v1/models", headers=LIMITED).json["data"]] == ["cheap"]
    assert gateway.chat(LIMITED, model="cheap").status == 200
    for model in ("auto", "small", "tier:1", "nothing"):
        assert gateway.chat(LIMITED, model=model).status == 403
    assert gateway.ask("POST", "/v1/embeddings", {"model": "small", "input": "x"}, LIMITED).status == 403


def test_what_is_said_and_every_secret_stay_out_of_all_that_is_written(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PROVIDER_KEY", PROVIDER_KEY)
    with structlog.testing.capture_logs() as logs, LiveGateway(policy(upstream), tmp_path) as gateway:
        written = [*told_in_confidence(gateway, upstream), repr(gateway.gateway.policies.current)]
    output = capfd.readouterr()
    files = {path: path.read_bytes() for path in gateway.data_dir.rglob("*") if path.is_file()}
    assert "ledger.sqlite" in {path.name for path in files}
    assert [path for path in files if path.suffix == ".jsonl"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    written += [repr(logs), caplog.text, output.out, output.err, *(data.decode("latin-1") for data in files.values())]
    for secret in ("0123456789", "sk-bursar", "header-secret", "brown secret", "nobody else should"):
        assert not [place for place in written if secret in place]


def told_in_confidence(gateway: LiveGateway, upstream: ScriptedUpstream) -> list[str]:
    """An answer, a cut, a denial, broken streams, refusals that quote the prompt, a bad request; then what the
    gateway shows of it all."""
    task = {**ALICE, "x-bursar-task-id": "private"}
    content = [{"role": "user", "content": PROMPT}]
    quoting = error_body(f"I cannot read: {PROMPT} (key {PROVIDER_KEY})")
    tool: dict[str, Any] = {"type": "function", "function": {"name": PROMPT}}
    cases: list[tuple[Script, dict[str, Any]]] = [
        (Script.of(text(SAID)), {}),
        (Script.of(text(SAID)), {"stream": True, "tools": [tool]}),
        (Script.of([text(SAID)] * 50, obeys_limit=False), {"stream": True, "max_cost_usd": 0.00001}),
        (Script.of(text(SAID), END), {"stream": True}),
        (Script.of(text(SAID), Event(quoting), END), {"stream": True}),
        (Script.failure(400, f"I cannot read: {PROMPT}"), {}),
        (Script.failure(500, f"I cannot read: {PROMPT}"), {"stream": True}),
        (Script.html(503, PROMPT), {}),
        (Script(), {"max_cost_usd": 0}),
        (Script(), {"n": PROMPT}),
    ]
    shown = []
    for script, body in cases:
        upstream.source = script
        answer = gateway.chat(task, model="auto", messages=content, **body)
        shown.append(gateway.ask("GET", f"/v1/decisions/{answer.headers['x-request-id']}", headers=ALICE).body.decode())
    gateway.ask("GET", "/v1/decisions/x", headers={"authorization": "Bearer sk-bursar-guess"})
    assert sum('"outcome"' in record for record in shown) >= 8
    return [*shown, gateway.metrics()]


def open_policy(upstream: ScriptedUpstream) -> str:
    return f'version: 1\nproviders: {{a: {{base_url: "{upstream.url}"}}}}\nmodels: {{small: {{provider: a}}}}\n'


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8080", None, 200),
        ("127.0.0.1:8080", None, 200),
        ("[::1]:8080", None, 200),
        ("192.168.1.7:8080", None, 200),  # an address cannot be rebound
        ("my.localhost", None, 200),
        ("localhost", "http://localhost:3000", 200),
        ("localhost", "http://127.0.0.1:5173", 200),
        ("localhost", "https://[::1]", 200),
        ("evil.example", None, 403),
        ("localhost.evil.example", None, 403),
        ("127.0.0.1.nip.io", None, 403),
        ("[", None, 403),
        ("localhost", "https://evil.example", 403),
        ("localhost", "null", 403),  # a sandboxed frame on anybody's page
        ("localhost", "file://", 403),
        ("localhost", "http://203.0.113.9", 403),
        ("localhost", "http://192.168.1.7", 403),
        ("localhost", "http://[", 403),
        ("localhost", "", 403),
        ("a" * 5000 + ".localhost", None, 403),
    ],
)
def test_an_open_gateway_serves_this_machine_only(
    open_gateway: LiveGateway, host: str, origin: str | None, status: int
) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    for answer in (open_gateway.chat(headers), open_gateway.ask("GET", "/v1/models", headers=headers)):
        assert answer.status == status
        assert status == 200 or answer.error["code"] == "forbidden"


@pytest.fixture(scope="module")
def open_gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    text_ = open_policy(shared_upstream).replace("{provider: a}", "{provider: a, pricing: free}")
    with LiveGateway(text_, tmp_path_factory.mktemp("open")) as live:
        yield live


@pytest.fixture(autouse=True)
def plain_script(upstream: ScriptedUpstream) -> None:
    upstream.source = Script()


def test_keys_make_any_host_and_origin_welcome(gateway: LiveGateway) -> None:
    headers = {**ALICE, "host": "llm.example.com", "origin": "https://app.example.com"}
    assert gateway.chat(headers).status == 200


def test_what_counts_as_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "", "192.168.1.7", "example.com"))


def test_a_ring_belongs_to_one_policy(gateway: LiveGateway) -> None:
    current: Policy = gateway.gateway.policies.current
    key = KeyRing(current).authenticate({"x-api-key": "sk-bursar-admin-0123456789"})
    assert key is not None
    assert (key.name, key.admin) == ("admin", True)


def test_what_is_remembered_of_keys_has_a_bound(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key can be written with any number of spaces, so that clients choose how many spellings there are."""
    monkeypatch.setattr(auth, "MAX_KNOWN", 8)
    ring = KeyRing(gateway.gateway.policies.current)
    for spaces in range(1, 30):
        key = ring.authenticate({"authorization": f"Bearer{' ' * spaces}sk-bursar-alice-0123456789"})
        assert key is not None
        assert key.name == "alice"
        with pytest.raises(Unauthorized):
            ring.authenticate({"authorization": f"Bearer{' ' * spaces}sk-bursar-alice-012345678"})
    assert 0 < len(ring._known) <= 8
    known = dict(ring._known)
    assert ring.authenticate({"authorization": f"Bearer{' ' * 9_999}sk-bursar-alice-0123456789"}) is not None
    assert ring._known == known, "nor is it remembered at any length"


def test_a_key_that_was_seen_expires_all_the_same(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(gateway.gateway.policies.current)
    assert ring.authenticate(TEMPORARY) is not None
    monkeypatch.setattr("app.http.auth.time.time", lambda: EXPIRY_S + 1)
    with pytest.raises(Unauthorized):
        ring.authenticate(TEMPORARY)
