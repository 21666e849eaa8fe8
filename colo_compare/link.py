"""One port together with the role that the guest behind it plays, and what the port has not taken yet."""

from typing import Final

import trio

from colo_compare.core.sides import SIDE_NAMES
from colo_compare.ports.port import FramePort
from colo_compare.wire.frame import Frame

# The role of a link whose guest is lost. It is fenced: nothing is read from it any more, and nothing written.
LOST: Final = -1


class Link:
    """A port, its role, and its backlog.

    The name is the port's in the configuration and stays; the role changes: after a promotion the link named
    "secondary" plays PRIMARY, and a new secondary may come by the name of "primary".
    """

    def __init__(self, role: int, port: FramePort, name: str = "") -> None:
        """`name`: where it is another one than the role's."""
        self.name = name or SIDE_NAMES[role]
        self.role = role
        self.port = port
        self.backlog: list[Frame] = []  # released or mirrored, in order, not yet taken by the port
        self.stuck_since = 0.0  # the time at which the port last took a frame, while there is a backlog
        self.dropped = 0  # frames that had nowhere to go, because the link was lost
        self.failure = ""  # why it was lost
        self._waited_at_gate = 0.0  # seconds, before now
        self._at_gate_since = 0.0
        self.backlogged = trio.Event()  # set while there is a backlog
        self._gate: trio.Event | None = None  # where the reader waits

    @property
    def role_name(self) -> str:
        """The role, readable."""
        return "lost" if self.role == LOST else SIDE_NAMES[self.role]

    def send(self, frames: list[Frame]) -> None:
        """Send frames behind those that wait already. Raises PortError."""
        if self.role == LOST:
            self.dropped += len(frames)
        elif self.backlog:
            self.backlog += frames  # first in, first out, whatever the port could take just now
        else:
            taken = self.port.send_batch(frames)
            if taken < len(frames):
                self.backlog = frames[taken:]
                self.stuck_since = trio.current_time()
                self.backlogged.set()

    def flush(self) -> list[Frame]:
        """Send what the port takes of the backlog, and give it. Raises PortError."""
        count = self.port.send_batch(self.backlog)
        taken = self.backlog[:count]
        if taken:
            del self.backlog[:count]
            self.stuck_since = trio.current_time()
        if not self.backlog:
            self.backlogged = trio.Event()
        return taken

    async def wait_at_gate(self) -> None:
        """Wait until open_gate is called: the reader of the port stands here while it must not read."""
        self._gate = trio.Event()
        self._at_gate_since = trio.current_time()
        await self._gate.wait()

    @property
    def waits_at_gate(self) -> bool:
        """Whether the reader stands at the gate."""
        return self._gate is not None

    def seconds_at_gate(self) -> float:
        """Give how long the port was not read so far, because of back-pressure."""
        now = self._at_gate_since if self._gate is None else trio.current_time()
        return self._waited_at_gate + now - self._at_gate_since

    def open_gate(self) -> None:
        """Let the reader go on."""
        if self._gate is not None:
            self._waited_at_gate = self.seconds_at_gate()
            self._gate.set()
            self._gate = None

    def void_backlog(self) -> None:
        """Drop what the port has not taken: the guest that it was meant for has another state now."""
        self.dropped += len(self.backlog)
        self.backlog = []
        if self.backlogged.is_set():  # else somebody waits for this one
            self.backlogged = trio.Event()

    def fence(self, why: str) -> None:
        """Cut the guest off: whatever it still sends is never read, and it gets nothing more.

        Takes effect before it returns. The port itself is closed by the caller, who may wait.
        """
        self.role = LOST
        self.failure = why
        self.void_backlog()
        self.backlogged.set()  # its tasks wake up, see the role, and end
        self.open_gate()
