import socket
import struct
from pathlib import Path
from select import select

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports.stream import StreamPort
from colo_compare.ports.stream_batch import READ
from colo_compare.ports.stream_link import listen
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame, parse_frame
from tests import frames

DATA = frames.ethernet(b"payload".ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC)
PLAIN = parse_frame(DATA, 0, False)
FRAMED = struct.pack(">I", len(DATA)) + DATA


def server(path: Path, *, vnet_hdr: bool = False, reconnect: float = 0.001) -> StreamPort:
    return StreamPort(f"stream+unix://{path}", str(path), True, vnet_hdr, reconnect)


def client(path: Path, *, vnet_hdr: bool = False, reconnect: float = 0.001) -> StreamPort:
    return StreamPort(f"stream+unix://{path}", str(path), False, vnet_hdr, reconnect)


def raw_client(path: Path) -> socket.socket:
    """A peer that speaks for itself."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.settimeout(10)
    return sock


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, "the stream ended"
        data += part
    return data


def big(number: int) -> Frame:
    return parse_frame(DATA[:14] + struct.pack(">I", number) * 15000, 0, False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "port"


async def test_a_client_waits_for_its_server(path: Path) -> None:
    async with client(path) as one:
        await wait_all_tasks_blocked()
        assert not one.connected
        async with server(path) as other:
            await one.wait_connected()
            one.send_batch([PLAIN])
            assert await other.receive_batch() == [DATA]


async def test_without_a_peer_frames_are_dropped_and_counted(path: Path) -> None:
    async with server(path) as port:
        assert port.send_batch([PLAIN] * 3, 1) == 3
        await port.wait_writable()
        assert port.drain() == []
        assert port.counters.dropped_send == 2
        assert port.counters.sent_frames == 0


async def test_a_second_peer_is_refused(path: Path) -> None:
    async with server(path) as port:
        with raw_client(path) as first:
            await port.wait_connected()
            with raw_client(path) as second:
                assert await trio.to_thread.run_sync(second.recv, 1) == b""
            assert port.refused_peers == 1
            first.sendall(FRAMED)
            assert await port.receive_batch() == [DATA]


async def test_a_peer_that_comes_back(path: Path) -> None:
    async with server(path) as port:
        for resets in range(3):
            with raw_client(path) as peer:
                peer.sendall(FRAMED)
                assert await port.receive_batch() == [DATA]
                assert port.counters.resets == resets
        with raw_client(path) as peer:
            peer.sendall(FRAMED)
            assert await port.receive_batch() == [DATA]


async def test_a_server_that_comes_back(path: Path) -> None:
    got: list[bytes] = []

    async def receive(port: StreamPort) -> None:
        while len(got) < 3:
            got.extend(await port.receive_batch())

    async with client(path) as port, trio.open_nursery() as nursery:
        nursery.start_soon(receive, port)
        for _ in range(3):
            async with server(path) as other:
                await other.wait_connected()
                other.send_batch([PLAIN])
    assert got == [DATA] * 3
    assert port.counters.resets == 2


async def test_a_partial_frame_is_forgotten_with_its_link(path: Path) -> None:
    async with server(path) as port:
        with raw_client(path) as peer:
            peer.sendall(FRAMED + FRAMED[:20])
            assert await port.receive_batch() == [DATA]
        with raw_client(path) as peer:
            peer.sendall(FRAMED)
            assert await port.receive_batch() == [DATA]


async def test_a_stream_that_is_not_made_of_frames_is_reset(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with server(path) as port:
        with raw_client(path) as peer:
            await port.wait_connected()
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.receive_batch)
                assert await trio.to_thread.run_sync(peer.recv, 1) == b""
                nursery.cancel_scope.cancel()
        assert port.counters.resets == 1
        assert "link lost: stream carries a frame length of 1195725856" in caplog.text
        with raw_client(path) as peer:
            peer.sendall(FRAMED)
            assert await port.receive_batch() == [DATA]


async def test_a_batch_is_what_one_read_gives(path: Path) -> None:
    count = READ // len(FRAMED)
    async with server(path) as port:
        with raw_client(path) as peer:
            peer.sendall(FRAMED * (count + 100))
            assert [len(await port.receive_batch()) for _ in range(2)] == [count, 100]
            peer.sendall(FRAMED * (count + 100))
            assert len(await port.receive_batch()) == count
            assert len(port.drain()) == 100


async def test_frames_that_are_there_are_given_without_waiting(path: Path) -> None:
    async with server(path, reconnect=0) as port:
        assert port.descriptor == -1
        assert port.receive_now() == []
        with raw_client(path) as peer:
            await port.wait_connected()
            assert port.receive_now() == []
            peer.sendall(FRAMED * 3)
            assert select([port.descriptor], [], [], 5)[0] == [port.descriptor]
            assert port.receive_now() == [DATA] * 3
        with pytest.raises(PortClosed):
            port.receive_now()
        assert port.descriptor == -1


async def test_a_closed_port_gives_nothing_more(path: Path) -> None:
    async with server(path) as port:
        with raw_client(path) as peer:
            peer.sendall(FRAMED * 700)
            await port.receive_batch()
            await port.aclose()
            with pytest.raises(PortClosed):
                port.drain()
            with pytest.raises(PortClosed):
                await port.receive_batch()


async def test_what_a_lost_peer_said_is_given(path: Path) -> None:
    async with server(path, reconnect=0) as port:
        with raw_client(path) as peer:
            peer.sendall(FRAMED * 300)
        assert len(await port.receive_batch()) == 300
        with pytest.raises(PortClosed, match="the other end closed it"):
            await port.receive_batch()


async def test_the_header_length_follows_the_peer(path: Path) -> None:
    """QEMU changes from 10 to 12 bytes when the guest's driver negotiates; before it spoke, 12 is assumed."""
    with_header = parse_frame(bytes(VNET_HEADER_LEN) + DATA, VNET_HEADER_LEN, False)
    async with server(path, vnet_hdr=True) as port:
        with raw_client(path) as peer:
            await port.wait_connected()
            for header_len in (12, 10, 12):
                if header_len == 10:
                    peer.sendall(struct.pack(">II", 10 + len(DATA), 10) + bytes(10) + DATA)
                elif port.counters.received_frames:
                    peer.sendall(struct.pack(">II", 12 + len(DATA), 12) + bytes(12) + DATA)
                if header_len == 10 or port.counters.received_frames:
                    assert await port.receive_batch() == [bytes(12) + DATA]
                for frame in (PLAIN, with_header):
                    port.send_batch([frame])
                    expected = (
                        struct.pack(">II", header_len + len(DATA), header_len) + bytes(header_len) + DATA
                    )
                    assert read_exactly(peer, len(expected)) == expected


