from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from colo_compare.checkpoint.contract import Figures
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError, CheckpointFailed
from colo_compare.ports.memory import CAPACITY
from tests.rig import ABLE, SETTINGS, Rig, Scripted, hang, seen


async def ask(rig: Rig) -> None:
    """Let the core request a checkpoint."""
    rig.loop.proxy.request_checkpoint("operator", trio.current_time())
    rig.loop.perform()
    await rig.settle()


async def test_the_first_checkpoint_protects(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        assert rig.backend.calls == ["request 1"]
        assert rig.loop.proxy.protected
        assert rig.loop.checkpointing.last_figures == Figures(pause=0.004, bytes=8192, pages=2)


async def test_paused_takes_what_waits_in_the_primarys_port_first(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    before = rig.talk.primary.datagram(b"before the pause")
    after = rig.talk.primary.datagram(b"after the resume")

    async def checkpoint(request: CheckpointRequest) -> None:
        rig.put(rig.primary, before)  # it waits in the port: nobody else runs before the next line
        await rig.backend.handlers.paused(request.epoch)
        rig.put(rig.primary, after)
        await rig.backend.handlers.committed(request.epoch, Figures())

    async with rig.running():
        rig.backend.on_request = checkpoint
        await ask(rig)
        assert seen(rig.client) == [before.data]
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"after the resume"))
        assert seen(rig.client) == [after.data]


async def test_paused_drains_a_port_that_is_held_back(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, max_held_frames=2))
    said = [rig.talk.primary.datagram(bytes([n])) for n in range(5)]
    async with rig.running():
        rig.backend.on_request = hang
        await rig.send(rig.primary, *said[:2])
        rig.put(rig.primary, *said[2:])
        await rig.settle()
        assert rig.ports[PRIMARY].counters.received_frames == 2
        await rig.backend.commit(CheckpointRequest(2, ("pressure",), ""))
        assert seen(rig.client) == [packet.data for packet in said]


@pytest.mark.parametrize("reports_load", [True, False])
async def test_what_the_old_secondary_left_in_its_port_is_void(
    mock_clock: MockClock, reports_load: bool
) -> None:
    rig = Rig(mock_clock, backend=Scripted(replace(ABLE, reports_load=reports_load)))

    async def checkpoint(request: CheckpointRequest) -> None:
        await rig.backend.handlers.paused(request.epoch)
        rig.put(rig.secondary, rig.talk.secondary.datagram(b"stale"))
        if reports_load:
            await rig.backend.handlers.loaded(request.epoch)
        await rig.backend.handlers.committed(request.epoch, Figures())

    async with rig.running():
        rig.backend.on_request = checkpoint
        await ask(rig)
        assert rig.loop.proxy.counters.secondary["void"] == 1
        rig.backend.on_request = hang
        await rig.send(rig.primary, rig.talk.primary.datagram(b"stale"))
        assert seen(rig.client) == []  # what the old state said matches nothing any more


@pytest.mark.parametrize("reports_load", [True, False])
@pytest.mark.parametrize("copies_state", [True, False])
async def test_what_the_secondarys_port_had_not_taken_was_meant_for_its_old_state(
    mock_clock: MockClock, reports_load: bool, copies_state: bool
) -> None:
    """It is translated with numbers that the new state may take for something else."""
    backend = Scripted(replace(ABLE, reports_load=reports_load, copies_state=copies_state))
    rig = Rig(mock_clock, backend=backend, capacity=(CAPACITY, CAPACITY, 0))
    async with rig.running():
        await rig.send(rig.client, rig.talk.client.datagram(b"old"))
        link = rig.loop.links[SECONDARY]
        assert len(link.backlog) == 1
        await ask(rig)
        assert len(link.backlog) == (0 if copies_state else 1)
        assert link.dropped == (1 if copies_state else 0)


