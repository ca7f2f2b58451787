"""One gateway on the issue's policy per module, an upstream of its own behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.live import LiveGateway, contract
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """Open, on loopback; bodies over 64 KiB are too large."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    with LiveGateway(contract(shared_upstream), folder, max_body_bytes=65_536) as live:
        yield live


@pytest.fixture
def upstream(shared_upstream: ScriptedUpstream) -> ScriptedUpstream:
    """The module's upstream, with nothing received and its plain script."""
    shared_upstream.source = Script()
    shared_upstream.requests.clear()
    return shared_upstream
