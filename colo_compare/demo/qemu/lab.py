"""A client, two guests in QEMU, and the proxy between them, inline on plain taps.

::

    client ns                   proxy ns
      eth0 ------ veth ------ client
    10.99.0.1                 A (tap) ------ QEMU, primary      10.99.0.2
                              B (tap) ------ QEMU, secondary    10.99.0.2, the same MAC
"""

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pyroute2 import IPRoute

from colo_compare.control import call
from colo_compare.demo import link
from colo_compare.demo.lab import prepare_host
from colo_compare.demo.namespace import Namespace, sysctl
from colo_compare.demo.proxy_process import ProxyProcess, Table
from colo_compare.demo.qemu.image import Image
from colo_compare.demo.qemu.machine import BOOT_LIMIT, Machine
from colo_compare.errors import SetupError

CLIENT4: Final = "10.99.0.1"
CLIENT6: Final = "fd99::1"
GUEST4: Final = "10.99.0.2"
GUEST6: Final = "fd99::2"

# Guests under TCG on a machine that has other work to do.
PATIENT: Final[Table] = {
    "checkpoint_timeout": "5s",
    "heartbeat_interval": "200ms",
    "heartbeat_timeout": "2s",
}

LOOK_AGAIN: Final = 0.02  # seconds


class Lab:
    """Everything above, until the end of a ``with`` statement. `machines[0]` is the primary at first."""

    proxy: ProxyProcess
    kernel: ClassVar[str] = ""  # more arguments for the guests' kernel
    boots_alone: ClassVar[bool] = False  # its devices are not those of the states that are kept

    def __init__(self, image: Image, *, vnet_hdr: bool = False) -> None:
        self.vnet_hdr = vnet_hdr
        with ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="colo-qemu-"))
            stack.callback(shutil.rmtree, self.directory)
            self.namespace = Namespace("proxy")
            stack.callback(self.namespace.close)
            self.namespace.call(sysctl, "net.ipv6.conf.default.disable_ipv6", "1")
            self.client = Namespace("client")
            stack.callback(self.client.close)
            prepare_host(self.client)
            self._image = image
            self.machines = [Machine(self.namespace, self.directory, name, image) for name in "AB"]
            self._lay_cables()
            self._stack = stack.pop_all()

    def _lay_cables(self) -> None:
        self.namespace.call(link.set_up_loopback)
        link.connect(self.namespace, "client", self.client, "eth0")
        self.namespace.call(link.set_up_silent, "client")
        for machine in self.machines:
            self.namespace.call(add_tap, machine.name)
        self.client.call(link.set_up_loopback)
        self.client.call(link.set_up, "eth0", addresses=(f"{CLIENT4}/24", f"{CLIENT6}/64"))

    def boot(self, state: Path | None = None, limit: float = BOOT_LIMIT) -> None:
        """Start both QEMUs, and wait until the primary's guest is up.

        `state`: of a guest that has booted already (`SpareMonitor.save`), with the same arguments. Raises
        SetupError when it is not up within `limit` seconds.
        """
        for machine, incoming in zip(self.machines, (False, True), strict=True):
            machine.start(
                incoming=incoming,
                vnet_hdr=self.vnet_hdr,
                kernel=self.kernel,
                extra=self.objects(machine),
                state=state,
            )
        self.machines[0].wait_until_up(limit)

    def objects(self, machine: Machine) -> Sequence[str]:
        """Give what else a QEMU is started with."""
        return ()

    def proxy_tables(self) -> dict[str, Table]:
        """Give how the proxy is attached."""
        primary, secondary = self.machines[-2:]
        ports = {"primary": f"packet:{primary.name}", "secondary": f"packet:{secondary.name}"}
        return {"proxy": {"mode": "protect"}, "ports": {"client": "packet:client", **ports}}

    def checkpointer_options(self) -> Table:
        """Give the backend's options that belong to the wiring."""
        return {}

    def protect(self, *, checkpointer: Table | None = None, tcp: bool = False) -> None:
        """Start the proxy, which makes a pair of the last two, and wait until it is protected.

        `tcp`: of the monitors.
        """
        primary, secondary = self.machines[-2:]
        tables: dict[str, Table] = {
            **self.proxy_tables(),
            "checkpointer": {
                "backend": "qemu",
                "primary": f"tcp:127.0.0.1:{primary.qmp_port}" if tcp else f"unix:{primary.qmp}",
                "secondary": f"tcp:127.0.0.1:{secondary.qmp_port}" if tcp else f"unix:{secondary.qmp}",
                "migrate_uri": f"unix:{secondary.migration}",
                **PATIENT,
                **self.checkpointer_options(),
                **(checkpointer or {}),
            },
        }
        self.proxy = ProxyProcess(self.namespace, self.directory, tables)
        self.start_proxy()

    def start_proxy(self) -> None:
        """Start the proxy, again if it has ended, and wait until it protects the pair."""
        self.proxy.start()
        self.wait_for("protection", lambda: bool(self.proxy.status()["protected"]))

    def bring(self) -> Machine:
        """Start another guest, on a tap of its own, that waits for the state of the one that is left."""
        machine = Machine(self.namespace, self.directory, chr(ord("A") + len(self.machines)), self._image)
        self.namespace.call(add_tap, machine.name)
        machine.start(incoming=True, vnet_hdr=self.vnet_hdr, kernel=self.kernel, extra=self.objects(machine))
        self.machines.append(machine)
        self.wait_for("monitor of the new guest", lambda: is_listening(machine.spare_qmp))  # its last one
        return machine

    def protect_again(self, machine: Machine, limit: float = 60.0) -> None:
        """Make it the secondary of the guest that runs alone. Raises ControlRefused, and ControlError."""
        changes = {"secondary": f"unix:{machine.qmp}", "migrate_uri": f"unix:{machine.migration}"}
        params = {"port": f"packet:{machine.name}", "set": changes, "timeout": limit}
        call(self.directory / "control.sock", "protect", params, timeout=limit + 30.0)

    def wait_for(self, what: str, condition: Callable[[], bool], limit: float = 20.0) -> float:
        """Wait until something is so; gives the seconds that it took. Raises SetupError."""
        began = time.monotonic()
        while not condition():
            if self.proxy.exit_code() is not None:
                raise SetupError(f"the proxy has ended before there was {what}: {self.proxy.last_words()}")
            if time.monotonic() > began + limit:
                raise SetupError(f"no {what} in {limit:g} s; the proxy says: {self.proxy.last_words()}")
            time.sleep(LOOK_AGAIN)
        return time.monotonic() - began

    def ask_for_checkpoint(self) -> int:
        """Ask for a checkpoint; gives the epoch that it will begin."""
        epoch: int = call(self.directory / "control.sock", "checkpoint")["epoch"]
        return epoch

    def checkpoint(self) -> None:
        """Make a checkpoint, and wait until it is committed."""
        self.wait_for_epoch(self.ask_for_checkpoint())

    def wait_for_epoch(self, epoch: int) -> None:
        """Wait until a checkpoint is committed that begins this epoch or a later one."""
        self.wait_for("checkpoint", lambda: self.proxy.status()["epoch"] >= epoch)

    def counters(self) -> dict[str, Any]:
        """Give the proxy's counters."""
        counters: dict[str, Any] = self.proxy.status()["counters"]
        return counters

    def close(self) -> None:
        """End every process and remove every trace."""
        self._stack.close()

    def logs(self) -> str:
        """Give what the proxy and both QEMUs have said."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_listening(path: Path) -> bool:
    """Say whether somebody listens on a unix socket. Its path is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def add_tap(name: str) -> None:
    """Make a persistent tap in the namespace of this thread."""
    with IPRoute() as ip:
        ip.link("add", ifname=name, kind="tuntap", mode="tap")
    link.set_up_silent(name)
