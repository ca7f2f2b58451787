"""Which names are one model: what the weights know of a model must be found by any name that it is called by.

One model is "Claude 4.5 Opus medium (20251101)" on a leaderboard, "claude-opus-4-5" at its maker and
"us.anthropic.claude-opus-4-5-20251101-v1:0" at a cloud. Left out are who made it, who serves it and in what
precision, how it is called, dates that mark no other model, and the order of words; what is left is its name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from routers.facts import MAX_NAME_CHARS, POINT, facts_of, recalled, spelled

_BEDROCK: Final = re.compile(r"^(?:us|eu|apac|au|jp|global)\.|-v?\d+:\d+(?::\d+k)?$")
_DATE: Final = re.compile(r"(?<!\d)20[2-3]\d[-_ ]?(?:0[1-9]|1[0-2])(?:[-_ ]?(?:[0-2]\d|3[01]))?(?!\d)")
_STAMP: Final = re.compile(
    r"(?<![\d.])(?:2[2-9][-_]?(?:0[1-9]|1[0-2])(?:[-_]?(?:[0-2]\d|3[01]))?|(?:0[1-9]|1[0-2])-?(?:[0-2]\d|3[01]))(?!\d)"
)
"""A snapshot: year and month as Mistral writes them, month and day as OpenAI did."""
_MAKERS: Final = (
    "ai 21|alibaba|allenai|amazon|anthropic|bytedance|c 4 ai|cohere|cohereforai|databricks|deepseek ai|google|"
    "ibm granite(?= granite)|ibm|meetkai|meta|microsoft|minimaxai|mistralai|moonshotai|nousresearch|nvidia|salesforce|"
    "snowflake(?= arctic)|thudm|xai|zai org|z ai"
)
_HOSTS: Final = (
    "aws|azure|bedrock|deepinfra|fireworks|github|groq|nim|novita|ollama|openai|openrouter|replicate|together|"
    "sambanova|vertex(?: ai)?|watsonx|wxai"
)
_CALLS: Final = (
    r"any|auto|cloud|exacto|fc|floor|free|hf|inst|(?<!\d turbo )instruct|latest|maas|max tokens|nitro|preview|prompt|"
    "t 1|versatile"
)
_PRECISION: Final = (
    r"awq|bf 16|bnb|(?:mx|nv)?fp 4|fp 8(?: dynamic)?|fp 16|gguf|gptq|int [48]|mlx|(?:quantized )?w [48] a (?:8|16)|"
    r"q [4-8](?: [01]| k(?: [sml])?)?|[48] bit"
)
"""Below four bits a model is another one."""
_NOISE: Final = re.compile(rf"\b(?:{_MAKERS}|{_HOSTS}|{_CALLS}|{_PRECISION})\b")
_CONTEXT: Final = re.compile(r"\b(?:4|8|16|32|128) k\b|\b(?:4096|8192|32768)\b")
_FINAL: Final = re.compile(r"\bo 1\b(?! (?:mini|preview)\b)")
"""OpenAI's o1 is another model than its preview; what is measured is the preview."""
_ACTIVE: Final = re.compile(r"(?<=\bb) a \d+(?: \d)? b\b")
_SIZED: Final = re.compile(r"\b\d+ b\b")
_TUNED: Final = re.compile(r"\b(?:chat|instant|it|turbo)\b")
_ALIASES: Final = (
    # Medium is the effort that is meant where nothing is said.
    (re.compile(r"\bmedium (?:reasoning|effort)\b"), ""),
    (re.compile(r"\b(opus|sonnet|o \d(?: mini)?|gpt 5(?: \d)?(?: mini| nano| codex)?) medium\b"), r"\1"),
    (re.compile(r"\b(3 5 sonnet) v 1\b"), r"\1"),
    (re.compile(r"\bgpt 35\b"), "gpt 3 5"),
    (re.compile(r"\bmistral large 24(?:07|11)\b"), "mistral large 2"),
    (re.compile(r"\bmistral large 25 ?12\b"), "mistral large 3"),
    (re.compile(r"\bopen (mi[sx]tral)"), r"\1"),
    (re.compile(r"\b(mixtral 8 x \d+ b|command r) v 0 ?1\b"), r"\1"),
    (re.compile(r"\b(llama 4 (?:scout|maverick)) 17 b(?: \d+ e)?\b"), r"\1"),
    (re.compile(r"\b(qwen 3 coder) 480 b\b|\b(kimi k 2) 1 t\b|\b(deepseek coder v 2) 236 b\b"), r"\1\2\3"),
    (re.compile(r"\b(command r) 35 b\b|\b(command r plus) 104 b\b"), r"\1\2"),
    (re.compile(r"\bdeepseek chat (?=v \d)"), "deepseek "),
)
"""Names of one model that differ by more than their dress."""


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """The same string for the names of one model. Total: any string will do."""
    own = name[:MAX_NAME_CHARS].lower()
    if " " not in own:  # else it is a name for people, whose sign is no path
        own = own.rstrip("/").rpartition("/")[2]
    words = _FINAL.sub("o 1 final", spelled(_undated(_BEDROCK.sub("", POINT.sub(".", own)))))
    words = " ".join(_CONTEXT.sub(" ", _NOISE.sub(" ", words)).split())
    words = _ACTIVE.sub("", words)
    for pattern, instead in _ALIASES:
        words = pattern.sub(instead, words)
    if _SIZED.search(words):
        words = _TUNED.sub(" ", words)
    parts = words.split() or [own]  # nothing but dress, or in letters that no table has
    facts = facts_of(name)
    year = [] if facts.released is None else [f"of {int(facts.released)}"]
    ordered = sorted({part for part in parts if part.isalpha()}) + [part for part in parts if not part.isalpha()]
    return " ".join([*ordered, *year, *([] if facts.tuned else ["base"])])


def _undated(name: str) -> str:
    """The name without its dates, unless what is recalled of the model changes with them: another model then."""
    known = recalled(name)
    bare = _DATE.sub(" ", name)
    if recalled(bare).rating != known.rating:
        return name
    without = _STAMP.sub(" ", bare)
    return without if recalled(without) == recalled(bare) else bare
