"""The report: the dashboard's charts and their figures in one file, which needs no gateway, no network, no server.

Its modules are `data:` URLs that an import map names, so that they are the very files the dashboard serves.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from typing import Any

import msgspec

from app.http.dashboard.assets import STATIC

_STYLES = ("base", "layout", "parts", "views", "report")
_NAMES = "bursar/"
_IMPORT = re.compile(r'(\bfrom |\bimport )"(\.\.?/[^"]+)"')
_START = f'import "{_NAMES}js/report.js";'


def report_page(figures: dict[str, Any]) -> str:
    """The whole file."""
    early, chart = _read("js/early.js"), _read("vendor/chart.umd.min.js")
    names = msgspec.json.encode({"imports": _modules()}).decode()
    return _PAGE.format(
        policy=_content_policy(early, chart, names, _START),
        styles=_styles(),
        early=early,
        chart=chart,
        names=names,
        start=_START,
        icon=_data("image/svg+xml", (STATIC / "icon.svg").read_bytes()),
        figures=_as_text(figures),
    )


def _modules() -> dict[str, str]:
    """Every module under a bare name, importing the others by theirs."""
    found = {}
    for file in sorted((STATIC / "js").rglob("*.js")):
        path = file.relative_to(STATIC).as_posix()
        if path not in ("js/app.js", "js/early.js"):
            found[_NAMES + path] = _data("text/javascript", _renamed(path, file.read_text()).encode())
    return found


def _renamed(path: str, text: str) -> str:
    """A module whose imports are bare names: relative ones mean nothing in a `data:` URL."""
    folder = posixpath.dirname(path)

    def bare(match: re.Match[str]) -> str:
        return f'{match[1]}"{_NAMES}{posixpath.normpath(posixpath.join(folder, match[2]))}"'

    return _IMPORT.sub(bare, text)


def _styles() -> str:
    font = _data("font/woff2", (STATIC / "vendor" / "inter-latin.woff2").read_bytes())
    return "\n".join(_read(f"css/{name}.css") for name in _STYLES).replace("../vendor/inter-latin.woff2", font)


def _content_policy(*scripts: str) -> str:
    """Nothing but these scripts, the modules in `data:`, and what is in the file."""
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes} data:; style-src 'unsafe-inline'; img-src data:; font-src data:;"
        " base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _as_text(figures: dict[str, Any]) -> str:
    """JSON in which nothing can end its element, nor begin another one."""
    text = msgspec.json.encode(figures).decode()
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _read(path: str) -> str:
    return (STATIC / path).read_text()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="content-security-policy" content="{policy}">
<title>Bursar report</title>
<link rel="icon" href="{icon}">
<style>{styles}</style>
<script>{early}</script>
</head>
<body class="report">
<header class="top"><p class="brand"><img src="{icon}" alt="" width="26" height="26"><span>Bursar</span></p>
<button id="theme" type="button" class="quiet"></button></header>
<main id="main">
<noscript><p class="empty">The charts are made by scripts in this file, which are switched off here.</p></noscript>
</main>
<div id="say" class="unseen" role="status" aria-live="polite"></div>
<script type="application/json" id="figures">{figures}</script>
<script>{chart}</script>
<script type="importmap">{names}</script>
<script type="module">{start}</script>
</body>
</html>
"""
