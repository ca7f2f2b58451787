"""A gateway as a process: `python -m tests.gateway.child PORT LEASE_S`, settings from the environment.

Only its lease is shorter than the real one, so that a test of its death need not wait ten seconds.
"""

from __future__ import annotations

import sys

import uvicorn

import app.main
from app.commands.server import KEEP_ALIVE_S
from app.settings import Settings
from app.stores.budgets import Budgets
from app.stores.budgets_redis import RedisBudgets
from app.stores.budgets_sqlite import SqliteBudgets
from tests.upstream import PATIENCE_S


def budgets_with_lease(settings: Settings, lease_s: float) -> Budgets:
    """The ledger as `app.main` makes it, with another lease."""
    if settings.redis_url is None:
        return SqliteBudgets(settings.data_dir / "ledger.sqlite", lease_s=lease_s)
    return RedisBudgets(
        settings.redis_url.get_secret_value(), namespace=settings.redis_namespace, lease_s=lease_s, timeout_s=PATIENCE_S
    )


def main(port: int, lease_s: float) -> None:
    """Serve until killed."""
    app.main.make_budgets = lambda settings: budgets_with_lease(settings, lease_s)
    app.main.HEARTBEAT_S = lease_s / 4  # type: ignore[attr-defined]  # which is another module's
    gateway = app.main.Gateway(Settings())
    uvicorn.run(
        gateway,
        interface="asgi3",
        host="127.0.0.1",
        port=port,
        http="app.http.wire:WireProtocol",
        ws="none",
        log_level="warning",
        backlog=1024,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
