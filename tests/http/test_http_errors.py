"""Errors have one shape on every path, and every answer has an id."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from google.genai import errors as gemini_errors

from app.http import hot
from app.http.dashboard.live import MAX_VIEWERS
from app.http.front import Front
from tests.http.live import SAY, Answer, LiveGateway, contract, sha256
from tests.upstream import PATIENCE_S, ScriptedUpstream

CHAT = "/v1/chat/completions"
EVENTS = "text/event-stream; charset=utf-8"


def test_every_answer_has_an_id_of_its_own(gateway: LiveGateway) -> None:
    answers = [
        gateway.ask(method, path, body, headers)
        for method, path, body, headers in [
            ("GET", "/healthz", None, {}),
            ("GET", "/readyz", None, {}),
            ("GET", "/metrics", None, {}),
            ("GET", "/v1/models", None, {}),
            ("GET", "/nowhere", None, {}),
            ("HEAD", "/api/hello", None, {}),
            ("OPTIONS", "/v1/models", None, {}),
            ("OPTIONS", CHAT, None, {}),
            ("GET", CHAT, None, {}),
            ("POST", CHAT, b"{", {}),
            ("POST", CHAT, {"model": "small", "messages": SAY}, {"x-request-id": "the client's own"}),
            ("POST", CHAT, {"model": "small", "messages": SAY, "stream": True}, {}),
            ("POST", "/v1/embeddings", {"model": "nothing", "input": "x"}, {}),
            ("POST", "/t//v1/chat/completions", None, {}),
        ]
    ]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == len(answers)
    assert all(answer.headers["x-bursar-request-id"] == answer.headers["x-request-id"] for answer in answers)
    assert all(request_id.startswith("req_") for request_id in ids)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", CHAT, 405, "method_not_allowed"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("GET", "/t/some-task/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", "/metrics", 405, "method_not_allowed"),
        ("GET", "/v1/models/nothing", 404, "model_not_found"),
        ("GET", "/v1/decisions/req_nothing", 404, "not_found"),
        ("GET", "/v1/tasks/nothing", 404, "not_found"),
        ("POST", "/t//v1/chat/completions", 400, "invalid_request"),
        ("POST", "/t/a%7Cb/v1/chat/completions", 400, "invalid_request"),
    ],
)
def test_paths_and_methods(gateway: LiveGateway, method: str, path: str, status: int, code: str) -> None:
    answer = gateway.ask(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"


QUESTIONS = "?since=x&by=x&limit=x&from=x&until=x&model=%00&window=x&name=x&at=x"
BODIES = [b"", b"{", b"[]", b"null", b'{"max_cost_usd": "x", "request_id": 5, "policy": 7, "outcome": []}', b"\xff"]


def routes_of(router: Any) -> Iterator[Any]:
    """The routes of a router, and of those that it includes."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        yield from [route] if included is None else routes_of(included)


