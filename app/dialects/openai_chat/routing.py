"""What a client says of who is to serve its request, in OpenRouter's words: `models` and `provider`.

Sources: https://openrouter.ai/docs/guides/routing/model-fallbacks and
https://openrouter.ai/docs/guides/routing/provider-selection.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.core.errors import BadRequest
from app.core.money import nano_from_usd
from app.core.types import Placement
from app.dialects.openai_chat.fields import MAX_MODEL_CHARS, check_model, field_of

MAX_NAMED = 16
"""More models than this are a mistake."""
MAX_PROVIDERS = 100
"""More of one list than OpenRouter has are a mistake, too: they are looked through for each candidate, and recorded."""
_TOKENS: Final = ("prompt", "completion")
"""The prices of `max_price` that are of tokens."""


class _Provider(msgspec.Struct):
    only: list[str] | None = None
    ignore: list[str] | None = None
    order: list[str] | None = None
    allow_fallbacks: bool | None = None
    data_collection: str | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: list[str] | None = None
    max_price: dict[str, float | str | None] | None = None


_names = msgspec.json.Decoder(list[str] | None)
_string = msgspec.json.Decoder(str)
_provider = msgspec.json.Decoder(_Provider)


def read_models(members: dict[str, msgspec.Raw]) -> tuple[str, tuple[str, ...]]:
    """The model that is asked for, and those to ask where it fails, each once. `models` is taken out of the members: it
    is heeded here, and no provider's own fallback, at a price of its own, is to come on top. Raises BadRequest, or
    ModelNotFound for a name that can be none."""
    named: list[str] = []
    if "models" in members:
        named = field_of(_names, members, "models") or []
        del members["models"]
        if len(named) > MAX_NAMED:
            raise BadRequest(f"The parameter models must not name more than {MAX_NAMED} models.", param="models")
    if "model" in members:
        named = [field_of(_string, members, "model"), *named]
    if not named:
        raise BadRequest("The parameter model is required.", param="model")
    model, *others = dict.fromkeys(named)
    for name in (model, *others):
        check_model(name)
    return model, tuple(others)


def read_placement(members: dict[str, msgspec.Raw]) -> Placement | None:
    """How `provider` restricts who may serve the request; None where it does not. Raises BadRequest."""
    if not bytes(members["provider"]).startswith(b"{"):
        return None  # another server's word, and none of OpenRouter's
    said: _Provider = field_of(_provider, members, "provider")
    only = said.only or (said.order if said.allow_fallbacks is False else None)
    for name, listed in (("only", only), ("ignore", said.ignore)):
        if listed and (len(listed) > MAX_PROVIDERS or max(map(len, listed)) > MAX_MODEL_CHARS):
            param = f"provider.{name}"
            raise BadRequest(f"The parameter {param} names too many, or one at too great length.", param=param)
    most = said.max_price or {}
    promises = {
        "data_collection": said.data_collection == "deny",
        "zdr": said.zdr,
        "enforce_distillable_text": said.enforce_distillable_text,
        "quantizations": said.quantizations,
        "max_price": any(price is not None for name, price in most.items() if name not in _TOKENS),
    }
    prompt, completion = (_rate(most.get(name), name) for name in _TOKENS)
    placement = Placement(
        only=tuple(map(str.lower, only)) if only else None,
        ignore=tuple(map(str.lower, said.ignore or ())),
        max_input_rate=prompt,
        max_output_rate=completion,
        promises=tuple([name for name, asked in promises.items() if asked]),
    )
    return None if placement == Placement() else placement


def _rate(usd: Any, name: str) -> int | None:
    """Dollars for a million tokens."""
    try:
        return None if usd is None else nano_from_usd(usd)
    except ValueError as error:
        param = f"provider.max_price.{name}"
        raise BadRequest(f"The parameter {param} is wrong: {error}.", param=param) from None
