"""`require_replay`: an edited policy that would cost more on recorded (here synthetic) traffic is not taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.policy import HEURISTIC, LEARNED, ReplayRules
from app.gateway.metrics import Metrics
from app.gateway.view import View
from app.replaying import ReplayCheck, judged, untold
from app.settings import Settings
from app.stores.prices import Catalogue
from tests.gateway.policy_values import policy
from tests.http.live import LiveGateway
from tests.learner.replayed import CHEAP, DEAR, SPLIT, ByLength, traffic
from tests.stores.traces_records import closed_segment

POLICY = """\
version: 1
providers: {p: {base_url: "http://127.0.0.1:9/v1"}}
models:
  cheap: {provider: p, tier: 1, pricing: {input_per_1k: 0.001, output_per_1k: 0.001}}
  dear: {provider: p, tier: 4, pricing: {input_per_1k: 0.01, output_per_1k: 0.01}}
routes:
  auto: {candidates: [cheap, dear], adequacy: ADEQUACY}
require_replay: {since: SINCE, max_secs: 120, too_little_data: UNTOLD}
"""


def text(adequacy: float, since: str = "all", untold: str = "accept") -> str:
    return POLICY.replace("ADEQUACY", str(adequacy)).replace("SINCE", since).replace("UNTOLD", untold)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A split sent half of the recorded traffic to either model; the policy in force sends all to `cheap`."""
    folder: Path = tmp_path_factory.mktemp("replay")
    routers = {LEARNED: ByLength(LEARNED, 10**6), HEURISTIC: ByLength(HEURISTIC, 0)}
    seen = traffic(View(policy([CHEAP, DEAR], [SPLIT]), routers, Catalogue(b"{}")), 400, np.random.default_rng(3))
    (folder / "data" / "traces").mkdir(parents=True)
    closed_segment(folder / "data" / "traces", *seen.records)
    with LiveGateway(text(0.0), folder, traces_compact=False) as live:
        yield live


def metric(gateway: LiveGateway, line: str) -> float:
    return float(gateway.metrics().split(f"\n{line} ")[1].split("\n")[0])


def test_one_that_would_cost_more_is_refused_and_one_that_does_not_is_taken(gateway: LiveGateway) -> None:
    policies = gateway.gateway.policies
    version = policies.current.version
    gateway.edit_policy(text(0.999))
    gateway.until(lambda: policies.last_error, 120.0)
    (problem,) = policies.last_error
    assert "require_replay" in problem.message
    assert "per decision, and 10.0% is allowed" in problem.message
    assert policies.current.version == version
    assert metric(gateway, "bursar_policy_last_load_failed") == 1.0
    assert metric(gateway, 'bursar_policy_replays_total{result="refused"}') == 1.0
    assert metric(gateway, 'bursar_policy_replay_change{what="cost"}') > 0.1
    gateway.edit_policy(text(0.01))
    gateway.until(lambda: policies.current.version != version, 120.0)
    assert metric(gateway, "bursar_policy_last_load_failed") == 0.0
    assert metric(gateway, 'bursar_policy_replay_change{what="cost"}') < 0.0


RULES = ReplayRules()


def found(cost: float = 0.0, success: float = 0.0, *, refusal: str | None = None) -> dict[str, Any]:
    def one(recorded: float, change: float, why: str | None = None) -> dict[str, Any]:
        return {"refusal": why, "recorded": {"value": recorded}, "change": {"value": change}}

    return {"all": {"cost_usd": one(2.0, cost, refusal), "success": one(0.9, success)}}


@pytest.mark.parametrize(
    ("replayed", "said"),
    [
        (found(0.19, -0.019), None),
        (found(-1.0, 0.1), None),
        (found(0.21), "+10.5% per decision"),
        (found(-1.0, -0.03), "succeed -3.0%"),
    ],
)
def test_by_the_rules(replayed: dict[str, Any], said: str | None) -> None:
    verdict = judged(replayed, RULES)
    assert (verdict.refused is None) == (said is None)
    assert said is None or said in (verdict.refused or "")
    assert verdict.result == ("accepted" if said is None else "refused")


def test_what_cannot_be_told_is_as_the_policy_says() -> None:
    nothing = found(refusal="too little data: ...")
    accepted = judged(nothing, RULES)
    assert (accepted.refused, accepted.untold, accepted.result) == (None, "too little data: ...", "untold")
    strict = ReplayRules(untold="refuse")
    assert "too little data" in (judged(nothing, strict).refused or "")
    assert "longer" in (untold("it took longer than 30 s", strict).refused or "")
    dollars_alone = found(0.1)
    dollars_alone["all"]["success"]["refusal"] = "too little data"
    assert judged(dollars_alone, RULES).refused is None
    assert judged(dollars_alone, RULES).cost_rise == pytest.approx(0.05)
    assert judged(dollars_alone, strict).refused is not None
    dollars_alone["all"]["cost_usd"]["change"]["value"] = 1.0
    assert "+50.0%" in (judged(dollars_alone, RULES).refused or "")


async def test_an_edit_cannot_do_away_with_the_check_that_it_must_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def takes_too_long(*_: object) -> dict[str, Any]:
        raise TimeoutError

    monkeypatch.setattr(ReplayCheck, "_replayed", takes_too_long)
    check = ReplayCheck(Settings(data_dir=tmp_path), Metrics())
    with_it = policy([CHEAP, DEAR], [SPLIT], require_replay=ReplayRules(untold="refuse"))
    without = policy([CHEAP, DEAR], [SPLIT])
    for old, new in ((with_it, without), (without, with_it), (with_it, with_it)):
        assert "it took longer than" in (await check(old, new) or "")
    assert await check(without, without) is None
