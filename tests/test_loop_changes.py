"""What an operator changes while the loop runs: its mode, and whether the client is served."""

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import SECONDARY
from colo_compare.errors import ControlRefused
from tests.rig import Rig, Scripted, hang, seen


async def test_a_change_of_mode_waits_for_the_checkpoint_under_way(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        rig.loop.proxy.request_checkpoint("operator", trio.current_time())
        rig.loop.perform()
        await rig.settle()
        nursery.start_soon(rig.loop.set_mode, "observe")
        await rig.settle()
        assert rig.loop.proxy.mode == "protect"
        await rig.backend.commit(CheckpointRequest(2, ("operator",), ""))
        await rig.settle()
        assert (rig.loop.proxy.mode, rig.loop.proxy.epoch) == ("observe", 2)
        assert rig.backend.cancelled == ["request 2"]  # it had reported, and not yet returned


async def test_what_was_never_asked_of_the_backend_does_not_keep_a_mode_from_changing(
    mock_clock: MockClock,
) -> None:
    backend = Scripted()
    backend.is_ready = False
    rig = Rig(mock_clock, backend=backend)
    async with rig.running():
        await rig.loop.set_mode("bypass")
        frame = rig.talk.primary.datagram(b"at once")
        await rig.send(rig.primary, frame)
        assert seen(rig.client) == [frame.data]
        assert backend.calls == []
        backend.is_ready = True
        await rig.loop.set_mode("protect")
        await rig.jump(1.0)
        assert backend.calls == ["request 1"]
        assert rig.loop.proxy.protected


async def test_requests_wait_for_the_new_mode(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        rig.loop.proxy.request_checkpoint("operator", trio.current_time())
        rig.loop.perform()
        await rig.settle()
        nursery.start_soon(rig.loop.set_mode, "bypass")
        await rig.settle()
        await rig.backend.handlers.paused(2)
        rig.loop.proxy.request_checkpoint("pressure", trio.current_time())
        await rig.backend.handlers.failed(2, "no", secondary_intact=True)
        await rig.jump(1.0)
        assert rig.backend.calls == ["request 1", "request 2"]
        assert rig.loop.proxy.mode == "bypass"


async def test_two_changes_of_mode_at_once(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        for mode in ("observe", "bypass", "protect"):
            nursery.start_soon(rig.loop.set_mode, mode)
        await rig.settle()
        await rig.loop.set_mode("protect")
        await rig.settle()
        assert rig.loop.proxy.protected


async def test_the_mode_that_it_has_changes_nothing(mock_clock: MockClock) -> None:
    backend = Scripted()
    backend.is_ready = False
    rig = Rig(mock_clock, backend=backend)
    async with rig.running():
        await rig.loop.set_mode("protect")
        backend.is_ready = True
        await rig.jump(1.0)
        assert rig.loop.proxy.protected


async def test_a_pair_without_a_secondary_has_no_mode_for_one(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.backend.handlers.guest_lost(SECONDARY, "dead")
        await rig.settle()
        for mode in ("protect", "observe"):
            with pytest.raises(ControlRefused, match=f"mode {mode} needs a secondary, and it is lost"):
                await rig.loop.set_mode(mode)
        await rig.loop.set_mode("bypass")
        assert rig.loop.proxy.mode == "bypass"


async def test_a_drain_gives_up_after_a_while(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    rig = Rig(mock_clock)
    results: list[bool] = []

    async def drain() -> None:
        results.append(await rig.loop.drain_out(2.0))

    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held"))
        nursery.start_soon(drain)
        await rig.settle()
        assert results == []
        await rig.jump(2.0)
        assert results == [False]
        first = [rig.talk.client.datagram(bytes([n])) for n in range(3)]
        for packet in first:
            await rig.send(rig.client, packet)
        assert seen(rig.primary) == []
        rig.loop.take_in()
        await rig.settle()
        assert seen(rig.primary) == [packet.data for packet in first]
