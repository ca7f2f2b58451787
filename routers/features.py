"""The features of a request: read once, used by every router, in bounded time.

Text is cut to a head and a tail, encoded as UTF-8, and everything is counted on bytes: one `translate`
lowers it and leaves words, deletions count characters by class, one intersection of sets finds every lexicon
word. The same lexicon as one regular expression took 1.2 ms for 2 kB.

Counts of words are counts of *distinct* words, so that pasting a text twice changes nothing. They come from
two places: topics from all that is read, instructions only from its first and last words, because a verb
in the middle of an article is material and not a wish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from routers.base import RequestView
from routers.lexicon import INSTRUCTIONS, TOPICS

HEAD_CHARS: Final = 768
TAIL_CHARS: Final = 384
"""How much of a long message is read: instructions stand at either end, the middle is material."""
SYSTEM_CHARS: Final = 384
OPENING_CHARS: Final = 512
FOLLOW_UP_CHARS: Final = 160
"""A last message no longer than this is read together with the conversation's first: "go on" is as hard
as what it goes on with."""
LEADING_WORDS: Final = 48
TRAILING_WORDS: Final = 32
SENTENCE_BYTES: Final = 2048
"""Bound on the text that is searched for phrases: 80 words can be any length."""
LONG_WORD: Final = 9
"""Letters from which a word counts as long: the register of textbooks and contracts, whatever the field."""

EFFORTS: Final[Mapping[str, int]] = {"none": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5}
"""Order of the efforts that OpenAI's API names (https://platform.openai.com/docs/guides/reasoning)."""


def _index(groups: Mapping[str, set[bytes]]) -> dict[bytes, int]:
    return {word: place for place, words in enumerate(groups.values()) for word in words if b"_" not in word}


_TOPIC_OF: Final = _index(TOPICS)
_INSTRUCTION_OF: Final = _index(INSTRUCTIONS)


def _phrase_index(groups: Mapping[str, set[bytes]]) -> dict[bytes, list[tuple[bytes, bytes, int]]]:
    """Phrases by their first word, each with its second, so that most requests search for none of them."""
    index: dict[bytes, list[tuple[bytes, bytes, int]]] = {}
    for place, words in enumerate(groups.values()):
        for word in sorted(words):
            if b"_" in word:
                first, second, *_ = word.split(b"_")
                index.setdefault(first, []).append((b" " + second, word.replace(b"_", b" "), place))
    return index


_PHRASES: Final = _phrase_index(INSTRUCTIONS)
_TOPIC_WORDS: Final = frozenset(_TOPIC_OF)
_ASKING_WORDS: Final = frozenset({*_INSTRUCTION_OF, *_PHRASES})
_UNIT: Final = tuple(INSTRUCTIONS).index("unit")

_DIGITS: Final = b"0123456789"
_SYMBOLS: Final = b"{}()[]<>;=_&|#@\\/*+"
_UNMARKED: Final = bytes(set(range(256)) - set(b"\n?^`" + _DIGITS + _SYMBOLS))  # passes over a whole text are dear
_MARK_BYTES: Final = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
"""Every digit a 0, so that one count has them all."""
_CJK_LEADS: Final = bytes(range(0xE3, 0xEE))
_OTHER_LEADS: Final = bytes(range(0xCD, 0xE2))
"""UTF-8 lead bytes: U+0340 to U+1FFF (Greek to Ethiopic and beyond), U+3000 to U+DFFF (kana, Han, Hangul).
Source: RFC 3629, section 3."""
_WORD_BYTES: Final = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 or 48 <= byte <= 57 or byte >= 128 else 32
    for byte in range(256)
)
_TERM_BYTES: Final = bytes(48 if 48 <= byte <= 57 else byte for byte in _WORD_BYTES)

_BACKSLASH, _CLOSING = b"\\)"  # as numbers: for bytes in bytes an error is made first (core/sse.py)
_LISTED: Final = re.compile(rb"\n[ \t]*(?:(\(?[A-J][).:])|(?:[-*]|\d{1,2}[.)]) )")
"""Lines that begin as lettered answers (the group), or as items of lists."""
_CODE_ENDS: Final = ((b";\n", b";\n"), (b"{\n", b"{\n"), (b"}\n", b"}\n"), (b")\n", b"):\n"))
"""How lines of code end, as the marks that are left of that and as it stands."""
_LATEX: Final = re.compile(rb"\\[a-zA-Z]{3,}")
_LENGTH: Final = re.compile(rb" (\d{1,5}|a|one|two|three|four|five|single)(?: [a-z]+)? (word|sentence|paragraph)")
_NUMBERS: Final = {b"a": 1, b"one": 1, b"single": 1, b"two": 2, b"three": 3, b"four": 4, b"five": 5}
_UNIT_WORDS: Final = {b"word": 1, b"sentence": 20, b"paragraph": 90}  # of ordinary English


