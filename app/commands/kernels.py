"""The same sums on every processor, for training and evaluation."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Final

KERNELS: Final = "Haswell"
"""OpenBLAS's name of its kernels for AVX2, which x86-64 processors have had since 2013 to 2017. Zen's round alike."""
CHOSEN_BY: Final = "OPENBLAS_CORETYPE"
PROCESSOR = Path("/proc/cpuinfo")


def pin_kernels() -> None:
    """Have OpenBLAS take these kernels where the processor can, whatever it has beside; call it before numpy is
    imported, else nothing changes.

    By itself OpenBLAS takes the newest that the processor has, and those of AVX-512 add up in another order: weights
    that were trained there would have another version. Who has set OPENBLAS_CORETYPE is not overruled.
    """
    if "numpy" not in sys.modules and platform.machine() in ("x86_64", "AMD64") and _has_avx2():
        os.environ.setdefault(CHOSEN_BY, KERNELS)


def _has_avx2() -> bool:
    """Whether Linux says so; elsewhere nobody is asked."""
    try:
        return {"avx2", "fma"} <= set(PROCESSOR.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
