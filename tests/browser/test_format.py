"""How values are written, and where labels stand: the page's own modules, asked in the page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.conftest import Screen, Seeded, opened

Pages = Callable[..., Screen]


@pytest.fixture(scope="module")
def pages(browser: Any, kept: Seeded) -> Iterator[Pages]:
    """A page for each zone of time: nothing that is asked here changes it."""
    with opened(browser) as make:

        @functools.cache
        def page(zone: str | None = None) -> Screen:
            screen = make(kept.gateway, key="boss", zone=zone)
            screen.go("policy")
            return screen

        yield page


def module(screen: Screen, name: str) -> str:
    """The URL of one of the page's modules."""
    source: str = screen.page.locator("script[type=module]").first.get_attribute("src")
    return source.rpartition("/")[0] + f"/{name}.js"


@pytest.mark.parametrize(
    ("amount", "decimals", "written"),
    [
        (None, 4, "–"),
        (0, 4, "$0.0000"),
        (0.00002, 4, "< $0.0001"),
        (0.00005, 4, "$0.0001"),
        (0.12345, 4, "$0.1235"),
        (0.00002, None, "$0.000020"),
        (0, None, "$0.00"),
        (12_345.6, None, "$12,346"),
    ],
)
def test_an_amount_is_never_written_as_a_zero_that_it_is_not(
    pages: Pages, amount: Any, decimals: Any, written: str
) -> None:
    screen = pages()
    ask = "([url, amount, decimals]) => import(url).then((format) => format.usd(amount, decimals))"
    assert screen.page.evaluate(ask, [module(screen, "format"), amount, decimals]) == written


def test_labels_of_an_axis_do_not_run_into_one_another(pages: Pages) -> None:
    screen = pages()
    ask = """([url, width]) => import(url).then(({ logAxis }) => {
      const axis = logAxis([1e-5, 1e-4], (value) => `$${value.toFixed(6)}`, () => [1e-5, 2e-5, 5e-5, 1e-4]);
      const scale = { width, isHorizontal: () => true };
      axis.afterBuildTicks(scale);
      return scale.ticks.map(({ value }) => value);
    })"""
    url = module(screen, "charts")
    assert screen.page.evaluate(ask, [url, 1000]) == [1e-5, 2e-5, 5e-5, 1e-4]
    assert screen.page.evaluate(ask, [url, 230]) == [1e-5, 5e-5]


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [(0, "0 ms"), (0.4, "0.40 ms"), (417, "417 ms"), (57_000, "57 s"), (105_000, "1.8 min"), (120_000, "2 min"),
     (2_700_000, "45 min"), (7_200_000, "2.0 h")],
)  # fmt: skip
def test_a_duration_is_told_as_exactly_as_it_is_compared(pages: Pages, milliseconds: float, written: str) -> None:
    """Two minutes were told for 105 s, beside 57 s and "84 % slower"."""
    screen = pages()
    ask = "([url, value]) => import(url).then((format) => format.ms(value))"
    assert screen.page.evaluate(ask, [module(screen, "format"), milliseconds]) == written


@pytest.mark.parametrize(
    ("zone", "since", "hours", "width", "written"),
    [
        # A tick each twelve hours: every day was told twice.
        ("UTC", "2026-11-26T00:00Z", 60, 480, ["Nov 26", "12:00", "Nov 27", "12:00", "Nov 28", "12:00"]),
        ("UTC", "2026-11-29T20:00Z", 24, 400, ["Nov 30", "06:00", "12:00", "18:00"]),
        ("UTC", "2026-11-29T22:00Z", 4, 480, ["22:00", "23:00", "Nov 30", "01:00", "02:00"]),
        ("UTC", "2026-11-29T23:45Z", 0.5, 640, ["23:45", "23:50", "23:55", "Nov 30", "00:05", "00:10", "00:15"]),
        ("UTC", "2026-11-29T20:00Z", 1 / 720, 240, ["20:00:00", "20:00:02", "20:00:04"]),
        # Clocks are put back on 25 October: midnights stay midnights.
        ("Europe/Berlin", "2026-10-23T22:00Z", 97, 480, ["Oct 24", "Oct 25", "Oct 26", "Oct 27", "Oct 28"]),
    ],
)  # fmt: skip
def test_ticks_of_time_are_where_people_look_for_them(
    pages: Pages, zone: str, since: str, hours: float, width: int, written: list[str]
) -> None:
    screen = pages(zone)
    ask = """([url, since, hours, width]) => import(url).then(({ timeAxis }) => {
      const from = Date.parse(since) / 1000;
      const axis = timeAxis(from, from + hours * 3600);
      const scale = { width };
      axis.afterBuildTicks(scale);
      return scale.ticks.map(({ value }) => axis.ticks.callback(value));
    })"""
    assert screen.page.evaluate(ask, [module(screen, "charts"), since, hours, width]) == written


def test_the_first_hour_of_a_day_is_0(pages: Pages) -> None:
    screen = pages("UTC")
    ask = (
        "([url, at]) => import(url).then((format) => format.moment(Date.parse(at) / 1000, Date.parse(at) / 1000 + 60))"
    )
    assert "00:05" in screen.page.evaluate(ask, [module(screen, "format"), "2026-11-30T00:05Z"])
    ask = "([url, at]) => import(url).then((rates) => rates.untilWhen([{ refills_s: Date.parse(at) / 1000 }]))"
    said = screen.page.evaluate(ask, [module(screen, "views/budgets_rates"), "2026-11-30T00:00Z"])
    assert said == "until 00:00:00, then from 0 again"


def test_a_name_too_long_for_its_place_keeps_both_its_ends(pages: Pages) -> None:
    screen = pages()
    ask = "([url, name, most]) => import(url).then((format) => format.short(name, most))"
    for most, written in ((8, "gpt…i-v2"), (20, "gpt-4.1-mini-v2")):
        assert screen.page.evaluate(ask, [module(screen, "format"), "gpt-4.1-mini-v2", most]) == written
