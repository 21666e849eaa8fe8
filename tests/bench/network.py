"""A client, two guests, and between them one of: the proxy, the bare relay, one that waits, a bridge.

The same lab as in the end-to-end tests: network namespaces with the kernel's own TCP, joined by veth pairs.
"""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute

from colo_compare.build import is_compiled
from colo_compare.demo import link
from colo_compare.demo.lab import CLIENT4, CLIENT6, CLIENT_MAC, GUEST4, Lab, Wiring, set_up_host
from colo_compare.demo.namespace import Namespace
from colo_compare.demo.proxy_process import ProxyProcess, Table
from colo_compare.errors import SetupError
from tests.bench.process import cpu_seconds
from tests.bench.programs import program

PROXY, RELAY, BRIDGE = "proxy", "relay", "bridge"
WAITING = "relay that waits for both"
ALL = (PROXY, RELAY, BRIDGE)


def missing() -> str:
    """Say why there can be no such network, nothing if there can."""
    try:
        Namespace("probe").close()
    except SetupError as error:
        return str(error)
    return ""


class Network:
    """The lab with what is between its hosts running."""

    def __init__(self, lab: Lab, between: str) -> None:
        self._lab = lab
        self.between = between
        self.pulses = 0  # runs of frames that both guests sent at once
        self.pid = 0  # of what is between; none where that is the kernel
        self._relay: subprocess.Popen[bytes] | None = None
        if between == PROXY:
            tables: dict[str, Table] = {
                "proxy": {"mode": "protect", "max_flows": 1 << 20},
                "ports": lab.ports(),
                "checkpointer": {"backend": "null", "assume_deterministic": True},
            }
            self.proxy = lab.proxy = ProxyProcess(lab.proxy_namespace, lab.directory, tables)
            self.proxy.start()
            if self.proxy.status()["compiled"] is not is_compiled():
                raise RuntimeError("the proxy that runs is another one than the one to be measured")
            self.pid = lab.proxy_namespace.processes[-1].pid
        elif between in (RELAY, WAITING):
            words = ["wait"] if between == WAITING else []
            self._relay = self._start(lab.proxy_namespace, "relay", "client", "primary", "secondary", *words)
            self.pid = self._relay.pid
        else:
            lab.proxy_namespace.call(bridge, "client", "primary")
        for guest in lab.guests:
            guest.set_up()
            self._start(guest.namespace, "traffic", "serve")
        set_up_host(lab.client, lab.wiring, CLIENT_MAC, CLIENT4, CLIENT6)
        for name in ("client", "primary", "secondary"):
            lab.proxy_namespace.call(link.wait_until_up, name)

    @staticmethod
    def _start(namespace: Namespace, name: str, *words: str) -> subprocess.Popen[bytes]:
        process = namespace.start([program(name), *words], stdout=subprocess.PIPE)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{name} does not start")
        return process

    def client(self, *words: str) -> bytes:
        """Let the client do something with the guest; gives what it printed."""
        kind, *rest = words
        process = self._lab.client.start([program("traffic"), kind, GUEST4, *rest], stdout=subprocess.PIPE)
        output, _ = process.communicate(timeout=60)
        self._lab.client.processes.remove(process)
        if process.returncode:
            raise RuntimeError(f"traffic {kind} failed")
        return output

    def cpu(self) -> float:
        """Give the CPU time of what is between."""
        return cpu_seconds(self.pid) if self.pid else 0.0

    def far_ends(self) -> list[socket.socket]:
        """Give packet sockets at the interfaces of the client and of both guests."""
        hosts = [self._lab.client, *(guest.namespace for guest in self._lab.guests)]
        return [host.call(_packet_socket) for host in hosts]

    def relayed(self) -> tuple[int, int, int]:
        """End the relay; gives how many frames came from the client, the primary and the secondary."""
        assert self._relay is not None
        self._relay.send_signal(signal.SIGTERM)
        counts = self._relay.communicate(timeout=10)[0].split()
        return int(counts[0]), int(counts[1]), int(counts[2])


@contextmanager
def network(between: str, *, offloads: bool = True) -> Iterator[Network]:
    """Build it, and take it away again."""
    with Lab(Wiring(offloads=offloads)) as lab:
        yield Network(lab, between)


def _packet_socket() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
    sock.bind(("eth0", 3))  # ETH_P_ALL
    return sock


def bridge(*names: str) -> None:
    """Bridge interfaces of the namespace of this thread."""
    with IPRoute() as ip:
        ip.link("add", ifname="bridge", kind="bridge")
        (index,) = ip.link_lookup(ifname="bridge")
        for name in names:
            (port,) = ip.link_lookup(ifname=name)
            ip.link("set", index=port, master=index)
        ip.link("set", index=index, state="up")
