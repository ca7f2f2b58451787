"""Tags: what a call is for, kept with its record and trace."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.commands.tree import cli
from tests.http.live import SAY, LiveGateway, environment
from tests.http.test_http_caps import ENDPOINTS, FIVE, policy
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Script, words

EMBEDDED = b'{"object": "list", "data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}}'
BY_TAG = "SELECT tag, count(*) AS calls, sum(cost_usd) AS usd FROM (SELECT unnest(tags) AS tag, cost_usd FROM traces) \
GROUP BY tag ORDER BY tag"


@pytest.mark.parametrize("path", ENDPOINTS)
def test_tags_are_kept_with_each_kind_of_call(tmp_path: Path, path: str) -> None:
    embeds = path == "/v1/embeddings"
    script = Script(body=EMBEDDED, headers={"content-type": "application/json"}) if embeds else Script.of(words(FIVE))
    with ScriptedUpstream(script) as upstream, LiveGateway(policy(upstream), tmp_path) as gateway:
        answer = gateway.ask("POST", path, ENDPOINTS[path], {"x-bursar-tags": " checkout ,env:prod,, checkout"})
        assert answer.status == 200
        assert gateway.decision(answer)["tags"] == ["checkout", "env:prod"]
        assert "x-bursar-tags" not in upstream.requests[0].headers
        assert "tags" not in gateway.decision(gateway.ask("POST", path, ENDPOINTS[path]))


@pytest.mark.parametrize("sent", ["ő,日本,é".encode().decode("latin-1"), "\xe9"], ids=["UTF-8", "Latin-1"])
def test_tags_are_kept_as_they_were_meant(tmp_path: Path, sent: str) -> None:
    with ScriptedUpstream(Script.of(words(FIVE))) as upstream, LiveGateway(policy(upstream), tmp_path) as gateway:
        answer = gateway.chat({"x-bursar-tags": sent}, model="m", max_tokens=5)
        assert answer.status == 200
        assert gateway.decision(answer)["tags"] == (["é"] if len(sent) == 1 else ["ő", "日本", "é"])


def test_a_proxys_tags_join_the_clients(tmp_path: Path) -> None:
    with ScriptedUpstream(Script.of(words(FIVE))) as upstream, LiveGateway(policy(upstream), tmp_path) as gateway:
        connection = HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
        body = json.dumps({"model": "m", "messages": SAY, "max_tokens": 5}).encode()
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in (("content-length", str(len(body))), ("x-bursar-tags", "a"), ("x-bursar-tags", "b")):
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        response.read()
        record = gateway.ask("GET", f"/v1/decisions/{response.headers['x-request-id']}").json
        connection.close()
        assert record["tags"] == ["a", "b"]


@pytest.mark.parametrize("value", [",".join(map(str, range(17))), "x" * 65, "tab\tbed"])
def test_what_is_no_list_of_tags_is_refused(tmp_path: Path, value: str) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(policy(upstream), tmp_path) as gateway:
        refused = gateway.chat({"x-bursar-tags": value}, model="m")
        assert (refused.status, refused.error["param"]) == (400, "X-Bursar-Tags")
        assert not upstream.requests


def test_spending_by_tag(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream), tmp_path) as gateway,
    ):
        for tags in ("a", "a, b", None):
            headers = {} if tags is None else {"x-bursar-tags": tags}
            assert gateway.chat(headers, model="m", max_tokens=5).status == 200
        env = environment(BURSAR_DATA_DIR=str(gateway.data_dir))

        def told() -> list[dict[str, Any]]:
            done = CliRunner().invoke(cli, ["traces", "query", BY_TAG, "--json"], env=env)
            found: list[dict[str, Any]] = json.loads(done.stdout)
            return found

        wanted = [{"tag": "a", "calls": 2, "usd": 0.01}, {"tag": "b", "calls": 1, "usd": 0.005}]
        gateway.until(lambda: told() == wanted)


def test_a_reply_of_the_cache_has_the_tags_of_who_asked(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, "cache: {ttl_secs: 600}"), tmp_path) as gateway,
    ):

        def hit() -> bool:
            answer = gateway.chat({"x-bursar-tags": "b"}, model="m", max_tokens=5)
            return "x-bursar-cache" in answer.headers and gateway.decision(answer)["tags"] == ["b"]

        assert gateway.chat({"x-bursar-tags": "a"}, model="m", max_tokens=5).status == 200
        gateway.until(hit)
        assert len(upstream.requests) <= 2
