"""Clients of embedded guests that know what must be true, whatever happens to the guests.

Each keeps one TCP connection from its first request to its last, and asks for one thing after the other. So
there is exactly one right answer to everything: a counter goes up by one with each request, whoever answers
it; a value is the one put last; bytes are those that were sent.
"""

import random
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from zlib import crc32

from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import GUEST4, GUEST6, Network
from tests.e2e.traffic import family

# Options of two guests that differ in everything in which they can.
NOISE = (
    ["--noise-seed", "1", "--random-every", "5", "--random-isn", "--clock-jitter", "200us"],
    ["--noise-seed", "2", "--random-every", "5", "--random-isn", "--clock-jitter", "200us"],
)
PATIENCE = 30.0  # seconds without an answer, after which a client gives up, and the test with it


class Customer:
    """One connection to the HTTP server. What wrongs it raises AssertionError or OSError."""

    def __init__(self, lab: Network, name: str, host: str = GUEST4) -> None:
        self._connection = Connection(lab.client, host, patience=PATIENCE)
        self._name = name
        self._random = random.Random(name)
        self.counted = 0  # increments that were acknowledged
        self._value = b""

    def count(self) -> None:
        """Add one to a counter of our own, which must then have counted all of ours."""
        said = int(self._connection.ask("POST", f"/counters/{self._name}"))
        assert said == self.counted + 1, f"counter {self._name} says {said} after {self.counted}"
        self.counted = said

    def look(self) -> None:
        """The counter must be what it was when it last counted."""
        said = int(self._connection.ask("GET", f"/counters/{self._name}"))
        assert said == self.counted, f"counter {self._name} says {said} after {self.counted}"

    def put(self) -> None:
        """Put a value, and get it back."""
        self._value = self._random.randbytes(self._random.randrange(1, 12_000))
        self._connection.ask("PUT", f"/kv/{self._name}", self._value)
        self.get()

    def get(self) -> None:
        """Get the value that was put last."""
        if self._value:
            assert self._connection.ask("GET", f"/kv/{self._name}") == self._value

    def upload(self, size: int = 100_000) -> None:
        """Upload random bytes, whose checksum is answered."""
        body = self._random.randbytes(size)
        assert self._connection.ask("POST", "/crc32", body) == b"%08x %d\n" % (crc32(body), size)

    def download(self, size: int = 300_000) -> None:
        """Download bytes that are known."""
        assert self._connection.download(size).sha256 == digest(size)

    def do_anything(self) -> None:
        """Do one of all this."""
        deeds = (self.count, self.count, self.look, self.put, self.get, self.upload, self.download)
        self._random.choice(deeds)()

    def close(self) -> None:
        self._connection.close()


class Echoed:
    """A connection to the echo server."""

    def __init__(self, lab: Network, name: str, host: str = GUEST6) -> None:
        self._socket = lab.client.call(socket.create_connection, (host, ECHO_PORT), PATIENCE)
        self._random = random.Random(name)

    def do_anything(self) -> None:
        """Send some bytes, and get them back."""
        data = self._random.randbytes(self._random.randrange(1, 5000))
        self._socket.sendall(data)
        back = b""
        while len(back) < len(data):
            part = self._socket.recv(len(data) - len(back))
            assert part, "the echo ended"
            back += part
        assert back == data

    def close(self) -> None:
        self._socket.close()


class Datagrams:
    """Datagrams to the echo server. The network may lose one, when a guest dies: then it is sent again."""

    def __init__(self, lab: Network, name: str, host: str = GUEST4) -> None:
        self._socket = lab.client.call(socket.socket, family(host), socket.SOCK_DGRAM)
        self._socket.settimeout(1.0)
        self._socket.connect((host, ECHO_PORT))
        self._random = random.Random(name)
        self.lost = 0

    def do_anything(self) -> None:
        """Send one until it comes back; others that come are older ones."""
        data = self._random.randbytes(self._random.randrange(16, 1400))
        for _ in range(int(PATIENCE)):
            self._socket.send(data)
            try:
                while self._socket.recv(65535) != data:
                    continue
            except TimeoutError:
                self.lost += 1
            else:
                return
        raise AssertionError("no datagram comes back any more")

    def close(self) -> None:
        self._socket.close()


class Crowd:
    """Clients of each kind, each in a thread of its own, until the end of a ``with`` statement.

    Its end raises what went wrong, and fails when a client was never answered.
    """

    def __init__(self, *clients: Customer | Echoed | Datagrams) -> None:
        self._clients = clients
        self._over = threading.Event()
        self._wrongs: list[Exception] = []
        self.answered = [0] * len(clients)
        self._condition = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(len(clients))]

    def _run(self, index: int) -> None:
        client = self._clients[index]
        try:
            while not self._over.is_set():
                client.do_anything()
                with self._condition:
                    self.answered[index] += 1
                    self._condition.notify_all()
        except Exception as error:
            error.add_note(f"client {index}, {type(client).__name__}, after {self.answered[index]} answers")
            with self._condition:
                self._wrongs.append(error)
                self._condition.notify_all()

    def wait(self, rounds: int) -> None:
        """Wait until every client has been answered so many times more. Raises what went wrong."""
        goals = [count + rounds for count in self.answered]
        self._until(lambda: all(count >= goal for count, goal in zip(self.answered, goals, strict=True)))

    def wait_for(self, event: threading.Event) -> None:
        """Wait for an event outside. Raises what went wrong before it."""
        end = time.monotonic() + PATIENCE
        while not event.wait(0.1):
            if self._wrongs:
                raise self._wrongs[0]
            assert time.monotonic() < end, "it never happened"

    def _until(self, reached: Callable[[], bool]) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: self._wrongs or reached(), 2 * PATIENCE), self.answered
        if self._wrongs:
            raise self._wrongs[0]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()
        if self._wrongs and error is None:
            raise self._wrongs[0]


def all_kinds(lab: Network, seed: object) -> Crowd:
    """Give one client of each kind, on both versions of IP."""
    return Crowd(
        Customer(lab, f"{seed}-four"),
        Customer(lab, f"{seed}-six", GUEST6),
        Echoed(lab, f"{seed}-echo"),
        Datagrams(lab, f"{seed}-datagrams"),
    )
