"""The lab: a client, two guests alike to the last bit of their addresses, and the proxy between them.

::

    client ns                  proxy ns                     guest A ns
      eth0  ------ veth ------  client
    10.77.0.1                   primary  ------ veth ------   eth0   10.77.0.2
                                                            guest B ns
                                secondary ----- veth ------   eth0   10.77.0.2, the same MAC

Each guest has the kernel's own TCP stack and runs `guest.py`. The proxy is the real program, `colo-compare
run -c FILE`, in a namespace whose interfaces have no address, no IPv6 and no ARP. Nothing here needs root
once `namespace.become_root` has been called.
"""

import json
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from colo_compare.demo import link
from colo_compare.demo.namespace import Namespace, sysctl
from colo_compare.demo.proxy_process import ProxyProcess, Table
from colo_compare.errors import SetupError

CLIENT_MAC: Final = "02:77:00:00:00:01"
GUEST_MAC: Final = "02:77:00:00:00:02"
CLIENT4: Final = "10.77.0.1"
GUEST4: Final = "10.77.0.2"
CLIENT6: Final = "fd77::1"
GUEST6: Final = "fd77::2"
# The proxy's interfaces must take the hosts' longest frames with their VLAN tags: AF_PACKET makes room for
# one 802.1Q tag by itself, and for no 802.1ad tag.
TAGS: Final = 8
SIDES: Final = ("primary", "secondary")
ANSWER_LIMIT: Final = 60.0  # seconds that a guest has to answer a command


@dataclass(frozen=True)
class Wiring:
    """How the lab is laid out."""

    taps: bool = False  # the proxy makes taps, which become the guests' interfaces; else veth pairs
    mtu: int = 1500
    offloads: bool = True  # checksum and segmentation offload on the client's and the guests' interfaces
    timestamps: tuple[int, int] = (
        1,
        1,
    )  # net.ipv4.tcp_timestamps of guest A and B: 0 off, 2 no random offset


PLAIN: Final = Wiring()


