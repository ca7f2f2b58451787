"""What every store of outcomes keeps, whoever keeps it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.feedback import Correction, Feedback, Speaker, Turned, task_thing
from app.stores.outcomes import OtherWord, Outcomes, Put

WORD = Feedback("req_1", "alice", Speaker.USER, Turned.SUCCESS, 1_000.5, "alice")
FULL = Feedback(
    task_thing("alice", "job: ü|"),
    "boss",
    Speaker.HUMAN,
    Turned.PARTIAL_SUCCESS,
    1_001.25,
    "alice",
    admin=True,
    score=0.25,
    correction=Correction.STOPPED_TOO_EARLY,
    comment="half of it\n'; DROP TABLE words",
    matched=False,
)


class OutcomesContract:
    """Subclasses have a fixture `store`, started."""

    async def test_a_word_comes_back_as_it_was_said(self, store: Outcomes) -> None:
        assert await store.put(WORD) is Put.NEW
        assert await store.put(FULL) is Put.NEW
        assert await store.about([FULL.thing]) == [FULL]
        assert await store.about([WORD.thing, FULL.thing, "req_none"]) == [WORD, FULL]
        assert await store.about([]) == []

    async def test_the_same_sources_later_word_replaces_its_earlier(self, store: Outcomes) -> None:
        later = replace(WORD, outcome=Turned.FAILURE, said_s=2_000.0)
        await store.put(WORD)
        assert await store.put(later) is Put.REPLACED
        assert await store.about([WORD.thing]) == [later]

    async def test_others_words_stand_beside_it(self, store: Outcomes) -> None:
        words = [WORD, replace(WORD, source=Speaker.VERIFIER), replace(WORD, by="boss", admin=True)]
        for word in words:
            assert await store.put(word) is Put.NEW
        assert await store.about([WORD.thing]) == words

    async def test_a_repeat_changes_nothing_even_after_a_later_word(self, store: Outcomes) -> None:
        later = replace(WORD, outcome=Turned.FAILURE)
        assert await store.put(WORD, repeat_key="k", digest=b"1") is Put.NEW
        assert await store.put(later, repeat_key="k2", digest=b"2") is Put.REPLACED
        assert await store.put(replace(WORD, said_s=9_000.0), repeat_key="k", digest=b"1") is Put.REPEATED
        assert await store.about([WORD.thing]) == [later]

    async def test_a_repeat_key_belongs_to_one_word_of_one_key(self, store: Outcomes) -> None:
        await store.put(WORD, repeat_key="k", digest=b"1")
        with pytest.raises(OtherWord):
            await store.put(replace(WORD, thing="req_2"), repeat_key="k", digest=b"2")
        assert await store.about(["req_2"]) == []
        assert await store.put(replace(WORD, by="bob", key="bob"), repeat_key="k", digest=b"2") is Put.NEW

    async def test_a_reader_goes_on_from_its_cursor(self, store: Outcomes) -> None:
        words = [replace(WORD, thing=f"req_{number}") for number in range(5)]
        for word in words:
            await store.put(word)
        first = await store.since(0, 3)
        assert [word for _, word in first] == words[:3]
        rest = await store.since(first[-1][0], 100)
        assert [word for _, word in rest] == words[3:]
        assert await store.since(rest[-1][0], 100) == []

    async def test_a_cursor_of_a_store_that_is_gone_reads_from_the_first_word(self, store: Outcomes) -> None:
        assert await store.since(7, 10) == []
        words = [replace(WORD, thing=f"req_{number}") for number in range(3)]
        for word in words:
            await store.put(word)
        assert [word for _, word in await store.since(1_000_000, 10)] == words
        ((last, _),) = (await store.since(0, 10))[-1:]
        assert await store.since(last, 10) == []

    async def test_a_reader_sees_a_replaced_word_again_and_once(self, store: Outcomes) -> None:
        await store.put(WORD)
        ((cursor, _),) = await store.since(0, 10)
        later = replace(WORD, outcome=Turned.FALSE_DONE)
        await store.put(later)
        assert [word for _, word in await store.since(cursor, 10)] == [later]
        assert [word for _, word in await store.since(0, 10)] == [later]
