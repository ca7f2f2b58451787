"""A real headless Chromium on a real gateway with a past. Where there is no Chromium the tests are skipped, loudly;
in CI that is a failure."""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Never

import pytest

from tests.browser import seed
from tests.http.live import LiveGateway
from tests.node_sdk import NodeUnavailable, installed
from tests.tools import chromium
from tests.upstream import ScriptedUpstream

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PATIENCE_MS = 30_000
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (breach) => {
  window.violations.push(`${breach.violatedDirective} ${breach.blockedURI} ${breach.sourceFile}`);
});
"""

POINTS = """(canvas) => {
  const chart = Chart.getChart(canvas);
  return chart.data.datasets.map((set, at) => chart.getDatasetMeta(at).data.map((element, index) => ({
    x: element.x, y: element.y, r: element.options.radius, fill: element.options.backgroundColor,
    label: set.label, name: chart.data.labels[index] ?? null, point: set.data[index].point ?? null,
  })));
}"""
TOOLTIP = """(canvas) => {
  const { opacity, title, body } = Chart.getChart(canvas).tooltip;
  return opacity ? [...(title ?? []), ...(body ?? []).flatMap((part) => part.lines)] : [];
}"""

AXE = "axe.run().then((found) => found.violations.map((one) => [one.id, one.nodes.map((node) => node.html)]))"


def unavailable(what: str) -> Never:
    """The dashboard goes untested: said where nobody can miss it."""
    if os.environ.get("CI"):
        pytest.fail(f"the dashboard cannot be tested: {what}")
    warnings.warn(f"THE DASHBOARD IS NOT TESTED: {what}", stacklevel=2)
    pytest.skip(what)


@cache
def axe() -> str:
    """axe-core's source."""
    try:
        return (installed() / "node_modules" / "axe-core" / "axe.min.js").read_text()
    except NodeUnavailable as error:
        unavailable(str(error))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module: while it is there, this thread has a running event loop, and async tests could have none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed")
    path = chromium()
    if path is None:
        unavailable("there is no Chromium, and Debian's package could not be installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Screen:
    """One page on one gateway, and what went wrong on it."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)

    def go(self, view: str) -> None:
        """Open a view and wait until it has what it shows."""
        self.page.goto(f"{self.url}/dashboard#/{view}")
        self.page.locator("main h1").first.wait_for(timeout=PATIENCE_MS)
        self.settled()

    def settled(self) -> None:
        """Wait until nothing is being read any more."""
        self.until(lambda: "Reading…" not in self.page.locator("main").inner_text())

    def until(self, true: Callable[[], object]) -> None:
        """Wait for something on the page; the page's own policy lets nothing be evaluated in it by polling."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not true():
            assert time.monotonic() < end, f"waited in vain; the page says: {self.text()[:2000]}"
            self.page.wait_for_timeout(50)

    def text(self, where: str = "main") -> str:
        """What is to be read."""
        return re.sub(r"\s+", " ", self.page.locator(where).inner_text())

    def sheet(self, title: str) -> Any:
        """The section with this heading."""
        return self.page.locator(
            "section.sheet", has=self.page.locator("h2", has_text=re.compile(f"^{re.escape(title)}$"))
        )

    def points(self, title: str) -> list[list[dict[str, Any]]]:
        """Of a sheet's chart, for each dataset: where its points are on the screen, and what is told of each there."""
        canvas = self.sheet(title).locator("canvas").first
        canvas.scroll_into_view_if_needed()
        found: list[list[dict[str, Any]]] = canvas.evaluate(POINTS)
        return found

    def told(self, title: str, point: Mapping[str, Any]) -> str:
        """What the tooltip says when the mouse is on this point."""
        canvas = self.sheet(title).locator("canvas").first
        box = canvas.bounding_box()
        self.page.mouse.move(box["x"] + point["x"], box["y"] + point["y"])
        shown: list[str] = []

        def opened() -> bool:
            shown[:] = canvas.evaluate(TOOLTIP)
            return bool(shown)

        self.until(opened)
        return " ".join(shown)

    def check(self, *, axe_too: bool = True) -> None:
        """Nothing went wrong: no error, no breach of the content policy, nothing wider than the screen."""
        assert self.faults == []
        assert self.page.evaluate("window.violations") == []
        assert self.page.evaluate("window.pwned") is None
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if axe_too:
            self.page.evaluate(axe())
            assert self.page.evaluate(AXE) == []


@pytest.fixture
def screens(browser: Any) -> Iterator[Callable[..., Screen]]:
    """Makes pages: `screens(gateway, theme="dark", phone=True, key="boss")`."""
    with opened(browser) as make:
        yield make


@contextlib.contextmanager
def opened(browser: Any) -> Iterator[Callable[..., Screen]]:
    """What makes pages, which are there until the end of the `with` block."""
    contexts = []

    def make(
        gateway: LiveGateway,
        *,
        theme: str = "light",
        phone: bool = False,
        key: str | None = None,
        zone: str | None = None,
    ) -> Screen:
        size = PHONE if phone else DESK
        context = browser.new_context(viewport=size, color_scheme=theme, has_touch=phone, timezone_id=zone)
        contexts.append(context)
        context.add_init_script(VIOLATIONS)
        if key is not None:
            context.add_init_script(f"try {{ sessionStorage.setItem('bursar-key', '{key}') }} catch {{}}")
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        screen = Screen(page, f"http://127.0.0.1:{gateway.port}")
        page.on("pageerror", lambda error: screen.faults.append(str(error)))
        page.on("console", lambda said: screen.faults.append(said.text) if said.type == "error" else None)
        return screen

    yield make
    for context in contexts:
        context.close()


@dataclass
class Seeded:
    """A gateway with a past, and that past."""

    gateway: LiveGateway
    past: seed.Past
    upstream: ScriptedUpstream
    now_s: float


def seeded(folder: Path, upstream: ScriptedUpstream, *, keys: bool, **settings: Any) -> Iterator[Seeded]:
    """One gateway over a past of its own."""
    now_s = time.time()
    past = seed.make(now_s)
    seed.write(past, folder / "data", now_s)
    with LiveGateway(seed.policy(upstream.url, keys=keys), folder, **settings) as gateway:
        yield Seeded(gateway, past, upstream, now_s)


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        yield live


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[Seeded]:
    """With keys: an admin's is `boss`."""
    yield from seeded(tmp_path_factory.mktemp("kept"), upstream, keys=True)
