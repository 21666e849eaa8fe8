"""The end that all of this is for: a process with no capability at all uses the tap.

The frames go over the wire that a deployment has: a socket on one end of a veth, the other end in our bridge,
our tap in it, and behind the tap a process of uid 65532.
"""

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tap_setup.namespaces import inside
from tap_setup.tun import TUNSETIFF, TapShape
from tests.tap_setup.scene import Scene
from tests.tap_setup.unprivileged import TUNSETVNETHDRSZ, UID

CONFIG = """
[[bridges]]
name = "br-client"
namespace = "HERE"
ports = ["eth1"]
[[taps]]
name = "tap-pri"
owner = 65532
group = 65532
multi_queue = MULTI_QUEUE
namespace = "HERE"
bridge = "br-client"
"""

ROOT = Path(__file__).parents[2]
ETHERTYPE = 0x88B5  # for local experiments: IEEE 802
CLIENT_MAC = bytes.fromhex("525400000001")
GUEST_MAC = bytes.fromhex("525400000002")
SOL_PACKET, PACKET_VNET_HDR = 263, 15  # include/linux/socket.h, include/uapi/linux/if_packet.h
ETH_P_ALL = 3
VNET_HEADER = struct.Struct("<BBHHHH")  # struct virtio_net_hdr: flags, gso type, header, gso size, checksum
NEEDS_CSUM, GSO_TCPV4 = 1, 1


@contextmanager
def process(scene: Scene, how: str, name: str) -> Iterator[list[dict[str, Any]]]:
    """Run tests.tap_setup.unprivileged in the scene; gives what it said of itself.

    `ip netns exec` gives it a mount namespace of its own, in which our device node covers the machine's.
    """
    command = (
        f"mount --bind {scene.device} /dev/net/tun && exec {sys.executable} -m tests.tap_setup.unprivileged"
    )
    with subprocess.Popen(
        ["ip", "netns", "exec", scene.name, "sh", "-c", f"{command} {how} {name}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            lines = [child.stdout.readline(), child.stdout.readline()]
            if not lines[1]:
                raise AssertionError(child.stderr.read())
            yield [json.loads(line) for line in lines]
            child.stdin.close()
            assert child.wait(timeout=30) == 0, child.stderr.read()
        finally:
            child.kill()


@contextmanager
def wire(scene: Scene) -> Iterator[socket.socket]:
    """A socket on the far end of the veth, with a virtio-net header of 10 bytes before each frame."""

    def open_socket(_: object) -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))

    with ExitStack() as stack:
        end = stack.enter_context(inside(scene.name, scene.device, open_socket))
        end.bind(("wire", ETH_P_ALL))
        end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        end.settimeout(30)
        yield end


@pytest.fixture
def bridged(scene: Scene) -> Scene:
    scene.run("sysctl -w net/ipv6/conf/default/disable_ipv6=1")
    scene.run("ip link add eth1 type veth peer name wire")
    scene.run("ip link set dev wire mtu 1500 up")
    return scene


def create(scene: Scene, *, multi_queue: bool) -> None:
    config = CONFIG.replace("MULTI_QUEUE", "true" if multi_queue else "false")
    assert scene.create(config).deviations == []


def wait_until_forwarding(scene: Scene, *ports: str) -> None:
    """Wait until the bridge has heard of the carriers of its ports."""
    states: list[str] = []
    for _ in range(1000):
        states = [scene.link(port)["linkinfo"]["info_slave_data"]["state"] for port in ports]
        if states == ["forwarding"] * len(ports):
            return
    pytest.fail(f"the bridge's ports are {states}")


def exchange(end: socket.socket, frame: bytes, header: bytes = bytes(10)) -> tuple[bytes, bytes]:
    """Send a frame; give the header and the frame that come back to us."""
    end.send(header + frame)
    while True:
        answer = end.recv(1 << 17)
        if answer[10:16] == CLIENT_MAC:
            return answer[:10], answer[10:]


