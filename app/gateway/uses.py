"""How often one call may use the tools that its provider runs and bills by the piece, where a stream shows each use:
what the uses may cost, and how many of them what is left of a cap can pay. Pure."""

from __future__ import annotations

import bisect

import msgspec

from app.core.meter import use_nano
from app.core.policy import Candidate
from app.core.types import ChatRequest
from app.dialects.server_tools import CODE, SHOWN_RUNNING, TOGETHER
from app.gateway.fees import billed_tools

OPEN_USES = 16
"""What a call is taken to want of a tool whose uses its client does not limit: one question was seen to take eight
searches (https://docs.apiyi.com/en/api-capabilities/openai/web-search, gpt-5.5). What holds its whole worst case is
limited to so many."""
MANY_USES = 10**6
"""More than any call makes: limits beyond it are taken as this."""
TOOLS_PART = 4
"""Where not all can be paid, uses of tools get what the whole answer leaves, but this part of what is left at least: a
limit of output as large as the model allows would leave them nothing, and is hardly ever reached."""


class Uses(msgspec.Struct, frozen=True):
    """The uses that one call may make. `tools`: of each tool the client's own limit (None: none) and what one use may
    cost in nano-dollars; `together`: one limit counts the uses of all of them (Responses), and `own` is the client's.
    `once_nano`: tools of which one use at most is billed."""

    tools: tuple[tuple[int | None, int], ...] = ()
    together: bool = False
    own: int | None = None
    once_nano: int = 0

    @property
    def dearest_nano(self) -> int:
        """The most that one use can cost."""
        return max(self.once_nano, self._dearest_again_nano)

    @property
    def _dearest_again_nano(self) -> int:
        return max((nano for _, nano in self.tools), default=0)

    @property
    def limited(self) -> bool:
        """Whether the client itself bounds them."""
        return self.own is not None or all(own is not None for own, _ in self.tools)

    @property
    def wanted(self) -> int:
        """How many (of each tool, or together) the call may want; 0: of none more than one is billed."""
        if not self.tools:
            return 0
        if self.together:
            return OPEN_USES if self.own is None else self.own
        return max(OPEN_USES if own is None else own for own, _ in self.tools)

    def cost_nano(self, most: int) -> int:
        """What they cost at worst where no more than `most` are allowed, of each tool or together."""
        if self.together:
            allowed = most if self.own is None else min(most, self.own)
            return self.once_nano + allowed * self._dearest_again_nano
        return self.once_nano + sum(nano * (most if own is None else min(most, own)) for own, nano in self.tools)

    @property
    def worst_nano(self) -> int:
        """What all that the call may want cost."""
        return self.cost_nano(self.wanted)

    @property
    def least_nano(self) -> int:
        """What must be there for the call to begin: one use."""
        return self.cost_nano(min(self.wanted, 1))

    def afforded(self, room_nano: int, answer_nano: int, least_nano: int) -> int:
        """How many may be allowed, at least one, where there is `room_nano` for uses and answer; the answer may cost
        `answer_nano`, and must be left `least_nano`."""
        part = min(room_nano // TOOLS_PART, room_nano - least_nano)
        fitting = bisect.bisect_right(range(1, self.wanted + 1), max(room_nano - answer_nano, part), key=self.cost_nano)
        return max(fitting, 1)


def uses_of(request: ChatRequest, candidate: Candidate, input_tokens: int) -> Uses | None:
    """The uses that a stream of this candidate would show; None where there are none to pay for."""
    price, prompt = candidate.price, request.prompt
    if not prompt.server_tools or price is None:
        return None
    dialect = candidate.provider.speaking_with(request.dialect)
    if dialect not in SHOWN_RUNNING:
        return None
    limits = {tool: min(most, MANY_USES) for tool, most in prompt.tool_limits}
    rates = price.rates(input_tokens)
    costs = {tool: use_nano(price, rates, tool) for tool in billed_tools(request, candidate)}
    own = limits.get(TOGETHER)
    once = 0 if own == 0 else costs.pop(CODE, 0)
    tools = tuple([(limits.get(tool), nano) for tool, nano in costs.items() if nano and limits.get(tool, own) != 0])
    if not (once or tools):
        return None
    return Uses(tools, dialect != "anthropic", own, once)
