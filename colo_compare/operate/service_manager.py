"""What systemd is told of the daemon (sd_notify(3)): that it is ready, how it is, that it lives and stops.

The protocol is a datagram of assignments to the unix socket in $NOTIFY_SOCKET. It is spoken here in twenty
lines; libsystemd's Python binding is not on every machine that has systemd, and needs a compiler.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from colo_compare.status import verdict

if TYPE_CHECKING:
    from colo_compare.loop import Loop

INTERVAL: Final = 1.0  # seconds between two looks at the state
_MOST: Final = 256  # characters of a status


class ServiceManager:
    """systemd, or nobody where it did not start this process."""

    def __init__(
        self,
        environ: Mapping[str, str],
        pid: Callable[[], int] = os.getpid,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._monotonic = monotonic
        self.watchdog = 0.0  # seconds within which it must hear from us, 0 for no limit
        mine = environ.get("WATCHDOG_PID", str(pid())) == str(pid())
        with suppress(ValueError):  # whoever set it knows no better
            self.watchdog = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if mine else 0.0

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address.startswith(("/", "@"))

    def tell(self, *assignments: str) -> None:
        """Send assignments like READY=1. What nobody takes is lost, and nothing waits for it."""
        if not self.listens:
            return
        # A socket in the abstract namespace (man 7 unix) is written with an "@" and begins with a zero byte.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as out:
            out.sendto("\n".join(assignments).encode(), address)

    def reloading(self) -> None:
        """Say that the configuration is being read again; `reloaded` follows."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={round(self._monotonic() * 1e6)}")

    def reloaded(self) -> None:
        """Say that it has been read."""
        self.tell("READY=1")

    async def watch(self, loop: "Loop") -> None:
        """Say that it is ready, then how it is, whenever that changes, and that it lives, until cancelled.

        It is a task of the very loop that moves the frames: one that hangs is not heard, and is restarted.
        """
        if not self.listens:
            return
        told = ""
        stopping = False
        self.tell("READY=1")
        while True:
            status = verdict(loop)[:_MOST]
            news = [] if status == told else [f"STATUS={status}"]
            if loop.stopping and not stopping:
                stopping = True
                news.append("STOPPING=1")
            if self.watchdog:
                news.append("WATCHDOG=1")
            if news:
                self.tell(*news)
            told = status
            await trio.sleep(min(INTERVAL, self.watchdog / 2) if self.watchdog else INTERVAL)
