import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports import tap as tap_module
from colo_compare.ports.packet import PacketPort
from colo_compare.ports.tap import TapPort
from colo_compare.wire.frame import VNET_HEADER_LEN, parse_frame
from tests import frames
from tests.namespaces import NOBODY, as_nobody, ip, quiet, settle

pytestmark = pytest.mark.usefixtures("form")

DATA = frames.ethernet(b"payload".ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC)
PLAIN = parse_frame(DATA, 0, False)


def port(interface: str = "tap0", vnet_hdr: str = "auto", multi_queue: str = "auto") -> TapPort:
    return TapPort(f"tap:{interface}", interface, vnet_hdr, multi_queue)


@pytest.fixture
def open_device(namespace: None, tun: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every user may open this copy of /dev/net/tun, as it is on an ordinary machine."""
    with tempfile.TemporaryDirectory() as directory:
        if os.statvfs(directory).f_flag & os.ST_NODEV:
            pytest.skip(f"no device can be made in {directory}: it is mounted nodev")
        Path(directory).chmod(0o711)
        device = Path(directory, "tun")
        os.mknod(device, stat.S_IFCHR, os.makedev(10, 200))
        device.chmod(0o666)
        monkeypatch.setattr(tap_module, "DEVICE", str(device))
        yield device


async def test_a_missing_tap_is_made_and_goes_away_again(namespace: None, tun: None) -> None:
    async with port("made") as made:
        assert made.header_len == VNET_HEADER_LEN
        settle("made")
        async with PacketPort("packet:made", "made") as other:  # which only opens what is up
            assert other.send_batch([PLAIN]) == 1
            while True:
                if DATA in [data[VNET_HEADER_LEN:] for data in await made.receive_batch()]:
                    break
    with pytest.raises(PortUnavailable, match="No such device"):
        await PacketPort("packet:made", "made").open()


@pytest.mark.parametrize("multi_queue", ["auto", "yes"])
async def test_several_queues_of_one_tap(namespace: None, tun: None, multi_queue: str) -> None:
    ip("tuntap add dev tap0 mode tap multi_queue")
    quiet("tap0")
    async with port(multi_queue=multi_queue), port(multi_queue=multi_queue) as second:
        assert second.connected


@pytest.mark.parametrize(("kind", "wanted"), [("multi_queue", "no"), ("", "yes")])
async def test_a_tap_with_another_number_of_queues(
    namespace: None, tun: None, kind: str, wanted: str
) -> None:
    ip(f"tuntap add dev tap0 mode tap {kind}")
    quiet("tap0")
    with pytest.raises(
        PortUnavailable, match=f"no tap, or not one with multi_queue={wanted}: see `ip -d link"
    ):
        await port(multi_queue=wanted).open()


async def test_a_tap_in_use(tap: str) -> None:
    async with port():
        with pytest.raises(PortUnavailable, match="tap0 is in use by another process"):
            await port().open()


async def test_an_interface_that_is_no_tap(veth: tuple[str, str], tun: None) -> None:
    with pytest.raises(PortUnavailable, match="left is no tap"):
        await port("left").open()


async def test_a_tap_that_is_down(tap: str) -> None:
    ip("link set dev tap0 down")
    with pytest.raises(PortUnavailable, match="tap0 is down: `ip link set dev tap0 up`"):
        await port().open()
    ip("link set dev tap0 up")
    async with port():  # it was let go of
        pass


async def test_the_owner_needs_no_capability(open_device: Path) -> None:
    ip(f"tuntap add dev tap0 mode tap multi_queue user {NOBODY}")
    quiet("tap0")
    async with PacketPort("packet:tap0", "tap0") as other:
        with as_nobody():
            async with port() as mine, port() as second_queue:
                assert (mine.header_len, second_queue.header_len) == (VNET_HEADER_LEN, VNET_HEADER_LEN)
                assert mine.send_batch([PLAIN]) == 1
                assert [data[other.header_len :] for data in await other.receive_batch()] == [DATA]


async def test_the_tap_of_another_user(open_device: Path) -> None:
    ip("tuntap add dev tap0 mode tap user 1")
    quiet("tap0")
    with as_nobody(), pytest.raises(PortUnavailable) as caught:
        await port().open()
    assert str(caught.value) == (
        "tap:tap0: tap tap0 does not belong to uid 65534: `ip tuntap add dev tap0 mode tap user 65534` or "
        "`colo-tap-setup create` makes one that does; else the capability CAP_NET_ADMIN is needed"
    )


async def test_a_user_may_not_make_a_tap(open_device: Path) -> None:
    with (
        as_nobody(),
        pytest.raises(PortUnavailable, match="there is no tap tap0, and uid 65534 may not create"),
    ):
        await port().open()


async def test_no_device(namespace: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_module, "DEVICE", str(tmp_path / "none"))
    with pytest.raises(PortUnavailable, match=r"there is no .*/none: `modprobe tun`"):
        await port().open()


@pytest.fixture
def closed_device(open_device: Path) -> None:
    open_device.chmod(0o600)


async def test_a_device_that_this_user_may_not_open(closed_device: None) -> None:
    with as_nobody(), pytest.raises(PortUnavailable, match=r"uid 65534 may not open .*: `chmod 0666"):
        await port().open()


async def test_something_else_in_the_place_of_the_device(
    namespace: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "device").mkdir()
    monkeypatch.setattr(tap_module, "DEVICE", str(tmp_path / "device"))
    with pytest.raises(PortUnavailable, match=r"Is a directory: is the tun module loaded\?"):
        await port().open()


async def test_large_frames_come_whole(tap: str) -> None:
    """The offloads that the tap offers are taken: a kernel without them would segment the frame first."""
    source, target = frames.GUEST_IP4, frames.CLIENT_IP4
    segment = frames.tcp_segment(
        source, target, 80, 999, 1, 1, frames.ACK, 100, b"", bytes(20000), partial_checksum=True
    )
    packet = frames.ipv4(segment, frames.TCP, source, target, 7)
    data = frames.ethernet(packet, 0x0800, frames.GUEST_MAC, frames.CLIENT_MAC)
    header = bytes((1, 1, 54, 0)) + (1400).to_bytes(2, "little") + bytes((34, 0, 16, 0, 0, 0))
    async with port() as mine, PacketPort(f"packet:{tap}", tap) as other:
        settle(tap)
        other.send_batch([parse_frame(header + data, VNET_HEADER_LEN, False)])
        [got] = await mine.receive_batch()
        assert got[VNET_HEADER_LEN:] == data


async def test_what_the_queue_cannot_hold_is_counted(tap: str) -> None:
    async with port() as mine, PacketPort(f"packet:{tap}", tap) as other:
        settle(tap)
        for _ in range(30):
            assert other.send_batch([PLAIN] * 100) == 100
        got = len(mine.drain())
        assert got < 3000
        assert mine.counters.received_frames == got
        assert mine.counters.dropped_receive == 3000 - got


async def test_frames_too_short_for_ethernet_are_dropped_and_counted(tap: str) -> None:
    async with port() as mine, PacketPort(f"packet:{tap}", tap) as other:
        settle(tap)
        assert mine.send_batch([parse_frame(DATA[:13], 0, False), PLAIN]) == 2
        assert mine.counters.dropped_send == 1
        assert mine.counters.sent_frames == 1
        assert len(await other.receive_batch()) == 1


async def test_a_tap_that_is_removed_while_waiting(tap: str) -> None:
    async def wait(waiting: TapPort) -> None:
        with pytest.raises(PortClosed, match="tap:tap0: interface tap0 was removed"):
            await waiting.receive_batch()

    async with port() as mine, trio.open_nursery() as nursery:
        nursery.start_soon(wait, mine)
        await wait_all_tasks_blocked()
        ip("link del tap0")
    with pytest.raises(PortClosed, match="interface tap0 was removed"):
        mine.send_batch([PLAIN])


async def test_a_tap_that_is_removed_is_noticed_when_sending(tap: str) -> None:
    async with port() as mine:
        ip("link del tap0")
        with pytest.raises(PortClosed, match="interface tap0 was removed"):
            mine.send_batch([PLAIN])
        assert not mine.connected


async def test_a_tap_that_is_set_down_is_noticed_when_sending(tap: str) -> None:
    async with port() as mine:
        ip("link set dev tap0 down")
        with pytest.raises(PortClosed, match="interface tap0 was set down"):
            mine.send_batch([PLAIN])
