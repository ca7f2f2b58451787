"""`bursar eval router`: routers on anybody's outcomes; and what `bursar eval` has in common: rows, prices, results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from app.commands.ending import Refused
from app.commands.policy import read_catalogue
from app.commands.terminal import complain, heading, install_with, say, say_json, table
from app.core.money import NANO_PER_USD
from app.settings import installed_version
from app.stores.prices import Catalogue

if TYPE_CHECKING:
    from routers.eval_report import Sheet
    from routers.eval_table import Prices
    from routers.evaluate import Options
    from routers.rows import Row

NEEDS_EXTRA = f"`bursar eval` needs scikit-learn and matplotlib: {install_with('train')}"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go besides the terminal; `json` may be `-` for stdout, instead of tables."""

    json: str | None = None
    html: Path | None = None
    png: Path | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `bursar eval router`, as `routers.evaluate.Options` has them."""

    routers: tuple[str, ...]
    cv: str
    seed: int
    resamples: int
    models: tuple[str, ...]
    strong: str | None
    weak: str | None
    fitted: bool


def router(data: Path, asked: Asked, *, prices: Path | None, outputs: Outputs) -> int:
    """Evaluate routers on the rows of a folder and print the tables; the exit code."""
    try:
        from routers.eval_contenders import UnknownRouter  # noqa: PLC0415  (scikit-learn is an extra)
        from routers.eval_plots import write_html, write_png  # noqa: PLC0415
        from routers.eval_report import as_json, sheets  # noqa: PLC0415
        from routers.evaluate import evaluate  # noqa: PLC0415
        from routers.one_thread import one_thread  # noqa: PLC0415
    except ImportError as error:
        complain(f"{NEEDS_EXTRA} ({error})")
        return 1
    try:
        notes, rows = read_data(data)
        with one_thread():
            report = evaluate(rows, _options(asked), prices_of(prices), say=complain)
    except (Refused, UnknownRouter) as problem:
        complain(str(problem))
        return 2
    if outputs.json != "-":
        show(sheets(report), [*notes, *report.notes], {s.source: s.notes for s in report.sources})
    whole = {"bursar": installed_version(), "data": str(data), "skipped": notes, **as_json(report)}
    writers: list[tuple[Path | None, Callable[[Path], Any]]] = [
        (outputs.html, lambda path: write_html(report, path)),
        (outputs.png, lambda path: write_png(report, path)),
    ]
    written = write(whole, outputs.json, writers if report.sources else [])
    return written if report.sources else 1


def _options(asked: Asked) -> Options:
    from routers.evaluate import Options  # noqa: PLC0415

    return Options(**asdict(asked))


def read_data(data: Path) -> tuple[list[str], list[Row]]:
    """Notes and rows of a folder; raises Refused where it holds none."""
    from routers.rows import RowsError, read_rows  # noqa: PLC0415

    notes: list[str] = []
    try:
        return notes, read_rows(data, notes)
    except RowsError as problem:
        raise Refused(str(problem)) from None


def show(found: Sequence[Sheet], notes: Sequence[str], of_source: dict[str, list[str]]) -> None:
    """Print the notes, those of each source after them, then the tables."""
    for note in notes:
        say(f"note: {note}")
    for source, own in of_source.items():
        for note in own:
            say(f"note: {source}: {note}")
    for sheet in found:
        say()
        heading(sheet.title)
        table(sheet.columns, sheet.rows, right=sheet.right)


def write(whole: dict[str, Any], to: str | None, writers: list[tuple[Path | None, Callable[[Path], Any]]]) -> int:
    """Write the whole as JSON (`-`: to stdout) and what else has a path; the exit code."""
    try:
        if to == "-":
            say_json(whole)
        elif to is not None:
            Path(to).write_text(json.dumps(whole, indent=1), encoding="utf-8")
        for path, write in writers:
            if path is not None:
                write(path)
    except OSError as error:
        complain(f"the report could not be written: {error}")
        return 1
    return 0


def prices_of(path: Path | None) -> Prices:
    """Prices by name: the file's, then those recalled in `routers/facts.py`, then the catalogue's."""
    from routers.facts import facts_of  # noqa: PLC0415

    own = {} if path is None else _price_file(path)
    catalogue = _catalogue()

    def price(model: str) -> tuple[float, float] | None:
        if model in own:
            return own[model]
        facts = facts_of(model)
        if facts.input_price is not None and facts.output_price is not None:
            return facts.input_price, facts.output_price
        return None if catalogue is None else _of_catalogue(catalogue, model)

    return price


def _catalogue() -> Catalogue | None:
    try:
        return read_catalogue()
    except Refused:
        return None


def _of_catalogue(catalogue: Catalogue, model: str) -> tuple[float, float] | None:
    entry = catalogue.entry(model) or catalogue.entry(model.rpartition("/")[2])
    if entry is None or entry.price is None:
        return None
    base = entry.price.base
    return base.input / NANO_PER_USD, base.output / NANO_PER_USD


def _price_file(path: Path) -> dict[str, tuple[float, float]]:
    """A file of `model: [input, output]` or `model: {input:, output:}`, dollars per million tokens, YAML or JSON."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path}: must map models to [input, output] in dollars per million tokens")
    found: dict[str, tuple[float, float]] = {}
    for model, price in value.items():
        pair = [price.get("input"), price.get("output")] if isinstance(price, dict) else price
        numbers = [float(n) for n in pair if _is_price(n)] if isinstance(pair, list) and len(pair) == 2 else []
        if len(numbers) != 2:
            raise Refused(f"{path}: {model}: must be [input, output] in dollars per million tokens")
        found[str(model)] = (numbers[0], numbers[1])
    return found


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
