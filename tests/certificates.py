"""The certificates of the world's authorities, read once: each official SDK reads them for each client it makes, which
takes longer than most calls to a gateway on loopback, that shows none."""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any

import certifi

_read = ssl.create_default_context


def read_once() -> None:
    """Who asks for these certificates is given one context from now on; any other is made as ever."""
    ssl.create_default_context = shared


def shared(*said: Any, **named: Any) -> ssl.SSLContext:
    """In place of `ssl.create_default_context`."""
    file, folder = named.get("cafile"), named.get("capath")
    if said or named.keys() - {"cafile", "capath"} or not (file or folder):
        return _read(*said, **named)
    if file not in (None, certifi.where(), os.environ.get("SSL_CERT_FILE")):
        return _read(**named)
    return _once(file, folder)


@functools.cache
def _once(file: str | None, folder: str | None) -> ssl.SSLContext:
    return _read(cafile=file, capath=folder)
