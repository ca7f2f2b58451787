"""Exploring on live gateways: what a record says of its choice's probability is how often that choice is made, whatever
else happens to the call; and the day's budget is one for all who share a ledger. Router and beliefs are made up."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.gateway.target import HELD
from app.learner.replay_calls import recorded
from tests.gateway.test_explore import Unsure
from tests.gateway.test_tool_loops import LOOP, OPENING, TOOLS
from tests.http.live import LiveGateway
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, tool, words

SCORES = {"cheap": (0.9, 20.0), "mid": (0.95, 20.0), "dear": (0.99, 20.0)}
CALLS = 500
SLACK = 0.07
"""Three standard deviations of a share of so many calls; whose tasks have names that are drawn alike in each run."""
SAID = words("so many words")


@dataclass
class House:
    """Gateways on one ledger, and the providers of `mid` and of all others."""

    gateways: list[LiveGateway]
    others: ScriptedUpstream
    mid: ScriptedUpstream
    read: set[str] = field(default_factory=set)

    def new(self) -> list[dict[str, Any]]:
        """The records of the calls that ended since this was asked last."""
        found = []
        for gateway in self.gateways:
            for path in (gateway.data_dir / "traces").glob("*.jsonl"):
                whole, _, _ = path.read_text().rpartition("\n")  # of a line some may be written
                found += [json.loads(line) for line in whole.splitlines()]
        found = [one for one in found if one["request_id"] not in self.read]
        self.read.update(one["request_id"] for one in found)
        return found

    def calls(self, count: int, of: str = "") -> list[dict[str, Any]]:
        """So many calls, in turn; their records, and not those of calls before that are written late. `of`: how their
        tasks are named, so that each run draws the same."""
        ids = set()
        for number in range(count):
            gateway = self.gateways[number % len(self.gateways)]
            headers = {"x-bursar-task-id": f"{of}-{number}" if of else secrets.token_hex(8)}
            answer = gateway.chat(headers, model="auto")
            assert answer.status == 200
            ids.add(answer.headers["x-request-id"])
        records: list[dict[str, Any]] = []

        def all_here() -> bool:
            records.extend(record for record in self.new() if record["request_id"] in ids)
            return len(records) == count

        self.gateways[0].until(all_here)  # they are written a moment after their calls
        return records


def policy(others: ScriptedUpstream, mid: ScriptedUpstream, usd_per_day: float) -> str:
    return f"""
version: 1
providers: {{a: {{base_url: "{others.url}"}}, b: {{base_url: "{mid.url}"}}}}
models:
  cheap: {{provider: a, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 0.0001}}}}
  mid: {{provider: b, tier: 2, pricing: {{input_per_1k: 0, output_per_1k: 0.001}}}}
  dear: {{provider: a, tier: 4, pricing: {{input_per_1k: 0, output_per_1k: 0.01}}}}
routes:
  auto:
    candidates: [cheap, mid, dear]
    fallback: [dear]
    retries: {{attempts: 0}}
    explore: {{share: 0.5, max_usd_per_day: {usd_per_day}, never_for: [code]}}