@pytest.mark.parametrize("vnet_hdr", [False, True])
async def test_a_frame_is_never_left_half_written(path: Path, vnet_hdr: bool) -> None:
    """A caller that gives up a frame (a guest was fenced) does not take the stream down with it."""
    prefix = 8 + 12 if vnet_hdr else 4
    async with server(path, vnet_hdr=vnet_hdr) as port:
        with raw_client(path) as peer:
            await port.wait_connected()
            sent = [big(number) for number in range(100)]
            taken = port.send_batch(sent)
            assert taken < len(sent)
            assert port.send_batch(sent, taken) == taken  # still full
            assert port.send_batch([PLAIN]) == 0
            numbers = []
            for number in range(taken):
                read_exactly(peer, prefix + 14)
                numbers.append(struct.unpack(">I", read_exactly(peer, 60000)[:4])[0])
                assert numbers[-1] == number
            port.send_batch([PLAIN])
            peer.settimeout(0.001)
            rest = b""
            while not rest.endswith(DATA):
                rest += peer.recv(1 << 20)
            # Either the frame was begun, and is whole, or it was not.
            assert len(rest) in (prefix + len(DATA), prefix + len(DATA) + prefix + 14 + 60000)


async def test_a_frame_that_goes_on_is_counted_once(path: Path) -> None:
    async with server(path) as port, client(path) as other:
        await port.wait_connected()
        sent = [big(number) for number in range(100)]

        async def send() -> None:
            taken = 0
            while taken < len(sent):
                taken = port.send_batch(sent, taken)
                await port.wait_writable()

        got: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(got) < len(sent):
                got += await other.receive_batch()
        assert got == [frame.data for frame in sent]
        assert port.counters.sent_frames == 100
        assert port.counters.sent_bytes == sum(map(len, got))


async def test_large_frames_leave_as_segments_where_there_is_no_header(path: Path) -> None:
    """More segments than one system call can write."""
    source, target = frames.GUEST_IP4, frames.CLIENT_IP4
    segment = frames.tcp_segment(
        source, target, 80, 999, 1, 1, frames.ACK, 100, b"", bytes(6000), partial_checksum=True
    )
    packet = frames.ipv4(segment, frames.TCP, source, target, 7)
    data = frames.ethernet(packet, 0x0800, frames.GUEST_MAC, frames.CLIENT_MAC)
    header = bytes((1, 1, 54, 0)) + (8).to_bytes(2, "little") + bytes((34, 0, 16, 0, 0, 0))
    large = parse_frame(header + data, VNET_HEADER_LEN, False)
    async with server(path) as port, client(path) as other:
        await port.wait_connected()
        assert port.send_batch([large, PLAIN]) == 2
        got: list[bytes] = []
        while DATA not in got:
            got += await other.receive_batch()
        assert len(got) == 751
        assert b"".join(frames.dissect(bare).payload for bare in got[:-1]) == bytes(6000)


async def test_frames_that_qemu_would_not_take_are_dropped(path: Path) -> None:
    async with server(path) as port, client(path) as other:
        await port.wait_connected()
        huge = parse_frame(DATA.ljust(69632), 0, False)
        assert port.send_batch([parse_frame(b"", 0, False), huge, PLAIN]) == 3
        assert port.counters.dropped_send == 2
        assert await other.receive_batch() == [DATA]


