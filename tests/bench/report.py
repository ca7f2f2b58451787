"""The figures as tables: rich on a terminal, Markdown elsewhere, with how they were taken underneath."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table

from tests.bench.memory import Growth
from tests.bench.micro import Part
from tests.bench.scenarios import SCENARIOS, Row

Cells = Sequence[str]
PLAIN = ("scenario", "CPU us/request", "busy %", "requests/s", "latency", "added", "MB")
STREAMS = ("scenario", "CPU us/chunk", "busy %", "chunks/s", "first byte", "added", "each chunk", "added", "MB")


class Report:
    """Prints to `out`; progress goes to standard error, and only to a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._rich = out.isatty()
        self._console = Console(file=out, highlight=False, soft_wrap=not self._rich)
        self._progress = Console(stderr=True, highlight=False)

    def progress(self, what: str) -> None:
        """What is going on."""
        if sys.stderr.isatty():
            self._progress.print(what, style="dim")

    def table(self, title: str, head: Cells, rows: Iterable[Cells]) -> None:
        """One table; the first column is text, the others are numbers."""
        listed = [list(row) for row in rows]
        if not self._rich:
            self._markdown(title, [list(head), *listed])
            return
        table = Table(title=title, title_justify="left")
        for number, name in enumerate(head):
            table.add_column(name, justify="right" if number else "left")
        for row in listed:
            table.add_row(*row)
        self._console.print(table)

    def _markdown(self, title: str, rows: list[list[str]]) -> None:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

        def line(cells: list[str]) -> str:
            first, *others = cells
            numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            return f"| {' | '.join([first.ljust(widths[0]), *numbers])} |"

        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        self.note("\n".join(["", f"**{title}**", "", line(rows[0]), line(rule), *map(line, rows[1:])]))

    def note(self, text: str = "") -> None:
        """A line of prose."""
        self._console.print(text, markup=False)

    def scenarios(self, rows: Sequence[Row]) -> None:
        """CPU and latency of every scenario, and what went wrong."""
        plain = [row for row in rows if not SCENARIOS[row.scenario].stream]
        streams = [row for row in rows if SCENARIOS[row.scenario].stream]
        runs = f"medians of {rows[0].reps}"
        if plain:
            self.table(f"Plain replies ({runs}, latency p50/p99 in ms)", PLAIN, map(_plain_cells, plain))
        if streams:
            self.table(f"Streams ({runs}, latency p50/p99 in ms)", STREAMS, map(_stream_cells, streams))
        self.note()
        for name in dict.fromkeys(row.scenario for row in rows):
            self.note(f"{name}: {SCENARIOS[name].about}")
        for row in rows:
            if row.errors:
                self.note(f"{row.scenario}, {row.system}: {row.errors} requests FAILED, first: {row.first_error}")
        for row in {row.system: row for row in rows if row.ready_s is not None}.values():
            self.note(f"{row.system} had answered its first chat completion {row.ready_s} s after its start")

    def memory(self, growth: Growth) -> None:
        """Resident memory against requests served."""
        rows = [(f"{count:,}", f"{mb:.1f}", f"{beside_mb:.1f}") for count, mb, beside_mb in growth.points]
        columns = ("requests", "RSS MB of the worker", "of processes beside it")
        self.table("Memory, a fresh task for every request, one in ten a stream", columns, rows)
        self.note(
            f"\n{growth.per_100k_mb:+.1f} MB per 100,000 requests over the last half, the worker alone"
            + (f"; {growth.errors} requests FAILED, the first with: {growth.first_error}" if growth.errors else "")
        )

    def micro(self, parts: Sequence[Part]) -> None:
        """CPU of the parts."""
        rows = [(p.name, p.per, f"{p.cpu_us:,.1f}", "" if p.wall_us is None else f"{p.wall_us:,.0f}") for p in parts]
        self.table("Parts, each alone in this process", ("part", "per", "CPU us", "wall us a batch"), rows)

    def how(self, taken: Mapping[str, str], remarks: Iterable[str]) -> None:
        """How the figures were taken. Without this they mean nothing."""
        self.note("\nHow this was taken (add the date):")
        for name, value in taken.items():
            self.note(f"- {name}: {value}")
        for remark in remarks:
            self.note(f"- {remark}")


def _plain_cells(row: Row) -> list[str]:
    return [
        f"{row.scenario} {row.system}",
        _number(row.cpu_us_per_request),
        _number(row.busy_percent),
        _number(row.requests_per_s),
        _times(row.p50_us, row.p99_us),
        _times(row.added_p50_us, row.added_p99_us),
        _number(row.rss_mb),
    ]


def _stream_cells(row: Row) -> list[str]:
    return [
        f"{row.scenario} {row.system}",
        _number(row.cpu_us_per_chunk, 1),
        _number(row.busy_percent),
        _number(row.chunks_per_s),
        _times(row.first_p50_us, row.first_p99_us),
        _times(row.added_first_p50_us, row.added_first_p99_us),
        _times(row.late_p50_us, row.late_p99_us),
        _times(row.added_late_p50_us, row.added_late_p99_us),
        _number(row.rss_mb),
    ]


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _times(p50_us: float | None, p99_us: float | None) -> str:
    if p50_us is None or p99_us is None:
        return ""
    return "/".join(f"{round(us / 1000, 2) + 0.0:.2f}" for us in (p50_us, p99_us))  # + 0.0: no negative zero
