"""What routers make of one request's candidates, each asked once, and whose opinion decides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.core.money import expected_nano, tools_cost
from app.core.policy import HEURISTIC, LEARNED, Baseline, Candidate, Route
from app.core.types import ChatRequest
from app.gateway.baseline import baseline_of, believed, surely_better, why_kept, why_left
from app.gateway.choose import IN_QUARANTINE, NOT_SURELY_BETTER, Considered, choose, sure_of
from app.gateway.fees import sure_tools
from app.gateway.sobered import sobered
from app.gateway.spare import NOBODY, Spares, probe_of
from app.gateway.target import Target
from app.gateway.view import View
from routers.base import Score
from routers.features import Features
from routers.probes import PROBE_SHARE

_DEFERRED: Final = "; the heuristic decided, for the router's confidence in its own choice was below min_confidence"
_BELIEVED: Final = "the router was believed, for it is sure, on "
_UNASKED: Final = "; the heuristic decided, for the router cannot be as sure of such a request as min_confidence asks"


class Opinion(msgspec.Struct, frozen=True):
    """What one router (`name@version`) made of the candidates, and what it would choose of those that could serve.

    `share`: the probability of that choice, over whether this is a probe of a model in quarantine; `instead`: what the
    other draw chooses (None: the same). `kept_from`: those for which the route's baseline was not left, though more was
    expected of them; None: it keeps to none. `decides`: False where the baseline decides in this router's turn."""

    router: str
    considered: tuple[Considered, ...]
    usable: tuple[Considered, ...]
    chosen: Considered
    reason: str
    share: float = 1.0
    instead: Considered | None = None
    kept_from: tuple[Considered, ...] | None = None
    decides: bool = True


class Scoring:
    """Scores of one request by as many routers as are asked, each asked once."""

    __slots__ = (
        "_all_serve", "_features", "_passed", "_request", "_serviceable", "_target", "_tokens", "_verdicts", "_view",
        "opinions", "spares",
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
        self._passed: dict[str, Considered] = {}  # in this router's turn: a baseline in quarantine, if this is no probe
        self._request, self._features, self._target, self._view = request, features, target, view
        self._tokens, self._verdicts, self._serviceable = tokens, verdicts, serviceable
        self._all_serve = verdicts.count(serviceable) == len(verdicts)

    def decided(self, router: str) -> Opinion:
        """The opinion that decides where it is a router's turn: its own, as far as it is sure where the route has a
        baseline; or the heuristic's if it does not trust it."""
        rules = self._target.rules
        if rules is None:
            return self.opinion(router)
        if rules.baseline is not None and (router != HEURISTIC or self._stands_in(rules)):
            kept = self._from_baseline(router, rules, rules.baseline)
            if kept is not None:
                return kept
        if router == HEURISTIC:
            return self.opinion(router)
        if self._view.routers[router].surest(self._features) < rules.min_confidence:
            return self.opinion(HEURISTIC)
        own = self.opinion(router)
        return own if sure_of(rules, own.chosen, own.usable) else self._left_by(own, rules.min_confidence)

    def chance(self, router: str, candidate: Candidate) -> float:
        """The probability that a candidate is chosen in a router's turn, over whether this is a probe."""
        opinion = self.decided(router)
        share, instead = opinion.share, opinion.instead
        if router in self._passed:
            share, instead = 1.0 - PROBE_SHARE, self._passed[router]
        found = share if opinion.chosen.candidate is candidate else 0.0
        return found + 1.0 - share if instead is not None and instead.candidate is candidate else found

    def _stands_in(self, rules: Route) -> bool:
        """Whether the heuristic has the learned router's turn, because that is not loaded: it knows no outcomes."""
        return rules.router != HEURISTIC and LEARNED not in self._view.routers

    def _from_baseline(self, router: str, rules: Route, baseline: Baseline) -> Opinion | None:
        """The choice of the baseline and what is surely better; None where there is nothing to keep to."""
        own, name = self.opinion(router), f"{router} from {baseline.model}"
        options, down = self._options(own.considered, own.usable), self.spares.down if self.spares else NOBODY
        stays = baseline_of(rules, options)
        if stays is None:
            return None
        if name not in self.opinions:
            drawn = believed(self._view.routers[router], self._features, self._target.arms)
            left, unsure = surely_better(rules, stays, options, drawn, down)
            kept, seen = why_kept(baseline, learned=drawn is not None), (own.considered, own.usable)
            if self.spares and baseline.model in down:
                return self._fallen(router, name, stays) if left == [stays] else None
            chosen, reason, share, instead = self._choice(rules, left)
            if chosen is stays:
                reason = kept if instead is None else f"{kept}; {instead.candidate.name} is {IN_QUARANTINE}"
            else:
                reason = why_left(baseline, reason)
            self.opinions[router] = msgspec.structs.replace(own, decides=False)
            self.opinions[name] = Opinion(own.router, *seen, chosen, reason, share, instead, tuple(unsure))
        return self.opinions[name]

    def _fallen(self, router: str, name: str, stays: Considered) -> Opinion | None:
        """A probe of a baseline in quarantine that would have this call, if it were as it was; None where this is none:
        the route decides as it would without one."""
        own, probing = self.opinion(router), self.spares is not None and self.spares.probing
        usual = own.instead if probing and own.instead is not None else own.chosen
        if usual is stays:
            return None
        if not probing:
            self._passed[router] = stays
            return None
        reason, seen = f"{stays.candidate.name}, the baseline; {probe_of(stays)}", (own.considered, own.usable)
        self.opinions[name] = Opinion(own.router, *seen, stays, reason, PROBE_SHARE, usual, ())
        return self.opinions[name]

    def _left_by(self, other: Opinion, least: float) -> Opinion:
        """The heuristic's opinion where another router left the decision to it, and is believed where it is sure."""
        plain = self.opinion(HEURISTIC)
        found = sobered(plain.considered, other.considered, least)
        name = f"{plain.router}&{other.router}"
        if found is not None and name not in self.opinions:
            made = self._made_of(name, found[0])
            self.opinions[name] = msgspec.structs.replace(made, reason=f"{made.reason}; {_BELIEVED}{found[1]}")
        return plain if found is None else self.opinions[name]

    def name_left_out(self, opinion: Opinion) -> None:
        """Say of those in quarantine that they are, and of others that they are not surely better than the baseline."""
        for seen in opinion.kept_from or ():
            if seen.verdict not in ("fallback", "chosen"):
                seen.verdict = NOT_SURELY_BETTER
        if self.spares:
            self.spares.name(opinion.usable, opinion.chosen)

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
            return Opinion(name, considered, usable, usable[0], target.fixed)
        return Opinion(name, considered, usable, *self._choice(target.rules, self._options(considered, usable)))

    def _choice(self, rules: Route, options: Sequence[Considered]) -> tuple[Considered, str, float, Considered | None]:
        chosen, reason = choose(rules, options)
        if self.spares:
            return self.spares.choose(rules, options, chosen, reason)
        return chosen, reason, 1.0, None

    def _options(self, considered: tuple[Considered, ...], usable: tuple[Considered, ...]) -> tuple[Considered, ...]:
        """The candidates that could serve; where none can, the fallbacks that can."""
        return self._usable(considered[: len(self._target.candidates)]) or usable  # candidates stand first in `every`

    def _usable(self, considered: tuple[Considered, ...]) -> tuple[Considered, ...]:
        """Those of them that could serve: as a rule all."""
        if self._all_serve:
            return considered
        return tuple([seen for seen in considered if seen.verdict == self._serviceable])
