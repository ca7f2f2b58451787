"""What this version cannot read of a learner: damaged, of another version, or of other weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from app.learner.pack import pack_belief, pack_learner
from app.learner.step import Learner
from app.learner.watching import Watching
from app.learner.worker import Checkpoint
from tests.learner.calls import BASE

Change = Callable[[dict[str, Any]], Any]


def changed(packed: bytes, change: Change) -> bytes:
    """The same with something in it changed."""
    found = msgspec.msgpack.decode(packed)
    change(found)
    return msgspec.msgpack.encode(found)


def in_belief(state: bytes, change: Change) -> bytes:
    """A learner's state with something changed in what it believes."""

    def deep(checkpoint: dict[str, Any]) -> None:
        checkpoint["learner"] = changed(
            checkpoint["learner"], lambda learner: learner.update(belief=changed(learner["belief"], change))
        )

    return changed(state, deep)


def newer(packed: dict[str, Any]) -> None:
    packed.update(format=99, news=True)


def of_other_weights(packed: dict[str, Any]) -> None:
    packed.update(weights="0123456789ab")


def of_other_size(packed: dict[str, Any]) -> None:
    packed.update(mean=packed["mean"][8:])


def good_state(learner: Learner | None = None, watching: Watching | None = None) -> bytes:
    """A state as a learner saves it."""
    state = (watching or Watching()).state()
    kept = Checkpoint(pack_learner(learner or Learner(BASE)), watching=msgspec.json.encode(state))
    return msgspec.msgpack.encode(kept)


STATES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda state: state[: len(state) // 2],
    "no msgpack": lambda state: b"\xc1" + state,
    "nothing": lambda _: b"",
    "without its learner": lambda state: changed(state, lambda one: one.pop("learner")),
    "without a part": lambda state: in_belief(state, lambda one: one.pop("cov")),
    "newer": lambda state: changed(state, newer),
    "of a newer belief": lambda state: in_belief(state, newer),
    "of other weights": lambda state: in_belief(state, of_other_weights),
    "of another size": lambda state: in_belief(state, of_other_size),
    "odd watches": lambda state: changed(state, lambda one: one.update(watching=b'{"cells": [[1, 2]]}')),
    "watches of another kind": lambda state: changed(state, lambda one: one.update(watching=b"[]")),
    "odd sources": lambda state: changed(
        state, lambda one: one.update(learner=changed(one["learner"], lambda inner: inner.update(guard={"keys": 3})))
    ),
}
BODIES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda body: body[: len(body) // 2],
    "no msgpack": lambda body: b"\xc1" + body,
    "without a part": lambda body: changed(body, lambda one: one.pop("cov")),
    "newer": lambda body: changed(body, newer),
    "of another size": lambda body: changed(body, of_other_size),
    "of other weights": lambda body: changed(body, of_other_weights),
}


def good_body(**more: Any) -> bytes:
    """A snapshot's body as a learner publishes it."""
    return pack_belief(Learner(BASE).belief, BASE, **more)
