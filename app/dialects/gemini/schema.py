"""Gemini's schemas (a subset of OpenAPI 3.0, types in capitals) as JSON Schema.

Source: https://ai.google.dev/api/caching#Schema. A schema that is JSON Schema already comes out as it went in, but for
the names that only Gemini has.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.errors import BadRequest
from app.dialects.gemini.values import camel
from app.dialects.openai_chat.fields import field_of

_object = msgspec.json.Decoder(dict[str, Any])
MAX_COUNT_DIGITS = 19
_COUNTS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_ONLY_GEMINI = frozenset(("nullable", "propertyOrdering", "example"))
_SCHEMA = frozenset(("items", "additionalProperties"))
_SCHEMAS = frozenset(("anyOf", "prefixItems", "oneOf", "allOf"))
_NAMED_SCHEMAS = frozenset(("properties", "$defs"))


def json_schema(raw: msgspec.Raw, param: str) -> msgspec.Raw:
    """The schema as JSON Schema. Raises BadRequest naming `param`."""
    schema = field_of(_object, {param: raw}, param)
    try:
        return msgspec.Raw(msgspec.json.encode(_converted(schema)))
    except RecursionError:
        raise BadRequest(f"The parameter {param} is nested too deeply.", param=param) from None


def _converted(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for given, value in schema.items():
        name = camel(given)
        if name == "type":
            kind = _type(value)
            if kind is not None:
                out[name] = kind
        elif name in _SCHEMA:
            out[name] = _converted(value)
        elif name in _SCHEMAS and isinstance(value, list):
            out[name] = [_converted(item) for item in value]
        elif name in _NAMED_SCHEMAS and isinstance(value, dict):
            out[name] = {key: _converted(item) for key, item in value.items()}
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal() and len(value) <= MAX_COUNT_DIGITS:
            out[name] = int(value)  # a 64-bit integer is a string in Google's JSON
        elif name not in _ONLY_GEMINI and not (name == "format" and value == "enum"):
            out[name] = value
    if schema.get("nullable") is True:
        _allow_null(out)
    return out


def _type(value: Any) -> Any:
    if isinstance(value, list):
        return [_type(item) for item in value]
    if not isinstance(value, str):
        return value
    return None if value == "TYPE_UNSPECIFIED" else value.lower()


def _allow_null(out: dict[str, Any]) -> None:
    if isinstance(out.get("type"), str) and out["type"] != "null":
        out["type"] = [out["type"], "null"]
    if isinstance(out.get("enum"), list) and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    if isinstance(out.get("anyOf"), list) and {"type": "null"} not in out["anyOf"]:
        out["anyOf"] = [*out["anyOf"], {"type": "null"}]
