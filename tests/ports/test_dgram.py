import socket
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports.dgram import LONGEST, DgramPort
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame, parse_frame
from tests import frames

DATA = frames.ethernet(b"payload".ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC)
PLAIN = parse_frame(DATA, 0, False)


@pytest.fixture
def port(tmp_path: Path) -> DgramPort:
    """Made, not opened; `peer` in the same directory is QEMU's path."""
    return DgramPort("dgram+unix:x", str(tmp_path / "port"), str(tmp_path / "peer"))


def qemu(port: DgramPort) -> socket.socket:
    """The other end, as QEMU makes it: bound, and connected to nobody."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(port.peer)
    sock.settimeout(10)
    return sock


async def test_a_peer_that_is_not_there(port: DgramPort) -> None:
    async with port:
        assert not port.connected
        assert port.send_batch([PLAIN] * 3) == 3
        assert port.counters.dropped_send == 3
        await port.wait_writable()


async def test_a_peer_that_goes_and_comes_back(port: DgramPort) -> None:
    async with port:
        for round_ in range(1, 3):
            with qemu(port) as peer:
                assert port.send_batch([PLAIN]) == 1
                assert port.connected
                assert peer.recv(2000) == DATA
                peer.sendto(DATA, port.path)
                assert await port.receive_batch() == [DATA]
            assert port.send_batch([PLAIN]) == 1
            assert [port.connected] == [False]
            assert (port.counters.sent_frames, port.counters.dropped_send) == (round_, round_)
            await trio.Path(port.peer).unlink()


async def test_a_peer_that_speaks_is_connected(port: DgramPort) -> None:
    async with port:
        with qemu(port) as peer:
            peer.sendto(DATA, port.path)
            assert await port.receive_batch() == [DATA]
            assert port.connected


async def test_a_full_peer_is_waited_for(port: DgramPort) -> None:
    batch = [PLAIN] * 100
    async with port:
        with qemu(port) as peer:
            taken = port.send_batch(batch)
            assert 0 < taken < 100  # 11, where net.unix.max_dgram_qlen is 10
            assert port.send_batch(batch, taken) == taken
            writable = trio.Event()

            async def wait() -> None:
                await port.wait_writable()
                writable.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                assert not writable.is_set()
                for _ in range(taken):
                    assert peer.recv(2000) == DATA
            assert port.send_batch(batch, taken) > taken


async def test_a_full_peer_that_goes_away_is_not_waited_for(port: DgramPort) -> None:
    batch = [PLAIN] * 100
    async with port, trio.open_nursery() as nursery:
        peer = qemu(port)
        taken = port.send_batch(batch)
        nursery.start_soon(port.wait_writable)
        await wait_all_tasks_blocked()
        peer.close()
        await port.wait_writable()
        assert port.send_batch(batch, taken) == 100


async def test_a_peer_that_is_connected_to_the_port(port: DgramPort) -> None:
    """Its queue has no limit of its own: the send buffer is what fills up."""
    batch = [PLAIN] * 100
    async with port:
        port._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
        with qemu(port) as peer:
            peer.connect(port.path)
            taken = port.send_batch(batch)
            assert 0 < taken < 100
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.wait_writable)
                await wait_all_tasks_blocked()
                for _ in range(taken):
                    assert peer.recv(2000) == DATA
            assert port.send_batch(batch, taken) > taken


async def test_a_peer_that_is_connected_to_somebody_else(port: DgramPort, tmp_path: Path) -> None:
    async with port:
        with qemu(port) as peer, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(tmp_path / "other"))
            peer.connect(str(tmp_path / "other"))
            assert port.send_batch([PLAIN]) == 1
            assert port.counters.dropped_send == 1
            await port.wait_writable()


async def test_a_port_that_is_closed_while_the_peer_is_full(port: DgramPort) -> None:
    async def wait() -> None:
        with pytest.raises(PortClosed):
            await port.wait_writable()

    async with port:
        with qemu(port):
            port.send_batch([PLAIN] * 100)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                await port.aclose()


async def test_datagrams_that_are_no_frames_are_counted(port: DgramPort) -> None:
    async with port:
        with qemu(port) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            peer.sendto(b"", port.path)
            peer.sendto(bytes(LONGEST + 1), port.path)
            peer.sendto(bytes(LONGEST), port.path)
            assert await port.receive_batch() == [bytes(LONGEST)]
            assert port.counters.dropped_receive == 2


async def test_frames_that_the_kernel_cannot_carry_are_dropped(port: DgramPort) -> None:
    async with port:
        with qemu(port) as peer:
            port._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
            assert port.send_batch([parse_frame(bytes(60000), 0, False), PLAIN]) == 2
            assert peer.recv(2000) == DATA
            assert port.counters.dropped_send == 1


async def test_the_path_of_a_dead_process_is_taken_over(port: DgramPort) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(port.path)
    async with port:
        with qemu(port) as peer:
            peer.sendto(DATA, port.path)
            assert await port.receive_batch() == [DATA]
    assert not await trio.Path(port.path).exists()


async def test_the_path_of_a_living_process_is_not(port: DgramPort) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
        alive.bind(port.path)
        with pytest.raises(PortUnavailable, match="is in use by a running process"):
            await port.open()


def large_frame() -> tuple[Frame, bytes]:
    """A TCP frame of 30 segments, and its payload."""
    payload = bytes(range(250)) * 12
    source, target = frames.GUEST_IP4, frames.CLIENT_IP4
    segment = frames.tcp_segment(
        source, target, 80, 999, 1, 1, frames.ACK, 100, b"", payload, partial_checksum=True
    )
    packet = frames.ipv4(segment, frames.TCP, source, target, 7)
    data = frames.ethernet(packet, 0x0800, frames.GUEST_MAC, frames.CLIENT_MAC)
    header = bytes((1, 1, 54, 0)) + (100).to_bytes(2, "little") + bytes((34, 0, 16, 0, 0, 0))
    return parse_frame(header + data, VNET_HEADER_LEN, False), payload


async def test_segments_of_a_frame_go_on_where_they_stopped(port: DgramPort) -> None:
    large, payload = large_frame()
    batch = [PLAIN, large, PLAIN]
    got: list[bytes] = []
    async with port:
        with qemu(port) as peer:
            peer.setblocking(False)
            taken = port.send_batch(batch)
            assert taken == 1
            while taken < len(batch):
                with suppress(BlockingIOError):
                    while True:
                        got.append(peer.recv(2000))
                taken = port.send_batch(batch, taken)
            with suppress(BlockingIOError):
                while True:
                    got.append(peer.recv(2000))
    assert (got[0], got[-1]) == (DATA, DATA)
    assert len(got) == 32
    assert b"".join(frames.dissect(data).payload for data in got[1:-1]) == payload
    assert port.counters.sent_frames == 32


async def test_the_rest_of_a_frame_that_was_given_up_is_not_sent(port: DgramPort) -> None:
    large, _ = large_frame()
    async with port:
        with qemu(port) as peer:
            peer.setblocking(False)
            assert port.send_batch([large]) == 0
            with suppress(BlockingIOError):
                while True:
                    peer.recv(2000)
            assert port.send_batch([PLAIN]) == 1
            assert peer.recv(2000) == DATA
            with pytest.raises(BlockingIOError):
                peer.recv(2000)
