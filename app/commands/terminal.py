"""What the commands print: tables and headings, with rich on a terminal and as plain aligned text when piped."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from typing import Any

GAP = "  "


def say(text: str = "") -> None:
    """A line on stdout, at once: whoever reads the pipe may be waiting for it."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """A value as JSON, for scripts."""
    say(json.dumps(value, indent=2))


def heading(text: str) -> None:
    """A line that names what follows."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  (only terminals pay for rich)
        from rich.text import Text  # noqa: PLC0415

        Console().print(Text(text, style="bold"))
    else:
        say(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Rows under their columns' names; the columns in `right` hold numbers."""
    if sys.stdout.isatty():
        _rich_table(columns, rows, right)
    else:
        say("\n".join(plain_table(columns, rows, right=right)))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> list[str]:
    """The table's lines as aligned text."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return [
        GAP.join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  (only terminals pay for rich)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console().print(shown)
