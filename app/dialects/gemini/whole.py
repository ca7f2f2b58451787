"""A Gemini reply that is not streamed: of canonical events, or an upstream's own with the cost added."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.events import Begin, Event, Extra, Finished
from app.core.money import usd_json
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.gemini.candidates import Candidate, candidate_bytes
from app.dialects.gemini.proof import ORIGIN
from app.dialects.gemini.usage import usage_members
from app.dialects.openai_chat.render import object_bytes

_Members = dict[str, msgspec.Raw]
_SAID = frozenset(("candidates", "promptFeedback", "error"))
_OF_EVENTS = frozenset(("content", "finishReason", "index"))
_ZERO = msgspec.Raw(b"0")


class _Candidates(msgspec.Struct):
    candidates: list[_Members] | None = None


class _Usage(msgspec.Struct, rename="camel"):
    usage_metadata: msgspec.Raw = msgspec.Raw()


_candidates = msgspec.json.Decoder(_Candidates)
_index = msgspec.json.Decoder(int | None)
_usage = msgspec.json.Decoder(_Usage)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_encode = msgspec.json.encode


def whole_reply(
    request: ChatRequest, events: Sequence[Event], counts: Counts, cut: bytes | None, told: Sequence[bytes] = ()
) -> bytes:
    """The reply of these events; with `cut`, JSON about a soft cut, every candidate ends as at its output limit."""
    begin = Begin(model=request.model)
    feedback: bytes | None = None
    candidates: dict[int, Candidate] = {} if cut is None else {index: Candidate() for index in range(request.choices)}
    reasons: dict[int, str] = {}
    for event in events:
        if isinstance(event, Begin):
            begin = Begin(event.id or begin.id, event.model or begin.model)
        elif isinstance(event, Extra) and event.name == "promptFeedback":
            feedback = event.raw if event.origin == ORIGIN else None
        elif hasattr(event, "choice"):
            candidate = candidates.setdefault(event.choice, Candidate())
            if isinstance(event, Finished):
                reasons[event.choice] = event.reason
            else:
                candidate.take(event)
    own, of_candidates = _own(told)
    for choice, candidate in candidates.items():
        candidate.members = {**of_candidates.get(choice, {}), **candidate.members}
    ended = {choice: "length" if cut is not None else reasons.get(choice, "stop") for choice in candidates}
    said = b'"candidates":[%b]' % b",".join(_ended(candidates, ended, cut is None))
    if feedback is not None:
        shown = b'"promptFeedback":%b' % feedback
        said = shown if is_refusal(feedback) else b"%b,%b" % (said, shown)
    used = own.pop("usageMetadata", None) if counts.exact else None
    shown = b'{%b,"usageMetadata":%b%b}' % (said, used or _encode(usage_members(counts)), tail_of(begin))
    if used is not None:
        shown = with_cost_in(shown, counts)
    members = _members.decode(shown)
    members |= {name: value for name, value in own.items() if name not in members}
    if cut is not None:
        members["bursar"] = msgspec.Raw(b'{"cut":%b}' % cut)
    return object_bytes(members)


def _own(told: Sequence[bytes]) -> tuple[_Members, dict[int, _Members]]:
    """What the chunks of a stream say beside what their candidates say, and of these beside their content and end; the
    last word on each."""
    reply: _Members = {}
    of_candidates: dict[int, _Members] = {}
    for data in told:
        for name, value in _members.decode(data).items():
            if name not in _SAID and bytes(value) != b"null":
                reply[name] = value
        for candidate in _candidates.decode(data).candidates or ():
            index = _index.decode(candidate.get("index", _ZERO)) or 0
            known = {n: v for n, v in candidate.items() if n not in _OF_EVENTS and bytes(v) != b"null"}
            of_candidates.setdefault(index, {}).update(known)
    return reply, of_candidates


def is_refusal(feedback: bytes) -> bool:
    """Whether a `promptFeedback` says that the prompt was refused: then there are no candidates."""
    return b'"blockReason"' in feedback


def _ended(candidates: dict[int, Candidate], reasons: dict[int, str], calls_are_whole: bool) -> list[bytes]:
    shown = []
    for index, candidate in sorted(candidates.items()):
        if calls_are_whole:
            candidate.finish()
        parts = candidate.drain()
        shown.append(candidate_bytes(index, parts, candidate.reason(reasons[index]), candidate.members))
    return shown


def tail_of(begin: Begin) -> bytes:
    """The last members of a chunk: the model that ran, and the provider's id of the reply where it gave one."""
    named = {"modelVersion": begin.model, "responseId": begin.id}
    return b"".join([b',"%b":%b' % (name.encode(), _encode(value)) for name, value in named.items() if value])


def has_usage(data: bytes) -> bool:
    """Whether a chunk reports usage."""
    return len(_usage.decode(data).usage_metadata) > len(b"null")


def with_cost_in(body: bytes, counts: Counts) -> bytes:
    """The reply with `usageMetadata.cost` in dollars (null: unknown); every other value keeps its bytes.

    Where the provider sent no usage, ours is added.
    """
    return _spliced(body, counts) or _remade(body, counts)


def _spliced(body: bytes, counts: Counts) -> bytes | None:
    """The body with the cost put at the end of the usage; None where that is not all there is to do, or not sure.

    An object's bytes cannot stand in a JSON string, whose quotes are escaped; found once, they are the usage.
    """
    usage = bytes(_usage.decode(body).usage_metadata)
    if usage[:1] != b"{" or b'"' not in usage or b'"cost"' in usage or body.count(usage) != 1:
        return None
    before, _, after = body.partition(usage)
    return b'%b%b,"cost":%b}%b' % (before, usage[:-1].rstrip(), usd_json(counts.cost_nano), after)


def _remade(body: bytes, counts: Counts) -> bytes:
    members = _members.decode(body)
    usage = _optional.decode(members["usageMetadata"]) if "usageMetadata" in members else None
    if usage:
        usage["cost"] = msgspec.Raw(usd_json(counts.cost_nano))
        members["usageMetadata"] = msgspec.Raw(object_bytes(usage))
    else:
        members["usageMetadata"] = msgspec.Raw(_encode(usage_members(counts)))
    return object_bytes(members)
