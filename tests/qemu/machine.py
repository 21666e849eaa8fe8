"""One guest: a QEMU process under TCG in a namespace of the test."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from colo_compare.demo.namespace import Namespace
from tests.qemu.image import QEMU, Image

MAC = "52:54:00:99:00:02"
BOOT_LIMIT = 60.0  # seconds
# No multiple of 256 KiB: with one, QEMU 7.2 under TCG takes a short cut when it looks for dirty pages, which
# forgets those that a vCPU still writes to through its TLB, and the secondary slowly goes bad.
MEMORY = "131136K"
TROUBLE = ("Oops", "BUG:", "Kernel panic", "segfault", "general protection", "Call Trace", "soft lockup")


class Machine:
    """A guest that boots from the image and has one interface, on the tap that it is named after."""

    def __init__(self, namespace: Namespace, directory: Path, name: str, image: Image) -> None:
        self.name = name
        self.qmp_port = 4440 + ord(name[0])  # on the namespace's loopback
        self.qmp = directory / f"{name}.qmp"
        self.spare_qmp = directory / f"{name}.spare"  # for the test; a socket serves one client at a time
        self.migration = directory / f"{name}.migration"
        self._serial = directory / f"{name}.serial"
        self._log = directory / f"{name}.log"
        self._namespace = namespace
        self._image = image
        self.process: subprocess.Popen[bytes]

    def start(self, *, incoming: bool, vnet_hdr: bool, kernel: str, extra: Sequence[str]) -> None:
        """Start it: to boot, or to take over the state of another one.

        `vnet_hdr`: with offloads. `kernel`: more arguments for the kernel. `extra`: more of them for QEMU.
        """
        headers = "on" if vnet_hdr else "off"
        argv = [
            "env", f"LD_PRELOAD={self._image.shim}", QEMU,
            "-name", self.name, "-accel", "tcg", "-m", MEMORY,
            "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs),
            "-append", f"console=ttyS0 quiet panic=-1 tsc=reliable {kernel}",
            "-serial", f"file:{self._serial}",
            "-qmp", f"unix:{self.qmp},server=on,wait=off",
            "-qmp", f"tcp:127.0.0.1:{self.qmp_port},server=on,wait=off",
            "-qmp", f"unix:{self.spare_qmp},server=on,wait=off",
            "-netdev", f"tap,id=n0,ifname={self.name},script=no,downscript=no,vhost=off,vnet_hdr={headers}",
            "-device", f"virtio-net-pci,netdev=n0,mac={MAC}",
            *extra,
        ]  # fmt: skip
        if incoming:
            argv += ["-incoming", f"unix:{self.migration}"]
        with self._log.open("ab") as log:
            self.process = self._namespace.start(argv, stdout=log, stderr=log)

    def wait_until_up(self) -> None:
        """Wait until its services are up."""
        end = time.monotonic() + BOOT_LIMIT
        while "services are up" not in self.console():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, f"the guest {self.name} does not boot: {self.console()[-500:]}"
            time.sleep(0.05)

    def console(self) -> str:
        """Give what it has written to its console."""
        return self._serial.read_text(errors="replace") if self._serial.exists() else ""

    def ticks(self) -> list[int]:
        """Give the ticks on its console: one a second, while it runs."""
        return [int(number) for number in re.findall(r"^tick (\d+)$", self.console(), re.MULTILINE)]

    def assert_healthy(self) -> None:
        """Check that its kernel never complained."""
        console = self.console()
        assert not [word for word in TROUBLE if word in console], console[-2000:]

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
