"""What training writes and serving reads: named arrays in one .npz file, known by the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

FORMAT: Final = 2
FILE: Final = "router.npz"
CARD: Final = "MODEL_CARD.md"
"""What a folder of weights says of them, for people."""
HASH_CHARS: Final = 12

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class WeightsError(ValueError):
    """The file holds no weights that this version can use; the message names it."""


@dataclass(frozen=True)
class Weights:
    """All that a learned router knows. Names before the first slash say whose the arrays are: `item`, `term`,
    `ability`, `length`, `task` and `tried` (kinds of work), `serve` (how they are to be believed), `house` (what the
    traffic that they serve has taught)."""

    arrays: Arrays

    @property
    def version(self) -> str:
        """The first digits of the SHA-256 of every array's name, type, shape and bytes."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:HASH_CHARS]

    def without(self, owner: str) -> Weights:
        """All but one owner's."""
        return Weights({name: array for name, array in self.arrays.items() if not name.startswith(f"{owner}/")})

    def part(self, owner: str) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays of one owner, without its prefix."""
        prefix = f"{owner}/"
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


def save(weights: Weights, folder: Path) -> Path:
    """Write the artifact into a folder, the same bytes for the same weights; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    arrays: dict[str, Any] = {name: weights.arrays[name] for name in sorted(weights.arrays)}
    arrays["format"] = np.int64(FORMAT)
    arrays["version"] = np.str_(weights.version)
    partial = folder / f".{FILE}.partial"
    with partial.open("wb") as out:
        np.savez_compressed(out, **arrays)
    partial.replace(file)
    return file


def read(path: Path) -> Weights:
    """The weights of a file, or of a folder's `FILE`; raises OSError or WeightsError."""
    file = path / FILE if path.is_dir() else path
    try:
        with np.load(file, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except (BadZipFile, ValueError, EOFError) as error:
        raise WeightsError(f"{file.name}: not a file of weights: {error}") from None
    found = int(arrays.pop("format", np.int64(0)))
    said = str(arrays.pop("version", ""))
    if found != FORMAT:
        raise WeightsError(f"{file.name}: its format is {found}, and {FORMAT} is read here; train again")
    weights = Weights(arrays)
    if weights.version != said:
        raise WeightsError(f"{file.name}: its content does not match its version {said!r}")
    return weights
