"""Reading a request's members: what is wrong with one is told by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app.core.errors import BadRequest, ModelNotFound

MAX_MODEL_CHARS = 256


def field_of(
    decoder: msgspec.json.Decoder[Any], members: Mapping[str, msgspec.Raw], name: str, prefix: str = ""
) -> Any:
    """A member's value in the decoder's type; BadRequest naming the place in it that is wrong."""
    try:
        return decoder.decode(members[name])
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        param = f"{prefix}{name}{path.rstrip('`')}"
        raise BadRequest(f"The parameter {param} is wrong: {problem.lower()}.".replace("`", ""), param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(f"The parameter {prefix}{name} is not valid JSON.", param=f"{prefix}{name}") from None
    except RecursionError:
        raise BadRequest(f"The parameter {prefix}{name} is nested too deeply.", param=f"{prefix}{name}") from None


def check_model(model: str) -> None:
    """Refuse what cannot be a model's name: BadRequest for none, ModelNotFound for an endless one, unremembered."""
    if not model:
        raise BadRequest("The parameter model must name a route, a tier or a model.", param="model")
    if len(model) > MAX_MODEL_CHARS:
        raise ModelNotFound(
            "The policy has no route or model of that name; GET /v1/models lists what it has.", param="model"
        )
