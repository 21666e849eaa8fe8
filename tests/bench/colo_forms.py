"""The four ways in which the same guests are reached: alone, behind QEMU's own proxy, behind this one, twice.

All of them go on from one saved state, so they are the same guests. TCP timestamps are off in them: QEMU's
filter-rewriter, which two of the four need, does not translate them.
"""

import json
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from colo_compare.demo.proxy_process import Table
from colo_compare.demo.qemu.image import Image
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine
from colo_compare.demo.qemu.monitor import SpareMonitor
from tests.qemu.drop_in import DropInLab, bridge

KERNEL = "sysctl.net.ipv4.tcp_timestamps=0"
NEVER = 3_600_000  # ms until QEMU makes a checkpoint by itself: only those that comparing costs are counted
METRICS = ("127.0.0.1", 9464)  # in the proxy's namespace
HELD = re.compile(r'^colo_hold_seconds_bucket\{.*?le="([0-9.e+-]+|\+Inf)".*?\} ([0-9.e+]+)', re.MULTILINE)
OPTIONS: Table = {"heartbeat_interval": "100ms", "adaptive_interval": False}  # as with QEMU: see NEVER


class Pauses:
    """How long a guest stood still, and when, from its monitor's events."""

    def __init__(self, machine: Machine) -> None:
        self.seen: list[tuple[float, float]] = []  # Unix time of the stop, seconds
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(machine.spare_qmp))
        self._socket.sendall(b'{"execute": "qmp_capabilities"}\n')
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        stopped: float | None = None
        with suppress(OSError, ValueError):  # it is dead
            for line in self._socket.makefile("rb"):
                message = json.loads(line)
                at = message.get("timestamp", {})
                now = at.get("seconds", 0) + at.get("microseconds", 0) / 1e6
                if message.get("event") == "STOP":
                    stopped = now
                elif message.get("event") == "RESUME" and stopped is not None:
                    self.seen.append((stopped, now - stopped))
                    stopped = None

    def between(self, begin: float, end: float) -> list[float]:
        return [seconds for at, seconds in self.seen if begin <= at < end]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Form:
    """One way, started, until the end of a ``with`` statement."""

    name: ClassVar[str]
    lab_class: ClassVar[type[Lab]]

    def __init__(self, image: Image, state: Path) -> None:
        self.lab = self.lab_class(image)
        try:
            self._start(state)
            self.pauses = Pauses(self.lab.machines[0])
        except BaseException:
            self.lab.close()
            raise

    def _start(self, state: Path) -> None:
        self.lab.boot(state)
        self.lab.protect(checkpointer=OPTIONS)

    def requests(self) -> Mapping[str, int]:
        """Give how many checkpoints were asked for so far, by cause."""
        counted: Mapping[str, int] = self.lab.counters()["requests"]
        return counted

    def holds(self) -> Mapping[float, int]:
        """Give how many frames so far were held at most so long (seconds), as far as anybody counts that."""
        with self.lab.namespace.call(socket.create_connection, METRICS) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n")
            page = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return {float(bound): int(float(count)) for bound, count in HELD.findall(page)}

    def is_whole(self) -> bool:
        """Say whether it still is what it is called: a pair, where that is one."""
        return bool(self.lab.proxy.status()["protected"])

    def lose_primary(self) -> None:
        """Kill the primary."""
        self.lab.machines[0].kill()

    def close(self) -> None:
        self.pauses.close()
        self.lab.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AloneLab(Lab):
    """One guest in a bridge with its client."""

    kernel = KERNEL

    def _lay_cables(self) -> None:
        super()._lay_cables()
        self.namespace.call(bridge, "client", self.machines[0].name)


class Alone(Form):
    """No COLO: a guest as everybody has them."""

    name = "no COLO"
    lab_class = AloneLab

    def _start(self, state: Path) -> None:
        self.lab.machines[0].start(incoming=False, kernel=KERNEL, state=state)
        self.lab.machines[0].wait_until_up()

    def is_whole(self) -> bool:
        return self.lab.machines[0].alive

    def requests(self) -> Mapping[str, int]:
        return {}

    def holds(self) -> Mapping[float, int]:
        return {}


