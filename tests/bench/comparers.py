"""The two comparers behind the same three unix sockets: QEMU's colo-compare object, and this program.

Both are fed by feeder.c: whatever room the guests' sockets have is filled, whatever comes out is kept.
"""

import mmap
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from colo_compare.control import call
from colo_compare.demo.proxy_process import Table, toml
from colo_compare.errors import ControlError
from tests.bench.process import PACKAGE, cpu_seconds, end, wait_until
from tests.bench.programs import program

QEMU = "qemu-system-x86_64"
LEAD = 64 << 10  # bytes that one guest may be ahead of the other in what it has written


class Memory:
    """Bytes that another process can be given: what a guest says, or room for what comes out."""

    def __init__(self, content: bytes = b"", size: int = 0) -> None:
        self.size = len(content) or size
        self.fd = os.memfd_create("bench")
        os.truncate(self.fd, self.size)
        self.map = mmap.mmap(self.fd, self.size)
        self.map[: len(content)] = content

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


@dataclass
class Fed:
    """What one feed cost, and how it went."""

    cpu: float  # seconds of the comparing process
    wall: float
    received: int  # bytes


class Comparer:
    """A running comparer with its three sockets."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.pid = process.pid
        self.primary, self.secondary, self.out = (
            _connect(directory / name, process) for name in ("primary", "secondary", "out")
        )

    def say(self, *parts: bytes, patience: float, lag: int = 0) -> tuple[Fed, bytes]:
        """Let both guests say several things, each when what was said before has come out, or is lost.

        No guest sends data before both have opened the connection: the client has yet to acknowledge what the
        primary said. Gives what it cost together, and what came out.
        """
        cpu = wall = 0.0
        heard = b""
        for part in parts:
            said, out = Memory(part), Memory(size=len(part))
            fed = self.feed(said, out, lag=lag, patience=patience)
            cpu += fed.cpu
            wall += fed.wall
            heard += out.map[: fed.received]
            said.close()
            out.close()
        return Fed(cpu, wall, len(heard)), heard

    def feed(self, said: Memory, out: Memory, *, lag: int = 0, patience: float) -> Fed:
        """Let both guests say the same, and take what comes out.

        With `lag`, the secondary stays so many bytes behind the primary for as long as that has anything to
        say. `patience`: seconds without a byte, after which what is still missing is lost.
        """
        descriptors = [sock.fileno() for sock in (self.primary, self.secondary, self.out)]
        memories = [said, said, out]
        words = [*descriptors, *(word for memory in memories for word in (memory.fd, memory.size))]
        cpu = cpu_seconds(self.pid)
        done = subprocess.run(
            [program("feeder"), *map(str, [*words, lag, LEAD, int(patience * 1e3)])],
            pass_fds=[*descriptors, *(memory.fd for memory in memories)],
            stdout=subprocess.PIPE,
            check=True,
        )
        cpu = cpu_seconds(self.pid) - cpu
        received, nanoseconds = map(int, done.stdout.split())
        return Fed(cpu, nanoseconds * 1e-9, received)

    def wait_idle(self) -> None:
        """Wait until the process has nothing left to do but to look at the clock."""
        seen = -1.0
        while (now := cpu_seconds(self.pid)) > seen + 0.005:
            seen = now
            time.sleep(0.1)

    def close(self) -> None:
        for sock in (self.primary, self.secondary, self.out):
            sock.close()


def _connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    wait_until(lambda: sock.connect_ex(str(path)) == 0, f"a listener on {path.name}", process)
    return sock


def qemu_missing() -> str:
    """Say why QEMU cannot be measured, nothing if it can."""
    return "" if shutil.which(QEMU) else f"{QEMU} is not installed (Debian: qemu-system-x86)"


@contextmanager
def qemu(directory: Path) -> Iterator[Comparer]:
    """Run QEMU's colo-compare object alone, in the thread of its own that it must have."""
    command = [QEMU, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]
    for name in ("primary", "secondary", "out"):
        command += ["-chardev", f"socket,id={name},path={directory}/{name},server=on,wait=off"]
    command += [
        "-object", "iothread,id=thread",
        "-object", "colo-compare,id=c,primary_in=primary,secondary_in=secondary,outdev=out,iothread=thread",
    ]  # fmt: skip
    with _running(command, directory) as comparer:
        comparer.wait_idle()  # what comes before its thread has taken the sockets over is lost
        yield comparer


@contextmanager
def proxy(directory: Path, settings: Table = MappingProxyType({})) -> Iterator[Comparer]:
    """Run this program in the form that takes the place of QEMU's object."""
    tables: dict[str, Table] = {
        "proxy": {"mode": "protect", "mirror": False, "rewrite": False, **settings},
        "ports": {
            side: f"stream+unix://{directory}/{name}?listen=yes"
            for side, name in (("client", "out"), ("primary", "primary"), ("secondary", "secondary"))
        },
        "checkpointer": {"backend": "null", "assume_deterministic": True},
        "control": {"socket": f"{directory}/control"},
    }
    config = directory / "pair.toml"
    config.write_text(toml(tables))
    with _running([sys.executable, "-m", "colo_compare", "run", "-c", str(config)], directory) as comparer:
        wait_until(lambda: _protected(directory / "control"), "protection")
        yield comparer


def _protected(control: Path) -> bool:
    with suppress(ControlError):
        return bool(call(control, "status")["protected"])
    return False


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[Comparer]:
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=PACKAGE, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        comparer = Comparer(process, directory)
        try:
            yield comparer
        finally:
            comparer.close()
    finally:
        end(process)
