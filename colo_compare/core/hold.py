"""Primary frames that wait for the secondary to say the same."""

from collections import deque

from colo_compare.wire.frame import Frame


class Flow:
    """What every kind of flow has. Each keeps the frames that wait in it in its own way."""

    key: bytes
    blocked: bool  # diverged: releases nothing more before a commit
    last_seen: float

    def __init__(self, key: bytes, now: float) -> None:
        self.key = key
        self.blocked = False
        self.last_seen = now


class Held:
    """A primary frame (or the fragments of one datagram) that waits."""

    flow: Flow
    frame: Frame
    more: "list[Frame] | None"  # the other fragments of the same datagram, in arrival order
    at: float  # arrival
    number: int  # counts arrivals
    end: int  # TCP: the stream position behind it
    ack: int  # TCP: the client position that it acknowledges
    missing: int  # datagrams in it that the secondary has not sent yet
    done: bool  # released or discarded
    passed: bool  # observe mode: it has gone out already, only the comparison waits
    late: bool  # has asked for a checkpoint because of its age

    def __init__(self, flow: Flow, frame: Frame, more: "list[Frame] | None", at: float) -> None:
        self.flow = flow
        self.frame = frame
        self.more = more
        self.at = at
        self.number = 0
        self.end = 0
        self.ack = 0
        self.missing = 0
        self.done = False
        self.passed = False
        self.late = False

    def count(self) -> int:
        """Give the number of frames."""
        return 1 if self.more is None else 1 + len(self.more)

    def size(self) -> int:
        """Give the number of bytes."""
        size = len(self.frame.data)
        if self.more is not None:
            for frame in self.more:
                size += len(frame.data)
        return size


class HoldQueue:
    """All held frames of all flows in arrival order, with their totals.

    Removal marks an entry and drops it when it reaches the front, or when more than half are dead. A linked
    list would remove in place, but its pointers cost more per frame than this does.
    """

    def __init__(self) -> None:
        self._order: deque[Held] = deque()
        self._dead = 0
        self._arrivals = 0
        self.frames = 0
        self.bytes = 0

    def add(self, held: Held) -> None:
        """Append the newest arrival."""
        self._arrivals += 1
        held.number = self._arrivals
        self._order.append(held)
        self.frames += held.count()
        self.bytes += held.size()

    def remove(self, held: Held) -> None:
        """Take one out, wherever it stands. It must be in the queue."""
        held.done = True
        self.frames -= held.count()
        self.bytes -= held.size()
        order = self._order
        if order[0] is held:
            order.popleft()
            while order and order[0].done:
                order.popleft()
                self._dead -= 1
        else:
            self._dead += 1
            if self._dead > 64 and self._dead * 2 > len(order):
                self._order = deque([entry for entry in order if not entry.done])
                self._dead = 0

    def shrink(self, held: Held, frame: Frame) -> None:
        """Note that the first part of a held frame is gone, and `frame` is the rest."""
        self.bytes -= len(held.frame.data) - len(frame.data)
        held.frame = frame

    def oldest(self) -> "Held | None":
        """Give the entry that has waited longest."""
        return self._order[0] if self._order else None

    def entries(self) -> list[Held]:
        """Give all that wait, in arrival order."""
        return [entry for entry in self._order if not entry.done]

    def clear(self) -> None:
        """Forget everything, when each entry has been dealt with."""
        for entry in self._order:
            entry.done = True
        self._order = deque()
        self._dead = 0
        self.frames = 0
        self.bytes = 0
