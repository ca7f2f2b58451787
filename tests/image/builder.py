"""Builds the image of `deploy/Dockerfile` without a container engine: with buildah, as root, isolated by chroot.

Where the base image cannot be pulled, Debian of the same name with its own Python, made by debootstrap, stands for it.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
NEEDED = ("buildah", "debootstrap", "unshare", "mount", "chroot")
_CLEAN = "rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*"


@dataclass(frozen=True)
class Image:
    """What was built: its root file system, which nobody has written to yet, and what it says of itself."""

    root: Path
    config: dict[str, Any]
    health: list[str]


class Builder:
    """One store of images in a folder, away from any other of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = DOCKERFILE.read_text()
        (tag,) = re.findall(r"^ARG PYTHON=(\S+)$", text, re.MULTILINE)
        self.base, self.python, self.suite = f"docker.io/library/python:{tag}", tag.split("-")[0], tag.split("-")[-1]

    def build(self) -> Image:
        """The image, with a base under its own name."""
        if not self._pulled():
            self._stand_in()
        # With `docker` as its format: the other one knows no health checks.
        self._buildah("bud", "--format=docker", "--pull-never", *self._mounts(), "-f", str(DOCKERFILE), "-t", "bursar",
                      str(ROOT))  # fmt: skip
        told = json.loads(self._buildah("inspect", "--type=image", "bursar"))["Docker"]["config"]
        made = self._buildah("from", "--pull-never", "bursar").strip()
        return Image(Path(self._buildah("mount", made).strip()), told, told["Healthcheck"]["Test"][1:])

    def _pulled(self) -> bool:
        try:
            self._buildah("pull", self.base)
        except subprocess.CalledProcessError:
            return False
        return True

    def _stand_in(self) -> None:
        root = self.folder / "base"
        packages = "--include=python3,python3-venv,ca-certificates"
        run("debootstrap", "--variant=minbase", packages, self.suite, str(root))
        for place in ("proc", "sys"):  # debootstrap leaves them mounted
            subprocess.run(["umount", root / place], capture_output=True, check=False)
        run("chroot", str(root), "sh", "-c", _CLEAN)
        (root / "usr/bin/python").symlink_to("python3")
        found = run("chroot", str(root), "python", "--version").split()[1]
        assert found.startswith(self.python + "."), f"{self.suite} has Python {found}"
        context = self.folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text('FROM scratch\nCOPY . /\nCMD ["python"]\n')
        self._buildah("bud", "-f", str(context / "Dockerfile"), "-t", self.base, str(root))
        shutil.rmtree(root)

    def _mounts(self) -> list[str]:
        """The index that pip asks here is the one that pip asks in the build: its settings, and the files they name."""
        told = [line.partition("=") for line in run(sys.executable, "-m", "pip", "config", "list").splitlines()]
        found = {name.rpartition(".")[2]: ast.literal_eval(value) for name, _, value in told}
        settings = self.folder / "pip.conf"
        settings.write_text("".join(["[global]\n", *(f"{name} = {value}\n" for name, value in found.items())]))
        named = [word for value in found.values() for word in str(value).split()]
        # The links of a page of an index lead beside it.
        places = {Path(word.removeprefix("file://")).parent for word in named if word.startswith("file://")}
        places |= {Path(word) for word in named if word.startswith("/") and Path(word).exists()}
        return [f"--volume={settings}:/etc/pip.conf:ro", *(f"--volume={place}:{place}:ro" for place in sorted(places))]

    def _buildah(self, verb: str, *arguments: str) -> str:
        store = [f"--root={self.folder / 'store'}", f"--runroot={self.folder / 'run'}", "--storage-driver=vfs"]
        isolated = ["--isolation=chroot"] if verb == "bud" else []
        return run("buildah", *store, verb, *isolated, *arguments)


def run(*command: str) -> str:
    """What it says, once it has ended well; CalledProcessError with the end of what it said otherwise."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command[0])
    return done.stdout


def missing() -> list[str]:
    """Programs without which no image can be built."""
    return [name for name in NEEDED if shutil.which(name) is None]
