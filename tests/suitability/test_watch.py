from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.settings import BYPASS
from colo_compare.errors import ControlRefused
from colo_compare.suitability.survey import Survey
from colo_compare.suitability.watch import LONGEST, watch
from tests.rig import SETTINGS, Rig

OBSERVING = replace(SETTINGS, mode="observe")


class Watched:
    """What a client of the control socket gets, in a task of its own."""

    def __init__(self, rig: Rig, duration: float = 2.0) -> None:
        self.rig = rig
        self.duration = duration
        self.answers: list[dict[str, Any]] = []
        self.error: ControlRefused | None = None

    async def run(self) -> None:
        try:
            async with aclosing(watch(self.rig.loop, self.duration, 0.05)) as results:
                async for result in results:
                    self.answers.append(result)
        except ControlRefused as error:
            self.error = error

    def survey(self) -> Survey:
        survey = self.answers[-1]["survey"]
        assert isinstance(survey, Survey)
        return survey


async def test_only_what_happens_meanwhile(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, OBSERVING)
    async with rig.running(), trio.open_nursery() as nursery:
        await rig.both_say(b"before")
        watched = Watched(rig)
        nursery.start_soon(watched.run)
        await rig.settle()
        await rig.send(rig.client, rig.talk.client.datagram(b"question"))
        await rig.both_say(b"the same")
        await rig.send(rig.primary, rig.talk.primary.datagram(b"mine=1"))
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"mine=2"))
        for _ in range(3):
            await rig.jump(1.0)
        await rig.both_say(b"after")
    assert [round(answer["elapsed"]) for answer in watched.answers[:-1]] == [0, 1]
    survey = watched.survey()
    assert survey.frames == [1, 2, 2]
    assert survey.compared == 2
    assert survey.seconds == pytest.approx(2.0, abs=1.0)
    assert (survey.divergences, survey.checkpoints) == (1, 1)
    assert (survey.patterns[0].cause, survey.patterns[0].field) == ("number", "mine")
    assert survey.services[0].requests == 1
    assert sum(survey.hold.counts) == 2  # what was said before is not among it


async def test_who_goes_away_is_forgotten(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, OBSERVING)
    async with rig.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watched(rig).run)
            await rig.settle()
            assert len(rig.loop.surveyors) == 1
            nursery.cancel_scope.cancel()
        assert rig.loop.surveyors == []


async def test_two_at_once(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, OBSERVING)
    async with rig.running(), trio.open_nursery() as nursery:
        both = Watched(rig), Watched(rig, 3.0)
        for watched in both:
            nursery.start_soon(watched.run)
        await rig.settle()
        await rig.both_say(b"the same")
        for _ in range(4):
            await rig.jump(1.0)
    assert [watched.survey().frames for watched in both] == [[0, 1, 1], [0, 1, 1]]


async def test_in_no_other_mode(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        watched = Watched(rig)
        await watched.run()
    assert "the mode is protect" in str(watched.error)


async def test_it_ends_with_the_mode(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, OBSERVING)
    async with rig.running(), trio.open_nursery() as nursery:
        watched = Watched(rig, 100.0)
        nursery.start_soon(watched.run)
        await rig.settle()
        await rig.loop.set_mode(BYPASS)
        await rig.jump(1.0)
        assert "the mode is bypass" in str(watched.error)
        assert rig.loop.surveyors == []


@pytest.mark.parametrize(
    ("duration", "checkpoint_time"), [(0.0, 0.05), (-1.0, 0.05), (LONGEST * 2, 0.05), (1.0, 0.0), (1.0, 2.0)]
)
async def test_how_long(mock_clock: MockClock, duration: float, checkpoint_time: float) -> None:
    rig = Rig(mock_clock, OBSERVING)
    async with rig.running():
        with pytest.raises(ControlRefused, match="up to a week"):
            await anext(watch(rig.loop, duration, checkpoint_time))
