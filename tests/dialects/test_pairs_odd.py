"""All pairs of dialects, odd requests and replies: whatever stands anywhere, it is carried or refused by name."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import BadRequest, UpstreamError
from app.core.events import Begin, Finished, Said
from app.core.sse import Frame, SseParser
from app.dialects.registry import NAMES, dialect_named
from tests.dialects.pair_requests import EFFORT, SCENARIOS
from tests.dialects.pairs import COST_NANO, MODELS, PAIRS, gist, of_origin, parsed, read, relayed, relaying, spoken
from tests.dialects.test_pairs import SCRIPTS, USAGE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "name", "x"]), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, the members' own."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in ((*path, key), *places(item, (*path, key)))]


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The body with another value at this place."""
    made: Any = copy.deepcopy(body)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return dict(made)


@pytest.mark.parametrize("source", NAMES)
def test_any_value_anywhere_is_carried_or_refused(source: str) -> None:
    bodies = [spellings[source] for spellings in (*SCENARIOS.values(), EFFORT) if source in spellings]
    spots = [(body, path) for body in bodies for path in places(body)]

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.sampled_from(spots), JSON, st.sampled_from(NAMES))
    def anywhere(spot: tuple[dict[str, Any], tuple[Any, ...]], value: Any, target: str) -> None:
        body, path = spot
        # A conversation of nothing is no provider's either.
        with contextlib.suppress(BadRequest):
            request = parsed(source, changed(body, path, value))
            talk = dialect_named(source).conversation(request)
            sent = dialect_named(target).render(request, talk, model=MODELS[target], limit_tokens=9, stream=True)
            parsed(target, sent.body, stream=True)

    anywhere()


@pytest.mark.parametrize("upstream", NAMES)
def test_any_value_anywhere_in_a_stream_is_read_or_breaks_it(upstream: str) -> None:
    streams = [SseParser().feed(spoken(upstream, of_origin(script, upstream), USAGE)) for script in SCRIPTS.values()]
    spots = [
        (frames, place, path)
        for frames in streams
        for place, frame in enumerate(frames)
        if frame.data is not None and frame.data.startswith(b"{")
        for path in places(json.loads(frame.data))
    ]

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.sampled_from(spots), JSON, st.sampled_from(NAMES))
    def anywhere(spot: tuple[list[Frame], int, tuple[Any, ...]], value: Any, client: str) -> None:
        frames, at, path = spot
        data = json.dumps(changed(json.loads(frames[at].data or b""), path, value)).encode()
        relay = relaying(upstream, client)
        out = relay.feed([*frames[:at], Frame(b"data: " + data + b"\n\n", data), *frames[at + 1 :]])
        end = relay.end_broken(UpstreamError("It broke.")) if relay.broken else relay.end_complete(COST_NANO)
        read(client, out + end)

    anywhere()


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_half_a_character_costs_no_answer(upstream: str, client: str) -> None:
    """Servers that cut texts by UTF-16 units send such, and nothing can encode it."""
    body = spoken(upstream, [Begin("id_1", "m"), Said("aXXb"), Finished("stop")], USAGE)
    stream, relay = relayed(upstream, client, body.replace(b"XX", rb"\ud83d"))
    assert relay.broken is None
    assert [run[2] for run in gist(read(client, stream))["said"]] == ["a\ufffdb"]
    folded, _ = relayed(upstream, client, body.replace(b"XX", rb"\ud83d"), folds=True)
    assert "a\ufffdb" in json.dumps(json.loads(folded), ensure_ascii=False)
