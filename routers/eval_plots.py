"""Plots of an evaluation, as PNG or in one HTML file: cost and quality with hulls, and reliability; of new models,
error and regret by labels."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routers.eval_baselines import ORACLE, STATIC
from routers.eval_bootstrap import Estimate
from routers.eval_metrics import hull
from routers.eval_newcomer import Line, Newcomer
from routers.eval_report import Sheet, sheets
from routers.evaluate import Report, SourceReport

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0 2rem;font-size:13px}td,th{padding:.2rem .6rem;text-align:left}"
    "th{border-bottom:1px solid #888}tr:nth-child(even){background:#f4f4f4}.n{text-align:right}img{max-width:100%}"
    "div.wide{overflow-x:auto}"
)
LINE_INCHES, DOTS = 5.0, 110.0
"""Height of a line of plots, and its dots an inch."""
MOST_DOTS = 60_000.0
"""Height of a picture: matplotlib draws less than 2^16."""


def write_png(report: Report, path: Path) -> None:
    """Both plots of every source, one below another. OSError where the file cannot be written."""
    path.write_bytes(_png(report.sources))


def write_html(report: Report, path: Path) -> None:
    """One file with all tables and plots. OSError where it cannot be written."""
    options = report.options
    about = f"cv {options.cv}, seed {options.seed}, {options.resamples} bootstrap resamples, {report.rows} rows"
    parts = [
        f"<p>{html.escape(about)}. Intervals are 95 %, percentile, over question groups.</p>",
        *_said(report.notes),
    ]
    for source in report.sources:
        parts += [f"<h2>{html.escape(source.source)}</h2>", *_said(source.notes)]
        parts.append(_image("Cost and quality; reliability", _png([source])))
    _write_page("Router evaluation", parts, sheets(report), path)


def write_newcomers_png(found: Sequence[Newcomer], path: Path) -> None:
    """Error and regret of each new model over numbers of labels. OSError where the file cannot be written."""
    path.write_bytes(_newcomers_png(found))


def write_newcomers_html(found: Sequence[Newcomer], tables: Sequence[Sheet], notes: Sequence[str], path: Path) -> None:
    """One file with tables and plots of new models. OSError where it cannot be written."""
    about = "Intervals: the 2.5th and 97.5th percentile of draws of labels and of halves of the questions."
    parts = [f"<p>{html.escape(about)}</p>", *_said(notes)]
    for one in found:
        parts += [f"<h2>{html.escape(f'{one.source}: {one.model}')}</h2>", *_said(one.notes)]
        parts.append(_image("Error and regret by labels", _newcomers_png([one])))
    _write_page("New models", parts, tables, path)


def _write_page(title: str, parts: Sequence[str], tables: Sequence[Sheet], path: Path) -> None:
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    path.write_text("\n".join([head, *parts, *map(_table, tables)]), encoding="utf-8")


def _said(notes: Sequence[str]) -> list[str]:
    return [f"<p>Note: {html.escape(note)}</p>" for note in notes]


def _image(said: str, png: bytes) -> str:
    return f'<img alt="{said}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(sheet: Sheet) -> str:
    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="n"' if column in sheet.right else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in sheet.columns)
    lines = ["".join(cell("td", c, text) for c, text in zip(sheet.columns, row, strict=True)) for row in sheet.rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<h3>{html.escape(sheet.title)}</h3><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _png(sources: Sequence[SourceReport]) -> bytes:
    return _drawn(sources, _curves, _reliability)


def _newcomers_png(found: Sequence[Newcomer]) -> bytes:
    return _drawn(found, _errors, _regrets)


def _drawn(lines: Sequence[Any], left: Callable[[Any, Any], None], right: Callable[[Any, Any], None]) -> bytes:
    """Two plots for each line, one below another; of very many lines smaller ones."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (half a second that tables do not need)

    high = LINE_INCHES * max(len(lines), 1)
    figure = Figure(figsize=(13, high), layout="constrained")
    axes = figure.subplots(max(len(lines), 1), 2, squeeze=False)
    for (first, second), one in zip(axes, lines, strict=False):
        left(first, one)
        right(second, one)
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=min(DOTS, MOST_DOTS / high))
    return made.getvalue()


def _plain(name: str) -> str:
    """A name with two dollar signs is no formula."""
    return name.replace("$", r"\$")


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
            (line,) = axes.plot(xs, ys, linewidth=2.2, label=_plain(measured.name), zorder=4)
            corners = hull(np.array(xs), np.array(ys))
            axes.plot(
                *corners, linestyle=":", linewidth=1.2, color=line.get_color(), label=f"{_plain(measured.name)}, hull"
            )
        else:
            plain = {STATIC: ("#000", "-"), ORACLE: ("#2a2", "-")}.get(measured.name, (None, "--"))
            axes.plot(xs, ys, linewidth=1.2, color=plain[0], linestyle=plain[1], label=_plain(measured.name), alpha=0.8)
    axes.set(xlabel="dollars a call", ylabel="quality", title=f"{_plain(source.source)}: cost and quality")
    if axes.lines:
        axes.set_xscale("log")
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside: inside it would hide models


def _reliability(axes: Any, source: SourceReport) -> None:
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
    for measured in [*source.routers, *source.baselines]:
        if measured.reliability:
            p, y, _ = zip(*measured.reliability, strict=True)
            own = measured in source.routers
            axes.plot(
                p, y, marker="o" if own else None, linewidth=2 if own else 1, markersize=4, label=_plain(measured.name)
            )
    axes.set(xlabel="P(success) said", ylabel="share that succeeded", title=f"{_plain(source.source)}: reliability")
    axes.legend(fontsize=7)


def _errors(axes: Any, one: Newcomer) -> None:
    _by_labels(axes, one, lambda line: line.error)
    axes.set(xlabel="labels", ylabel="error of its success rate, points", title=_title(one))


def _regrets(axes: Any, one: Newcomer) -> None:
    priced = [line.regret for line in one.lines if line.regret]
    price = list(priced[0])[len(priced[0]) // 2] if priced else "0"
    _by_labels(axes, one, lambda line: line.regret.get(price))
    axes.set(
        xlabel="labels", ylabel=f"regret, points, a call of the best costing {float(price):.0%}", title=_title(one)
    )


def _by_labels(axes: Any, one: Newcomer, figure: Callable[[Line], Estimate | None]) -> None:
    """A line a method over its numbers of labels, with a band of its draws; level where it needs none."""
    for method in dict.fromkeys(line.method for line in one.lines):
        found = [(line.labels, figure(line)) for line in one.lines if line.method == method]
        known = [(labels, 100 * e.value, 100 * e.low, 100 * e.high) for labels, e in found if e is not None]
        if not known:
            continue
        labels, value, low, high = zip(*known, strict=True)
        if len(known) == 1 and not labels[0]:
            axes.axhline(
                value[0], linestyle="--", linewidth=1, color="#999" if "all" in method else "#555", label=method
            )
            continue
        (line,) = axes.plot(labels, value, marker="o", markersize=4, label=method)
        axes.fill_between(labels, low, high, color=line.get_color(), alpha=0.12)
    if axes.lines:
        axes.legend(fontsize=7)


def _title(one: Newcomer) -> str:
    return _plain(f"{one.source}: {one.model} as a new model")
