"""What runs in a guest: servers that give the same bytes on both guests, unless they are told to differ.

HTTP on TCP port 80:

- ``GET /bytes/N``: the first N bytes of `content.blocks`
- ``GET /whoami/N``: the same, but this guest's own name lies in the middle: the two guests differ there
- ``POST /digest``: the SHA-256 of the body

Echo on TCP and UDP port 7; on UDP port 53 a digest of the question, as long as a DNS answer.

Commands come as JSON lines on stdin and are answered on stdout, one line each, so that the network carries
nothing that the two guests do not both say. End of stdin ends the guest.
"""

import hashlib
import json
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

from colo_compare.demo import content

HTTP_PORT: Final = 80
ECHO_PORT: Final = 7
DNS_PORT: Final = 53


class Identity:
    """The guest's own name: the only thing in which the guests differ. A checkpoint would copy it."""

    name: ClassVar[str] = "?"


class HttpHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive and without a Date header."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve the byte stream, with or without this guest's name in it."""
        kind, _, number = self.path[1:].partition("/")
        if kind not in ("bytes", "whoami") or not number.isdigit():
            self._answer(404, 0, ())
        elif kind == "bytes":
            self._answer(200, int(number), content.blocks(int(number)))
        else:
            self._answer(200, int(number), signed(int(number), Identity.name))

    def do_POST(self) -> None:
        """Take a body and answer its digest."""
        sha = hashlib.sha256()
        left = int(self.headers["Content-Length"])
        while left and (chunk := self.rfile.read1(min(left, content.BLOCK))):
            sha.update(chunk)
            left -= len(chunk)
        answer = sha.hexdigest().encode()
        self._answer(200, len(answer), (answer,))

    def _answer(self, status: int, size: int, body: Iterable[bytes]) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        try:
            for block in body:
                self.wfile.write(block)
        except OSError:  # the client went away
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Say nothing."""


def signed(size: int, name: str) -> Iterable[bytes]:
    """Give `content.blocks(size)` with this guest's name written over the bytes in the middle."""
    signature = f"{name} speaking: I am guest {name}".encode()
    whole = bytearray(b"".join(content.blocks(size)))
    middle = size // 2
    whole[middle : middle + len(signature)] = signature
    return (bytes(whole),)


class EchoHandler(socketserver.BaseRequestHandler):
    """Send back what comes, until the client ends."""

    def handle(self) -> None:
        """Echo one connection."""
        with self.request:
            try:
                while chunk := self.request.recv(content.BLOCK):
                    self.request.sendall(chunk)
            except OSError:  # the client went away
                return


class HttpServer(ThreadingHTTPServer):
    """The HTTP server, for IPv4 and IPv6 at once."""

    address_family = socket.AF_INET6
    request_queue_size = 1024


class EchoServer(socketserver.ThreadingTCPServer):
    """The TCP echo server, for IPv4 and IPv6 at once."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


def bind_datagrams(port: int) -> socket.socket:
    """Bind a UDP socket, for IPv4 and IPv6 at once."""
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::", port))
    return server


def answer_datagrams(server: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Answer every datagram, for ever."""
    while True:
        question, peer = server.recvfrom(65535)
        server.sendto(answer(question), peer)


def dns_answer(question: bytes) -> bytes:
    """Give the question's id, and a digest in place of the records."""
    return question[:2] + hashlib.shake_256(question).digest(200)


def call_out(host: str, port: int, source_port: int, size: int) -> dict[str, Any]:
    """Connect from a fixed source port, send `size` bytes and give the digest that comes back."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind(("", source_port))
        connection.settimeout(30)
        connection.connect((host, port))
        for block in content.blocks(size):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        return {"answer": connection.makefile("rb").read().decode()}


def obey(command: dict[str, Any]) -> dict[str, Any]:
    """Perform one command: ``{"identity": NAME}`` or ``{"call_out": [HOST, PORT, SOURCE_PORT, SIZE]}``."""
    if "identity" in command:
        Identity.name = command["identity"]
        return {"identity": Identity.name}
    try:
        return call_out(*command["call_out"])
    except OSError as error:
        return {"error": str(error)}


def main() -> None:
    """Serve until stdin ends."""
    for server in (HttpServer(("::", HTTP_PORT), HttpHandler), EchoServer(("::", ECHO_PORT), EchoHandler)):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    for port, answer in ((ECHO_PORT, bytes), (DNS_PORT, dns_answer)):
        threading.Thread(target=answer_datagrams, args=(bind_datagrams(port), answer), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(obey(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
