"""Choosing where a request goes: a pure function of the request, the policy, scores and health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from app.core.errors import BursarError, ContextTooLong, NoCandidate, UpstreamError
from app.core.policy import HEURISTIC, Candidate, Retries, Route
from app.core.types import ChatRequest, Placement
from app.dialects.registry import COMPLETIONS
from app.gateway.choose import Considered, cost_key, name_verdicts
from app.gateway.fees import unpriced_error, unpriced_tools
from app.gateway.placement import misplaced
from app.gateway.scoring import Opinion, Scoring
from app.gateway.split import assign
from app.gateway.target import Target
from app.gateway.view import View
from routers.base import RequestView
from routers.features import Features, extract
from routers.tasks import classify

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.kinds import Demand

SURE_PERMILLE = 550
"""The estimate of the input leans high: of English, it is nearly twice the tokens that are there. A prompt is
refused for its length only where this part of the estimate does not fit either."""
UNPRICED_TOOL = "unpriced under a cap: "
"""Of a candidate whose own tools, named behind this, have no declared fee."""
_CAPABLE, _TIGHT = "capable", "context may be too small"


class Asked(msgspec.Struct, frozen=True):
    """What deciding again would need of a request: its features, and what stands behind them. `input_tokens`:
    estimated, of the first candidate."""

    features: Features
    input_tokens: int
    choices: int
    wants_schema: bool
    server_tools: tuple[str, ...]
    searches: bool
    service_tier: str | None
    dialect: str
    others: tuple[str, ...]
    placement: Placement | None


class Decision(msgspec.Struct, frozen=True):
    """Where to go, in order, and why. `usable` are all who could serve, `considered` those who cannot as well.

    `router` is whose scores decided; `assigned` names the router whose turn it was (None: there was nothing to
    choose), with its `share` where traffic is split. Where that one left it to the heuristic, `deferred` is True and
    its opinion is among `others`, if it had one. `propensity`: the probability, over all assignments of this call,
    that `chosen` is chosen. `demand`: what the request asks for, as the learned router reads it.
    `explored`: whether this call was one of those to be drawn (None: no call like it may be), `instead_of` which was.
    """

    requested: str
    route: str | None
    order: tuple[Candidate, ...]
    usable: tuple[Considered, ...]
    considered: tuple[Considered, ...]
    reason: str
    rules: Route | None
    retries: Retries
    task_type: str
    router: str
    asked: Asked
    assigned: str | None = None
    share: float | None = None
    deferred: bool = False
    others: tuple[Opinion, ...] = ()
    propensity: float = 1.0
    explored: bool | None = None
    instead_of: str | None = None
    demand: Demand | None = None

    @property
    def chosen(self) -> Candidate:
        """The first choice."""
        return self.order[0]

    @property
    def spare(self) -> tuple[Candidate, ...]:
        """Who else could serve, cheapest first: for when a budget refuses those in `order`."""
        placed = {candidate.name for candidate in self.order}
        left = [seen for seen in self.usable if seen.candidate.name not in placed]
        return tuple(seen.candidate for seen in sorted(left, key=cost_key))


def decide(
    request: ChatRequest,
    target: Target,
    view: View,
    *,
    unit: str,
    input_tokens: Callable[[Candidate], int],
    available: Callable[[str], bool],
    capped: Callable[[Candidate], bool],
    features: Features | None = None,
) -> Decision:
    """Filter by capability, price and health; then choose by the route's objective.

    `unit` is what a split keeps together: the task, or the call; `features` are the request's, if read before. Raises
    ContextTooLong, NoCandidate, Unpriced (all candidates fail for one reason) or UpstreamError (all circuits open).
    """
    features = extract(view_of(request)) if features is None else features
    task_type = _task_type(view, target, features)
    target = target.of_task(task_type)
    tokens = [input_tokens(candidate) for candidate in target.every]
    asks = _asks(request)
    verdicts = [_verdict(request, c, n, available, capped, asks) for c, n in zip(target.every, tokens, strict=True)]
    serviceable = _CAPABLE if _CAPABLE in verdicts else _TIGHT
    if serviceable not in verdicts:
        raise _nothing_usable(verdicts, request)
    scoring = Scoring(request, features, target, view, tokens, verdicts, serviceable, task_type, unit)
    opinion, assigned, share, propensity = _turn(view, target.rules, scoring, unit)
    chosen = opinion.chosen
    usable = opinion.usable
    backups = _backups(target, usable, chosen)
    name_verdicts(target.rules, usable, chosen, backups)
    scoring.name_left_out(opinion)
    deferred = assigned is not None and opinion.kept_from is None and opinion is not scoring.opinions.get(assigned)
    return Decision(
        requested=request.model,
        route=target.route,
        order=(chosen.candidate, *backups),
        usable=usable,
        considered=opinion.considered,
        reason=opinion.reason + scoring.why_deferred(assigned) if deferred else opinion.reason,
        rules=target.rules,
        retries=target.retries,
        task_type=task_type,
        router=opinion.router,
        asked=_asked(request, features, tokens[0]),
        assigned=assigned,
        share=share,
        deferred=deferred,
        others=tuple([other for other in scoring.opinions.values() if not _same(other, opinion)]),
        propensity=propensity,
        demand=_demand(view, target.rules, features),
    )


def _same(one: Opinion, other: Opinion) -> bool:
    return one.router == other.router and one.chosen is other.chosen


def _asked(request: ChatRequest, features: Features, input_tokens: int) -> Asked:
    prompt = request.prompt
    return Asked(
        features, input_tokens, request.choices, prompt.wants_schema, prompt.server_tools, prompt.searches,
        prompt.service_tier, request.dialect, request.others, prompt.placement,
    )  # fmt: skip


def _task_type(view: View, target: Target, features: Features) -> str:
    # Where nothing is chosen the rules' word is good enough, and a tenth of the work.
    chooses = target.rules is not None or bool(target.pinned)
    return (view.task if chooses else classify)(features).type


def _turn(
    view: View, rules: Route | None, scoring: Scoring, unit: str
) -> tuple[Opinion, str | None, float | None, float]:
    """The opinion that decides; whose turn it was, and its share, where traffic is split; the choice's probability."""
    if rules is None:
        return scoring.opinion(HEURISTIC), None, None, 1.0
    assigned, share = _assigned(view, rules, unit)
    opinion = scoring.decided(assigned)
    if share is not None:
        return opinion, assigned, share, _propensity(view, rules, scoring, opinion.chosen.candidate)
    return opinion, assigned, None, scoring.chance(assigned, opinion.chosen.candidate) if scoring.spares else 1.0


