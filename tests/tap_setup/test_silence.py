"""The host's own stack does not answer for the guest.

Each probe is sent through a plain tap first, where the host does answer: so the probe is one that works. The
kernel takes a frame that is written to a tap up through its whole stack before write(2) returns, so what has
not come back by then never will.
"""

import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether

from tap_setup.host import Host
from tap_setup.namespaces import inside
from tap_setup.tun import TUNSETIFF, TapShape
from tests.tap_setup.scene import Scene

HOST = "10.77.0.1"  # an address of the host, not on the tap
GUEST = "10.77.0.2"
GUEST_MAC = "52:54:00:00:00:01"
PORT = 4789
BROADCAST = "ff:ff:ff:ff:ff:ff"

CONFIG = """
[[taps]]
name = "t"
owner = 0
vnet_hdr = false
namespace = "HERE"
"""


@pytest.fixture
def host(scene: Scene) -> Scene:
    """A host that does not filter: the strictness of this machine's distribution must not help."""
    scene.run(f"ip address add {HOST}/32 dev lo")
    scene.run("ip link set dev lo up")
    scene.run("sysctl -w net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/default/rp_filter=0")
    scene.run("sysctl -w net/ipv6/conf/default/accept_dad=0 net/ipv6/conf/default/disable_ipv6=0")
    return scene


def plain(scene: Scene) -> None:
    scene.run("ip tuntap add dev t mode tap")
    scene.run("ip link set dev t up")


def set_up(scene: Scene) -> None:
    assert scene.create(CONFIG).deviations == []


def set_up_loosely(scene: Scene) -> None:
    # The kernel takes the greater of the two: some distributions filter loosely (2) on all links.
    set_up(scene)
    scene.run("sysctl -w net/ipv4/conf/all/rp_filter=2")


@contextmanager
def guest(scene: Scene) -> Iterator[tuple[int, socket.socket]]:
    """Give the guest's end of the tap, and a UDP socket of the host."""

    def open_both(_: Host) -> tuple[int, socket.socket]:
        tap = os.open(scene.device, os.O_RDWR | os.O_NONBLOCK)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        server.bind((HOST, PORT))
        return tap, server

    with ExitStack() as stack:
        tap, server = inside(scene.name, scene.device, open_both)
        stack.callback(os.close, tap)
        stack.enter_context(server)
        shape = TapShape(owner=0, group=None, multi_queue=False, vnet_hdr=False)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"t", shape.flags()))
        # Until its protocols know of the carrier the kernel would drop its own answers.
        wait_for_carrier(scene)
        yield tap, server


def answers(tap: int, frame: Ether) -> list[Ether]:
    """Send a frame; give what comes back at once."""
    received(tap)
    os.write(tap, bytes(frame))
    return received(tap)


def received(tap: int) -> list[Ether]:
    frames = []
    while True:
        try:
            frames.append(Ether(os.read(tap, 65536)))
        except BlockingIOError:
            return frames


@pytest.mark.parametrize(("prepare", "answered"), [(plain, True), (set_up, False), (set_up_loosely, False)])
def test_arp(host: Scene, prepare: Callable[[Scene], None], answered: bool) -> None:
    prepare(host)
    with guest(host) as (tap, _):
        request = Ether(dst=BROADCAST, src=GUEST_MAC) / ARP(pdst=HOST, psrc=GUEST, hwsrc=GUEST_MAC)
        replies = [frame for frame in answers(tap, request) if ARP in frame and frame[ARP].op == 2]
        assert len(replies) == answered


@pytest.mark.parametrize(("prepare", "answered"), [(plain, True), (set_up, False), (set_up_loosely, False)])
def test_ipv4(host: Scene, prepare: Callable[[Scene], None], answered: bool) -> None:
    prepare(host)
    with guest(host) as (tap, server):
        frame = Ether(dst=BROADCAST, src=GUEST_MAC) / IP(src=GUEST, dst=HOST) / UDP(dport=PORT) / b"hello"
        os.write(tap, bytes(frame))
        try:
            heard = server.recv(100)
        except BlockingIOError:
            heard = b""
        assert heard == (b"hello" if answered else b"")


@pytest.mark.parametrize(("prepare", "answered"), [(plain, True), (set_up, False), (set_up_loosely, False)])
def test_ipv4_with_a_route_to_the_guest(
    host: Scene, prepare: Callable[[Scene], None], answered: bool
) -> None:
    # The host knows a way to the guest's address, as a router that has it in its tables would.
    prepare(host)
    host.run("ip link add eth9 type veth peer name wire")
    host.run("ip link set dev eth9 up")
    host.run("ip link set dev wire up")
    host.run("ip neigh add 10.77.0.254 lladdr 52:54:00:00:00:fe dev eth9")
    host.run(f"ip route add {GUEST}/32 via 10.77.0.254 dev eth9 onlink")
    with guest(host) as (tap, server):
        frame = Ether(dst=BROADCAST, src=GUEST_MAC) / IP(src=GUEST, dst=HOST) / UDP(dport=PORT) / b"hello"
        os.write(tap, bytes(frame))
        try:
            heard = server.recv(100)
        except BlockingIOError:
            heard = b""
        assert heard == (b"hello" if answered else b"")


def test_ipv6(host: Scene) -> None:
    """IPv6 speaks by itself (MLD, router solicitation) as soon as the link has a carrier."""
    plain(host)
    with guest(host) as (tap, _):
        assert select.select([tap], [], [], 30)[0] == [tap]
        assert all(IPv6 in frame for frame in received(tap))
    host.run("ip link delete dev t")
    set_up(host)
    ping = (
        Ether(dst="33:33:00:00:00:01", src=GUEST_MAC)
        / IPv6(src="fe80::5054:ff:fe00:1", dst="ff02::1")
        / ICMPv6EchoRequest()
    )
    with guest(host) as (tap, _):
        assert received(tap) == []
        assert answers(tap, ping) == []
    with pytest.raises(AssertionError, match=r"Permission denied|IPv6 is disabled"):
        host.run("ip address add fe80::77/64 dev t nodad")


def wait_for_carrier(scene: Scene) -> None:
    """Wait until the kernel has told its protocols that the link has a carrier."""
    for _ in range(1000):
        if scene.link("t")["operstate"] == "UP":
            return
    pytest.fail("the tap did not come up")


def test_a_ping_in_a_broadcast(host: Scene) -> None:
    set_up(host)
    with guest(host) as (tap, _):
        assert answers(tap, Ether(dst=BROADCAST, src=GUEST_MAC) / IP(src=GUEST, dst=HOST) / ICMP()) == []
