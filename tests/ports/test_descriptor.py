import os

import pytest
import trio
import trio.testing

from colo_compare.errors import PortClosed
from colo_compare.ports.descriptor import DescriptorPort


class PipePort(DescriptorPort):
    """Reads a pipe; a read of a closed descriptor would be seen."""

    def __init__(self, fd: int) -> None:
        super().__init__("pipe:", pushes_back=True)
        self._attach(fd)

    async def open(self) -> None:
        """It is open."""

    def _read(self, limit: int) -> list[bytes]:
        return [os.read(self._fd, 100)]

    def _write(self, messages: list[bytes]) -> int:
        raise NotImplementedError


async def test_a_reader_that_wakes_up_in_the_tick_of_the_closing_does_not_touch_the_descriptor() -> None:
    """Which of two tasks of one tick runs first is random: it used to read descriptor -1 every other time."""
    ends: list[object] = []
    for _ in range(40):
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        port = PipePort(readable)
        twin = os.dup(readable)

        async def read(port: PipePort) -> None:
            try:
                ends.append(await port.receive_batch())
            except PortClosed as error:
                ends.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, port)
            await trio.testing.wait_all_tasks_blocked()
            os.write(writable, b"x")
            await trio.lowlevel.wait_readable(twin)
            await port.aclose()
        os.close(twin)
        os.close(writable)
    assert set(map(str, ends)) == {"[b'x']", "pipe:: the port was closed"}, "both orders were seen"


async def test_a_closed_port_says_so_from_every_call() -> None:
    readable, writable = os.pipe()
    os.close(writable)
    port = PipePort(readable)
    await port.aclose()
    await port.aclose()
    with pytest.raises(PortClosed, match="the port was closed"):
        await port.receive_batch()
    with pytest.raises(PortClosed, match="the port was closed"):
        port.drain()
    with pytest.raises(PortClosed, match="the port was closed"):
        port.send_batch([])
    with pytest.raises(PortClosed, match="the port was closed"):
        await port.wait_writable()
