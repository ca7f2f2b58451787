"""How the ledger and the records name an end user."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.users import user_hash

salts = st.binary(min_size=32, max_size=32)


@given(st.text(), st.text(), salts, salts)
def test_a_name_has_one_hash_under_one_salt(one: str, other: str, salt: bytes, elsewhere: bytes) -> None:
    found = user_hash(one, salt)
    assert (len(found), set(found) <= set("0123456789abcdef")) == (32, True)
    assert (user_hash(other, salt) == found) == (other == one)
    assert (user_hash(one, elsewhere) == found) == (elsewhere == salt)


def test_whatever_json_may_hold_is_hashed() -> None:
    assert user_hash("\ud800", bytes(32)) == user_hash("?", bytes(32)), "no text that a provider could tell from it"
