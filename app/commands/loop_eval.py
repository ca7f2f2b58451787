"""`bursar eval loop`: the experiments on the learning loop, with their marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands.ending import Refused, ending
from app.commands.evaluate import NEEDS_EXTRA, prices_of, read_data
from app.commands.terminal import complain, heading, say, say_json, table
from app.settings import installed_version

if TYPE_CHECKING:
    from routers.eval_loop import Experiment


@ending()
def loop(data: Path, names: Sequence[str], *, seeds: int, prices: Path | None, to: str | None, out: Path | None) -> int:
    """Run experiments on the rows of a folder and print their tables and marks; the exit code."""
    try:
        from app.learner.experiments import EXPERIMENTS  # noqa: PLC0415  (scikit-learn is an extra)
        from routers.eval_loop_world import Setting  # noqa: PLC0415
        from routers.eval_report import as_json  # noqa: PLC0415
        from routers.one_thread import one_thread  # noqa: PLC0415
    except ImportError as error:
        complain(f"{NEEDS_EXTRA} ({error})")
        return 1
    wanted = list(names) or list(EXPERIMENTS)
    if unknown := [name for name in wanted if name not in EXPERIMENTS]:
        raise Refused(f"no experiment is called '{unknown[0]}'; there are {', '.join(EXPERIMENTS)}")
    notes, rows = read_data(data)
    setting = Setting(rows, prices_of(prices), seeds, complain)
    with one_thread():
        if not setting.worlds():
            complain(f"{data}: no source has two models with a price (--prices) and outcomes on nearly all rows")
            return 1
        found = [EXPERIMENTS[name](setting) for name in wanted]
    if to != "-":
        _show(found, [*notes, *setting.notes])
    said = {"bursar": installed_version(), "seeds": seeds, "notes": [*notes, *setting.notes]}
    whole = {**said, "experiments": [as_json(one) for one in found]}
    return _write(whole, to, out, "\n\n".join(as_text(one) for one in found))


def as_text(one: Experiment) -> str:
    """An experiment as Markdown."""
    lines = [f"### {one.name}", "", *(f"{note}." for note in one.notes), ""]
    lines += ["| mark | found | met |", "|---|---|---|"]
    lines += [f"| {mark.asked} | {mark.found} | {'yes' if mark.met else '**no**'} |" for mark in one.marks]
    for sheet in one.sheets:
        lines += ["", f"{sheet.title}:", "", "| " + " | ".join(sheet.columns) + " |", "|---" * len(sheet.columns) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in sheet.rows]
    return "\n".join(lines)


def _show(found: Sequence[Experiment], notes: Sequence[str]) -> None:
    for note in notes:
        say(f"note: {note}")
    for one in found:
        for sheet in one.sheets:
            say()
            heading(sheet.title)
            table(sheet.columns, sheet.rows, right=sheet.right)
        for note in one.notes:
            say(f"note: {note}")
        for mark in one.marks:
            say(f"{'met' if mark.met else 'NOT met'}: {mark.asked}: {mark.found}")


def _write(whole: dict[str, Any], to: str | None, out: Path | None, text: str) -> int:
    try:
        if to == "-":
            say_json(whole)
        elif to is not None:
            Path(to).write_text(json.dumps(whole, indent=1), encoding="utf-8")
        if out is not None:
            out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        complain(f"the report could not be written: {error}")
        return 1
    return 0