keys: []
"""


@contextlib.contextmanager
def house(folder: Path, gateways: int = 1, usd_per_day: float = 100.0, **settings: Any) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        others, mid = (stack.enter_context(ScriptedUpstream(Script.of(SAID))) for _ in range(2))
        made = []
        for number in range(gateways):
            (folder / str(number)).mkdir()
            live = LiveGateway(policy(others, mid, usd_per_day), folder / str(number), traces_compact=False, **settings)
            live.gateway.routers["learned"] = Unsure(SCORES, "learned")
            made.append(stack.enter_context(live))
        found = House(made, others, mid)
        for gateway in made:  # nothing is explored before the ledger has answered
            for _ in range(200):
                if decided(gateway)["explored"] is not None:
                    break
        yield found


def decided(gateway: LiveGateway) -> dict[str, Any]:
    found: dict[str, Any] = gateway.decision(gateway.chat({"x-bursar-task-id": secrets.token_hex(8)}, model="auto"))
    return dict(found["decision"])


def agree(records: list[dict[str, Any]]) -> dict[str, float]:
    """The recorded probability of each choice, which is one and is how often it was made; but of calls for which none
    could be drawn, for the ledger had not answered yet."""
    waited = [one for one in records if one["decision"]["explored"] is None]
    assert len(waited) < len(records) / 10
    assert {one["decision"]["propensity"] for one in waited} <= {1.0}
    records = [one for one in records if one["decision"]["explored"] is not None]
    counts = Counter(one["decision"]["chosen"] for one in records)
    told = {one["decision"]["chosen"]: one["decision"]["propensity"] for one in records}
    assert len({(one["decision"]["chosen"], one["decision"]["propensity"]) for one in records}) == len(told)
    for name, count in counts.items():
        assert count / len(records) == pytest.approx(told[name], abs=SLACK), (name, told)
    return told


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("exploring")) as found:
        yield found


def test_choices_are_made_as_often_as_their_records_say(one: House) -> None:
    one.new()
    told = agree(one.calls(CALLS, "often"))
    assert sum(told.values()) == pytest.approx(1.0, abs=0.01)
    assert set(told) == {"cheap", "mid", "dear"}


def test_who_answers_in_anothers_place_changes_nothing_of_its_probability(one: House) -> None:
    """The probability is that of the decision; the record names who answered, too, and a replay goes by the former."""
    one.new()
    one.mid.source = [Script.failure(500), Script.of(SAID)]
    try:
        records = one.calls(1)
        while not any(record["decision"]["chosen"] == "mid" for record in records):
            records += one.calls(1)
    finally:
        one.mid.source = Script.of(SAID)
    (fell,) = [record for record in records if record["decision"]["chosen"] == "mid"]
    assert (fell["model"], [a["model"] for a in fell["attempts"]]) == ("dear", ["mid", "dear"])
    whole = next(record for record in one.calls(200) if record["decision"]["chosen"] == "mid")
    assert fell["decision"]["propensity"] == whole["decision"]["propensity"]
    (row,) = recorded([fell], [])
    assert (row.chosen, row.propensity) == ("mid", fell["decision"]["propensity"])
    assert row.cost_usd == sum(attempt["cost_usd"] or 0.0 for attempt in fell["attempts"])


def test_where_a_circuit_is_open_the_others_share_its_probability(one: House) -> None:
    one.new()
    one.mid.source = Script.failure(500)
    try:
        records: list[dict[str, Any]] = []
        while not any("circuit open" in verdicts(record) for record in records):
            records += one.calls(1)
        without = [record for record in one.calls(CALLS, "without") if "circuit open" in verdicts(record)]
    finally:
        one.mid.source = Script.of(SAID)
    assert len(without) > CALLS / 2
    told = agree(without)
    assert set(told) == {"cheap", "dear"}
    assert sum(told.values()) == pytest.approx(1.0, abs=0.01)
    assert recorded(without[:1], [])[0].possible == {"cheap", "dear"}
    one.gateways[0].until(lambda: decided(one.gateways[0])["chosen"] == "mid", 60.0)  # as it was, for the others


def verdicts(record: dict[str, Any]) -> list[str]:
    return [candidate["verdict"] for candidate in record["decision"]["candidates"]]


def test_an_open_tool_loop_goes_on_where_it_is_and_is_no_draw(one: House) -> None:
    one.new()
    one.others.source = one.mid.source = Script.of(tool("{}", id="call_1", name="look"))
    gateway, began = one.gateways[0], Counter[str]()
    try:
        for _ in range(40):
            task = {"x-bursar-task-id": secrets.token_hex(8)}
            first = gateway.decision(gateway.chat(task, model="auto", messages=OPENING, tools=TOOLS))
            then = gateway.decision(gateway.chat(task, model="auto", messages=LOOP, tools=TOOLS))
            began[first["model"]] += 1
            assert then["model"] == first["model"]
            told = then["decision"]
            assert (told["reason"], told["propensity"], told["explored"]) == (HELD, 1.0, None)
            (row,) = recorded([first, then], [])
            assert (row.chosen, row.propensity) == (first["decision"]["chosen"], first["decision"]["propensity"])
            assert row.cost_usd == pytest.approx(first["cost_usd"] + then["cost_usd"])
    finally:
        one.others.source = one.mid.source = Script.of(SAID)
    assert len(began) > 1


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-stainless-retry-count": "1"}, {}),
        (
            {},
            {
                "messages": [
                    {"role": "user", "content": "Write a Python function that reverses a list, with unit tests."}
                ]
            },
        ),
        ({}, {"model": "mid"}),
        ({"x-bursar-max-cost-usd": "0.0001"}, {}),
    ],
    ids=["sent again", "never_for", "named", "near its cap"],
)
def test_what_must_not_fail_is_not_explored(one: House, headers: dict[str, str], body: dict[str, Any]) -> None:
    gateway = one.gateways[0]
    for _ in range(20):
        own = {"x-bursar-task-id": secrets.token_hex(8), **headers}
        answer = gateway.chat(own, **{"model": "auto", **body})
        assert answer.status == 200
        told = gateway.decision(answer)["decision"]
        assert (told["explored"], told["instead_of"], told["propensity"]) == (None, None, 1.0), told["task_type"]


def test_two_gateways_together_spend_the_days_budget_and_no_more(tmp_path: Path) -> None:
    """Each explored call costs more than is expected of it. So each gateway can exceed what it holds by one call."""
    usd, shared = 0.01, {"redis_url": shared_server().url, "redis_namespace": f"exploring-{secrets.token_hex(4)}"}
    with house(tmp_path, 2, usd, **shared) as two:
        two.others.source = two.mid.source = Script.of(words("word " * 60))
        spent, quiet, dearest = 0.0, 0, 0.0
        for _ in range(2_000):
            for gateway in two.gateways:
                answer = gateway.chat({"x-bursar-task-id": secrets.token_hex(8)}, model="auto")
                told = gateway.decision(answer)
                if told["decision"]["instead_of"] is not None:
                    spent, quiet = spent + told["cost_usd"], 0
                    dearest = max(dearest, told["cost_usd"])
                else:
                    quiet += 1
                if told["decision"]["explored"] is None:
                    assert told["decision"]["propensity"] == 1.0
            if quiet > 60:
                break
    assert 0.3 * usd < spent <= usd + 2 * dearest
