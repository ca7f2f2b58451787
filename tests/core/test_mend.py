"""What is no JSON by the letter, made JSON."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.mend import _TOKEN, in_utf8, readable, well_formed

PIECES = ["\ud83d", "\ude00", "\\ ", "u", "d83d", '"', "\n", "\U0001f600", "NaN", "-Infinity", "\ufffd"]
ESCAPES = [b"\\", b"u", rb"\ud83d", rb"\ude00", b"ude00"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("given", "mended"),
    [
        (rb'{"a":"\ud83d"}', rb'{"a":"\ufffd"}'),
        (rb'{"a":"\uD83D\uDE00 \uDE00\uD83D"}', rb'{"a":"\uD83D\uDE00 \ufffd\ufffd"}'),
        (rb'{"a":"\ud83d\ud83d\ude00"}', rb'{"a":"\ufffd\ud83d\ude00"}'),
        (rb'{"a":"\\ud83d \\\ud83d"}', rb'{"a":"\\ud83d \\\ufffd"}'),
        (rb'{"a":"\\ud83d\ude00 \\\\\ude00"}', rb'{"a":"\\ud83d\ufffd \\\\\ufffd"}'),
        (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}', None),
        (rb'{"a":"\ud83d\ude00","b":"\n"}', None),
        (b"{", None),
    ],
)
def test_characters_are_made_whole(given: bytes, mended: bytes | None) -> None:
    assert well_formed(given) == mended


@given(st.lists(st.sampled_from([b"a", b"\xc3\xbc", b"\xf0\x9f\x98\x80", b"\xe2\x98", b"\xff", b"\xed\xa0\xbd"])))
def test_what_is_no_utf_8_is_replaced_and_the_rest_is_the_very_same(parts: list[bytes]) -> None:
    given = b"".join(parts)
    found = in_utf8(given)
    assert found.decode() == given.decode(errors="replace")
    assert found is given or found != given


def test_numbers_that_json_has_not_are_null() -> None:
    given = rb'{"a":NaN,"b":[-Infinity,Infinity,"NaN \"Infinity\" "],"NaN":"\\","c":"\ud83d"}'
    assert readable(given) == rb'{"a":null,"b":[null,null,"NaN \"Infinity\" "],"NaN":"\\","c":"\ufffd"}'
    assert readable(b'{"a":"NaN"}') is None


def test_numbers_that_nobody_can_hold_are_null() -> None:
    given = b'{"a":1e400,"b":[-1E+999,1e308,-12.5e-400,"1e400"],"c":%b,"d":0.1}' % (b"9" * 400)
    assert readable(given) == b'{"a":null,"b":[null,1e308,-12.5e-400,"1e400"],"c":null,"d":0.1}'
    assert readable(b'{"a":1.,"b":1e,"c":-}') is None


DIGITS = st.one_of(st.integers(1, 4), st.integers(195, 320)).flatmap(
    lambda many: st.sampled_from("019").map(lambda digit: digit * many)
)
NUMBERS = st.tuples(
    st.sampled_from(["", "-"]),
    DIGITS,
    st.one_of(st.just(""), DIGITS.map(lambda digits: f".{digits}")),
    st.one_of(st.just(""), st.tuples(st.sampled_from(["e", "E+", "e-"]), DIGITS).map("".join)),
).map("".join)


@given(st.lists(NUMBERS, max_size=4))
def test_just_the_numbers_that_nobody_can_hold_are_null(numbers: list[str]) -> None:
    held = [number if math.isfinite(float(number)) else "null" for number in numbers]
    given = f"[NaN,{','.join(numbers)}]".encode()
    assert readable(given) == f"[null,{','.join(held)}]".encode()


def test_numbers_of_every_day_are_passed_over() -> None:
    """Each of millions of log probabilities was looked at by itself: for seconds, in which nobody else is served."""
    assert list(_TOKEN.finditer(b"[0,-1.25,3e8,-9.5E-300,1e99,12345678901234567890]")) == []


def test_what_is_cut_off_is_looked_through_once() -> None:
    """A body of 60 KB would take seconds, in which nobody else is served, and one of 3 MB hours."""
    cut_off = b'{"content":"' + rb"abc \"" * 500_000
    assert readable(cut_off) is None
    assert readable(cut_off + rb" NaN \ud83d") == cut_off + rb" NaN \ufffd"


@given(st.lists(TEXTS | st.floats() | st.integers() | st.dictionaries(st.sampled_from(["a", "NaN"]), TEXTS)))
def test_whatever_python_writes_can_be_read_and_says_the_same(value: list[object]) -> None:
    written = json.dumps(value).encode()
    found = msgspec.json.decode(readable(written) or written)
    assert found == [_as_read(item) for item in value]


def _as_read(item: object) -> object:
    if isinstance(item, dict):
        return {name: _as_read(text) for name, text in item.items()}
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    return item.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(item, str) else item


@given(
    st.lists(st.sampled_from([*ESCAPES, b'"', b"\xef\xbb\xbf", b"NaN", b"-Infinity", b" "]), max_size=12).map(b"".join)
)
def test_what_was_mended_needs_no_mending(data: bytes) -> None:
    """Readers try again with what is mended, as long as that changes something."""
    for mend in (well_formed, readable):
        mended = mend(data)
        assert mended is None or mend(mended) is None
