"""The stores that settings ask for, not yet started: Redis where it is shared, files in the data folder otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from app.settings import Settings
from app.stores.outcomes import Outcomes
from app.stores.outcomes_sqlite import SqliteOutcomes
from app.stores.replays import SharedReplays
from app.stores.replays_sqlite import SqliteReplays
from app.stores.responses import StoredResponses
from app.stores.responses_sqlite import SqliteResponses
from app.stores.snapshots import Snapshots
from app.stores.snapshots_sqlite import SqliteSnapshots
from app.stores.task_memory import TaskMemory
from app.stores.task_memory_sqlite import SqliteTaskMemory
from app.stores.traces_tail import SegmentTail, Tail
from app.stores.words import FileWords, Words


def make_outcomes(settings: Settings) -> Outcomes:
    """Where feedback is kept: beside the ledger."""
    comments = settings.keep_comments
    if settings.redis_url is None:
        return SqliteOutcomes(settings.data_dir / "outcomes.sqlite", keeps_comments=comments)
    from app.stores.outcomes_redis import RedisOutcomes  # noqa: PLC0415  (redis-py costs 60 ms to import)

    url = settings.redis_url.get_secret_value()
    return RedisOutcomes(url, namespace=settings.redis_namespace, keeps_comments=comments)


def make_snapshots(settings: Settings) -> Snapshots:
    """Where snapshots are kept: beside the ledger."""
    if settings.redis_url is None:
        return SqliteSnapshots(settings.data_dir / "snapshots.sqlite")
    from app.stores.snapshots_redis import RedisSnapshots  # noqa: PLC0415  (see make_outcomes)

    return RedisSnapshots(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)


def make_replays(settings: Settings, about: str) -> SharedReplays:
    """Where replies are kept for requests that come again, for one purpose: beside the ledger."""
    if settings.redis_url is None:
        return SqliteReplays(settings.data_dir / f"{about}.sqlite")
    from app.stores.replays_redis import RedisReplays  # noqa: PLC0415  (see make_outcomes)

    return RedisReplays(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace, about=about)


def make_responses(settings: Settings) -> StoredResponses:
    """Where responses are that the policy has stored: beside the ledger."""
    if settings.redis_url is None:
        return SqliteResponses(settings.data_dir / "responses.sqlite")
    from app.stores.responses_redis import RedisResponses  # noqa: PLC0415  (see make_outcomes)

    return RedisResponses(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)


def make_memory(settings: Settings) -> TaskMemory:
    """Where tasks are remembered besides their money: beside the ledger."""
    if settings.redis_url is None:
        return SqliteTaskMemory(settings.data_dir / "task-memory.sqlite")
    from app.stores.task_memory_redis import RedisTaskMemory  # noqa: PLC0415  (see make_outcomes)

    return RedisTaskMemory(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)


def make_tail(settings: Settings) -> Callable[[str], Tail]:
    """Readers of traces, each from a place on. Raises ValueError for a Redis URL that cannot be used."""
    if settings.redis_url is None:
        folder = segments_folder(settings)
        return lambda place: SegmentTail(folder, place)
    from app.stores.traces_stream import TraceStream  # noqa: PLC0415  (see make_outcomes)
    from app.stores.traces_tail import StreamTail  # noqa: PLC0415

    stream = TraceStream(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)
    return lambda place: StreamTail(stream, place)


def make_words(settings: Settings, about: str = "words") -> Words | None:
    """Where this process meets others that serve under the same ledger, for words about one thing; None where it is
    the only one."""
    if settings.redis_url is not None:
        from app.stores.words_redis import RedisWords  # noqa: PLC0415  (see make_outcomes)

        url = settings.redis_url.get_secret_value()
        return RedisWords(url, namespace=settings.redis_namespace, about=about)
    folder = workers_folder()
    return None if folder is None else FileWords(folder, about)


def workers_folder() -> Path | None:
    """What the workers of one gateway share (`commands/server.py` makes it); None where there is one process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return None if folder is None else Path(folder)


def segments_folder(settings: Settings) -> Path:
    """Where segments of traces are."""
    return settings.data_dir.absolute() / "traces"
