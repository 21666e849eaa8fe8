import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from colo_compare.checkpoint.contract import Figures
from colo_compare.core.actions import (
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointRequest,
    CheckpointRequested,
    Divergence,
    ModeChanged,
    SideLost,
)
from colo_compare.core.sides import PRIMARY
from colo_compare.measures import LAG_INTERVAL, Measures
from tests.rig import ABLE, Rig, Scripted, hang

REQUESTED = CheckpointRequested(10.0, CheckpointRequest(1, ("startup",), ""))


def test_a_commit_ends_what_a_request_began() -> None:
    measures = Measures(lambda: 1700000000.0)
    assert (measures.last_commit, measures.checkpoint_running(10.0)) == (None, 0.0)
    measures.note(REQUESTED)
    assert measures.checkpoint_running(10.5) == 0.5
    measures.note(CheckpointCommitted(12.0, 1, ("startup",), 2.0, 0, 0))
    assert measures.checkpoint_running(13.0) == 0.0
    assert measures.last_commit == 1700000000.0
    assert (measures.request_to_commit.total(), measures.request_to_commit.sum) == (1, 2.0)


@pytest.mark.parametrize(
    "event", [CheckpointAborted(11.0, 1, "no"), ModeChanged(11.0, "protect", "solo", "the secondary is lost")]
)
def test_a_checkpoint_that_comes_to_nothing_is_no_longer_under_way(
    event: CheckpointAborted | ModeChanged,
) -> None:
    measures = Measures()
    measures.note(REQUESTED)
    measures.note(event)
    assert measures.checkpoint_running(12.0) == 0.0
    assert (measures.last_commit, measures.request_to_commit.total()) == (None, 0)


def test_the_last_divergence_of_each_reason_is_remembered() -> None:
    times = iter([100.0, 101.0, 102.0])
    measures = Measures(lambda: next(times))
    for number, reason in enumerate(("payload", "fin", "payload"), 1):
        measures.note(Divergence(1.0, number, 0, "flow", reason, 0, b"", b""))
    assert measures.last_divergences == {"payload": (3, 102.0), "fin": (2, 101.0)}


def test_what_takes_no_time_is_not_measured() -> None:
    measures = Measures()
    measures.note(SideLost(1.0, PRIMARY, 0, 0))
    assert measures.checkpoint_running(2.0) == 0.0


def test_the_pause_is_what_the_checkpointer_says() -> None:
    measures = Measures()
    measures.note(REQUESTED)
    measures.note_paused(10.0)
    measures.note_figures(Figures(pause=0.25, bytes=4096, pages=1), 11.0)
    measures.note_figures(Figures(pause=0.25, bytes=8192, pages=2), 12.0)
    assert (measures.pause.total(), measures.pause.sum) == (2, 0.5)
    assert (measures.pages, measures.bytes) == (3, 12288)


def test_without_its_word_the_pause_lasts_to_the_commit() -> None:
    measures = Measures()
    measures.note(REQUESTED)
    measures.note_paused(10.25)
    measures.note_figures(Figures(), 11.0)
    assert (measures.pause.total(), measures.pause.sum) == (1, 0.75)


def test_a_pause_that_nobody_saw_is_not_made_up() -> None:
    measures = Measures()
    measures.note(REQUESTED)
    measures.note_paused(10.25)
    measures.note(REQUESTED)  # the next checkpoint, of which no pause is known
    measures.note_figures(Figures(), 11.0)
    assert measures.pause.total() == 0


async def test_the_lag_is_how_late_a_task_gets_its_turn(mock_clock: MockClock) -> None:
    measures = Measures()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measures.watch_loop)
        await wait_all_tasks_blocked()
        mock_clock.jump(LAG_INTERVAL + 0.03)
        await wait_all_tasks_blocked()
        mock_clock.jump(LAG_INTERVAL)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert measures.lag.total() == 2
    assert measures.lag.sum == pytest.approx(0.03)


# In the loop


async def test_a_checkpoint_is_measured(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    gate = trio.Event()

    async def slow(request: CheckpointRequest) -> None:
        await rig.backend.handlers.paused(request.epoch)
        await gate.wait()
        await rig.backend.handlers.committed(request.epoch, Figures(pages=7))

    rig.backend.on_request = slow
    async with rig.running():
        await rig.jump(2.0)
        gate.set()
        await rig.settle()
        measures = rig.loop.measures
    assert (measures.request_to_commit.sum, measures.pause.sum, measures.pages) == (2.0, 2.0, 7)


async def test_a_failover_is_measured_from_the_first_word_of_it(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    rig.backend.on_promote = hang
    async with rig.running():
        rig.loop.failover.report_guest(PRIMARY, "its host is dead")
        await rig.jump(3.0)
        assert rig.loop.measures.failover.total() == 0
    rig = Rig(mock_clock)
    gate = trio.Event()
    rig.backend.on_promote = gate.wait
    async with rig.running():
        rig.loop.failover.report_guest(PRIMARY, "its host is dead")
        await rig.jump(3.0)
        gate.set()
        await rig.settle()
        assert (rig.loop.measures.failover.total(), rig.loop.measures.failover.sum) == (1, 3.0)


async def test_a_failover_that_an_operator_wants_is_measured_from_the_command(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, backend=Scripted(ABLE))
    async with rig.running():
        await rig.loop.failover.promote("asked for")
        assert (rig.loop.measures.failover.total(), rig.loop.measures.failover.sum) == (1, 0.0)
