"""The dashboard over HTTP: files, headers, who may ask, what is asked."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.http.dashboard.assets import STATIC
from tests.http.live import LiveGateway, Streaming, contract, sha256
from tests.upstream import ScriptedUpstream
from tests.vendor import FOLDER, manifest

ALICE, BOSS = {"authorization": "Bearer alice"}, {"authorization": "Bearer boss"}
DATA = [
    "session",
    "live",
    "overview",
    "speed",
    "learning",
    "calls",
    "burn",
    "budgets",
    "policy",
    "record/req_" + "0" * 27,
]


KEYS = "keys:" + "".join(
    f'\n  - {{name: {name}, sha256: "{sha256(name)}"{more}}}'
    for name, more in (("alice", ""), ("boss", ", admin: true"))
)


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    policy = contract(shared_upstream).split("keys: []")[0] + KEYS
    with LiveGateway(policy, tmp_path_factory.mktemp("dashboard")) as live:
        yield live


def places(gateway: LiveGateway) -> list[str]:
    page = gateway.ask("GET", "/dashboard").body.decode()
    return re.findall(r'(?:src|href)="(/[^"]+)"', page)


def test_a_browser_at_the_front_door_is_shown_the_way(gateway: LiveGateway) -> None:
    there = gateway.ask("GET", "/", headers={"accept": "text/html,application/xhtml+xml;q=0.9"})
    assert (there.status, there.headers["location"]) == (307, "/dashboard")
    for accept in ("application/json", "*/*"):
        assert gateway.ask("GET", "/", headers={"accept": accept}).error["code"] == "not_found"


def test_the_page_and_all_it_needs(gateway: LiveGateway) -> None:
    page = gateway.ask("GET", "/dashboard")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    found = places(gateway)
    assert len(found) > 5
    for place in found:
        answer = gateway.ask("GET", place)
        assert answer.status == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    modules = [file.relative_to(STATIC).as_posix() for file in STATIC.rglob("*.js")]
    folder = found[0].rsplit("/", 1)[0]
    assert {gateway.ask("GET", f"{folder}/{module}").status for module in modules} == {200}


def test_what_has_not_changed_is_not_sent_again(gateway: LiveGateway) -> None:
    tag = gateway.ask("GET", "/dashboard").headers["etag"]
    again = gateway.ask("GET", "/dashboard", headers={"if-none-match": tag})
    assert (again.status, again.body) == (304, b"")
    squeezed = gateway.ask("GET", "/dashboard", headers={"accept-encoding": "gzip"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(squeezed.body) == gateway.ask("GET", "/dashboard").body


@pytest.mark.parametrize("path", ["/dashboard/assets/0000000000000000/js/app.js", "/dashboard/nothing"])
def test_other_files_are_not_there(gateway: LiveGateway, path: str) -> None:
    assert gateway.ask("GET", path).status == 404


@pytest.mark.parametrize(
    "path", ["..%2froutes.py", "%2e%2e/routes.py", "js/../../routes.py", "index.html", "vendor/manifest.json"]
)
def test_nothing_but_assets_is_served(gateway: LiveGateway, path: str) -> None:
    folder = places(gateway)[0].rsplit("/", 1)[0]
    assert gateway.ask("GET", f"{folder}/{path}").status == 404


def test_the_policy_of_the_content_is_strict(gateway: LiveGateway) -> None:
    for path, headers in (("/dashboard", {}), (places(gateway)[0], {}), ("/dashboard/api/session", BOSS)):
        answer = gateway.ask("GET", path, headers=headers)
        rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = gateway.ask("GET", "/dashboard").body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", page)


@pytest.mark.parametrize("what", DATA)
def test_data_is_for_admin_keys(gateway: LiveGateway, what: str) -> None:
    path = f"/dashboard/api/{what}"
    assert gateway.ask("GET", path).status == 401
    assert gateway.ask("GET", path, headers=ALICE).status == 403
    assert gateway.ask("GET", path, headers={**BOSS, "sec-fetch-site": "cross-site"}).status == 403


def test_an_open_gateway_answers_its_own_page_only(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path) as gateway:
        path = "/dashboard/api/session"
        assert gateway.ask("GET", path, headers={"sec-fetch-site": "same-origin"}).json["open"] is True
        assert gateway.ask("GET", path, headers={"origin": "http://evil.example"}).status == 403
        assert gateway.ask("GET", path, headers={"host": "evil.example"}).status == 403
        assert gateway.ask("GET", path, headers={"sec-fetch-site": "cross-site"}).status == 403


@pytest.mark.parametrize("query", ["since=x", "since=-5", "since=1e12", "from=nan", "since=inf"])
def test_times_that_are_none(gateway: LiveGateway, query: str) -> None:
    answer = gateway.ask("GET", f"/dashboard/api/overview?{query}", headers=BOSS)
    assert (answer.status, answer.error["param"]) == (400, "since")


@pytest.mark.parametrize("query", ["limit=0", "limit=1000", "limit=x", "text=" + "x" * 301])
def test_questions_that_are_too_large(gateway: LiveGateway, query: str) -> None:
    assert gateway.ask("GET", f"/dashboard/api/calls?{query}", headers=BOSS).status == 400


def test_a_question_about_nothing_has_an_answer(gateway: LiveGateway) -> None:
    overview = gateway.ask("GET", "/dashboard/api/overview?since=3600", headers=BOSS).json
    assert (overview["totals"]["calls"], overview["spend"]["key"]["series"], overview["outcomes"]) == (0, [], [])
    assert gateway.ask("GET", "/dashboard/api/calls", headers=BOSS).json == {"calls": []}


def test_text_in_a_question_is_text(gateway: LiveGateway) -> None:
    """It ends up in SQL, quoted."""
    call = gateway.chat({**ALICE, "x-bursar-task-id": "o'neil"})
    assert call.status == 200

    def found(query: str) -> list[str]:
        calls = gateway.ask("GET", f"/dashboard/api/calls?{query}", headers=BOSS).json["calls"]
        return [one["task_id"] for one in calls]

    gateway.until(lambda: found("task=o%27neil") == ["o'neil"], 30)
    assert found("text=%27%29%20OR%20true%20--") == []


def test_vendored_files_are_those_that_are_pinned() -> None:
    import hashlib

    for package in manifest():
        assert package["license"]
        assert any("LICENSE" in file["to"] for file in package["files"])
        for file in package["files"]:
            assert hashlib.sha256((FOLDER / file["to"]).read_bytes()).hexdigest() == file["sha256"]


def watched(gateway: LiveGateway) -> Streaming:
    """A stream of moments, the first of which has come."""
    stream = gateway.stream("GET", "/dashboard/api/live", headers=BOSS)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.response.readline() == b"event: moment\n"
    return stream


def test_a_key_that_is_taken_away_sees_no_more(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(contract(upstream).split("keys: []")[0] + KEYS, tmp_path) as gateway:
        stream = watched(gateway)
        gateway.edit_policy(gateway.policy_path.read_text().replace(", admin: true", ""))
        assert stream.rest().body.endswith(b"\n\n")  # it ends, after whole moments


def test_nor_does_one_that_expires(upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KEYS.replace("admin: true", "admin: true, expires: 2999-01-01")
    assert keys != KEYS
    with LiveGateway(contract(upstream).split("keys: []")[0] + keys, tmp_path) as gateway:
        stream = watched(gateway)
        monkeypatch.setattr("app.http.auth.time", SimpleNamespace(time=lambda: 1e11))
        assert stream.rest().body.endswith(b"\n\n")


def test_a_gateway_that_ends_ends_its_streams_of_moments(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(contract(upstream).split("keys: []")[0] + KEYS, tmp_path) as gateway:
        stream = watched(gateway)
    assert stream.rest().body.endswith(b"\n\n")