def _backups(target: Target, usable: Sequence[Considered], chosen: Considered) -> list[Candidate]:
    names = {c.candidate.name for c in usable}
    return [f for f in target.fallback if f.name in names and f is not chosen.candidate]


def _assigned(view: View, rules: Route, unit: str) -> tuple[str, float | None]:
    """The router that this call is assigned to, and the share of traffic that is, where it is split."""
    if not rules.split:
        return view.serving(rules.router), None
    router = view.serving(assign(rules.split, rules.name, unit))
    mine = sum(share for name, share in rules.split.items() if view.serving(name) == router)
    return router, mine / sum(rules.split.values())


def _demand(view: View, rules: Route | None, features: Features) -> Demand | None:
    """What the learned router takes the request to ask for, for whoever learns from it; its own scores need it too."""
    if view.demand is None or rules is None or (rules.router == HEURISTIC and not rules.split):
        return None
    return view.demand(features)


def _propensity(view: View, rules: Route, scoring: Scoring, chosen: Candidate) -> float:
    """The probability of a choice over whose turn it is, and whether this is a probe."""
    found = sum(s * scoring.chance(view.serving(name), chosen) for name, s in rules.split.items())
    return found / sum(rules.split.values())


def _verdict(
    request: ChatRequest,
    candidate: Candidate,
    input_tokens: int,
    available: Callable[[str], bool],
    capped: Callable[[Candidate], bool],
    asks: bool,
) -> str:
    can = candidate.capabilities
    if can.embeddings:
        return "not a chat model"
    if asks and (lacking := _lacking(request, candidate, input_tokens)) is not None:
        return lacking
    context = can.context_tokens
    if context is not None and input_tokens * SURE_PERMILLE // 1000 >= context:
        return "context too small"
    if candidate.price is None and capped(candidate):
        return "unpriced under a cap"
    bills_tools = can.searches or (asks and (request.prompt.server_tools or request.prompt.service_tier))
    if bills_tools and (tools := unpriced_tools(request, candidate)) and capped(candidate):
        return UNPRICED_TOOL + " and ".join(tools)
    copies = candidate.copies
    if not (any(available(copy.circuit) for copy in copies) if copies else available(candidate.name)):
        return "circuit open"
    return _TIGHT if context is not None and input_tokens >= context else _CAPABLE


def _asks(request: ChatRequest) -> bool:
    """Whether a request asks for something that a model may not have, beyond text for text."""
    prompt = request.prompt
    return bool(
        prompt.tools
        or prompt.images
        or prompt.wants_schema
        or prompt.server_tools
        or prompt.service_tier
        or prompt.placement is not None
        or request.dialect == COMPLETIONS
    )


def _lacking(request: ChatRequest, candidate: Candidate, input_tokens: int) -> str | None:
    """What this candidate does not have of it."""
    can, prompt = candidate.capabilities, request.prompt
    if request.dialect == COMPLETIONS and COMPLETIONS not in candidate.provider.also:
        return "its provider has no text completions"
    if prompt.tools and can.tools is False:
        return "no tools"
    if prompt.images and can.vision is False:
        return "no vision"
    if prompt.wants_schema and can.json_schema is False:
        return "no json schema"
    return None if prompt.placement is None else misplaced(request, candidate, input_tokens)


def _nothing_usable(verdicts: Sequence[str], request: ChatRequest) -> BursarError:
    if "circuit open" in verdicts:
        return UpstreamError("Every provider that could serve this is failing at the moment.")
    if "unpriced under a cap" in verdicts:
        return unpriced_error(())
    if tools := next((v.removeprefix(UNPRICED_TOOL) for v in verdicts if v.startswith(UNPRICED_TOOL)), None):
        return unpriced_error(tools.split(" and "))
    if "context too small" in verdicts:
        return ContextTooLong("The messages are longer than the context window of every candidate.", param="messages")
    why = ", ".join(sorted(set(verdicts)))
    param = None if request.prompt.placement is None else "provider"
    return NoCandidate(f"No candidate of this route can take such a request: {why}.", param=param)


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
