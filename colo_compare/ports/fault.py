"""A port whose network misbehaves on purpose: loss, duplicates, delay and more, in front of any other port.

See `ports.faults` for what it can do and how it is written in a URL.
"""

import math
from itertools import islice
from random import Random
from typing import Final

import trio

from colo_compare.errors import PortClosed
from colo_compare.ports.faults import FaultLine, Faults
from colo_compare.ports.port import FramePort
from colo_compare.wire.frame import Frame, parse_frame

CAPACITY: Final = 16384  # frames on their way in one direction: 20 ms of 800,000 frames a second


class FaultPort(FramePort):
    """A port around a port. Times are trio's, so a test's clock works here too; real ones are kept to 1 ms.

    What is still on its way when a checkpoint asks for everything that the guest has sent (`drain`) comes out
    at once: those frames were sent before. None as the faults of a direction leaves it alone.
    """

    def __init__(self, inner: FramePort, receive: Faults | None, send: Faults | None) -> None:
        self.url = inner.url
        self.header_len = inner.header_len
        self.counters = inner.counters
        self.pushes_back = inner.pushes_back
        self._inner = inner
        self.receive_line: Final = None if receive is None else FaultLine(receive, "receive", self._damage)
        self.send_line: Final = None if send is None else FaultLine(send, "send", _damage_frame)
        self._ready: list[Frame] = []  # out of the send line, not yet taken by the port
        self._gone = ""  # why the task that sends gave up
        self._sender = trio.CancelScope()  # of that task
        self._wakes_at = -math.inf  # when it wakes up by itself, while it sleeps
        self._wake = trio.Event()
        self._room = trio.lowlevel.ParkingLot()  # where wait_writable waits

    @property
    def connected(self) -> bool:  # type: ignore[override]  # looks through: it has no state of its own
        """Whether frames can flow now."""
        return self._inner.connected

    async def wait_connected(self) -> None:
        """Wait until there is another end. Raises PortClosed."""
        await self._inner.wait_connected()

    async def open(self) -> None:
        """Open the port behind it. Raises PortUnavailable."""
        await self._inner.open()
        self.header_len = self._inner.header_len
        if self.send_line is not None:
            trio.lowlevel.spawn_system_task(self._run_sender, self.send_line, name=f"faults of {self.url}")

    async def aclose(self) -> None:
        """Close it; what is still on its way is lost."""
        self._gone = self._gone or f"{self.url}: the port was closed"
        self._sender.cancel()
        self._room.unpark_all()
        if self.receive_line is not None:
            self.receive_line.leave(math.inf)
        await self._inner.aclose()

    # Receiving

    async def receive_batch(self) -> list[bytes]:
        """Wait until frames have come through the line, then give those."""
        line = self.receive_line
        if line is None:
            return await self._inner.receive_batch()
        await trio.lowlevel.checkpoint()
        while True:
            frames = self._leave(line, trio.current_time())
            if frames:
                return frames
            with trio.move_on_at(line.next_due()):
                if len(line) >= CAPACITY:  # nothing more is read, so that whoever sends must wait
                    await trio.sleep_forever()
                try:
                    self._enter(line, await self._inner.receive_batch())
                except PortClosed:
                    if not line:
                        raise
                    return line.leave(math.inf)

    def drain(self) -> list[bytes]:
        """Give all frames that were sent before now, those that are still delayed as well."""
        line = self.receive_line
        return self._inner.drain() if line is None else self._leave(line, math.inf)

    def _leave(self, line: FaultLine[bytes], until: float) -> list[bytes]:
        """Let in what is there, and give what is out by `until`."""
        if len(line) < CAPACITY:
            try:
                self._enter(line, self._inner.drain())
            except PortClosed:
                if not line:
                    raise
                until = math.inf  # nothing more will come; the next call raises
        return line.leave(until)

    def _enter(self, line: FaultLine[bytes], frames: list[bytes]) -> None:
        now = trio.current_time()
        for frame in frames:
            line.enter(frame, len(frame) - self.header_len, now)

    def _damage(self, data: bytes, random: Random) -> bytes:
        return _turn_bit(data, self.header_len, random)

    # Sending

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Send frames[start:]; give the index of the first one not taken."""
        line = self.send_line
        if line is None:
            return self._inner.send_batch(frames, start)
        self._raise_if_gone()
        now = trio.current_time()
        stop = min(len(frames), start + max(0, CAPACITY - len(line) - len(self._ready)))
        for frame in islice(frames, start, stop):
            line.enter(frame, len(frame.data) - frame.header_len, now)
        self._pump(line, now)
        if self._ready or line.next_due() < self._wakes_at:
            self._wake.set()
        return stop

    def _pump(self, line: FaultLine[Frame], now: float) -> None:
        """Hand what is out of the line to the port, as far as it takes it."""
        self._ready += line.leave(now)
        if self._ready:
            taken = self._inner.send_batch(self._ready)
            del self._ready[:taken]
            self._room.unpark_all()

    async def _run_sender(self, line: FaultLine[Frame]) -> None:
        """Send what becomes due, until the port is closed."""
        with self._sender:
            try:
                while True:
                    if self._ready:
                        await self._inner.wait_writable()
                    else:
                        self._wake = trio.Event()
                        self._wakes_at = line.next_due()
                        with trio.move_on_at(self._wakes_at):
                            await self._wake.wait()
                        self._wakes_at = -math.inf
                    self._pump(line, trio.current_time())
            except PortClosed as error:
                self._gone = str(error)
                self._room.unpark_all()

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""
        line = self.send_line
        if line is None:
            await self._inner.wait_writable()
            return
        await trio.lowlevel.checkpoint()
        while True:
            self._raise_if_gone()
            if len(line) + len(self._ready) < CAPACITY:
                return
            await self._room.park()

    def _raise_if_gone(self) -> None:
        if self._gone:
            raise PortClosed(self._gone)


def _turn_bit(data: bytes, header_len: int, random: Random) -> bytes:
    if len(data) <= header_len:
        return data
    bit = random.randrange(header_len * 8, len(data) * 8)
    damaged = bytearray(data)
    damaged[bit >> 3] ^= 1 << (bit & 7)
    return bytes(damaged)


def _damage_frame(frame: Frame, random: Random) -> Frame:
    return parse_frame(_turn_bit(frame.data, frame.header_len, random), frame.header_len, False)
