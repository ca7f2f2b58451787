"""The policy is edited while streams run: none is dropped, each ends under the policy it began with."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import SAY, LiveGateway, Streaming, sha256
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Gate, Script, words

STREAMS = 20
SAID = "one two three four five six"


def policy(upstream: ScriptedUpstream, *, output: float = 0.001, large: bool = True, keys: str = "") -> str:
    models = [
        f"small: {{provider: a, pricing: {{input_per_1k: 0, output_per_1k: {output}}}, budgets: {{max_cost_usd: 0}}}}"
    ]
    if large:
        models.append("large: {provider: a, pricing: {input_per_1k: 0, output_per_1k: 0.05}}")
    lines = "\n".join(f"  {line}" for line in models)
    return f'version: 1\nproviders: {{a: {{base_url: "{upstream.url}"}}}}\nmodels:\n{lines}\nkeys: [{keys}]\n'


def metric(gateway: LiveGateway, name: str) -> float:
    return next(float(line.split()[1]) for line in gateway.metrics().splitlines() if line.startswith(name + " "))


def begin(gateway: LiveGateway, model: str, headers: dict[str, str] | None = None) -> Streaming:
    body = {"model": model, "messages": SAY, "stream": True, "stream_options": {"include_usage": True}}
    return gateway.stream("POST", "/v1/chat/completions", body, headers)


def edit(gateway: LiveGateway, text: str) -> str:
    """Edit, and wait until it is in force; the new version."""
    old = gateway.gateway.policies.current.version
    gateway.edit_policy(text)
    gateway.until(lambda: gateway.gateway.policies.current.version != old)
    return gateway.gateway.policies.current.version


def test_twenty_streams_outlive_five_edits(tmp_path: Path) -> None:
    gates = [Gate() for _ in range(STREAMS)]

    def script(request: Received) -> Script:
        return Script.of(words(SAID), gate=gates[request.index] if request.index < STREAMS else None)

    def one_more_word() -> None:
        for gate in gates:
            gate.release()

    with ScriptedUpstream(script) as upstream:
        first_text = policy(upstream)
        with LiveGateway(first_text, tmp_path) as gateway:
            first = gateway.gateway.policies.current.version
            one_more_word()
            streams = [begin(gateway, ("small", "large")[i % 2]) for i in range(STREAMS)]
            assert {stream.status for stream in streams} == {200}

            dearer = edit(gateway, policy(upstream, output=0.002))
            one_more_word()
            removed = edit(gateway, policy(upstream, output=0.002, large=False))
            assert gateway.chat(model="large").status == 404
            one_more_word()
            key = f"{{name: k, sha256: {sha256('sk-k')}}}"
            keyed = edit(gateway, policy(upstream, output=0.002, large=False, keys=key))
            assert gateway.chat(model="small").status == 401
            bearer = {"authorization": "Bearer sk-k"}

            gateway.edit_policy("version: 1\nproviders: {a: {base_url: nonsense}}\n")
            gateway.until(lambda: metric(gateway, "bursar_policy_last_load_failed") == 1)
            assert gateway.gateway.policies.current.version == keyed
            assert gateway.ask("GET", "/v1/models", headers=bearer).status == 200
            assert len(upstream.requests) == STREAMS

            for gate in gates:
                gate.open()
            answers = [stream.rest() for stream in streams]
            for index, answer in enumerate(answers):
                assert answer.text == SAID
                assert answer.events[-1] == "[DONE]"
                record = _record(gateway, answer.headers["x-request-id"])
                assert (record["outcome"], record["versions"]["policy"]) == ("completed", first)
                rate = 0.001 if index % 2 == 0 else 0.05
                assert record["cost_usd"] == answer.events[-2]["usage"]["cost"] == pytest.approx(6 * rate / 1000)

            now = gateway.chat(bearer, model="small")
            record = _record(gateway, now.headers["x-request-id"])
            assert (record["versions"]["policy"], record["cost_usd"]) == (keyed, pytest.approx(6 * 0.002 / 1000))
            back = edit(gateway, first_text)
            assert back == first
            assert len({first, dearer, removed, keyed}) == 4
            assert gateway.chat(model="large").status == 200
            assert metric(gateway, "bursar_policy_swaps_total") == 4
            assert metric(gateway, "bursar_policy_last_load_failed") == 0


def _record(gateway: LiveGateway, request_id: str) -> dict[str, Any]:
    services = gateway.gateway.services
    assert services is not None
    record = gateway.run(services.traces.get(request_id))
    assert record is not None
    return record


def test_a_bad_edit_mended_without_a_change_lowers_the_flag(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(policy(upstream), tmp_path) as gateway:
        gateway.edit_policy("version: 2\n")
        gateway.until(lambda: metric(gateway, "bursar_policy_last_load_failed") == 1)
        assert gateway.chat(model="small").status == 200
        gateway.edit_policy(policy(upstream))
        gateway.until(lambda: metric(gateway, "bursar_policy_last_load_failed") == 0)


def test_keys_taken_away_beyond_loopback_are_refused(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        keyed = policy(upstream, keys=f"{{name: k, sha256: {sha256('sk-k')}}}")
        with LiveGateway(keyed, tmp_path, host="0.0.0.0") as gateway:
            gateway.edit_policy(policy(upstream))
            gateway.until(lambda: metric(gateway, "bursar_policy_last_load_failed") == 1)
            assert gateway.chat(model="small").status == 401


def test_a_key_taken_away_while_the_body_comes_in_is_taken_away(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        keys = f"{{name: k, sha256: {sha256('sk-k')}}}"
        with LiveGateway(policy(upstream, keys=keys), tmp_path) as gateway:
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
                body = json.dumps({"model": "small", "messages": SAY}).encode()
                head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-k\r\n"
                client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:10])
                edit(gateway, policy(upstream, keys=f"{{name: k, sha256: {sha256('sk-new')}}}"))
                client.sendall(body[10:])
                assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
            assert not upstream.requests


def test_a_routes_edit_is_seen_by_the_next_request(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(policy(upstream), tmp_path) as gateway:
        assert gateway.chat(model="auto").status == 404
        edit(gateway, policy(upstream) + "routes: {auto: {candidates: [large]}}\n")
        answer = gateway.chat(model="auto")
        assert (answer.status, answer.headers["x-bursar-model"]) == (200, "large")
        assert "auto" in json.dumps(gateway.ask("GET", "/v1/models").json)
