"""The guest's process, on a port in memory and under trio's test clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from colo_compare.errors import PortClosed
from colo_compare.guest import Machine
from colo_compare.guest.device_state import DeviceState, decode
from colo_compare.guest.shell import Shell
from colo_compare.ports.memory import MemoryPort, memory_pair
from colo_compare.wire.frame import Frame
from colo_compare.wire.vnet import EMPTY_VNET_HEADER
from tests.frames import CLIENT_IP4, GUEST_IP4, udp_datagram
from tests.guest.peer import Peer, arp_message, new_machine, packet, take_apart

ECHO = packet(17, udp_datagram(CLIENT_IP4, GUEST_IP4, 5000, 7, b"x"))


@asynccontextmanager
async def running(
    machine: Machine, header_len: int = 0, capacity: int = 256
) -> AsyncIterator[tuple[Shell, MemoryPort]]:
    near, far = memory_pair(header_len=header_len, capacity=capacity)
    async with near, far, trio.open_nursery() as nursery:
        shell = Shell(machine, far)
        nursery.start_soon(shell.run)
        yield shell, near
        nursery.cancel_scope.cancel()


async def receive(port: MemoryPort, count: int) -> int:
    """Receive at least so many frames, and give how many came."""
    received = 0
    while received < count:
        received += len(await port.receive_batch())
    return received


async def test_frames_are_answered_and_timers_run(autojump_clock: trio.testing.MockClock) -> None:
    machine = new_machine()
    async with running(machine) as (_, port):
        port.send_batch([Frame(arp_message(1), 0), Frame(ECHO, 0)])
        frames = await port.receive_batch()
        assert len(frames) == 2
        start = trio.current_time()
        port.send_batch([Frame(Peer(new_machine()).frame(2, ack=0, options=b""), 0)])  # a SYN
        times = []
        for _ in range(3):
            await port.receive_batch()
            times.append(round(trio.current_time() - start, 3))
        assert times == [0, 1, 3]  # SYN-ACKs


async def test_a_call_sets_a_timer_for_who_sleeps(autojump_clock: trio.testing.MockClock) -> None:
    machine = new_machine()
    async with running(machine) as (shell, port):
        await trio.sleep(10)
        shell.send(machine.call("10.0.0.1", 80, 1, shell.now))
        start = trio.current_time()
        for _ in range(3):
            assert len(await port.receive_batch()) == 1
        assert trio.current_time() - start == pytest.approx(2)


async def test_large_frames_are_cut_into_those_of_a_wire(autojump_clock: trio.testing.MockClock) -> None:
    machine = new_machine()
    async with running(machine, header_len=12) as (_, port):
        port.send_batch([Frame(EMPTY_VNET_HEADER + arp_message(1), 12), Frame(EMPTY_VNET_HEADER + ECHO, 12)])
        frames = await port.receive_batch()
        assert [frame[:12] for frame in frames] == [EMPTY_VNET_HEADER] * 2
        assert take_apart([frames[1][12:]])[0].payload == b"x"


async def test_the_clock_stands_still_while_the_guest_does(autojump_clock: trio.testing.MockClock) -> None:
    machine = new_machine()
    async with running(machine) as (shell, port):
        await trio.sleep(5)
        shell.send(machine.call("10.0.0.1", 80, 1, shell.now))
        state = decode(shell.save())
        autojump_clock.jump(100)  # nobody runs meanwhile
        shell.resume()
        assert shell.now == state.clock == 5
        assert len(await port.receive_batch()) == 1
        start = trio.current_time()
        await port.receive_batch()
        assert trio.current_time() - start == pytest.approx(1)


async def test_what_the_port_has_not_taken_goes_with_the_guest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = new_machine()
    machine.receive([arp_message(1)], 0.0)
    async with running(machine, capacity=2) as (shell, port):
        shell.send(machine.receive([ECHO] * 5, shell.now))
        state = shell.save()
        assert len(decode(state).frames) == 3
        copy = Machine(memoryview(bytearray(machine.raw)))
        async with running(copy) as (other, other_port):
            other.save()
            other.load(state)
            other.resume()
            assert await receive(other_port, 3) == 3
            assert other.now == 0
        shell.resume()
        assert await receive(port, 5) == 5


async def test_what_waits_in_the_port_was_meant_for_the_state_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A proxy has translated it with that one's numbers."""
    machine = new_machine()
    machine.receive([arp_message(1)], 0.0)
    async with running(machine) as (shell, port):
        state = shell.save()
        port.send_batch([Frame(ECHO, 0)] * 3)
        shell.load(state)
        shell.resume()
        port.send_batch([Frame(ECHO, 0)])
        assert await receive(port, 1) == 1
        assert shell.machine.header.frames_in == 2  # the ARP frame, and what came after


async def test_states_that_are_none_are_refused() -> None:
    near, far = memory_pair()
    async with near, far:
        shell = Shell(new_machine(), far)
        with pytest.raises(ValueError, match="device state"):
            shell.load(b"?")
        shell.machine.raw[0] = 0
        with pytest.raises(ValueError, match="no guest"):
            shell.load(DeviceState(1.0, ()).encode())


async def test_a_port_that_goes_away_ends_it() -> None:
    near, far = memory_pair()
    async with near, far:
        shell = Shell(new_machine(), far)
        await near.aclose()
        with pytest.raises(PortClosed):
            await shell.run()
