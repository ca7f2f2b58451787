"""Spans of calls: sent by OTLP to a real receiver, in the conventions' words, below the client's; off by default."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.conftest import ROOT
from tests.http.live import LiveGateway
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "the prompt's own words"


class Receiver:
    """What an OTLP collector is to the gateway: takes what it is sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        return [
            s for r in self.requests for group in r.resource_spans for scope in group.scope_spans for s in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    found = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    yield found
    found.close()


def said(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def policy(upstream: ScriptedUpstream) -> str:
    return f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models:
  first: {{provider: p, upstream_model: first-v1, pricing: {{input_per_1k: 0.001, output_per_1k: 0.01}}}}
  second: {{provider: p, upstream_model: second-v1, pricing: {{input_per_1k: 0.001, output_per_1k: 0.01}}}}
routes: {{auto: {{candidates: [first], fallback: [second], retries: {{attempts: 0}}}}}}
"""


def test_calls_become_spans(receiver: Receiver, tmp_path: Path) -> None:
    scripts = {"first-v1": Script.failure(503), "second-v1": Script.of(words("one two three"), input_tokens=10)}
    messages = [{"role": "user", "content": SECRET}]
    with ScriptedUpstream(scripts) as upstream:
        with LiveGateway(policy(upstream), tmp_path, otel=True) as gateway:
            above = {"traceparent": f"00-{TRACE}-{ABOVE}-01", "x-bursar-task-id": "t1"}
            gateway.chat(above, model="auto", stream=True, messages=messages)
            gateway.chat(model="first")
            gateway.chat(model="second", max_cost_usd=0.000001)
            gateway.ask("POST", "/v1/embeddings", {"model": "second", "input": SECRET})
        port = upstream.port
    spans = {said(span)["bursar.outcome"] + ":" + span.name: span for span in receiver.spans()}
    assert spans.keys() == {
        "completed:chat second-v1", "api_error:chat first-v1", "denied:chat second", "completed:embeddings second-v1",
    }  # fmt: skip

    span = spans["completed:chat second-v1"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, ABOVE)
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert span.start_time_unix_nano < span.end_time_unix_nano
    told = said(span)
    assert (
        told.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "p",
            "gen_ai.request.model": "second-v1",
            "gen_ai.conversation.id": "t1",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.request.stream": True,
            "server.address": "127.0.0.1",
            "server.port": port,
            "bursar.requested_model": "auto",
            "bursar.route": "auto",
            "bursar.cost_usd": pytest.approx(0.00004),
            "bursar.provenance": "metered",
        }.items()
    )
    (first_token,) = [event for event in span.events if event.name == "bursar.first_token"]
    waited_s = (first_token.time_unix_nano - span.start_time_unix_nano) / 1e9
    assert told["gen_ai.response.time_to_first_chunk"] == pytest.approx(waited_s, abs=1e-5)
    none = (
        "gen_ai.request.choice.count",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.reasoning.output_tokens",
    )
    assert not set(none) & told.keys(), "what there was none of is not said"
    assert [event.name for event in span.events] == ["bursar.attempt_failed", "bursar.first_token"]
    assert {a.key: a.value.string_value for a in span.events[0].attributes}["outcome"] == "api_error"

    failed = spans["api_error:chat first-v1"]
    assert not {"gen_ai.request.stream", "gen_ai.response.time_to_first_chunk"} & said(failed).keys()
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert said(failed)["error.type"] == "api_error"
    assert not failed.parent_span_id
    denied = spans["denied:chat second"]
    assert denied.status.code == Status.STATUS_CODE_UNSET
    assert said(denied)["bursar.denied.scope"] == "request"
    assert said(spans["completed:embeddings second-v1"])["gen_ai.operation.name"] == "embeddings"

    (resource,) = {r.SerializeToString() for q in receiver.requests for r in (g.resource for g in q.resource_spans)}
    assert b"bursar" in resource
    assert not any(SECRET.encode() in request.SerializeToString() for request in receiver.requests)


def test_what_the_cache_answered_is_told_and_names_no_provider(receiver: Receiver, tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words("one"))) as upstream,
        LiveGateway(f"{policy(upstream)}cache: {{ttl_secs: 60}}\n", tmp_path, otel=True) as gateway,
    ):
        answers = [gateway.chat(model="first")]
        while "x-bursar-cache" not in answers[-1].headers:  # a client hears the end before the reply is kept
            answers.append(gateway.chat(model="first"))
            assert len(answers) < 200
    (told,) = [found for span in receiver.spans() if "bursar.cached.request_id" in (found := said(span))]
    assert told["bursar.cached.request_id"] == answers[-1].headers["x-bursar-cache-from"]
    assert (told["gen_ai.operation.name"], told["bursar.cost_usd"]) == ("chat", 0.0)
    assert not {"bursar.model", "server.address", "gen_ai.usage.input_tokens"} & told.keys()


def test_cached_and_reasoning_tokens_and_several_answers_are_told(receiver: Receiver, tmp_path: Path) -> None:
    usage = {
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens": 9,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    with ScriptedUpstream(Script.of(words("one two"), input_tokens=10, usage_override=usage)) as upstream:
        rules = policy(upstream).replace("retries: {attempts: 0}", "adequacy: 0")
        with LiveGateway(rules, tmp_path, otel=True) as gateway:
            assert gateway.chat(model="auto", n=2).status == 200
    (span,) = receiver.spans()
    told = {name: value for name, value in said(span).items() if name.startswith("gen_ai.")}
    assert told["gen_ai.usage.cache_read.input_tokens"] == 6
    assert told["gen_ai.usage.reasoning.output_tokens"] == 4
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (10, 9)
    assert told["gen_ai.request.choice.count"] == 2


def test_a_receiver_that_is_away_costs_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with (
        ScriptedUpstream(Script.of(words("one"))) as upstream,
        LiveGateway(policy(upstream), tmp_path, otel=True) as gateway,
    ):
        assert gateway.chat(model="second").status == 200


def test_without_it_nothing_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.main import *; s = Settings(data_dir=Path('.'));"
        "assert type(with_spans(s, make_traces(s, Metrics()), None)) is FileTraces;"
        "assert not {'app.spans', 'opentelemetry.sdk', 'opentelemetry.exporter'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
