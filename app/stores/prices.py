"""Prices and capabilities of the models of the world: litellm's catalogue, read without importing litellm.

Its file is one JSON object, "name": {fields}; what the fields mean is told by its own `sample_spec`
entry and by https://docs.litellm.ai/docs/provider_registration/add_model_pricing. Rows stay raw bytes
until asked for: `import litellm` costs seconds and 200 MB, this costs milliseconds and the file's size.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import structlog

from app.core.money import Price, Rates, nano_from_usd, price_from_usd_per_token
from app.core.policy import Capabilities, Provider
from app.core.raw import UNREADABLE
from app.core.types import SERVICE_TIERS

BUNDLED_NAME = "model_prices_and_context_window_backup.json"
MAX_CATALOGUE_BYTES = 32 * 2**20
FETCH_DEADLINE_S = 30.0
SAMPLE_STEP = 8
"""Plausibility looks at every eighth shared model: enough to see a wrong unit, and quick."""

_FIELDS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
}
OPENAI_FILE_SEARCH_USD = 0.0025
"""One file search, whatever the model; the catalogue does not say it. https://platform.openai.com/docs/pricing"""
_SEARCHES = re.compile(r"-search-(?:preview|api)")
"""OpenAI's models that search before every answer."""
_TIER = re.compile(rf"(?:{'|'.join(_FIELDS.values())})_above_(\d+)k_tokens")

log = structlog.get_logger()


class CatalogueError(Exception):
    """A catalogue could not be found, fetched or believed; the one in force stays."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalogue. `price` is None where tokens alone do not tell what a call costs."""

    name: str
    mode: str
    price: Price | None
    capabilities: Capabilities


class Catalogue:
    """All rows of one catalogue file, immutable; `version` is a digest of its bytes."""

    __slots__ = ("_entries", "_rows", "version")

    def __init__(self, data: bytes) -> None:
        """Index the file's bytes, which are kept; CatalogueError unless they are a JSON object."""
        try:
            self._rows = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        except UNREADABLE as error:
            raise CatalogueError(f"the price catalogue is not a JSON object: {error}") from None
        self._rows.pop("sample_spec", None)
        self._entries: dict[str, Entry] = {}
        self.version = hashlib.sha256(data).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self._rows)

    def names(self) -> list[str]:
        """The names of all rows, as the catalogue spells them (most with a provider's prefix)."""
        return list(self._rows)

    def find(self, where: Provider | Sequence[str], upstream_model: str) -> Entry | None:
        """The row of a model: the first of the provider's prefixes under which the name is listed."""
        prefixes = where.catalogue_prefixes if isinstance(where, Provider) else where
        for prefix in prefixes:
            if (entry := self.entry(prefix + upstream_model)) is not None:
                return entry
        return None

    def entry(self, name: str) -> Entry | None:
        """The row with exactly this name, converted on first use; None if there is none or it is no object."""
        known = self._entries.get(name)
        if known is not None:
            return known
        raw = self._rows.get(name)
        if raw is None:
            return None
        try:
            row = msgspec.json.decode(raw, type=dict[str, Any])
        except UNREADABLE:
            return None
        entry = self._entries[name] = _entry(name, row)
        return entry


def load_bundled() -> Catalogue:
    """The catalogue in the installed litellm package; CatalogueError if it is not there."""
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / BUNDLED_NAME
        if path.is_file():
            return Catalogue(path.read_bytes())
    raise CatalogueError(f"litellm's {BUNDLED_NAME} is not installed")


def _entry(name: str, row: Mapping[str, Any]) -> Entry:
    mode = row.get("mode")
    return Entry(name, mode if isinstance(mode, str) else "", _price(name, row), _capabilities(name, row))


def _price(name: str, row: Mapping[str, Any]) -> Price | None:
    """The price in nano-dollars per million tokens, or None where the row does not bound a call's cost.

    Two zeros are no price: the catalogue writes 0 both for free and for unknown, and unknown is not
    free. A fee per request is no price either: no number of tokens bounds it. Nor is a row that cannot be read.
    """
    if row.get("input_cost_per_request"):
        return None
    try:
        base, tiers = _flat(row) or _ranges(row) or (None, ())
        if base is None:
            return None
        price = Price(base, tiers, source=f"catalogue:{name}", tool_fees=_tool_fees(row))
        price = replace(price, service_tiers=_service_tiers(row, price))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    return None if price.free else price


