"""The machines of the simulation: a client that remembers everything, and guests that serve it.

The service keeps one history over all connections and protocols: each answer has its index in it and a chain
value over all answers before. So whatever a survivor has forgotten, repeated or made otherwise shows in what
it says next, on whichever connection.
"""

import copy
import math
import random
import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar

from tests import frames
from tests.frames import ACK, RST, SYN, Dissected, dissect
from tests.simulation.tcp_model import Contradiction, Segment, Socket

SERVICE = 80
CALLBACK = 9000
DATAGRAMS = 53
REQUEST = struct.Struct(">cHB")  # kind (below), name, size of a body in units of 40 bytes
# Kinds: G is answered with a body, D with a number that each guest draws for itself, U brings a body along,
# C makes the guest call the client back on a connection of its own, and X is answered with a reset.
ANSWER = struct.Struct(">cHBIII")  # the request, index, token, chain


def body(name: int, size: int) -> bytes:
    return (b"%04d" % name * 10) * size


def whole_request(request: bytes) -> bytes:
    """The request, with the body that an upload brings."""
    kind, name, size = REQUEST.unpack(request)
    return request + body(name, size) if kind == b"U" else request


def answer_body(kind: bytes, name: int, size: int) -> bytes:
    return b"" if kind == b"U" else body(name, size)


@dataclass
class History:
    """What the service has answered so far."""

    index: int = 0
    chain: int = 0

    def answer(self, request: bytes, token: int) -> bytes:
        kind, name, size = REQUEST.unpack(request)
        self.chain = zlib.crc32(request + struct.pack(">II", self.index, token), self.chain)
        said = ANSWER.pack(kind, name, size, self.index, token, self.chain)
        self.index += 1
        return said + answer_body(kind, name, size)


