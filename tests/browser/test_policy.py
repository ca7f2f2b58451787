"""Policy: in force, on disk, before; a draft checked; written where that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser import seed
from tests.browser.conftest import Screen, Seeded, seeded
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