def _service_tiers(row: Mapping[str, Any], price: Price) -> tuple[tuple[str, Price], ...]:
    """The price in other tiers of service; one that leaves out what a long context costs is left out."""
    found: dict[str, Price] = {}
    for tier in SERVICE_TIERS & {"priority", "flex", "ultrafast"}:
        base = _rates(row, f"_{tier}", price.base) if f"input_cost_per_token_{tier}" in row else None
        suffixes = [(above, f"_above_{above // 1000}k_tokens_{tier}") for above, _ in price.tiers]
        if base is not None and all(f"input_cost_per_token{suffix}" in row for _, suffix in suffixes):
            tiers = [(above, rates) for above, suffix in suffixes if (rates := _rates(row, suffix, base)) is not None]
            found[tier] = replace(price, base=base, tiers=tuple(tiers))
    factors = row.get("provider_specific_entry") or {}
    named = {tier: Decimal(str(factors[tier])) for tier in ("fast", "us") if _is_cost(factors.get(tier))}
    if len(named) == 2:
        named["fast-us"] = named["fast"] * named["us"]
    found |= {tier: price.times(factor) for tier, factor in named.items()}
    return tuple(sorted(found.items()))


def _tool_fees(row: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """What the provider's own tools cost, each use: a web search of the dearest context size."""
    sizes = row.get("search_context_cost_per_query")
    searches = [usd for usd in sizes.values() if _is_cost(usd)] if isinstance(sizes, dict) else []
    costs = {
        "web_search": max(searches, default=None),
        "maps": row.get("google_maps_grounding_cost_per_query"),
        "file_search": OPENAI_FILE_SEARCH_USD if row.get("litellm_provider") == "openai" else None,
    }
    return tuple((tool, nano_from_usd(usd)) for tool, usd in costs.items() if usd is not None and _is_cost(usd))


def _is_cost(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _flat(row: Mapping[str, Any]) -> tuple[Rates, tuple[tuple[int, Rates], ...]] | None:
    """Rates in plain fields, long-context tiers in fields that end in `_above_<N>k_tokens`."""
    base = _rates(row, "")
    if base is None:
        return None
    thresholds = sorted({int(match[1]) for key in row if (match := _TIER.fullmatch(key))})
    tiers = [(n * 1000, _rates(row, f"_above_{n}k_tokens", base)) for n in thresholds]
    return base, tuple((above, rates) for above, rates in tiers if rates is not None)


def _ranges(row: Mapping[str, Any]) -> tuple[Rates, tuple[tuple[int, Rates], ...]] | None:
    """Rates as a list of `tiered_pricing` rows, each with the `range` of input tokens it holds for."""
    steps = sorted((int(step["range"][0]), _rates(step, "")) for step in row.get("tiered_pricing") or ())
    if not steps or steps[0][0] != 0 or any(rates is None for _, rates in steps):
        return None
    rated = [(above, rates) for above, rates in steps if rates is not None]
    return rated[0][1], tuple(rated[1:])


def _rates(row: Mapping[str, Any], suffix: str, base: Rates | None = None) -> Rates | None:
    """The rates in the fields with this suffix; what a tier leaves out is as in `base`."""
    values: dict[str, int | None] = {}
    for kind, field in _FIELDS.items():
        usd = row.get(field + suffix)
        if not isinstance(usd, int | float | None) or isinstance(usd, bool):
            raise ValueError(f"{field}{suffix} is no number")
        values[kind] = getattr(base, kind, None) if usd is None else price_from_usd_per_token(usd)
    if values["output"] is None and row.get("mode") == "embedding":
        values["output"] = 0
    if values["input"] is None or values["output"] is None:
        return None
    return msgspec.convert(values, Rates)


def _capabilities(name: str, row: Mapping[str, Any]) -> Capabilities:
    """Limits and abilities. A row that names any ability names all it has: there, left out means no."""
    annotated = any(key.startswith("supports_") for key in row)

    def able(ability: str) -> bool | None:
        stated = row.get(f"supports_{ability}")
        return stated if isinstance(stated, bool) else (False if annotated else None)

    return Capabilities(
        context_tokens=_count(row.get("max_input_tokens")),
        max_output_tokens=_count(row.get("max_output_tokens")),
        tools=able("function_calling"),
        vision=able("vision"),
        json_schema=able("response_schema"),
        hidden_reasoning=row.get("supports_reasoning") is True,
        embeddings=row.get("mode") == "embedding",
        searches=row.get("litellm_provider") == "perplexity" or _SEARCHES.search(name) is not None,
    )


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and value > 0 else None


def check_plausible(new: Catalogue, old: Catalogue) -> None:
    """CatalogueError unless `new` can be a later edition of `old`: as full, as priced, in the same unit."""
    if len(new) * 2 < len(old):
        raise CatalogueError(f"the new price catalogue has {len(new)} models, the one in force {len(old)}")
    seen = lost = moved = 0
    for name in old.names()[::SAMPLE_STEP]:
        before, after = old.entry(name), new.entry(name)
        if before is None or before.price is None or after is None:
            continue
        seen += 1
        if after.price is None:
            lost += 1
        elif not before.price.base.input / 10 <= after.price.base.input <= before.price.base.input * 10:
            moved += 1
    if not seen:
        raise CatalogueError("the new price catalogue knows none of the models of the one in force")
    if lost * 5 > seen or moved * 5 > seen:
        raise CatalogueError(
            f"of {seen} models in the new price catalogue {lost} lost their price, {moved} moved tenfold"
        )


async def refresh(url: str, current: Catalogue) -> Catalogue:
    """Fetch a catalogue; CatalogueError if it cannot be had or is not a plausible successor of `current`."""
    import aiohttp  # noqa: PLC0415  # the command line reads prices without paying for an HTTP client

    try:
        timeout = aiohttp.ClientTimeout(total=FETCH_DEADLINE_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session, session.get(url) as response:
            if response.status != 200:
                raise CatalogueError(f"the price catalogue's server answered {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_chunked(2**16):
                data += chunk
                if len(data) > MAX_CATALOGUE_BYTES:
                    raise CatalogueError(f"the price catalogue is larger than {MAX_CATALOGUE_BYTES} bytes")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CatalogueError(f"the price catalogue could not be fetched: {type(error).__name__}") from None
    return await asyncio.to_thread(_believe, bytes(data), current)


def _believe(data: bytes, current: Catalogue) -> Catalogue:
    new = Catalogue(data)
    if new.version == current.version:
        return current
    check_plausible(new, current)
    return new


class PriceBook:
    """The catalogue in force: the bundled one, replaced in the background when a URL is set."""

    def __init__(
        self,
        url: str | None = None,
        *,
        interval_s: float = 86_400.0,
        catalogue: Catalogue | None = None,
        on_change: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`on_change` is awaited after each swap; without `catalogue` the bundled one is read on first use."""
        self.url = url
        self.interval_s = interval_s
        self.on_change = on_change
        self.last_error: str | None = None
        self._current = catalogue

    @property
    def current(self) -> Catalogue:
        """The catalogue in force, immutable; CatalogueError on first use if none is installed."""
        if self._current is None:
            self._current = load_bundled()
        return self._current

    @property
    def version(self) -> str:
        """The digest of the catalogue in force."""
        return self.current.version

    async def refresh(self) -> bool:
        """Fetch once; True when prices changed. A failure keeps the old ones, logs, and sets `last_error`."""
        if self.url is None:
            return False
        try:
            new = await refresh(self.url, self.current)
        except CatalogueError as error:
            self.last_error = str(error)
            log.warning(
                "prices could not be refreshed: those before stay in force",
                reason=self.last_error,
                version=self.version,
            )
            return False
        self.last_error = None
        if new is self.current:
            return False
        log.info("prices are refreshed", old=self.version, new=new.version, models=len(new))
        self._current = new
        if self.on_change is not None:
            await self.on_change()
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh now and every `interval_s` seconds until `stop` is set; returns at once without a URL."""
        while self.url is not None and not stop.is_set():
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.interval_s)
