"""A download that goes on by itself, by curl where there is one, and what its client sees of it."""

import os
import shutil
import subprocess
import threading
from http.client import HTTPException
from typing import IO, Final, Self, cast

from colo_compare.demo.client import CHUNK, Connection, Download
from colo_compare.demo.lab import GUEST4
from colo_compare.demo.namespace import Namespace

# What curl (7.63 or newer) says at its end, below an error message: connections made, and its local port.
_WRITE_OUT: Final = "%{stderr}\n%{num_connects} %{local_port}\n"


class Fetch:
    """One download, in a thread, until the end of a ``with`` statement."""

    def __init__(self, client: Namespace, size: int) -> None:
        self.program: Final = "curl" if shutil.which("curl") else "Python's http.client"
        self.seen: Final = Download(size)
        self.failure = ""  # why it ended early
        self.over: Final = threading.Event()
        self._rest_at = size + 1  # bytes, from which on nothing is taken until `go_on`
        self._may_go_on: Final = threading.Event()
        self._client: Final = client
        self._curl: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._thread: Final = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            if self._curl is not None:
                self._follow(self._curl)
            else:
                assert self._connection is not None
                self._read(self._connection)
        except (OSError, HTTPException, ValueError) as error:
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self.over.set()

    def _follow(self, curl: "subprocess.Popen[bytes]") -> None:
        """Take what curl gives. Raises ConnectionError when it gives up."""
        with cast("IO[bytes]", curl.stdout) as out, cast("IO[bytes]", curl.stderr) as err:
            descriptor = out.fileno()
            while chunk := os.read(descriptor, CHUNK):
                self._take(chunk)
            words = err.read().decode().split("\n")
        if curl.wait() != 0:
            raise ConnectionError(words[0] or f"curl ended with {curl.returncode}")
        connections, port = words[-2].split()
        self.seen.ports = (int(port), int(port) if connections == "1" else 0)

    def _read(self, connection: Connection) -> None:
        port = connection.port
        response = connection.request(f"/bytes/{self.seen.size}")
        while chunk := response.read1(CHUNK):
            self._take(chunk)
        self.seen.ports = (port, connection.port)

    def _take(self, chunk: bytes) -> None:
        self.seen.take(chunk)
        if self.seen.received >= self._rest_at:
            self._may_go_on.wait()
            self.seen.go_on()

    def rest_at(self, received: int) -> None:
        """Take no more than about so many bytes for now: the client's TCP window closes."""
        self._rest_at = received

    def go_on(self) -> None:
        """Take everything from now on."""
        self._rest_at = self.seen.size + 1
        self._may_go_on.set()

    def __enter__(self) -> Self:
        if self.program == "curl":
            url = f"http://{GUEST4}/bytes/{self.seen.size}"
            command = ["curl", "--silent", "--show-error", "--no-buffer", "--write-out", _WRITE_OUT, url]
            self._curl = self._client.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        else:
            self._connection = Connection(self._client, GUEST4)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.go_on()
        if self._curl is not None:
            self._curl.kill()
        if self._connection is not None:
            self._connection.close()
        self._thread.join()
