"""Records between the end of their call and the store."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

from app.stores import traces, traces_waiting
from app.stores.traces import Record
from app.stores.traces_waiting import Waiting, decoded


def record(number: int, **more: Any) -> Record:
    return {"request_id": f"req_{number}", "key": "k", "task_id": None, **more}


def waiting(*numbers: int, **more: Any) -> Waiting:
    found = Waiting(bool)
    for number in numbers:
        assert found.add(f"req_{number}", partial(record, number, **more))
    return found


class TestMaking:
    def test_records_are_made_in_turn_and_once(self) -> None:
        made: list[int] = []

        def make(number: int) -> Record:
            made.append(number)
            return record(number)

        these = Waiting(bool)
        for number in range(5):
            these.add(f"req_{number}", partial(make, number))
        assert made == []
        assert [request_id for request_id, _ in these.make(3)] == ["req_0", "req_1", "req_2"]
        assert [decoded(line) for _, line in these.make()] == [record(3), record(4)]
        assert these.make() == []
        assert made == [0, 1, 2, 3, 4]
        assert len(these) == 5

    def test_one_that_cannot_be_made_is_dropped_and_the_others_are_not(self) -> None:
        def broken() -> Record:
            raise ZeroDivisionError

        these = waiting(1)
        these.add("req_2", broken)
        these.add("req_3", partial(record, 3, odd=object()))
        these.add("req_4", partial(record, 4))
        assert these.get("req_2") is None
        assert these.of_task("k", "t") == {}
        assert [request_id for request_id, _ in these.make()] == ["req_1", "req_4"]
        assert (these.dropped, len(these)) == (2, 2)

    def test_beyond_what_may_wait_new_ones_are_dropped_made_or_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(traces, "MAX_PENDING", 3)
        these = waiting(1, 2)
        these.make()
        assert these.add("req_3", partial(record, 3))
        assert not these.add("req_4", partial(record, 4))
        assert (these.dropped, len(these)) == (1, 3)
        these.written("req_1")
        these.written("req_1")
        assert these.add("req_5", partial(record, 5))


class TestReading:
    def test_made_or_not_a_record_reads_as_what_was_written_will(self) -> None:
        given = partial(record, 1, price=msgspec.Raw(b'{"input":1.5}'), pair=(1, 2))
        these = Waiting(bool)
        these.add("req_1", given)
        before = these.get("req_1")
        these.make()
        assert before == these.get("req_1") == {**record(1), "price": {"input": 1.5}, "pair": [1, 2]}
        assert these.get("req_2") is None

    def test_a_task_is_read_of_both(self) -> None:
        these = waiting(1, task_id="t")
        these.make()
        these.add("req_2", partial(record, 2, task_id="t"))
        these.add("req_3", partial(record, 3, task_id="other", client={"task_id": "t"}))
        these.add("req_4", partial(record, 4, task_id="t", key="another"))
        assert sorted(these.of_task("k", "t")) == ["req_1", "req_2"]

    def test_a_task_is_read_while_its_records_are_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        these = waiting(0, 1, 2, task_id="t")
        these.make()

        def is_of_task(found: Record, key: str, task_id: str) -> bool:
            these.written("req_2")  # as the writer's thread does, whenever it likes
            return True

        monkeypatch.setattr(traces_waiting, "is_of_task", is_of_task)
        assert sorted(these.of_task("k", "t")) == ["req_0", "req_1", "req_2"]
