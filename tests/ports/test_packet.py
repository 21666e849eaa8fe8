import errno
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from pyroute2 import IPRoute
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports import FramePort, batch, packet
from colo_compare.ports.packet import PacketPort, without_headers
from colo_compare.ports.packet_batch import RUN, insert_tag
from colo_compare.ports.tap import TapPort
from colo_compare.testing import check_port
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame, parse_frame
from colo_compare.wire.vnet import GSO_TCPV4, NEEDS_CSUM, VnetHeader, parse_vnet
from tests import frames
from tests.namespaces import as_nobody, ip, settle

pytestmark = pytest.mark.usefixtures("form")

DATA = frames.ethernet(b"payload".ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC)
PLAIN = parse_frame(DATA, 0, False)


def tcp_frame(payload: bytes, vlans: tuple[int, ...] = (), gso_size: int = 0) -> Frame:
    """A frame as a guest with checksum offload sends it."""
    source, target = frames.GUEST_IP4, frames.CLIENT_IP4
    segment = frames.tcp_segment(
        source, target, 80, 999, 1, 1, frames.ACK, 100, b"", payload, partial_checksum=True
    )
    ethernet = frames.ethernet(
        frames.ipv4(segment, frames.TCP, source, target, 7),
        0x0800,
        frames.GUEST_MAC,
        frames.CLIENT_MAC,
        vlans,
    )
    l4 = 34 + 4 * len(vlans)
    header = VnetHeader(NEEDS_CSUM, csum_start=l4, csum_offset=16)
    if gso_size:
        header.gso_type = GSO_TCPV4
        header.gso_size = gso_size
        header.hdr_len = l4 + 20
    return parse_frame(header.pack() + ethernet, VNET_HEADER_LEN, False)


def port(interface: str, vnet_hdr: str = "auto") -> PacketPort:
    return PacketPort(f"packet:{interface}", interface, vnet_hdr)


async def test_own_frames_are_not_received(veth: tuple[str, str]) -> None:
    async with port("left") as left, port("right") as right:
        assert left.send_batch([PLAIN]) == 1
        assert [data[right.header_len :] for data in await right.receive_batch()] == [DATA]
        assert left.drain() == []


@pytest.mark.parametrize("vnet_hdr", ["auto", "no"])
@pytest.mark.parametrize("vlans", [(5,), (0xE005,), (5, 6)])
async def test_vlan_tags_are_put_back(veth: tuple[str, str], vnet_hdr: str, vlans: tuple[int, ...]) -> None:
    tagged = frames.ethernet(b"payload".ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC, vlans)
    async with port("left") as left, port("right", vnet_hdr) as right:
        left.send_batch([parse_frame(tagged, 0, False)])
        assert [data[right.header_len :] for data in await right.receive_batch()] == [tagged]


@pytest.mark.parametrize("vlans", [(), (5,), (5, 6)])
@pytest.mark.parametrize("gso_size", [0, 1000])
async def test_offload_headers_fit_tagged_frames(
    veth: tuple[str, str], vlans: tuple[int, ...], gso_size: int
) -> None:
    frame = tcp_frame(bytes(3000), vlans, gso_size)
    async with port("left") as left, port("right") as right:
        left.send_batch([frame])
        [data] = await right.receive_batch()
    assert data[VNET_HEADER_LEN:] == frame.data[VNET_HEADER_LEN:]
    header, sent = parse_vnet(data), parse_vnet(frame.data)
    assert (header.csum_start, header.csum_offset) == (sent.csum_start, sent.csum_offset)
    assert (header.gso_type, header.gso_size) == (sent.gso_type, sent.gso_size)


async def test_frames_longer_than_the_mtu_are_dropped_and_counted(veth: tuple[str, str]) -> None:
    ip("link set dev left mtu 1500")
    too_long = parse_frame(DATA.ljust(1515, b"x"), 0, False)
    longest = parse_frame(DATA.ljust(1514, b"x"), 0, False)
    tagged = frames.ethernet(bytes(1500), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC, (5,))
    async with port("left") as left, port("right") as right:
        assert left.send_batch([too_long, longest, too_long, parse_frame(tagged, 0, False)]) == 4
        assert left.counters.dropped_send == 2
        assert left.counters.sent_frames == 2
        assert left.counters.sent_bytes == 1514 + 1518
        assert [len(data) for data in await right.receive_batch()] == [1526, 1530]


