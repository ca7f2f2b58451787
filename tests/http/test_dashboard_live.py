"""One sampler for all viewers, at work only while somebody watches; one question for all who ask the same."""

from __future__ import annotations

import asyncio

import pytest

from app.core.errors import TracesDown
from app.http.dashboard import live
from app.http.dashboard.ask import FiguresUnavailable, Overview, Question
from app.http.dashboard.kept import MAX_KEPT, Kept
from app.http.dashboard.live import Broadcast, TooManyViewers
from tests.conftest import ROOT


class Sampler:
    """Counts; the frames are the numbers."""

    def __init__(self) -> None:
        self.taken = 0
        self.last: int | None = None

    async def __call__(self) -> bytes | None:
        self.taken += 1
        return None if self.last is not None and self.taken > self.last else b"%d" % self.taken


async def test_nothing_is_sampled_while_nobody_watches() -> None:
    sampler = Sampler()
    broadcast = Broadcast(sampler, every_s=0.001)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(broadcast.run())
        await asyncio.sleep(0.02)
        assert sampler.taken == 0
        frames = broadcast.join()
        assert await anext(frames) == b"1"
        await frames.aclose()
        assert broadcast.viewers == 0
        seen = sampler.taken
        await asyncio.sleep(0.02)
        assert sampler.taken <= seen + 1
        running.cancel()


async def test_all_viewers_see_the_same_and_a_slow_one_the_latest() -> None:
    sampler = Sampler()
    sampler.last = 20
    broadcast = Broadcast(sampler, every_s=0.001)
    quick, slow = broadcast.join(), broadcast.join()
    async with asyncio.TaskGroup() as group:
        group.create_task(anext(slow))
        group.create_task(broadcast.run())
        seen = [frame async for frame in quick]
        assert seen[-1] in (b"20", b"19")
        assert len(seen) > 10
        late = [frame async for frame in slow]
        assert len(late) <= 1, "frames piled up for a slow viewer"
    assert [frame async for frame in broadcast.join()] == [], "it is over"


async def test_viewers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_VIEWERS", 2)
    broadcast = Broadcast(Sampler())
    watching = [asyncio.create_task(anext(broadcast.join())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyViewers):
        broadcast.join()
    for one in watching:
        one.cancel()


async def test_who_leaves_before_the_first_frame_leaves_nothing_behind() -> None:
    """A stream whose client is gone is never begun. Each such viewer stayed for good: the sampler went on, and behind
    the last place nobody could watch any more."""
    broadcast = Broadcast(Sampler())
    frames = broadcast.join()
    await frames.aclose()
    assert broadcast.viewers == 0


class Traces:
    """Answers after a while, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked: list[Question] = []
        self.fails = fails

    async def __call__(self, question: Question) -> bytes:
        self.asked.append(question)
        await asyncio.sleep(0.01)
        if self.fails:
            raise FiguresUnavailable("not now")
        return b"%d" % len(self.asked)


async def test_who_asks_the_same_shares_the_answer() -> None:
    traces = Traces()
    kept = Kept(traces, kept_s=0.05)
    assert await asyncio.gather(*[kept(Overview(1.0)) for _ in range(10)]) == [b"1"] * 10
    assert await kept(Overview(2.0)) == b"2"
    await asyncio.sleep(0.06)
    assert await kept(Overview(1.0)) == b"3"


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    traces = Traces(fails=True)
    kept = Kept(traces)
    told = await asyncio.gather(*[kept(Overview(1.0)) for _ in range(3)], return_exceptions=True)
    assert [str(error) for error in told] == ["not now"] * 3
    assert {type(error) for error in told} == {TracesDown}
    traces.fails = False
    assert await kept(Overview(1.0)) == b"2"


async def test_questions_are_bounded() -> None:
    kept = Kept(Traces())
    told = await asyncio.gather(*[kept(Overview(float(n))) for n in range(MAX_KEPT + 5)], return_exceptions=True)
    assert sum(isinstance(one, TracesDown) for one in told) == 5


async def test_one_who_gives_up_does_not_leave_the_others_waiting() -> None:
    kept = Kept(Traces())

    async def gives_up() -> None:
        async with asyncio.timeout(0.005):
            await kept(Overview(1.0))

    first, second = await asyncio.gather(gives_up(), kept(Overview(1.0)), return_exceptions=True)
    assert isinstance(first, TimeoutError)
    assert isinstance(second, TracesDown)


def test_no_request_passes_through_the_dashboard() -> None:
    """What serves requests does not know of it: whether anybody looks can cost them nothing."""
    serving = [
        ROOT / "app" / "http" / f"{name}.py" for name in ("wire", "front", "hot", "generate", "embeddings", "count")
    ]
    serving += (file for folder in ("gateway", "dialects", "core") for file in (ROOT / "app" / folder).rglob("*.py"))
    assert len(serving) > 60
    assert not [file.name for file in serving if "app.http.dashboard" in file.read_text()]
