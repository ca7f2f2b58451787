"""Beliefs and learners as bytes: what snapshots and checkpoints hold. Read by the version that wrote them only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, TypeVar, get_type_hints

import msgspec
import numpy as np

from app.core.feedback import Feedback
from app.core.quarantined import Quarantined
from app.learner.guard import Guard
from app.learner.labels import Call, Label
from app.learner.late import Late
from app.learner.lesson import Lesson
from app.learner.sources import Sources, Told
from app.learner.step import Learner
from routers.base import Arm
from routers.belief import Belief, Own, Site
from routers.kinds import N_TYPES, TYPES, extended
from routers.learned import LearnedRouter

FORMAT: Final = 3
DAMAGED: Final = (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError)
"""What reading bytes raises that are none of ours: ValueError where text is no UTF-8, or sizes do not fit; the rest
where values that are read without a type are none of theirs."""
T = TypeVar("T")
_types: Final = [kind.value for kind in TYPES]


class Unreadable(ValueError):
    """These bytes are of another version, or of other weights."""


class _Belief(msgspec.Struct):
    format: int
    weights: str
    types: list[str]
    mean: bytes
    cov: bytes
    own: list[tuple[Arm, bytes, bytes, bytes, bytes, float]]
    down: tuple[Quarantined, ...] = ()


def pack_belief(belief: Belief, base: LearnedRouter, down: tuple[Quarantined, ...] = ()) -> bytes:
    """A snapshot's body: what is believed, and who is in quarantine."""
    own = [
        (one.arm, _bytes(one.slope), _bytes(one.base), _bytes(one.cov), _bytes(one.prior), one.labels)
        for one in belief.own.values()
    ]
    packed = _Belief(FORMAT, base.version, _types, _bytes(belief.mean), _bytes(belief.cov), own, down)
    return msgspec.msgpack.encode(packed)


def unpack_belief(packed: bytes, base: LearnedRouter) -> Belief:
    """What `pack_belief` gave. Raises Unreadable where it was another version's, or other weights were in force: what
    coordinates mean is theirs."""
    found = _read(packed)
    if found.weights != base.version:
        raise Unreadable(f"a belief for the weights {found.weights}, and {base.version} are in force")
    size = base.ability_weights.coef.shape[1] + base.places + N_TYPES + 1
    try:
        own = {
            arm.name: Own(arm, _array(slope, size, size), _array(start, size), _cov(cov, size), _array(prior, size), n)
            for arm, slope, start, cov, prior, n in found.own
        }
        return Belief(_array(found.mean, size), _cov(found.cov, size), own)
    except ValueError as error:
        raise Unreadable(f"a belief that was damaged: {error}") from None


def _read(packed: bytes) -> _Belief:
    try:
        found = msgspec.msgpack.decode(packed, type=_Belief)
    except DAMAGED as error:
        raise Unreadable(f"not a belief that this version reads: {error}") from None
    if found.format != FORMAT or found.types != _types:
        raise Unreadable("a belief of another version")
    return found


class _Down(msgspec.Struct):
    down: tuple[Quarantined, ...] = ()


def unpack_down(packed: bytes) -> tuple[Quarantined, ...]:
    """Who is in quarantine by a snapshot's body. Raises Unreadable."""
    try:
        return msgspec.msgpack.decode(packed, type=_Down).down
    except DAMAGED as error:
        raise Unreadable(f"not a belief that this version reads: {error}") from None


def without(packed: bytes, model: str, task_type: str) -> bytes:
    """A snapshot's body with one model let back from quarantine. Raises Unreadable: of another version's it would not
    keep all."""
    found = _read(packed)
    found.down = tuple(one for one in found.down if (one.model, one.task_type) != (model, task_type))
    return msgspec.msgpack.encode(found)


def _rows_of(kind: type) -> type[msgspec.Struct]:
    """The same fields as a struct that is written as an array: names would be most of a checkpoint."""
    hints = get_type_hints(kind)
    return msgspec.defstruct(kind.__name__, [(one.name, hints[one.name]) for one in fields(kind)], array_like=True)


_CallRow, _LabelRow, _ToldRow, _WordRow = (_rows_of(kind) for kind in (Call, Label, Told, Feedback))


class _Lesson(msgspec.Struct, array_like=True):
    call: msgspec.Raw
    demand: tuple[bytes, bytes, float, str, bool, bool]
    arms: list[int]
    signs: list[msgspec.Raw]
    settled: bool
    told: list[msgspec.Raw]
    labels: list[msgspec.Raw]
    admitted: list[float]
    sites: list[tuple[str, float, float, float]]
    judged: int
    sources_heard: bool
    since: int
    term: int


