"""Who may look: admin keys; anyone on this machine where there are no keys. And how it looks: themes, a phone, the
keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Screen, Seeded
from tests.http.live import LiveGateway, contract
from tests.upstream import ScriptedUpstream

VIEWS = ["now", "speed", "why", "policy", "learning", "budgets"]


def test_an_admin_key_is_asked_for_and_kept_in_the_tab(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway)
    page = screen.page
    page.goto(f"{screen.url}/dashboard")
    page.get_by_label("Admin key").wait_for()
    screen.faults.clear()  # a browser calls 401 an error
    screen.check()
    for wrong, said in (("nonsense", "The API key is missing, or"), ("alice", "The dashboard needs an admin key.")):
        page.get_by_label("Admin key").fill(wrong)
        page.keyboard.press("Enter")
        page.get_by_text(said).wait_for()
        assert page.evaluate("sessionStorage.getItem('bursar-key')") is None
    page.get_by_label("Admin key").fill("boss")
    page.get_by_role("button", name="Open the dashboard").click()
    page.get_by_role("heading", name="Now").wait_for()
    screen.until(lambda: screen.text("#state-text") == "live")
    page.reload()
    page.get_by_role("heading", name="Now").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Admin key").wait_for()


def test_without_keys_it_is_open_on_this_machine_and_says_nothing_is_there(
    screens: Callable[..., Screen], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """A new gateway: each view says honestly that there is nothing yet."""
    with LiveGateway(contract(upstream), tmp_path) as gateway:
        screen = screens(gateway)
        said = {
            "now": "Nothing was spent in this time.",
            "speed": "No run ended in this time.",
            "why": "No finished call fits.",
            "learning": "the weights that ship with the gateway decide alone",
            "budgets": "Nothing was spent yet, and no window has a limit.",
        }
        for view, words in said.items():
            screen.go(view)

            def shown(words: str = words) -> bool:
                return words in screen.text()

            screen.until(shown)
            screen.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_both_themes_and_a_phone(screens: Callable[..., Screen], kept: Seeded, theme: str, phone: bool) -> None:
    """Contrast is axe's to judge, width ours."""
    screen = screens(kept.gateway, theme=theme, phone=phone, key="boss")
    call = next(r["request_id"] for r in kept.past.records if r["decision"]["router"] == "learned@3")
    for view in (*VIEWS, f"why/{call}", "why/task/alice/fix-cut"):
        screen.go(view)
        assert screen.page.evaluate("document.documentElement.dataset.theme") == theme
        screen.check()


def test_the_theme_can_be_chosen_and_is_remembered(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, theme="light", key="boss")
    screen.go("budgets")
    screen.page.get_by_role("button", name="Dark theme").click()
    assert screen.page.evaluate("document.documentElement.dataset.theme") == "dark"
    screen.page.reload()
    screen.page.get_by_role("button", name="Light theme").wait_for()
    assert screen.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_keyboard_goes_everywhere_in_order(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    page = screen.page
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    seen = []
    for _ in range(len(VIEWS) + 3):
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        page.keyboard.press("Tab")
    assert seen[:2] == ["Skip to the content", "Bursar"]
    assert [word.lower() for word in seen[2 : 2 + len(VIEWS)]] == VIEWS
    page.get_by_role("link", name="Why").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Why").wait_for()
    screen.until(lambda: page.evaluate("document.activeElement.tagName") == "H1")
    assert page.title() == "Why · Bursar"
    landmarks = page.evaluate("[...document.querySelectorAll('header, nav, main')].map((one) => one.tagName)")
    assert {"HEADER", "NAV", "MAIN"} <= set(landmarks)


def test_a_call_is_found_and_explained_by_keyboard_alone(screens: Callable[..., Screen], kept: Seeded) -> None:
    """From the list to a call, and back, the focus was lost: whoever hears the page began again at its top."""
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    page = screen.page

    def tab_to(what: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({what!r})"):
                return
        raise AssertionError(f"no Tab leads to {what}")

    def is_at(text: str) -> bool:
        focused: list[str] = page.evaluate("[document.activeElement.tagName, document.activeElement.textContent]")
        return focused == ["H1", text]

    page.evaluate("document.activeElement.blur()")
    tab_to("#nav a[href='#/why']")
    page.keyboard.press("Enter")
    screen.until(lambda: is_at("Why"))
    tab_to("#why-text")
    page.keyboard.type("fix-cut")
    page.keyboard.press("Enter")
    screen.until(lambda: screen.sheet("Calls").locator("tbody tr").count() == 6)
    tab_to("tbody th a")
    page.keyboard.press("Enter")
    screen.until(lambda: is_at("Why this call"))
    assert "Cut by the task's cap" in screen.text()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "All calls"
    page.keyboard.press("Enter")
    screen.until(lambda: is_at("Why"))
    page.get_by_role("link", name="Speed").focus()
    page.keyboard.press("Enter")
    screen.until(lambda: is_at("Speed"))
    tab_to("select")
    page.keyboard.press("ArrowDown")
    canvas = screen.sheet("Trend by model").locator("canvas")
    screen.until(lambda: canvas.get_attribute("aria-label").startswith("Success rate by model"))
    assert page.evaluate("document.activeElement.matches('select')"), "choosing took the focus"
    screen.check(axe_too=False)


def test_a_gateway_that_does_not_answer_is_told_and_shown_again_when_it_does(
    screens: Callable[..., Screen], kept: Seeded
) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    api = "**/dashboard/api/**"
    screen.page.route(api, lambda route: route.abort())
    for view in ("budgets", "speed"):
        screen.page.goto(f"{screen.url}/dashboard#/{view}")
        screen.until(lambda: "The gateway does not answer." in screen.text())
        assert "Nothing was spent" not in screen.text()
        assert "fetch" not in screen.text()
    screen.page.goto(f"{screen.url}/dashboard#/budgets")
    screen.until(lambda: "The gateway does not answer." in screen.text())
    screen.page.unroute(api)
    burn = screen.sheet("Burn-down")
    screen.until(lambda: "left" in burn.inner_text())
    assert "The gateway does not answer." not in screen.text()
    screen.faults.clear()  # a browser calls what was aborted errors
    screen.check()


def test_figures_stay_while_the_gateway_does_not_answer(screens: Callable[..., Screen], kept: Seeded) -> None:
    screen = screens(kept.gateway, key="boss")
    screen.go("now")
    spending = screen.sheet("Spending")
    screen.until(lambda: "calls" in spending.inner_text())
    screen.page.route("**/dashboard/api/**", lambda route: route.abort())
    screen.page.get_by_role("button", name="7 days").click()
    screen.until(lambda: "The gateway does not answer." in screen.text())
    assert "calls" in spending.inner_text()
