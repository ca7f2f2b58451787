"""Wishes that only OpenAI's own two dialects have words for: they go on between these, to OpenAI alone.

Others refuse members that they do not know (Mistral, Cerebras), and OpenAI those that its model does not.
Sources: https://platform.openai.com/docs/api-reference/chat/create; which models take a verbosity:
https://github.com/enricoros/big-AGI/issues/948; which keep a cache for longer:
https://github.com/OpenHands/software-agent-sdk/pull/1345 and https://github.com/anomalyco/opencode/issues/36315
"""

from __future__ import annotations

import re
from typing import Final

from app.core.conversation import Conversation

VERBOSITY: Final = "verbosity"
OWN: Final = (VERBOSITY, "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
"""By their names in Chat; Responses has the first one within `text`."""
_TAKEN: Final = {
    VERBOSITY: re.compile(r"gpt-[5-9](?!.*-(?:chat|codex|search))"),
    "prompt_cache_retention": re.compile(r"gpt-(?:4\.1|5(?:\.[1-5])?)(?![\d.])(?!.*-(?:mini|nano|pro))"),
}
"""The names of models that take it; all take the others."""


def own_members(talk: Conversation, model: str) -> dict[str, str]:
    """Those of the client's wishes that this model of OpenAI's takes. An end user has one name: `user` is the older."""
    name = model.lower().rpartition("/")[2]
    told = {wish: value for wish, value in talk.own.items() if wish not in _TAKEN or _TAKEN[wish].match(name)}
    if talk.user is not None and "safety_identifier" not in told:
        told["user"] = talk.user
    return told


def forget_own(talk: Conversation) -> None:
    """For a provider that is not OpenAI."""
    talk.dropped += talk.own
    talk.own = {}
