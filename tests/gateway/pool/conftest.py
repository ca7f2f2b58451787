"""A pool that must leave nothing behind, on each kind of event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from app.gateway.pool import PooledUpstreams
from tests.gateway.pool.exchanges import trusting


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs on both."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def pool() -> AsyncIterator[PooledUpstreams]:
    """A pool that must not leak a connection, nor leave anything for the event loop to complain about."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    pool = PooledUpstreams(trusting())
    yield pool
    await pool.close()
    assert not pool._everyone
    gc.collect(1)
    await asyncio.sleep(0)
    assert complaints == []
