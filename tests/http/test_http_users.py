"""End users over HTTP: named in each dialect, capped each for itself, kept under a hash."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.commands.tree import cli
from app.core.users import user_hash
from app.gateway.services import Services
from tests.http.live import SAY, Answer, LiveGateway, environment, sha256
from tests.http.test_http_caps import ENDPOINTS, FIVE, LATER, SLACK_USD, denied, policy
from tests.redis_server import shared_server
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Script, words

KEYS = f"keys: [{{name: alice, sha256: {sha256('sk-a')}}}, {{name: bob, sha256: {sha256('sk-b')}}}]"
ALICE, BOB = {"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-b"}
NAMED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"user": "ann"},
    "/v1/completions": {"user": "ann"},
    "/v1/responses": {"safety_identifier": "ann"},
    "/v1/messages": {"metadata": {"user_id": "ann"}},
    "/v1/embeddings": {"user": "ann"},
}
"""How a request at each place names its user; at Gemini's only the header does."""
EMBEDDED = b'{"object": "list", "data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}}'
OF_MONTH = "caps: {user: {month: {max_cost_usd: 0.010}}}"
OF_DAY = "caps: {user: {day: {max_cost_usd: 0.005}}}"


def services_of(gateway: LiveGateway) -> Services:
    services = gateway.gateway.services
    assert services is not None
    return services


def hash_of(gateway: LiveGateway, user: str) -> str:
    salt = services_of(gateway).salt
    assert salt is not None
    return user_hash(user, salt)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("by_header", [False, True])
def test_a_user_is_told_its_cap_in_each_dialect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, by_header: bool
) -> None:
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: LATER)
    if path not in NAMED and not by_header:
        pytest.skip("Gemini has no field for it")
    headers = {"x-bursar-user": "ann"} if by_header else {}
    body = {**ENDPOINTS[path], **({} if by_header else NAMED[path])}
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        assert gateway.chat({**ALICE, "x-bursar-user": "ann"}, model="m", max_tokens=5).status == 200
        if path == "/v1/embeddings":  # whose input costs nothing here
            body |= {"model": "paid"}
            gateway.edit_policy(policy(upstream, f"{OF_DAY}\n{KEYS}").replace("routes:", PAID + "routes:"))
            gateway.until(lambda: "paid" in services_of(gateway).view.policy.models)
        second = gateway.ask("POST", path, body, {**ALICE, **headers})
        assert second.status == (400 if path == "/v1/responses" else 402), "codex sends again what is a 402"
        assert {name: second.headers[f"x-bursar-{name}"] for name in ("scope", "limit-usd", "spent-usd")} == {
            "scope": "user_day",
            "limit-usd": "0.005",
            "spent-usd": "0.005",
        }
        assert (second.headers["x-should-retry"], "x-bursar-reset" in second.headers) == ("false", True)
        assert "User is out of budget: the cost cap set for this user has been reached" in second.body.decode()
        record = gateway.decision(second, ALICE)
        assert (record["denied_scope"], record["user"]) == ("user_day", hash_of(gateway, "ann"))
        assert len(upstream.requests) == 1


PAID = "  paid: {provider: p, tier: 2, pricing: {input_per_1k: 1, output_per_1k: 1}}\n"


def test_users_have_a_cap_each_and_two_keys_no_user_in_common(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        first = gateway.chat(ALICE, model="m", max_tokens=5, user="ann")
        assert (first.status, first.headers["x-bursar-remaining-usd"]) == (200, "0")
        assert first.headers["x-bursar-scope"] == "user_day"
        denied(gateway.chat(ALICE, model="m", max_tokens=5, user="ann"), "user_day", "0.005")
        raised = gateway.chat({**ALICE, "x-bursar-max-cost-usd": "5"}, model="m", max_tokens=5, user="ann")
        denied(raised, "user_day", "0.005")
        assert gateway.chat(ALICE, model="m", max_tokens=5, user="eve").status == 200
        assert gateway.chat(BOB, model="m", max_tokens=5, user="ann").status == 200, "another key's is another user"
        assert gateway.chat(ALICE, model="m", max_tokens=5).status == 200, "nobody is named, and nobody's cap binds"
        by_header = gateway.chat({**ALICE, "x-bursar-user": "joe"}, model="m", max_tokens=5, user="ann")
        assert by_header.status == 200, "the header wins"
        assert gateway.decision(by_header, ALICE)["user"] == hash_of(gateway, "joe")
        assert len(upstream.requests) == 5


def test_a_stream_is_cut_at_its_users_cap(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words("w " * 40), obeys_limit=False, delay_s=0.001)) as upstream,
        LiveGateway(policy(upstream, f"{OF_MONTH}\n{KEYS}"), tmp_path) as gateway,
    ):
        cut = gateway.chat(ALICE, model="m", stream=True, user="ann")
        error = next(event["error"] for event in cut.events if "error" in event)
        assert (error["code"], "this user" in error["message"]) == ("budget_exceeded", True)
        record = gateway.decision(cut, ALICE)
        assert (record["outcome"], record["cut"]["scope"]) == ("cost_killed", "user_month")
        assert 0.01 <= record["cost_usd"] <= 0.01 + SLACK_USD
        assert gateway.chat(ALICE, model="m", max_tokens=1, user="eve").status == 200
        assert 'bursar_cuts_total{scope="user_month"}' in gateway.metrics()


