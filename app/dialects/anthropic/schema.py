"""A JSON Schema as structured outputs take it: closed objects, and no limits on numbers, lengths and counts.

What the API would refuse is said in the description instead, as the official SDKs do. Source:
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from __future__ import annotations

from typing import Any

import msgspec

_LIMITS = frozenset(
    (
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    )
)
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid", "text")
)
_SCHEMAS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "prefixItems")
_decode, _encode = msgspec.json.decode, msgspec.json.encode


def taken_schema(schema: msgspec.Raw) -> msgspec.Raw:
    """The schema in the form that the API takes; its own bytes where nothing had to change."""
    given = _decode(schema)
    taken = _taken(given)
    return schema if taken == given else msgspec.Raw(_encode(taken))


def _taken(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    taken: dict[str, Any] = {}
    told: list[str] = []
    for name, value in schema.items():
        if _is_refused(name, value):
            told.append(f"{name}: {value if isinstance(value, str) else _encode(value).decode()}")
        elif name in _SCHEMAS and isinstance(value, dict):
            taken[name] = {key: _taken(inner) for key, inner in value.items()}
        elif name in _LISTS and isinstance(value, list):
            taken[name] = [_taken(inner) for inner in value]
        elif name == "oneOf" and isinstance(value, list):
            taken["anyOf"] = [_taken(inner) for inner in value]
        else:
            taken[name] = _taken(value) if name == "items" else value
    if taken.get("type") == "object" or "properties" in taken:
        taken["additionalProperties"] = False
    if told:
        heads = [taken["description"]] if isinstance(taken.get("description"), str) else []
        taken["description"] = "\n\n".join([*heads, "{" + ", ".join(told) + "}"])
    return taken


def _is_refused(name: str, value: Any) -> bool:
    if name == "format":
        return value not in _FORMATS
    return name in _LIMITS or (name == "minItems" and value not in (0, 1))