async def test_a_client_that_may_not_wait(path: Path) -> None:
    with pytest.raises(
        PortUnavailable, match=r"nobody answers on .*/port \(No such file or directory\): start"
    ):
        await client(path, reconnect=0).open()


@pytest.mark.parametrize("notice", ["receiving", "sending", "draining"])
async def test_without_reconnecting_a_lost_peer_closes_the_port(path: Path, notice: str) -> None:
    async with server(path) as other, client(path, reconnect=0) as port:
        await other.wait_connected()
        assert port.connected
        await other.aclose()
        lost = pytest.raises(PortClosed, match=r"the other end closed it|Broken pipe")
        if notice == "receiving":
            with lost:
                await port.receive_batch()
        elif notice == "sending":
            with lost:
                port.send_batch([PLAIN])
        else:
            with lost:
                port.drain()
        assert [port.connected] == [False]
        with pytest.raises(PortClosed):
            await port.wait_connected()


async def test_a_server_that_takes_one_peer_only(path: Path) -> None:
    async with server(path, reconnect=0) as port:
        with raw_client(path):
            await port.wait_connected()
        with pytest.raises(PortClosed):
            await port.receive_batch()
        with raw_client(path) as late:
            assert await trio.to_thread.run_sync(late.recv, 1) == b""


async def test_closing_wakes_those_who_wait_for_a_peer(path: Path) -> None:
    async def wait(port: StreamPort) -> None:
        with pytest.raises(PortClosed):
            await port.receive_batch()

    async def wait_connected(port: StreamPort) -> None:
        with pytest.raises(PortClosed):
            await port.wait_connected()

    async with client(path) as port, trio.open_nursery() as nursery:
        nursery.start_soon(wait, port)
        nursery.start_soon(wait_connected, port)
        await wait_all_tasks_blocked()
        await port.aclose()


async def test_a_full_port_that_is_closed(path: Path) -> None:
    async def wait(port: StreamPort) -> None:
        with pytest.raises(PortClosed):
            await port.wait_writable()

    async with server(path) as port:
        with raw_client(path):
            await port.wait_connected()
            port.send_batch([big(number) for number in range(100)])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, port)
                await wait_all_tasks_blocked()
                await port.aclose()


async def test_a_full_port_that_loses_its_peer_takes_and_drops(path: Path) -> None:
    async with server(path) as port:
        with raw_client(path):
            await port.wait_connected()
            sent = [big(number) for number in range(100)]
            taken = port.send_batch(sent)
            assert taken < 100
        await port.wait_writable()
        assert port.send_batch(sent, taken) == 100
        assert port.counters.dropped_send == 100 - taken
        assert port.counters.resets == 1


async def test_the_path_of_a_dead_process_is_taken_over(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with server(path) as port, client(path) as other:
        await other.wait_connected()
        assert port.url
    assert not await trio.Path(path).exists()


async def test_a_listener_that_is_closed_before_it_waits(path: Path) -> None:
    """The task that accepts is on its way, and must not take the whole process with it."""
    listener = await listen(str(path), "stream+unix:")
    listener.close()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_the_path_of_a_living_process_is_not(path: Path) -> None:
    async with server(path):
        with pytest.raises(PortUnavailable, match=r"/port is in use by a running process"):
            await server(path).open()


async def test_a_path_that_is_no_socket(path: Path) -> None:
    await trio.Path(path).write_text("precious")
    with pytest.raises(PortUnavailable, match="is there and is no socket"):
        await server(path).open()
    assert await trio.Path(path).read_text() == "precious"


async def test_a_directory_that_is_not_there(path: Path) -> None:
    with pytest.raises(PortUnavailable, match="cannot be bound: its directory does not exist"):
        await server(path / "deeper").open()


async def test_a_path_that_somebody_else_took_is_left_alone(path: Path) -> None:
    async with server(path):
        await trio.Path(path).unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert await trio.Path(path).exists()


async def test_a_tcp_address_in_use(unused_port: int) -> None:
    address = ("127.0.0.1", unused_port)
    async with StreamPort("stream+tcp://x", address, listen=True):
        with pytest.raises(PortUnavailable, match=r"cannot listen on 127.0.0.1:\d+: the address is in use"):
            await StreamPort("stream+tcp://x", address, listen=True).open()


async def test_a_tcp_address_of_another_machine(unused_port: int) -> None:
    with pytest.raises(PortUnavailable, match="no interface of this machine has that address"):
        await StreamPort("stream+tcp://x", ("192.0.2.1", unused_port), listen=True).open()


async def test_ipv6(unused_port: int) -> None:
    address = ("::1", unused_port)
    async with (
        StreamPort("stream+tcp://one", address, listen=True) as one,
        StreamPort("stream+tcp://other", address) as other,
    ):
        await other.wait_connected()
        other.send_batch([PLAIN])
        assert await one.receive_batch() == [DATA]
    with pytest.raises(PortUnavailable, match=r"nobody answers on \[::1\]:"):
        await StreamPort("stream+tcp://x", address, reconnect=0).open()
