"""How much to think: a word (`effort`) or a budget in tokens, and what a Messages request makes of either.

Old models take a budget (`thinking.budget_tokens`, 1,024 at the least and below `max_tokens`), new ones a word
(`output_config.effort`) beside adaptive thinking. Source:
https://platform.claude.com/docs/en/build-with-claude/extended-thinking and .../build-with-claude/effort
"""

from __future__ import annotations

from app.core.conversation import Conversation, Thinking, ToolCall
from app.dialects.anthropic.models import Abilities

MIN_BUDGET_TOKENS = 1024
_BUDGETS = {"low": 2048, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 65_536}
"""Between what the makers themselves name for these words: Google's compatible endpoint takes 1,024, 8,192 and 24,576
(https://ai.google.dev/gemini-api/docs/openai#thinking), Claude Code took 4,000 to 31,999."""
_WORDS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
"""The efforts that every model that adapts takes; `xhigh` came with 4.7."""
_NO_EFFORT = frozenset(("none", "disabled", "off"))


def effort_of_budget(budget_tokens: int) -> str:
    """The word for a budget: the smallest whose own budget holds it."""
    return next((word for word, most in _BUDGETS.items() if budget_tokens <= most), "max")


def wants_thought(talk: Conversation) -> bool:
    """Whether the client asked for thinking in any way."""
    if talk.effort is not None:
        return talk.effort not in _NO_EFFORT
    return bool(talk.think_tokens) or (talk.show_thoughts and talk.think_tokens is None)


def refuses_thought(talk: Conversation) -> bool:
    """Whether the client asked for none."""
    return talk.effort in _NO_EFFORT if talk.effort is not None else talk.think_tokens == 0


def is_forced(talk: Conversation) -> bool:
    """Whether the model is to call a tool in any case."""
    return talk.tool_choice == "required" or talk.tool_named is not None


def effort_word(talk: Conversation, can: Abilities) -> str | None:
    """`output_config.effort`, None for the model's own."""
    if refuses_thought(talk):
        return None if can.quiet else "low"
    if talk.effort is not None:
        return talk.effort if talk.effort in can.efforts else _WORDS.get(talk.effort)
    if talk.think_tokens is not None and talk.think_tokens > 0:
        return effort_of_budget(talk.think_tokens) if talk.think_tokens <= _BUDGETS["high"] else "high"
    return None


def thinking_member(talk: Conversation, can: Abilities, limit_tokens: int) -> dict[str, object] | None:
    """The `thinking` of a request, None for none: not asked for, or not possible here."""
    if refuses_thought(talk) and can.thinks_unasked:
        return None if can.quiet is None else {"type": can.quiet}
    if is_forced(talk) or not wants_thought(talk):
        return None  # the API refuses thinking where a tool is forced
    if can.adapts:
        # New models keep their thoughts to themselves unless asked, and what is not streamed cannot be metered.
        return {"type": "adaptive", "display": "summarized"}
    if not can.thinks or _loop_without_thought(talk):
        return None
    if talk.think_tokens is not None and talk.think_tokens > 0:
        budget = budget_within(talk.think_tokens, limit_tokens)
    else:
        budget = fallback_budget(talk.effort, limit_tokens)
    return None if budget is None else {"type": "enabled", "budget_tokens": budget}


def fallback_budget(effort: str | None, limit_tokens: int) -> int | None:
    """A budget in the place of a word, at most half of the limit; None: no room to think."""
    budget = min(_BUDGETS[_WORDS.get(effort or "medium", "medium")], limit_tokens // 2)
    return budget if budget >= MIN_BUDGET_TOKENS else None


def _loop_without_thought(talk: Conversation) -> bool:
    """An open tool loop whose calls were made without provable thinking: with a budget the API refuses to think on."""
    for message in reversed(talk.messages):
        if message.role == "assistant":
            calls = any(isinstance(part, ToolCall) for part in message.parts)
            return calls and not any(isinstance(p, Thinking) and p.origin == "anthropic" for p in message.parts)
    return False


def budget_within(budget_tokens: int, limit_tokens: int) -> int | None:
    """A budget that a client named, below `max_tokens`, as it must be; None: no room to think."""
    budget = max(min(budget_tokens, limit_tokens - 1), MIN_BUDGET_TOKENS)
    return budget if budget < limit_tokens else None