class Guest:
    """One guest: its namespace, its servers and its command line."""

    def __init__(self, name: str, wiring: Wiring, timestamps: int) -> None:
        self.name = name
        self.namespace = Namespace(f"guest {name}")
        self.namespace.call(sysctl, "net.ipv4.tcp_timestamps", str(timestamps))
        prepare_host(self.namespace)
        self._wiring = wiring
        self._program: subprocess.Popen[bytes] | None = None

    def set_up(self) -> None:
        """Configure its network."""
        set_up_host(self.namespace, self._wiring, GUEST_MAC, GUEST4, GUEST6)

    def start(self) -> None:
        """Start its servers and wait until they listen."""
        self._program = self.namespace.start(
            [sys.executable, "-m", "colo_compare.demo.guest"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._read() != b"ready\n":
            raise SetupError(f"guest {self.name} did not start: see its error output above")
        self.command(identity=self.name)

    def tell(self, **command: object) -> None:
        """Give it a command, without waiting for the answer."""
        assert self._program is not None
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(command).encode() + b"\n")
        self._program.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to a command."""
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def command(self, **command: object) -> dict[str, Any]:
        """Give it a command and wait for the answer."""
        self.tell(**command)
        return self.answer()

    def _read(self) -> bytes:
        assert self._program is not None
        assert self._program.stdout is not None
        if not select.select([self._program.stdout], [], [], ANSWER_LIMIT)[0]:
            raise SetupError(f"guest {self.name} does not answer")
        return self._program.stdout.readline()

    def kill(self) -> None:
        """Let its host die: its link first, so that its kernel can say goodbye to no one."""
        self.namespace.call(link.delete, "eth0")
        self.namespace.close()


def prepare_host(host: Namespace) -> None:
    """Let interfaces that are yet to come use their addresses at once, without looking for duplicates."""
    host.call(sysctl, "net.ipv6.conf.default.accept_dad", "0")
    host.call(sysctl, "net.ipv6.conf.default.accept_ra", "0")


def set_up_host(host: Namespace, wiring: Wiring, mac: str, address4: str, address6: str) -> None:
    """Configure the network of a client or a guest, whose `eth0` exists."""
    host.call(link.set_up_loopback)
    host.call(link.set_up, "eth0", mac=mac, mtu=wiring.mtu, addresses=(f"{address4}/24", f"{address6}/64"))
    if not wiring.offloads:
        host.call(link.set_offloads, "eth0", on=False)


class Network:
    """A client and a proxy, to which guests' hosts can be connected; until the end of a ``with`` statement.

    A kind of lab adds its guests, and says in which order all of them start.
    """

    proxy: ProxyProcess  # once started

    def __init__(self, wiring: Wiring) -> None:
        self.wiring: Final = wiring
        with ExitStack() as stack:
            self.directory: Final = Path(tempfile.mkdtemp(prefix="colo-compare-"))
            stack.callback(shutil.rmtree, self.directory)
            self.proxy_namespace: Final = Namespace("proxy")
            stack.callback(self.proxy_namespace.close)
            self.proxy_namespace.call(sysctl, "net.ipv6.conf.default.disable_ipv6", "1")
            self.client: Final = Namespace("client")
            stack.callback(self.client.close)
            prepare_host(self.client)
            self._cables: list[str] = []
            self.lay_cable("client", self.client)
            self.stack: Final = stack.pop_all()

    def lay_cable(self, name: str, host: Namespace) -> None:
        """Connect a host's `eth0` with an interface of the proxy."""
        link.connect(self.proxy_namespace, name, host, "eth0")
        self.proxy_namespace.call(link.set_up_silent, name, self.wiring.mtu + TAGS)
        self._cables.append(name)

    def set_up_client(self) -> None:
        """Let the client speak: all guests should be there by now, as they are to see the same frames."""
        set_up_host(self.client, self.wiring, CLIENT_MAC, CLIENT4, CLIENT6)
        for name in self._cables:
            self.proxy_namespace.call(link.wait_until_up, name)

    def ports(self, **parameters: str) -> dict[str, str]:
        """Give the table [ports], with URL parameters for some sides: ``ports(secondary="fault=...")``."""
        kind = "tap" if self.wiring.taps else "packet"
        ports = {"client": "packet:client", "primary": f"{kind}:primary", "secondary": f"{kind}:secondary"}
        return ports | {side: f"{ports[side]}?{text}" for side, text in parameters.items()}

    def start_proxy(self, tables: Mapping[str, Table]) -> None:
        """Start the proxy. `tables` is its configuration without [control]; [ports] may be left out."""
        self.proxy = ProxyProcess(self.proxy_namespace, self.directory, {"ports": self.ports(), **tables})
        self.proxy.start()

    def close(self) -> None:
        """End every process and remove every trace. Safe to call twice."""
        self.stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Lab(Network):
    """Everything above. Guests and proxy are not started yet.

    `guests[0]` (A) is the primary at first.
    """

    def __init__(self, wiring: Wiring = PLAIN) -> None:
        super().__init__(wiring)
        with ExitStack() as stack:
            stack.callback(self.close)  # if the rest fails
            self.guests: list[Guest] = []
            for side, timestamps in zip(SIDES, wiring.timestamps, strict=True):
                self.add_guest(side, timestamps)
            stack.pop_all()

    def add_guest(self, interface: str, timestamps: int = 1) -> Guest:
        """Add a guest, connected to an interface of the proxy, and give it. It does not run yet."""
        guest = Guest("ABCDEFGH"[len(self.guests)], self.wiring, timestamps)
        self.guests.append(guest)
        self.stack.callback(guest.namespace.close)
        if not self.wiring.taps:
            self.lay_cable(interface, guest.namespace)
        return guest

    def start(self, tables: Mapping[str, Table]) -> None:
        """Start the proxy, then the guests, then let the client speak: both guests see the same frames.

        `tables` is the configuration without [control]; [ports] may be left out.
        """
        self.start_proxy(tables)
        for guest, side in zip(self.guests[:2], SIDES, strict=True):  # others are spare
            if self.wiring.taps:
                self.proxy_namespace.call(link.move, side, guest.namespace, "eth0")
            guest.set_up()
            guest.start()
        self.set_up_client()
