import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from colo_compare.errors import PortClosed
from colo_compare.ports import fault, open_port
from colo_compare.ports.fault import FaultPort
from colo_compare.ports.faults import Faults
from colo_compare.ports.memory import MemoryPort, memory_pair
from colo_compare.wire.frame import Frame, parse_frame

FRAMES = [parse_frame(number.to_bytes(2, "big") * 30, 0, False) for number in range(400)]
DATA = [frame.data for frame in FRAMES]


def pair(
    receive: Faults | None = None, send: Faults | None = None, capacity: int = 10000
) -> tuple[FaultPort, MemoryPort]:
    one, other = memory_pair(capacity)
    return FaultPort(one, receive, send), other


async def test_what_is_sent_comes_later(autojump_clock: MockClock) -> None:
    port, other = pair(send=Faults(delay=0.02))
    async with port, other:
        port.send_batch(FRAMES[:2])
        await trio.sleep(0.015)
        port.send_batch(FRAMES[2:3])
        assert other.drain() == []
        assert await other.receive_batch() == DATA[:2]
        assert trio.current_time() == pytest.approx(0.02, abs=1e-6)
        assert await other.receive_batch() == DATA[2:3]
        assert trio.current_time() == pytest.approx(0.035, abs=1e-6)
        port.send_batch(FRAMES[3:4])  # the sender sleeps without an end by now
        assert await other.receive_batch() == DATA[3:4]
        assert trio.current_time() == pytest.approx(0.055, abs=1e-6)


async def test_what_is_received_comes_later(autojump_clock: MockClock) -> None:
    port, other = pair(receive=Faults(delay=0.02))
    got: list[tuple[float, int]] = []

    async def receive() -> None:
        while sum(count for _, count in got) < 6:
            got.append((round(trio.current_time(), 4), len(await port.receive_batch())))

    async with port, other, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for number in range(3):
            await trio.sleep(0.01)
            other.send_batch(FRAMES[: number + 1])
    assert [count for _, count in got] == [1, 2, 3]
    assert got[1:] == [(0.03, 2), (0.04, 3)]  # when the one before was given


async def test_drain_gives_what_was_sent_before_it(autojump_clock: MockClock) -> None:
    port, other = pair(receive=Faults(delay=3600))
    async with port, other:
        other.send_batch(FRAMES[:2])
        with trio.move_on_after(1):
            await port.receive_batch()
        other.send_batch(FRAMES[2:3])
        assert port.drain() == DATA[:3]
        assert port.drain() == []


async def test_every_fault_in_both_directions(autojump_clock: MockClock) -> None:
    faults = Faults(loss=0.1, duplicate=0.1, corrupt=0.1, reorder=0.1, delay=0.01, rate=100, seed=3)
    port, other = pair(faults, faults)
    async with port, other:
        port.send_batch(FRAMES)
        other.send_batch(FRAMES)
        there: list[bytes] = []
        back: list[bytes] = []
        with trio.move_on_after(1):
            while True:
                there += await other.receive_batch()
        with trio.move_on_after(1):
            while True:
                back += await port.receive_batch()
        assert port.send_line is not None
        assert port.receive_line is not None
        for got, line in ((there, port.send_line), (back, port.receive_line)):
            assert len(got) == len(FRAMES) - line.lost + line.duplicated
            assert 0 < sum(data not in DATA for data in got) <= line.corrupted + line.duplicated
            assert line.reordered > 0
        assert there != back


async def test_a_turned_bit_is_behind_the_header() -> None:
    one, other = memory_pair(header_len=12)
    port = FaultPort(one, Faults(corrupt=1.0), Faults(corrupt=1.0))
    header = b"\1\0" + bytes(10)
    async with port, other:
        for _ in range(50):
            port.send_batch([parse_frame(header + bytes(20), 12, False)])
            other.send_batch([parse_frame(header + bytes(20), 12, False)])
        for data in other.drain() + port.drain():
            assert data[:12] == header
            assert sum(byte.bit_count() for byte in data[12:]) == 1
        port.send_batch([parse_frame(header, 12, False)])  # nothing to damage
        assert other.drain() == [header]