def test_whatever_is_sent_anywhere_errors_have_that_shape(gateway: LiveGateway) -> None:
    """The framework's own words for what is wrong (422, `detail`) reach nobody."""
    front: Any = gateway.gateway.front
    asked = [
        (method, re.sub(r"\{[^}]*\}", "x", route.path))
        for route in routes_of(front._api)
        for method in sorted(route.methods - {"HEAD"})
        if not route.path.endswith("/live")
    ]
    assert {path for _, path in asked} >= {
        "/v1/tasks/x",
        "/v1/feedback",
        "/v1/efficiency",
        "/v1/decisions/x",
        "/dashboard/api/record/x",
        "/dashboard/api/policy",
    }
    for method, path in [*asked, ("POST", CHAT), ("POST", "/v1/embeddings")]:
        for body in [None] if method == "GET" else BODIES:
            answer = gateway.ask(method, path + QUESTIONS, body)
            assert answer.status < 500 or answer.error["code"] == "traces_unavailable", (method, path, body)
            assert answer.status != 422, (method, path, body)
            if answer.status >= 400 and path.startswith("/v1beta"):
                assert answer.json["error"]["code"] == answer.status, (method, path, body)
            elif answer.status >= 400:
                assert answer.error["type"] in ("invalid_request_error", "server_error"), (method, path, body)
                assert answer.error["message"], (method, path, body)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/v1/v1/chat/completions", CHAT),
        ("/chat/completions", CHAT),
        ("//v1//chat/completions/", CHAT),
        ("/t/some-task/v1/v1/chat/completions", CHAT),
        ("/openai/v1/responses", "/v1/responses"),
        ("/responses", "/v1/responses"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/messages/count_tokens/", "/v1/messages/count_tokens"),
        ("/v1beta/v1beta/models/small:generateContent", "/v1beta/models/small:generateContent"),
        ("/models/small:generateContent", "/v1beta/models/small:generateContent"),
        (
            "/v1/projects/p/locations/l/publishers/google/models/small:streamGenerateContent",
            "/v1beta/models/small:streamGenerateContent",
        ),
        ("/v1/edits", None),
    ],
)
def test_whose_base_url_is_wrong_is_told_the_path(gateway: LiveGateway, asked: str, meant: str | None) -> None:
    answer = gateway.ask("POST", asked, {"model": "small"})
    assert answer.status == 404
    message = answer.json["error"]["message"]
    assert (f" at {meant}:" in message) == (meant is not None)
    assert "nothing at this path" in message


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/v1/messages/batches", {}, 404),
        ("GET", "/v1/models/none", {"anthropic-version": "2023-06-01"}, 404),
        ("POST", "/t/a%7Cb/v1/messages", {}, 400),
        ("POST", "/v1/messages", {"content-encoding": "br"}, 415),
    ],
)
def test_clients_of_messages_read_errors_of_their_own_everywhere(
    gateway: LiveGateway, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = gateway.ask(method, path, {} if method == "POST" else None, headers)
    assert (answer.status, answer.json["type"], set(answer.json)) == (status, "error", {"type", "error"})
    assert answer.json["error"]["type"] in ("not_found_error", "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1beta/models/none", {}, 404),
        ("GET", "/v1/models/none", {"x-goog-api-key": "k"}, 404),
        ("GET", "/v1/models/none?key=k", {}, 404),
        ("PUT", "/v1/models?key=k", {}, 405),
        ("POST", "/v1beta/cachedContents", {}, 404),
        ("POST", "/v1beta/models/small:batchEmbedContents", {}, 404),
        ("POST", "/v1/models/small:embedContent", {}, 404),
        ("POST", "/t/a%7Cb/v1beta/models/small:generateContent", {}, 400),
    ],
)
def test_clients_of_gemini_read_errors_of_their_own_everywhere(
    gateway: LiveGateway, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = gateway.ask(method, path, {} if method == "POST" else None, headers)
    assert (answer.status, answer.json["error"]["code"], set(answer.json)) == (status, status, {"error"})
    assert answer.json["error"]["status"] in ("NOT_FOUND", "INVALID_ARGUMENT")


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/v1/responses/x/cancel"])
def test_what_is_not_offered_of_responses_is_not_there(gateway: LiveGateway, path: str) -> None:
    answer = gateway.ask("POST", path, {"model": "small"})
    assert (answer.status, answer.error["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/conv_1"),
        ("POST", "/v1/conversations/conv_1/items"),
        ("DELETE", "/v1/conversations/conv_1/items/msg_1"),
    ],
)
def test_who_wants_conversations_kept_is_told_what_there_is(gateway: LiveGateway, method: str, path: str) -> None:
    answer = gateway.ask(method, path, {} if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "previous_response_id" in answer.error["message"]


@pytest.mark.parametrize("base", ["/openai", "/v1", "/t/some-task/openai"])
@pytest.mark.parametrize(
    ("rest", "body"),
    [
        ("chat/completions", {"messages": SAY}),
        ("chat/completions", {"model": "none", "messages": SAY}),
        ("completions", {"prompt": "Say it."}),
        ("embeddings", {"input": "Say it."}),
    ],
)
def test_azures_clients_ask_for_a_deployment_in_the_path(
    gateway: LiveGateway, upstream: ScriptedUpstream, base: str, rest: str, body: dict[str, Any]
) -> None:
    answer = gateway.ask("POST", f"{base}/deployments/small/{rest}?api-version=2024-10-21", body)
    assert answer.status == 200
    assert answer.headers["x-bursar-requested-model"] == "small"
    assert (upstream.requests[-1].path, upstream.requests[-1].query) == (f"/v1/{rest}", "")


def test_azures_clients_ask_for_responses_without_a_deployment(gateway: LiveGateway) -> None:
    answer = gateway.ask("POST", "/openai/responses?api-version=2025-03-01-preview", {"model": "small", "input": "Hi"})
    assert (answer.status, answer.json["object"]) == (200, "response")
    provider = gateway.ask("POST", "/openai/deployments/none/some-model/chat/completions", {"messages": SAY})
    assert (provider.status, provider.error["code"]) == (404, "model_not_found")
    wrong = gateway.ask("POST", "/openai/deployments/small/audio/speech", {})
    assert (wrong.status, wrong.error["code"]) == (404, "not_found")


def test_a_long_path_to_nowhere_is_looked_through_once() -> None:
    """Anybody may send one; looked through anew from each of its parts it would keep all others waiting."""
    front = Front({":generateContent": cast(Any, None)}, cast(Any, None), cast(Any, None))
    for end in ("x", "x:1", "x:generate"):
        assert front._meant("/" + "v1/models/" * 100_000 + end) is None


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (CHAT, "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/feedback", "GET, HEAD, POST, OPTIONS"),
        ("/v1/keys", "GET, HEAD, POST, OPTIONS"),
        ("/v1/keys/k", "DELETE, OPTIONS"),
        ("/v1/tasks", "GET, HEAD, OPTIONS"),
        ("/v1/tasks/a/b", "GET, HEAD, PATCH, OPTIONS"),
        ("/v1/responses/compact", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/dashboard/api/policy", "GET, HEAD, PUT, OPTIONS"),
        ("/dashboard/api/policy/check", "POST, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(gateway: LiveGateway, path: str, allow: str) -> None:
    for method, status in (("TRACE", 405), ("OPTIONS", 204)):
        answer = gateway.ask(method, path)
        assert (answer.status, answer.headers["allow"]) == (status, allow)
        assert (answer.body == b"") == (method == "OPTIONS")
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/t/a/v1/budgets/"), ("POST", "/v1/feedback/"), ("GET", "/healthz/")]
)
def test_a_slash_too_many_sends_nobody_and_no_key_elsewhere(gateway: LiveGateway, method: str, path: str) -> None:
    answer = gateway.ask(method, path, headers={"host": "127.0.0.2"})
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "location" not in answer.headers


def test_head_is_get_without_the_body(gateway: LiveGateway) -> None:
    for path in ("/healthz", "/v1/models", "/nowhere"):
        head, get = gateway.ask("HEAD", path), gateway.ask("GET", path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-length"] == str(len(get.body))


def test_head_of_a_stream_ends_and_takes_no_viewers_place(gateway: LiveGateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    for _ in range(MAX_VIEWERS + 1):
        connection.request("HEAD", "/dashboard/api/live")
        head = connection.getresponse()
        assert (head.status, head.headers["content-type"], head.read()) == (200, EVENTS, b"")
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    stream = gateway.stream("GET", "/dashboard/api/live")
    assert (stream.status, stream.headers["content-type"]) == (200, EVENTS)
    stream.leave()


@pytest.mark.parametrize(
    ("given", "param", "says"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"\xff{}", None, "not valid JSON"),
        (b"[1]", None, "JSON object"),
        (b"null", None, "JSON object"),
        (b"[" * 5000, None, "JSON"),
        ({"model": "small"}, "messages", "required"),
        ({"messages": SAY}, "model", "required"),
        ({"model": 7, "messages": SAY}, "model", "wrong"),
        ({"model": "", "messages": SAY}, "model", "must name"),
        ({"model": "small", "messages": []}, "messages", "at least one"),
        ({"model": "small", "messages": "hi"}, "messages", "wrong"),
        ({"model": "small", "messages": [{"content": "x"}]}, "messages[0]", "role"),
        ({"model": "small", "messages": [*SAY, {"role": "user", "content": 5}]}, "messages[1].content", "wrong"),
        ({"model": "small", "messages": SAY, "n": 0}, "n", "positive"),
        ({"model": "small", "messages": SAY, "n": 1000}, "n", "too large"),
        ({"model": "small", "messages": SAY, "n": "two"}, "n", "wrong"),
        ({"model": "small", "messages": SAY, "max_tokens": 0}, "max_tokens", "positive"),
        ({"model": "small", "messages": SAY, "max_tokens": 2**40}, "max_tokens", "too large"),
        ({"model": "small", "messages": SAY, "max_completion_tokens": 1.5}, "max_completion_tokens", "wrong"),
        ({"model": "small", "messages": SAY, "stream": "yes"}, "stream", "wrong"),
        ({"model": "small", "messages": SAY, "stream_options": 1}, "stream_options", "wrong"),
        (
            {"model": "small", "messages": SAY, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "wrong",
        ),
        ({"model": "small", "messages": SAY, "max_cost_usd": -1}, "max_cost_usd", "wrong"),
        ({"model": "small", "messages": SAY, "max_cost_usd": "lots"}, "max_cost_usd", "wrong"),
        ({"model": "small", "messages": SAY, "max_cost_usd": "nan"}, "max_cost_usd", "wrong"),
        ({"model": "small", "messages": SAY, "max_cost_usd": True}, "max_cost_usd", "wrong"),
        ({"model": "small", "messages": SAY, "metadata": {"task_id": 5}}, "metadata.task_id", "wrong"),
        ({"model": "small", "messages": SAY, "metadata": {"task_id": "x" * 201}}, "metadata.task_id", "too long"),
        ({"model": "small", "messages": SAY, "metadata": {"task_id": "a\nb"}}, "metadata.task_id", "printable"),
        ({"model": "small", "messages": SAY, "tools": {}}, "tools", "wrong"),
        ({"model": "small", "messages": SAY, "response_format": "json"}, "response_format", "wrong"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong(
    gateway: LiveGateway, upstream: ScriptedUpstream, given: Any, param: str | None, says: str
) -> None:
    answer = gateway.ask("POST", CHAT, given)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert answer.error["param"] == param
    assert says in answer.error["message"]
    assert not upstream.requests


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Bursar-Max-Cost-Usd", "-0.1"),
        ("X-Bursar-Max-Cost-Usd", "a penny"),
        ("X-Bursar-Max-Cost-Usd", ""),
        ("X-Bursar-Task-Max-Cost-Usd", "inf"),
        ("X-Bursar-Task-Id", "a|b"),
        ("X-Bursar-Task-Id", ""),
        ("X-Bursar-On-Cut", "politely"),
    ],
)
def test_a_bad_header_is_named(gateway: LiveGateway, header: str, value: str) -> None:
    answer = gateway.chat({header: value})
    assert (answer.status, answer.error["param"]) == (400, header)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "small"}, "input"),
        ({"model": 1, "input": "x"}, "model"),
        ({"model": "small", "input": 5}, "input"),
        ({"model": "small", "input": ["x", 5]}, "input"),
        ({"model": "small", "input": "x", "max_cost_usd": -1}, "max_cost_usd"),
    ],
)
def test_a_bad_embeddings_body_is_told_what_is_wrong(gateway: LiveGateway, given: Any, param: str) -> None:
    answer = gateway.ask("POST", "/v1/embeddings", given)
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize("model", ["nothing", "a/nothing", "tier:9", "tier:", "tier:x", "😀", "a" * 5000])
def test_unknown_models(gateway: LiveGateway, model: str) -> None:
    for answer in (
        gateway.chat(model=model),
        gateway.chat(model=model, stream=True),
        gateway.ask("POST", "/v1/embeddings", {"model": model, "input": "x"}),
    ):
        assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_a_prompt_longer_than_every_window(tmp_path: Any) -> None:
    """Not the provider's 400, which may be one among other candidates': nobody is asked."""
    with ScriptedUpstream() as upstream:
        policy = f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{small: {{provider: a, context_tokens: 1000, pricing: {{input_per_1k: 0.1, output_per_1k: 0.1}}}}}}
