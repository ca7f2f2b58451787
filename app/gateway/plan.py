"""How one attempt is paid for and carried: what to hold, how far to clamp, streamed or not. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from app.core.budget import Granted
from app.core.landing import Approach
from app.core.money import MAX_NANO, affordable_tokens, tokens_cost, tools_cost
from app.core.policy import Candidate
from app.core.types import ChatRequest
from app.gateway.fees import sure_tools, unseen_fee_nano
from app.gateway.limits import Limits
from app.gateway.uses import Uses, uses_of

STEP_TOKENS = 512
"""A call writes its cost at the latest after this many output tokens: what a killed process can have
spent without a record, and what an expired hold is charged for it."""
BLIND_TOKENS = 65_536
"""What a blind call holds for each choice where nobody says how much it may generate: more than nearly any
answer, and less than all that a scope has left."""
SHARE = 8
"""A metered stream holds at most this part of what a scope has left, beyond its need, and asks for more as
it goes: many calls fit under one cap, and the whole `max_tokens` is not held for the whole stream. A reply that
could be streamed is asked for whole only where all holds together, its own worst case included, are no larger part of
what is not spent: else one call would keep from all others, for as long as it takes, what it does not use."""

PLENTY = 1024
"""A stream sets a whole step aside where that is at most this part of what a scope has left."""


class Mode(StrEnum):
    """PLAIN: one JSON reply. STREAM: the client streams. FOLD: streamed upstream, one reply to the client."""

    PLAIN = "plain"
    STREAM = "stream"
    FOLD = "fold"


class Plan(msgspec.Struct, frozen=True):
    """One attempt's money. All-or-nothing plans (`strict`) hold their whole worst case: what they spend cannot be seen
    meanwhile (no stream; `blind`: hidden reasoning, or billed even when cancelled; a tool that shows at the end only).

    `input_nano` is what is kept for what is no output: the input, tools that are used for certain, and `unseen_nano`,
    the uses of those that would show at the end only.
    `worst_tokens` is the most output that all choices together may have, None where nobody knows; `least_tokens` the
    least that can be asked for. `uses`: of tools that the provider uses as it likes, where a stream shows each use.
    `whole`: it cannot be streamed, and is clamped to what there is.
    """

    mode: Mode
    strict: bool
    input_tokens: int
    input_nano: int
    output_rate: int
    worst_tokens: int | None
    need_nano: int
    want_nano: int
    risk_nano: int
    blind: bool = False
    choices: int = 1
    least_tokens: int = 1
    sure_tools: tuple[tuple[str, int], ...] = ()
    unseen_nano: int = 0
    uses: Uses | None = None
    whole: bool = False

    @property
    def folds(self) -> bool:
        """Whether it may still be streamed upstream, so that it can be cut."""
        return self.mode is Mode.PLAIN and not self.whole

    @property
    def start_share(self) -> int:
        """How the ledger is asked to divide what is left when the call begins."""
        return 1 if self.strict else PLENTY

    @property
    def held_share(self) -> int:
        """How the ledger is asked to keep room for others (0: not at all): only what would hold less as a stream."""
        shows = not (self.blind or self.unseen_nano) and (self.output_rate or self.uses)
        return SHARE if self.folds and shows else 0

    @property
    def unbounded(self) -> bool:
        """Whether nobody knows the most that the call may cost."""
        return self.uses is not None or (self.worst_tokens is None and self.output_rate > 0)

    @property
    def least_nano(self) -> int:
        """What must be there beside the input: the least output that can be asked for, and one use of a tool."""
        tokens_nano = tokens_cost(self.least_tokens, self.output_rate)
        return tokens_nano if self.uses is None else tokens_nano + self.uses.least_nano

    @property
    def step_nano(self) -> int:
        """What a metered call may spend between two writes: `STEP_TOKENS`, and a use of a tool."""
        tokens_nano = tokens_cost(STEP_TOKENS, self.output_rate)
        return tokens_nano if self.uses is None else tokens_nano + self.uses.dearest_nano

    def begun_nano(self, tokens: int) -> int:
        """What a stream holds to begin with, to have so much output of each choice."""
        nano = self.input_nano + tokens_cost(tokens * self.choices, self.output_rate)
        return max(min(nano, self.want_nano), self.need_nano)

    @property
    def share(self) -> int:
        """How the ledger is asked to divide what is left."""
        return 1 if self.strict else SHARE


def plan_attempt(request: ChatRequest, candidate: Candidate, limits: Limits, input_tokens: int) -> Plan:
    """The first plan for a candidate. `input_tokens` is the estimate to reserve for."""
    price, capabilities = candidate.price, candidate.capabilities
    rates = price.rates(input_tokens) if price is not None else None
    output_rate = rates.dearest_output if rates else 0
    input_nano = tokens_cost(input_tokens, rates.dearest_input) if rates else 0
    sure = sure_tools(request, candidate)
    if price is not None and sure:
        input_nano += tools_cost(price, sure)
    unseen_nano = unseen_fee_nano(request, candidate)
    input_nano += unseen_nano
    uses = uses_of(request, candidate, input_tokens) if request.prompt.server_tools else None
    least_nano, uses_nano = (0, 0) if uses is None else (uses.least_nano, uses.worst_nano)
    # No answer is longer than the model's window: where nothing nearer is known, that bounds it.
    limits_known = (request.output_limit, capabilities.max_output_tokens, capabilities.context_tokens)
    bounds = [b for b in limits_known if b is not None]
    worst_tokens = min(bounds) * request.choices if bounds else None
    step_nano = tokens_cost(STEP_TOKENS, output_rate)
    if uses is not None:
        step_nano += uses.dearest_nano
    blind = capabilities.hidden_reasoning or candidate.provider.bills_after_cancel
    at_once = blind or unseen_nano > 0
    if worst_tokens is not None:
        want = input_nano + uses_nano + tokens_cost(worst_tokens, output_rate)
    elif limits.call_nano is not None:
        want = limits.call_nano
    elif at_once:
        want = input_nano + uses_nano + tokens_cost(BLIND_TOKENS * request.choices, output_rate)
    else:
        want = input_nano + step_nano
    affordable = limits.call_nano is None or want <= limits.call_nano
    want = min(want, MAX_NANO if limits.call_nano is None else limits.call_nano)
    if request.stream:
        mode = Mode.STREAM
    else:
        # A model that declines after it began is billed beside the one that answers then.
        open_ = uses is not None or request.prompt.fallbacks or (worst_tokens is None and output_rate)
        bounded = not limits.capped or not open_
        mode = Mode.PLAIN if (bounded and affordable) or request.whole else Mode.FOLD
    strict = at_once or mode is Mode.PLAIN
    # A clamp leaves each choice one token at the least, or what the provider takes as a limit.
    least = request.choices * candidate.provider.least_tokens(request.dialect)
    if worst_tokens is not None and worst_tokens < least:
        least = worst_tokens
    # What can come whole only is clamped to what there is; the rest would be streamed then.
    all_or_fold = mode is Mode.PLAIN and not request.whole
    need = want if all_or_fold else input_nano + least_nano + tokens_cost(least, output_rate)
    risk = want if strict else input_nano + step_nano
    want = max(want, need)
    return Plan(
        mode, strict, input_tokens, input_nano, output_rate, worst_tokens, need, want, risk,
        blind, request.choices, least, sure, unseen_nano, uses, request.whole,
    )  # fmt: skip


def folded(plan: Plan) -> Plan:
    """The same attempt, streamed upstream so that it can be cut: when its worst case finds no room."""
    strict = plan.blind or plan.unseen_nano > 0
    return msgspec.structs.replace(
        plan,
        mode=Mode.FOLD,
        strict=strict,
        need_nano=plan.input_nano + plan.least_nano,
        risk_nano=plan.want_nano if strict else plan.input_nano + plan.step_nano,
    )


def token_clamp(plan: Plan, request: ChatRequest, tokens_left: int | None) -> int | None:
    """The output limit, per choice, that keeps the call within a task's tokens; None where that is no limit, or
    another is tighter."""
    if tokens_left is None:
        return None
    tokens = (tokens_left - plan.input_tokens) // request.choices
    if plan.worst_tokens is not None and tokens >= plan.worst_tokens // request.choices:
        return None
    return max(tokens, plan.least_tokens // request.choices)


def landing_clamp(plan: Plan, approach: Approach) -> int | None:
    """The output limit, per choice, of a call of a task that lands; None where the client's own (or the model's) is no
    larger."""
    tokens = approach.output_tokens(plan.input_tokens, plan.input_nano, plan.output_rate, plan.choices)
    if tokens is None or (plan.worst_tokens is not None and tokens >= plan.worst_tokens // plan.choices):
        return None
    return tokens


def clamps(plan: Plan, request: ChatRequest, limits: Limits, grant: Granted) -> tuple[int | None, int | None]:
    """The output limit to send upstream, per choice, and how often the provider may use its tools (`Uses`), each None
    where the client's own (or the model's) is tighter.

    min(asked, floor((cap - input cost - uses of tools) / output price)), the cap being what this call may still spend:
    its hold and, for a metered stream, what its tightest scope has left beside it.
    """
    ceilings = [limits.call_nano] if limits.call_nano is not None else []
    if grant.remaining_nano is not None:
        ceilings.append(grant.held_nano + (0 if plan.strict else max(grant.remaining_nano, 0)))
    if not ceilings:
        return None, None
    room_nano, uses, most = min(ceilings) - plan.input_nano, plan.uses, None
    if uses is not None:
        most = _clamped_uses(plan, uses, room_nano)
        room_nano -= uses.cost_nano(uses.wanted if most is None else most)
    if not plan.output_rate:
        return None, most
    tokens = affordable_tokens(room_nano, plan.output_rate) // request.choices
    if plan.worst_tokens is not None and tokens >= plan.worst_tokens // request.choices:
        return None, most
    return max(tokens, plan.least_tokens // request.choices), most


def _clamped_uses(plan: Plan, uses: Uses, room_nano: int) -> int | None:
    """None, too, where there is enough for what the call may want, and a stream shows it if it wants more."""
    if not uses.tools:
        return None
    answer_nano = 0
    if plan.output_rate:
        answer_nano = room_nano if plan.worst_tokens is None else tokens_cost(plan.worst_tokens, plan.output_rate)
    most = uses.afforded(room_nano, answer_nano, plan.least_nano - uses.least_nano)
    return None if most >= uses.wanted and (uses.limited or not plan.strict) else most
