"""Locks on open files that end with their process, however it ends: what is locked is in use by a living one."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt
    import os
    import time

    _FAR = 1 << 40
    """A byte nobody reads or writes: locks of Windows keep others from the bytes themselves."""

    def try_lock(file: int) -> bool:
        """Lock an open file for as long as it is open; False where another process has it. Never waits."""
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

    def lock_for_writer(file: int) -> None:
        """Lock an open file for as long as it is open, waiting for all others to close theirs."""
        while not try_lock(file):
            time.sleep(0.01)

    lock_for_readers = lock_for_writer

else:
    import fcntl

    def try_lock(file: int) -> bool:
        """Lock an open file for as long as it is open; False where someone else has it. Never waits."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def lock_for_writer(file: int) -> None:
        """Lock an open file for as long as it is open, waiting for all others to close theirs."""
        fcntl.flock(file, fcntl.LOCK_EX)

    def lock_for_readers(file: int) -> None:
        """As `lock_for_writer`, beside others who only read."""
        fcntl.flock(file, fcntl.LOCK_SH)
