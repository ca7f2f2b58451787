"""People are told by a webhook of a budget that is nearly spent, and of a task that was cut: once, by one process."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog

import app.main
from app.core import budget
from app.core.budget import Balance, Reserve, Settle
from app.core.notices import Due, of_task
from app.core.windows import moment_of
from app.gateway.limits import MODEL_PART
from app.gateway.notices import BEGUN, CUTS_AT_ONCE, LINES, Notices, message
from app.stores import replays_redis, replays_sqlite
from app.stores.opening import make_replays
from app.stores.replays import Claim, Kept, ReplaysUnavailable, SharedReplays
from tests.http.live import LiveGateway, sha256
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

ALICE = {"x-api-key": "sk-alice"}


class Receiver:
    """A webhook: what was posted, and how it answers."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.posts.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/s3cret"

    def texts(self) -> list[str]:
        return [line for post in self.posts for line in post["text"].split("\n")]


class Idle(Notices):
    async def keep(self, *, every_s: float = 0.0) -> None:
        await self._store.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def policy(upstream: ScriptedUpstream, receiver: Receiver, *, day_usd: float = 100.0, more: str = "") -> str:
    return f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{small: {{provider: a, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
caps: {{key: {{day: {{max_cost_usd: {day_usd}}}}}}}
notices: {{webhook: "{receiver.url}"{more}}}
keys: [{{name: alice, sha256: {sha256("sk-alice")}}}]
"""


@pytest.fixture(params=["sqlite", "redis"])
def gateway(
    request: pytest.FixtureRequest,
    upstream: ScriptedUpstream,
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LiveGateway]:
    """One that does not look by itself."""
    monkeypatch.setattr(app.main, "Notices", Idle)
    upstream.source = Script.of(words("one two three four five"))
    env = {"redis_url": shared_server().url, "redis_namespace": tmp_path.name} if request.param == "redis" else {}
    with LiveGateway(policy(upstream, receiver), tmp_path, **env) as live:
        yield live


def edit(gateway: LiveGateway, text: str) -> None:
    before = gateway.gateway.policies.current.version
    gateway.edit_policy(text)
    gateway.until(lambda: gateway.gateway.policies.current.version != before)


def notices(gateway: LiveGateway) -> Notices:
    """Those of another process under the same ledger."""
    assert gateway.gateway.services is not None
    return Notices(gateway.gateway.services, store(gateway))


def store(gateway: LiveGateway) -> SharedReplays:
    return make_replays(gateway.gateway.settings, "notices")


async def look(giving: Notices) -> None:
    rules = giving._services.view.policy.notices
    assert rules is not None
    await giving.look(rules, moment_of(dt.datetime.now(dt.UTC)))
    await giving._store.close()


def test_a_budget_is_told_once_by_one_of_several_processes(
    gateway: LiveGateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    gateway.run(look(notices(gateway)))
    assert receiver.posts == []
    edit(gateway, policy(upstream, receiver, day_usd=cost / 0.9))
    gateway.run(look(notices(gateway)))
    gateway.run(look(notices(gateway)))
    (post,) = receiver.posts
    assert post["text"] == post["content"]
    assert post["text"].startswith("Key alice has spent 90% of its budget of this day: $")
    (notice,) = post["notices"]
    assert (notice["scope"], notice["owner"], notice["spent_usd"]) == ("key_day", "alice", cost)
    edit(gateway, policy(upstream, receiver, day_usd=cost / 0.95))
    gateway.run(look(notices(gateway)))
    assert len(receiver.posts) == 2


def test_a_receiver_in_trouble_is_let_alone_for_a_while_by_all_processes(
    gateway: LiveGateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    edit(gateway, policy(upstream, receiver, day_usd=cost / 0.9))
    receiver.status = 429
    for _ in range(3):
        gateway.run(look(notices(gateway)))
    assert len(receiver.posts) == 1


def test_what_could_not_be_posted_is_posted_later(
    gateway: LiveGateway, upstream: ScriptedUpstream, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    edit(gateway, policy(upstream, receiver, day_usd=cost / 0.9))
    receiver.status = 500
    with structlog.testing.capture_logs() as logged, monkeypatch.context() as soon:
        for kind in (replays_redis, replays_sqlite):
            soon.setattr(kind, "LEASE_S", 0.05)
        gateway.run(look(notices(gateway)))
    assert [entry["reason"] for entry in logged if "reason" in entry] == ["the webhook answered 500"]
    assert "s3cret" not in str(logged)
    receiver.status = 204

    def posted() -> bool:
        gateway.run(look(notices(gateway)))
        return len(receiver.posts) == 2

    gateway.until(posted)
    assert posted()
    page = gateway.metrics()
    assert 'bursar_notices_total{result="failed"} 1.0' in page
    assert 'bursar_notices_total{result="posted"} 1.0' in page


def test_a_task_that_was_cut_is_told_but_not_one_of_before(gateway: LiveGateway, receiver: Receiver) -> None:
    def used_up(task: str) -> None:
        headers = {**ALICE, "X-Bursar-Task-Id": task, "X-Bursar-Task-Max-Cost-Usd": "0.003"}
        assert gateway.chat(headers, stream=True).status == 200

    used_up("old")
    gateway.run(look(notices(gateway)))
    assert receiver.posts == []
    used_up("new")
    gateway.run(look(notices(gateway)))
    gateway.run(look(notices(gateway)))
    assert [post["notices"][0]["task_id"] for post in receiver.posts] == ["new"]
    assert receiver.texts()[0].startswith("Task new of key alice was cut at its cap: $0.0")


def test_what_was_cut_while_notices_were_off_is_not_told(
    gateway: LiveGateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has looked for a while: a look is remembered for a thousandth of a second here. A process that has looked
    itself meanwhile knows better."""

    def used_up(task: str) -> None:
        headers = {**ALICE, "X-Bursar-Task-Id": task, "X-Bursar-Task-Max-Cost-Usd": "0.003"}
        assert gateway.chat(headers, stream=True).status == 200

    async def looks(giving: Notices) -> None:
        rules = giving._services.view.policy.notices
        assert rules is not None
        with monkeypatch.context() as soon:
            soon.setattr(giving._store, "keep", partial(kept_shortly, giving._store.keep))
            await giving.look(rules, moment_of(dt.datetime.now(dt.UTC)))

    def kept_shortly(keep: Callable[..., None], name: str, kept: Kept | None, keep_s: float) -> None:
        keep(name, kept, 0.001 if name == BEGUN else keep_s)

    before, after = notices(gateway), notices(gateway)
    gateway.run(looks(before))
    used_up("while on")
    gateway.run(looks(before))
    used_up("while off")
    gateway.run(looks(after))
    used_up("on again")
    gateway.run(looks(after))
    for giving in (before, after):
        gateway.run(giving._store.close())
    told = [notice["task_id"] for post in receiver.posts for notice in post["notices"]]
    assert told == ["while on", "on again"]


def test_every_cut_task_is_told_however_many_there_are(gateway: LiveGateway, receiver: Receiver) -> None:
    """None is lost behind the tasks that were used since, and a model's part of a task is none."""

    async def used_up(name: str, cut: bool) -> None:
        budgets = gateway.gateway.services.ledger.budgets  # type: ignore[union-attr]
        claims = budget.Claim(f"task:alice:{name}", 10), budget.Claim(f"task:alice:{name}{MODEL_PART}small", 10)
        op = Reserve(name, budgets.owner, claims, 1, 1, 0)
        await budgets.apply(op)
        await budgets.apply(Settle(name, 1, tuple(claim.scope for claim in claims) if cut else ()))

    async def many() -> None:
        await used_up("first", cut=True)
        await asyncio.gather(*(used_up(f"fine {number}", cut=False) for number in range(CUTS_AT_ONCE)))
        await asyncio.gather(*(used_up(f"cut {number}", cut=True) for number in range(CUTS_AT_ONCE)))

    async def left() -> int:
        return len(await gateway.gateway.services.ledger.budgets.cuts(1))  # type: ignore[union-attr]

    gateway.run(look(notices(gateway)))
    gateway.run(many())
    for _ in range(10):
        if gateway.run(left()):
            gateway.run(look(notices(gateway)))
    told = [notice["task_id"] for post in receiver.posts for notice in post["notices"]]
    assert len(told) == len(set(told)) == CUTS_AT_ONCE + 1
    assert set(told) == {"first", *(f"cut {number}" for number in range(CUTS_AT_ONCE))}
    assert gateway.run(left()) == 0


def test_a_cap_that_was_raised_before_anybody_looked_is_not_told(gateway: LiveGateway, receiver: Receiver) -> None:
    gateway.run(look(notices(gateway)))
    headers = {**ALICE, "X-Bursar-Task-Id": "t", "X-Bursar-Task-Max-Cost-Usd": "0.003"}
    assert gateway.chat(headers, stream=True).status == 200
    raised = gateway.chat({**headers, "X-Bursar-Task-Max-Cost-Usd": "1"}, stream=True)
    assert raised.status == 200
    gateway.run(look(notices(gateway)))
    assert receiver.posts == []


def test_at_the_first_look_of_several_processes_no_task_of_before_is_told(
    gateway: LiveGateway, receiver: Receiver
) -> None:
    headers = {**ALICE, "X-Bursar-Task-Id": "old", "X-Bursar-Task-Max-Cost-Usd": "0.003"}
    assert gateway.chat(headers, stream=True).status == 200

    async def both() -> None:
        first, second = notices(gateway), notices(gateway)
        claim = first._store.claim

        async def while_second_looks(name: str, fingerprint: bytes) -> Claim | Kept:
            found = await claim(name, fingerprint)
            if name == BEGUN:
                await look(second)
            return found

        first._store.claim = while_second_looks  # type: ignore[method-assign]
        await look(first)
        await look(notices(gateway))

    gateway.run(both())
    assert receiver.posts == []


def test_a_webhook_that_is_not_there_is_told_in_the_log_without_its_address(
    gateway: LiveGateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    receiver.url = "http://127.0.0.1:1/hook/s3cret"
    edit(gateway, policy(upstream, receiver, day_usd=cost / 0.9))
    with structlog.testing.capture_logs() as logged:
        gateway.run(look(notices(gateway)))
    assert [entry["reason"] for entry in logged if "reason" in entry] == ["ClientConnectorError"]
    assert "s3cret" not in str(logged)


def test_it_goes_on_after_trouble(
    gateway: LiveGateway, upstream: ScriptedUpstream, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
    edit(gateway, policy(upstream, receiver, day_usd=cost / 0.9, more=", tasks: false"))
    giving, tries = notices(gateway), 0
    claim = giving._store.claim

    async def once_down(name: str, fingerprint: bytes) -> Claim | Kept:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ReplaysUnavailable("not now")
        return await claim(name, fingerprint)

    async def until_posted() -> None:
        posted = asyncio.Event()

        async def post(_url: str, _body: bytes) -> None:
            posted.set()

        monkeypatch.setattr(giving, "_post", post)
        monkeypatch.setattr(giving._store, "claim", once_down)
        keeping = asyncio.ensure_future(giving.keep(every_s=0.001))
        await posted.wait()
        keeping.cancel()

    gateway.run(until_posted())
    assert tries == 2


def test_a_gateway_looks_by_itself(upstream: ScriptedUpstream, receiver: Receiver, tmp_path: Path) -> None:
    upstream.source = Script.of(words("one two three four five"))
    with LiveGateway(policy(upstream, receiver), tmp_path) as gateway:
        cost = gateway.decision(gateway.chat(ALICE), ALICE)["cost_usd"]
        assert receiver.posts == []
    with LiveGateway(policy(upstream, receiver, day_usd=cost / 0.9), tmp_path) as gateway:
        gateway.until(lambda: receiver.posts)


def test_a_crowd_is_one_message() -> None:
    cut = Balance(spent_nano=5, limit_nano=5, killed_at_nano=5, killed_limit_nano=5)
    due = [found for found in (of_task("k", f"t{at}", cut) for at in range(LINES + 7)) if isinstance(found, Due)]
    said = json.loads(message(due))
    assert len(said["notices"]) == LINES + 7
    assert said["text"].split("\n")[LINES:] == ["And 7 more."]


def test_words_are_no_longer_than_a_message_may_be() -> None:
    cut = Balance(spent_nano=5, limit_nano=5, killed_at_nano=5, killed_limit_nano=5)
    due = [found for found in (of_task("k", f"{at:0200}", cut) for at in range(LINES)) if isinstance(found, Due)]
    said = json.loads(message(due))
    assert len(said["content"]) <= 2_000
    lines = said["text"].split("\n")
    assert lines[-1] == f"And {LINES - len(lines) + 1} more."
    assert len(said["notices"]) == LINES
