"""The guest and Linux: a real client, on a veth pair and on a tap."""

import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import pytest

from colo_compare.demo.content import blocks, digest
from colo_compare.demo.lab import CLIENT4, GUEST4, GUEST6
from tests.frames import checksum
from tests.guest.conftest import LinuxLab

pytestmark = pytest.mark.e2e
Linux = Callable[..., LinuxLab]
MIB = 1 << 20


@pytest.mark.parametrize("kind", ["packet", "tap"])
def test_downloads_uploads_and_parallel_connections(linux: Linux, kind: str, tmp_path: Path) -> None:
    lab = linux(kind)
    assert lab.shell(f"curl -s http://{GUEST4}/bytes/{16 * MIB} | sha256sum").split()[0] == digest(16 * MIB)
    assert lab.shell(f"curl -gs http://[{GUEST6}]/bytes/{MIB} | sha256sum").split()[0] == digest(MIB)
    one = f"curl -s http://{GUEST4}/bytes/{MIB} | sha256sum"
    sums = lab.shell(f"for i in $(seq 20); do {one} & done; wait").split()[::2]
    assert sums == [digest(MIB)] * 20
    body = os.urandom(4 * MIB)
    (tmp_path / "body").write_bytes(body)
    said = lab.shell(f"curl -s --data-binary @{tmp_path}/body http://{GUEST4}/crc32")
    assert said == f"{crc32(body):08x} {len(body)}\n"
    status = lab.command(status=True)
    assert status["opened"] == 23
    assert status["damaged"] == 0


@pytest.mark.parametrize(
    "faults",
    ["loss:0.01,seed:1", "reorder:0.05,seed:2", "duplicate:0.1,corrupt:0.01,seed:3", "delay:5ms,seed:4"],
)
def test_a_bad_network_changes_no_byte(linux: Linux, faults: str, tmp_path: Path) -> None:
    lab = linux(faults=faults)
    assert lab.shell(f"curl -s http://{GUEST4}/bytes/{2 * MIB} | sha256sum").split()[0] == digest(2 * MIB)
    body = os.urandom(MIB)
    (tmp_path / "body").write_bytes(body)
    said = lab.shell(f"curl -s --data-binary @{tmp_path}/body http://{GUEST4}/crc32")
    assert said == f"{crc32(body):08x} {len(body)}\n"


def test_one_connection_serves_many_requests(linux: Linux) -> None:
    lab = linux()
    lab.shell(f"curl -s -X PUT -d first http://{GUEST4}/kv/a; curl -s -X PUT -d second http://{GUEST4}/kv/b")
    urls = f"http://{GUEST4}/kv/a http://{GUEST4}/counters/n http://{GUEST4}/kv/b"
    assert lab.shell(f"curl -s {urls}") == "first0\nsecond"
    assert lab.shell(f"curl -s -X POST {f'http://{GUEST4}/counters/n ' * 5}") == "1\n2\n3\n4\n5\n"
    assert lab.command(status=True)["opened"] == 4
    assert lab.command(status=True)["requests"] == 10


def test_echo_ends_and_resets(linux: Linux) -> None:
    lab = linux()

    def echo(family: int, address: str) -> bytes:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect((address, 7))
            data = b"".join(blocks(MIB))
            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(connection.sendall, data)
                with connection.makefile("rb") as reader:
                    answer = reader.read(len(data))
                    sending.result()
                    connection.shutdown(socket.SHUT_WR)
                    answer += reader.read()
            assert answer == data
            return answer[:8]

    for family, address in ((socket.AF_INET, GUEST4), (socket.AF_INET6, GUEST6)):
        lab.client.call(echo, family, address)

    def reset() -> None:
        with socket.create_connection((GUEST4, 7), timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"

    lab.client.call(reset)

    def refused() -> None:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((GUEST4, 81), timeout=20)

    lab.client.call(refused)
    status = lab.command(status=True)
    assert (status["resets_in"], status["resets_out"]) == (1, 1)


def test_datagrams_come_back(linux: Linux) -> None:
    lab = linux()

    def ask(family: int, address: str) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as asker:
            asker.settimeout(20)
            asker.connect((address, 7))
            for size in (0, 1, 1400):
                asker.send(b"d" * size)
                assert asker.recv(2000) == b"d" * size
            asker.connect((address, 99))
            asker.send(b"nobody")
            with pytest.raises(ConnectionRefusedError):
                asker.recv(100)

    lab.client.call(ask, socket.AF_INET, GUEST4)
    lab.client.call(ask, socket.AF_INET6, GUEST6)


def test_pings_are_answered(linux: Linux) -> None:
    lab = linux()

    def ping4() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
            pinger.settimeout(20)
            message = struct.pack(">BBHHH", 8, 0, 0, 0x1234, 1) + b"hello"
            message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
            pinger.sendto(message, (GUEST4, 0))
            answer = pinger.recv(2000)[20:]
            assert (answer[0], answer[4:]) == (0, message[4:])

    def ping6() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as pinger:
            pinger.settimeout(20)
            message = struct.pack(">BBHHH", 128, 0, 0, 0x1234, 1) + b"hello"  # the kernel sums it up
            pinger.sendto(message, (GUEST6, 0))
            while (answer := pinger.recv(2000))[0] != 129:
                pass  # neighbour discovery is seen here too
            assert answer[4:] == message[4:]

    lab.client.call(ping4)
    lab.client.call(ping6)


def test_the_guest_calls_linux(linux: Linux) -> None:
    lab = linux()

    def listen() -> socket.socket:
        listener = socket.create_server((CLIENT4, 9000))
        listener.settimeout(20)
        return listener

    with lab.client.call(listen) as listener:
        lab.command(call=[CLIENT4, 9000, 50001, 100_000])
        connection, peer = listener.accept()
        with connection:
            connection.settimeout(20)
            with connection.makefile("rb") as reader:
                assert reader.read() == b"".join(blocks(100_000))
            connection.sendall(b"thank you")
    assert peer[1] == 50001
    end = time.monotonic() + 20
    while (status := lab.command(status=True))["call_state"] != 2:
        assert time.monotonic() < end
    assert (status["call_answer"], status["call_digest"]) == (9, crc32(b"thank you"))


def test_a_reader_that_stops_for_a_while_gets_everything(linux: Linux) -> None:
    lab = linux()

    def read() -> bytes:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            connection.connect((GUEST4, 80))
            connection.sendall(b"GET /bytes/200000 HTTP/1.1\r\nConnection: close\r\n\r\n")
            time.sleep(0.7)  # the kernel's window closes, and the guest probes it
            with connection.makefile("rb") as reader:
                return reader.read().partition(b"\r\n\r\n")[2]

    assert lab.client.call(read) == b"".join(blocks(200_000))
