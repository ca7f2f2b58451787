"""What models behind OpenAI's dialects take, by their names: a parameter that a model does not know is refused.

Only for requests whose clients could not know: those from another dialect, or for another model. Sources: the API's
reference (`reasoning_effort`: which model takes which; https://platform.openai.com/docs/api-reference/chat/create),
https://platform.openai.com/docs/guides/latest-model (sampling only without reasoning),
https://ai.google.dev/gemini-api/docs/openai#thinking, https://api-docs.deepseek.com/guides/thinking_mode,
https://docs.x.ai/docs/guides/reasoning. Names that are not known here reason by themselves, if at all.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

_ORDER: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_THREE: Final = ("low", "medium", "high")
_GPT: Final = re.compile(r"gpt-(\d+)(?:\.(\d+))?")
_GEMINI: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_O: Final = re.compile(r"o\d(?![a-z])")


@dataclass(frozen=True, slots=True)
class Abilities:
    """`efforts`: the words for how much to think, least first, none where the parameter is refused; `samples`:
    temperature and its kin, and stop sequences; `samples_unthinking`: the same while the effort is `none`; `known`:
    the name says so, and nothing here is a guess."""

    efforts: tuple[str, ...] = ()
    samples: bool = True
    samples_unthinking: bool = True
    known: bool = True


@functools.lru_cache(maxsize=1024)
def abilities_of(model: str) -> Abilities:
    """The abilities that a model's name tells; a vendor before a slash does not count."""
    name = model.lower().rpartition("/")[2]
    if name.startswith("gpt-oss"):
        return Abilities(_THREE)
    if name.startswith(("o1-mini", "o1-preview")):
        return Abilities((), samples=False, samples_unthinking=False)
    if _O.match(name) or name.startswith("codex-"):
        return Abilities(_THREE, samples=False, samples_unthinking=False)
    if found := _GPT.match(name):
        return _gpt(name, (int(found[1]), int(found[2] or 0)))
    if found := _GEMINI.match(name):
        return Abilities(_gemini(name, (int(found[1]), int(found[2] or 0))))
    if name.startswith("grok-3-mini"):
        return Abilities(("low", "high"))
    if name.startswith("deepseek-v4"):
        return Abilities(("low", "high", "max"))
    return Abilities(known=False)


def effort_for(asked: str, efforts: tuple[str, ...]) -> str | None:
    """The least of these efforts that is not below the one asked for, else the greatest; None for an unknown word."""
    if asked not in _ORDER or not efforts:
        return None
    least = _ORDER.index(asked)
    return next((effort for effort in efforts if _ORDER.index(effort) >= least), efforts[-1])


def _gpt(name: str, version: tuple[int, int]) -> Abilities:
    if version < (5, 0) or "-chat" in name:
        return Abilities()
    if "-pro" in name:
        efforts: tuple[str, ...] = ("high",) if version == (5, 0) else ("medium", "high", "xhigh")
        return Abilities(efforts, samples=False, samples_unthinking=False)
    if version == (5, 0):
        efforts = _THREE if "-codex" in name else ("minimal", *_THREE)
        return Abilities(efforts, samples=False, samples_unthinking=False)
    if version > (5, 1) or "-codex-max" in name:
        return Abilities(("none", *_THREE, "xhigh"), samples=False)
    return Abilities(("none", *_THREE), samples=False)


def _gemini(name: str, version: tuple[int, int]) -> tuple[str, ...]:
    if version < (2, 5):
        return ()
    return ("none", *_THREE) if version == (2, 5) and "pro" not in name else _THREE
