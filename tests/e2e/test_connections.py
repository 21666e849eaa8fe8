"""Many connections, both directions, and connections that end badly."""

import hashlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from colo_compare.demo.client import Connection, Download
from colo_compare.demo.content import blocks, digest
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import CLIENT4, CLIENT6, GUEST4, GUEST6, Lab
from tests.e2e.traffic import family, ping
from tests.e2e.verdict import assert_quiet

MIB = 1 << 20


def test_fifty_downloads_at_once(pair: Callable[..., Lab]) -> None:
    lab = pair()
    connections = [Connection(lab.client, GUEST4) for _ in range(50)]

    def download(connection: Connection) -> Download:
        with connection:
            return connection.download(MIB)

    with ThreadPoolExecutor(len(connections)) as threads:
        downloads = list(threads.map(download, connections))

    assert {download.sha256 for download in downloads} == {digest(MIB)}
    assert len({download.ports for download in downloads}) == 50
    assert_quiet(lab, compared=50 * MIB)


@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_requests_on_one_connection(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()
    sizes = [1, 1000, 1460, 65536, 3, 300_000] * 10

    with Connection(lab.client, host) as connection:
        downloads = [connection.download(size) for size in sizes]

    assert [download.sha256 for download in downloads] == [digest(size) for size in sizes]
    assert len({port for download in downloads for port in download.ports}) == 1
    assert_quiet(lab, compared=sum(sizes))


@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_an_upload_reaches_both_guests(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()

    with Connection(lab.client, host) as connection:
        answer = connection.upload(16 * MIB)

    # Compared, too: the secondary has had the same bytes, or its digest would have been another.
    assert answer == digest(16 * MIB)
    assert_quiet(lab, compared=len(answer))


@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_an_echo_of_small_pieces(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()
    pieces = [bytes([n]) * (1 + n * 37 % 200) for n in range(200)]

    with lab.client.call(socket.create_connection, (host, ECHO_PORT), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = connection.makefile("rb")
        for piece in pieces:
            connection.sendall(piece)
            assert stream.read(len(piece)) == piece
        connection.shutdown(socket.SHUT_WR)
        assert stream.read() == b""
        stream.close()

    assert_quiet(lab, compared=sum(map(len, pieces)))


def test_a_client_that_goes_away_harms_no_other(pair: Callable[..., Lab]) -> None:
    lab = pair()
    gone = Connection(lab.client, GUEST4)
    gone.request(f"/bytes/{100 * MIB}").read1(1000)
    gone.abort()

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(8 * MIB)

    assert download.sha256 == digest(8 * MIB)
    assert_quiet(lab, compared=8 * MIB)


@pytest.mark.parametrize("host", [GUEST4, GUEST6])
def test_a_port_where_nobody_listens(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()

    for _ in range(10):
        with pytest.raises(ConnectionRefusedError):
            lab.client.call(socket.create_connection, (host, 4), 10)

    assert_quiet(lab, compared=0)


def test_a_client_that_does_not_read(pair: Callable[..., Lab]) -> None:
    """Its window closes, and both guests try it again and again, each by its own clock."""
    lab = pair()
    size = 32 * MIB
    with Connection(lab.client, GUEST4) as connection:
        response = connection.request(f"/bytes/{size}")
        time.sleep(1.0)  # the kernels' clock: some of their persist timers
        sent = lab.proxy.status()["counters"]["received_bytes"]
        assert 0 < sent["primary"] < size
        assert 0 < sent["secondary"] < size
        assert hashlib.sha256(response.read()).hexdigest() == digest(size)

    assert_quiet(lab, compared=size)


@pytest.mark.parametrize(("host", "guest_host"), [(CLIENT4, GUEST4), (CLIENT6, GUEST6)])
def test_guests_that_call_the_client(pair: Callable[..., Lab], host: str, guest_host: str) -> None:
    """Both guests connect from the same source port; the client accepts one connection."""
    lab = pair()
    size = 2 * MIB
    received = b""
    ping(lab, guest_host, [b""])  # both guests know the client's MAC from now on
    with lab.client.call(socket.create_server, (host, 9000), family=family(host)) as listener:
        listener.settimeout(10)
        for guest in lab.guests:
            guest.tell(call_out=[host, 9000, 40000, size])
        connection, peer = listener.accept()
        with connection:
            connection.settimeout(10)
            while chunk := connection.recv(MIB):
                received += chunk
            connection.sendall(b"all of it")
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()

    assert peer[1] == 40000
    assert received == b"".join(blocks(size))
    assert [guest.answer() for guest in lab.guests] == [{"answer": "all of it"}] * 2
    assert_quiet(lab, compared=size)
