"""Names in headers: one name is one, however its client and the servers on the way write headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.http.header_text import meant

white_space = st.text(" \t", max_size=3)
names = st.text(min_size=1).filter(lambda name: name == name.strip(" \t"))


@given(names, white_space, white_space)
def test_a_name_in_utf_8_is_the_one_that_a_body_has(name: str, before: str, behind: str) -> None:
    sent = (before + name + behind).encode()
    assert meant(sent.decode("latin-1")) == name


@given(names.filter(lambda name: not _is_utf_8(name)), white_space, white_space)
def test_a_name_in_latin_1_is_one_too(name: str, before: str, behind: str) -> None:
    assert meant(before + name + behind) == name


def _is_utf_8(name: str) -> bool:
    """Whether it is no Latin-1, or its Latin-1 could be UTF-8: nobody can tell which then was meant."""
    try:
        name.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    except UnicodeEncodeError:
        return True
    return not name.isascii()
