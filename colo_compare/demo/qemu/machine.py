"""One guest: a QEMU process in a namespace of the lab."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from colo_compare.demo.namespace import Namespace
from colo_compare.demo.qemu.image import QEMU, Image
from colo_compare.errors import SetupError

MAC: Final = "52:54:00:99:00:02"
BOOT_LIMIT: Final = 60.0  # seconds
# No multiple of 256 KiB: with one, QEMU 7.2 under TCG takes a short cut when it looks for dirty pages, which
# forgets those that a vCPU still writes to through its TLB, and the secondary slowly goes bad.
MEMORY: Final = "131136K"
TROUBLE: Final = (
    "Oops", "BUG:", "Kernel panic", "segfault", "general protection", "Call Trace", "soft lockup", "rcu: INFO"
)  # fmt: skip


class Machine:
    """A guest that boots from the image and has one interface, on the tap that it is named after."""

    def __init__(self, namespace: Namespace, directory: Path, name: str, image: Image) -> None:
        self.name = name
        self.qmp_port = 4440 + ord(name[0])  # on the namespace's loopback
        self.qmp = directory / f"{name}.qmp"
        self.spare_qmp = directory / f"{name}.spare"  # for others; a socket serves one client at a time
        self.free_qmp = directory / f"{name}.free"  # for one more of them
        self.migration = directory / f"{name}.migration"
        self._serial = directory / f"{name}.serial"
        self._log = directory / f"{name}.log"
        self._namespace = namespace
        self._image = image
        self.process: subprocess.Popen[bytes]

    def start(
        self,
        *,
        incoming: bool,
        vnet_hdr: bool = False,
        kernel: str = "",
        extra: Sequence[str] = (),
        state: Path | None = None,
    ) -> None:
        """Start it: to boot, or to take over the state of another one.

        `vnet_hdr`: with offloads. `kernel`: more arguments for the kernel. `extra`: more of them for QEMU.
        `state`: the file that holds the state of a guest like this one, from which it goes on.
        """
        headers = "on" if vnet_hdr else "off"
        accelerator = self._image.accelerator
        preload = ["env", f"LD_PRELOAD={self._image.shim}"] if accelerator == "tcg" else []
        argv = [
            *preload, QEMU, "-name", self.name, "-accel", accelerator, "-m", MEMORY,
            "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs),
            "-append", f"console=ttyS0 quiet panic=-1 tsc=reliable {kernel}",
            "-serial", f"file:{self._serial}",
            "-qmp", f"unix:{self.qmp},server=on,wait=off",
            "-qmp", f"tcp:127.0.0.1:{self.qmp_port},server=on,wait=off",
            "-qmp", f"unix:{self.spare_qmp},server=on,wait=off",
            "-qmp", f"unix:{self.free_qmp},server=on,wait=off",
            "-netdev", f"tap,id=n0,ifname={self.name},script=no,downscript=no,vhost=off,vnet_hdr={headers}",
            "-device", f"virtio-net-pci,netdev=n0,mac={MAC}",
            *extra,
        ]  # fmt: skip
        if incoming:
            argv += ["-incoming", f"unix:{self.migration}"]
        elif state is not None:
            argv += ["-incoming", f"exec:cat '{state}'"]
        with self._log.open("ab") as log:
            self.process = self._namespace.start(argv, stdout=log, stderr=log)

    def wait_until_up(self, limit: float = BOOT_LIMIT) -> None:
        """Wait until its services are up. Raises SetupError."""
        end = time.monotonic() + limit
        while not re.search("services are up|^tick", self.console(), re.MULTILINE):
            if self.process.poll() is not None:
                raise SetupError(f"QEMU ends by itself: {self._log.read_text().strip()}")
            if time.monotonic() > end:
                raise SetupError(f"the guest {self.name} does not boot: it says {self.console()[-500:]!r}")
            time.sleep(0.05)

    def console(self) -> str:
        """Give what it has written to its console."""
        return self._serial.read_text(errors="replace") if self._serial.exists() else ""

    def ticks(self) -> list[int]:
        """Give the ticks on its console: five a second, while it runs."""
        return [int(number) for number in re.findall(r"^tick (\d+)\r?$", self.console(), re.MULTILINE)]

    def troubles(self) -> list[str]:
        """Give the lines on its console in which its kernel complains."""
        return [line for line in self.console().splitlines() if any(word in line for word in TROUBLE)]

    def kill(self) -> None:
        """Let it die at once (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it hang (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process.poll() is None
