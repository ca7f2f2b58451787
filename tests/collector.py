"""Python's collector of cycles while tests run: it walks what a test has made, not all that is loaded.

A gateway in a process of its own keeps what is loaded when it begins from the collector for good. Here thousands begin
in one process: kept so, each would stay, 4 MB; not kept, all that tests have imported would be walked for each.
"""

from __future__ import annotations

import gc

ALL_AFTER = 48
"""After so many gateways all is walked again: some were kept, for they still ran, or something still held them."""
_freeze = gc.freeze
_ended = 0


def rests() -> None:
    """Nothing is collected while tests are imported, for all of that stays; and gateways keep nothing from it."""
    gc.disable()
    gc.freeze = _left_to_us


def works() -> None:
    """It is at work from now on; what is loaded by now stays."""
    _freeze()
    gc.enable()


def keep() -> None:
    """What lives by now stays: called after each module."""
    gc.collect()
    _freeze()


def before_gateway() -> None:
    """What lives by now stays, but is walked now and then."""
    global _ended  # noqa: PLW0603
    if _ended >= ALL_AFTER:
        gc.unfreeze()
        gc.collect()
        _ended = 0
    _freeze()


def gateway_ended() -> None:
    """It may go."""
    global _ended  # noqa: PLW0603
    _ended += 1


def _left_to_us() -> None:
    """In place of `gc.freeze`."""
