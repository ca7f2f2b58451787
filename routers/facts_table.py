"""What is recalled of well-known models: when they came out, how large they are, what they cost.

Approximate and incomplete on purpose: a model that is missing here is read from its name alone, and a price in
the policy or the catalogue goes before one in this table. Nothing here is a benchmark result.

A row's pattern is searched in a name as `routers.facts` spells it: lower case, letters and numbers apart, every
other sign a blank ("gpt-4o-mini-2024-07-18" is "gpt 4 o mini 2024 07 18"). The first row that is found counts, so
that special lines stand before general ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Known(NamedTuple):
    """`released`: year and fraction. `size`: parameters in billions, all and those active per token. `price`:
    dollars per million tokens, input and output, near release."""

    pattern: str
    released: float
    size: tuple[float, float] | None = None
    price: tuple[float, float] | None = None


NEWEST: Final = 2026.0
"""Where the recalled table ends: a later version of a line that it knows is taken to be from about then."""

_OPENAI: Final = (
    Known("gpt 5 pro", 2025.8, None, (15, 120)),
    Known("gpt 5 1 codex mini|gpt 5 (?:1 )?mini", 2025.6, None, (0.25, 2)),
    Known("gpt 5 (?:1 )?nano", 2025.6, None, (0.05, 0.4)),
    Known("gpt 5 2", 2025.95, None, (1.75, 14)),
    Known("gpt 5 1", 2025.85, None, (1.25, 10)),
    Known("gpt 5(?! \\d\\b)", 2025.6, None, (1.25, 10)),
    Known("gpt oss 120", 2025.6, (117, 5.1), (0.1, 0.5)),
    Known("gpt oss 20", 2025.6, (21, 3.6), (0.05, 0.2)),
    Known("gpt 4 1 nano", 2025.3, None, (0.1, 0.4)),
    Known("gpt 4 1 mini", 2025.3, None, (0.4, 1.6)),
    Known("gpt 4 1", 2025.3, None, (2, 8)),
    Known("gpt 4 5", 2025.15, None, (75, 150)),
    Known("gpt 4 o mini", 2024.55, None, (0.15, 0.6)),
    Known("gpt 4 o (?:2024 )?(?:05 13)", 2024.37, None, (5, 15)),
    Known("gpt 4 o (?:2024 )?11 20", 2024.9, None, (2.5, 10)),
    Known("gpt 4 o latest", 2024.7, None, (5, 15)),
    Known("gpt 4 o", 2024.6, None, (2.5, 10)),
    Known("gpt 4 turbo", 2024.27, None, (10, 30)),
    Known("gpt 4 1106", 2023.85, None, (10, 30)),
    Known("gpt 4 0125", 2024.07, None, (10, 30)),
    Known("gpt 4 32 k", 2023.2, None, (60, 120)),
    Known("gpt 4(?! \\d\\b)", 2023.3, None, (30, 60)),
    Known("gpt 3 5|gpt 35", 2023.5, None, (0.5, 1.5)),
    Known("davinci", 2022.9, (175, 175), (20, 20)),
    Known("\\bo 1 pro", 2025.2, None, (150, 600)),
    Known("\\bo 1 mini", 2024.7, None, (3, 12)),
    Known("\\bo 1 preview", 2024.7, None, (15, 60)),
    Known("\\bo 1\\b", 2024.95, None, (15, 60)),
    Known("\\bo 3 mini", 2025.08, None, (1.1, 4.4)),
    Known("\\bo 3 pro", 2025.45, None, (20, 80)),
    Known("\\bo 3\\b", 2025.3, None, (2, 8)),
    Known("\\bo 4 mini", 2025.3, None, (1.1, 4.4)),
    Known("gpt \\d nano|gpt \\d \\d nano", NEWEST, None, (0.1, 0.6)),
    Known("gpt \\d mini|gpt \\d \\d mini", NEWEST, None, (0.4, 2.5)),
    Known("gpt (?:5 )?[3-9]", NEWEST, None, (2, 14)),
    Known("\\bo [5-9] mini", NEWEST, None, (1.1, 4.4)),
    Known("\\bo [5-9]", NEWEST, None, (2, 8)),
)

_ANTHROPIC: Final = (
    Known("opus 4 [5-8]|4 [5-8] opus", 2025.9, None, (5, 25)),
    Known("opus 4\\b|claude (?:4|4 1) opus", 2025.4, None, (15, 75)),
    Known("sonnet 4 [5-8]|4 [5-8] sonnet", 2025.75, None, (3, 15)),
    Known("sonnet 4\\b|claude 4 sonnet", 2025.4, None, (3, 15)),
    Known("haiku 4|4 5 haiku", 2025.8, None, (1, 5)),
    Known("3 7 sonnet|sonnet 3 7|claude 37", 2025.15, None, (3, 15)),
    Known("(?:3 5|35) sonnet (?:v 2|2024 ?10)|sonnet 2024 ?10", 2024.8, None, (3, 15)),
    Known("3 5 sonnet|sonnet 3 5|35 sonnet|3 5 s\\b", 2024.47, None, (3, 15)),
    Known("3 5 haiku|haiku 3 5", 2024.85, None, (0.8, 4)),
    Known("claude 3 opus|3 opus", 2024.17, None, (15, 75)),
    Known("claude 3 sonnet|3 sonnet", 2024.17, None, (3, 15)),
    Known("claude 3 haiku|3 haiku", 2024.2, None, (0.25, 1.25)),
    Known("claude instant", 2023.6, None, (0.8, 2.4)),
    Known("claude (?:v )?2", 2023.6, None, (8, 24)),
    Known("claude (?:v )?1", 2023.2, None, (8, 24)),
    Known("claude 35\\b|claude 3 5", 2024.47, None, (3, 15)),
    Known("claude.* opus|opus [5-9]", NEWEST, None, (5, 25)),
    Known("claude.* sonnet|sonnet [5-9]", NEWEST, None, (3, 15)),
    Known("claude.* haiku|haiku [5-9]", NEWEST, None, (1, 5)),
)

_GOOGLE: Final = (
    Known("gemini 3 pro|gemini 3 1 pro", 2025.9, None, (2, 12)),
    Known("gemini 3 flash", 2025.95, None, (0.5, 3)),
    Known("gemini 2 5 pro", 2025.3, None, (1.25, 10)),
    Known("gemini 2 5 flash lite", 2025.5, None, (0.1, 0.4)),
    Known("gemini 2 5 flash", 2025.4, None, (0.3, 2.5)),
    Known("gemini 2 0 flash lite", 2025.1, None, (0.075, 0.3)),
    Known("gemini 2 0 pro|gemini exp", 2025.1, None, (1.25, 5)),
    Known("gemini 2 0 flash|gemini 2 flash", 2024.95, None, (0.1, 0.4)),
    Known("gemini flash 1 5 8 b", 2024.75, (8, 8), (0.0375, 0.15)),
    Known("gemini flash 1 5", 2024.5, None, (0.075, 0.3)),
    Known("gemini pro 1 5", 2024.3, None, (1.25, 5)),
    Known("gemini 1 5 flash 8 b", 2024.75, (8, 8), (0.0375, 0.15)),
    Known("gemini 1 5 flash", 2024.5, None, (0.075, 0.3)),
    Known("gemini 1 5 pro (?:002|exp)", 2024.7, None, (1.25, 5)),
    Known("gemini 1 5 pro", 2024.3, None, (1.25, 5)),
    Known("gemini (?:1 0 )?ultra", 2024.1, None, (7, 21)),
    Known("gemini (?:1 0 )?pro(?! latest)", 2023.95, None, (0.5, 1.5)),
    Known("gemini.* flash lite", NEWEST, None, (0.1, 0.4)),
    Known("gemini.* flash", NEWEST, None, (0.4, 2.5)),
    Known("gemini \\d(?: \\d)? pro|gemini pro latest", NEWEST, None, (2, 12)),
    Known("palm 2|text bison|chat bison", 2023.4, None, (0.5, 1.5)),
    Known("gemma 3 n", 2025.5, (6, 4), (0.03, 0.06)),
    Known("gemma 3", 2025.2),
    Known("gemma 2|code ?gemma", 2024.5),
    Known("gemma", 2024.15),
)

_META: Final = (
    Known("llama 4 maverick", 2025.27, (400, 17), (0.27, 0.85)),
    Known("llama 4 scout", 2025.27, (109, 17), (0.15, 0.5)),
    Known("llama 3 3 nemotron super", 2025.25, (49, 49), (0.13, 0.4)),
    Known("llama 3 1 nemotron 51", 2024.75, (51, 51), (0.3, 0.3)),
    Known("llama 3 1 nemotron ultra", 2025.3, (253, 253), (0.6, 1.8)),
    Known("nemotron 4 340", 2024.45, (340, 340), (4.2, 4.2)),
    Known("llama 3 3", 2024.95, (70, 70), (0.6, 0.7)),
    Known("llama 3 2", 2024.73),
    Known("llama 3 1 405|405 b", 2024.55, (405, 405), (3.5, 3.5)),
    Known("llama 3 1", 2024.55),
    Known("athene 70", 2024.55, (70, 70), (0.9, 0.9)),
    Known("llama 3(?! \\d\\b)|llama 3 (?:8|70) b", 2024.3),
    Known("llama 2|swe ?llama|code ?llama|vicuna|wizard|tulu", 2023.55),
    Known("llama 1|alpaca|llama (?:7|13|33|65) b", 2023.15),
)

_MISTRAL: Final = (
    Known("mistral large (?:[4-9]|latest|26\\d\\d)", NEWEST, (675, 41), (0.5, 1.5)),
    Known("mistral (?:medium|small) (?:[4-9]|latest|26\\d\\d)", NEWEST, None, (0.2, 0.8)),
    Known("mistral large (?:3|2512)", 2025.92, (675, 41), (0.5, 1.5)),
    Known("mistral large (?:2|2407|2411)", 2024.6, (123, 123), (2, 6)),
    Known("mistral large", 2024.15, None, (4, 12)),
    Known("mistral medium (?:3|25\\d\\d)", 2025.4, None, (0.4, 2)),
    Known("mistral medium", 2023.95, None, (2.7, 8.1)),
    Known("mistral small (?:3|25\\d\\d|24 b)", 2025.1, (24, 24), (0.1, 0.3)),
    Known("mistral small", 2024.15, (22, 22), (1, 3)),
    Known("mistral tiny", 2023.95, (7, 7), (0.14, 0.42)),
    Known("mistral nemo", 2024.55, (12, 12), (0.15, 0.15)),
    Known("ministral 3 b", 2024.8, (3, 3), (0.04, 0.04)),
    Known("ministral", 2024.8, (8, 8), (0.1, 0.1)),
    Known("devstral small", 2025.9, (24, 24), (0.1, 0.3)),
    Known("devstral", 2025.9, (123, 123), (0.4, 2)),
    Known("magistral small", 2025.45, (24, 24), (0.5, 1.5)),
    Known("magistral", 2025.45, None, (2, 5)),
    Known("codestral", 2024.4, (22, 22), (0.3, 0.9)),
    Known("mathstral", 2024.55, (7, 7), (0.2, 0.2)),
    Known("pixtral large", 2024.88, (124, 124), (2, 6)),
    Known("mixtral 8 x 22", 2024.3, (141, 39), (1.2, 1.2)),
    Known("mixtral", 2023.95, (46.7, 12.9), (0.6, 0.6)),
    Known("mistral 7 b instruct v 0 3", 2024.4, (7, 7), (0.2, 0.2)),
    Known("mistral 7 b", 2023.8, (7, 7), (0.2, 0.2)),
)

_ASIA: Final = (
    Known("deepseek v [4-9].*flash", NEWEST, None, (0.14, 0.28)),
    Known("deepseek v [4-9]", NEWEST, None, (0.5, 1.5)),
    Known("deepseek v 3 [1-9]", 2025.75, (671, 37), (0.28, 0.42)),
    Known("deepseek v 3|deepseek chat", 2024.98, (671, 37), (0.27, 1.1)),
    Known("deepseek r 1 distill", 2025.05),
    Known("deepseek r 1|deepseek reasoner", 2025.05, (671, 37), (0.55, 2.19)),
    Known("deepseek v 2 5", 2024.7, (236, 21), (0.14, 0.28)),
    Known("deepseek (?:coder )?v 2", 2024.45, (236, 21), (0.14, 0.28)),
    Known("deepseek coder", 2023.85),
    Known("deepseek", 2024.0),
    Known("qwen 3 coder 480|qwen 3 coder plus", 2025.55, (480, 35), (1, 3)),
    Known("qwen 3 max", 2025.7, (1000, 50), (1.2, 6)),
    Known("qwen 3 235", 2025.4, (235, 22), (0.2, 0.8)),
    Known("qwen 3 next", 2025.7, (80, 3), (0.15, 1.2)),
    Known("qwen 3", 2025.35),
    Known("qwq", 2025.15, (32, 32), (0.2, 0.6)),
    Known("qwen 2 5 max|qwen max", 2025.05, None, (1.6, 6.4)),
    Known("qwen 2 5 coder", 2024.85),
    Known("qwen 2 5", 2024.72),
    Known("qwen 2(?! 5\\b)", 2024.43),
    Known("qwen 1 5", 2024.15),
    Known("qwen", 2023.75),
    Known("kimi k [3-9]", NEWEST, None, (0.6, 2.5)),
    Known("glm [5-9]", NEWEST, None, (0.6, 2.2)),
    Known("kimi k 2", 2025.55, (1000, 32), (0.6, 2.5)),
    Known("glm 4 [67]", 2025.75, (355, 32), (0.6, 2.2)),
    Known("glm 4 5 air", 2025.55, (106, 12), (0.2, 1.1)),
    Known("glm 4 5", 2025.55, (355, 32), (0.6, 2.2)),
    Known("glm 4", 2024.45),
    Known("minimax m", 2025.6, (456, 46), (0.3, 1.2)),
    Known("yi lightning", 2024.8, None, (0.14, 0.14)),
    Known("yi large", 2024.4, None, (3, 3)),
    Known("yi 1 5", 2024.35),
    Known("\\byi\\b", 2023.85),
    Known("internlm", 2024.0),
    Known("baichuan|chatglm", 2023.5),
)

_OTHERS: Final = (
    Known("grok 4 (?:1 )?fast", 2025.75, None, (0.2, 0.5)),
    Known("grok code", 2025.65, None, (0.2, 1.5)),
    Known("grok 4", 2025.5, None, (3, 15)),
    Known("grok 3 mini", 2025.3, None, (0.3, 0.5)),
    Known("grok 3", 2025.15, None, (3, 15)),
    Known("grok 2", 2024.65, None, (2, 10)),
    Known("grok", 2023.85, (314, 79), (5, 15)),
    Known("command a\\b", 2025.2, (111, 111), (2.5, 10)),
    Known("command r 7", 2024.95, (7, 7), (0.0375, 0.15)),
    Known("command r plus", 2024.27, (104, 104), (3, 15)),
    Known("command r", 2024.2, (35, 35), (0.5, 1.5)),
    Known("command", 2023.2, (52, 52), (1, 2)),
    Known("jamba (?:1 [5-9] )?large", 2024.65, (398, 94), (2, 8)),
    Known("jamba", 2024.65, (52, 12), (0.2, 0.4)),
    Known("phi 4 mini", 2025.15, (3.8, 3.8), (0.08, 0.2)),
    Known("phi 4", 2024.95, (14, 14), (0.07, 0.14)),
    Known("phi 3 (?:5 )?mini", 2024.4, (3.8, 3.8), (0.1, 0.1)),
    Known("phi 3 (?:5 )?small", 2024.4, (7, 7), (0.15, 0.15)),
    Known("phi 3 (?:5 )?medium", 2024.4, (14, 14), (0.2, 0.2)),
    Known("phi 3", 2024.4, (3.8, 3.8), (0.1, 0.1)),
    Known("phi 2", 2023.95, (2.7, 2.7), (0.1, 0.1)),
    Known("nova premier", 2025.3, None, (2.5, 12.5)),
    Known("nova pro", 2024.92, None, (0.8, 3.2)),
    Known("nova lite", 2024.92, None, (0.06, 0.24)),
    Known("nova micro", 2024.92, None, (0.035, 0.14)),
    Known("dbrx", 2024.25, (132, 36), (1.2, 1.2)),
    Known("arctic", 2024.3, (480, 17), (2.4, 2.4)),
    Known("reka core", 2024.3, (67, 67), (3, 15)),
    Known("reka flash", 2024.15, (21, 21), (0.8, 2)),
    Known("granite 4", 2025.75),
    Known("granite 3", 2024.8),
    Known("granite", 2024.4),
    Known("olmo", 2024.5),
    Known("falcon", 2023.4),
    Known("solar", 2023.95),
    Known("smollm 2", 2024.85),
    Known("smollm 3", 2025.55),
    Known("functionary medium", 2024.6, (70, 70)),
    Known("functionary", 2024.6, (8, 8)),
    Known("firefunction", 2024.2, (46.7, 12.9)),
    Known("openfunctions", 2024.15, (7, 7)),
    Known("raven v 2", 2023.9, (13, 13)),
    Known("hermes 2", 2024.4),
    Known("xlam", 2024.55),
)

KNOWN: Final[tuple[Known, ...]] = (*_OPENAI, *_ANTHROPIC, *_GOOGLE, *_META, *_MISTRAL, *_ASIA, *_OTHERS)
