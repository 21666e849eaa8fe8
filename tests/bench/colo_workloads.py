"""What the client asks of the guests; every answer is checked, to the last byte."""

import socket
import ssl
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count

from colo_compare.demo.qemu.image import PAGE
from colo_compare.demo.qemu.lab import GUEST4, Lab

PATIENCE = 20.0  # seconds without a byte
HTTP, NAMES, ECHO, STORE, KEEP_ALIVE, TLS = 80, 53, 7, 6379, 8080, 8443
SMALL, MEDIUM, LARGE = 100, 64 << 10, 16 << 20  # bytes
UPLOAD = bytes(range(256)) * 4096  # 1 MiB
DIFFERS_EVERY = 50  # answers
LINE = b"a line that comes back" * 3 + b"\n"

Once = Callable[[], None]
_CONTENT: dict[int, bytes] = {}


class WrongBytesError(Exception):
    """An answer was not what it must be."""


@dataclass(frozen=True)
class Workload:
    """A name, and how to open what answers one question at a time."""

    name: str
    session: Callable[[Lab], Iterator[Once]]
    diverges: bool = False  # by nature
    longest: int = 1 << 30  # questions in one turn

    def open(self, lab: Lab) -> AbstractContextManager[Once]:
        return contextmanager(self.session)(lab)


def content(size: int) -> bytes:
    """Give what `services.c` sends for so many bytes."""
    if size not in _CONTENT:
        words = -(-size // 8)
        _CONTENT[size] = struct.pack(f">{words}Q", *range(words))[:size]
    return _CONTENT[size]


def check(seen: bytes, wanted: bytes) -> None:
    if seen != wanted:
        raise WrongBytesError(f"{seen[:60]!r} instead of {wanted[:60]!r}")


def connect(lab: Lab, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    connection: socket.socket = lab.client.call(socket.socket, socket.AF_INET, kind)
    connection.settimeout(PATIENCE)
    connection.connect((GUEST4, port))
    if kind == socket.SOCK_STREAM:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = connection.recv(min(size - len(received), 1 << 18))
        if not data:
            raise ConnectionError(f"the connection ended after {len(received)} of {size} bytes")
        received += data
    return bytes(received)


def read_answer(connection: socket.socket) -> bytes:
    """Read an HTTP answer with a length, and give its body."""
    head = bytearray()
    while b"\r\n\r\n" not in head:
        data = connection.recv(4096)
        if not data:
            raise ConnectionError("the connection ended before the answer")
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    check(bytes(head[:15]), b"HTTP/1.1 200 OK")
    size = int(head.rpartition(b": ")[2])
    return bytes(body) + read(connection, size - len(body))


def page(lab: Lab) -> Iterator[Once]:
    def once() -> None:
        with connect(lab, HTTP) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        check(answer.partition(b"\r\n\r\n")[2], PAGE)

    yield once


def download(size: int, port: int = KEEP_ALIVE) -> Callable[[Lab], Iterator[Once]]:
    def session(lab: Lab) -> Iterator[Once]:
        with secured(lab) if port == TLS else connect(lab, port) as connection:

            def once() -> None:
                connection.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % size)
                check(read_answer(connection), content(size))

            if port == TLS:
                once()  # behind it no random bytes of the handshake come any more (TLS 1.3: its tickets)
            yield once

    return session


def upload(lab: Lab) -> Iterator[Once]:
    wanted = b"%08x" % zlib.crc32(UPLOAD)
    with connect(lab, KEEP_ALIVE) as connection:

        def once() -> None:
            connection.sendall(b"POST /digest HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(UPLOAD) + UPLOAD)
            check(read_answer(connection), wanted)

        yield once


def echo(lab: Lab) -> Iterator[Once]:
    with connect(lab, ECHO) as connection:

        def once() -> None:
            connection.sendall(LINE)
            check(read(connection, len(LINE)), LINE)

        yield once


def names(lab: Lab) -> Iterator[Once]:
    numbers = count()
    with connect(lab, NAMES, socket.SOCK_DGRAM) as asker:

        def once() -> None:
            question = b"%08d.example" % next(numbers)
            asker.send(question)
            check(asker.recv(4096), struct.pack(">I", zlib.crc32(question)) * 48)

        yield once


def secured(lab: Lab) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connect(lab, TLS))


def handshake(lab: Lab) -> Iterator[Once]:
    def once() -> None:
        with secured(lab) as connection:
            connection.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % SMALL)
            check(read_answer(connection), content(SMALL))

    yield once


def store(lab: Lab) -> Iterator[Once]:
    numbers = count()
    with connect(lab, STORE) as connection:

        def once() -> None:
            number = next(numbers)
            key = b"key%d" % (number % 500)
            connection.sendall(b"SET %s value%d\n" % (key, number))
            check(read(connection, 3), b"OK\n")
            connection.sendall(b"GET %s\n" % key)
            wanted = b"value%d\n" % number
            check(read(connection, len(wanted)), wanted)

        yield once


def differ(lab: Lab) -> Iterator[Once]:
    numbers = count(1)
    with connect(lab, KEEP_ALIVE) as connection:

        def once() -> None:
            number = next(numbers)
            connection.sendall(b"GET /differ/%d HTTP/1.1\r\n\r\n" % DIFFERS_EVERY)
            answer = read_answer(connection)
            check(answer[:18], b"answer %010d " % number)
            check(answer[18:].strip(b"0123456789abcdef"), b"")
            if number % DIFFERS_EVERY:
                check(answer[18:], b"0" * 16)

        yield once


WORKLOADS = (
    # busybox's server says the time of day (Date:), in which guests differ at the turn of a second.
    Workload("static HTTP with the date, a connection each", page, diverges=True),
    Workload("HTTP, keep-alive", download(SMALL)),
    Workload("download of 64 KiB", download(MEDIUM)),
    Workload("download of 16 MiB", download(LARGE), longest=2),
    Workload("upload of 1 MiB", upload),
    Workload("echo of a line", echo),
    Workload("questions over UDP", names),
    Workload("TLS handshake and a request", handshake, diverges=True),
    Workload("TLS, keep-alive", download(SMALL, TLS)),
    Workload("key-value store: set and get", store),
    Workload(f"differs once in {DIFFERS_EVERY} answers", differ, diverges=True),
)
