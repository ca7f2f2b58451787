"""The policy on the dashboard: secrets stay hidden, drafts are checked, edits need the operator's leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import Answer, LiveGateway, contract
from tests.upstream import ScriptedUpstream

SECRET = "written-into-the-file"


@pytest.fixture
def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    text = contract(upstream).replace("${A_KEY:-none}", SECRET)
    with LiveGateway(text, tmp_path, policy_edit=True) as live:
        yield live


def shown(gateway: LiveGateway) -> dict[str, Any]:
    found: dict[str, Any] = gateway.ask("GET", "/dashboard/api/policy").json
    return found


def draft(gateway: LiveGateway, edit: tuple[str, str], *, write: bool = False, **more: str) -> Answer:
    found = shown(gateway)
    (file,) = found["files"]
    assert edit[0] in file["text"]
    body = {"text": file["text"].replace(*edit), "file": file["file"], "base": found["version"], **more}
    return gateway.ask(*(("PUT", "/dashboard/api/policy") if write else ("POST", "/dashboard/api/policy/check")), body)


def test_what_is_in_force_without_its_secrets(gateway: LiveGateway) -> None:
    found = shown(gateway)
    assert found["version"] == gateway.gateway.policies.current.version
    assert SECRET not in str(found)
    assert "(kept secret 1)" in found["files"][0]["text"]
    assert [entry["version"] for entry in found["history"]] == [found["version"]]
    assert (found["editable"], found["problems"]) == (True, [])


def test_a_draft_is_checked_and_nothing_changes(gateway: LiveGateway) -> None:
    answer = draft(gateway, ("tier: 4", "tier: 5")).json
    assert (answer["good"], answer["changes"]) == (True, ["model large: tier 4 -> 5"])
    answer = draft(gateway, ("tier: 4", "tier: nine")).json
    assert (answer["good"], [p["line"] for p in answer["problems"]]) == (False, [8])
    assert answer["problems"][0]["message"] == "must be a whole number"
    assert gateway.gateway.policies.current.models["large"].tier == 4


def test_an_edit_is_written_whole_and_in_force(gateway: LiveGateway) -> None:
    os.chmod(gateway.policy_path, 0o640)
    old = shown(gateway)["version"]
    answer = draft(gateway, ("tier: 4", "tier: 5"), write=True)
    assert answer.status == 200
    assert gateway.gateway.policies.current.models["large"].tier == 5
    assert gateway.gateway.policies.current.version == answer.json["version"] != old
    written = gateway.policy_path.read_text()
    assert SECRET in written
    assert "kept secret" not in written
    assert gateway.policy_path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in gateway.policy_path.parent.iterdir() if file.suffix == ".tmp"] == []
    assert shown(gateway)["history"][0]["changes"] == ["model large: tier 4 -> 5"]
    assert gateway.chat(model="large").status == 200


def test_a_bad_edit_writes_nothing(gateway: LiveGateway) -> None:
    before = gateway.policy_path.read_bytes()
    answer = draft(gateway, ("tier: 4", "tier: 99"), write=True)
    assert answer.status == 400
    assert "The draft was not written: " in answer.error["message"]
    assert gateway.policy_path.read_bytes() == before


def test_an_edit_of_another_version_writes_nothing(gateway: LiveGateway) -> None:
    answer = draft(gateway, ("tier: 4", "tier: 5"), write=True, base="0123456789ab")
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    gateway.edit_policy(gateway.policy_path.read_text().replace("tier: 4", "tier: nine"))
    gateway.until(lambda: shown(gateway)["problems"])
    found = shown(gateway)
    assert found["problems"][0]["line"] == 8
    answer = draft(gateway, ("tier: 4", "tier: 5"), write=True)
    assert answer.status == 409
    assert "tier: nine" in gateway.policy_path.read_text(), "the edit on disk was overwritten"


def test_a_file_that_cannot_be_written(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.stores import policies

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(policies, "replace_file", refuse)
    answer = draft(gateway, ("tier: 4", "tier: 5"), write=True)
    assert (answer.status, answer.error["message"]) == (409, "The file cannot be written: Permission denied.")


def test_without_leave_nothing_is_written(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(contract(upstream), tmp_path) as gateway:
        assert shown(gateway)["editable"] is False
        before = gateway.policy_path.read_bytes()
        answer = draft(gateway, ("tier: 4", "tier: 5"), write=True)
        assert (answer.status, "BURSAR_POLICY_EDIT=1" in answer.error["message"]) == (403, True)
        assert gateway.policy_path.read_bytes() == before


def test_a_check_is_no_way_to_read_secrets(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "value-of-the-environment")
    monkeypatch.setitem(gateway.gateway.policies._env, "SOME_SECRET", "value-of-the-environment")
    for tried in ("http://${SOME_SECRET}/v1", "http://(kept secret 1)/v1"):
        url = shown(gateway)["files"][0]["text"].split('base_url: "')[1].split('"')[0]
        answer = draft(gateway, (url, tried))
        assert answer.status == 200
        assert SECRET not in answer.body.decode()
        assert "value-of-the-environment" not in answer.body.decode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ({"text": "x"}, 400),
        ({"text": "x", "file": "/etc/passwd"}, 400),
        (b'{"text": "' + b"x" * 2**20 + b'"', 413),
    ],
)
def test_drafts_that_are_none(gateway: LiveGateway, body: object, status: int) -> None:
    assert gateway.ask("POST", "/dashboard/api/policy/check", body).status == status
    assert gateway.ask("PUT", "/dashboard/api/policy", body).status == status


def test_a_draft_is_replayed_by_the_command_for_it(gateway: LiveGateway) -> None:
    """With nothing on record it says so."""
    found = shown(gateway)["files"][0]
    body = {"text": found["text"].replace("adequacy: 0.8", "adequacy: 0.5"), "file": found["file"]}
    answer = gateway.ask("POST", "/dashboard/api/policy/replay", body)
    assert answer.status == 200
    assert (answer.json["object"], answer.json["all"]["decisions"]) == ("replay", 0)
    assert answer.json["all"]["cost_usd"]["refusal"]
    wrong = {**body, "text": "version: nine"}
    assert gateway.ask("POST", "/dashboard/api/policy/replay", wrong).status == 400