def test_a_keys_own_caps_for_its_users_replace_those_for_all(tmp_path: Path) -> None:
    more = f"""
{OF_DAY}
keys:
  - {{name: alice, sha256: {sha256("sk-a")}, user_caps: {{total: {{max_cost_usd: 0.010}}, require: true}}}}
  - {{name: bob, sha256: {sha256("sk-b")}}}
"""
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, more), tmp_path) as gateway,
    ):
        assert [gateway.chat(ALICE, model="m", max_tokens=5, user="ann").status for _ in range(2)] == [200, 200]
        denied(gateway.chat(ALICE, model="m", max_tokens=5, user="ann"), "user_total", "0.01")
        assert gateway.chat(ALICE, model="m", max_tokens=5).status == 400
        assert [gateway.chat(BOB, model="m", max_tokens=5, user="ann").status for _ in range(2)] == [200, 402]
        assert gateway.chat(BOB, model="m", max_tokens=5).status == 200


def test_where_users_are_required_a_request_without_one_is_refused_in_each_dialect(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"caps: {{user: {{require: true}}}}\n{KEYS}"), tmp_path) as gateway,
    ):
        for path, body in ENDPOINTS.items():
            refused = gateway.ask("POST", path, body, ALICE)
            assert refused.status == 400, path
            assert "X-Bursar-User" in refused.json["error"]["message"]
            assert not upstream.requests
        upstream.source = Script.of(words(FIVE))
        for path, named in NAMED.items():
            if path == "/v1/embeddings":
                upstream.source = Script(body=EMBEDDED, headers={"content-type": "application/json"})
            assert gateway.ask("POST", path, {**ENDPOINTS[path], **named}, ALICE).status == 200, path
        session = json.dumps({"session_id": "s-1"})
        messages = {**ENDPOINTS["/v1/messages"], "metadata": {"user_id": session}}
        assert gateway.ask("POST", "/v1/messages", messages, ALICE).status == 400, "a session is nobody"


@pytest.mark.parametrize("value", ["", "x" * 201, "tab\tbed"])
def test_a_header_that_names_nobody_is_refused(tmp_path: Path, value: str) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway:
        refused = gateway.chat({**ALICE, "x-bursar-user": value}, model="m")
        assert (refused.status, refused.error["param"]) == (400, "X-Bursar-User")
        assert value not in refused.error["message"] or not value


def test_without_the_policys_wish_no_user_is_told_apart(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, KEYS), tmp_path) as gateway,
    ):
        for headers in (ALICE, {**ALICE, "x-bursar-user": "ann"}):
            answer = gateway.chat(headers, model="m", max_tokens=5, user="ann")
            assert (answer.status, "user" in gateway.decision(answer, ALICE)) == (200, False)
        assert json.loads(upstream.requests[0].raw)["user"] == "ann", "it goes on to the provider"
        assert "x-bursar-user" not in upstream.requests[1].headers
        with closing(sqlite3.connect(gateway.data_dir / "ledger.sqlite")) as db:
            assert not db.execute("SELECT name FROM scopes WHERE name LIKE 'user:%'").fetchall()


