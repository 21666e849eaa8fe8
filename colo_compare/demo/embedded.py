"""A lab whose guests are embedded ones (docs/embedded-guest.md), kept equal by the memory checkpointer.

Each guest lives on a host of its own, a namespace: the guest's process at the end of a cable, and beside it,
while it is a secondary, the receiver of the checkpointer. A host that dies takes both with it.
"""

import json
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from colo_compare.demo import link
from colo_compare.demo.lab import ANSWER_LIMIT, GUEST4, GUEST6, GUEST_MAC, PLAIN, SIDES, Network, Wiring
from colo_compare.demo.namespace import Namespace, sysctl
from colo_compare.demo.proxy_process import Table
from colo_compare.errors import SetupError

# Behind the guests' initial sequence numbers (RFC 6528); both of a pair have the same one.
SECRET: Final = "colo-compare"


class EmbeddedGuest:
    """One embedded guest and its host."""

    def __init__(self, name: str, directory: Path, wiring: Wiring) -> None:
        self.name: Final = name
        self.control: Final = str(directory / f"{name}.sock")
        self.endpoint: Final = f"unix:{directory / name}.receiver"
        self.namespace: Final = Namespace(f"guest {name}")
        self.namespace.call(sysctl, "net.ipv6.conf.default.disable_ipv6", "1")
        self._log: Final = directory / f"{name}.log"
        self._wiring: Final = wiring
        self._guest: subprocess.Popen[bytes] | None = None
        self._receiver: subprocess.Popen[bytes] | None = None

    def start(self, noise: Sequence[str] = ()) -> None:
        """Boot it and wait until it runs. `noise`: options that make it differ from others."""
        self.launch(noise)
        self.wait()

    def launch(self, noise: Sequence[str] = ()) -> None:
        """Boot it, and let it take its time: `wait` must follow."""
        self.namespace.call(link.set_up_silent, "eth0", self._wiring.mtu)
        self._guest = self._launch(
            [
                "colo_compare.guest", "--commands", "--port", "packet:eth0?vnet_hdr=no",
                "--control", self.control, "--mac", GUEST_MAC, "--mtu", str(self._wiring.mtu),
                "--address4", f"{GUEST4}/24", "--address6", f"{GUEST6}/64", "--secret", SECRET, *noise,
            ]
        )  # fmt: skip

    def wait(self) -> None:
        """Wait until it runs. Raises SetupError with its last words when it does not."""
        assert self._guest is not None
        self._wait_for(self._guest)

    def start_receiver(self) -> None:
        """Make it a secondary: wait for a primary's memory."""
        self._receiver = self._launch(
            ["colo_compare.checkpoint.memory", "--guest", self.control, "--listen", self.endpoint]
        )
        self._wait_for(self._receiver)

    def _launch(self, module: Sequence[str]) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return self.namespace.start(
                [sys.executable, "-m", *module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def _wait_for(self, process: "subprocess.Popen[bytes]") -> None:
        if self._read(process) != b"ready\n":
            raise SetupError(f"guest {self.name} did not start: {self._log.read_text().strip()}")

    def _read(self, process: "subprocess.Popen[bytes]") -> bytes:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], ANSWER_LIMIT)[0]:
            raise SetupError(f"guest {self.name} does not answer")
        return process.stdout.readline()

    def command(self, **command: object) -> dict[str, Any]:
        """Give it a command and wait for its counters."""
        assert self._guest is not None
        assert self._guest.stdin is not None
        self._guest.stdin.write(json.dumps(command).encode() + b"\n")
        self._guest.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read(self._guest))
        return answer

    @property
    def pid(self) -> int:
        """The process of the guest."""
        assert self._guest is not None
        return self._guest.pid

    def signal_guest(self, number: signal.Signals) -> None:
        """Send a signal to the guest's process alone: SIGKILL, or SIGSTOP for one that hangs."""
        assert self._guest is not None
        self._guest.send_signal(number)

    def kill_receiver(self) -> None:
        """Let the receiver die at once."""
        assert self._receiver is not None
        self._receiver.kill()
        self._receiver.wait()

    def kill(self) -> None:
        """Let its host die: the cable first, so that nothing of it says goodbye."""
        self.namespace.call(link.delete, "eth0")
        self.namespace.close()


class EmbeddedLab(Network):
    """A client, the proxy, and two embedded guests. Nothing runs yet. `guests[0]` (A) is the primary."""

    def __init__(self, wiring: Wiring = PLAIN) -> None:
        super().__init__(wiring)
        with ExitStack() as stack:
            stack.callback(self.close)  # if the rest fails
            self.guests: list[EmbeddedGuest] = []
            for side in SIDES:
                self.add_guest(side)
            stack.pop_all()

    def add_guest(self, interface: str) -> EmbeddedGuest:
        """Add a guest, connected to an interface of the proxy, and give it. It does not run yet."""
        guest = EmbeddedGuest(_name(len(self.guests)), self.directory, self.wiring)
        self.guests.append(guest)
        self.stack.callback(guest.namespace.close)
        self.lay_cable(interface, guest.namespace)
        return guest

    def start(
        self,
        *,
        noise: Sequence[Sequence[str]] = ((), ()),
        proxy: Table | None = None,
        checkpointer: Mapping[str, str | int | bool] | None = None,
        ports: Mapping[str, str] | None = None,
    ) -> None:
        """Start the guests, the receiver, and the proxy, which waits for all of them; then the client."""
        primary, secondary = self.guests[:2]  # others are spare
        primary.launch(noise[0])
        secondary.launch(noise[1])
        primary.wait()
        secondary.wait()
        secondary.start_receiver()
        self.start_proxy(
            {
                "proxy": {"mode": "protect", **(proxy or {})},
                "ports": self.ports(**(ports or {})),
                "checkpointer": {
                    "backend": "memory",
                    "primary": primary.control,
                    "secondary": secondary.endpoint,
                    **(checkpointer or {}),
                },
            }
        )
        self.set_up_client()


def _name(number: int) -> str:
    """Give A, B, ... Z, A1, B1, ..."""
    round_, letter = divmod(number, 26)
    return f"{chr(ord('A') + letter)}{round_ or ''}"
