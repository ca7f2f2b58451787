"""`bursar train`: from outcomes to the weights of the learned router."""

from __future__ import annotations

from pathlib import Path

import routers
from app.commands.terminal import complain, install_with, say

SHIPPED = Path(routers.__path__[0]) / "weights"
NEEDS_EXTRA = f"`bursar train` needs scikit-learn: {install_with('train')}"


def train(data: Path, out: Path | None, *, seed: int, own: bool = False) -> int:
    """Train on the rows of a folder and write the artifact with its card; the exit code. `own`: see
    `routers.train.train`."""
    try:
        from routers.artifact import CARD, save  # noqa: PLC0415
        from routers.one_thread import one_thread  # noqa: PLC0415
        from routers.rows import RowsError, read_rows  # noqa: PLC0415
        from routers.train import taught_by  # noqa: PLC0415  (scipy comes with an extra)
        from routers.train import train as fit  # noqa: PLC0415
        from routers.train_card import card  # noqa: PLC0415
    except ImportError as error:
        complain(f"{NEEDS_EXTRA} ({error})")
        return 1
    notes: list[str] = []
    try:
        rows = read_rows(data, notes)
        say(f"{len(rows)} questions of {len({row.source for row in rows})} sources")
        for note in notes:
            say(f"  {note}")
        with one_thread():
            weights = fit(rows, seed=seed, own=own)
    except (RowsError, ValueError) as error:
        complain(str(error))
        return 1
    folder = SHIPPED if out is None else out
    try:
        file = save(weights, folder)
        if not _is_of(weights.version, folder / CARD):
            (folder / CARD).write_text(card(weights, taught_by(rows), seed=seed, own=own), encoding="utf-8")
    except OSError as error:
        complain(f"{folder} cannot be written: {error.strerror or error}")
        return 1
    say(f"{file}: version {weights.version}, {file.stat().st_size / 1e6:.1f} MB")
    return 0


def _is_of(version: str, card: Path) -> bool:
    """Whether there is a card of these very weights: somebody may have written what was measured into it."""
    return card.exists() and f" {version}" in card.read_text(encoding="utf-8", errors="replace")
