"""`pcap:FILE`: a capture file as a port, to read from or (``mode=write``) to write to."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final

import trio

from colo_compare.errors import CaptureError, PortClosed, PortUnavailable
from colo_compare.ports.capture_sink import CaptureSink
from colo_compare.ports.pcap import Capture, read_capture
from colo_compare.ports.port import FramePort, PortCounters
from colo_compare.wire.frame import Frame
from colo_compare.wire.offload import materialise

_BATCH: Final = 256


class _FilePort(FramePort):
    """What both directions have in common: a port that never breaks, with nobody at its other end."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.header_len = 0
        self.counters = PortCounters()
        self.pushes_back = True
        self.connected = False
        self.path: Final = path
        self._gone = "the port is not open"
        self._closed = trio.Event()

    def _raise_if_gone(self) -> None:
        if self._gone:
            raise PortClosed(f"{self.url}: {self._gone}")

    async def _wait_for_close(self) -> PortClosed:
        await self._closed.wait()
        return PortClosed(f"{self.url}: {self._gone}")

    def _mark_open(self) -> None:
        self._gone = ""
        self.connected = True

    def _mark_closed(self) -> None:
        self._gone = self._gone or "the port was closed"
        self.connected = False
        self._closed.set()


class PcapReadPort(_FilePort):
    """Gives the frames of a capture, as fast as they are read; what is sent to it is dropped and counted.

    After the last frame it is silent, like a guest that has nothing more to say. A file that turns out to be
    broken makes it break.
    """

    _capture: Capture  # from `open` on
    _reading = False  # in a thread, just now

    async def open(self) -> None:
        """Open the file. Raises PortUnavailable."""
        try:
            self._capture = await trio.to_thread.run_sync(read_capture, self.path)
        except CaptureError as error:
            raise PortUnavailable(f"{self.url}: {error}") from None
        self._mark_open()

    async def receive_batch(self) -> list[bytes]:
        """Read some frames; wait for ever behind the last one."""
        self._raise_if_gone()
        self._reading = True
        try:
            frames = await trio.to_thread.run_sync(self._read)
        except CaptureError as error:
            self._gone = str(error)
            self.connected = False
            raise PortClosed(f"{self.url}: {error}") from None
        finally:
            self._reading = False
            if self._closed.is_set():
                self._capture.close()
        self._raise_if_gone()
        if not frames:
            raise await self._wait_for_close()
        self.counters.received_frames += len(frames)
        self.counters.received_bytes += sum(map(len, frames))
        return frames

    def _read(self) -> list[bytes]:
        return [frame.data for frame in islice(self._capture, _BATCH)]

    def drain(self) -> list[bytes]:
        """Give nothing: the frames that were not asked for have not come yet."""
        self._raise_if_gone()
        return []

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Drop frames[start:]."""
        self._raise_if_gone()
        self.counters.dropped_send += len(frames) - start
        return len(frames)

    async def wait_writable(self) -> None:
        """Return at once: any frame can be dropped."""
        self._raise_if_gone()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the file; if it is being read, that is done once the reader has come back."""
        if self.connected and not self._reading:
            self._capture.close()
        self._mark_closed()
        await trio.lowlevel.checkpoint()


class PcapWritePort(_FilePort):
    """Writes what is sent to it, with checksums completed and large frames segmented; gives no frames.

    Pushes back when the disk is far behind.
    """

    def __init__(self, url: str, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        super().__init__(url, path)
        self._clock = clock
        self._sink = CaptureSink(url, path, ["sent"])

    async def open(self) -> None:
        """Create the file. Raises PortUnavailable."""
        await self._sink.open()
        self._mark_open()

    async def receive_batch(self) -> list[bytes]:
        """Wait for ever."""
        self._raise_if_gone()
        raise await self._wait_for_close()

    def drain(self) -> list[bytes]:
        """Give nothing."""
        self._raise_if_gone()
        return []

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Write frames[start:]; give the index of the first one not taken."""
        self._raise_if_gone()
        sink = self._sink
        now = self._clock()
        while start < len(frames) and not sink.full:
            for data in materialise(frames[start]):
                sink.put("sent", now, data)
                self.counters.sent_frames += 1
                self.counters.sent_bytes += len(data)
            start += 1
        if sink.failure:
            self._gone = sink.failure
            self.connected = False
            self._raise_if_gone()
        return start

    async def wait_writable(self) -> None:
        """Wait until the disk has caught up."""
        self._raise_if_gone()
        await self._sink.wait_room()
        self._raise_if_gone()

    async def aclose(self) -> None:
        """Write what is left, and close the file."""
        self._mark_closed()
        await self._sink.aclose()