class _Learner(msgspec.Struct):
    belief: bytes
    sources: dict[str, Any]
    guard: dict[str, Any]
    arms: list[Arm]
    lessons: list[_Lesson]
    words: list[msgspec.Raw]
    held: list[str]
    term: int
    labels: int
    gone: list[int]
    ignored: int
    read_until_s: float
    unheard: int = 0


def pack_learner(learner: Learner) -> bytes:
    """All of a learner."""
    arms: dict[Arm, int] = {}
    return msgspec.msgpack.encode(
        _Learner(
            pack_belief(learner.belief, learner.base),
            learner.sources.state(),
            learner.guard.state(),
            lessons=[_packed(lesson, arms) for lesson in learner.lessons.values()],
            arms=list(arms),
            words=[_row(_WordRow, word) for words in learner.words.values() for word in words.values()],
            held=list(learner.held),
            term=learner.term,
            labels=learner.labels,
            gone=list(learner.late.gone),
            ignored=learner.late.ignored,
            read_until_s=learner.late.read_until_s,
            unheard=learner.unheard,
        )
    )


def unpack_learner(packed: bytes, base: LearnedRouter) -> Learner:
    """What `pack_learner` gave. Raises Unreadable."""
    learner = Learner(base)
    try:
        found = msgspec.msgpack.decode(packed, type=_Learner)
        belief = unpack_belief(found.belief, base)  # first: what all else means depends on its weights
        for one in found.lessons:
            lesson = _unpacked(one, found.arms, base)
            learner.lessons[lesson.call.request_id] = lesson
            learner.attach(lesson)
        learner.belief = belief
        learner.sources, learner.guard = Sources.of_state(found.sources), Guard.of_state(found.guard)
        learner.term, learner.labels, learner.unheard = found.term, found.labels, found.unheard
        learner.late = Late(dict.fromkeys(found.gone), ignored=found.ignored, read_until_s=found.read_until_s)
        for row in found.words:
            learner.remember(_of_row(_WordRow, row, Feedback))
        learner.held = dict.fromkeys(found.held)
    except Unreadable:
        raise
    except DAMAGED as error:
        raise Unreadable(f"not a learner that this version reads: {error}") from None
    return learner


def _packed(lesson: Lesson, arms: dict[Arm, int]) -> _Lesson:
    demand = lesson.demand
    return _Lesson(
        _row(_CallRow, lesson.call),
        (_bytes(demand.u), _bytes(demand.place), demand.ood, demand.task_type, demand.plain, demand.read),
        [arms.setdefault(arm, len(arms)) for arm in lesson.arms.values()],
        [_row(_ToldRow, one) for one in lesson.signs],
        lesson.settled,
        [_row(_ToldRow, one) for one in lesson.told],
        [_row(_LabelRow, one) for one in lesson.labels],
        list(lesson.admitted),
        [(site.model, site.precision, site.shift, site.weight) for site in lesson.sites],
        lesson.judged,
        lesson.sources_heard,
        lesson.since,
        lesson.term,
    )


def _unpacked(packed: _Lesson, arms: list[Arm], base: LearnedRouter) -> Lesson:
    u, place, ood, task_type, plain, read = packed.demand
    demand = base.demand_of(_vector(u), _vector(place), ood, task_type, plain=plain, read=read)
    z = extended(demand) if packed.sites else None
    return Lesson(
        _of_row(_CallRow, packed.call, Call),
        demand,
        {arms[place].name: arms[place] for place in packed.arms},
        tuple(_of_row(_ToldRow, row, Told) for row in packed.signs),
        packed.settled,
        tuple(_of_row(_ToldRow, row, Told) for row in packed.told),
        tuple(_of_row(_LabelRow, row, Label) for row in packed.labels),
        tuple(packed.admitted),
        tuple(Site(model, z, *rest) for model, *rest in packed.sites if z is not None),
        packed.judged,
        packed.sources_heard,
        packed.since,
        packed.term,
    )


def _row(row: type[msgspec.Struct], value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(row(*(getattr(value, name) for name in row.__struct_fields__))))


def _of_row(row: type[msgspec.Struct], raw: msgspec.Raw, kind: type[T]) -> T:
    return kind(*msgspec.structs.astuple(msgspec.msgpack.decode(raw, type=row)))


def _bytes(array: np.ndarray[Any, Any]) -> bytes:
    return np.ascontiguousarray(array, dtype="<f8").tobytes()


def _vector(raw: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(raw, dtype="<f8").astype(np.float64)


def _array(raw: bytes, *shape: int) -> np.ndarray[Any, Any]:
    """Raises ValueError for another shape, and for numbers that are none."""
    found = _vector(raw).reshape(shape)
    if not np.isfinite(found).all():
        raise ValueError("not finite")
    return found


def _cov(raw: bytes, size: int) -> np.ndarray[Any, Any]:
    found = _array(raw, size, size)
    if (np.diag(found) < 0.0).any():
        raise ValueError("a variance that is negative")
    return found
