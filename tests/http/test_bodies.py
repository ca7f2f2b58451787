"""What is wrong with a small JSON body is said with its parameter, and without the decoder's words."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from app.core.errors import BadRequest
from app.http.bodies import read_json


class Body(msgspec.Struct, forbid_unknown_fields=True):
    mood: Literal["glad", "sad"]
    size: float | None = None


DECODER = msgspec.json.Decoder(Body)


@pytest.mark.parametrize(
    ("raw", "param", "message"),
    [
        (b'{"mood": "glad", "sise": 1}', "sise", "There is no such parameter."),
        (b"{}", "mood", "The parameter mood is missing."),
        (b'{"mood": "odd"}', "mood", "The parameter mood must be one of: glad, sad."),
        (b'{"mood": "sad", "size": "5"}', "size", "The parameter size has the wrong type."),
        (b"[]", None, "The body must be a JSON object."),
        (b"{", None, "The body is not valid JSON."),
        (b'{"mood": "\xff"}', None, "The body is not valid JSON."),
        (b"[" * 100_000, None, "The body must be a JSON object."),
    ],
)
def test_each_mistake(raw: bytes, param: str | None, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_json(DECODER, raw, {"mood": ("glad", "sad")})
    assert (caught.value.param, caught.value.message) == (param, message)


def test_a_body_as_it_should_be() -> None:
    assert read_json(DECODER, b'{"mood": "sad"}', {}) == Body("sad")
