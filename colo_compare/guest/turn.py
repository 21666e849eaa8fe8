"""One call of the machine: what every part of the guest works on while it lasts."""

from typing import Final

from colo_compare.guest.connection import Connection
from colo_compare.guest.header import Header
from colo_compare.guest.layout import Geometry
from colo_compare.guest.noise import Noise
from colo_compare.guest.records import Memory

CHALLENGES: Final = 1000  # a second, as Linux does (RFC 5961, section 7)
UNREACHABLES: Final = 100  # ICMP errors a second


class Turn:
    """A view of the memory, the time, and what has come of the call so far. It dies with the call."""

    __slots__ = ("geometry", "header", "memory", "noise", "now", "out", "touched")

    def __init__(self, memory: Memory, header: Header, geometry: Geometry, noise: Noise, now: int) -> None:
        self.memory = memory
        self.header = header
        self.geometry = geometry
        self.noise = noise
        self.now = now  # microseconds
        self.out: list[bytes] = []  # frames to send
        self.touched: dict[int, Connection] = {}  # connections that may have something to say, by index

    def arm(self, due: int) -> None:
        """Make sure that the machine is called when a timer is due. (One that was put off costs a call.)"""
        if due < self.header.next_due:
            self.header.next_due = due

    def start_second(self) -> None:
        """Fill up what may be sent in each second, if a new one has begun."""
        second = self.now // 1_000_000
        if second != self.header.challenge_second:
            self.header.challenge_second = second
            self.header.challenge_left = CHALLENGES
            self.header.unreachable_left = UNREACHABLES
