"""Choosing where a request goes: a pure function of the request, the policy, scores and health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from app.core.errors import BursarError, ContextTooLong, NoCandidate, UpstreamError
from app.core.money import expected_nano, tools_cost
from app.core.policy import HEURISTIC, Candidate, Retries, Route
from app.core.types import ChatRequest, Placement
from app.dialects.registry import COMPLETIONS
from app.gateway.choose import Considered, choose, cost_key, name_verdicts, sure_of
from app.gateway.fees import sure_tools, unpriced_error, unpriced_tools
from app.gateway.placement import misplaced
from app.gateway.sobered import sobered
from app.gateway.spare import NOBODY, Spares
from app.gateway.split import assign
from app.gateway.target import Target
from app.gateway.view import View
from routers.base import RequestView, Score
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
_DEFERRED = "; the heuristic decided, for the router's confidence in its own choice was below min_confidence"
_BELIEVED = "the router was believed, for it is sure, on "
_UNASKED = "; the heuristic decided, for the router cannot be as sure of such a request as min_confidence asks"


class Opinion(msgspec.Struct, frozen=True):
    """What one router (`name@version`) made of the candidates, and what it would choose of those that could serve."""

    router: str
    considered: tuple[Considered, ...]
    usable: tuple[Considered, ...]
    chosen: Considered
    reason: str


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
    scoring = _Scoring(request, features, target, view, tokens, verdicts, serviceable, task_type, unit)
    opinion, assigned, share, propensity = _turn(view, target.rules, scoring, unit)
    chosen = opinion.chosen
    usable = opinion.usable
    backups = _backups(target, usable, chosen)
    name_verdicts(target.rules, usable, chosen, backups)
    scoring.name_spares(usable, chosen)
    deferred = assigned is not None and opinion is not scoring.opinions.get(assigned)
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
        others=tuple([other for other in scoring.opinions.values() if other is not opinion]),
        propensity=propensity,
        demand=_demand(view, target.rules, features),
    )


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
    view: View, rules: Route | None, scoring: _Scoring, unit: str
) -> tuple[Opinion, str | None, float | None, float]:
    """The opinion that decides; whose turn it was, and its share, where traffic is split; the choice's probability."""
    if rules is None:
        return scoring.opinion(HEURISTIC), None, None, 1.0
    assigned, share = _assigned(view, rules, unit)
    opinion = scoring.decided(assigned)
    propensity = 1.0 if share is None else _propensity(view, rules, scoring, opinion.chosen.candidate)
    if scoring.spares:
        propensity *= scoring.spares.share(opinion.router)
    return opinion, assigned, share, propensity


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


def _propensity(view: View, rules: Route, scoring: _Scoring, chosen: Candidate) -> float:
    """The shares of all routers whose decision on this request is the same."""
    same = (s for name, s in rules.split.items() if scoring.decided(view.serving(name)).chosen.candidate is chosen)
    return sum(same) / sum(rules.split.values())


class _Scoring:
    """Scores of one request by as many routers as are asked, each asked once."""

    __slots__ = (
        "_all_serve", "_features", "_request", "_serviceable", "_target", "_tokens", "_verdicts", "_view", "opinions",
        "spares",
    )  # fmt: skip

    def __init__(
        self,
        request: ChatRequest,
        features: Features,
        target: Target,
        view: View,
        tokens: Sequence[int],
        verdicts: Sequence[str],
        serviceable: str,
        task_type: str,
        unit: str,
    ) -> None:
        down = view.down.get(task_type, NOBODY)
        self.spares = Spares(down, unit) if down else None
        self.opinions: dict[str, Opinion] = {}
        self._request, self._features, self._target, self._view = request, features, target, view
        self._tokens, self._verdicts, self._serviceable = tokens, verdicts, serviceable
        self._all_serve = verdicts.count(serviceable) == len(verdicts)

    def decided(self, router: str) -> Opinion:
        """The opinion that decides where it is a router's turn: its own, or the heuristic's if it does not trust it."""
        rules = self._target.rules
        if router == HEURISTIC or rules is None:
            return self.opinion(router)
        if self._view.routers[router].surest(self._features) < rules.min_confidence:
            return self.opinion(HEURISTIC)
        own = self.opinion(router)
        return own if sure_of(rules, own.chosen, own.usable) else self._left_by(own, rules.min_confidence)

    def _left_by(self, other: Opinion, least: float) -> Opinion:
        """The heuristic's opinion where another router left the decision to it, and is believed where it is sure."""
        plain = self.opinion(HEURISTIC)
        found = sobered(plain.considered, other.considered, least)
        name = f"{plain.router}&{other.router}"
        if found is not None and name not in self.opinions:
            made = self._made_of(name, found[0])
            self.opinions[name] = msgspec.structs.replace(made, reason=f"{made.reason}; {_BELIEVED}{found[1]}")
        return plain if found is None else self.opinions[name]

    def name_spares(self, usable: Sequence[Considered], chosen: Considered) -> None:
        """Say of those in quarantine that they are."""
        if self.spares:
            self.spares.name(usable, chosen)

    def why_deferred(self, router: str | None) -> str:
        """Why the heuristic decided in this router's turn."""
        return _DEFERRED if router in self.opinions else _UNASKED

    def opinion(self, router: str) -> Opinion:
        """What one router makes of the candidates."""
        found = self.opinions.get(router)
        if found is None:
            asked = self._view.routers[router]
            scores = asked.score(self._features, self._target.arms)
            found = self.opinions[router] = self._made_of(f"{asked.name}@{asked.version}", scores)
        return found

    def _made_of(self, name: str, scores: Sequence[Score]) -> Opinion:
        """The opinion of the router of this name that gives these scores."""
        target, request, found = self._target, self._request, []
        choices, searches = request.choices, request.prompt.searches
        for candidate, score, n, verdict in zip(target.every, scores, self._tokens, self._verdicts, strict=True):
            # Expected cost: what makes a cheap but wordy model comparable with a dear but terse one. None: unpriced.
            price, cost_nano = candidate.price, None
            if price is not None:
                cost_nano = expected_nano(price, n, int(score.output_tokens * choices))
                if searches or candidate.capabilities.searches:
                    cost_nano += tools_cost(price, sure_tools(request, candidate))
            found.append(Considered(candidate, score, cost_nano, verdict))
        considered = tuple(found)
        usable = self._usable(considered)
        if target.rules is None or target.fixed:
            chosen, reason = usable[0], target.fixed
        else:
            primary = self._usable(considered[: len(target.candidates)])  # they stand first in `every`
            chosen, reason = choose(target.rules, primary or usable)
            if self.spares:
                chosen, reason = self.spares.choose(name, target.rules, primary or usable, chosen, reason)
        return Opinion(name, considered, usable, chosen, reason)

    def _usable(self, considered: tuple[Considered, ...]) -> tuple[Considered, ...]:
        """Those of them that could serve: as a rule all."""
        if self._all_serve:
            return considered
        return tuple([seen for seen in considered if seen.verdict == self._serviceable])


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