async def test_what_the_kernel_drops_is_counted(veth: tuple[str, str]) -> None:
    async with port("left") as left, port("right") as right:
        right._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
        assert left.send_batch([PLAIN] * 500) == 500
        got = len(await right.receive_batch())
        assert 0 < got < 500
        assert right.counters.dropped_receive == 500 - got
        assert right.drain() == []
        assert right.counters.dropped_receive == 500 - got


async def test_frames_that_do_not_fit_into_a_slot_are_counted(
    veth: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet, "SLOT", 2048)
    async with port("left") as left, port("right") as right:
        left.send_batch([parse_frame(DATA.ljust(size, b"x"), 0, False) for size in (2035, 2036, 9000, 64)])
        assert [len(data) for data in await right.receive_batch()] == [2047, 76]
        assert right.counters.dropped_receive == 2


async def test_a_full_interface_queue_is_waited_for(tap: str) -> None:
    """A queue that refuses frames (ENOBUFS) leaves the socket writable; nothing is lost, nothing spins."""
    with IPRoute() as netlink:
        netlink.tc("replace", "noqueue", netlink.link_lookup(ifname=tap)[0])
    batch = [PLAIN] * 1500
    async with port(tap) as sender, TapPort(f"tap:{tap}", tap) as receiver:
        settle(tap)
        taken = sender.send_batch(batch)
        assert taken == 1000
        got = 0
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                nonlocal got
                while got < len(batch):
                    got += len(await receiver.receive_batch())

            nursery.start_soon(read)
            while taken < len(batch):
                await sender.wait_writable()
                taken = sender.send_batch(batch, taken)
        assert got == len(batch)
        assert sender.counters.sent_frames == len(batch)
        assert sender.counters.dropped_send == 0


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[FramePort, FramePort]]:
    async with port("left") as left, port("right") as right:
        yield left, right


