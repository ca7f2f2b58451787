"""Small JSON bodies as values; what is wrong with one is said with its parameter, in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from app.core.errors import BadRequest

_PLACE = re.compile(r"\$\.([a-z_]+)")
_UNKNOWN = re.compile(r"unknown field `([^`]{1,100})`")
T = TypeVar("T")


def read_json(decoder: msgspec.json.Decoder[T], raw: bytes, choices: Mapping[str, Iterable[str]]) -> T:
    """The body as the decoder's type; `choices`: what a parameter of few values may be. Raises BadRequest."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), choices) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body is not valid JSON.") from None


def _refusal(said: str, choices: Mapping[str, Iterable[str]]) -> BadRequest:
    unknown, place = _UNKNOWN.search(said), _PLACE.search(said)
    if unknown is not None:
        return BadRequest("There is no such parameter.", param=unknown[1])
    if "missing required field" in said:
        name = said.rpartition("field `")[2].partition("`")[0]
        return BadRequest(f"The parameter {name} is missing.", param=name)
    if place is None:
        return BadRequest("The body must be a JSON object.")
    name = place[1]
    if name in choices:
        return BadRequest(f"The parameter {name} must be one of: {', '.join(choices[name])}.", param=name)
    return BadRequest(f"The parameter {name} has the wrong type.", param=name)
