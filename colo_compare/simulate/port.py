"""A port of the simulated proxy."""

from collections import deque
from collections.abc import Callable
from typing import Final

LOST: Final = -1


class Port:
    """One port of the proxy: what has arrived and was not read, and what it does not take now."""

    def __init__(self, name: str, role: int, room: int) -> None:
        self.name: Final = name
        self.role = role
        self.room: Final = room  # frames; more are lost, as a packet socket loses them
        self.link: Callable[[bytes], None]  # to the machine
        self.arrived: deque[bytes] = deque()
        self.backlog: deque[bytes] = deque()
        self.reading = False  # a read is on its way
        self.at_gate = False
        self.stuck_until = 0.0  # it takes nothing
        self.stuck_since = 0.0
        self.overflow = 0
        self.failure = ""
