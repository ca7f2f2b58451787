"""Fixtures of the live gateway's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream


@pytest.fixture(params=["sqlite", "redis"])
def ledger_url(request: pytest.FixtureRequest) -> str | None:
    """Each kind of ledger: None is the embedded one."""
    return None if request.param == "sqlite" else shared_server().url


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted provider."""
    with ScriptedUpstream() as running:
        yield running
