"""Primary frames that wait for the secondary to say the same."""

from typing import Final

from mypy_extensions import i64, mypyc_attr

from colo_compare.wire.frame import Frame

_FEW: Final = 64  # entries: so many dead ones are not worth a sweep


@mypyc_attr(acyclic=True)
class Flow:
    """What every kind of flow has. Each keeps the frames that wait in it in its own way.

    Compiled, flows and held frames are not known to the garbage collector, which would look through a million
    of them for nothing: 16 bytes less for each, and half the time to make one. They refer to each other while
    a frame waits, so whoever forgets a flow lets go of what waits in it.
    """

    long_key: bytes  # of a flow that is not plain TCP in IPv4: see `wire.flow_key`
    last_seen: float
    blocked: bool  # diverged: releases nothing more before a commit; last, to share a word with others

    def __init__(self, key: bytes, now: float) -> None:
        self.long_key = key
        self.last_seen = now
        self.blocked = False

    @property
    def key(self) -> bytes:
        """The key: see `wire.frame.parse_frame`."""
        return self.long_key


@mypyc_attr(acyclic=True)
class Held:
    """A primary frame (or the fragments of one datagram) that waits."""

    flow: Flow
    frame: Frame
    more: "list[Frame] | None"  # the other fragments of the same datagram, in arrival order
    at: float  # arrival
    number: i64  # counts arrivals
    end: i64  # TCP: the stream position behind it
    ack: i64  # TCP: the client position that it acknowledges
    missing: i64  # datagrams in it that the secondary has not sent yet
    done: bool  # released or discarded
    passed: bool  # observe mode: it has gone out already, only the comparison waits
    late: bool  # has asked for a checkpoint because of its age
    next: "Held | None"  # TCP: the frame that waits behind it in its flow

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
        self.next = None

    def count(self) -> i64:
        """Give the number of frames."""
        return 1 if self.more is None else 1 + len(self.more)

    def size(self) -> i64:
        """Give the number of bytes."""
        size: i64 = len(self.frame.data)
        if self.more is not None:
            for frame in self.more:
                size += len(frame.data)
        return size


class HoldQueue:
    """All held frames of all flows in arrival order, with their totals.

    Removal only marks an entry: the list is swept when more than half of it is dead, and emptied when all of
    it is, as it is after each batch that the secondary has repeated. (A deque, whose methods are called by
    name also when compiled, cost 60 ns more for each frame.)
    """

    frames: i64
    bytes: i64

    def __init__(self) -> None:
        self._order: list[Held] = []
        self._front: i64 = 0  # what lies before it is dead
        self._dead: i64 = 0
        self._arrivals: i64 = 0
        self.frames = 0
        self.bytes = 0

    def add(self, held: Held) -> None:
        """Append the newest arrival."""
        self._arrivals += 1
        held.number = self._arrivals
        self._order.append(held)
        if held.more is None:  # nearly all: two calls less
            self.frames += 1
            self.bytes += len(held.frame.data)
        else:
            self.frames += held.count()
            self.bytes += held.size()

    def remove(self, held: Held) -> None:
        """Take one out, wherever it stands. It must be in the queue."""
        held.done = True
        if held.more is None:
            self.frames -= 1
            self.bytes -= len(held.frame.data)
        else:
            self.frames -= held.count()
            self.bytes -= held.size()
        self._dead += 1
        if self.frames == 0:
            self._order.clear()
            self._front = self._dead = 0
        elif self._dead > _FEW and self._dead * 2 > len(self._order):
            self._order = self.entries()
            self._front = self._dead = 0

    def shrink(self, held: Held, frame: Frame) -> None:
        """Note that the first part of a held frame is gone, and `frame` is the rest."""
        self.bytes -= len(held.frame.data) - len(frame.data)
        held.frame = frame

    def oldest(self) -> "Held | None":
        """Give the entry that has waited longest."""
        order = self._order
        front = self._front
        while front < len(order) and order[front].done:
            front += 1
        self._front = front
        return order[front] if front < len(order) else None

    def entries(self) -> list[Held]:
        """Give all that wait, in arrival order."""
        return [entry for entry in self._order if not entry.done]

    def clear(self) -> None:
        """Forget everything, when each entry has been dealt with."""
        for entry in self._order:
            entry.done = True
        self._order.clear()
        self._front = self._dead = 0
        self.frames = 0
        self.bytes = 0
