"""A guest's process: its memory, its control socket, and its command line on stdin.

Commands are JSON lines, each answered with one on stdout:

``{"status": true}``                              the header's counters
``{"call": [ADDRESS, PORT, SOURCE_PORT, SIZE]}``  connect out and send SIZE bytes: see `caller`
``{"announce": true}``                            say to the network where the guest's addresses are

Without the option ``--commands`` stdin is not read; with it, its end ends the guest. The first line on
stdout, ``ready``, says that the guest runs.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trio

from colo_compare.checkpoint.memory.guest_port import GuestPort
from colo_compare.checkpoint.memory.region import Region
from colo_compare.errors import PortClosed
from colo_compare.guest.boot import boot
from colo_compare.guest.header import MAGIC, Header
from colo_compare.guest.layout import PAGE
from colo_compare.guest.machine import Machine
from colo_compare.guest.options import Options
from colo_compare.guest.records import Memory, Word
from colo_compare.guest.shell import Shell
from colo_compare.ports import open_port

_COUNTERS: Final = tuple(
    name for name, field in vars(Header).items() if isinstance(field, Word) and field.index >= 32
)


def open_region(options: Options) -> Region:
    """Give the guest's memory, with a guest booted in it where there was none.

    Raises OSError, ValueError and CheckpointerError.
    """
    size = options.geometry.size
    if not options.memory:
        region = Region.create(size)
    elif options.memory.isdigit():
        descriptor = int(options.memory)
        region = Region(descriptor, os.fstat(descriptor).st_size or _grow(descriptor, size))
    else:
        descriptor = os.open(options.memory, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        region = Region(descriptor, os.fstat(descriptor).st_size or _grow(descriptor, size))
    view = region.view
    if view.nbytes < PAGE or Header(Memory(view), 0).magic != MAGIC:
        boot(view, options.geometry, options.identity)
    return region


def _grow(descriptor: int, size: int) -> int:
    os.ftruncate(descriptor, size)
    return size


async def run(options: Options) -> None:
    """Run a guest until stdin ends or SIGTERM comes, or its port is gone.

    Raises PortUnavailable, CheckpointerError, OSError and ValueError.
    """
    region = open_region(options)
    machine = Machine(region.view, options.noise)
    async with open_port(options.port) as port:
        shell = Shell(machine, port)
        with _control(options.control, region, shell) as control:
            async with trio.open_nursery() as nursery:
                if control is not None:
                    nursery.start_soon(shell.serve_control, control)
                await nursery.start(_end_at_signal, nursery.cancel_scope)
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                if options.commands:
                    nursery.start_soon(_obey, shell, nursery.cancel_scope)
                try:
                    await shell.run()
                except PortClosed as error:
                    sys.stderr.write(f"{error}\n")
                nursery.cancel_scope.cancel()


@contextmanager
def _control(path: str, region: Region, shell: Shell) -> Iterator[GuestPort | None]:
    if not path:
        yield None
        return
    Path(path).unlink(missing_ok=True)  # left behind by one that was killed
    control = GuestPort(path, region, shell)
    try:
        yield control
    finally:
        control.close()


async def _end_at_signal(
    scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        await anext(aiter(signals))
    scope.cancel()


async def _obey(shell: Shell, scope: trio.CancelScope) -> None:
    """Perform commands from stdin until it ends."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        waiting = b""
        async for chunk in stdin:
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                sys.stdout.write(json.dumps(_perform(shell, line)) + "\n")
                sys.stdout.flush()
    scope.cancel()


def _perform(shell: Shell, line: bytes) -> dict[str, Any]:
    """Perform one command and give its answer."""
    try:
        command: dict[str, Any] = json.loads(line)
        if "call" in command:
            address, port, source_port, size = command["call"]
            shell.send(shell.machine.call(address, port, size, shell.now, source_port))
        elif "announce" in command:
            shell.send(shell.machine.announce(shell.now))
    except (ValueError, TypeError) as error:
        return {"error": str(error)}
    return {name: getattr(shell.machine.header, name) for name in _COUNTERS}
