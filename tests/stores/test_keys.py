"""Clients' keys: random, recognisable, known by their digest."""

from __future__ import annotations

import hashlib

from app.stores.keys import hash_key, new_key
from app.stores.policy_model_caps import KeySpec


def test_a_new_key_is_recognisable_and_random_and_comes_with_its_digest() -> None:
    secret, digest = new_key()
    assert secret.startswith("sk-bursar-")
    assert len(secret) >= 50
    assert digest == hash_key(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert new_key()[0] != secret


def test_the_digest_is_what_a_policy_takes() -> None:
    _, digest = new_key()
    assert KeySpec(name="ci", sha256=digest.upper()).sha256 == digest
