"""Choosing where a request goes: a pure function of the request, the policy, scores and health."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.core.errors import BursarError, ContextTooLong, Forbidden, ModelNotFound, NoCandidate, Unpriced, UpstreamError
from app.core.money import Rates, tokens_cost
from app.core.policy import Candidate, Key, Retries
from app.core.types import ChatRequest
from app.gateway.view import View
from routers.base import RequestView, Score
from routers.features import extract
from routers.tasks import classify

SURE_PERMILLE = 550
"""The estimate of the input leans high: of English, it is nearly twice the tokens that are there. A prompt is
refused for its length only where this part of the estimate does not fit either."""
_CAPABLE, _TIGHT = "capable", "context may be too small"


class Considered(msgspec.Struct):
    """One candidate as it was seen: its score, expected cost in nano-dollars (None: unpriced), and the verdict."""

    candidate: Candidate
    score: Score | None
    expected_nano: int | None
    verdict: str


class Decision(msgspec.Struct, frozen=True):
    """Where to go, in order, and why. `spare` are cheaper candidates for when a budget refuses those in `order`."""

    requested: str
    route: str | None
    order: tuple[Candidate, ...]
    spare: tuple[Candidate, ...]
    considered: tuple[Considered, ...]
    reason: str
    adequacy: float | None
    min_confidence: float | None
    retries: Retries
    task_type: str
    router: str
    propensity: float = 1.0

    @property
    def chosen(self) -> Candidate:
        """The first choice."""
        return self.order[0]


class Target(msgspec.Struct, frozen=True):
    """What the client's `model` stands for."""

    route: str | None
    candidates: tuple[Candidate, ...]
    fallback: tuple[Candidate, ...]
    adequacy: float | None = None
    min_confidence: float | None = None
    retries: Retries = Retries()


def resolve(view: View, name: str, key: Key | None = None) -> Target:
    """A route, `tier:N`, a listed model, `provider/model`, or the policy's home for unknown names.

    Raises ModelNotFound, or Forbidden where the key is limited to other routes.
    """
    policy = view.policy
    allowed = key.routes if key is not None else None
    if policy.unknown_model is not None and not _known(view, name):
        name = policy.unknown_model
    if allowed is not None and name not in allowed:
        raise Forbidden("This key may not use that model.", param="model")
    route = policy.routes.get(name)
    if route is not None:
        return Target(
            route.name,
            tuple(policy.models[n] for n in route.candidates),
            tuple(policy.models[n] for n in route.fallback),
            route.adequacy,
            route.min_confidence,
            route.retries,
        )
    if name.startswith("tier:"):
        tier = name.removeprefix("tier:")
        found = tuple(m for m in policy.models.values() if str(m.tier) == tier and not m.capabilities.embeddings)
        if not found:
            raise ModelNotFound("The policy has no model of that tier.", param="model")
        return Target(name, found, found, adequacy=0.0)
    candidate = view.find(name)
    if candidate is None:
        raise ModelNotFound("The policy has no route or model of that name.", param="model")
    return Target(None, (candidate,), ())


def _known(view: View, name: str) -> bool:
    return name in view.policy.routes or name.startswith("tier:") or view.find(name) is not None


def decide(
    request: ChatRequest,
    target: Target,
    view: View,
    *,
    input_tokens: Callable[[Candidate], int],
    available: Callable[[str], bool],
    capped: Callable[[Candidate], bool],
) -> Decision:
    """Filter by capability, price and health; then the cheapest with P(success) >= adequacy.

    Where none is adequate the likeliest to succeed is taken. Raises ContextTooLong, NoCandidate,
    Unpriced (all candidates fail for one reason) or UpstreamError (all circuits open).
    """
    every = tuple({c.name: c for c in (*target.candidates, *target.fallback)}.values())
    features = extract(view_of(request))
    router = view.router
    scores = router.score(features, [view.arm(c) for c in every])
    considered = [
        _consider(request, candidate, score, input_tokens(candidate), available, capped)
        for candidate, score in zip(every, scores, strict=True)
    ]
    usable = [c for c in considered if c.verdict == _CAPABLE] or [c for c in considered if c.verdict == _TIGHT]
    if not usable:
        raise _nothing_usable(considered)
    primaries = {c.name for c in target.candidates}
    primary = [c for c in usable if c.candidate.name in primaries] or usable
    adequacy = target.adequacy or 0.0
    adequate = [c for c in primary if c.score is not None and c.score.p_success >= adequacy]
    if target.route is None:
        chosen, reason = primary[0], "the client named this model"
    elif adequate:
        chosen, reason = min(adequate, key=_cost_key), "cheapest with P(success) at or above adequacy"
    else:
        chosen, reason = min(primary, key=_doubt_key), "none is adequate: likeliest to succeed"
    sure = chosen.score is None or chosen.score.confidence >= (target.min_confidence or 0.0)
    if target.route is not None and not sure:
        reason += "; the scores' confidence is below min_confidence, so the heuristic's word stands"
    by_name = {c.candidate.name: c.candidate for c in usable}
    backups = [by_name[f.name] for f in target.fallback if f.name in by_name and f.name != chosen.candidate.name]
    order = (chosen.candidate, *backups)
    placed = {c.name for c in order}
    spare = sorted((c for c in usable if c.candidate.name not in placed), key=_cost_key)
    _name_verdicts(usable, adequate, chosen, {c.name for c in backups})
    return Decision(
        requested=request.model,
        route=target.route,
        order=order,
        spare=tuple(c.candidate for c in spare),
        considered=tuple(considered),
        reason=reason,
        adequacy=target.adequacy,
        min_confidence=target.min_confidence,
        retries=target.retries,
        task_type=classify(features).type,
        router=f"{router.name}@{router.version}",
    )


