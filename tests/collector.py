"""Python's collector of cycles while tests run: it walks what a test has made, not all that is loaded.

A gateway in a process of its own keeps what is loaded when it begins from the collector for good. Here thousands begin
in one process: kept so, each would stay, 4 MB; not kept, all that tests have imported would be walked for each.
"""

from __future__ import annotations

import gc

from fastapi.dependencies import models as dependencies

FORGET = [found.cache_clear for found in vars(dependencies).values() if hasattr(found, "cache_clear")]
_freeze = gc.freeze
ALL_AFTER = 64
"""So many gateways may have been kept by mistake, for something still held them, until all is walked again."""
_running = _ended = 0


def rests() -> None:
    """Nothing is collected while tests are imported, for all of that stays; and gateways keep nothing from it."""
    gc.disable()
    gc.freeze = _left_to_us


def works() -> None:
    """It is at work from now on; what is loaded by now stays."""
    _freeze()
    gc.enable()


def keep() -> None:
    """What lives by now stays, unless a gateway is among it."""
    global _ended  # noqa: PLW0603
    if _running:
        return
    if _ended >= ALL_AFTER:
        gc.unfreeze()
        _ended = 0
    gc.collect()
    _freeze()


def gateway_began() -> None:
    """One serves in this process; `keep` was called before it was made."""
    global _running  # noqa: PLW0603
    _running += 1


def gateway_ended() -> None:
    """One has ended, and may go: FastAPI remembers each endpoint that it has looked at."""
    global _running, _ended  # noqa: PLW0603
    _running -= 1
    _ended += 1
    for forget in FORGET:
        forget()


def _left_to_us() -> None:
    """In place of `gc.freeze`."""
