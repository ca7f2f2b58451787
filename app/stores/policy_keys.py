"""The file of a policy's folder that holds the keys made over HTTP, and nothing else: read and changed. Pure."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import yaml

FILE = "http-keys.yaml"
HEAD = """\
# Keys that admins make and delete over HTTP (/v1/keys). The gateway writes this file: what is changed by hand stays,
# comments do not.
"""
Key = dict[str, Any]
"""As the policy has it (`KeySpec`)."""


class NotOurs(ValueError):
    """The file holds something that is no list of keys, so that it is not written."""


def keys_in(data: bytes) -> list[Key]:
    """The keys in the file's text; an empty file holds none. Raises NotOurs."""
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NotOurs("it is not YAML") from error
    if found is None:
        return []
    keys = found["keys"] if isinstance(found, dict) and set(found) == {"keys"} else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise NotOurs("it holds more than a list of keys")
    return keys


def text_of(keys: list[Key]) -> bytes:
    """The file's text: a line for each key."""
    lines = [f"  - {json.dumps(key, ensure_ascii=False, default=_plain)}\n" for key in keys]
    return (HEAD + ("keys:\n" if lines else "keys: []\n") + "".join(lines)).encode()


def with_key(data: bytes, key: Key) -> bytes:
    """The text with one more key, at the end. Raises NotOurs."""
    return text_of([*keys_in(data), key])


def without_key(data: bytes, name: str) -> bytes | None:
    """The text without the key of this name; None where there is none. Raises NotOurs."""
    keys = keys_in(data)
    left = [key for key in keys if key.get("name") != name]
    return None if len(left) == len(keys) else text_of(left)


def _plain(value: object) -> str:
    """YAML knows a day without quotes."""
    assert isinstance(value, dt.date)
    return value.isoformat()