"""
        with LiveGateway(policy, tmp_path) as gateway:
            long = [{"role": "user", "content": "one two three four " * 2000}]
            for path, limit in ((CHAT, {}), ("/v1/messages", {"max_tokens": 5})):
                answer = gateway.ask("POST", path, {"model": "small", "messages": long, **limit})
                said = json.loads(answer.body)["error"]
                assert (answer.status, said["type"]) == (400, "invalid_request_error")
                assert "context window" in said["message"]
            assert gateway.chat(messages=long).error["code"] == "context_length_exceeded"
            assert not upstream.requests


class TestTooLarge:
    """The gateway of these tests takes 64 KiB."""

    BODY = json.dumps({"model": "small", "messages": [{"role": "user", "content": "x" * 10_000_000}]}).encode()

    def check(self, answer: Answer) -> None:
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert answer.headers["connection"] == "close"

    def test_the_answer_arrives_although_the_client_sends_everything_first(self, gateway: LiveGateway) -> None:
        self.check(gateway.ask("POST", CHAT, self.BODY))
        self.check(gateway.ask("POST", "/v1/embeddings", self.BODY))

    def test_chunked_bodies_are_counted(self, gateway: LiveGateway) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        parts = (self.BODY[at : at + 50_000] for at in range(0, 1_000_000, 50_000))
        connection.request("POST", CHAT, parts, {"content-type": "application/json"}, encode_chunked=True)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        self.check(Answer(response.status, headers, response.read()))
        connection.close()

    def test_who_asks_first_need_not_send(self, gateway: LiveGateway) -> None:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000000\r\n"
                b"expect: 100-continue\r\n\r\n"
            )
            assert client.recv(65536).startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_one_that_is_here_is_refused_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool
    ) -> None:
        monkeypatch.setattr(hot, "READ_AWAY_S", 3600.0)
        body = b"x" * 5_000
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: 5000"
        sent = b"1388\r\n%b\r\n0\r\n\r\n" % body if chunked else body
        with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path, max_body_bytes=1_000) as gateway:
            client = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n%b\r\n\r\n" % framing + sent)
            assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
            client.close()

    def test_the_limit_itself_is_not_too_large(self, gateway: LiveGateway) -> None:
        body = json.dumps({"model": "small", "messages": SAY}).encode()
        assert gateway.ask("POST", CHAT, body + b" " * (65_536 - len(body))).status == 200
        self.check(gateway.ask("POST", CHAT, body + b" " * (65_537 - len(body))))


def test_keys_are_asked_for_on_every_path_but_the_public_ones(tmp_path: Any) -> None:
    with ScriptedUpstream() as upstream:
        policy = f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models:
  small: {{provider: a, pricing: {{input_per_1k: 0.1, output_per_1k: 0.1}}}}
  other: {{provider: a, pricing: {{input_per_1k: 0.1, output_per_1k: 0.1}}}}
routes: {{auto: {{candidates: [small]}}}}
keys:
  - {{name: limited, sha256: {sha256("sk-limited")}, routes: [auto]}}
"""
        with LiveGateway(policy, tmp_path) as gateway:
            for method, path in [
                ("POST", CHAT),
                ("POST", "/v1/embeddings"),
                ("GET", "/v1/models"),
                ("GET", "/v1/models/auto"),
                ("GET", "/v1/decisions/x"),
                ("GET", "/v1/tasks/x"),
            ]:
                for headers in ({}, {"authorization": "Bearer sk-wrong"}, {"authorization": "sk-limited-not"}):
                    answer = gateway.ask(method, path, headers=headers)
                    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
                    assert answer.headers["www-authenticate"] == "Bearer"
            for path in ("/healthz", "/readyz", "/metrics"):
                assert gateway.ask("GET", path).status == 200
            key = {"authorization": "Bearer sk-limited"}
            refused = gateway.chat(key, model="other")
            assert (refused.status, refused.error["code"], refused.error["param"]) == (403, "forbidden", "model")
            assert gateway.chat(key, model="unheard-of").status == 403
            assert gateway.ask("GET", "/v1/models/other", headers=key).status == 404
            assert not upstream.requests


