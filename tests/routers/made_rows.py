"""Synthetic rows of outcomes for tests of training and evaluation; no real question is among them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routers.rows import Outcome, Row

TOPICS = ("planets", "ledgers", "verbs", "beetles", "bridges", "tides")


def made_rows(
    count: int = 120,
    *,
    source: str = "made",
    families: Sequence[str] = ("a", "b", "c"),
    seed: int = 0,
    costs: bool = True,
) -> list[Row]:
    """Three models: cheap 40 %, middle 60 %, dear 80 %; what is easy for one is easier for all."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        hard = float(rng.random())
        words = " ".join(rng.choice(TOPICS, 6))
        outcomes = {
            name: Outcome(float(rng.random() < rate + 0.4 * (0.5 - hard)), cost_usd=cost if costs else None)
            for name, rate, cost in (("cheap-7b", 0.4, 0.001), ("middle-70b", 0.6, 0.004), ("dear-405b", 0.8, 0.02))
        }
        rows.append(Row(f"{source}:{i}", source, families[i % len(families)], f"{source} {i}: {words}?", (), outcomes))
    return rows


def line_of(row: Row) -> dict[str, Any]:
    """The JSON object of a row."""
    outcomes = {
        model: {key: value for key in o.__slots__ if (value := getattr(o, key)) is not None}
        for model, o in row.outcomes.items()
    }
    named = {"id": row.id, "source": row.source, "family": row.family, "prompt": row.prompt, "outcomes": outcomes}
    return {**named, "tools": list(row.tools)} if row.tools else named


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """A file of rows, gzipped where its name says so."""
    text = "".join(json.dumps(line_of(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path
