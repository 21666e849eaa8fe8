"""Two embedded guests on one cable in virtual time; the cable may lose, delay, repeat and reorder."""

import heapq
import random
from dataclasses import dataclass, field

from colo_compare.guest import Geometry, Identity, Machine
from tests.guest.peer import new_memory

NEAR = Identity(mac="02:50:00:00:00:01", address4="10.0.0.1/24", address6="fd00::1/64", secret="near")
FAR = Identity(mac="02:50:00:00:00:02", address4="10.0.0.2/24", address6="fd00::2/64", secret="far")
GEOMETRY = Geometry(connections=4, send_bytes=16384, receive_bytes=16384, entries=4, value_bytes=4096)


@dataclass
class Cable:
    """`hosts` by side; each event is a frame that arrives, or the last look at a timer."""

    seed: int
    loss: float = 0.0
    repeat: float = 0.0
    spread: float = 0.0  # seconds by which frames overtake each other
    geometry: Geometry = GEOMETRY
    now: float = 0.0
    hosts: list[Machine] = field(init=False)
    on_the_way: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    number: int = 0
    sent: int = 0
    history: list[tuple[int, bytes | None, float, list[bytes]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.hosts = [Machine(new_memory(self.geometry, who)) for who in (NEAR, FAR)]

    def send(self, side: int, frames: list[bytes]) -> None:
        for frame in frames:
            self.sent += 1
            if self.random.random() < self.loss:
                continue
            for _ in range(2 if self.random.random() < self.repeat else 1):
                self.number += 1
                arrival = self.now + 0.001 + self.random.random() * self.spread
                heapq.heappush(self.on_the_way, (arrival, self.number, 1 - side, frame))

    def step(self) -> bool:
        """Let the next thing happen. False: nothing ever will."""
        arrival = self.on_the_way[0][0] if self.on_the_way else float("inf")
        timers = [host.next_timer() for host in self.hosts]
        due = min(timers)
        if min(arrival, due) == float("inf"):
            return False
        if arrival <= due:
            self.now, _, side, frame = heapq.heappop(self.on_the_way)
            said = self.hosts[side].receive([frame], self.now)
            self.history.append((side, frame, self.now, said))
        else:
            side = timers.index(due)
            self.now = max(self.now, due)
            said = self.hosts[side].handle_timer(self.now)
            self.history.append((side, None, self.now, said))
        self.send(side, said)
        return True

    def run(self, until: float) -> None:
        while self.now < until and self.step():
            pass
