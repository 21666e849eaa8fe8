"""Where a guest runs: it can be stopped, hang, and die. What arrives while it stands still waits."""

import math
from typing import Final, Protocol

from colo_compare.simulate.links import Link
from colo_compare.simulate.schedule import Alarm, Schedule
from colo_compare.simulate.tcp import Contradiction

_ROOM: Final = 256  # frames that its network card keeps for it


class SeatedGuest(Protocol):
    """What a guest is to who runs it. Times are the world's; its own clock is `lag` behind."""

    @property
    def memory(self) -> bytearray:
        """All its state, once it was saved, but for the device state."""

    lag: float
    mss: int
    reading: bool

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame; give those that follow at once."""

    def poll(self, now: float) -> list[bytes]:
        """Do what is due; give the frames that it wants sent."""

    def next_timer(self) -> float:
        """Give when `poll` must be called."""

    def save(self, now: float) -> bytes:
        """Write everything to the memory; give the device state."""

    def load(self, device_state: bytes, now: float) -> None:
        """Become what the memory and this device state say."""

    def serve(self) -> None:
        """Let its applications go on."""


class Seat:
    """One guest, and its network card."""

    def __init__(self, schedule: Schedule, guest: SeatedGuest, name: str) -> None:
        self.guest: Final = guest
        self.name: Final = name
        self.out: Link  # from it to the proxy
        self.inward: Link  # from the proxy to it
        self.lenient = False  # the proxy does not know its numbers: what makes no sense is dropped in silence
        self.alive = True
        self.paused = False
        self.hangs_until = 0.0
        self.overflow = 0
        self._schedule: Final = schedule
        self._inbox: list[bytes] = []
        self._paused_at = 0.0
        self._alarm: Final = Alarm(schedule, self._due, self._go)

    @property
    def runs(self) -> bool:
        """Whether it does anything now."""
        return self.alive and not self.paused and self._schedule.now >= self.hangs_until

    def arrive(self, frame: bytes) -> None:
        """Take a frame from its link."""
        if self.runs:
            self._take(frame)
        elif self.alive:
            if len(self._inbox) < _ROOM:
                self._inbox.append(frame)
            else:
                self.overflow += 1

    def _take(self, frame: bytes) -> None:
        try:
            frames = self.guest.receive(frame, self._schedule.now)
        except Contradiction:
            if not self.lenient:
                raise
            return
        self._emit(frames)

    def _emit(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.out.send(frame)
        self._alarm.look()

    def _due(self) -> float:
        return self.guest.next_timer() if self.runs else math.inf

    def _go(self) -> None:
        self._emit(self.guest.poll(self._schedule.now))

    def wake(self) -> None:
        """Do what has become due while it stood still."""
        if not self.runs:
            return
        waiting, self._inbox = self._inbox, []
        for frame in waiting:
            self._take(frame)
        self._emit(self.guest.poll(self._schedule.now))

    def hang(self, until: float) -> None:
        """Do nothing for a while; its clock goes on."""
        self.hangs_until = max(self.hangs_until, until)
        self._schedule.at(until, self.wake)

    def pause(self) -> bytes:
        """Stop; its state is in its memory and the device state that this gives. What it sent has arrived."""
        self.out.hurry()
        self.paused = True
        self._paused_at = self._schedule.now
        return self.guest.save(self._schedule.now)

    def load(self, device_state: bytes) -> None:
        """Become what its memory and this device state say, while it stands still.

        What is still on its way to it was meant for the state that it had, with the numbers of that one.
        """
        self.inward.drop_all()
        self._inbox = []
        self.lenient = False
        self.guest.load(device_state, self._schedule.now)
        self._paused_at = self._schedule.now

    def resume(self) -> None:
        """Run on from where it stands."""
        if self.paused:
            self.paused = False
            self.guest.lag += self._schedule.now - self._paused_at
            self.wake()
            self._alarm.look()

    def kill(self) -> None:
        """Die."""
        self.alive = False
        self._alarm.off = True
        self._inbox = []