@pytest.mark.parametrize("commits", [True, False])
async def test_what_waits_for_the_secondarys_port_stays_there_during_a_checkpoint(
    mock_clock: MockClock, commits: bool
) -> None:
    """The secondary may have been loaded, and we not be told yet."""
    rig = Rig(mock_clock, capacity=(CAPACITY, CAPACITY, 1))
    first, second = rig.talk.client.datagram(b"first"), rig.talk.client.datagram(b"second")
    async with rig.running():
        await rig.send(rig.client, first, second)
        rig.backend.on_request = hang
        await ask(rig)
        assert seen(rig.secondary) == [first.data]
        await rig.jump(SETTINGS.checkpoint_timeout / 2)
        assert seen(rig.secondary) == []
        if commits:
            await rig.backend.commit(CheckpointRequest(2, ("operator",), ""))
        else:
            await rig.backend.handlers.failed(2, "in vain", secondary_intact=True)
        await rig.settle()
        assert seen(rig.secondary) == ([] if commits else [second.data])
        assert rig.loop.links[SECONDARY].dropped == (1 if commits else 0)
        third = rig.talk.client.datagram(b"third")
        await rig.send(rig.client, third)
        assert seen(rig.secondary) == [third.data]


async def test_client_frames_wait_for_the_commit(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await ask(rig)
        question = rig.talk.client.datagram(b"question")
        await rig.send(rig.client, question)
        assert seen(rig.primary) == []
        await rig.backend.commit(CheckpointRequest(2, ("operator",), ""))
        assert seen(rig.primary) == seen(rig.secondary) == [question.data]


@pytest.mark.parametrize(("advice", "after"), [(5.0, 5.0), (20.0, 8.0), (1.0, 2.0)])
async def test_the_backend_s_advice_sets_the_pace(mock_clock: MockClock, advice: float, after: float) -> None:
    """The operator wants one every 8 s at least, and never two within 2 s."""
    rig = Rig(mock_clock, replace(SETTINGS, min_interval=2.0, max_interval=8.0))
    rig.backend.advice = advice
    async with rig.running():
        await rig.jump(after - 0.1)
        assert rig.backend.calls == ["request 1"]
        await rig.jump(0.2)
        assert rig.backend.calls == ["request 1", "request 2"]
        assert rig.loop.settings.max_interval == 8.0


async def test_one_request_at_a_time(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    tidied = trio.Event()

    async def commit_and_tidy(request: CheckpointRequest) -> None:
        await rig.backend.commit(request)
        await tidied.wait()

    async with rig.running():
        rig.backend.on_request = commit_and_tidy
        await ask(rig)
        assert rig.loop.proxy.epoch == 2
        await ask(rig)
        assert rig.backend.calls == ["request 1", "request 2"]  # it has not returned from the last one yet
        tidied.set()
        await rig.settle()
        assert rig.backend.calls == ["request 1", "request 2", "request 3"]
        assert rig.loop.proxy.epoch == 3
        assert rig.backend.cancelled == []


async def test_requests_wait_until_the_backend_is_ready(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    rig.backend.is_ready = False
    async with rig.running():
        assert rig.backend.calls == []
        rig.backend.is_ready = True
        await rig.jump(0.02)
        assert rig.backend.calls == ["request 1"]
        assert rig.loop.proxy.protected


async def test_a_backend_may_take_its_time_to_become_ready(mock_clock: MockClock) -> None:
    """To form a pair of QEMU guests takes a whole migration; no secondary is lost by that."""
    rig = Rig(mock_clock)
    rig.backend.is_ready = False
    async with rig.running():
        for _ in range(200):
            await rig.jump(0.1)
        assert rig.loop.proxy.mode == "protect"
        rig.backend.is_ready = True
        await rig.jump(0.02)
        assert rig.loop.proxy.protected


async def test_a_checkpoint_that_the_backend_begins_by_itself(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        epoch = await rig.backend.handlers.begun()
        assert epoch == 2
        assert rig.loop.proxy.checkpoint_state == "requested"
        await rig.backend.commit(CheckpointRequest(epoch, (), ""))
        assert rig.loop.proxy.epoch == 2
        assert rig.backend.calls == ["request 1"]


async def test_a_request_that_a_promotion_overtakes_is_forgotten(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running(), trio.open_nursery() as nursery:
        fenced = trio.Event()
        rig.backend.on_promote = fenced.wait
        nursery.start_soon(rig.loop.failover.promote, "asked for by the operator")
        await rig.settle()
        await ask(rig)
        assert rig.backend.calls == ["request 1", "promote secondary"]  # it waits for the promotion's end
        fenced.set()
        await rig.settle()
        assert rig.backend.calls == ["request 1", "promote secondary"]


async def test_a_request_that_the_backend_has_not_seen_needs_no_result(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, backend=Scripted(replace(ABLE, reports_pause=False)))

    async def commit_and_never_return(request: CheckpointRequest) -> None:
        await rig.backend.commit(request)
        await trio.sleep_forever()

    async with rig.running():
        rig.backend.on_request = commit_and_never_return
        await ask(rig)
        await ask(rig)
        assert rig.backend.calls == ["request 1", "request 2"]
        assert rig.loop.proxy.checkpoint_state != "comparing"
        await rig.primary.aclose()
        await rig.settle()
        assert rig.backend.calls == ["request 1", "request 2", "promote secondary"]
        assert rig.loop.primary.name == "secondary"


# Backends that misbehave


async def test_a_failed_checkpoint_is_tried_again(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def fail(request: CheckpointRequest) -> None:
        await rig.backend.handlers.failed(request.epoch, "disk full", secondary_intact=True)

    async with rig.running():
        rig.backend.on_request = fail
        await ask(rig)
        assert rig.backend.calls == ["request 1", "request 2"]
        rig.backend.on_request = rig.backend.commit
        await rig.jump(SETTINGS.retry_interval)
        assert rig.backend.calls == ["request 1", "request 2", "request 2"]
        assert rig.loop.proxy.epoch == 2
        assert rig.backend.cancelled == []  # the backend that reports a failure may tidy up in peace


@pytest.mark.parametrize(
    "error", [CheckpointFailed("disk full"), RuntimeError("a bug"), ExceptionGroup("", [ValueError()])]
)
async def test_a_request_that_raises_is_a_failed_checkpoint(
    mock_clock: MockClock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)

    async def burst(request: CheckpointRequest) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with rig.running():
        rig.backend.on_request = burst
        await ask(rig)
        assert rig.loop.proxy.counters.checkpoints["failed"] == 1
        assert rig.loop.proxy.protected  # nothing was loaded: it still has its old state
        rig.backend.on_request = rig.backend.commit
        await rig.jump(SETTINGS.retry_interval)
        assert rig.loop.proxy.epoch == 2
    assert rig.error is None
    assert "failed at the request for epoch 2" in caplog.text


async def test_a_backend_that_always_fails_costs_the_secondary(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def burst(request: CheckpointRequest) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    async with rig.running():
        rig.backend.on_request = burst
        await ask(rig)
        for _ in range(SETTINGS.max_failures - 1):
            assert rig.loop.proxy.mode == "protect"
            await rig.jump(SETTINGS.retry_interval)
        assert rig.loop.proxy.mode == "solo"
        assert rig.backend.calls[-1] == "abandon secondary"


async def test_a_request_that_raises_after_the_pause_costs_the_secondary(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def burst(request: CheckpointRequest) -> None:
        await rig.backend.handlers.paused(request.epoch)
        raise RuntimeError("a bug")

    async with rig.running():
        rig.backend.on_request = burst
        await ask(rig)
        assert rig.loop.proxy.mode == "solo"  # nobody knows which state it has


async def test_a_backend_that_hangs_is_cancelled(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await ask(rig)
        await rig.jump(SETTINGS.checkpoint_timeout)
        assert rig.backend.cancelled == ["request 2"]
        assert rig.loop.proxy.mode == "solo"


@pytest.mark.parametrize("ending", [None, CheckpointerError("connection lost"), RuntimeError("a bug")])
async def test_a_backend_that_ends_costs_the_secondary_but_not_the_service(
    mock_clock: MockClock, ending: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await ask(rig)
        rig.backend.ending = ending
        rig.backend.end.set()
        await rig.settle()
        assert rig.backend.cancelled == ["request 2"]
        for _ in range(SETTINGS.max_failures - 1):
            await rig.jump(SETTINGS.retry_interval)
        assert rig.loop.proxy.mode == "solo"
        assert rig.backend.calls[:2] == ["request 1", "request 2"]
        answer = rig.talk.primary.datagram(b"served")
        await rig.send(rig.primary, answer)
        assert seen(rig.client) == [answer.data]
    assert "the checkpointer has ended" in caplog.text
    assert rig.error is None


async def test_a_backend_that_ends_while_nothing_is_asked(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.end.set()
        await rig.settle()
        assert rig.loop.proxy.protected  # the secondary is as good as before
        assert rig.loop.checkpointing.ended == "its run() returned"


async def test_a_backend_that_was_never_ready_is_a_mistake_to_be_seen(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    rig.backend.is_ready = False
    rig.backend.ending = CheckpointerError("the checkpoint program is not there")
    async with rig.running():
        rig.backend.end.set()
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, CheckpointerError)
    assert "ended before it was ready: the checkpoint program is not there" in str(rig.error)


async def test_observe_needs_no_backend(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, mode="observe"))
    async with rig.running():
        rig.backend.end.set()
        answer = rig.talk.primary.datagram(b"served")
        await rig.send(rig.primary, answer)
        assert seen(rig.client) == [answer.data]
    assert rig.backend.calls == []


async def test_reports_that_nobody_waits_for_are_ignored(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        handlers = rig.backend.handlers
        await handlers.paused(7)
        await handlers.loaded(7)
        await handlers.committed(1, Figures())
        await handlers.failed(2, "what?", secondary_intact=False)
        assert rig.loop.proxy.epoch == 1
        assert rig.loop.proxy.protected
        assert rig.loop.proxy.checkpoint_state == "comparing"
        rig.backend.on_request = hang
        await ask(rig)
        await handlers.committed(1, Figures())
        assert rig.loop.proxy.epoch == 1
    assert caplog.text.count("is ignored") == 5


async def test_a_late_commit_of_a_lost_secondary_is_ignored(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await ask(rig)
        await rig.secondary.aclose()
        await rig.settle()
        await rig.backend.handlers.committed(2, Figures())
        assert rig.loop.proxy.mode == "solo"
        assert rig.loop.proxy.epoch == 1


async def test_a_port_that_breaks_while_it_is_drained(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def checkpoint(request: CheckpointRequest) -> None:
        await rig.primary.aclose()
        await rig.backend.commit(request)

    async with rig.running():
        rig.backend.on_request = checkpoint
        await ask(rig)
        assert rig.loop.primary.name == "secondary"
        assert rig.loop.proxy.epoch == 2


async def test_a_bug_of_the_core_is_not_taken_for_the_backends(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    async def swallow(request: CheckpointRequest) -> None:
        with pytest.raises(ZeroDivisionError):
            await rig.backend.handlers.paused(request.epoch)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async with rig.running():
        rig.backend.on_request = swallow
        rig.loop.drain = broken  # type: ignore[method-assign, assignment]  # stands for any part of the core
        await ask(rig)
        assert rig.ended.is_set()
        with pytest.raises(ZeroDivisionError):
            await rig.backend.handlers.begun()  # the core is not called again
    assert isinstance(rig.error, ZeroDivisionError)