def test_a_defect_is_answered_in_shape_too(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    services = gateway.gateway.services
    assert services is not None
    secret = "it was /secret/place"

    async def fails(_: str) -> None:
        raise RuntimeError(secret)

    monkeypatch.setattr(services.traces, "get", fails)
    answer = gateway.ask("GET", "/v1/decisions/x")
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert secret.encode() not in answer.body


def test_a_defect_on_the_hot_path_is_too(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("it was /secret/place")

    monkeypatch.setattr("app.http.generate.parse_chat", fails)
    answer = gateway.chat()
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert answer.headers["x-request-id"]


def test_errors_are_counted(gateway: LiveGateway) -> None:
    def counted(label: str) -> float:
        lines = [x for x in gateway.metrics().splitlines() if x.startswith(f'bursar_errors_total{{label="{label}"}}')]
        return float(lines[0].split()[1]) if lines else 0.0

    for label, method, path, body in [
        ("method", "GET", CHAT, None),
        ("not_found", "GET", "/nowhere", None),
        ("bad_request", "POST", CHAT, b"{"),
        ("model_not_found", "POST", CHAT, {"model": "nothing", "messages": SAY}),
    ]:
        before = counted(label)
        gateway.ask(method, path, body)
        assert counted(label) == before + 1


@pytest.mark.parametrize("query", ["", "?alt=json", "?alt=sse"])
def test_before_a_stream_that_is_an_array_an_error_is_one_too(gateway: LiveGateway, query: str) -> None:
    """As Google sends it; google-genai reads either."""
    said = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    for model, body, headers, status in [
        ("small", b"{", {}, 400),
        ("nothing", said, {}, 404),
        ("small", said, {"x-bursar-max-cost-usd": "0.000000001"}, 402),
        ("small", said, {"x-bursar-max-cost-usd": "x"}, 400),
    ]:
        answer = gateway.ask("POST", f"/v1beta/models/{model}:streamGenerateContent{query}", body, headers)
        assert answer.status == status
        assert isinstance(answer.json, dict) == (query == "?alt=sse")
        raised = gemini_errors.ClientError(status, answer.json)
        assert (raised.code, bool(raised.message), bool(raised.status)) == (status, True, True)
        whole = gateway.ask("POST", f"/v1beta/models/{model}:generateContent{query}", body, headers)
        assert set(whole.json) == {"error"}
