"""`bursar eval new-model`: what a few outcomes of a new model are worth."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands.ending import Refused, ending
from app.commands.evaluate import NEEDS_EXTRA, Outputs, prices_of, read_data, show, write
from app.commands.terminal import complain
from app.settings import installed_version

if TYPE_CHECKING:
    from routers.eval_joining import Joining
    from routers.eval_newcomer import Newcomer
    from routers.eval_table import Prices
    from routers.rows import Row


@dataclass(frozen=True, slots=True)
class AskedOfNew:
    """The options of `bursar eval new-model`. `model`: several of each source where None. `apart`: with weights that
    know nothing of the source. `retrain`: with weights that know nothing of the model."""

    model: str | None
    labels: Sequence[int]
    draws: int
    seed: int
    retrain: bool
    apart: bool


@ending()
def new_model(data: Path, asked: AskedOfNew, *, prices: Path | None, outputs: Outputs) -> int:
    """Evaluate models of the data as if each were new, and print the tables; the exit code."""
    try:
        from routers.eval_newcomer import MIN_OUTCOMES, MIN_QUESTIONS  # noqa: PLC0415
        from routers.eval_plots import write_newcomers_html, write_newcomers_png  # noqa: PLC0415
        from routers.eval_report import as_json, newcomer_sheets, newcomers_sheets  # noqa: PLC0415
        from routers.one_thread import one_thread  # noqa: PLC0415  (scikit-learn is an extra)
    except ImportError as error:
        complain(f"{NEEDS_EXTRA} ({error})")
        return 1
    model = asked.model
    notes, rows = read_data(data)
    names = sorted({name for row in rows for name in row.outcomes})
    if model is not None and model not in names:
        close = difflib.get_close_matches(model, names, n=3)
        raise Refused(f"{data}: no outcomes of '{model}'" + (f"; similar names: {', '.join(close)}" if close else ""))
    price = prices_of(prices)
    with one_thread():
        found = _newcomers(rows, asked, price, notes)
    if not found:
        of, least = (f" of '{model}'", MIN_QUESTIONS) if model else (" of any model", MIN_OUTCOMES)
        complain(f"{data}: too few outcomes{of} beside other models: {least} are needed, on {MIN_QUESTIONS} questions")
        return 1
    sheets = [*(sheet for one in found if model for sheet in newcomer_sheets(one)), *newcomers_sheets(found)]
    if outputs.json != "-":
        show(sheets, notes, {one.source: one.notes for one in found})
    said = {"bursar": installed_version(), "data": str(data), "seed": asked.seed, "skipped": notes}
    return write(
        {**said, "sources": as_json(found)},
        outputs.json,
        [
            (outputs.html, lambda path: write_newcomers_html(found, sheets, notes, path)),
            (outputs.png, lambda path: write_newcomers_png(found, path)),
        ],
    )


def _newcomers(rows: list[Row], asked: AskedOfNew, price: Prices, notes: list[str]) -> list[Newcomer]:
    """What is found of each, by source; a note where the learned router cannot be had."""
    from routers.eval_contenders import UnknownRouter  # noqa: PLC0415
    from routers.eval_joining import joining_apart, joining_of  # noqa: PLC0415
    from routers.eval_newcomer import newcomer, spread_models  # noqa: PLC0415
    from routers.eval_table import tables  # noqa: PLC0415

    model, seed = asked.model, asked.seed
    learner_of: Callable[[str], Joining] | None = None
    found: list[Newcomer | None] = []
    for one in tables([row for row in rows if model is None or model in row.outcomes], price):
        learner = None
        try:
            if learner_of is None:
                without = model if asked.retrain else None
                learner_of = joining_apart(rows, seed) if asked.apart else joining_of(rows, without, seed)
            learner = learner_of(one.source)
        except UnknownRouter as problem:
            notes.append(f"{one.source}: {problem}: the other methods stand alone")
        names = [model] if model is not None else spread_models(one)
        found += [newcomer(one, name, asked.labels, learner, draws=asked.draws, seed=seed) for name in names]
    return [one for one in found if one is not None]
