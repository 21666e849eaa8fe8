"""What a client of the guests does, and what it sees: bytes, digests, and how long it had to wait."""

import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from typing import Final

from colo_compare.demo import content
from colo_compare.demo.guest import HTTP_PORT
from colo_compare.demo.namespace import Namespace

CHUNK: Final = 1 << 18  # bytes that the client takes from its socket at a time


class Download:
    """A download, as its client sees it, from the moment at which it is asked for."""

    def __init__(self, size: int) -> None:
        self.size: Final = size  # what was asked for, bytes
        self.received = 0
        self.seconds = 0.0  # from the request to the last byte so far
        self.stall = 0.0  # longest time between two chunks, seconds
        self.ports = (0, 0)  # local TCP port, at the beginning and at the end
        self._sha = hashlib.sha256()
        self._began = self._last = time.monotonic()

    def take(self, chunk: bytes) -> None:
        """Take bytes that have come just now."""
        now = time.monotonic()
        self.stall = max(self.stall, now - self._last)
        self.seconds = now - self._began
        self._last = now
        self._sha.update(chunk)
        self.received += len(chunk)

    def go_on(self) -> None:
        """Note that the client did not want any bytes until now."""
        self._last = time.monotonic()

    @property
    def sha256(self) -> str:
        """The digest of what was received, in hex."""
        return self._sha.hexdigest()


class Connection:
    """One HTTP connection to a guest: one TCP connection, which is never replaced by another."""

    def __init__(self, namespace: Namespace, host: str, *, patience: float = 30.0) -> None:
        """Connect. `patience`: seconds without a byte after which the client gives up (TimeoutError)."""
        self._http = HTTPConnection(host, HTTP_PORT)
        self._http.auto_open = 0
        self.socket = namespace.call(socket.create_connection, (host, HTTP_PORT), patience)
        self._http.sock = self.socket

    @property
    def port(self) -> int:
        """The local TCP port."""
        port: int = self.socket.getsockname()[1]
        return port

    def request(self, path: str, method: str = "GET", body: bytes | None = None) -> HTTPResponse:
        """Make a request and give the response, its body not yet read.

        Raises ConnectionError unless it is a good one (2xx).
        """
        self._http.request(method, path, body)
        return self._accept()

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Make a request and give the body of its answer. Raises as `request` does."""
        return self.request(path, method, body).read()

    def download(self, size: int, on_chunk: Callable[[Download], None] | None = None) -> Download:
        """Download the first `size` bytes of the guests' stream.

        `on_chunk` is called after every chunk. Raises ConnectionError or TimeoutError when it ends early.
        """
        before = self.port
        seen = Download(size)
        response = self.request(f"/bytes/{size}")
        while seen.received < size:
            chunk = response.read1(CHUNK)
            if not chunk:
                raise ConnectionError(f"the connection ended after {seen.received} of {size} bytes")
            seen.take(chunk)
            if on_chunk is not None:
                on_chunk(seen)
        response.read()
        seen.ports = (before, self.port)
        return seen

    def upload(self, size: int) -> str:
        """Upload the first `size` bytes of the stream and give the digest that the guest answers."""
        self._http.request(
            "POST", "/digest", body=content.blocks(size), headers={"Content-Length": str(size)}
        )
        return self._accept().read().decode()

    def _accept(self) -> HTTPResponse:
        response = self._http.getresponse()
        if response.status // 100 != 2:
            raise ConnectionError(f"the guest answered {response.status}")
        return response

    def close(self) -> None:
        """End the connection; a thread that waits for its bytes is woken up."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._http.close()

    def abort(self) -> None:
        """End the connection by a reset, as a client that goes away does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.socket.detach())  # socket.close() would wait for an unread response to be closed
        self._http.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
