"""Keys that an admin makes and deletes over HTTP: in a file of the policy, in force at once, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import BadRequest
from app.core.policy import Policy
from app.http.keys import new_key_of
from app.stores.policies import Policies, StaleEdit
from app.stores.policy_keys import FILE, NotOurs, keys_in, text_of, with_key, without_key
from app.stores.prices import Catalogue, PriceBook
from tests.http.live import Answer, LiveGateway, contract, sha256
from tests.upstream import ScriptedUpstream

BOSS, CLERK = ({"authorization": f"Bearer sk-{name}"} for name in ("boss", "clerk"))
BY_HAND = f"""
keys:
  - {{name: boss, sha256: {sha256("sk-boss")}, admin: true}}
  - {{name: clerk, sha256: {sha256("sk-clerk")}}}
teams: {{lab: {{caps: {{month: {{max_cost_usd: 5}}}}}}}}
"""


class ByFolder(LiveGateway):
    """All files of the folder are its policy."""

    def _policy(self) -> Path:
        return self.policy_path.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_text("")
    return tmp_path


@pytest.fixture
def gateway(upstream: ScriptedUpstream, folder: Path) -> Iterator[LiveGateway]:
    text = contract(upstream).replace("keys: [] ", "#")
    with ByFolder(text + BY_HAND, folder, policy_edit=True) as live:
        yield live


def make(gateway: LiveGateway, headers: dict[str, str] | None = BOSS, /, **body: Any) -> Answer:
    return gateway.ask("POST", "/v1/keys", body, headers)


def test_a_key_is_made_used_shown_and_deleted(gateway: LiveGateway, folder: Path) -> None:
    caps = {"day": {"max_cost_usd": 2}, "max_parallel_requests": 3}
    made = make(gateway, name="ann", team="lab", routes=["auto"], caps=caps, expires="2999-12-31")
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    secret = made.json["key"]
    told = {name: value for name, value in made.json.items() if name != "key"}
    assert told == {
        "object": "key", "name": "ann", "team": "lab", "routes": ["auto"], "admin": False, "judges": False,
        "probes": False, "expires": "2999-12-31T00:00:00+00:00", "over_http": True,
    }  # fmt: skip
    ann = {"authorization": f"Bearer {secret}"}
    assert gateway.chat(ann, model="auto").status == 200
    assert gateway.chat(ann, model="large").status == 403
    budgets = {row["scope"]: row for row in gateway.ask("GET", "/v1/budgets", headers=ann).json["data"]}
    assert budgets["key_day"]["limit_usd"] == 2.0
    assert budgets["key_total"]["max_parallel_requests"] == 3
    written = (folder / FILE).read_text()
    assert secret not in written
    assert sha256(secret) in written
    listed = gateway.ask("GET", "/v1/keys", headers=BOSS).json["data"]
    assert [(key["name"], key["over_http"]) for key in listed] == [("ann", True), ("boss", False), ("clerk", False)]
    assert not any("sha256" in key or "key" in key for key in listed)
    gone = gateway.ask("DELETE", "/v1/keys/ann", headers=BOSS)
    assert (gone.status, gone.json["deleted"]) == (200, True)
    assert gateway.chat(ann, model="auto").status == 401
    assert keys_in((folder / FILE).read_bytes()) == []


def test_only_an_admin_may(gateway: LiveGateway) -> None:
    assert make(gateway, CLERK, name="ann").status == 403
    assert make(gateway, None, name="ann").status == 401
    assert gateway.ask("GET", "/v1/keys", headers=CLERK).status == 403
    assert gateway.ask("DELETE", "/v1/keys/clerk", headers=CLERK).status == 403


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "name"), ({"name": "boss"}, 409, "name"), ({"name": "a b"}, 400, "name"),
        ({"name": "x", "admin": True}, 400, "admin"), ({"name": "x", "team": "none"}, 400, "team"),
        ({"name": "x", "routes": ["nowhere"]}, 400, "routes.0"),
        ({"name": "x", "caps": {"week": {}}}, 400, "caps.week"),
        ({"name": "x", "user_caps": {"day": {"max_cost_usd": "much"}}}, 400, "user_caps.day.max_cost_usd"),
        ({"name": "x", "caps": {"day": {"max_cost_usd": -1}}}, 400, "caps.day.max_cost_usd"),
        ({"name": "x", "expires": "soon"}, 400, "expires"), ({"name": "${HOME}"}, 400, None),
    ],
)  # fmt: skip
def test_what_the_policy_would_not_take_is_named(
    gateway: LiveGateway, folder: Path, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = make(gateway, **body)
    assert (answer.status, answer.error["param"]) == (status, param)
    assert (folder / FILE).read_text() == ""
    assert gateway.chat(CLERK, model="auto").status == 200


@pytest.mark.parametrize(
    "body",
    [
        rb'{"name": "\u0024{HOME}"}',
        rb'{"name": "x", "team": "$\u007bHOME}"}',
        rb'{"name": "x", "routes": ["\u0024\u007bHOME}"]}',
        rb'{"name": "x", "caps": {"day": {"\u0024{HOME}": 1}}}',
    ],
)
def test_no_spelling_brings_the_gateways_environment_into_the_policy(body: bytes) -> None:
    with pytest.raises(BadRequest, match="VARIABLES"):
        new_key_of(body)


def test_a_key_that_stands_elsewhere_or_nowhere_is_not_deleted(gateway: LiveGateway) -> None:
    assert gateway.ask("DELETE", "/v1/keys/clerk", headers=BOSS).status == 409
    assert gateway.ask("DELETE", "/v1/keys/nobody", headers=BOSS).status == 404
    wrong = gateway.ask("PUT", "/v1/keys/clerk", {}, BOSS)
    assert (wrong.status, wrong.headers["allow"]) == (405, "DELETE, OPTIONS")


def test_an_admins_key_is_ended_by_hand(upstream: ScriptedUpstream, folder: Path) -> None:
    """Else the last one would leave the gateway open to everybody on its machine."""
    (folder / FILE).write_text(f"keys: [{{name: boss, sha256: {sha256('sk-boss')}, admin: true}}]")
    with ByFolder(contract(upstream).replace("keys: [] ", "#"), folder, policy_edit=True) as live:
        answer = live.ask("DELETE", "/v1/keys/boss", headers=BOSS)
        assert (answer.status, "by hand" in answer.error["message"]) == (409, True)
        assert live.chat(model="auto").status == 401


def test_what_was_written_by_hand_meanwhile_is_kept(gateway: LiveGateway, folder: Path) -> None:
    assert make(gateway, name="ann").status == 201
    by_hand = (folder / FILE).read_text() + f"  - {{name: bob, sha256: {sha256('sk-bob')}, expires: 2999-01-01}}\n"
    (folder / FILE).write_text(by_hand)
    assert make(gateway, name="cat").status == 201
    assert [key["name"] for key in keys_in((folder / FILE).read_bytes())] == ["ann", "bob", "cat"]
    assert gateway.chat({"authorization": "Bearer sk-bob"}, model="auto").status == 200
    (folder / "policy.yaml").write_text("version: two")
    stale = make(gateway, name="dan")
    assert (stale.status, stale.error["code"]) == (409, "conflict")


def test_a_file_with_more_than_keys_is_left_alone(gateway: LiveGateway, folder: Path) -> None:
    (folder / FILE).write_text("aliases: {gpt-4: auto}\n")
    assert make(gateway, name="ann").status == 409
    assert (folder / FILE).read_text() == "aliases: {gpt-4: auto}\n"


@pytest.mark.parametrize("why", ["not allowed", "no such file", "no keys"])
def test_without_the_operators_leave_none_is_made(upstream: ScriptedUpstream, folder: Path, why: str) -> None:
    text = contract(upstream)
    text = text if why == "no keys" else text.replace("keys: [] ", "#") + BY_HAND
    if why == "no such file":
        (folder / FILE).unlink()
    with ByFolder(text, folder, policy_edit=why != "not allowed") as live:
        answer = make(live, None if why == "no keys" else BOSS, name="ann")
        assert answer.status == (409 if why == "no keys" else 403)
        assert "key" not in answer.json


def test_many_at_once_over_two_processes_are_all_there(upstream: ScriptedUpstream, folder: Path) -> None:
    """Two gateways that share a folder, as two workers do."""
    text = contract(upstream).replace("keys: [] ", "#") + BY_HAND
    with (
        ByFolder(text, folder, policy_edit=True) as one,
        ByFolder(text, folder, policy_edit=True) as two,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda n: make((one, two)[n % 2], name=f"k{n}"), range(12)))
        assert {answer.status for answer in answers} == {201}
    assert {key["name"] for key in keys_in((folder / FILE).read_bytes())} == {f"k{n}" for n in range(12)}


async def test_an_edit_takes_up_what_another_process_has_written(folder: Path) -> None:
    """Of two that edit at the same time neither loses what the other wrote."""
    (folder / "policy.yaml").write_text("version: 1\nproviders: {p: {base_url: http://127.0.0.1:9/v1}}\n")
    one, two = (Policies(folder, PriceBook(catalogue=Catalogue(b"{}")), env={}) for _ in range(2))
    file = str(folder / FILE)

    def adding(name: str) -> Any:
        return lambda data: with_key(data, {"name": name, "sha256": sha256(name)})

    async def both(n: int) -> list[Policy]:
        return list(await asyncio.gather(one.edit(file, adding(f"a{n}")), two.edit(file, adding(f"b{n}"))))

    for n in range(4):
        await both(n)
    assert len(keys_in((folder / FILE).read_bytes())) == 8
    (folder / "policy.yaml").write_text("version: 3\n")
    with pytest.raises(StaleEdit):
        await one.edit(file, adding("late"))


async def test_an_operators_edit_revives_no_key_that_another_process_has_deleted(folder: Path) -> None:
    (folder / "policy.yaml").write_text("version: 1\nproviders: {p: {base_url: http://127.0.0.1:9/v1}}\n")
    (folder / FILE).write_bytes(before := with_key(b"", {"name": "a", "sha256": sha256("a")}))
    one, two = (Policies(folder, PriceBook(catalogue=Catalogue(b"{}")), env={}) for _ in range(2))
    file = str(folder / FILE)
    await one.edit(file, lambda data: without_key(data, "a") or b"")
    with pytest.raises(StaleEdit):
        await two.write(file, before + b"# a comment\n", two.current.version)
    assert keys_in((folder / FILE).read_bytes()) == []


def test_the_text_of_the_file() -> None:
    assert keys_in(b"") == keys_in(b"# nothing\n") == keys_in(text_of([])) == []
    one = with_key(b"", {"name": "a", "caps": {"day": {"max_cost_usd": 1.5}}, "routes": ["x"]})
    assert keys_in(one) == [{"name": "a", "caps": {"day": {"max_cost_usd": 1.5}}, "routes": ["x"]}]
    two = with_key(one, {"name": "gr\u00f6\u00dfe"})
    assert without_key(two, "nobody") is None
    assert without_key(two, "a") == text_of([{"name": "gr\u00f6\u00dfe"}])
    for wrong in (b"[]", b"keys: {}", b"keys: [1]", b"version: 1\nkeys: []", b"\xff", b"{"):
        with pytest.raises(NotOurs):
            keys_in(wrong)
