"""JSON as it came: whether it is whole, and all the ways in which reading it fails."""

from __future__ import annotations

import msgspec
import pytest

from app.core.raw import ABSENT, UNREADABLE, is_whole

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", ['{"a": [1, {"b": null}]}', " {} ", "1", '"a"', "null"])
def test_a_value_is_whole(text: str) -> None:
    assert is_whole(text)


@pytest.mark.parametrize("text", ["", '{"a": 1', '{"a": "b', "{} {", "no JSON", '"\ud83d"', DEEP])
def test_what_breaks_off_or_cannot_be_read_is_not(text: str) -> None:
    assert not is_whole(text)


@pytest.mark.parametrize("data", [b"{", b'"\xff"', b"[1]", DEEP.encode()])
def test_reading_fails_in_these_ways_only(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(data, type=str)
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(b'{"a": 1, "b": %b' % data, type=dict[str, msgspec.Raw])


def test_what_is_absent_is_false() -> None:
    assert not ABSENT