class Machine:
    """A host: sockets and frames."""

    mac: bytes
    peer_mac: bytes
    addresses: ClassVar[dict[int, tuple[bytes, bytes]]]  # by IP version: its own, and the other end's

    def __init__(self, seed: int, times: bool, version: int) -> None:
        self.version = version
        self.ip, self.peer_ip = self.addresses[version]
        self.random = random.Random(seed)
        self.times = times
        self.sockets: dict[tuple[int, int], Socket] = {}
        self.scale = 2  # of windows; guests that differ in it diverge with each connection
        self.lag = 0.0  # its clock stood still for so long
        self.mss = 100
        self.reading = True
        self.tag = 0

    def milliseconds(self, now: float) -> int:
        return int((now - self.lag) * 1000)

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame; give those that answer it at once."""
        raise NotImplementedError

    def next_timer(self) -> float:
        due = math.inf
        for socket in self.sockets.values():
            if not socket.was_reset:
                due = min(due, socket.timer, socket.ack_due)
        return due

    def _isn(self) -> int:
        near_wrap = self.random.random() < 0.5
        return (self.random.randint(-400, 5) if near_wrap else self.random.getrandbits(32)) & 0xFFFFFFFF

    def _open(self, local: int, remote: int, active: bool) -> Socket:
        socket = Socket(
            local, remote, self._isn(), self._isn(), self.scale, 3000,
            times=self.times, active=active, mss=self.mss,
        )  # fmt: skip
        self.sockets[local, remote] = socket
        return socket

    def poll(self, now: float) -> list[bytes]:
        """Give the frames that the sockets want sent."""
        out = []
        for socket in self.sockets.values():
            socket.mss = self.mss
            for segment in socket.poll(now, self.milliseconds(now), self.random):
                out.append(self._frame(socket, segment))
        return out

    def _frame(self, socket: Socket, segment: Segment) -> bytes:
        peer = socket.peer_isn or 0
        syn = bool(segment.flags & SYN)
        options = frames.tcp_options(
            mss=1460 if syn else None,
            sack_permitted=syn and socket.sack,
            scale=socket.scale if syn else None,
            times=None if segment.tsval is None else (segment.tsval, segment.tsecr),
            blocks=tuple((peer + left, peer + right) for left, right in segment.blocks),
        )
        return self._packet(
            frames.TCP,
            frames.tcp_segment(
                self.ip, self.peer_ip, socket.local_port, socket.remote_port, socket.isn + segment.at,
                0 if segment.ack is None else peer + segment.ack, segment.flags, min(segment.window, 0xFFFF),
                options, segment.payload,
            ),
        )  # fmt: skip

    def _packet(self, protocol: int, payload: bytes) -> bytes:
        self.tag = (self.tag + 1) & 0xFFFF
        if self.version == 4:
            packet = frames.ipv4(payload, protocol, self.ip, self.peer_ip, self.tag)
            return frames.ethernet(packet, 0x0800, self.mac, self.peer_mac)
        packet = frames.ipv6(payload, protocol, self.ip, self.peer_ip, self.tag)
        return frames.ethernet(packet, 0x86DD, self.mac, self.peer_mac)

    def _echo(self, reply: bool, rest: bytes, payload: bytes) -> bytes:
        kind, protocol = (
            ((8, 0)[reply], frames.ICMP) if self.version == 4 else ((128, 129)[reply], frames.ICMP6)
        )
        return self._packet(protocol, frames.icmp_message(self.ip, self.peer_ip, kind, 0, rest, payload))

    def _reset(self, seen: Dissected) -> list[bytes]:
        """Answer a segment of no connection (RFC 9293, section 3.5.2)."""
        if seen.flags & RST:
            return []
        if seen.flags & ACK:
            seq, ack, flags = seen.ack, 0, RST
        else:
            seq, ack, flags = 0, seen.seq + seen.span, RST | ACK
        body_ = frames.tcp_segment(
            self.ip, self.peer_ip, seen.target_port, seen.source_port, seq, ack, flags, 0, b"", b""
        )
        return [self._packet(frames.TCP, body_)]


class Guest(Machine):
    """One of the two that serve. A checkpoint copies everything but its chance and its frame numbers."""

    mac, peer_mac = frames.GUEST_MAC, frames.CLIENT_MAC
    addresses: ClassVar[dict[int, tuple[bytes, bytes]]] = {
        4: (frames.GUEST_IP4, frames.CLIENT_IP4),
        6: (frames.GUEST_IP6, frames.CLIENT_IP6),
    }

    def __init__(self, seed: int, times: bool, version: int, tag: int) -> None:
        super().__init__(seed, times, version)
        self.tag = tag
        self.history = History()
        self.datagrams: dict[bytes, bytes] = {}  # answers by request: a repeated one gets the same again

    def copy_state(self, other: "Guest") -> None:
        """Become what the other is."""
        self.sockets = copy.deepcopy(other.sockets)
        self.history = copy.deepcopy(other.history)
        self.datagrams = dict(other.datagrams)
        self.lag = other.lag
        self.reading = other.reading
        self.times = other.times
        self.scale = other.scale

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        seen = dissect(frame)
        if seen.problems:
            raise Contradiction(f"a guest got a frame with wrong {seen.problems}")
        if seen.protocol in (frames.ICMP, frames.ICMP6):
            return [self._echo(True, seen.payload[4:8], seen.payload[8:])]
        if seen.protocol == frames.UDP:
            return [self._answer_datagram(seen)]
        socket = self.sockets.get((seen.target_port, seen.source_port))
        if socket is not None and socket.was_reset:
            return self._reset(seen)
        if socket is None:
            if seen.target_port != SERVICE or not seen.flags & SYN or seen.flags & (ACK | RST):
                return self._reset(seen)
            socket = self._open(SERVICE, seen.source_port, active=False)
        socket.receive(seen, now, witness=False)
        self._serve()
        return []

    def read(self) -> None:
        """Let the application read again, or no more."""
        self._serve()

    def _token(self, kind: bytes) -> int:
        return self.random.getrandbits(32) if kind == b"D" else 7

    def _answer_datagram(self, seen: Dissected) -> bytes:
        request = seen.payload
        if request not in self.datagrams:
            self.datagrams[request] = self.history.answer(request, self._token(request[:1]))
        return self._packet(
            frames.UDP,
            frames.udp_datagram(self.ip, self.peer_ip, DATAGRAMS, seen.source_port, self.datagrams[request]),
        )

    def _serve(self) -> None:
        if not self.reading:
            return
        for socket in list(self.sockets.values()):
            if socket.local_port == SERVICE:
                self._serve_requests(socket)
            elif socket.ended:
                socket.read = len(socket.got)
                socket.close()

    def _serve_requests(self, socket: Socket) -> None:
        while len(socket.got) - socket.read >= REQUEST.size:
            request = bytes(socket.got[socket.read : socket.read + REQUEST.size])
            whole = whole_request(request)
            if len(socket.got) - socket.read < len(whole):
                break
            if bytes(socket.got[socket.read : socket.read + len(whole)]) != whole:
                raise Contradiction("an upload arrived with another body")
            socket.read += len(whole)
            kind, name, _ = REQUEST.unpack(request)
            if kind == b"X":
                socket.abort()
                return
            answer = self.history.answer(request, self._token(kind))
            socket.write(answer)
            if kind == b"C":  # call the client back, on a connection of the guest's own
                self._open(30000 + name, CALLBACK, active=True).write(answer)
        if socket.ended and socket.read == len(socket.got):
            socket.close()


@dataclass
class Call:
    """One TCP connection that the client opened, and what it wants there."""

    socket: Socket
    requests: list[bytes]
    pipelined: bool
    written: int = 0
    answered: int = 0
    finished: bool = False
    aborted: bool = False


class Client(Machine):
    """Asks, and holds every answer against every other."""

    mac, peer_mac = frames.CLIENT_MAC, frames.GUEST_MAC
    addresses: ClassVar[dict[int, tuple[bytes, bytes]]] = {
        4: (frames.CLIENT_IP4, frames.GUEST_IP4),
        6: (frames.CLIENT_IP6, frames.GUEST_IP6),
    }

    def __init__(self, seed: int, times: bool, version: int) -> None:
        super().__init__(seed, times, version)
        self.calls: list[Call] = []
        self.datagrams: dict[bytes, float] = {}  # unanswered requests: when to repeat
        self.pings: dict[bytes, float] = {}
        self.answers: dict[int, tuple[bytes, int, int]] = {}  # by index: request, token, chain
        self.names = 0
        self.callbacks = 0  # expected
        self.given_up = 0  # requests whose answers nobody waits for any more
        self.called_back: set[int] = set()

    # Asking

    def _request(self, kind: bytes, size: int) -> bytes:
        self.names += 1
        self.callbacks += kind == b"C"
        return REQUEST.pack(kind, self.names, size)

    def call(self, kinds: bytes, size: int, pipelined: bool) -> None:
        """Open a connection with one request of each kind."""
        requests = [self._request(bytes((kind,)), size) for kind in kinds]
        socket = self._open(10000 + len(self.calls), SERVICE, active=True)
        socket.keep_alive = True  # a reset may get lost, and nobody repeats it unasked
        self.calls.append(Call(socket, requests, pipelined))
        self.act()

    def hang_up(self, call: Call) -> None:
        """Reset a connection, whatever it was about."""
        if not call.finished and b"C" not in {request[:1] for request in call.requests}:
            call.aborted = call.finished = True
            self.given_up += len(call.requests)
            call.socket.abort()

    def ask_datagram(self, kind: bytes, size: int, now: float) -> None:
        self.datagrams[self._request(kind, size)] = now

    def ping(self, now: float) -> None:
        self.names += 1
        self.pings[b"ping %04d" % self.names] = now

    @property
    def done(self) -> bool:
        """Everything that was asked has been answered, and every connection is closed."""
        return (
            not self.datagrams
            and not self.pings
            and all(call.finished for call in self.calls)
            and len(self.called_back) == self.callbacks
            and all(socket.finished or socket.was_reset for socket in self.sockets.values())
        )

    def state(self) -> str:
        """What is still open, for people."""
        waiting = [
            (port, s.una, s.nxt, s.edge, s.rcv, s.established, s.was_reset)
            for (port, _), s in self.sockets.items()
            if not (s.finished or s.was_reset)
        ]
        return f"datagrams {len(self.datagrams)} pings {len(self.pings)} sockets {waiting}"

    # Hearing

    def next_timer(self) -> float:
        return min([super().next_timer(), *self.datagrams.values(), *self.pings.values()])

    def poll(self, now: float) -> list[bytes]:
        out = super().poll(now)
        for request, due in self.datagrams.items():
            if due <= now:
                self.datagrams[request] = now + 0.5
                name = REQUEST.unpack(request)[1]
                datagram = frames.udp_datagram(self.ip, self.peer_ip, 20000 + name % 3, DATAGRAMS, request)
                out.append(self._packet(frames.UDP, datagram))
        for payload, due in self.pings.items():
            if due <= now:
                self.pings[payload] = now + 0.5
                out.append(self._echo(False, b"\0\7\0\1", payload))
        return out

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        seen = dissect(frame)
        if seen.problems:
            raise Contradiction(f"the client got a frame with wrong {seen.problems}")
        if seen.protocol in (frames.ICMP, frames.ICMP6):
            self.pings.pop(seen.payload[8:], None)
            return []
        if seen.protocol == frames.UDP:
            self._note(seen.payload)
            self.datagrams.pop(seen.payload[: REQUEST.size], None)
            return []
        socket = self.sockets.get((seen.target_port, seen.source_port))
        if socket is None:
            if seen.target_port != CALLBACK or not seen.flags & SYN or seen.flags & ACK:
                return self._reset(seen)
            socket = self._open(CALLBACK, seen.source_port, active=False)
        if socket.was_reset:
            return self._reset(seen)
        socket.receive(seen, now, witness=True)
        self._check_reset(socket)
        self.act()
        return []

    def _check_reset(self, socket: Socket) -> None:
        if not socket.was_reset:
            return
        for call in self.calls:
            if call.socket is socket and call.requests[0][:1] == b"X":
                call.finished = True
                return
        raise Contradiction(f"the connection of port {socket.local_port} was reset")

    def act(self) -> None:
        """Let the applications go on."""
        if not self.reading:
            return
        for call in self.calls:
            if not call.socket.was_reset and not call.aborted:
                self._act(call)
        for (local, remote), socket in self.sockets.items():
            if local == CALLBACK and not socket.closing and self._take_answer(socket):
                self.called_back.add(remote)
                socket.close()
            if socket.local_port == CALLBACK and socket.ended:
                socket.read = len(socket.got)

    def _act(self, call: Call) -> None:
        socket = call.socket
        while self._take_answer(socket):
            call.answered += 1
        while call.written < len(call.requests) and (call.pipelined or call.written == call.answered):
            socket.write(whole_request(call.requests[call.written]))
            call.written += 1
        if call.answered == len(call.requests) and not socket.closing:
            socket.close()
        if socket.ended:
            if call.answered < len(call.requests) or socket.read < len(socket.got):
                raise Contradiction(f"port {socket.local_port} ended after {call.answered} answers")
            call.finished = socket.closing

    def _take_answer(self, socket: Socket) -> bool:
        waiting = bytes(socket.got[socket.read :])
        if len(waiting) < ANSWER.size:
            return False
        kind, name, blocks = ANSWER.unpack_from(waiting)[:3]
        size = ANSWER.size + len(answer_body(kind, name, blocks))
        if len(waiting) < size:
            return False
        socket.read += size
        self._note(waiting[:size])
        return True

    def _note(self, answer: bytes) -> None:
        """Hold one answer against the history that the others tell."""
        kind, name, size, index, token, chain = ANSWER.unpack_from(answer)
        request = REQUEST.pack(kind, name, size)
        if answer[ANSWER.size :] != answer_body(kind, name, size):
            raise Contradiction(f"the answer to {name} has another body")
        if kind != b"D" and token != 7:
            raise Contradiction(f"the answer to {name} has token {token}")
        if self.answers.setdefault(index, (request, token, chain)) != (request, token, chain):
            raise Contradiction(f"index {index} is {name} now and was {self.answers[index]} before")
        before = self.answers.get(index - 1)
        if before is not None or index == 0:
            last = before[2] if before is not None else 0
            if zlib.crc32(request + struct.pack(">II", index, token), last) != chain:
                raise Contradiction(f"index {index} does not follow what was said before")
        after = self.answers.get(index + 1)
        if (
            after is not None
            and zlib.crc32(after[0] + struct.pack(">II", index + 1, after[1]), chain) != after[2]
        ):
            raise Contradiction(f"index {index + 1} does not follow index {index}")

    def check_history(self) -> None:
        """When all is done: one history, each request in it once."""
        gaps = max(self.answers, default=-1) + 1 - len(self.answers)
        if gaps > self.given_up:
            raise Contradiction(f"the history has gaps: {sorted(self.answers)}")
        names = [request for request, _, _ in self.answers.values()]
        if len(set(names)) != len(names):
            raise Contradiction("a request was answered twice")
