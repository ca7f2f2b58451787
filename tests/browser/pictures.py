"""Takes the README's pictures of the dashboard again: python -m tests.browser.pictures (two minutes).

The past is `seed`'s, synthetic; the calls under way run on a scripted provider, each at a pace of its own.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

from tests.browser import seed
from tests.browser.conftest import FLAGS, Screen
from tests.http.live import SAY, LiveGateway
from tests.tools import ROOT, chromium
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Script, words

SIZE: ViewportSize = {"width": 1280, "height": 900}
SCALE = 1.25
VIEWS: tuple[tuple[str, Literal["light", "dark"], str], ...] = (
    ("now", "light", "Spending"),
    ("speed", "dark", "Trend by model"),
)
"""Each with its theme, and the sheet below which the picture ends."""
MARGIN = 10
STORY = words(" ".join(["word"] * 4_000))
PACE_S = {"gpt-5.2": 0.055, "claude-sonnet-4-5": 0.055, "qwen3-8b": 0.05}
CALLS = [
    ("fix-316", "alice", "gpt-5.2", "0.010", 0),
    ("port-341", "ci", "gpt-5.2", "0.020", 0),
    ("port-334", "alice", "qwen3-8b", "0.002", 12),
    ("fix-310", "bob", "claude-sonnet-4-5", "0.010", 22),
    ("test-323", "ci", "qwen3-8b", "0.001", 23),
    ("port-304", "bob", "gpt-5.2", "0.020", 23),
]
"""Task, key, model, cap in dollars, and after how many seconds it begins."""
TAKEN_AFTER_S, COLOURS = 33, 256


def pace(request: Received) -> Script:
    """A long story, at the model's pace."""
    return Script.of(STORY, delay_s=PACE_S[request.model], input_tokens=40)


def is_live(screen: Screen) -> bool:
    """Whether the page hears from the gateway."""
    return screen.text("#state-text") == "live"


def shows_every_call(screen: Screen) -> bool:
    """Whether the task of every call is on the page."""
    return all(task in screen.text() for task, *_ in CALLS)


def main() -> None:
    """Both pictures, into docs/."""
    with (
        tempfile.TemporaryDirectory() as name,
        ScriptedUpstream(pace) as upstream,
        served(Path(name), upstream) as gateway,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=FLAGS)
        streams = [threading.Thread(target=call, args=(gateway, *asked), daemon=True) for asked in CALLS]
        for stream in streams:
            stream.start()
        time.sleep(TAKEN_AFTER_S)
        for view, theme, last in VIEWS:
            context = browser.new_context(viewport=SIZE, device_scale_factor=SCALE, color_scheme=theme)
            context.add_init_script("sessionStorage.setItem('bursar-key', 'boss')")
            screen = Screen(context.new_page(), f"http://127.0.0.1:{gateway.port}")
            screen.go(view)
            screen.until(partial(is_live, screen))
            if view == "now":
                screen.until(partial(shows_every_call, screen))
            end_at(screen, last)
            page = ROOT / "docs" / f"dashboard-{view}.png"
            screen.page.screenshot(path=page)
            with Image.open(page) as taken:
                taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(page, optimize=True)
            context.close()
        browser.close()


def end_at(screen: Screen, title: str) -> None:
    """Make the window as high as the page is down to the end of a sheet."""
    box = screen.sheet(title).bounding_box()
    screen.page.set_viewport_size({**SIZE, "height": round(box["y"] + box["height"]) + MARGIN})
    screen.page.wait_for_timeout(500)


@contextlib.contextmanager
def served(folder: Path, upstream: ScriptedUpstream) -> Iterator[LiveGateway]:
    """A gateway with a past, without those who would be taken for HTML."""
    now_s = time.time()
    past = seed.make(now_s)
    past.records = [record for record in past.records if record["model"] != seed.HOSTILE]
    seed.write(past, folder / "data", now_s)
    with LiveGateway(seed.policy(upstream.url), folder) as gateway:
        yield gateway


def call(gateway: LiveGateway, task: str, key: str, model: str, cap: str, after_s: float) -> None:
    """One call that is under way when the picture is taken."""
    time.sleep(after_s)
    headers = {"authorization": f"Bearer {key}", "x-bursar-task-id": task, "x-bursar-max-cost-usd": cap}
    body = {"model": model, "messages": SAY, "stream": True}
    gateway.stream("POST", "/v1/chat/completions", body, headers).rest()


if __name__ == "__main__":
    main()
