"""A whole chat completion on its way to the client: its bytes, with what it cost added to `usage`."""

from __future__ import annotations

import msgspec

from app.core.meter import Meter
from app.core.money import usd_json
from app.dialects.base import Counts
from app.dialects.openai_chat.render import object_bytes


class _Usage(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


_usage = msgspec.json.Decoder(_Usage)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def with_cost(body: bytes, meter: Meter, cost_nano: int | None) -> bytes:
    """The completion with `usage.cost` in dollars (null: unknown); every other value keeps its bytes.

    Where the provider sent no usage, an estimate is added and says so.
    """
    return _spliced(body, cost_nano) or _remade(body, meter.input_tokens, meter.output_tokens, cost_nano)


def with_counts(body: bytes, counts: Counts) -> bytes:
    """The same, with what the relay of canonical events has counted."""
    usage, cost_nano = counts.usage, counts.cost_nano
    return _spliced(body, cost_nano) or _remade(body, usage.input, usage.output, cost_nano)


def _spliced(body: bytes, cost_nano: int | None) -> bytes | None:
    """The body with the cost put at the end of `usage`; None where that is not all there is to do, or not sure.

    An object's bytes cannot stand in a JSON string, whose quotes are escaped; found once, they are the usage.
    """
    usage = bytes(_usage.decode(body).usage)
    if usage[:1] != b"{" or usage.find(b'"') < 0 or usage.find(b'"cost"') >= 0:
        return None
    before, _, after = body.partition(usage)
    if after.find(usage) >= 0:
        return None
    return b'%b%b,"cost":%b}%b' % (before, usage[:-1].rstrip(), usd_json(cost_nano), after)


def _remade(body: bytes, given: int, out: int, cost_nano: int | None) -> bytes:
    members = _members.decode(body)
    usage = _optional.decode(members["usage"]) if "usage" in members else None
    if not usage:
        counts = {"prompt_tokens": given, "completion_tokens": out, "total_tokens": given + out}
        usage = {name: msgspec.Raw(b"%d" % count) for name, count in counts.items()}
        usage["estimated"] = msgspec.Raw(b"true")
    usage["cost"] = msgspec.Raw(usd_json(cost_nano))
    members["usage"] = msgspec.Raw(object_bytes(usage))
    return object_bytes(members)