async def test_kernels_with_short_headers_only(
    veth: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.5 the virtio-net header of a packet socket has 10 bytes."""
    monkeypatch.setattr(packet, "PACKET_VNET_HDR_SZ", 9999)
    async with port("left") as left:
        assert left.header_len == VNET_HEADER_LEN
    await check_port(linked, longest=65549)


async def test_short_headers_with_vlan_tags(veth: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet, "PACKET_VNET_HDR_SZ", 9999)
    frame = tcp_frame(bytes(3000), (5,), 1000)
    async with port("left") as left, port("right") as right:
        left.send_batch([frame])
        [data] = await right.receive_batch()
    assert data[VNET_HEADER_LEN:] == frame.data[VNET_HEADER_LEN:]
    assert parse_vnet(data).csum_start == 38


async def test_kernels_without_headers(veth: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet, "PACKET_VNET_HDR_SZ", 9999)
    monkeypatch.setattr(packet, "PACKET_VNET_HDR", 9999)
    async with port("left") as left, port("right") as right:
        assert (left.header_len, right.header_len) == (0, 0)
        left.send_batch([PLAIN, tcp_frame(b"data")])
        got = await right.receive_batch()
    assert got[0] == DATA
    assert frames.dissect(got[1]).problems == []
    with pytest.raises(PortUnavailable, match=r"gives no virtio-net headers .*: use vnet_hdr=no"):
        await port("left", "yes").open()


async def test_an_interface_that_is_not_there(veth: tuple[str, str]) -> None:
    with pytest.raises(PortUnavailable) as caught:
        await port("eth7").open()
    assert str(caught.value) == "packet:eth7: interface eth7: No such device; there are left, lo, right"


async def test_an_interface_that_is_down(veth: tuple[str, str]) -> None:
    ip("link set dev left down")
    with pytest.raises(PortUnavailable) as caught:
        await port("left").open()
    assert str(caught.value) == "packet:left: interface left is down: `ip link set dev left up`"


async def test_a_user_without_the_capability(veth: tuple[str, str]) -> None:
    with (
        as_nobody(),
        pytest.raises(PortUnavailable, match=r"uid 65534 may not open packet sockets: .* CAP_NET_RAW"),
    ):
        await port("left").open()


def test_a_small_receive_buffer_is_told() -> None:
    """Only CAP_NET_ADMIN outside of every user namespace gets more than net.core.rmem_max."""
    program = (
        "import logging, socket, trio; from colo_compare.ports.packet import PacketPort; "
        "logging.basicConfig(format='%(message)s')\n"
        "async def main():\n"
        " async with PacketPort('packet:lo', 'lo') as port:\n"
        "  print(port._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2048)\n"
        "trio.run(main)"
    )
    shell = f"ip link set lo up && exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", shell],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"needs a user namespace: {tried.stderr.strip()}")
    granted = int(tried.stdout)
    if granted >= 16 << 10:
        pytest.skip(f"net.core.rmem_max gives everybody {granted} KiB here")
    assert tried.stderr == (
        f"packet:lo: a receive buffer of {granted} KiB only, bursts will be lost: "
        "`sysctl -w net.core.rmem_max=67108864`, or run the proxy with CAP_NET_ADMIN\n"
    )


@pytest.mark.parametrize(
    ("command", "why"),
    [("link del left", "removed, or moved"), ("link set dev left down", "left was set down")],
)
async def test_an_interface_that_goes_away_while_waiting(
    veth: tuple[str, str], command: str, why: str
) -> None:
    async def wait(waiting: FramePort) -> None:
        with pytest.raises(PortClosed, match=why):
            await waiting.receive_batch()

    async with port("left") as left, trio.open_nursery() as nursery:
        nursery.start_soon(wait, left)
        await wait_all_tasks_blocked()
        ip(command)
    with pytest.raises(PortClosed, match=why):
        left.send_batch([PLAIN])
    assert not left.connected


@pytest.mark.parametrize(
    ("command", "why"),
    [("link del left", "removed, or moved"), ("link set dev left down", "left was set down")],
)
async def test_an_interface_that_goes_away_is_noticed_when_sending(
    veth: tuple[str, str], command: str, why: str
) -> None:
    async def wait(waiting: FramePort) -> None:
        with pytest.raises(PortClosed, match=why):
            await waiting.receive_batch()

    async with port("left") as left, trio.open_nursery() as nursery:
        nursery.start_soon(wait, left)
        await wait_all_tasks_blocked()
        ip(command)
        with pytest.raises(PortClosed, match=why):
            left.send_batch([PLAIN])
        with pytest.raises(PortClosed, match=why):
            left.drain()


async def test_frames_from_before_the_end_are_given(veth: tuple[str, str]) -> None:
    async with port("left") as left, port("right") as right:
        left.send_batch([PLAIN] * 3)
        ip("link del left")
        assert len(right.drain()) == 3
        with pytest.raises(PortClosed):
            await right.receive_batch()


async def test_down_and_up_again_changes_nothing(veth: tuple[str, str]) -> None:
    async with port("left") as left, port("right") as right:
        ip("link set dev right down")
        ip("link set dev right up")
        settle("left", "right")
        left.send_batch([PLAIN])
        assert len(await right.receive_batch()) == 1
        ip("link set dev left down")
        ip("link set dev left up")
        assert left.send_batch([PLAIN]) == 1


class Refusing(batch.MessageReceiver):
    """A kernel that throws away what its virtio-net header cannot express: recvmsg fails once for each."""

    refusals = 0

    def receive(self, fd: int, messages: list[bytes], /) -> int:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        return super().receive(fd, messages)


async def test_frames_that_the_kernel_cannot_express_are_counted(veth: tuple[str, str]) -> None:
    async with port("left") as left, port("right") as right:
        right._batches.receiver = refusing = Refusing(RUN, packet.SLOT)
        refusing.refusals = 3
        left.send_batch([PLAIN])
        assert len(await right.receive_batch()) == 1
        assert right.counters.dropped_receive == 3


async def test_a_socket_that_gives_nothing_but_errors_is_gone(veth: tuple[str, str]) -> None:
    async with port("left") as left:
        left._batches.receiver = refusing = Refusing(RUN, packet.SLOT)
        refusing.refusals = 10**9
        with pytest.raises(PortClosed, match="cannot be read: Invalid argument"):
            left.drain()


def test_a_tag_goes_behind_the_addresses() -> None:
    tag = struct.pack(">HH", 0x8100, 5)
    assert insert_tag(DATA, 0, tag) == DATA[:12] + tag + DATA[12:]
    header = VnetHeader(csum_start=34, hdr_len=54).pack()  # csum_start means nothing without NEEDS_CSUM
    tagged = insert_tag(header + DATA, VNET_HEADER_LEN, tag)
    assert tagged[VNET_HEADER_LEN:] == DATA[:12] + tag + DATA[12:]
    assert (parse_vnet(tagged).csum_start, parse_vnet(tagged).hdr_len) == (34, 58)


def test_headers_are_taken_at_their_word() -> None:
    bare = without_headers([bytes(12) + DATA, tcp_frame(b"data").data, tcp_frame(bytes(2500), (), 1000).data])
    assert bare[0] == DATA
    assert len(bare) == 1 + 1 + 3
    assert all(frames.dissect(data).problems == [] for data in bare[1:])
