"""Fetch what the dashboard vendors, as `app/http/dashboard/static/vendor/manifest.json` pins it: `make vendor`.

Each package comes from npm in one archive, whose integrity must be the manifest's; nothing of it is run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.node_sdk import NODE, NPM
from tests.tools import ROOT

FOLDER = ROOT / "app" / "http" / "dashboard" / "static" / "vendor"
MANIFEST = FOLDER / "manifest.json"


def manifest() -> list[dict[str, Any]]:
    """The packages: name, version, licence, integrity of the archive; files, from where to where, with SHA-256."""
    found: list[dict[str, Any]] = json.loads(MANIFEST.read_text())["packages"]
    return found


def fetch(package: dict[str, Any]) -> None:
    """Write one package's files into the folder. Raises ValueError where anything is not what is pinned."""
    with tempfile.TemporaryDirectory() as work:
        named = f"{package['name']}@{package['version']}"
        subprocess.run(
            [str(NODE), str(NPM), "pack", "--silent", "--ignore-scripts", named], cwd=work, check=True, timeout=120
        )
        (archive,) = Path(work).glob("*.tgz")
        digest = hashlib.sha512(archive.read_bytes()).digest()
        if f"sha512-{base64.b64encode(digest).decode()}" != package["integrity"]:
            raise ValueError(f"{named} is not the archive that is pinned")
        with tarfile.open(archive) as opened:
            for file in package["files"]:
                member = opened.extractfile(f"package/{file['from']}")
                data = b"" if member is None else member.read()
                if hashlib.sha256(data).hexdigest() != file["sha256"]:
                    raise ValueError(f"{named}: {file['from']} is not the file that is pinned")
                (FOLDER / file["to"]).write_bytes(data)


if __name__ == "__main__":
    for pinned in manifest():
        fetch(pinned)
        sys.stdout.write(f"{pinned['name']} {pinned['version']}\n")
