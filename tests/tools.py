"""Programs that tests use and pip does not bring: from PATH, else unpacked from Debian's packages, without root.

They are kept under `.tools/`, outside of git.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from app.stores.file_lock import lock_for_writer

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "haproxy": "haproxy",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
"""The package that each program comes in."""
HEADLESS = "chromium-headless-shell"
"""Chromium that can show no window: a page takes it a third of the work."""
CHROMIUM = (HEADLESS, "chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process at a time installs: apt lets no second one in, and each would do the whole work again."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / ".lock").open("w") as file:
        lock_for_writer(file.fileno())
        yield


@cache
def tool(name: str) -> Path | None:
    """A program of PACKAGES, or one that a wheel brought beside this Python (kubectl, hadolint); None without it."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    if (found := shutil.which(name)) is not None:
        return Path(found)
    package = PACKAGES.get(name)
    if package is None:
        return None
    with alone():
        if not (TOOLS / package).exists():
            _unpack_debian(package, TOOLS / package)
    return next((path for path in TOOLS.glob(f"{package}/usr/*bin/{name}")), None)


def promtool() -> Path | None:
    """Prometheus' promtool."""
    return tool("promtool")


@cache
def alertmanager() -> tuple[str, ...] | None:
    """How to start Alertmanager; None without it.

    Debian's reads its templates from /usr/share: one that is unpacked gets a view of the file system in which that is
    its own, where the system lets users make such views.
    """
    program = tool("alertmanager") or tool("prometheus-alertmanager")
    if program is None or TOOLS not in program.parents:
        return None if program is None else (str(program),)
    seeing = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"')
    command = (*seeing, str(program.parents[1] / "share"), str(program))
    try:
        _run([*command, "--version"], TOOLS)
    except (subprocess.SubprocessError, OSError):
        return None
    return command


@cache
def s3fs() -> Path | None:
    """A folder for PYTHONPATH with fsspec's S3 and what it needs, of the versions that go with each other; None where
    pip cannot get it. Apart from ours, because its botocore is another."""
    version = fsspec.__version__
    folder = TOOLS / f"s3fs-{version}-{sys.version_info.major}.{sys.version_info.minor}"
    with alone():
        if not folder.exists():
            work = TOOLS / ".s3fs"
            shutil.rmtree(work, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", str(work)]
            try:
                _run([*pip, f"s3fs=={version}"], TOOLS)
                work.rename(folder)
            except (subprocess.SubprocessError, OSError):
                shutil.rmtree(work, ignore_errors=True)
                return None
    return folder


def environment_of(program: Path) -> dict[str, str]:
    """What an unpacked program needs to find the libraries that were unpacked beside it."""
    libraries = (
        [str(path) for path in program.parents[2].glob("usr/lib/*-linux-gnu")] if TOOLS in program.parents else []
    )
    return {**os.environ, **({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})}


@cache
def chromium() -> Path | None:
    """Chromium: from PATH, else installed from Debian's packages, which needs root and an index; or None."""
    found = _on_path(*CHROMIUM)
    if found is None:
        with alone():
            found = _on_path(*CHROMIUM) or _install_chromium()
    return found


def _install_chromium() -> Path | None:
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["apt-get", "update"], capture_output=True, check=True, timeout=420, env=quiet)
        for package in (HEADLESS, "chromium"):  # older systems have the second alone
            install = ["apt-get", "install", "-y", "--no-install-recommends", package]
            with contextlib.suppress(subprocess.SubprocessError, OSError):
                subprocess.run(install, capture_output=True, check=True, timeout=420, env=quiet)
                break
    return _on_path(*CHROMIUM)


def _on_path(*names: str) -> Path | None:
    return next((Path(found) for name in names if (found := shutil.which(name)) is not None), None)


def _unpack_debian(package: str, target: Path) -> None:
    """Unpack a package, and the libraries it needs that this machine lacks; nothing where apt has it not."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    # Renamed at the end: who is interrupted leaves no half a tool.
    work = TOOLS / f".{package}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        try:
            _run(["apt-get", "download", package, *_libraries(package)], work)
        except subprocess.CalledProcessError:  # a fresh machine has no lists of packages yet
            _run(["apt-get", "update"], work)
            _run(["apt-get", "download", package, *_libraries(package)], work)
        for archive in work.glob("*.deb"):
            _run(["dpkg-deb", "-x", archive.name, "out"], work)
        (work / "out").rename(target)
    except (subprocess.SubprocessError, OSError):
        return
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _libraries(package: str) -> list[str]:
    """Shared libraries that installing the package would bring; apt resolves, and installs nothing."""
    plan = _run(["apt-get", "install", "--simulate", "--no-install-recommends", package], TOOLS)
    return re.findall(r"^Inst (lib(?!js-)\S+)", plan, re.MULTILINE)


def _run(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True, timeout=120).stdout


def main() -> None:
    """Fetch all of them now, and say which are missing."""
    for name in PACKAGES:
        if tool(name) is None:
            print(f"No {name}: its tests are skipped.")
    if alertmanager() is None:
        print("Alertmanager cannot be started: its tests are skipped.")
    if s3fs() is None:
        print("No s3fs: traces on S3 are not tested.")
    if _on_path(HEADLESS) is None:
        with alone():
            _install_chromium()
    if chromium() is None:
        print("No Chromium: THE DASHBOARD IS NOT TESTED.")


if __name__ == "__main__":
    main()
