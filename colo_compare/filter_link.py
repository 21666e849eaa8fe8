"""The client's link between QEMU's filters: it leads through the primary's QEMU, and breaks when that dies.

What its socket holds then, and what it had not taken, never reaches the client. But it counts as said, so the
guest that takes over repeats it only after a time-out of 200 ms and more. Hence what went there last is kept.
"""

from collections import deque
from typing import Final

from colo_compare.core.sides import CLIENT
from colo_compare.link import Link
from colo_compare.ports.port import FramePort
from colo_compare.wire.frame import TCP, Frame

UNREAD: Final = 256 << 10  # bytes that a socket may hold: net.core.wmem_default is 208 KiB
_FRAMES: Final = 512  # kept in any case; more of them do not fit into the socket
_LOST: Final = 1 << 13  # frames kept while there is no peer


class FilterLink(Link):
    """Remembers what its peer may not have read."""

    def __init__(self, port: FramePort) -> None:
        super().__init__(CLIENT, port)
        self._batches: deque[list[Frame]] = deque()  # that the port took, oldest first
        self._frames = 0  # in them
        self._lost = 0  # of these, taken since there is no peer
        self.waiting_bytes = 0  # of the backlog
        self.blocked = False  # the port has taken nothing for a while

    def send(self, frames: list[Frame]) -> None:
        """Send frames behind those that wait already. Raises PortError."""
        waiting = len(self.backlog)
        super().send(frames)
        left = len(self.backlog) - waiting
        if left:
            taken = len(frames) - left
            self.waiting_bytes += _size(frames[taken:])
            frames = frames[:taken]
        self._note(frames)

    def flush(self) -> list[Frame]:
        """Send what the port takes of the backlog, and give it. Raises PortError."""
        taken = super().flush()
        if taken:
            self.waiting_bytes -= _size(taken)
            self.blocked = False
        self._note(taken)
        return taken

    def _note(self, taken: list[Frame]) -> None:
        if not taken:
            return
        batches = self._batches
        batches.append(taken)
        self._frames += len(taken)
        self._lost = 0 if self.port.connected else self._lost + len(taken)
        kept = _FRAMES if self.port.connected else _LOST
        while self._frames - len(batches[0]) >= kept:
            self._frames -= len(batches.popleft())

    def take_unread(self) -> list[Frame]:
        """Give the TCP frames that the client may not have got, in order, and forget them and the backlog.

        It has got some of them. That is harmless with TCP alone.
        """
        taken = [frame for batch in self._batches for frame in batch]
        first = len(taken) - min(self._lost, len(taken))
        size = 0
        while first > 0 and size < UNREAD:
            first -= 1
            size += len(taken[first].data)
        unread = taken[first:] + self.backlog
        self._batches.clear()
        self._frames = self._lost = 0
        self.waiting_bytes = 0
        self.backlog = []  # not dropped: it goes another way
        self.void_backlog()
        return [frame for frame in unread if frame.kind == TCP]


def _size(frames: list[Frame]) -> int:
    size = 0
    for frame in frames:
        size += len(frame.data)
    return size
