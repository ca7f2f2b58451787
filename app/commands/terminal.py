"""What the commands print: tables and headings, with rich on a terminal and as plain aligned text when piped."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Collection, Sequence
from typing import Any

GAP = "  "
PADDING = 3
"""Signs between two columns of a table on a terminal."""
FOLDED = 24
"""Texts of a table are folded to so many columns where the terminal is narrow; numbers never are."""


def say(text: str = "") -> None:
    """A line on stdout, at once: whoever reads the pipe may be waiting for it."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def install_with(extra: str) -> str:
    """The command that adds an extra to this installation. Another Python would look for a package of this name, and
    there is none of ours."""
    return f"{shlex.quote(sys.executable)} -m pip install 'bursar[{extra}]'"


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


def visible(text: str) -> str:
    """The text with whatever steers a terminal, breaks a line or turns its direction as an escape: names that clients
    choose are printed, too."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Rows under their columns' names; the columns in `right` hold numbers."""
    columns = [visible(column) for column in columns]
    rows = [[visible(cell) for cell in row] for row in rows]
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
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    needed = 0
    for index, column in enumerate(columns):
        number = column in right
        widest = max(cell_len(line[index]) for line in (columns, *rows))
        least = widest if number else min(widest, FOLDED)
        needed += least + PADDING
        shown.add_column(
            Text(column), justify="right" if number else "left", overflow="fold", no_wrap=number, min_width=least
        )
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    # What is too wide all the same is wrapped by the terminal, line by line: squeezed columns cannot be read.
    Console(width=max(Console().width, needed)).print(shown)
