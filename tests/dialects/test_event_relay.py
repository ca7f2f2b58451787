"""What waits in a stream between two dialects, and goes on as far as it is paid for."""

from __future__ import annotations

import json
import random

import pytest

from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Done, Event, Finished, Said
from app.core.meter import Meter
from app.core.money import Usage
from app.core.sse import SseParser
from app.dialects.event_relay import EventRelay
from app.dialects.registry import CHAT, GEMINI
from tests.dialects.pairs import PAIRS, read, relaying, spoken
from tests.gateway.policy_values import price

SCRIPT: list[Event] = [
    Begin("r1", "m", 1),
    *(Said(f"w{number} ") for number in range(12)),
    CallBegins(0, "call_1", "bash"),
    *(CallPiece(0, piece) for piece in ('{"a":[0', *(f", {number}" for number in range(6)), "]}")),
    CallEnds(0),
    Finished("tool_calls"),
    Done(),
]


def metered(upstream: str, client: str, allowance_nano: int) -> EventRelay:
    """At one nano-dollar a token of output."""
    relay = relaying(upstream, client)
    relay.meter = Meter(price(0, 1_000_000), 5, 1000)
    relay.allowance_nano = allowance_nano
    return relay


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_what_fits_goes_on_whenever_it_is_allowed_and_never_an_end(upstream: str, client: str) -> None:
    rng = random.Random(f"{upstream} {client}")
    frames = SseParser().feed(spoken(upstream, SCRIPT, Usage(5, 30)))
    for _ in range(20):
        first, more = rng.randint(0, 12), rng.randint(0, 12)
        relay, at_once = metered(upstream, client, first), metered(upstream, client, first + more)
        out = relay.feed(frames)
        assert relay.blocked
        relay.allowance_nano = first + more
        out += relay.resume()
        assert out == at_once.feed(frames)
        assert relay.blocked
        events = read(client, out)
        assert not [event for event in events if isinstance(event, Finished)]
        said = [event.text for event in events if isinstance(event, Said) and event.text]
        assert said == [f"w{number} " for number in range(len(said))]


def test_a_choice_that_ends_earlier_ends_no_other() -> None:
    """Of two choices the first has its end among what waits; what the other says is paid for all the same."""
    candidates: list[dict[str, object]] = [
        *({"index": 0, "content": {"parts": [{"text": f"a{number} "}]}} for number in range(8)),
        {"index": 0, "finishReason": "STOP"},
        *({"index": 1, "content": {"parts": [{"text": f"b{number} "}]}} for number in range(30)),
        {"index": 1, "finishReason": "STOP"},
    ]
    stream = b"".join(b"data: %b\n\n" % json.dumps({"candidates": [one]}).encode() for one in candidates)
    relay = relaying(GEMINI, CHAT, choices=2)
    relay.meter, relay.allowance_nano = Meter(price(0, 1_000_000), 5, 1000), 4
    out = relay.feed(SseParser().feed(stream))
    relay.allowance_nano = 20
    out += relay.resume()
    assert relay.blocked
    said = [event.text for event in read(CHAT, out) if isinstance(event, Said) and event.text]
    assert said == [*(f"a{number} " for number in range(8)), *(f"b{number} " for number in range(12))]