def test_what_is_kept_of_a_user_is_a_hash(tmp_path: Path) -> None:
    name = "ann.smith@example.org"
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        answer = gateway.chat({**ALICE, "x-bursar-user": name}, model="m", max_tokens=5)
        told = gateway.chat({**ALICE, "x-bursar-user": name}, model="m", max_tokens=5)
        for said in (answer, told):
            record = gateway.decision(said, ALICE)
            assert (record["user"], name in json.dumps(record)) == (hash_of(gateway, name), False)
        of_user = {cap["name"] for cap in gateway.decision(told, ALICE)["caps"] if cap["scope"] == "user"}
        assert {scope.split(":")[2] for scope in of_user} == {hash_of(gateway, name)}
        assert name not in gateway.metrics()
        assert "ann" not in told.body.decode()
    kept = [file for file in gateway.data_dir.rglob("*") if file.is_file()]
    assert kept
    assert not [file for file in kept if name.encode() in file.read_bytes()]


def test_many_users_make_no_more_series(tmp_path: Path) -> None:
    def series() -> int:
        return sum(not line.startswith("#") for line in gateway.metrics().splitlines())

    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        for _ in range(2):
            gateway.chat(ALICE, model="m", max_tokens=5, user="ann")
        before = series()
        for number in range(30):
            for _ in range(2):
                gateway.chat(ALICE, model="m", max_tokens=5, user=f"user {number}")
        assert series() == before


def test_an_edited_policy_binds_users_from_the_next_call_on(tmp_path: Path) -> None:
    def edited(caps: str, true: bool) -> None:
        gateway.edit_policy(policy(upstream, f"{caps}\n{KEYS}"))
        gateway.until(lambda: services_of(gateway).view.counts_users == true)

    def asked() -> int:
        return gateway.chat(ALICE, model="m", max_tokens=5, user="ann").status

    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, KEYS), tmp_path) as gateway,
    ):
        assert [asked() for _ in range(2)] == [200, 200]
        edited(OF_DAY, True)
        assert [asked() for _ in range(2)] == [200, 402], "from now on; what was before is not known"
        edited("caps: {}", False)
        assert asked() == 200
        edited(OF_DAY.replace("0.005", "0.010"), True)
        assert [asked() for _ in range(2)] == [200, 402], "what it had spent is remembered"


def test_a_cached_reply_is_a_call_of_its_user(tmp_path: Path) -> None:
    more = f"caps: {{user: {{require: true}}}}\ncache: {{ttl_secs: 600}}\n{KEYS}"
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, more), tmp_path) as gateway,
    ):

        def found(answer: Answer) -> bool:
            return bool(gateway.decision(answer, ALICE)["user"] == hash_of(gateway, "ann"))

        def asked(headers: Mapping[str, str]) -> Answer:
            return gateway.chat({**ALICE, **headers}, model="m", messages=SAY, max_tokens=5)

        asked({"x-bursar-user": "ann"})
        gateway.until(lambda: "x-bursar-cache" in (answer := asked({"x-bursar-user": "ann"})).headers and found(answer))
        sent = len(upstream.requests)
        other = asked({"x-bursar-user": "eve"})
        assert ("x-bursar-cache" in other.headers, len(upstream.requests)) == (False, sent + 1), "no reply is another's"


