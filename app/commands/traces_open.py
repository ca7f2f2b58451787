"""Traces as the settings say where they are, opened for questions; and how commands that ask them end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import duckdb

from app.commands.ending import Refused, ending
from app.commands.policy import read_settings
from app.commands.terminal import complain
from app.core.since import since_s
from app.logs import configure_logging
from app.settings import Settings
from app.stores.budgets import LedgerUnavailable
from app.stores.opening import segments_folder
from app.stores.outcomes import OutcomesUnavailable
from app.stores.snapshots import SnapshotsUnavailable
from app.stores.traces_parquet import ParquetFolder, TracesError
from app.stores.traces_query import open_files, open_stream

if TYPE_CHECKING:
    from app.stores.traces_stream import TraceStream

FAILURES = (TracesError, LedgerUnavailable, OutcomesUnavailable, SnapshotsUnavailable, OSError)
"""What is raised where traces, or what was said of them, cannot be read."""

asking = ending(*FAILURES)
"""For a command that asks traces."""


def settings_for_asking() -> Settings:
    """The settings of the environment, with logs as they say; a note where no gateway ever kept traces. Raises
    Refused."""
    settings = read_settings()
    configure_logging(settings)
    folder = segments_folder(settings)
    if settings.redis_url is None and settings.traces_url is None and not folder.is_dir():
        complain(f"note: there are no traces at {folder}; BURSAR_DATA_DIR says where to look")
    return settings


def begin_of(since: str) -> float:
    """What `--since` says, as Unix time. Raises Refused."""
    try:
        return since_s(since, time.time())
    except ValueError as error:
        raise Refused(f"--since {error}") from None


def parquet_of(settings: Settings) -> ParquetFolder:
    """Where Parquet files go. Raises TracesError."""
    url = settings.traces_url
    return ParquetFolder(str(segments_folder(settings) / "parquet") if url is None else url.get_secret_value())


@contextlib.asynccontextmanager
async def open_traces(settings: Settings, *, small: bool = False) -> AsyncIterator[duckdb.DuckDBPyConnection]:
    """The view `traces` of these settings; `small`: beside a gateway. Raises TracesError, LedgerUnavailable or OSError:
    the first also where DuckDB fails while the view is open."""
    parquet = parquet_of(settings)
    try:
        if settings.redis_url is None:
            with open_files(segments_folder(settings), parquet, small=small) as db:
                yield db
        else:
            async with stream_of(settings) as stream, open_stream(stream, parquet, small=small) as db:
                yield db
    except duckdb.Error as error:
        raise TracesError(f"traces cannot be read: {error}") from error


@contextlib.asynccontextmanager
async def stream_of(settings: Settings) -> AsyncIterator[TraceStream]:
    """The shared store."""
    from app.stores.traces_stream import TraceStream  # noqa: PLC0415  (redis-py costs 60 ms to import)

    assert settings.redis_url is not None
    stream = TraceStream(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)
    try:
        yield stream
    finally:
        await stream.close()
