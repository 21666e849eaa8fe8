"""A port that shows what it does: everything that passes goes into a capture file as well."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from colo_compare.ports.capture_sink import CaptureSink
from colo_compare.ports.port import FramePort
from colo_compare.wire.frame import Frame

RECEIVED: Final = "received"  # the names of the capture's two interfaces
SENT: Final = "sent"


class TracerPort(FramePort):
    """A port around a port, with a capture file beside it.

    Frames stand in the file as they pass, only without their virtio-net headers: large ones large, partial
    checksums partial. A disk that is too slow, full or gone never holds frames up: what it does not take is
    left out of the file, and counted in `untraced`.
    """

    def __init__(self, inner: FramePort, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self.url = inner.url
        self.header_len = inner.header_len
        self.counters = inner.counters
        self.pushes_back = inner.pushes_back
        self.untraced = 0  # frames that are missing in the file
        self._inner = inner
        self._clock = clock
        self._sink = CaptureSink(inner.url, path, [RECEIVED, SENT])

    @property
    def connected(self) -> bool:  # type: ignore[override]  # looks through: it has no state of its own
        """Whether frames can flow now."""
        return self._inner.connected

    async def wait_connected(self) -> None:
        """Wait until there is another end. Raises PortClosed."""
        await self._inner.wait_connected()

    async def open(self) -> None:
        """Open the file, then the port. Raises PortUnavailable."""
        await self._sink.open()
        try:
            await self._inner.open()
        except BaseException:
            await self._sink.aclose()
            raise
        self.header_len = self._inner.header_len

    async def receive_batch(self) -> list[bytes]:
        """Wait until there are frames, then give those that are there now."""
        return self._trace_received(await self._inner.receive_batch())

    @property
    def descriptor(self) -> int:
        """The inner port's."""
        return self._inner.descriptor

    def receive_now(self) -> list[bytes]:
        """Give the frames that are there now, about a batch at most."""
        return self._trace_received(self._inner.receive_now())

    def drain(self) -> list[bytes]:
        """Give all frames that are there now."""
        return self._trace_received(self._inner.drain())

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Send frames[start:]; give the index of the first one not taken."""
        taken = self._inner.send_batch(frames, start)
        now = self._clock()
        for index in range(start, taken):
            frame = frames[index]
            self._put(SENT, now, frame.data, frame.header_len)
        return taken

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""
        await self._inner.wait_writable()

    async def aclose(self) -> None:
        """Close the port, then the file."""
        try:
            await self._inner.aclose()
        finally:
            await self._sink.aclose()

    def _trace_received(self, frames: list[bytes]) -> list[bytes]:
        now = self._clock()
        for data in frames:
            self._put(RECEIVED, now, data, self.header_len)
        return frames

    def _put(self, interface: str, now: int, data: bytes, header_len: int) -> None:
        if self._sink.full or self._sink.failure:
            self.untraced += 1
        else:
            self._sink.put(interface, now, data[header_len:])
