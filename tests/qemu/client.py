"""What the lab's client does. Whatever is not answered in time raises TimeoutError."""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from colo_compare.demo.qemu.image import BULK
from colo_compare.demo.qemu.lab import GUEST4, Lab

HTTP, ECHO, DIFFERENT = 80, 7, 9  # see services.c and init.sh
CALL, DISK, NAMES, STORE, BYTES = 11, 12, 53, 6379, 8080
PATIENCE = 20.0  # seconds without a byte
RECEIVE_BUFFER = 1 << 16  # bytes: small, so that a download is still under way when a guest dies
DIFFERENT_SIZE = 32  # bytes of an answer: a digest in hexadecimal


class Connection:
    """One TCP connection to a guest."""

    def __init__(self, lab: Lab, port: int, host: str = GUEST4) -> None:
        self.socket = lab.client.call(socket.socket, socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, port))

    def ask(self, question: bytes) -> bytes:
        """Send to the echo service, and give as many bytes as were sent."""
        self.socket.sendall(question)
        return self.receive(len(question))

    def receive(self, size: int) -> bytes:
        """Receive so many bytes, less at the end of the connection."""
        received = bytearray()
        while len(received) < size and (data := self.socket.recv(min(size - len(received), 65536))):
            received += data
        return bytes(received)

    def line(self, question: bytes) -> bytes:
        """Send a line and give the one that comes back."""
        self.socket.sendall(question + b"\n")
        received = b""
        while not received.endswith(b"\n") and (data := self.socket.recv(65536)):
            received += data
        return received.removesuffix(b"\n")

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def fetch(
    lab: Lab, path: str = "/", host: str = GUEST4, progress: Callable[[int], None] | None = None
) -> bytes:
    """Get a page and give its body; `progress` is called with the bytes so far."""
    with Connection(lab, HTTP, host) as connection:
        connection.socket.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        received = bytearray()
        while data := connection.socket.recv(65536):
            received += data
            if progress is not None:
                progress(len(received))
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert b"200 OK" in head, head
    return body


def download(lab: Lab, size: int) -> bytes:
    """Download so many bytes as fast as the client's kernel lets the guests send them."""
    with lab.client.call(socket.create_connection, (GUEST4, BYTES), PATIENCE) as connection:
        connection.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % size)
        received = bytearray()
        while len(received) < size + received.find(b"\r\n\r\n") + 4 and (data := connection.recv(1 << 18)):
            received += data
    return bytes(received).partition(b"\r\n\r\n")[2]


def at(size: int, action: Callable[[], object]) -> Callable[[int], None]:
    """Give a progress function that does something once, when so much has come."""
    done = False

    def progress(received: int) -> None:
        nonlocal done
        if received >= size and not done:
            done = True
            action()

    return progress


def ask_datagrams(lab: Lab, questions: list[bytes], host: str = GUEST4, port: int = ECHO) -> list[bytes]:
    """Send datagrams to a service, each when the one before was answered; give the answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with lab.client.call(socket.socket, family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE)
        asker.connect((host, port))
        answers = []
        for question in questions:
            asker.send(question)
            answers.append(asker.recv(65536))
        return answers


class Load:
    """Downloads and echoes without a pause, until the end of a ``with`` statement; every byte is checked."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,)) for work in (self._download, self._echo)
        ]
        self.done = 0
        self.errors: list[BaseException] = []

    def _run(self, work: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                work()
                self.done += 1
        except BaseException as error:  # for the test's own thread to raise
            self.errors.append(error)

    def _download(self) -> None:
        assert fetch(self._lab, "/bulk") == BULK

    def _echo(self) -> None:
        with Connection(self._lab, ECHO) as connection:
            for number in range(50):
                question = b"question %d\n" % number * 20
                assert connection.ask(question) == question

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
