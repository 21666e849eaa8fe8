import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed
from colo_compare.ports.memory import MemoryPort, NamedMemoryPort, memory_pair
from colo_compare.wire.frame import parse_frame

FRAMES = [parse_frame(bytes((number,)) * 60, 0, False) for number in range(10)]
DATA = [frame.data for frame in FRAMES]


async def test_capacity_is_in_frames() -> None:
    one, other = memory_pair(capacity=3)
    async with one, other:
        assert one.send_batch(FRAMES) == 3
        assert other.drain() == DATA[:3]
        assert one.send_batch(FRAMES, 3) == 6


async def test_a_header_is_given_and_taken() -> None:
    one, other = memory_pair(header_len=12)
    async with one, other:
        one.send_batch([FRAMES[0], parse_frame(bytes(12) + DATA[1], 12, False)])
        assert other.drain() == [bytes(12) + DATA[0], bytes(12) + DATA[1]]
        assert (other.counters.received_bytes, one.counters.sent_bytes) == (120, 120)


async def test_what_a_closed_end_sent_is_given_first() -> None:
    one, other = memory_pair()
    async with one, other:
        one.send_batch(FRAMES)
        await one.aclose()
        assert await other.receive_batch() == DATA
        with pytest.raises(PortClosed, match="memory:pair: the other end was closed"):
            other.send_batch(FRAMES)
        with pytest.raises(PortClosed, match="memory:pair: the other end was closed"):
            other.drain()
        assert not other.connected


async def test_closing_one_end_wakes_the_other() -> None:
    one, other = memory_pair(capacity=1)

    async def receive() -> None:
        with pytest.raises(PortClosed, match="the other end was closed"):
            await other.receive_batch()

    async def send() -> None:
        with pytest.raises(PortClosed, match="the other end was closed"):
            await other.wait_writable()

    async with one, other, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        assert other.send_batch(FRAMES) == 1
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        await one.aclose()


async def test_ends_find_each_other_by_name() -> None:
    async with NamedMemoryPort("memory:a", "a") as one:
        one.send_batch(FRAMES)  # waits for the other end
        async with NamedMemoryPort("memory:b", "b") as stranger, NamedMemoryPort("memory:a", "a") as other:
            assert await other.receive_batch() == DATA
            assert stranger.drain() == []


async def test_a_name_is_free_again_once_its_pair_is_closed() -> None:
    for _ in range(2):
        async with NamedMemoryPort("memory:a", "a") as alone:
            assert alone.drain() == []
    async with NamedMemoryPort("memory:a", "a") as one, NamedMemoryPort("memory:a", "a") as other:
        one.send_batch(FRAMES)
        assert other.drain() == DATA


async def test_a_port_that_was_not_opened() -> None:
    one, _ = memory_pair()
    with pytest.raises(PortClosed, match="memory:pair: the port is not open"):
        one.drain()
    assert isinstance(one, MemoryPort)
