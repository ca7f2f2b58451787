"""Tools that tests use and pip does not bring, kept under `.tools/` outside of git."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"


@cache
def promtool() -> Path | None:
    """Prometheus' promtool: from PATH, else from `.tools/`, else unpacked there from Debian's package; or None."""
    found = shutil.which("promtool")
    if found is not None:
        return Path(found)
    kept = TOOLS / "prometheus" / "usr" / "bin" / "promtool"
    if not kept.exists():
        _unpack_debian("prometheus", TOOLS / "prometheus")
    return kept if kept.exists() else None


def _unpack_debian(package: str, target: Path) -> None:
    """Unpack a Debian package without root; does nothing where apt or the package is missing."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    # A directory per process, renamed at the end: parallel test workers must not see half a tool.
    work = TOOLS / f".{package}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        subprocess.run(["apt-get", "download", package], cwd=work, capture_output=True, check=True, timeout=120)
        archive = next(work.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive.name, "out"], cwd=work, capture_output=True, check=True, timeout=60)
        (work / "out").rename(target)
    except (subprocess.SubprocessError, OSError, StopIteration):
        return
    finally:
        shutil.rmtree(work, ignore_errors=True)
