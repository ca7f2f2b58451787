"""How much a Gemini model is to think: a budget in tokens for 2.5, a level for 3 and later.

Source: https://ai.google.dev/gemini-api/docs/thinking (bounds), and https://ai.google.dev/gemini-api/docs/openai, whose
table of efforts is followed here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from app.core.conversation import Conversation

_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_MOST, _MOST_PRO, _LEAST_PRO = 24576, 32768, 128
FIRST_WITH_BUDGET, FIRST_WITH_LEVEL = (2, 5), (3, 0)
_LATEST, UNKNOWN = (99, 0), (0, 0)


def version_of(model: str) -> tuple[int, int]:
    """The version that a model's name says, the newest for `-latest` names, UNKNOWN where it says none."""
    found = _VERSION.search(model)
    if found:
        return int(found[1]), int(found[2] or 0)
    return _LATEST if model.startswith("gemini-") and model.endswith("-latest") else UNKNOWN


def thinking_config(talk: Conversation, model: str) -> dict[str, Any] | None:
    """The `thinkingConfig` for this model, None where nothing is asked; to models that do not think it is dropped."""
    if talk.effort is None and talk.think_tokens is None and not talk.show_thoughts:
        return None
    version = version_of(model)
    if version < FIRST_WITH_BUDGET:
        talk.dropped.append("reasoning_effort")
        return None
    config: dict[str, Any] = {"includeThoughts": True} if talk.show_thoughts else {}
    pro = "pro" in model
    if talk.think_tokens == 0 and version >= FIRST_WITH_LEVEL:
        config["thinkingLevel"] = _level("none", version, pro=pro)
    elif talk.think_tokens is not None:
        config["thinkingBudget"] = _bounded(talk.think_tokens, pro=pro)
    elif talk.effort is not None and version < FIRST_WITH_LEVEL:
        config["thinkingBudget"] = _bounded(_BUDGETS.get(talk.effort, _MOST), pro=pro)
    elif talk.effort is not None:
        config["thinkingLevel"] = _level(talk.effort, version, pro=pro)
    return config


def _bounded(tokens: int, *, pro: bool) -> int:
    return min(max(tokens, _LEAST_PRO), _MOST_PRO) if pro else min(tokens, _MOST)


def _level(effort: str, version: tuple[int, int], *, pro: bool) -> str:
    """Thinking cannot be turned off from 3 on. Pro knows no `minimal`, 3.0 Pro no `medium`; nothing is above `high`."""
    if effort in ("none", "minimal"):
        return "low" if pro else "minimal"
    if effort == "medium" and pro and version == FIRST_WITH_LEVEL:
        return "high"
    return effort if effort in ("low", "medium") else "high"
