"""What a client asks of its caps: headers that can lower the policy's, never raise them."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.errors import BadRequest
from app.core.money import nano_from_usd
from app.core.terms import tighter
from app.gateway.limits import NO_CAPS, ClientCaps

MAX_COUNT = 10**12
MAX_SECONDS = 10**9
_CAPPING = frozenset(
    ("x-bursar-max-cost-usd", "x-bursar-task-max-cost-usd", "x-bursar-task-max-calls", "x-bursar-task-max-tokens",
     "x-bursar-task-max-seconds")
)  # fmt: skip


def client_caps(headers: Mapping[str, str], max_cost_nano: int | None) -> ClientCaps:
    """The caps of one request; `max_cost_nano` is what its body says. Raises BadRequest naming the header."""
    if _CAPPING.isdisjoint(headers):
        return NO_CAPS if max_cost_nano is None else ClientCaps(max_cost_nano)  # nearly all
    return ClientCaps(
        tighter(dollars_header(headers, "X-Bursar-Max-Cost-Usd"), max_cost_nano),
        dollars_header(headers, "X-Bursar-Task-Max-Cost-Usd"),
        count_header(headers, "X-Bursar-Task-Max-Calls"),
        count_header(headers, "X-Bursar-Task-Max-Tokens"),
        seconds_header(headers, "X-Bursar-Task-Max-Seconds"),
    )


def dollars_header(headers: Mapping[str, str], name: str) -> int | None:
    """An amount in dollars, in nano-dollars."""
    value = headers.get(name.lower())
    if value is None:
        return None
    try:
        return nano_from_usd(value.strip())
    except ValueError as error:
        raise BadRequest(f"The header {name} is wrong: {error}.", param=name) from None


def count_header(headers: Mapping[str, str], name: str) -> int | None:
    """A whole number."""
    value = headers.get(name.lower())
    if value is None:
        return None
    text = value.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_COUNT)) or int(text) > MAX_COUNT:
        raise BadRequest(f"The header {name} must be a whole number.", param=name)
    return int(text)


def seconds_header(headers: Mapping[str, str], name: str) -> float | None:
    """A time in seconds."""
    value = headers.get(name.lower())
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_SECONDS:
        raise BadRequest(f"The header {name} must be a number of seconds.", param=name)
    return seconds
