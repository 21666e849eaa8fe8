"""The guest as a process: a port, a clock and a control socket around the machine."""

from contextlib import suppress
from typing import Final

import trio

from colo_compare.checkpoint.memory.guest_port import GuestPort
from colo_compare.errors import PortError
from colo_compare.guest import device_state
from colo_compare.guest.clock import GuestClock
from colo_compare.guest.device_state import DeviceState
from colo_compare.guest.header import open_memory
from colo_compare.guest.machine import Machine
from colo_compare.ports import FramePort
from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.offload import materialise


class Shell:
    """Runs a machine on a port. The control socket stops, loads and resumes it (`guest_port.Machine`).

    Everything happens in one thread and between two awaits, so the guest is always stopped between frames.
    """

    def __init__(self, machine: Machine, port: FramePort) -> None:
        self.machine: Final = machine
        self._port: Final = port
        self._clock: Final = GuestClock(machine.header.clock / 1e6, trio.current_time())
        self._frozen = 0.0  # the clock while it stands still
        self._unsent: list[Frame] = []  # what the port has not taken yet
        self._sleep = trio.CancelScope()  # of the wait for frames or a timer

    @property
    def now(self) -> float:
        """The guest's time."""
        return self._clock.read(trio.current_time())

    async def run(self) -> None:
        """Run until cancelled. Raises PortClosed."""
        while True:
            while self._unsent:
                await self._port.wait_writable()
                self._push()
            batch: list[bytes] = []
            self._sleep = trio.CancelScope(deadline=self._clock.to_host(self.machine.next_timer()))
            with self._sleep:
                batch = await self._port.receive_batch()
            if batch:
                self.send(self.machine.receive(self._plain(batch), self.now))
            if self.now >= self.machine.next_timer():
                self.send(self.machine.handle_timer(self.now))

    async def serve_control(self, control: GuestPort) -> None:
        """Serve the control socket until cancelled. Raises CheckpointerError: the guest is spoilt."""
        while True:
            await trio.lowlevel.wait_readable(control.fileno())
            control.handle()

    def send(self, frames: list[bytes]) -> None:
        """Send frames, now or when the port can take them."""
        self._unsent += [Frame(data, 0) for data in frames]
        self._push()
        if self._unsent:
            self._sleep.cancel()  # `run` waits for room first of all
        due = self._clock.to_host(self.machine.next_timer())
        self._sleep.deadline = min(self._sleep.deadline, due)

    def _push(self) -> None:
        if self._unsent:
            del self._unsent[: self._port.send_batch(self._unsent)]

    def _plain(self, batch: list[bytes]) -> list[bytes]:
        """Give the frames as they would be on a wire: no virtio-net headers, and none larger than the MTU."""
        header_len = self._port.header_len
        if not header_len:
            return batch
        plain: list[bytes] = []
        for data in batch:
            plain += materialise(parse_frame(data, header_len, True))
        return plain

    # What the control socket asks for

    def save(self) -> bytes:
        """Stop, and give the device state."""
        self._frozen = self.now
        return DeviceState(self._frozen, tuple([frame.data for frame in self._unsent])).encode()

    def load(self, state: bytes) -> None:
        """Take another guest's device state; its memory is here already. Raises ValueError.

        What waits in the port was meant for the state before, with the numbers of that one's connections.
        """
        loaded = device_state.decode(state)
        open_memory(self.machine.raw)
        with suppress(PortError, OSError):  # `run` meets it, too
            self._port.drain()
        self._frozen = loaded.clock
        self._unsent = [Frame(data, 0) for data in loaded.frames]

    def resume(self) -> None:
        """Run on: the clock has stood still. What sleeps wakes up, as there may be other timers now."""
        self._clock.set(self._frozen, trio.current_time())
        self._sleep.cancel()
