"""Policy: in force, on disk, before; a draft checked; written where that is allowed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.core.policy import HEURISTIC, LEARNED
from app.gateway.view import View
from app.stores.outcomes_sqlite import SqliteOutcomes
from app.stores.prices import Catalogue
from tests.browser import seed
from tests.browser.conftest import Screen, Seeded, seeded
from tests.gateway.policy_values import policy as values
from tests.http.live import LiveGateway
from tests.learner.replayed import CHEAP, DEAR, SPLIT, T0, ByLength, Traffic, traffic
from tests.stores.traces_records import closed_segment
from tests.test_replay_command import POLICY
from tests.upstream import ScriptedUpstream


@pytest.fixture
def editable(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[Seeded]:
    yield from seeded(tmp_path_factory.mktemp("editable"), upstream, keys=False, policy_edit=True)


def test_an_edit_on_the_page(screens: Callable[..., Screen], editable: Seeded) -> None:
    gateway = editable.gateway
    screen = screens(gateway)
    screen.go("policy")
    page = screen.page
    draft = page.get_by_role("textbox")
    write = page.get_by_role("button", name="Write it")
    assert write.is_disabled()
    text = draft.input_value()
    draft.fill(text.replace("max_cost_usd: 2.0", "max_cost_usd: nothing"))
    page.get_by_role("button", name="Check the draft").click()
    page.get_by_role("button", name="line").wait_for()
    assert "must be a number" in screen.sheet("Draft").inner_text()
    assert write.is_disabled()
    page.get_by_role("button", name="line").click()
    assert page.evaluate("document.activeElement.id") == "draft"
    screen.check()
    draft.fill(text.replace("max_cost_usd: 2.0", "max_cost_usd: 1.5"))
    page.get_by_role("button", name="Check the draft").click()
    screen.until(lambda: "caps.task $2 -> $1.5" in screen.sheet("Draft").inner_text())
    assert gateway.gateway.policies.current.caps.task_nano == 2 * 10**9
    write.click()
    gateway.until(lambda: gateway.gateway.policies.current.caps.task_nano == 1_500_000_000)
    screen.until(lambda: "caps.task $2 -> $1.5" in screen.sheet("History").inner_text())
    assert "max_cost_usd: 1.5" in gateway.policy_path.read_text()
    screen.check()


def test_without_leave_there_is_no_button(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("policy")
    assert screen.page.get_by_role("button", name="Write it").count() == 0
    assert "Writing it here is not allowed" in screen.text()
    assert kept.gateway.gateway.policies.current.version in screen.text()
    screen.check()


def test_a_bad_edit_on_disk_is_told_with_its_line(screens: Callable[..., Screen], editable: Seeded) -> None:
    gateway = editable.gateway
    screen = screens(gateway)
    screen.go("policy")
    hostile = f"adequacy: '{seed.HOSTILE.replace(chr(39), chr(34))}'"
    gateway.edit_policy(gateway.policy_path.read_text().replace("adequacy: 0.8", hostile))
    gateway.until(lambda: gateway.gateway.policies.last_error)
    screen.go("now")
    screen.until(lambda: "The policy on disk has problems" in screen.text())
    screen.go("policy")
    screen.until(lambda: "The last edit is not in force" in screen.text())
    assert "policy.yaml:16:" in screen.sheet("The last edit is not in force").inner_text()
    screen.check()


def test_a_good_draft_is_replayed(screens: Callable[..., Screen], kept: Seeded) -> None:
    """The seeded past was not recorded by this version's features: it is counted, and said to be left out."""
    screen = screens(kept.gateway, key="boss")
    screen.go("policy")
    page = screen.page
    replay = page.get_by_role("button", name="Replay the last 7 days")
    assert replay.is_disabled()
    draft = page.get_by_role("textbox")
    draft.fill(draft.input_value().replace("adequacy: 0.8", "adequacy: 0.6"))
    page.get_by_role("button", name="Check the draft").click()
    screen.until(replay.is_enabled)
    replay.click()
    screen.until(lambda: "decisions made again" in screen.sheet("Replay").inner_text())
    assert "Left out:" in screen.sheet("Replay").inner_text()
    assert "not estimated" in screen.sheet("Replay").inner_text()
    screen.check()


@pytest.fixture
def replayed(tmp_path: Path) -> Iterator[tuple[LiveGateway, Traffic]]:
    """A gateway whose last hour was a split of which one side asked `cheap` and the other `dear`; half was judged."""
    routers = {LEARNED: ByLength(LEARNED, 10**6), HEURISTIC: ByLength(HEURISTIC, 0)}
    seen = traffic(View(values([CHEAP, DEAR], [SPLIT]), routers, Catalogue(b"{}")), 600, np.random.default_rng(3))
    shift_s = time.time() - 3_600 - T0
    for record in seen.records:
        record["created_s"] += shift_s
    data = tmp_path / "data"
    (data / "traces").mkdir(parents=True)
    closed_segment(data / "traces", *seen.records)

    async def say() -> None:
        outcomes = SqliteOutcomes(data / "outcomes.sqlite")
        await outcomes.start()
        for word in seen.words[:300]:
            await outcomes.put(replace(word, said_s=word.said_s + shift_s))
        await outcomes.close()

    with ThreadPoolExecutor(1) as thread:  # a browser's driver may have a loop running in this one
        thread.submit(asyncio.run, say()).result()
    with LiveGateway(POLICY.replace("ADEQUACY", "0.99"), tmp_path) as gateway:
        yield gateway, seen


def test_a_draft_is_estimated_on_what_was_recorded(
    screens: Callable[..., Screen], replayed: tuple[LiveGateway, Traffic]
) -> None:
    gateway, seen = replayed
    screen = screens(gateway)
    screen.go("policy")
    page = screen.page
    draft = page.get_by_role("textbox")
    draft.fill(draft.input_value().replace("adequacy: 0.99", "adequacy: 0.0"))
    page.get_by_role("button", name="Check the draft").click()
    replay = page.get_by_role("button", name="Replay the last 7 days")
    screen.until(replay.is_enabled)
    replay.click()
    sheet = screen.sheet("Replay")
    screen.until(lambda: "600 decisions made again." in sheet.inner_text())
    told = [row.split("\t") for row in sheet.locator("tbody tr").all_inner_texts()]
    cost, success, *models = [[cell.strip() for cell in row] for row in told]
    dollars = [[float(part) for part in re.findall(r"\$([\d.]+)", cell)] for cell in cost[1:3]]
    recorded, would = dollars  # a value, and where it lies with 95 %
    assert recorded[0] == pytest.approx(np.mean([record["cost_usd"] for record in seen.records]), rel=0.05)
    assert would[1] * 0.95 <= seen.cost["cheap"].mean() <= would[2] * 1.05
    assert would[2] < recorded[1], "all to the cheap one is cheaper, beyond chance"
    shares = [[float(part) / 100 for part in re.findall(r"([\d.]+)%", cell)] for cell in success[1:3]]
    assert shares[1][1] <= seen.success["cheap"].mean() <= shares[1][2]
    assert "300 known" in success[-1]
    assert {row[0]: row[2] for row in models} == {"cheap": "100.0%", "dear": "0.0%"}
    screen.check()
