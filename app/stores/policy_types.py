"""What values of the policy file are made of: names, amounts, times, URLs, each with its check."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.core.money import nano_from_usd, price_from_usd_per_1k

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
PLACEHOLDER = r"\$\{[A-Za-z_]"


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("not_a_number", "must be a number")
    return value


def _affordable(usd: float) -> float:
    try:
        nano_from_usd(usd)
    except ValueError as error:
        raise PydanticCustomError("amount", "{reason}", {"reason": str(error)}) from None
    return usd


def _above_zero(usd: float) -> float:
    if usd == 0:
        raise PydanticCustomError("zero_cap", "must be above 0; to set no cap, leave it out")
    return usd


def _rate(usd: float) -> float:
    try:
        price_from_usd_per_1k(usd)
    except ValueError as error:
        raise PydanticCustomError("rate", "{reason}", {"reason": str(error)}) from None
    return usd


def _base_url(url: str) -> str:
    """An http(s) URL without credentials, query or fragment, and without a slash at its end."""
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok or any(c.isspace() for c in url):
        raise PydanticCustomError("base_url", "must be an http:// or https:// URL, such as https://api.openai.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PydanticCustomError(
            "base_url", "must hold no user, password, query or fragment: use api_key, headers or query"
        )
    return url.rstrip("/")


def _webhook(url: str) -> str:
    """An http(s) URL, of which any part may be secret."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() for c in url):
        raise PydanticCustomError("webhook", "must be an http:// or https:// URL")
    return url


def _sha256(text: str) -> str:
    lowered = text.lower()
    if len(lowered) != 64 or set(lowered) - set("0123456789abcdef"):
        raise PydanticCustomError("sha256", "must be 64 hex digits, as `bursar keys new NAME` prints them")
    return lowered


def _moment(text: str) -> str:
    try:
        epoch_s(text)
    except ValueError:
        words = "must be a day or a time, such as 2026-12-31 or 2026-12-31T18:00Z"
        raise PydanticCustomError("moment", words) from None
    return text


def epoch_s(text: str) -> float:
    """A day (its first moment) or a time in ISO 8601, in UTC where it says no other: Unix time. Raises ValueError."""
    moment = dt.datetime.fromisoformat(text)
    try:
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _header_safe(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise PydanticCustomError("header", "must be printable ASCII: it is sent as an HTTP header")
    return value


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ModelName = Annotated[str, StringConstraints(pattern=MODEL_PATTERN)]
NotBool = BeforeValidator(_not_bool)
Seconds = Annotated[float, Field(gt=0, le=86_400), NotBool]
Tokens = Annotated[int, Field(gt=0, le=1_000_000_000), NotBool]
Uses = Annotated[int, Field(ge=1, le=1_000), NotBool]
Parallel = Annotated[int, Field(ge=1, le=1_000_000), NotBool]
Budget = Annotated[float, Field(ge=0), AfterValidator(_affordable), NotBool]
Cap = Annotated[float, Field(ge=0), AfterValidator(_affordable), AfterValidator(_above_zero), NotBool]
Rate = Annotated[float, Field(ge=0), AfterValidator(_rate), NotBool]
Share = Annotated[float, Field(ge=0, le=1), NotBool]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Webhook = Annotated[str, AfterValidator(_webhook)]
HeaderValue = Annotated[str, AfterValidator(_header_safe)]
Sha256 = Annotated[str, AfterValidator(_sha256), Field(json_schema_extra={"pattern": "^[0-9a-fA-F]{64}$"})]
OnCut = Literal["error", "length"]
ToolPattern = Annotated[str, Field(min_length=1, max_length=128)]
Moment = Annotated[str, AfterValidator(_moment)]
AliasPattern = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.:/@+*?\- ]+$")]


class Spec(BaseModel):
    """Base of all: unknown fields are errors, values are frozen, errors never quote what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def known_keys(known: Iterable[str]) -> Any:
    """For editors; what is no known key is told by `policy_references.py`, with what may have been meant."""
    return {"propertyNames": {"enum": list(known)}}
