"""Plots of an evaluation: cost and quality with hulls, and the reliability diagram, as PNG or in one HTML file."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routers.eval_baselines import ORACLE, STATIC
from routers.eval_metrics import hull
from routers.eval_report import Sheet, sheets
from routers.evaluate import Report, SourceReport

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0 2rem;font-size:13px}td,th{padding:.2rem .6rem;text-align:left}"
    "th{border-bottom:1px solid #888}tr:nth-child(even){background:#f4f4f4}.n{text-align:right}img{max-width:100%}"
    "div.wide{overflow-x:auto}"
)


def write_png(report: Report, path: Path) -> None:
    """Both plots of every source, one below another. OSError where the file cannot be written."""
    path.write_bytes(_png(report.sources))


def write_html(report: Report, path: Path) -> None:
    """One file with all tables and plots. OSError where it cannot be written."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Router evaluation</title><style>{STYLE}</style>"]
    parts.append("<h1>Router evaluation</h1>")
    options = report.options
    about = f"cv {options.cv}, seed {options.seed}, {options.resamples} bootstrap resamples, {report.rows} rows"
    parts.append(f"<p>{html.escape(about)}. Intervals are 95 %, percentile, over question groups.</p>")
    parts += [f"<p>Note: {html.escape(note)}</p>" for note in report.notes]
    for source in report.sources:
        parts.append(f"<h2>{html.escape(source.source)}</h2>")
        parts += [f"<p>Note: {html.escape(note)}</p>" for note in source.notes]
        image = base64.b64encode(_png([source])).decode()
        parts.append(f'<img alt="Cost and quality; reliability" src="data:image/png;base64,{image}">')
    parts += [_table(sheet) for sheet in sheets(report)]
    path.write_text("\n".join(parts), encoding="utf-8")


def _table(sheet: Sheet) -> str:
    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="n"' if column in sheet.right else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in sheet.columns)
    lines = ["".join(cell("td", c, text) for c, text in zip(sheet.columns, row, strict=True)) for row in sheet.rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<h3>{html.escape(sheet.title)}</h3><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _png(sources: Sequence[SourceReport]) -> bytes:
    from matplotlib.figure import Figure  # noqa: PLC0415  (half a second that tables do not need)

    figure = Figure(figsize=(13, 5 * max(len(sources), 1)), layout="constrained")
    axes = figure.subplots(max(len(sources), 1), 2, squeeze=False)
    for (left, right), source in zip(axes, sources, strict=False):
        _curves(left, source)
        _reliability(right, source)
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=110)
    return made.getvalue()


def _curves(axes: Any, source: SourceReport) -> None:
    priced = [(cost.value, quality.value) for _, quality, cost in source.models if cost.value > 0]
    if priced:
        axes.scatter(*zip(*priced, strict=True), s=14, color="#999", label="models", zorder=3)
    for measured in [*source.routers, *source.baselines]:
        points = [(x, y) for x, y in measured.curve if x > 0 and math.isfinite(y)]
        if len(points) < 2:
            continue
        xs, ys = zip(*points, strict=True)
        if measured in source.routers:
            (line,) = axes.plot(xs, ys, linewidth=2.2, label=measured.name, zorder=4)
            corners = hull(np.array(xs), np.array(ys))
            axes.plot(*corners, linestyle=":", linewidth=1.2, color=line.get_color(), label=f"{measured.name}, hull")
        else:
            plain = {STATIC: ("#000", "-"), ORACLE: ("#2a2", "-")}.get(measured.name, (None, "--"))
            axes.plot(xs, ys, linewidth=1.2, color=plain[0], linestyle=plain[1], label=measured.name, alpha=0.8)
    axes.set(xlabel="dollars a call", ylabel="quality", title=f"{source.source}: cost and quality")
    if axes.lines:
        axes.set_xscale("log")
        axes.legend(fontsize=7)


def _reliability(axes: Any, source: SourceReport) -> None:
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
    for measured in [*source.routers, *source.baselines]:
        if measured.reliability:
            p, y, _ = zip(*measured.reliability, strict=True)
            own = measured in source.routers
            axes.plot(p, y, marker="o" if own else None, linewidth=2 if own else 1, markersize=4, label=measured.name)
    axes.set(xlabel="P(success) said", ylabel="share that succeeded", title=f"{source.source}: reliability")
    axes.legend(fontsize=7)
