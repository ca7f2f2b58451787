"""The model card of weights that rows have taught: what they were made of, and how to find out what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routers.artifact import Weights
from routers.rows import Row


def card(weights: Weights, rows: Sequence[Row], *, seed: int, own: bool) -> str:
    """Of weights and the rows that taught them (`train.taught_by`), in Markdown."""
    command = f"bursar train --data DIR --seed {seed}" + (" --own" if own else "")
    of_source: dict[str, list[Row]] = {}
    for row in rows:
        of_source.setdefault(row.source, []).append(row)
    tried = ", ".join(str(name) for name in weights.part("tried")["tasks"]) or "none"
    trust = float(weights.part("serve")["trust"])
    believed = (
        "The rows are taken to be of the traffic that is served: all they tell of a model is believed."
        if own
        else f"On other traffic a model's slopes are drawn towards the typical one's (trust {trust:g})."
    )
    lines = [
        f"# Weights {weights.version}",
        "",
        f"Made by `{command}`; the version is the hash of their content. Of questions that a source asks twice the "
        "first is taken, and of agents around a model nothing is learned where there is anything else. No row is in "
        "them.",
        "",
        "| source | questions | families | models | outcomes | mean score |",
        "|---|---|---|---|---|---|",
        *(_line(source, some) for source, some in of_source.items()),
        "",
        f"Kinds of work that enough of them are of: {tried}. Of all others, and in circumstances that no row was "
        f"recorded in, the router says that it is not sure. {believed}",
        "",
        "Nothing was held out, so there are no figures here. `bursar eval router --data DIR --router learned --cv "
        "family` trains in the same way without the families that it then measures on; `--cv source` without a source.",
        "",
    ]
    return "\n".join(lines)


def _line(source: str, rows: Sequence[Row]) -> str:
    models = {model for row in rows for model in row.outcomes}
    scores = [outcome.score for row in rows for outcome in row.outcomes.values()]
    name = " ".join(source.split()).replace("|", "\\|")
    families = len({row.family for row in rows})
    return f"| {name} | {len(rows)} | {families} | {len(models)} | {len(scores)} | {np.mean(scores):.3f} |"
