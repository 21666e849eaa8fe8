"""What every frame port offers to the loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import trio

from colo_compare.wire.frame import Frame


@dataclass
class PortCounters:
    """What a port counts; all of them only grow."""

    received_frames: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    dropped_receive: int = 0  # lost before the proxy saw them: the kernel's counter, or an oversized one
    dropped_send: int = 0  # refused for ever by the other end (too long for the MTU, link down)
    resets: int = 0  # links that broke and were made anew


class FramePort(ABC):
    """One place where frames come from and go to.

    A port is made from its URL (`ports.open_port`), opened with ``async with``, read by one task, and written
    by any task between two awaits. Frames that it gives are ``bytes``: `header_len` bytes of virtio-net
    header, then the Ethernet frame. Frames that it takes may come with or without a header; the port
    converts: it adds an empty header, or completes checksums and segments what is too large.

    Everything but `open`, `receive_batch`, `wait_writable` and `aclose` returns at once. A port that breaks
    raises PortClosed from whichever call notices first, and from every call after it. A reconnecting stream
    port never raises PortClosed for a lost peer: it drops what has nowhere to go (counted) and goes on.
    """

    url: str  # as in the configuration
    header_len: int  # 0 or 12: of what receive_batch gives
    counters: PortCounters
    pushes_back: bool  # whether not reading makes the sender wait (stream) or lose frames (packet, tap)
    connected: bool  # whether frames can flow now (a stream port may wait for its peer)

    @abstractmethod
    async def open(self) -> None:
        """Open it. Raises PortUnavailable, saying what is missing and how to get it."""

    async def wait_connected(self) -> None:
        """Wait until there is another end, where there may be none yet. Raises PortClosed."""
        await trio.lowlevel.checkpoint()

    @abstractmethod
    async def receive_batch(self) -> list[bytes]:
        """Wait until there are frames, then give those that are there now: one to a thousand or so."""

    @property
    def descriptor(self) -> int:
        """The file descriptor that is readable when `receive_now` has something to give.

        -1 where there is none: the port is not open, waits for its peer, or is of another kind. Frames of
        such a port come by `receive_batch` only.
        """
        return -1

    def receive_now(self) -> list[bytes]:
        """Give the frames that are there now, about as many as receive_batch, without waiting. Maybe none."""
        return []

    @abstractmethod
    def drain(self) -> list[bytes]:
        """Give all frames that are there now, up to EAGAIN, without waiting. Maybe none."""

    @abstractmethod
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Send frames[start:] in order; give the index of the first one *not* taken.

        Less than len(frames) means that the port is full: wait_writable, and go on from there. A frame that
        can never be sent is dropped, counted, and counts as taken.
        """

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close it. Calls that wait raise PortClosed. Safe to call twice."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
