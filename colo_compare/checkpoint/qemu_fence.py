"""Making sure that a guest is dead, before another one takes its place.

`x-colo-lost-heartbeat` lets a guest run on by itself. Given while its peer lives, both run: split brain. So
the only place that gives it (`QemuGuest.run_alone`) asks for a `Fenced`, and the only way to one is
`Fence.fence`, which returns when the other guest is known to be dead, and raises in every other case.
"""

import os
from pathlib import Path
from typing import Final

import trio

from colo_compare.checkpoint.local_process import LocalProcess
from colo_compare.checkpoint.program import Program
from colo_compare.core.sides import SIDE_NAMES
from colo_compare.errors import CheckpointerError

_QEMU: Final = "qemu"  # what the program's name begins with: qemu-system-x86_64, qemu-kvm


class Fenced:
    """The proof that a guest is dead. Made by `Fence.fence` only."""

    def __init__(self, who: str) -> None:
        self.who: Final = who


def process_behind(monitor: trio.socket.SocketType) -> LocalProcess | None:
    """Find the process that listens on a connected unix socket; None if that is no QEMU of this machine.

    A monitor whose socket somebody else made (libvirt hands QEMU one that already listens) names that
    somebody, who must not be killed: hence the look at the program.
    """
    process = LocalProcess.behind(monitor)
    if process is not None and not _program(process.pid).startswith(_QEMU):
        process.close()
        return None
    return process


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


class Fence:
    """The means by which one guest can be killed."""

    def __init__(
        self, address: str, process: LocalProcess | None, argv: tuple[str, ...], *, timeout: float
    ) -> None:
        """Take what there is: the process, the operator's program, or both, of which both are then used.

        Raises CheckpointerError if there is nothing.
        """
        if process is None and not argv:
            raise CheckpointerError(
                f"{address}: this guest could not be fenced, so no failover would be safe: its monitor "
                "is no QEMU process of this machine; name a program that kills it in $.checkpointer.fence"
            )
        self._address = address
        self.process: Final = process
        self._argv = argv
        self._timeout = timeout

    async def fence(self, side: int) -> Fenced:
        """Kill the guest, whose role is `side`, and wait until it is dead.

        Raises CheckpointerError when that is not certain: then nothing may take its place.
        """
        if self.process is not None:
            await self._kill(self.process)
        if self._argv:
            await self._run(side)
        return Fenced(self._address)

    async def _kill(self, process: LocalProcess) -> None:
        try:
            process.kill()
        except PermissionError:
            raise CheckpointerError(
                f"{self._address}: process {process.pid} belongs to another user and cannot be killed: "
                "run the proxy as that user or as root, or name a program in $.checkpointer.fence"
            ) from None
        # A process in an uninterruptible wait (a dead disk) may still finish a write when it wakes up.
        with trio.move_on_after(self._timeout):
            await process.wait()
        if not process.dead:
            raise CheckpointerError(
                f"{self._address}: process {process.pid} did not die within {self._timeout:g} s of SIGKILL"
            )

    async def _run(self, side: int) -> None:
        environ = {
            **os.environ,
            "COLO_EVENT": "fence",
            "COLO_SIDE": SIDE_NAMES[side],
            "COLO_MONITOR": self._address,
        }
        program = Program(self._argv, environ, timeout=self._timeout, kill_after=1.0)
        ending = await program.run(b"", _ignore, keep_open=False)
        if ending.status != 0 or ending.timed_out:
            raise CheckpointerError(
                f'{self._address}: the fence program "{self._argv[0]}" {ending.describe()}'
            )


async def _ignore(_line: bytes) -> None:
    """Let chatter pass."""