def test_while_the_salt_is_not_known_nobody_named_may_spend(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        services = services_of(gateway)
        salt, services.salt = services.salt, None
        refused = gateway.chat(ALICE, model="m", max_tokens=5, user="ann")
        assert (refused.status, len(upstream.requests)) == (503, 0)
        assert gateway.chat(ALICE, model="m", max_tokens=5).status == 200
        services.salt = salt
        assert gateway.chat(ALICE, model="m", max_tokens=5, user="ann").status == 200


def test_a_name_in_the_header_is_the_one_in_a_body(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        assert gateway.chat(ALICE, model="m", max_tokens=5, user="Zoë").status == 200
        for value in ("Zoë".encode(), "Zoë".encode("latin-1")):
            again = gateway.chat({**ALICE, "x-bursar-user": value.decode("latin-1")}, model="m", max_tokens=5)
            denied(again, "user_day", "0.005")


def asked_with(gateway: LiveGateway, *users: str) -> int:
    """The status of a call with these headers X-Bursar-User, each as it is."""
    body = json.dumps({"model": "m", "messages": SAY, "max_tokens": 5}).encode()
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in (("content-length", str(len(body))), *ALICE.items(), *(("x-bursar-user", u) for u in users)):
        connection.putheader(name, value)
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_white_space_makes_no_other_user(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        assert [asked_with(gateway, name) for name in ("ann", "ann ", "  ann\t", "ann \t ")] == [200, 402, 402, 402]
        assert len(upstream.requests) == 1


def test_two_users_are_none(tmp_path: Path) -> None:
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path) as gateway,
    ):
        assert asked_with(gateway, "ann", "eve") == 400
        assert not upstream.requests
        assert [asked_with(gateway, "ann", "ann ") for _ in range(2)] == [200, 402], "a proxy that says it again"
        assert asked_with(gateway, "eve") == 200


def shown(gateway: LiveGateway, headers: Mapping[str, str], query: str = "") -> dict[str, dict[str, Any]]:
    answer = gateway.ask("GET", f"/v1/budgets{query}", headers=headers)
    assert answer.status == 200
    return {row["scope"]: row for row in answer.json["data"] if row["scope"].startswith("user_")}


def test_what_a_user_may_still_spend(tmp_path: Path) -> None:
    boss = {"authorization": "Bearer sk-boss"}
    keys = KEYS.replace("keys: [", f"keys: [{{name: boss, sha256: {sha256('sk-boss')}, admin: true}}, ")
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"caps: {{user: {{day: {{max_cost_usd: 0.020}}}}}}\n{keys}"), tmp_path) as gateway,
    ):
        assert gateway.chat(ALICE, model="m", max_tokens=5, user="ann").status == 200
        by_query, by_header = shown(gateway, ALICE, "?user=ann"), shown(gateway, {**ALICE, "x-bursar-user": "ann"})
        assert by_query == by_header
        assert list(by_query) == ["user_day", "user_month", "user_total"]
        day = by_query["user_day"]
        assert (day["name"], day["spent_usd"], day["limit_usd"], day["remaining_usd"]) == ("ann", 0.005, 0.02, 0.015)
        assert (day["resets_at"] is None, by_query["user_total"]["limit_usd"]) == (False, None)
        unused = shown(gateway, ALICE, "?user=eve")
        assert {scope: row["spent_usd"] for scope, row in unused.items()} == {"user_day": 0}
        assert shown(gateway, boss, "?key=alice&user=ann") == by_query
        assert shown(gateway, BOB, "?user=ann")["user_day"]["spent_usd"] == 0, "its own ann"
        assert shown(gateway, ALICE) == {}
        refused = gateway.ask("GET", "/v1/budgets?key=alice&user=ann", headers=BOB)
        assert refused.status == 404
        gateway.edit_policy(policy(upstream, keys))
        gateway.until(lambda: not services_of(gateway).view.counts_users)
        assert shown(gateway, ALICE, "?user=ann") == {}


@pytest.mark.parametrize("on_redis", [False, True])
def test_the_command_shows_what_a_user_spent(tmp_path: Path, on_redis: bool) -> None:
    server, namespace = shared_server(), f"users-{time.time_ns()}"
    settings = {"redis_url": server.url, "redis_namespace": namespace} if on_redis else {}
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{OF_DAY}\n{KEYS}"), tmp_path, **settings) as gateway,
    ):
        for headers in (ALICE, BOB):
            assert gateway.chat(headers, model="m", max_tokens=5, user="ann").status == 200
        found = {"BURSAR_REDIS_URL": server.url, "BURSAR_REDIS_NAMESPACE": namespace} if on_redis else {}
        env = environment(BURSAR_DATA_DIR=str(gateway.data_dir), NO_COLOR="1", **found)

        def spend(*options: str) -> Any:
            return CliRunner().invoke(cli, ["spend", *options], env=env)

        both = json.loads(spend("--user", "ann", "--json").stdout)
        assert {one["key"]: one["windows"]["day"]["spent_usd"] for one in both} == {"alice": 0.005, "bob": 0.005}
        (one,) = json.loads(spend("--user", "ann", "--key", "bob", "--json").stdout)
        assert (one["user"], one["key"], one["windows"]["day"]["limit_usd"]) == ("ann", "bob", 0.005)
        assert "User ann of alice" in spend("--user", "ann").stdout
        nobody = spend("--user", "eve")
        assert (nobody.exit_code, "nothing is on record for the user 'eve'" in nobody.stderr) == (1, True)
        assert [spend("--user", "ann", other, "x").exit_code for other in ("--task", "--team")] == [2, 2]


def test_without_a_salt_the_command_makes_none(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(policy(upstream, KEYS), tmp_path) as gateway:
        pass
    (gateway.data_dir / "snapshots.sqlite").unlink()
    done = CliRunner().invoke(cli, ["spend", "--user", "ann"], env=environment(BURSAR_DATA_DIR=str(gateway.data_dir)))
    assert (done.exit_code, (gateway.data_dir / "snapshots.sqlite").exists()) == (1, False)
