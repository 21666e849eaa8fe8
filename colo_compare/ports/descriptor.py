"""What all ports on one non-blocking file descriptor have in common: waiting, batching, breaking, closing."""

import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

import trio

from colo_compare.errors import PortClosed
from colo_compare.ports.port import FramePort, PortCounters
from colo_compare.wire.frame import Frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.vnet import with_headers

RECEIVE_LIMIT: Final = 256  # frames in one batch: enough to make waking up cheap, few enough to stay fair
SEND_RUN: Final = 64  # frames that are converted at a time, so that a full port does not convert all of them


class DescriptorPort(FramePort):
    """A port on one file descriptor on which each read and each write is one frame.

    A subclass opens the descriptor, sets `header_len`, and reads and writes messages.
    """

    def __init__(self, url: str, pushes_back: bool) -> None:
        self.url = url
        self.header_len = 0
        self.counters = PortCounters()
        self.pushes_back = pushes_back
        self.connected = False
        self._fd = -1
        self._gone = "the port is not open"  # why no call can succeed; empty while they can
        self._partial: Frame | None = None  # the frame that was segmented and not wholly sent
        self._segments: list[bytes] = []  # what is left of it

    @abstractmethod
    def _read(self, limit: int) -> list[bytes]:
        """Read the messages that are there, about `limit` at most, none if there are none.

        Raises PortClosed (from `_break`) only if nothing was read.
        """

    @abstractmethod
    def _write(self, messages: list[bytes]) -> int:
        """Write messages in order, and count them; gives how many were taken, the refused ones included."""

    def _attach(self, fd: int) -> None:
        """Begin to work on this descriptor, which the port owns from now on."""
        self._fd = fd
        self._gone = ""
        self.connected = True

    def _break(self, why: str) -> PortClosed:
        """Note that the port is gone, wake up whoever waits on it, and give the exception to raise."""
        if not self._gone:
            self._gone = why
            self.connected = False
            self._wake_waiters()
        return PortClosed(f"{self.url}: {self._gone}")

    def _wake_waiters(self) -> None:
        """Make everyone who waits for the descriptor look again."""
        trio.lowlevel.notify_closing(self._fd)

    def _raise_if_gone(self) -> None:
        if self._gone:
            raise PortClosed(f"{self.url}: {self._gone}")

    async def _wait(self, ready: Callable[[int], Awaitable[None]]) -> None:
        self._raise_if_gone()
        try:
            await ready(self._fd)
        except trio.ClosedResourceError:
            self._raise_if_gone()
            raise
        # Closed, or broken, in the very tick in which it became ready: nobody may touch the descriptor now.
        self._raise_if_gone()

    async def receive_batch(self) -> list[bytes]:
        """Wait until there are frames, then give those that are there now."""
        # Waiting first costs one pass of the scheduler for each batch, whether there are frames already or
        # not. Reading first would need a checkpoint in front of it, and a second pass whenever it gave none.
        while True:
            await self._wait(trio.lowlevel.wait_readable)
            frames = self._read(RECEIVE_LIMIT)
            if frames:
                return frames

    @property
    def descriptor(self) -> int:
        """The file descriptor, -1 while there is none to read from."""
        return -1 if self._gone else self._fd

    def receive_now(self) -> list[bytes]:
        """Give the frames that are there now, about a batch at most."""
        self._raise_if_gone()
        return self._read(RECEIVE_LIMIT)

    def drain(self) -> list[bytes]:
        """Give all frames that are there now."""
        self._raise_if_gone()
        frames = self._read(RECEIVE_LIMIT)
        more = frames
        while more:
            try:
                more = self._read(RECEIVE_LIMIT)
            except PortClosed:  # the next call raises it; what was read before is not lost
                return frames
            frames += more
        return frames

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Send frames[start:]; give the index of the first one not taken."""
        self._raise_if_gone()
        if not self.header_len:
            return self._send_bare(frames, start)
        total = len(frames)
        while start < total:
            messages = with_headers(frames, start, min(start + SEND_RUN, total))
            taken = self._write(messages)
            start += taken
            if taken < len(messages):
                break
        return start

    def _send_bare(self, frames: list[Frame], start: int) -> int:
        """Send frames on a port that knows no virtio-net header.

        A frame of which only some segments were taken is not taken: offered again, it goes on from there.
        """
        total = len(frames)
        while start < total:
            run: list[bytes] = []
            for frame in islice(frames, start, start + SEND_RUN):
                if frame.header_len:
                    break
                run.append(frame.data)
            if run:
                taken = self._write(run)
                start += taken
                if taken < len(run):
                    break
                continue
            frame = frames[start]
            segments = self._segments if frame is self._partial else materialise(frame)
            taken = self._write(segments)
            if taken < len(segments):
                self._partial = frame
                self._segments = segments[taken:]
                break
            self._partial = None
            start += 1
        return start

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""
        await self._wait(trio.lowlevel.wait_writable)

    async def aclose(self) -> None:
        """Close it. Calls that wait raise PortClosed."""
        fd = self._fd
        if fd >= 0:
            self._gone = self._gone or "the port was closed"
            self.connected = False
            self._wake_waiters()
            self._fd = -1
            # The kernel waits for its readers before it lets go of a packet socket or a tap: 5 to 27 ms, in
            # which a failover may be under way. So the loop does not wait for it.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._close, fd)
        await trio.lowlevel.checkpoint()

    def _close(self, fd: int) -> None:
        """Close the descriptor. Called in a thread."""
        os.close(fd)
