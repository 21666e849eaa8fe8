"""Clients that keep asking, each over one connection, and check every answer."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from colo_compare.demo.qemu.image import PAGE
from colo_compare.demo.qemu.lab import GUEST4, Lab

HTTP: Final = 80  # see init.sh and services.c
ECHO: Final = 7
SERVICES: Final = 8080
DIFFERS_EVERY: Final = 25  # answers
PATIENCE: Final = 30.0  # seconds without a byte, after which a client gives up
CHUNK: Final = 1 << 16  # bytes; small, so that little of a download is on its way when a guest dies
LINE: Final = b"a line that comes back\n"

Ask = Callable[[socket.socket, int], bool]  # with the number of the question; whether the answer is right


class Visitor(threading.Thread):
    """Asks one question after the other until it is told to stop."""

    def __init__(self, lab: Lab, port: int, ask: Ask) -> None:
        super().__init__(daemon=True)
        self.answers = 0
        self.wrong = 0
        self.longest = 0.0  # seconds that an answer took
        self.error = ""  # why it could not go on
        self._lab = lab
        self._port = port
        self._ask = ask
        self._stopping = threading.Event()

    def run(self) -> None:
        """Ask."""
        try:
            with connect(self._lab, self._port) as connection:
                while not self._stopping.is_set():
                    began = time.monotonic()
                    right = self._ask(connection, self.answers + 1)
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.answers += 1
                    self.wrong += not right
        except OSError as error:
            self.error = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        """Let it finish its question."""
        self._stopping.set()
        self.join(PATIENCE)


class Download(threading.Thread):
    """Gets so many bytes over one connection, whose content says where each of them belongs."""

    def __init__(self, lab: Lab, size: int) -> None:
        super().__init__(daemon=True)
        self.size = size
        self.received = 0
        self.right = False  # once it is over
        self.error = ""
        self.longest = 0.0  # seconds without a byte
        self._lab = lab

    def run(self) -> None:
        """Get them."""
        try:
            with connect(self._lab, SERVICES) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
                connection.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % self.size)
                self.right = self._receive(connection)
        except OSError as error:
            self.error = f"{type(error).__name__}: {error}"

    def _receive(self, connection: socket.socket) -> bool:
        data = bytearray(_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")[2])
        last = time.monotonic()
        while len(data) < self.size:
            chunk = connection.recv(CHUNK)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now
            if not chunk:
                return False
            data += chunk
            self.received = len(data)
        words = -(-self.size // 8)
        return bytes(data) == struct.pack(f">{words}Q", *range(words))[: self.size]


def connect(lab: Lab, port: int) -> socket.socket:
    """Connect from the client's namespace. Raises OSError."""
    connection: socket.socket = lab.client.call(socket.create_connection, (GUEST4, port), PATIENCE)
    return connection


def page(lab: Lab) -> Visitor:
    """Give who gets the guests' page; busybox's server takes a connection for each."""

    def ask(_: socket.socket, number: int) -> bool:
        with connect(lab, HTTP) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(CHUNK), b"")).endswith(PAGE)

    return Visitor(lab, ECHO, ask)


def echo(lab: Lab) -> Visitor:
    """Give who talks with the echo service."""

    def ask(connection: socket.socket, number: int) -> bool:
        connection.sendall(LINE)
        return _until(connection, b"\n") == LINE

    return Visitor(lab, ECHO, ask)


def differing(lab: Lab) -> Visitor:
    """Give who asks for what each guest reads from its own clock, once in so many answers."""

    def ask(connection: socket.socket, number: int) -> bool:
        connection.sendall(b"GET /differ/%d HTTP/1.1\r\n\r\n" % DIFFERS_EVERY)
        answer = _until(connection, b"\r\n\r\n")
        while not answer.partition(b"\r\n\r\n")[2][33:]:
            answer += _some(connection)
        return b"answer %010d " % number in answer

    return Visitor(lab, SERVICES, ask)


def _until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        data += _some(connection)
    return data


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(CHUNK)
    if not data:
        raise ConnectionError("the connection ended")
    return data
