"""A whole chat completion on its way to the client: its bytes, with what it cost added to `usage`."""

from __future__ import annotations

import msgspec

from app.core.meter import Meter
from app.core.money import usd_text
from app.dialects.openai_chat.render import object_bytes

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def with_cost(body: bytes, meter: Meter, cost_nano: int | None) -> bytes:
    """The completion with `usage.cost` in dollars (null: unknown); every other value keeps its bytes.

    Where the provider sent no usage, an estimate is added and says so.
    """
    members = _members.decode(body)
    usage = _optional.decode(members["usage"]) if "usage" in members else None
    if not usage:
        given, out = meter.input_tokens, meter.output_tokens
        counts = {"prompt_tokens": given, "completion_tokens": out, "total_tokens": given + out}
        usage = {name: msgspec.Raw(b"%d" % count) for name, count in counts.items()}
        usage["estimated"] = msgspec.Raw(b"true")
    usage["cost"] = msgspec.Raw(b"null" if cost_nano is None else usd_text(cost_nano).encode())
    members["usage"] = msgspec.Raw(object_bytes(usage))
    return object_bytes(members)
