"""The routers that can be put to the test: the project's own by name, other people's as `module:callable`, which may be
`path/to/file.py:callable`.

Another router is one of
* `callable(prompts, models)` -> P(success), a matrix (prompts, models); NaN for a model it does not know;
* `callable(prompt)` -> how much the strong model of the pair is needed, in [0, 1], as RouteLLM's routers say it; an
  object with their method `calculate_strong_win_rate(prompt)` serves as well;
* an object (or a class of no arguments) with `score(features, arms)`, as `routers.base.Router`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from routers.base import Arm, Router
from routers.eval_policies import Forecast
from routers.eval_split import Fold
from routers.eval_table import Floats, Table
from routers.facts import arm_of_name
from routers.features import Features, extract
from routers.heuristic import HeuristicRouter
from routers.rows import Indices, view_of

Asked = Callable[[Table, Fold, tuple[int, int] | None], tuple[Forecast, Forecast]]
"""(table, fold, pair of strong and weak model) -> forecasts of its validation and of its test rows."""


class UnknownRouter(ValueError):
    """The router cannot be had; the message says why."""


@dataclass(frozen=True)
class Contender:
    """A router under test. `calibrated`: what it says is a probability of success of each model. `prudent`: it is also
    tested with the static mix in its place until outcomes speak for it."""

    name: str
    version: str
    ask: Asked
    calibrated: bool = True
    note: str = ""
    prudent: bool = False


class Readings:
    """Features of a table's rows and arms of its models, made once."""

    def __init__(self) -> None:
        self._features: dict[str, list[Features]] = {}
        self._arms: dict[str, list[Arm]] = {}

    def features(self, table: Table) -> list[Features]:
        if table.source not in self._features:
            self._features[table.source] = [extract(view_of(row)) for row in table.rows]
        return self._features[table.source]

    def arms(self, table: Table) -> list[Arm]:
        """Candidates as a policy would list them: a tier and a family by name, with the price of the table."""
        if table.source not in self._arms:
            rates = [None if np.isnan(rate).any() else (float(rate[0]), float(rate[1])) for rate in table.rates]
            arms = [arm_of_name(name, rate) for name, rate in zip(table.models, rates, strict=True)]
            self._arms[table.source] = arms
        return self._arms[table.source]


def scored(router: Router, table: Table, rows: Indices, readings: Readings) -> Forecast:
    """What a router of the gateway's protocol expects on some rows."""
    features, arms = readings.features(table), readings.arms(table)
    p, tokens = np.empty((len(rows), len(arms))), np.empty((len(rows), len(arms)))
    for line, row in enumerate(rows):
        for j, score in enumerate(router.score(features[int(row)], arms)):
            p[line, j], tokens[line, j] = score.p_success, score.output_tokens
    return Forecast(p, tokens)


def from_router(router: Router, readings: Readings, *, name: str | None = None, note: str = "") -> Contender:
    """A router as it is, trained on nothing here."""
    made: dict[str, Forecast] = {}

    def ask(table: Table, fold: Fold, _pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        if table.source not in made:
            made[table.source] = scored(router, table, np.arange(len(table.rows)), readings)
        whole = made[table.source]
        return whole.take(fold.validation), whole.take(fold.test)

    return Contender(name or router.name, router.version, ask, note=note)


def plugged_in(where: str, readings: Readings) -> Contender:
    """Another's router from `module:callable` or `file.py:callable`, where a module may lie in the working folder;
    UnknownRouter where it cannot be imported or is of no known form."""
    module, _, attribute = where.rpartition(":")
    with _theirs(where):
        found: Any = _module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        if inspect.isclass(found):
            found = found()
    if hasattr(found, "score") and not inspect.isfunction(found):
        return _guarded(from_router(found, readings, name=where))
    if hasattr(found, "calculate_strong_win_rate"):
        return _of_pair(where, found.calculate_strong_win_rate)
    if not callable(found):
        raise UnknownRouter(f"--router {where}: not callable")
    return _of_matrix(where, found) if _arguments(found) >= 2 else _of_pair(where, found)


def _module(name: str) -> Any:
    """A module by its name or its file. Python's own way with scripts: what lies in the working folder is found."""
    file = Path(name)
    sys.path.append(str(file.resolve().parent if file.suffix == ".py" else Path.cwd()))
    if file.suffix != ".py":
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"plugged_in_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _theirs(name: str) -> Iterator[None]:
    """What is raised by another's code is said with the line that raised it, as UnknownRouter."""
    try:
        yield
    except UnknownRouter:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = (
            ""
            if isinstance(error, ImportError | OSError)
            else f" ({type(error).__name__} at {last.filename}:{last.lineno})"
        )
        raise UnknownRouter(f"--router {name}: {error}{kind}") from error


def _arguments(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(each.kind in kinds and each.default is inspect.Parameter.empty for each in parameters)


def _guarded(contender: Contender) -> Contender:
    def ask(table: Table, fold: Fold, pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        with _theirs(contender.name):
            return contender.ask(table, fold, pair)

    return replace(contender, ask=ask)


def _of_matrix(name: str, function: Callable[[list[str], list[str]], Any]) -> Contender:
    def ask(table: Table, fold: Fold, _pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        found = []
        for rows in (fold.validation, fold.test):
            with _theirs(name):
                said = function([row.prompt for row in table.take(rows)], list(table.models))
                p = np.asarray(said, dtype=np.float64)
            if p.shape != (len(rows), len(table.models)):
                raise UnknownRouter(f"--router {name}: gave {p.shape}, wanted {(len(rows), len(table.models))}")
            found.append(Forecast(p))
        return found[0], found[1]

    return Contender(name, "", ask)


def _of_pair(name: str, function: Callable[[str], float]) -> Contender:
    def ask(table: Table, fold: Fold, pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        found = []
        for rows in (fold.validation, fold.test):
            with _theirs(name):
                needed: Floats = np.array([float(function(row.prompt)) for row in table.take(rows)], dtype=np.float64)
            # Only the order of the score is meant: as a choice between the two it is a threshold on it.
            p = np.full((len(rows), len(table.models)), np.nan)
            if pair is not None:
                p[:, pair[0]], p[:, pair[1]] = 1.0, 1.0 - needed
            found.append(Forecast(p, needed=needed))
        return found[0], found[1]

    return Contender(name, "", ask, calibrated=False, note="ranks prompts for the pair alone")


def heuristic(readings: Readings) -> Contender:
    """The router without learning."""
    return from_router(HeuristicRouter(), readings, note="knows names and prices")
