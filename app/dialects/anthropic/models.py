"""What Claude models take, by their names: the API refuses parameters that a model has outgrown or not yet learned.

Sources: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking (adaptive since 4.6, alone since 4.7),
https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-7 (sampling parameters removed),
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages (since 4.8),
https://platform.claude.com/docs/en/api/errors#prefill-not-supported (none since 4.6),
https://platform.claude.com/docs/en/build-with-claude/effort (which model takes which),
https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5 and .../sonnet-5-5/whats-new-sonnet-5-5 (thinking
that cannot be turned off, and how else; tools that cannot be forced, as with Fable 5.1).
Names that are not Claude's are other makers' models behind this dialect: they are taken for a Claude 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.dialects.anthropic.table import DEFAULT_LIMIT_TOKENS, OLD_DEFAULT_LIMIT_TOKENS

_NAME = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2})(?!\d))?(?!\d)")
"""claude-3-7-sonnet-..., claude-opus-4-20250514, anthropic/claude-opus-4.7, claude-haiku-5-5."""
_ALWAYS_THINK = ("fable", "mythos")
DISABLED, BETWEEN_TOOLS = "disabled", "between_tools"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model takes. `claude`: it is one by its name; `samples`: temperature and its kin; `samples_twice`:
    temperature beside top_p; `thinks`: with a budget; `adapts`: thinking whose depth `effort` governs; `efforts`:
    the words for it; `thinks_unasked`: it thinks where nothing is said of it; `quiet`: the type of thinking by which it
    does not, or least, None where that cannot be; `forced`: it can be made to call a tool; `mid_system`: system
    messages within the conversation; `prefills`: goes on with an assistant's words; `limit_tokens`: where nobody names
    a limit."""

    claude: bool
    samples: bool
    samples_twice: bool
    thinks: bool
    adapts: bool
    efforts: tuple[str, ...]
    thinks_unasked: bool
    quiet: str | None
    forced: bool
    mid_system: bool
    prefills: bool
    limit_tokens: int


def abilities_of(model: str) -> Abilities:
    """The abilities that a model's name tells."""
    found = _NAME.search(model.lower())
    claude = found is not None
    family = found[1] if found else ""
    version = (int(found[2]), int(found[3] or 0)) if found else (4, 0)
    return Abilities(
        claude=claude,
        samples=version < (4, 7),
        samples_twice=version < (4, 1),
        thinks=version >= (3, 7),
        adapts=version >= (4, 6),
        efforts=_efforts(family, version),
        thinks_unasked=version >= (5, 0),
        quiet=_quiet(family, version),
        forced=version < (5, 1) or family == "haiku" or (version < (5, 5) and family not in _ALWAYS_THINK),
        mid_system=version >= (4, 8),
        prefills=version < (4, 6),
        limit_tokens=DEFAULT_LIMIT_TOKENS if claude and version >= (4, 0) else OLD_DEFAULT_LIMIT_TOKENS,
    )


def _efforts(family: str | None, version: tuple[int, int]) -> tuple[str, ...]:
    if version >= (4, 7):
        return ("low", "medium", "high", "xhigh", "max")
    if version == (4, 6):
        return ("low", "medium", "high", "max")
    return ("low", "medium", "high") if version == (4, 5) and family == "opus" else ()


def _quiet(family: str | None, version: tuple[int, int]) -> str | None:
    if family in _ALWAYS_THINK or (family == "opus" and version >= (5, 5)):
        return None
    return BETWEEN_TOOLS if family == "sonnet" and version >= (5, 5) else DISABLED
