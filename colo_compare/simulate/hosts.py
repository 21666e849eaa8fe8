"""The machines of the simulation: sockets and frames; and the guest, whose whole state is a flat memory."""

import marshal
import math
import random
from typing import Any, Final

from colo_compare.simulate.packets import (
    ACK,
    CLIENT_ADDRESS,
    CLIENT_MAC,
    GUEST_ADDRESS,
    GUEST_MAC,
    ICMP,
    ICMP6,
    RST,
    SYN,
    UDP,
    End,
    Seen,
    look,
    options,
)
from colo_compare.simulate.service import (
    CALL_BACK,
    CALLBACK,
    DATAGRAMS,
    DRAWN,
    HALVES,
    PLAIN_TOKEN,
    REQUEST,
    RESET,
    SERVICE,
    History,
    whole_request,
)
from colo_compare.simulate.tcp import Contradiction, Segment, Socket

PAGE: Final = 1024
"""Bytes; small, so that even a small state has many pages."""
_FORMAT: Final = 2  # of marshal: the last one without references, which depend on who else holds an object
_LENGTH: Final = 4
_ROUNDING: Final = 1e-9
"""Seconds by which a timer may go off early: its clock and the world's differ by a number with a fraction."""


class Machine:
    """A host: sockets and frames. Its clock stands still for `lag` seconds whenever the machine does."""

    def __init__(self, end: End, seed: int, times: bool) -> None:
        self.end: Final = end
        self.random: Final = random.Random(seed)
        self.times = times
        self.sockets: dict[tuple[int, int], Socket] = {}
        self.scale = 2  # of windows; guests that differ in it diverge with each connection
        self.room = 3000  # receive buffer of each socket, bytes
        self.mss = 100
        self.jitter = 0  # milliseconds by which its timestamp clock is fast, at most
        self.reading = True
        self.lag = 0.0
        self.tag = 0
        self.newest_ms = 0

    def milliseconds(self, clock: float) -> int:
        """Give its timestamp clock, which never steps back."""
        reading = int(clock * 1000)
        if self.jitter:
            reading += self.random.randint(0, self.jitter)
        self.newest_ms = max(self.newest_ms, reading)
        return self.newest_ms

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame; give those that follow at once."""
        raise NotImplementedError

    def next_timer(self) -> float:
        """Give when `poll` must be called, by the clock of the world."""
        due = math.inf
        for socket in self.sockets.values():
            due = min(due, socket.next_timer())
        return due + self.lag

    def _isn(self) -> int:
        near_wrap = self.random.random() < 0.5
        return (self.random.randint(-400, 5) if near_wrap else self.random.getrandbits(32)) & 0xFFFFFFFF

    def _open(self, local: int, remote: int, *, active: bool, witness: bool = False) -> Socket:
        socket = Socket(
            local, remote, self._isn(), self._isn(), self.scale, self.room,
            times=self.times, active=active, mss=self.mss, witness=witness,
        )  # fmt: skip
        self.sockets[local, remote] = socket
        return socket

    def poll(self, now: float) -> list[bytes]:
        """Give the frames that the sockets want sent."""
        out: list[bytes] = []
        clock = now - self.lag + _ROUNDING
        milliseconds = -1
        for socket in self.sockets.values():
            if socket.dirty or clock >= socket.timer or clock >= socket.ack_due:
                socket.mss = self.mss
                if milliseconds < 0:
                    milliseconds = self.milliseconds(clock)
                for segment in socket.poll(clock, milliseconds, self.random):
                    out.append(self._frame(socket, segment))
        return out

    def next_tag(self) -> int:
        """Give the tag of the next packet."""
        self.tag = (self.tag + 1) & 0xFFFF
        return self.tag

    def _frame(self, socket: Socket, segment: Segment) -> bytes:
        peer = socket.peer_isn or 0
        times = None if segment.tsval is None else (segment.tsval, segment.tsecr)
        return self.end.segment(
            socket.local, socket.remote, socket.isn + segment.at,
            0 if segment.ack is None else peer + segment.ack, segment.flags, segment.window,
            options(
                times,
                tuple([(peer + left, peer + right) for left, right in segment.blocks]),
                (1460, socket.sack, socket.scale) if segment.flags & SYN else None,
            ),
            segment.payload, self.next_tag(),
        )  # fmt: skip

    def _reset(self, seen: Seen) -> list[bytes]:
        """Answer a segment of no connection (RFC 9293, section 3.5.2)."""
        if seen.flags & RST:
            return []
        if seen.flags & ACK:
            seq, ack, flags = seen.ack, 0, RST
        else:
            seq, ack, flags = 0, seen.seq + seen.span, RST | ACK
        return [
            self.end.segment(
                seen.target_port, seen.source_port, seq, ack, flags, 0, b"", b"", self.next_tag()
            )
        ]


class Guest(Machine):
    """One of the two that serve: a model, its state written to a flat memory whenever somebody looks.

    Not in that state, as a checkpoint does not copy them: its chance, its frame numbers, and how it divides
    its time and its data, which differ between any two machines.
    """

    def __init__(self, end: End, seed: int, times: bool, tag: int, pages: int) -> None:
        """`pages`: of its memory."""
        super().__init__(end, seed, times)
        self.tag = tag
        self.think = 0.0  # seconds that it thinks before it answers, at most
        self.serve_at = math.inf
        self.history = History()
        self.datagrams: dict[bytes, bytes] = {}  # answers by request: a repeated one gets the same again
        self.memory: Final = bytearray(PAGE * pages)

    # Its state, as memory and device state

    def save(self, now: float) -> bytes:
        """Write everything to the memory; give the device state."""
        blobs = [
            marshal.dumps(
                (
                    self.history.index, self.history.chain, list(self.datagrams.items()), self.times,
                    self.scale, self.room, self.serve_at, len(self.sockets),
                ),
                _FORMAT,
            )
        ]  # fmt: skip
        blobs += [marshal.dumps(socket.pack(), _FORMAT) for socket in self.sockets.values()]
        parts: list[bytes] = []
        for blob in blobs:
            size = -(-(_LENGTH + len(blob)) // PAGE) * PAGE
            parts.append((len(blob).to_bytes(_LENGTH, "big") + blob).ljust(size, b"\0"))
        image = b"".join(parts)
        if len(image) > len(self.memory):
            raise MemoryError(f"a guest's state of {len(image)} bytes has no room in its memory")
        self.memory[:] = image.ljust(len(self.memory), b"\0")
        return marshal.dumps((now - self.lag, self.newest_ms), _FORMAT)

    def load(self, device_state: bytes, now: float) -> None:
        """Become what the memory and this device state say."""
        clock, self.newest_ms = marshal.loads(device_state)
        self.lag = now - clock
        at = 0
        fields, at = self._read(at)
        (
            index, chain, datagrams, self.times, self.scale, self.room, self.serve_at, count,
        ) = fields  # fmt: skip
        self.history = History(index, chain)
        self.datagrams = dict(datagrams)
        self.sockets = {}
        for _ in range(count):
            fields, at = self._read(at)
            socket = Socket.unpack(fields)
            self.sockets[socket.local, socket.remote] = socket

    def _read(self, at: int) -> tuple[tuple[Any, ...], int]:
        length = int.from_bytes(self.memory[at : at + _LENGTH], "big")
        blob = self.memory[at + _LENGTH : at + _LENGTH + length]
        return marshal.loads(blob), at + -(-(_LENGTH + length) // PAGE) * PAGE

    # What it does

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame. Raises Contradiction for one that no honest network can bring."""
        seen = look(frame)
        if seen.problem:
            raise Contradiction(f"a guest got a frame with a wrong {seen.problem}")
        if seen.protocol in (ICMP, ICMP6):
            return [self.end.echo(True, seen.payload[4:8], seen.payload[8:], self.next_tag())]
        if seen.protocol == UDP:
            return [self._answer_datagram(seen)]
        socket = self.sockets.get((seen.target_port, seen.source_port))
        if socket is not None and socket.was_reset:
            return self._reset(seen)
        if socket is None:
            if seen.target_port != SERVICE or not seen.flags & SYN or seen.flags & (ACK | RST):
                return self._reset(seen)
            socket = self._open(SERVICE, seen.source_port, active=False)
        socket.receive(seen, now - self.lag)
        if not self.think:
            self.serve()
        elif self.serve_at == math.inf:
            self.serve_at = now - self.lag + self.random.random() * self.think
        return self.poll(now)

    def next_timer(self) -> float:
        """Give when `poll` must be called, by the clock of the world."""
        return min(super().next_timer(), self.serve_at + self.lag)

    def poll(self, now: float) -> list[bytes]:
        """Give the frames that it wants sent."""
        if now - self.lag + _ROUNDING >= self.serve_at:
            self.serve_at = math.inf
            self.serve()
        return super().poll(now)

    def _token(self, kind: bytes) -> int:
        return self.random.getrandbits(32) if kind in (DRAWN, HALVES) else PLAIN_TOKEN

    def _answer_datagram(self, seen: Seen) -> bytes:
        request = seen.payload
        answer = self.datagrams.get(request)
        if answer is None:
            answer = self.datagrams[request] = self.history.answer(request, self._token(request[:1]))
        return self.end.datagram(DATAGRAMS, seen.source_port, answer, self.next_tag())

    def serve(self) -> None:
        """Let the applications go on."""
        if not self.reading:
            return
        for socket in list(self.sockets.values()):
            if socket.was_reset or socket.closing:
                if socket.local != SERVICE and socket.ended:
                    socket.consume(socket.waiting())
            elif socket.local == SERVICE:
                self._serve_requests(socket)
            elif socket.ended:
                socket.consume(socket.waiting())
                socket.close()

    def _serve_requests(self, socket: Socket) -> None:
        while socket.waiting() >= REQUEST.size:
            request = socket.peek(REQUEST.size)
            whole = whole_request(request)
            if socket.waiting() < len(whole):
                break
            if socket.peek(len(whole)) != whole:
                raise Contradiction("an upload arrived with another body")
            socket.consume(len(whole))
            socket.dirty = True  # its window has grown
            kind, name, _ = REQUEST.unpack(request)
            if kind == RESET:
                socket.abort()
                return
            answer = self.history.answer(request, self._token(kind))
            socket.write(answer)
            if kind == CALL_BACK:
                self._open(30000 + name, CALLBACK, active=True).write(answer)
        if socket.ended and not socket.waiting():
            socket.close()


def guest_end(version: int) -> End:
    """Give the addresses of the guests, who share them."""
    return End(version, GUEST_MAC, CLIENT_MAC, GUEST_ADDRESS, CLIENT_ADDRESS)


def client_end(version: int) -> End:
    """Give the addresses of the client."""
    return End(version, CLIENT_MAC, GUEST_MAC, CLIENT_ADDRESS, GUEST_ADDRESS)
