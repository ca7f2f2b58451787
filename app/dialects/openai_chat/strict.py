"""Which JSON Schemas OpenAI takes as strict. It refuses a request whose strict schema has optional members; Anthropic
and Google take such schemas, so requests of theirs go on without the word.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from app.core.raw import UNREADABLE

_UNSUPPORTED: Final = frozenset(
    ("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties")
)
_NO_SCHEMA: Final = (*UNREADABLE, TypeError, AttributeError)
"""A value of the wrong kind somewhere in it, too: what is no schema is not strict."""
_decode = msgspec.json.decode


def fits_strict(schema: msgspec.Raw | None) -> bool:
    """Whether every object names all of its members as required and allows no others, as OpenAI wants it."""
    if schema is None:
        return False
    try:
        root = _decode(schema)
        return isinstance(root, dict) and root.get("type") == "object" and "anyOf" not in root and _fits(root)
    except _NO_SCHEMA:
        return False


def _fits(schema: Any) -> bool:
    if not isinstance(schema, dict) or _UNSUPPORTED & schema.keys():
        return False
    kind = schema.get("type")
    if "properties" in schema or kind == "object" or (isinstance(kind, list) and "object" in kind):
        named = schema.get("properties") or {}
        required = schema.get("required") or []
        if (
            schema.get("additionalProperties") is not False
            or not isinstance(named, dict)
            or set(required) != set(named)
        ):
            return False
    return all(_fits(inner) for inner in _inner(schema))


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    for name in ("properties", "$defs", "definitions"):
        yield from (schema.get(name) or {}).values()
    yield from schema.get("anyOf") or ()
    yield from schema.get("prefixItems") or ()
    if "items" in schema:
        yield schema["items"]
