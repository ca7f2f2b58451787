"""Traces as the settings say where they are, opened for questions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import duckdb

from app.settings import Settings
from app.stores.budgets import LedgerUnavailable
from app.stores.opening import segments_folder
from app.stores.traces_parquet import ParquetFolder, TracesError
from app.stores.traces_query import open_files, open_stream

if TYPE_CHECKING:
    from app.stores.traces_stream import TraceStream

FAILURES = (TracesError, LedgerUnavailable, OSError)


class BadUrl(Exception):
    """BURSAR_REDIS_URL is no URL of a Redis."""


def parquet_of(settings: Settings) -> ParquetFolder:
    """Where Parquet files go. Raises TracesError."""
    url = settings.traces_url
    return ParquetFolder(str(segments_folder(settings) / "parquet") if url is None else url.get_secret_value())


@contextlib.asynccontextmanager
async def open_traces(settings: Settings, *, small: bool = False) -> AsyncIterator[duckdb.DuckDBPyConnection]:
    """The view `traces` of these settings; `small`: beside a gateway. Raises what FAILURES lists."""
    parquet = parquet_of(settings)
    if settings.redis_url is None:
        with open_files(segments_folder(settings), parquet, small=small) as db:
            yield db
        return
    async with stream_of(settings) as stream, open_stream(stream, parquet, small=small) as db:
        yield db


@contextlib.asynccontextmanager
async def stream_of(settings: Settings) -> AsyncIterator[TraceStream]:
    """The shared store. Raises BadUrl."""
    from app.stores.traces_stream import TraceStream  # noqa: PLC0415  (redis-py costs 60 ms to import)

    assert settings.redis_url is not None
    try:
        stream = TraceStream(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)
    except ValueError as error:
        raise BadUrl(f"BURSAR_REDIS_URL: {error}") from None
    try:
        yield stream
    finally:
        await stream.close()
