from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import PortClosed
from colo_compare.link import LOST, Link
from colo_compare.ports.memory import MemoryPort, memory_pair
from colo_compare.wire.frame import Frame

CAPACITY = 2


def frame(number: int) -> Frame:
    return Frame(bytes([number]) * 60, 0)


def numbers(batch: list[bytes]) -> list[int]:
    return [data[0] for data in batch]


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Link, MemoryPort]]:
    """A link over a port that holds CAPACITY frames, and the other end of that port."""
    ours, theirs = memory_pair(CAPACITY)
    async with ours, theirs:
        yield Link(SECONDARY, ours), theirs


async def test_sends_at_once_while_the_port_has_room(ends: tuple[Link, MemoryPort]) -> None:
    link, guest = ends
    link.send([frame(1), frame(2)])
    assert link.backlog == []
    assert not link.backlogged.is_set()
    assert numbers(guest.drain()) == [1, 2]


async def test_keeps_what_the_port_does_not_take_in_order(
    ends: tuple[Link, MemoryPort], autojump_clock: MockClock
) -> None:
    link, guest = ends
    link.send([frame(n) for n in (1, 2, 3)])
    assert link.backlogged.is_set()
    stuck_since = link.stuck_since
    assert stuck_since == trio.current_time()

    assert numbers(guest.drain()) == [1, 2]
    link.send([frame(4), frame(5)])  # the port has room, but 3 comes first
    assert guest.drain() == []
    await trio.sleep(1)
    link.flush()
    assert numbers(guest.drain()) == [3, 4]
    assert link.stuck_since == stuck_since + 1
    assert link.backlogged.is_set()
    link.flush()
    assert numbers(guest.drain()) == [5]
    assert not link.backlogged.is_set()


async def test_a_flush_that_moves_nothing_does_not_count_as_progress(
    ends: tuple[Link, MemoryPort], autojump_clock: MockClock
) -> None:
    link, _ = ends
    link.send([frame(n) for n in (1, 2, 3)])
    stuck_since = link.stuck_since
    await trio.sleep(1)
    link.flush()
    assert link.stuck_since == stuck_since
    assert len(link.backlog) == 1


async def test_a_port_that_is_gone_raises(ends: tuple[Link, MemoryPort]) -> None:
    link, guest = ends
    await guest.aclose()
    with pytest.raises(PortClosed):
        link.send([frame(1)])


async def test_a_fenced_link_takes_nothing_and_counts_it(ends: tuple[Link, MemoryPort]) -> None:
    link, guest = ends
    link.send([frame(n) for n in (1, 2, 3)])
    link.fence("power failure")
    assert link.role == LOST
    assert link.role_name == "lost"
    assert link.failure == "power failure"
    link.send([frame(4), frame(5)])
    assert link.dropped == 3  # the backlog, and what came later
    assert link.backlog == []
    assert numbers(guest.drain()) == [1, 2]
    await link.backlogged.wait()  # its tasks wake up, to see that they have nothing left to do


async def test_the_name_stays_when_the_role_changes(ends: tuple[Link, MemoryPort]) -> None:
    link, _ = ends
    link.role = PRIMARY
    assert (link.name, link.role_name) == ("secondary", "primary")


@pytest.mark.parametrize("how", ["open", "fence"])
async def test_the_gate_opens_for_the_one_who_waits(ends: tuple[Link, MemoryPort], how: str) -> None:
    link, _ = ends
    link.open_gate()  # nobody stands there: nothing happens, and the next one waits all the same
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.wait_at_gate)
        await wait_all_tasks_blocked()
        assert link.waits_at_gate
        if how == "open":
            link.open_gate()
        else:
            link.fence("gone")
        assert not link.waits_at_gate


async def test_the_time_at_the_gate_is_counted(ends: tuple[Link, MemoryPort], mock_clock: MockClock) -> None:
    link, _ = ends
    assert link.seconds_at_gate() == 0
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(link.wait_at_gate)
            await wait_all_tasks_blocked()
            mock_clock.jump(1.5)
            assert link.seconds_at_gate() % 1.5 == 0
            link.open_gate()
            mock_clock.jump(10)
    assert link.seconds_at_gate() == 3.0