class QemuLab(DropInLab):
    """QEMU's colo-compare and filter-rewriter, as docs/COLO-FT.txt of QEMU has them."""

    kernel = KERNEL

    def objects(self, machine: Machine) -> Sequence[str]:
        if machine is self.machines[0]:
            names = ("mirror", "said2", "said", "released")
            servers = [part for name in names for part in self._socket(name)]
            ends = "primary_in=said0,secondary_in=said2,outdev=released0"
            return [
                *servers,
                "-chardev", f"socket,id=said0,path={self.directory}/said",
                "-chardev", f"socket,id=released0,path={self.directory}/released",
                "-object", "filter-mirror,id=m0,netdev=n0,queue=tx,outdev=mirror",
                "-object", "filter-redirector,id=r0,netdev=n0,queue=rx,indev=released",
                "-object", "filter-redirector,id=r1,netdev=n0,queue=rx,outdev=said",
                "-object", "iothread,id=io0",
                "-object", f"colo-compare,id=c0,{ends},iothread=io0",
            ]  # fmt: skip
        return [
            "-chardev", f"socket,id=mirror,path={self.directory}/mirror,reconnect=1",
            "-chardev", f"socket,id=said2,path={self.directory}/said2,reconnect=1",
            "-object", "filter-redirector,id=f1,netdev=n0,queue=tx,indev=mirror",
            "-object", "filter-redirector,id=f2,netdev=n0,queue=rx,outdev=said2",
            "-object", "filter-rewriter,id=rew0,netdev=n0,queue=all",
        ]  # fmt: skip


class Qemu(Form):
    """QEMU's own proxy. Whoever kills its primary lets the secondary take over in the same moment."""

    name = "QEMU's own"
    lab_class = QemuLab

    def _start(self, state: Path) -> None:
        lab = self.lab
        lab.boot(state)
        primary, secondary = lab.machines
        with SpareMonitor(primary, primary.qmp) as first, SpareMonitor(secondary, secondary.qmp) as second:
            first.execute("migrate-set-parameters", **{"x-checkpoint-delay": NEVER})
            capability = {"capability": "x-colo", "state": True}
            first.execute("migrate-set-capabilities", capabilities=[capability])
            first.execute("migrate", uri=f"unix:{secondary.migration}")
            first.wait_until(lambda: (first.colo_mode, second.colo_mode) == ("primary", "secondary"))

    def is_whole(self) -> bool:
        modes = []
        for machine in self.lab.machines:
            with SpareMonitor(machine, machine.free_qmp) as monitor:
                modes.append(monitor.colo_mode)
        return modes == ["primary", "secondary"]

    def requests(self) -> Mapping[str, int]:
        return {"(not told)": len(self.pauses.seen)}

    def holds(self) -> Mapping[float, int]:
        return {}

    def lose_primary(self) -> None:
        """Kill the primary, and do at once what QEMU leaves to a heartbeat."""
        secondary = self.lab.machines[1]
        with SpareMonitor(secondary, secondary.qmp) as monitor:
            self.lab.machines[0].kill()
            monitor.execute("x-colo-lost-heartbeat")
            for name in ("f2", "f1"):
                monitor.execute("object-del", id=name)


class InlineLab(Lab):
    """This proxy on plain taps."""

    kernel = KERNEL

    def proxy_tables(self) -> dict[str, Table]:
        return super().proxy_tables() | {"http": {"listen": "{}:{}".format(*METRICS)}}


class Inline(Form):
    """This proxy between the client and the taps of the guests."""

    name = "inline"
    lab_class = InlineLab


class ReplacingLab(DropInLab):
    """This proxy in the place of colo-compare."""

    kernel = KERNEL

    def proxy_tables(self) -> dict[str, Table]:
        return super().proxy_tables() | {"http": {"listen": "{}:{}".format(*METRICS)}}


class DropIn(Form):
    """This proxy where QEMU's colo-compare was; filter-rewriter stays."""

    name = "drop-in"
    lab_class = ReplacingLab


FORMS: Sequence[type[Form]] = (Alone, Qemu, Inline, DropIn)


def save_state(image: Image, path: Path) -> None:
    """Boot a guest, and write the state from which all others go on."""
    with AloneLab(image) as lab:
        lab.machines[0].start(incoming=False, kernel=KERNEL)
        lab.machines[0].wait_until_up()
        with SpareMonitor(lab.machines[0]) as monitor:
            monitor.save(path)
