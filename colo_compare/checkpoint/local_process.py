"""A process that may have to be killed, and whose death must be known."""

import os
import select
import signal
import socket
import struct
from contextlib import suppress
from typing import Final

import trio

_PEER_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_LET_GO: Final = -1


class LocalProcess:
    """A process on this machine, held by a descriptor: its number could come to mean another one."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid: Final = pid
        self._descriptor = descriptor
        self._ended = False  # it had, when the descriptor was let go

    @classmethod
    def behind(cls, connected: trio.socket.SocketType) -> "LocalProcess | None":
        """Find the process that listens on a connected unix socket; None if that is none of this machine.

        It is the one that called listen(2): whoever was handed the socket afterwards is not known.
        """
        if connected.family != socket.AF_UNIX:
            return None
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid = _PEER_CREDENTIALS.unpack(credentials)[0]
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError:  # 0: in a pid namespace that we do not see
            return None

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        if self._descriptor == _LET_GO:
            return self._ended
        return bool(select.select([self._descriptor], [], [], 0)[0])

    async def wait(self) -> None:
        """Wait until it has ended. Several tasks may."""
        if self._descriptor == _LET_GO:
            if not self._ended:
                await trio.sleep_forever()  # nobody will know any more
            await trio.lowlevel.checkpoint()
            return
        own = os.dup(self._descriptor)  # trio lets one task wait for a descriptor
        try:
            await trio.lowlevel.wait_readable(own)
        finally:
            os.close(own)

    def kill(self) -> None:
        """End it at once, unless it was let go. Raises PermissionError."""
        if self._descriptor == _LET_GO:
            return
        with suppress(ProcessLookupError):  # it has ended, and was waited for
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the descriptor. Who still waits for it in another task sees what was so then."""
        if self._descriptor != _LET_GO:
            self._ended = self.dead
            os.close(self._descriptor)
            self._descriptor = _LET_GO