class Topics(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How many distinct words of each of `TOPICS` the text holds."""

    code: int
    math: int
    science: int
    medicine: int
    law: int
    english: int


class Instructions(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How many distinct words and phrases of each of `INSTRUCTIONS` the instruction holds."""

    hard: int
    work: int
    explain: int
    ask: int
    translate: int
    summarise: int
    extract: int
    classify: int
    rewrite: int
    write: int
    chat: int
    constraint: int
    brief: int
    lengthy: int
    unit: int


class Features(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request: the text that was read, and counts of it.

    `excerpt`, `system`: for routers that read text themselves. `chars` is of the last user message,
    `input_chars` of all the input, tool schemas included. `non_latin` and `cjk`, `digits`, `symbols`: shares
    of the excerpt in [0, 1]; `long_words`: share of its distinct words. `asked_words`: a length the request
    names, 0 for none. `effort`: place in `EFFORTS`, None when not asked. `follow_up`: the excerpt begins with
    the first user message.
    """

    excerpt: str
    system: str
    chars: int
    input_chars: int
    words: int
    lines: int
    non_latin: float
    cjk: float
    digits: float
    symbols: float
    long_words: float
    fences: int
    code_lines: int
    math_marks: int
    options: int
    items: int
    questions: int
    topics: Topics
    instructions: Instructions
    asked_words: int
    follow_up: bool
    n_turns: int
    history_chars: int
    system_chars: int
    n_tools: int
    tool_schema_chars: int
    n_images: int
    wants_json: bool
    in_tool_loop: bool
    max_output_tokens: int | None
    effort: int | None

    @property
    def input_tokens(self) -> float:
        """Input tokens, roughly: 4 characters each, one for a Han, kana or Hangul character."""
        return self.input_chars * (0.25 + 0.75 * self.cjk)


FEATURES: Final = 1
"""The version of what `counts` tells: raised when a place of it, or what is counted there, changes."""


def counts(features: Features) -> tuple[object, ...]:
    """All but the text, for a record: the version first."""
    return (FEATURES, *msgspec.structs.astuple(features)[2:])


def of_counts(told: Sequence[Any]) -> Features | None:
    """The features that `counts` told, without their text; None where another version told them."""
    if len(told) != 1 + len(Features.__struct_fields__) - 2 or told[0] != FEATURES:
        return None
    fields = {"excerpt": "", "system": "", **dict(zip(Features.__struct_fields__[2:], told[1:], strict=True))}
    return msgspec.convert(fields, Features)


def extract(view: RequestView) -> Features:
    """Read a request once; time is bounded whatever its length."""
    follow_up = view.n_turns > 1 and len(view.last_user) <= FOLLOW_UP_CHARS and view.first_user != view.last_user
    excerpt = _ends(view.last_user)
    if follow_up:
        excerpt = f"{view.first_user[:OPENING_CHARS]}\n{excerpt}"
    system = view.system[:SYSTEM_CHARS]
    raw = b"\n" + excerpt.encode("utf-8", "replace")
    marks = raw.translate(_MARK_BYTES, _UNMARKED)
    size, lines, digits = len(raw), marks.count(b"\n"), marks.count(b"0")
    questions, powers, ticks = marks.count(b"?"), marks.count(b"^"), marks.count(b"`")
    symbols = len(marks) - lines - digits - questions - powers - ticks  # what `_UNMARKED` leaves beside these
    spaced = raw.translate(_WORD_BYTES)
    words = spaced.split()
    distinct = set(words)
    asked = words if len(words) <= LEADING_WORDS + TRAILING_WORDS else words[:LEADING_WORDS] + words[-TRAILING_WORDS:]
    if len(view.system) <= SYSTEM_CHARS:
        # A short system prompt states the task of every request under it; a long one is an agent's handbook.
        task = b" " + system.encode("utf-8", "replace").translate(_WORD_BYTES)
        asked, spaced = task.split() + asked, spaced + task
    instructions, asked_words = _instructions(asked, spaced)
    options, items = _options_and_items(raw, lines)
    non_latin, cjk, symbols_of_math = (0.0, 0.0, 0) if excerpt.isascii() else _scripts(raw, len(excerpt))
    return Features(
        excerpt,
        system,
        len(view.last_user),
        len(view.last_user) + len(view.system) + view.history_chars + view.tool_schema_chars,
        len(words),
        lines,
        non_latin,
        cjk,
        digits / size,
        symbols / size,
        len([1 for word in distinct if len(word) >= LONG_WORD]) / (len(distinct) or 1),
        raw.count(b"```") if ticks else 0,
        sum([raw.count(end) for mark, end in _CODE_ENDS if marks.find(mark) >= 0]) if lines > 1 else 0,
        symbols_of_math + powers + (len(_LATEX.findall(raw)) if _BACKSLASH in marks else 0),
        options,
        items,
        questions + (raw.count(b"\xef\xbc\x9f") if cjk else 0),
        _topics(distinct),
        instructions,
        asked_words,
        follow_up,
        view.n_turns,
        view.history_chars,
        len(view.system),
        view.n_tools,
        view.tool_schema_chars,
        view.n_images,
        view.wants_json,
        view.in_tool_loop,
        view.max_output_tokens,
        None if view.reasoning_effort is None else EFFORTS.get(view.reasoning_effort),
    )


def words_of(text: str) -> list[bytes]:
    """The words of a text: lowered, in UTF-8, without punctuation, every digit a 0: 1,985 and 2,024 are one term."""
    return text.encode("utf-8", "replace").translate(_TERM_BYTES).split()


def _ends(text: str) -> str:
    return text if len(text) <= HEAD_CHARS + TAIL_CHARS else f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def _topics(words: set[bytes]) -> Topics:
    counts = [0] * len(TOPICS)
    for word in _TOPIC_WORDS & words:
        counts[_TOPIC_OF[word]] += 1
    return Topics(*counts)


def _instructions(words: list[bytes], spaced: bytes) -> tuple[Instructions, int]:
    """What is asked in these words, and the length they name, in words. `spaced`: what they stand in, each behind a
    space."""
    counts = [0] * len(INSTRUCTIONS)
    phrases: list[tuple[bytes, int]] = []
    for word in _ASKING_WORDS.intersection(words):
        if word in _INSTRUCTION_OF:
            counts[_INSTRUCTION_OF[word]] += 1
        for second, phrase, place in _PHRASES.get(word, ()):
            if spaced.find(second) >= 0:
                phrases.append((phrase, place))
    if not (phrases or counts[_UNIT]):
        return Instructions(*counts), 0
    sentence = b" " + b" ".join(words)[:SENTENCE_BYTES]
    for phrase, place in phrases:
        counts[place] += sentence.find(phrase) >= 0
    return Instructions(*counts), _asked_words(sentence) if counts[_UNIT] else 0


def _scripts(raw: bytes, chars: int) -> tuple[float, float, int]:
    """The shares of non-Latin and of CJK characters, and the number of mathematical signs."""
    cjk = len(raw) - len(raw.translate(None, _CJK_LEADS))
    other = len(raw) - len(raw.translate(None, _OTHER_LEADS))
    # E2 88 to E2 8B: U+2200 to U+22FF, mathematical operators.
    signs = sum([raw.count(pair) for pair in (b"\xe2\x88", b"\xe2\x89", b"\xe2\x8a", b"\xe2\x8b")])
    return min((cjk + other) / chars, 1.0), min(cjk / chars, 1.0), signs


def _options_and_items(raw: bytes, lines: int) -> tuple[int, int]:
    """Lettered answers to choose from, at the start of lines or inline as "A) ... B) ..."; items of lists."""
    listed = _LISTED.findall(raw) if lines > 1 or b"(ABCDEFGHIJ".find(raw[1:2]) >= 0 else []
    options = len(listed) - listed.count(b"")
    if options or _CLOSING not in raw or b"B)" not in raw:
        return options, len(listed) - options
    inline = [letter + b")" in raw for letter in (b"A", b"B", b"C", b"D", b"E", b"F", b"G", b"H", b"I", b"J")]
    return sum(inline), len(listed)


def _asked_words(sentence: bytes) -> int:
    """The length a request names, in words: "in two sentences" is 40; 0 when it names none."""
    found = _LENGTH.search(sentence)
    if found is None:
        return 0
    number, unit = found.groups()
    return (_NUMBERS.get(number) or int(number)) * _UNIT_WORDS[unit]
