"""The client: asks, and holds every answer against every other."""

from typing import Final

from colo_compare.simulate.hosts import Machine, client_end
from colo_compare.simulate.packets import ACK, ICMP, ICMP6, SYN, UDP, look
from colo_compare.simulate.service import (
    ANSWER,
    CALL_BACK,
    CALLBACK,
    DATAGRAMS,
    REQUEST,
    RESET,
    SERVICE,
    UNITS,
    Witness,
    answer_body,
    whole_request,
)
from colo_compare.simulate.tcp import Contradiction, Socket

_REPEAT: Final = 0.5  # seconds between two datagrams with the same request


class Call:
    """One TCP connection that the client opened, and what it wants there."""

    def __init__(self, socket: Socket, requests: list[bytes], pipelined: bool) -> None:
        self.socket = socket
        self.requests = requests
        self.pipelined = pipelined
        self.written = 0
        self.answered = 0
        self.finished = False
        self.aborted = False


class Client(Machine):
    """Asks, and is hard to deceive."""

    def __init__(self, seed: int, times: bool, version: int) -> None:
        super().__init__(client_end(version), seed, times)
        self.witness: Final = Witness()
        self.calls: list[Call] = []
        self.datagrams: dict[bytes, float] = {}  # unanswered requests: when to repeat
        self.pings: dict[bytes, float] = {}
        self.names = 0
        self.callbacks = 0  # expected
        self.called_back: set[int] = set()

    # Asking

    def _request(self, kind: bytes, size: int) -> bytes:
        self.names += 1
        self.callbacks += kind == CALL_BACK
        return REQUEST.pack(kind, self.names, size)

    def call(self, kinds: bytes, size: int, pipelined: bool) -> None:
        """Open a connection with one request of each kind."""
        requests = [self._request(bytes((kind,)), size) for kind in kinds]
        socket = self._open(10000 + len(self.calls), SERVICE, active=True, witness=True)
        socket.keep_alive = True  # a reset may get lost, and nobody repeats it unasked
        self.calls.append(Call(socket, requests, pipelined))
        self.act()

    def hang_up(self, number: int) -> None:
        """Reset one of its connections, whatever it was about."""
        if not self.calls:
            return
        call = self.calls[number % len(self.calls)]
        if not call.finished and CALL_BACK not in {request[:1] for request in call.requests}:
            call.aborted = call.finished = True
            self.witness.given_up += len(call.requests)
            call.socket.abort()

    def ask_datagram(self, kind: bytes, size: int, now: float) -> None:
        """Send a request as a datagram, until it is answered."""
        self.datagrams[self._request(kind, size)] = now

    def ping(self, now: float) -> None:
        """Send an echo request, until it is answered."""
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
            and all(socket.was_reset or socket.finished for socket in self.sockets.values())
        )

    def state(self) -> str:
        """Tell what is still open."""
        waiting = [
            f"port {socket.local}: sent {socket.una}/{socket.nxt}/{socket.stream_end}, "
            f"may send to {socket.edge}, has got {socket.rcv}"
            for socket in self.sockets.values()
            if not (socket.finished or socket.was_reset)
        ]
        return f"{len(self.datagrams)} datagrams, {len(self.pings)} pings, {'; '.join(waiting)}"

    # Hearing

    def next_timer(self) -> float:
        """Give when `poll` must be called."""
        due = super().next_timer()
        if self.datagrams:
            due = min(due, *self.datagrams.values())
        if self.pings:
            due = min(due, *self.pings.values())
        return due

    def poll(self, now: float) -> list[bytes]:
        """Give the frames that it wants sent."""
        out = super().poll(now)
        for request, due in self.datagrams.items():
            if due <= now:
                self.datagrams[request] = now + _REPEAT
                out.append(self._datagram(request))
        for payload, due in self.pings.items():
            if due <= now:
                self.pings[payload] = now + _REPEAT
                out.append(self.end.echo(False, b"\0\7\0\1", payload, self.next_tag()))
        return out

    def _datagram(self, request: bytes) -> bytes:
        port = 20000 + REQUEST.unpack(request)[1] % 3
        return self.end.datagram(port, DATAGRAMS, request, self.next_tag())

    def _hear_datagram(self, payload: bytes) -> None:
        self.witness.note(payload)
        self.datagrams.pop(payload[: REQUEST.size], None)

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take a frame. Raises Contradiction."""
        seen = look(frame)
        if seen.problem:
            raise Contradiction(f"the client got a frame with a wrong {seen.problem}")
        if seen.protocol in (ICMP, ICMP6):
            self.pings.pop(seen.payload[8:], None)
            return []
        if seen.protocol == UDP:
            self._hear_datagram(seen.payload)
            return []
        socket = self.sockets.get((seen.target_port, seen.source_port))
        if socket is None:
            if seen.target_port != CALLBACK or not seen.flags & SYN or seen.flags & ACK:
                return self._reset(seen)
            socket = self._open(CALLBACK, seen.source_port, active=False, witness=True)
        if socket.was_reset:
            return self._reset(seen)
        socket.receive(seen, now)
        self._check_reset(socket)
        self.act()
        return self.poll(now)

    def _check_reset(self, socket: Socket) -> None:
        if not socket.was_reset:
            return
        for call in self.calls:
            if call.socket is socket and (socket.finished or call.requests[0][:1] == RESET):
                call.finished = True  # at the latest; a guest may have forgotten one that is over
                return
        raise Contradiction(f"the connection of port {socket.local} was reset")

    def act(self) -> None:
        """Let the applications go on."""
        if not self.reading:
            return
        for call in self.calls:
            if not (call.finished or call.aborted or call.socket.was_reset):
                self._act(call)
        if not self.callbacks:
            return
        for (local, remote), socket in self.sockets.items():
            if local == CALLBACK:
                if not socket.closing and self._take_answer(socket, b""):
                    self.called_back.add(remote)
                    socket.close()
                if socket.ended:
                    socket.consume(socket.waiting())

    def _act(self, call: Call) -> None:
        socket = call.socket
        while call.answered < len(call.requests) and self._take_answer(socket, call.requests[call.answered]):
            call.answered += 1
        while call.written < len(call.requests) and (call.pipelined or call.written == call.answered):
            socket.write(self._written(call.requests[call.written]))
            call.written += 1
        if call.answered == len(call.requests) and not socket.closing:
            socket.close()
        if socket.ended:
            if call.answered < len(call.requests) or socket.waiting():
                raise Contradiction(f"port {socket.local} ended after {call.answered} answers")
            call.finished = socket.closing

    def _written(self, request: bytes) -> bytes:
        """Give what is to be sent for a request."""
        return whole_request(request)

    def ask_where_it_stands(self) -> None:
        """Ask for what shows which history the one has that answers."""
        self.call(b"G", 0, pipelined=False)

    def check_history(self) -> None:
        """Check, when all is done, that one history has all that was asked for. Raises Contradiction."""
        self.witness.check_history()

    def _take_answer(self, socket: Socket, request: bytes) -> bool:
        """Take the next answer, which is to this request (b"": not known), if all of it is here."""
        if socket.waiting() < ANSWER.size:
            return False
        kind, name, blocks, _, token, _ = ANSWER.unpack(socket.peek(ANSWER.size))
        if kind not in UNITS:
            raise Contradiction(f"port {socket.local} got what is no answer")
        size = ANSWER.size + len(answer_body(kind, name, blocks, token))
        if socket.waiting() < size:
            return False
        answer = socket.peek(size)
        socket.consume(size)
        socket.dirty = True
        self.witness.note(answer)
        return True