def _consider(
    request: ChatRequest,
    candidate: Candidate,
    score: Score,
    input_tokens: int,
    available: Callable[[str], bool],
    capped: Callable[[Candidate], bool],
) -> Considered:
    expected = None
    if candidate.price is not None:
        expected = expected_nano(
            candidate.price.rates(input_tokens), input_tokens, score.output_tokens * request.choices
        )
    return Considered(candidate, score, expected, _verdict(request, candidate, input_tokens, available, capped))


def expected_nano(rates: Rates, input_tokens: int, output_tokens: float) -> int:
    """Expected cost: what makes a cheap but wordy model comparable with a dear but terse one."""
    return tokens_cost(input_tokens, rates.input) + tokens_cost(int(output_tokens), rates.output)


def _verdict(
    request: ChatRequest,
    candidate: Candidate,
    input_tokens: int,
    available: Callable[[str], bool],
    capped: Callable[[Candidate], bool],
) -> str:
    can, prompt = candidate.capabilities, request.prompt
    if can.embeddings:
        return "not a chat model"
    if prompt.tools and can.tools is False:
        return "no tools"
    if prompt.images and can.vision is False:
        return "no vision"
    if prompt.wants_schema and can.json_schema is False:
        return "no json schema"
    context = can.context_tokens
    if context is not None and input_tokens * SURE_PERMILLE // 1000 >= context:
        return "context too small"
    if candidate.price is None and capped(candidate):
        return "unpriced under a cap"
    if not available(candidate.name):
        return "circuit open"
    return _TIGHT if context is not None and input_tokens >= context else _CAPABLE


def _nothing_usable(considered: list[Considered]) -> BursarError:
    verdicts = {c.verdict for c in considered}
    if "circuit open" in verdicts:
        return UpstreamError("Every provider that could serve this is failing at the moment.")
    if "unpriced under a cap" in verdicts:
        return Unpriced(
            "A cost cap applies and the price of this model is unknown: add its pricing to the policy.", param="model"
        )
    if "context too small" in verdicts:
        return ContextTooLong("The messages are longer than the context window of every candidate.", param="messages")
    return NoCandidate("No candidate of this route can take such a request: " + ", ".join(sorted(verdicts)) + ".")


def _cost_key(considered: Considered) -> tuple[bool, int, int]:
    return considered.expected_nano is None, considered.expected_nano or 0, considered.candidate.tier


def _doubt_key(considered: Considered) -> tuple[float, tuple[bool, int, int]]:
    return -considered.score.p_success if considered.score is not None else 0.0, _cost_key(considered)


def _name_verdicts(usable: list[Considered], adequate: list[Considered], chosen: Considered, backups: set[str]) -> None:
    """Say of every usable candidate what became of it; the rest keep what ruled them out."""
    for seen in usable:
        seen.verdict = "fallback" if seen.candidate.name in backups else "below adequacy"
    for seen in adequate:
        if seen.verdict != "fallback":
            seen.verdict = "adequate, dearer"
    chosen.verdict = "chosen"


def view_of(request: ChatRequest) -> RequestView:
    """The router's view of a request."""
    prompt = request.prompt
    return RequestView(
        last_user=prompt.last_user,
        first_user=prompt.first_user,
        system=prompt.system,
        history_chars=prompt.history_chars,
        n_turns=prompt.turns,
        n_tools=prompt.tools,
        tool_schema_chars=prompt.tool_schema_bytes,
        n_images=prompt.images,
        wants_json=prompt.wants_json,
        in_tool_loop=prompt.in_tool_loop,
        max_output_tokens=request.output_limit,
        reasoning_effort=prompt.reasoning_effort,
    )
