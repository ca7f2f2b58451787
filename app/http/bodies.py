"""Small bodies, read no further than they may go; JSON as values, where what is wrong is said in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request

from app.core.errors import BadRequest, TooLarge
from app.core.raw import UNREADABLE
from app.http.hot import ClientLeft, read_away, read_body

_PLACE = re.compile(r"\$\.([a-z_]+)")
_UNKNOWN = re.compile(r"unknown field `([^`]{1,100})`")
T = TypeVar("T")


async def bounded_body(request: Request, most_bytes: int) -> bytes:
    """The body of a request that is not hot. Raises TooLarge before any more of it is kept, or BadRequest for half of
    one."""
    headers = dict(request.headers)
    try:
        return await read_body(headers, request.receive, most_bytes)
    except TooLarge:
        await read_away(headers, request.receive)
        raise
    except ClientLeft:
        raise BadRequest("The body ended before it was whole.") from None


def read_json(decoder: msgspec.json.Decoder[T], raw: bytes, choices: Mapping[str, Iterable[str]]) -> T:
    """The body as the decoder's type; `choices`: what a parameter of few values may be. Raises BadRequest."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), choices) from None
    except UNREADABLE:
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
