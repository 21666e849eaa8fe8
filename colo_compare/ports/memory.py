"""`memory:NAME`: two ports joined in this process, for tests and for trying things out.

No descriptor, no clock, no randomness: under trio's test clock whatever runs over them is deterministic.
"""

from collections import deque
from typing import Final, NoReturn

import trio

from colo_compare.errors import PortClosed
from colo_compare.ports.counting import count_received, count_sent
from colo_compare.ports.port import FramePort, PortCounters
from colo_compare.wire.frame import Frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.vnet import EMPTY_VNET_HEADER

CAPACITY: Final = 256  # frames on their way in one direction
_BATCH: Final = 256


class _Lane:
    """Frames on their way in one direction."""

    def __init__(self, capacity: int) -> None:
        self.capacity: Final = capacity
        self.frames: deque[bytes] = deque()
        self.sender_closed = False
        self.receiver_closed = False
        self.changed = trio.lowlevel.ParkingLot()  # whoever waits for frames, for room, or for the end

    def wake(self) -> None:
        self.changed.unpark_all()


class MemoryPort(FramePort):
    """One end of a pair. When one end is closed, the other one is gone once it has read what is left."""

    def __init__(self, url: str, header_len: int, inbox: _Lane, outbox: _Lane) -> None:
        self.url = url
        self.header_len = header_len
        self.counters = PortCounters()
        self.pushes_back = True
        self.connected = False
        self._gone = "the port is not open"
        self._inbox = inbox
        self._outbox = outbox

    async def open(self) -> None:
        """Open it."""
        self._gone = ""
        self.connected = True
        await trio.lowlevel.checkpoint()

    async def receive_batch(self) -> list[bytes]:
        """Wait until there are frames, then give those that are there now."""
        await trio.lowlevel.checkpoint()
        while True:
            frames = self._take(_BATCH)
            if frames:
                return frames
            await self._inbox.changed.park()

    def drain(self) -> list[bytes]:
        """Give all frames that are there now."""
        return self._take(len(self._inbox.frames))

    def _take(self, limit: int) -> list[bytes]:
        inbox = self._inbox
        self._raise_if_closed()
        if not inbox.frames and inbox.sender_closed:
            self._raise_other_end_closed()
        frames = [inbox.frames.popleft() for _ in range(min(limit, len(inbox.frames)))]
        if frames:
            count_received(self.counters, frames, self.header_len)
            inbox.wake()
        return frames

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Send frames[start:]; give the index of the first one not taken."""
        self._raise_if_closed()
        outbox = self._outbox
        if outbox.receiver_closed:
            self._raise_other_end_closed()
        while start < len(frames) and len(outbox.frames) < outbox.capacity:
            messages = _convert(frames[start], self.header_len)
            outbox.frames += messages  # the segments of one frame may go beyond the capacity
            count_sent(self.counters, messages, 0, len(messages), self.header_len)
            start += 1
            outbox.wake()
        return start

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""
        await trio.lowlevel.checkpoint()
        outbox = self._outbox
        while True:
            self._raise_if_closed()
            if outbox.receiver_closed:
                self._raise_other_end_closed()
            if len(outbox.frames) < outbox.capacity:
                return
            await outbox.changed.park()

    async def aclose(self) -> None:
        """Close it. Calls that wait, at either end, raise PortClosed."""
        self._gone = self._gone or "the port was closed"
        self.connected = False
        self._inbox.receiver_closed = True
        self._outbox.sender_closed = True
        self._inbox.wake()
        self._outbox.wake()
        await trio.lowlevel.checkpoint()

    def _raise_if_closed(self) -> None:
        if self._gone:
            raise PortClosed(f"{self.url}: {self._gone}")

    def _raise_other_end_closed(self) -> NoReturn:
        self._gone = "the other end was closed"
        self.connected = False
        raise PortClosed(f"{self.url}: {self._gone}")


def _convert(frame: Frame, header_len: int) -> list[bytes]:
    if frame.header_len == header_len:
        return [frame.data]
    return [EMPTY_VNET_HEADER + frame.data] if header_len else materialise(frame)


def memory_pair(
    capacity: int = CAPACITY, header_len: int = 0, name: str = "pair"
) -> tuple[MemoryPort, MemoryPort]:
    """Give two ports, not opened yet: what one sends, the other receives.

    `capacity`: frames that may be on their way in each direction. `header_len`: 0 or 12, of both.
    """
    there, back = _Lane(capacity), _Lane(capacity)
    url = f"memory:{name}"
    return MemoryPort(url, header_len, back, there), MemoryPort(url, header_len, there, back)


_waiting: Final[dict[str, tuple[_Lane, _Lane]]] = {}  # inbox and outbox of ends that nobody has opened yet


class NamedMemoryPort(MemoryPort):
    """An end of a pair with a name: the first that opens makes the pair, the second gets its other end."""

    def __init__(self, url: str, name: str) -> None:
        lane = _Lane(0)
        super().__init__(url, 0, lane, lane)
        self._name = name

    async def open(self) -> None:
        """Open it."""
        lanes = _waiting.pop(self._name, None)
        if lanes is None:
            lanes = (_Lane(CAPACITY), _Lane(CAPACITY))
            _waiting[self._name] = (lanes[1], lanes[0])
        self._inbox, self._outbox = lanes
        await super().open()

    async def aclose(self) -> None:
        """Close it; a pair whose other end was never opened is forgotten."""
        if _waiting.get(self._name) == (self._outbox, self._inbox):
            del _waiting[self._name]
        await super().aclose()