async def test_a_direction_without_faults_is_left_alone(autojump_clock: MockClock) -> None:
    port, other = pair(send=Faults(delay=1))
    async with port, other:
        other.send_batch(FRAMES[:2])
        assert await port.receive_batch() == DATA[:2]
        other.send_batch(FRAMES[:2])
        assert port.drain() == DATA[:2]
    port, other = pair(receive=Faults(delay=1), capacity=3)
    async with port, other:
        assert port.send_batch(FRAMES) == 3
        assert other.drain() == DATA[:3]
        await port.wait_writable()


async def test_a_full_line_pushes_back(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault, "CAPACITY", 10)
    port, other = pair(receive=Faults(delay=1), send=Faults(delay=1), capacity=5)
    async with port, other:
        assert port.send_batch(FRAMES[:12]) == 10
        await port.wait_writable()
        assert trio.current_time() == pytest.approx(1.0, abs=1e-6)
        assert port.send_batch(FRAMES[:12], 10) == 12
        got: list[bytes] = []
        with trio.move_on_after(10):
            while True:
                got += await other.receive_batch()
        assert got == DATA[:12]

        sent = 0
        with trio.move_on_after(0.5):  # more than the line takes: what is beyond stays with the sender
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.receive_batch)
                while sent < 20:
                    sent = other.send_batch(FRAMES[:20], sent)
                    await other.wait_writable()
        assert 10 <= sent < 20


async def test_a_port_behind_it_that_is_full(autojump_clock: MockClock) -> None:
    port, other = pair(send=Faults(duplicate=1.0), capacity=3)
    async with port, other:
        assert port.send_batch(FRAMES[:5]) == 5
        got: list[bytes] = []
        while len(got) < 10:
            got += await other.receive_batch()
        assert got == [data for data in DATA[:5] for _ in range(2)]


async def test_a_port_behind_it_that_is_gone(autojump_clock: MockClock) -> None:
    port, other = pair(receive=Faults(delay=1), send=Faults(delay=1))
    async with port, other:
        other.send_batch(FRAMES[:3])
        port.send_batch(FRAMES[:3])
        await other.aclose()
        assert port.drain() == DATA[:3]
        with pytest.raises(PortClosed):
            port.drain()
        with pytest.raises(PortClosed):
            await port.receive_batch()
        await trio.sleep(2)
        with pytest.raises(PortClosed, match="the other end was closed"):
            port.send_batch(FRAMES)
        with pytest.raises(PortClosed, match="the other end was closed"):
            await port.wait_writable()


async def test_frames_on_their_way_outlive_the_port_behind(autojump_clock: MockClock) -> None:
    port, other = pair(receive=Faults(delay=1))

    async def kill() -> None:
        await wait_all_tasks_blocked()
        await other.aclose()

    async with port, other, trio.open_nursery() as nursery:
        other.send_batch(FRAMES[:3])
        nursery.start_soon(kill)
        assert await port.receive_batch() == DATA[:3]
        with pytest.raises(PortClosed):
            await port.receive_batch()


async def test_a_closed_port_gives_nothing_more(autojump_clock: MockClock) -> None:
    port, other = pair(receive=Faults(delay=1))
    async with port, other:
        other.send_batch(FRAMES[:3])
        with trio.move_on_after(0.5):
            await port.receive_batch()
        await port.aclose()
        with pytest.raises(PortClosed, match="the port was closed"):
            port.drain()


async def test_it_is_made_by_its_url(autojump_clock: MockClock) -> None:
    async with open_port("memory:f?fault_send=delay:20ms") as port, open_port("memory:f") as other:
        assert isinstance(port, FaultPort)
        assert port.connected
        await port.wait_connected()
        sent: list[Frame] = FRAMES[:3]
        port.send_batch(sent)
        assert await other.receive_batch() == DATA[:3]
        assert trio.current_time() == pytest.approx(0.02, abs=1e-6)
