"""The price catalogue: exact amounts of real models, what is no price, lookups, and refreshing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from app.core.money import Rates, Usage, cost_nano
from app.core.policy import Provider
from app.stores import prices
from app.stores.prices import Catalogue, CatalogueError, PriceBook, check_plausible, load_bundled, refresh
from tests.upstream import PATIENCE_S


@pytest.fixture(scope="module")
def bundled() -> Catalogue:
    return load_bundled()


def catalogue(**rows: Any) -> Catalogue:
    return Catalogue(json.dumps(rows).encode())


def row(**fields: Any) -> dict[str, Any]:
    return {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, **fields}


def many(count: int = 40, **fields: Any) -> dict[str, Any]:
    return {f"model-{i}": row(**fields) for i in range(count)}


def test_reading_the_bundled_catalogue_does_not_import_litellm() -> None:
    code = (
        "import sys; from app.stores.prices import load_bundled; c = load_bundled(); "
        "assert c.entry('gpt-4o-mini').price; assert 'litellm' not in sys.modules; assert 'aiohttp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prices_of_real_models_to_the_nano_dollar(bundled: Catalogue) -> None:
    mini = bundled.entry("gpt-4o-mini")
    assert mini is not None
    assert mini.price is not None
    # $0.15, $0.60 and $0.075 per million tokens.
    assert mini.price.base == Rates(input=150_000_000, output=600_000_000, cache_read=75_000_000)
    assert mini.price.tiers == ()
    assert mini.price.source == "catalogue:gpt-4o-mini"
    assert cost_nano(mini.price, Usage(1000, 500)) == 150_000 + 300_000

    sonnet = bundled.entry("claude-sonnet-4-5")
    assert sonnet is not None
    assert sonnet.price is not None
    assert sonnet.price.base == Rates(
        input=3_000_000_000,
        output=15_000_000_000,
        cache_read=300_000_000,
        cache_write=3_750_000_000,
        cache_write_1h=6_000_000_000,
    )


def test_long_context_tiers_hold_for_the_whole_request(bundled: Catalogue) -> None:
    pro = bundled.find(["gemini/"], "gemini-2.5-pro")
    assert pro is not None
    assert pro.price is not None
    assert pro.name == "gemini/gemini-2.5-pro"
    assert pro.price.base == Rates(1_250_000_000, 10_000_000_000, cache_read=125_000_000)
    assert pro.price.tiers == ((200_000, Rates(2_500_000_000, 15_000_000_000, cache_read=250_000_000)),)
    assert cost_nano(pro.price, Usage(200_000, 0)) == 250_000_000
    assert cost_nano(pro.price, Usage(200_001, 0)) == 500_002_500


def test_reasoning_rates_are_read(bundled: Catalogue) -> None:
    flash = bundled.entry("gemini/gemini-2.5-flash")
    assert flash is not None
    assert flash.price is not None
    assert flash.price.base.reasoning == 2_500_000_000
    assert flash.capabilities.hidden_reasoning


def test_any_tier_threshold_is_read_and_what_it_leaves_out_is_the_base() -> None:
    entry = catalogue(
        m=row(
            cache_read_input_token_cost=1e-7,
            cache_creation_input_token_cost_above_1hr=4e-6,
            output_cost_per_token_above_512k_tokens=9e-6,
            input_cost_per_token_above_32k_tokens=3e-6,
            cache_creation_input_token_cost_above_1hr_above_32k_tokens=8e-6,
            input_cost_per_token_above_32k_tokens_priority=7e-6,
            input_cost_per_token_batches=1e-9,
        )
    ).entry("m")
    assert entry is not None
    assert entry.price is not None
    (low, low_rates), (high, high_rates) = entry.price.tiers
    assert (low, high) == (32_000, 512_000)
    assert low_rates == Rates(3_000_000_000, 2_000_000_000, 100_000_000, None, 8_000_000_000)
    assert high_rates == Rates(1_000_000_000, 9_000_000_000, 100_000_000, None, 4_000_000_000)


def test_prices_given_as_ranges_are_tiers(bundled: Catalogue) -> None:
    flash = bundled.entry("dashscope/qwen-flash")
    assert flash is not None
    assert flash.price is not None
    assert flash.price.base == Rates(50_000_000, 400_000_000)
    assert flash.price.tiers == ((256_000, Rates(250_000_000, 2_000_000_000)),)


@pytest.mark.parametrize(
    "fields",
    [
        {"input_cost_per_token": None},
        {"output_cost_per_token": None},
        {"input_cost_per_token": 0, "output_cost_per_token": 0},  # free or unknown? never taken for free
        {"input_cost_per_token": -1e-6},
        {"input_cost_per_token": "a lot"},
        {"input_cost_per_token": True},
        {"input_cost_per_token": [1]},
        {"input_cost_per_request": 0.01},  # no number of tokens bounds it
        {"input_cost_per_token": None, "tiered_pricing": [{"range": [10, 20], "input_cost_per_token": 1e-6}]},
        {"input_cost_per_token": None, "tiered_pricing": [{}]},
        {"input_cost_per_token": None, "tiered_pricing": 3},
        {"input_cost_per_token_priority": "a lot", "output_cost_per_token_priority": 1e-6},
        {"google_maps_grounding_cost_per_query": 1e9},
        {"provider_specific_entry": ["fast"]},
    ],
)
def test_what_tokens_alone_do_not_price_has_no_price(fields: dict[str, Any]) -> None:
    entry = catalogue(m=row(**fields)).entry("m")
    assert entry is not None
    assert entry.price is None


@pytest.mark.parametrize("name", ["whisper-1", "tts-1", "dall-e-3", "ollama/llama3", "groq/whisper-large-v3"])
def test_real_models_billed_otherwise_have_no_price(bundled: Catalogue, name: str) -> None:
    entry = bundled.entry(name)
    assert entry is None or entry.price is None


def test_embeddings_have_no_output_rate() -> None:
    entry = catalogue(m={"mode": "embedding", "input_cost_per_token": 2e-8}).entry("m")
    assert entry is not None
    assert entry.price is not None
    assert entry.price.base == Rates(20_000_000, 0)
    assert entry.capabilities.embeddings
    assert not entry.capabilities.hidden_reasoning


def test_an_annotated_row_lists_all_it_can_and_a_bare_one_says_nothing() -> None:
    found = catalogue(
        bare=row(max_input_tokens=1000, max_output_tokens="unknown"),
        some=row(supports_function_calling=True, max_input_tokens=0, max_output_tokens=99.0),
    )
    bare, some = found.entry("bare"), found.entry("some")
    assert bare is not None
    assert some is not None
    assert (bare.capabilities.tools, bare.capabilities.vision, bare.capabilities.json_schema) == (None, None, None)
    assert (bare.capabilities.context_tokens, bare.capabilities.max_output_tokens) == (1000, None)
    assert (some.capabilities.tools, some.capabilities.vision, some.capabilities.json_schema) == (True, False, False)
    assert (some.capabilities.context_tokens, some.capabilities.max_output_tokens) == (None, 99)


def test_a_model_is_looked_up_under_its_providers_prefixes_in_order(bundled: Catalogue) -> None:
    fireworks = Provider(
        "f", "openai_chat", "http://f", catalogue_prefixes=("fireworks_ai/", "fireworks_ai/accounts/fireworks/models/")
    )
    long, short = (bundled.find(fireworks, name) for name in ("accounts/fireworks/models/gpt-oss-20b", "gpt-oss-20b"))
    assert long is not None
    assert long.name == "fireworks_ai/accounts/fireworks/models/gpt-oss-20b"
    assert short is not None
    assert short.name == "fireworks_ai/gpt-oss-20b"
    assert bundled.find(["groq/"], "gpt-4o-mini") is None
    assert bundled.find([], "gpt-4o-mini") is None
    assert bundled.entry("sample_spec") is None


def test_the_version_is_that_of_the_bytes() -> None:
    assert catalogue(m=row()).version == catalogue(m=row()).version != catalogue(m=row(mode="responses")).version


@pytest.mark.parametrize("data", [b"", b"[]", b"<html>", b'{"a": ', b"\xff\xfe", b'{"a": ' + b"[" * 100_000])
def test_what_is_no_json_object_is_no_catalogue(data: bytes) -> None:
    with pytest.raises(CatalogueError):
        Catalogue(data)


def test_a_row_that_is_no_object_is_no_entry() -> None:
    assert catalogue(m="free!").entry("m") is None


@given(st.decimals(min_value=0, max_value=Decimal("0.001"), places=12).filter(bool))
def test_every_price_is_exact(usd: Decimal) -> None:
    entry = catalogue(m=row(input_cost_per_token=float(usd))).entry("m")
    assert entry is not None
    assert entry.price is not None
    assert entry.price.base.input == usd * 10**15


# Refreshing


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "FETCH_DEADLINE_S", PATIENCE_S)


@asynccontextmanager
async def served(answer: Callable[[], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    async def handle(_: web.Request) -> web.StreamResponse:
        return await answer()

    app = web.Application()
    app.router.add_get("/prices.json", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/prices.json"
    finally:
        await runner.cleanup()


def answering(body: bytes, status: int = 200) -> Callable[[], Awaitable[web.StreamResponse]]:
    async def answer() -> web.StreamResponse:
        return web.Response(body=body, status=status)

    return answer


def encoded(rows: dict[str, Any]) -> bytes:
    return json.dumps(rows).encode()


async def test_a_refresh_returns_the_new_catalogue_and_the_same_one_unchanged() -> None:
    old, dearer = Catalogue(encoded(many())), encoded(many(input_cost_per_token=3e-6))
    async with served(answering(dearer)) as url:
        new = await refresh(url, old)
        entry = new.entry("model-3")
        assert entry is not None
        assert entry.price is not None
        assert entry.price.base.input == 3_000_000_000
        assert await refresh(url, new) is new


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{}", 200, "has 0 models"),
        (b"<html>log in</html>", 200, "not a JSON object"),
        (encoded(many(19)), 200, "has 19 models"),
        (encoded(many(input_cost_per_token=1e-3)), 200, "moved tenfold"),
        (encoded(many(input_cost_per_token=None)), 200, "lost their price"),
        (encoded({f"other-{i}": row() for i in range(40)}), 200, "knows none"),
        (encoded(many()), 500, "answered 500"),
        (encoded(many()), 404, "answered 404"),
        (b" " * 5000, 200, "larger than"),
    ],
)
async def test_a_catalogue_that_cannot_be_true_is_refused(
    body: bytes, status: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "MAX_CATALOGUE_BYTES", 4999)
    async with served(answering(body, status)) as url:
        with pytest.raises(CatalogueError, match=reason):
            await refresh(url, Catalogue(encoded(many())))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/prices.json", "nonsense", "ftp://x/y"])
async def test_a_catalogue_that_cannot_be_fetched_is_refused(url: str) -> None:
    with pytest.raises(CatalogueError, match="could not be fetched"):
        await refresh(url, Catalogue(encoded(many())))


def test_the_bundled_catalogue_is_a_plausible_successor_of_itself(bundled: Catalogue) -> None:
    check_plausible(bundled, bundled)


async def test_the_book_keeps_the_old_prices_on_failure_and_says_why() -> None:
    old = Catalogue(encoded(many()))
    async with served(answering(b"{}")) as url:
        book = PriceBook(url, catalogue=old)
        assert await book.refresh() is False
    assert book.current is old
    assert book.last_error is not None
    assert "has 0 models" in book.last_error


async def test_the_book_refreshes_in_the_background_until_stopped() -> None:
    stop, changed, rounds = asyncio.Event(), asyncio.Event(), 0

    async def answer() -> web.StreamResponse:
        nonlocal rounds
        rounds += 1
        return web.Response(body=b"{}" if rounds == 1 else encoded(many(input_cost_per_token=2e-6)))

    async def on_change() -> None:
        changed.set()

    async with served(answer) as url:
        book = PriceBook(url, interval_s=0.01, catalogue=Catalogue(encoded(many())), on_change=on_change)
        before = book.version
        running = asyncio.ensure_future(book.run(stop))
        await asyncio.wait_for(changed.wait(), PATIENCE_S)
        stop.set()
        await asyncio.wait_for(running, PATIENCE_S)
    assert book.version != before
    assert book.last_error is None
    assert rounds >= 2


async def test_without_a_url_there_is_nothing_to_run(bundled: Catalogue) -> None:
    book = PriceBook()
    await asyncio.wait_for(book.run(asyncio.Event()), 1)
    assert await book.refresh() is False
    assert book.version == bundled.version


def test_a_search_costs_what_its_dearest_size_does() -> None:
    catalogue = load_bundled()
    found = {name: catalogue.entry(name) for name in ("claude-sonnet-5", "gemini/gemini-2.5-pro", "gpt-4.1")}
    fees = {
        name: dict(entry.price.tool_fees)
        for name, entry in found.items()
        if entry is not None and entry.price is not None
    }
    assert fees == {
        "claude-sonnet-5": {"web_search": 10_000_000},
        "gemini/gemini-2.5-pro": {"web_search": 35_000_000, "maps": 25_000_000},
        "gpt-4.1": {"web_search": 25_000_000, "file_search": 2_500_000},
    }


def test_models_that_always_search_are_known() -> None:
    catalogue = load_bundled()
    names = ("gpt-4o-search-preview", "gpt-5-search-api", "perplexity/sonar", "gpt-4.1")
    found = {name: entry.capabilities.searches for name in names if (entry := catalogue.entry(name)) is not None}
    assert found == {
        "gpt-4o-search-preview": True,
        "gpt-5-search-api": True,
        "perplexity/sonar": True,
        "gpt-4.1": False,
    }


def test_other_tiers_of_service_are_known_with_their_long_contexts_or_not_at_all() -> None:
    catalogue = load_bundled()
    found = {}
    for name in ("gpt-5", "gpt-5.4", "claude-opus-5"):
        entry = catalogue.entry(name)
        assert entry is not None
        assert entry.price is not None
        price = entry.price
        found[name] = {tier: of.base.input / price.base.input for tier, of in price.service_tiers}
        assert all(len(of.tiers) == len(price.tiers) for _, of in price.service_tiers)
    claude = {"fast": 2.0, "us": 1.1, "fast-us": 2.2}
    assert found == {"gpt-5": {"priority": 2.0, "flex": 0.5}, "gpt-5.4": {"flex": 0.5}, "claude-opus-5": claude}