@pytest.mark.parametrize(("how", "multi_queue"), [("port", False), ("port", True), ("raw", True)])
def test_a_process_without_privileges_uses_the_tap(bridged: Scene, how: str, multi_queue: bool) -> None:
    scene = bridged
    create(scene, multi_queue=multi_queue)
    with process(scene, how, "tap-pri") as (identity, opened), wire(scene) as end:
        none = ["0000000000000000"]
        assert {key: identity[key] for key in identity if key.startswith("Cap")} == {
            "CapInh": none,
            "CapPrm": none,
            "CapEff": none,
            "CapBnd": none,
            "CapAmb": none,
        }
        assert identity["Uid"] == identity["Gid"] == [str(UID)] * 4
        assert (identity["Groups"], identity["NoNewPrivs"]) == ([], ["1"])
        assert opened == {"header_len": 12}
        data = scene.link("tap-pri")["linkinfo"]["info_data"]
        assert data["vnet_hdr"] is True
        assert data.get("numqueues") == (None if not multi_queue else 2 if how == "raw" else 1)
        wait_until_forwarding(scene, "eth1", "tap-pri")

        for size in (46, 1000, 1500):
            frame = GUEST_MAC + CLIENT_MAC + struct.pack("!H", ETHERTYPE) + os.urandom(size)
            assert exchange(end, frame)[1] == CLIENT_MAC + GUEST_MAC + frame[12:]

        # One segment of 20,000 bytes goes there and back as a whole: offloads are on.
        segment = bytes(
            Ether(dst=GUEST_MAC, src=CLIENT_MAC)
            / IP(src="10.9.9.1", dst="10.9.9.2")
            / TCP()
            / os.urandom(20_000)
        )
        header = VNET_HEADER.pack(NEEDS_CSUM, GSO_TCPV4, 54, 1448, 34, 16)
        back, answer = exchange(end, segment, header)
        assert answer[12:] == segment[12:]
        flags, gso_type, _, gso_size, start, offset = VNET_HEADER.unpack(back)
        assert (flags & NEEDS_CSUM, gso_type, gso_size, start, offset) == (
            NEEDS_CSUM,
            GSO_TCPV4,
            1448,
            34,
            16,
        )


WIRE = """
[[bridges]]
name = "br-pri"
namespace = "HERE"
[[taps]]
name = "tap-pri"
owner = 0
namespace = "HERE"
bridge = "br-pri"
[[taps]]
name = "vm-pri"
owner = 65532
group = 65532
multi_queue = true
namespace = "HERE"
bridge = "br-pri"
"""


def test_a_bridge_of_two_taps_is_a_wire(scene: Scene) -> None:
    """Between a guest's tap and the proxy's: neither of them needs a capability then."""
    assert scene.create(WIRE).deviations == []
    with process(scene, "raw", "vm-pri"), attached(scene, "tap-pri") as tap:
        wait_until_forwarding(scene, "tap-pri", "vm-pri")
        ethertypes = {"plain": "88b5", "802.1Q": "8100002a88b5", "802.1ad": "88a8000781000fff88b5"}
        for ethertype in ethertypes.values():
            frame = bytes(12) + GUEST_MAC + CLIENT_MAC + bytes.fromhex(ethertype) + os.urandom(1000)
            os.write(tap, frame)
            assert select.select([tap], [], [], 30)[0] == [tap]
            assert os.read(tap, 1 << 17)[12:] == CLIENT_MAC + GUEST_MAC + frame[24:]


@contextmanager
def attached(scene: Scene, name: str) -> Iterator[int]:
    """Have a tap open, with a virtio-net header of 12 bytes before each frame."""
    tap = inside(scene.name, scene.device, lambda _: os.open(scene.device, os.O_RDWR | os.O_NONBLOCK))
    try:
        flags = TapShape(owner=0, group=None, multi_queue=False, vnet_hdr=True).flags()
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", 12))
        yield tap
    finally:
        os.close(tap)


@pytest.mark.parametrize(
    "other",
    ["owner = 61234", "owner = 65532\ngroup = 61235"],
)
def test_a_tap_of_another_owner_or_group_is_refused(scene: Scene, other: str) -> None:
    config = f'[[taps]]\nname = "t"\nnamespace = "HERE"\n{other}'
    assert scene.create(config).deviations == []
    with pytest.raises(AssertionError, match="does not belong to uid 65532"), process(scene, "port", "t"):
        pass


def test_offloads_of_a_tap_belong_to_the_process(bridged: Scene, ethtool: None) -> None:
    """Why [[taps]] has no offloads: what ethtool sets is overwritten by the next process that attaches."""
    scene = bridged
    create(scene, multi_queue=True)
    scene.run("ethtool -K tap-pri tx off tso off")
    assert scene.offloads("tap-pri")["tx-tcp-segmentation"] == "off"
    with process(scene, "raw", "tap-pri"):
        assert scene.offloads("tap-pri")["tx-tcp-segmentation"] == "on"
        assert scene.offloads("tap-pri")["tx-checksum-ip-generic"] == "on"
