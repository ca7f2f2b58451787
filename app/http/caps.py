"""What a client asks of its caps: headers that can lower the policy's, never raise them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from app.core.errors import BadRequest
from app.core.money import nano_from_usd
from app.core.terms import tighter
from app.gateway.limits import NO_CAPS, ClientCaps
from app.http.end_users import HEADER as USER
from app.http.header_text import meant

MAX_COUNT = 10**12
MAX_SECONDS = 10**9
MAX_PARALLEL = 10**6
_CAPPING = frozenset(
    ("x-bursar-max-cost-usd", "x-bursar-task-max-cost-usd", "x-bursar-task-max-calls", "x-bursar-task-max-tokens",
     "x-bursar-task-max-seconds", "x-bursar-task-max-parallel-requests")
)  # fmt: skip
_OURS = "x-bursar-"
_USER = USER.encode()
_LISTED = _CAPPING | {"x-bursar-tags"}
_KNOWN = _LISTED | {"x-bursar-task-id", "x-bursar-parent-task-id", "x-bursar-on-cut", "x-bursar-probe", USER}


def client_caps(headers: Mapping[str, str], max_cost_nano: int | None) -> ClientCaps:
    """The caps of one request; `max_cost_nano` is what its body says. Raises BadRequest naming the header."""
    if _OURS in " ".join(headers):
        _refuse_unknown(headers)
    if _CAPPING.isdisjoint(headers):
        return NO_CAPS if max_cost_nano is None else ClientCaps(max_cost_nano)  # nearly all
    return ClientCaps(
        tighter(dollars_header(headers, "X-Bursar-Max-Cost-Usd"), max_cost_nano),
        dollars_header(headers, "X-Bursar-Task-Max-Cost-Usd"),
        count_header(headers, "X-Bursar-Task-Max-Calls"),
        count_header(headers, "X-Bursar-Task-Max-Tokens"),
        seconds_header(headers, "X-Bursar-Task-Max-Seconds"),
        parallel_header(headers, "X-Bursar-Task-Max-Parallel-Requests"),
    )


def _refuse_unknown(headers: Iterable[str]) -> None:
    """A misspelt header would be a cap that nobody keeps. Raises BadRequest."""
    for name in headers:
        if name.startswith(_OURS) and name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.8)
            hint = f"; did you mean {close[0].title()}?" if close else "."
            raise BadRequest(f"There is no such header{hint}", param=name.title())


def join_repeated(headers: dict[str, str], listed: Sequence[tuple[bytes, bytes]]) -> None:
    """Make caps and tags that came more than once (a proxy adds its own to the client's) the one list that they are
    (RFC 9110, 5.3); the tightest of a list of caps binds. Raises BadRequest where two users are named: only one of them
    would be charged, and nobody knows which is meant."""
    if USER in headers and len({meant(value.decode("latin-1")) for key, value in listed if key == _USER}) > 1:
        raise BadRequest("The header X-Bursar-User came more than once, with different users.", param="X-Bursar-User")
    for name in _LISTED.intersection(headers):
        headers[name] = ", ".join(value.decode("latin-1") for key, value in listed if key == name.encode())


def dollars_header(headers: Mapping[str, str], name: str) -> int | None:
    """An amount in dollars, in nano-dollars."""
    try:
        return min(map(nano_from_usd, _listed(headers, name)), default=None)
    except ValueError as error:
        raise BadRequest(f"The header {name} is wrong: {error}.", param=name) from None


def count_header(headers: Mapping[str, str], name: str) -> int | None:
    """A whole number."""
    counts = _listed(headers, name)
    for text in counts:
        if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_COUNT)) or int(text) > MAX_COUNT:
            raise BadRequest(f"The header {name} must be a whole number.", param=name)
    return min(map(int, counts), default=None)


def parallel_header(headers: Mapping[str, str], name: str) -> int | None:
    """A whole number from 1: none at a time would be a task that waits for nothing."""
    count = count_header(headers, name)
    if count is not None and not 1 <= count <= MAX_PARALLEL:
        raise BadRequest(f"The header {name} must be a whole number from 1 to {MAX_PARALLEL}.", param=name)
    return count


def seconds_header(headers: Mapping[str, str], name: str) -> float | None:
    """A time in seconds."""
    times = _listed(headers, name)
    try:
        found = [float(text) for text in times]
    except ValueError:
        found = [-1.0]
    if not all(0 <= seconds <= MAX_SECONDS for seconds in found):
        raise BadRequest(f"The header {name} must be a number of seconds.", param=name)
    return min(found, default=None)


def _listed(headers: Mapping[str, str], name: str) -> list[str]:
    value = headers.get(name.lower())
    return [] if value is None else [text.strip() for text in value.split(",")]
