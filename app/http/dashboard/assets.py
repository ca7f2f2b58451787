"""The dashboard's files as they are served: from the package, under a path that names their content, with a policy
that lets nothing else into the page."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATIC = Path(__file__).resolve().parent / "static"
MOUNT = "/dashboard"
PLACE = "@assets@"
"""Stands in index.html for the folder under which the assets of this version are."""
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_SQUEEZED = (".html", ".css", ".js", ".svg")

CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""https://www.w3.org/TR/CSP3/ and, for the last two, https://www.w3.org/TR/trusted-types/: where a browser knows
them, no text can become HTML or script."""

GUARDED = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, ready to be sent."""

    kind: str
    data: bytes
    squeezed: bytes | None


@cache
def assets() -> dict[str, Asset]:
    """Every file by its path below the folder, read once; index.html is not among them."""
    files = sorted(file for file in STATIC.rglob("*") if file.suffix in _KINDS and file.name != "index.html")
    return {file.relative_to(STATIC).as_posix(): _asset(file.suffix, file.read_bytes()) for file in files}


@cache
def version() -> str:
    """A digest of all assets: a page finds the files it was made with, or none."""
    total = hashlib.sha256()
    for path, asset in assets().items():
        total.update(f"{path} {len(asset.data)}\n".encode() + asset.data)
    return total.hexdigest()[:16]


@cache
def index() -> Asset:
    """The page itself."""
    text = (STATIC / "index.html").read_text().replace(PLACE, f"{MOUNT}/assets/{version()}")
    return _asset(".html", text.encode())


def _asset(suffix: str, data: bytes) -> Asset:
    return Asset(_KINDS[suffix], data, gzip.compress(data, 6, mtime=0) if suffix in _SQUEEZED else None)
