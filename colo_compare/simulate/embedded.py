"""Real guests in the simulation: the embedded guest's own machine, and a client that asks it over HTTP.

Slower than the model, and whole: ARP, a TCP of its own, an HTTP server, all in the flat memory that the
checkpointer copies. The oracle cannot look into it as into the model, so the client is the witness alone.
"""

import math
import struct
from typing import Final
from zlib import crc32

from colo_compare.guest import Geometry, Identity, Machine, Noise, boot, content
from colo_compare.guest import device_state as device_states
from colo_compare.guest.device_state import DeviceState
from colo_compare.simulate.client import Client
from colo_compare.simulate.packets import CLIENT_ADDRESS, CLIENT_MAC, GUEST_ADDRESS
from colo_compare.simulate.service import CALL_BACK, DRAWN, HALVES, UPLOAD
from colo_compare.simulate.tcp import Contradiction, Socket

GEOMETRY: Final = Geometry(connections=12, send_bytes=8192, receive_bytes=8192, entries=4, value_bytes=4096)
ECHO_PORT: Final = 7
_ARP: Final = b"\x08\x06"
_ARP_HEAD: Final = struct.Struct(">HHBBH")
_END: Final = b"\r\n\r\n"


class EmbeddedGuest:
    """The embedded guest in a seat: what `hosts.Guest` is there, for the shells that stop and copy it."""

    def __init__(self, noise: Noise, secret: str) -> None:
        """`secret`: behind its initial sequence numbers, until a checkpoint copies another one over it."""
        self.memory: Final = bytearray(GEOMETRY.size)
        identity = Identity(mac="02:50:00:00:00:02", address4="10.0.0.2/24", secret=secret)
        boot(memoryview(self.memory), GEOMETRY, identity)
        self._machine: Final = Machine(memoryview(self.memory), noise)
        self.lag = 0.0
        self.mss = 0  # its own affair
        self.reading = True

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame."""
        return self._machine.receive([frame], now - self.lag)

    def poll(self, now: float) -> list[bytes]:
        """Do what is due."""
        return self._machine.handle_timer(now - self.lag)

    def next_timer(self) -> float:
        """Give when `poll` must be called, by the clock of the world."""
        due = self._machine.next_timer()
        return due + self.lag + 1e-6 if due < math.inf else due

    def save(self, now: float) -> bytes:
        """Give the device state; all else is in the memory."""
        return DeviceState(now - self.lag, ()).encode()

    def load(self, device_state: bytes, now: float) -> None:
        """Become what the memory and this device state say."""
        self.lag = now - device_states.decode(device_state).clock

    def serve(self) -> None:
        """Do nothing: its applications always read."""


class HttpClient(Client):
    """Asks embedded guests, and holds all sums of one counter against each other."""

    def __init__(self, seed: int, times: bool) -> None:
        super().__init__(seed, times, 4)
        self._sums: set[int] = set()  # that were told
        self._increments = 0  # that were asked for
        self._floors: dict[bytes, int] = {}  # of each of them, the highest sum known when it was sent
        self._greeted = False

    # Asking

    def _request(self, kind: bytes, size: int) -> bytes:
        self.names += 1
        name = b"\r\nX-Name: %d" % self.names
        if kind in (CALL_BACK, DRAWN):
            self._increments += 1
            return b"POST /counters/one HTTP/1.1" + name + _END
        if kind == UPLOAD:
            body = content.piece(0, size * 40 + 1)
            return b"POST /crc32 HTTP/1.1%b\r\nContent-Length: %d%b%b" % (name, len(body), _END, body)
        return b"GET /bytes/%d HTTP/1.1%b%b" % (size * (400 if kind == HALVES else 40), name, _END)

    def _written(self, request: bytes) -> bytes:
        self._floors[request] = max(self._sums, default=0)
        return request

    def ask_where_it_stands(self) -> None:
        """Ask for a sum."""
        self.call(DRAWN, 0, pipelined=False)

    def ask_datagram(self, kind: bytes, size: int, now: float) -> None:
        """Send a datagram, until it comes back."""
        self.names += 1
        self.datagrams[b"datagram %d" % self.names] = now

    def _datagram(self, request: bytes) -> bytes:
        return self.end.datagram(20000, ECHO_PORT, request, self.next_tag())

    # Hearing

    def poll(self, now: float) -> list[bytes]:
        """Give the frames that it wants sent; the first of all tells who it is."""
        out = super().poll(now)
        if out and not self._greeted:
            self._greeted = True
            out.insert(0, _arp(1, b"\xff" * 6, bytes(6)))
        return out

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame. Raises Contradiction."""
        if frame[12:14] != _ARP:
            return super().receive(frame, now)
        asked = frame[20:22] == b"\0\1" and frame[38:42] == CLIENT_ADDRESS[4]
        return [_arp(2, frame[6:12], frame[6:12])] if asked else []

    def _hear_datagram(self, payload: bytes) -> None:
        self.datagrams.pop(payload, None)

    def _take_answer(self, socket: Socket, request: bytes) -> bool:
        waiting = socket.peek(socket.waiting())
        head, end, rest = waiting.partition(_END)
        if not end:
            return False
        lines = head.split(b"\r\n")
        fields = dict([line.split(b": ", 1) for line in lines[1:]])
        length = int(fields[b"Content-Length"])
        if len(rest) < length:
            return False
        if lines[0] != b"HTTP/1.1 200 OK":
            raise Contradiction(f"port {socket.local} got {lines[0]!r}")
        socket.consume(len(head) + len(end) + length)
        socket.dirty = True
        self._check(request, rest[:length])
        return True

    def _check(self, request: bytes, body: bytes) -> None:
        path = request.split(b" ", 2)[1]
        if path == b"/crc32":
            sent = request.partition(_END)[2]
            right = body == b"%08x %d\n" % (crc32(sent), len(sent))
        elif path == b"/counters/one":
            told = int(body)
            right = told not in self._sums and self._floors[request] < told <= self._increments
            self._sums.add(told)
        else:
            right = body == _content(int(path[len(b"/bytes/") :]))
        if not right:
            raise Contradiction(f"{path.decode()} is answered with {body[:40]!r}; sums {sorted(self._sums)}")

    def check_history(self) -> None:
        """Check, when all is done, that each increment was made once. Raises Contradiction."""
        if not self.witness.given_up and self._sums != set(range(1, self._increments + 1)):
            raise Contradiction(f"{self._increments} increments gave the sums {sorted(self._sums)}")


def _content(length: int) -> bytes:
    body = b""
    while len(body) < length:
        body += content.piece(len(body), length - len(body))
    return body


def _arp(operation: int, target: bytes, target_hardware: bytes) -> bytes:
    """Give an ARP frame of the client (RFC 826)."""
    head = _ARP_HEAD.pack(1, 0x0800, 6, 4, operation)
    addresses = CLIENT_MAC + CLIENT_ADDRESS[4] + target_hardware + GUEST_ADDRESS[4]
    return target + CLIENT_MAC + _ARP + head + addresses
