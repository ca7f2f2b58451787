"""Whether a value fits a JSON Schema, as far as models get it wrong: types, required and unknown members, enums.

Keywords that are not known here, and references, forbid nothing: a "no" must be sure, a "yes" need not be
(https://json-schema.org/draft/2020-12/json-schema-validation). Gemini writes types in capitals, and `nullable`.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 32


def fits(value: Any, schema: Any, depth: int = 0) -> bool:
    """False where the value breaks the schema."""
    if depth > MAX_DEPTH or not isinstance(schema, dict) or "$ref" in schema:
        return schema is not False
    if value is None and schema.get("nullable"):
        return True
    if "enum" in schema and isinstance(schema["enum"], list) and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = schema.get("type")
    if kinds and not any(_is_of(value, kind) for kind in (kinds if isinstance(kinds, list) else [kinds])):
        return False
    for word in ("anyOf", "oneOf"):
        choices = schema.get(word)
        if isinstance(choices, list) and choices and not any(fits(value, choice, depth + 1) for choice in choices):
            return False
    every = schema.get("allOf")
    if isinstance(every, list) and not all(fits(value, part, depth + 1) for part in every):
        return False
    if isinstance(value, dict):
        return _members_fit(value, schema, depth)
    items = schema.get("items")
    return not isinstance(value, list) or items is None or all(fits(item, items, depth + 1) for item in value)


def _members_fit(value: dict[str, Any], schema: dict[str, Any], depth: int) -> bool:
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    required = schema.get("required")
    if isinstance(required, list) and any(isinstance(name, str) and name not in value for name in required):
        return False
    more = schema.get("additionalProperties")
    patterned = "patternProperties" in schema
    for name, member in value.items():
        if name in known:
            if not fits(member, known[name], depth + 1):
                return False
        elif more is not None and not patterned and not fits(member, more, depth + 1):
            return False
    return True


def _is_of(value: Any, kind: Any) -> bool:
    name = kind.lower() if isinstance(kind, str) else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    found = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "number": number,
        "integer": number and (isinstance(value, int) or value.is_integer()),
        "boolean": isinstance(value, bool),
        "null": value is None,
    }.get(name)
    return found is None or found
