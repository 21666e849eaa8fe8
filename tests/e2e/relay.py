"""A wire between the two ends of the memory checkpointer on which something happens at a given message."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from colo_compare.checkpoint.memory.messages import HEADER_LENGTH, Header


class Relay:
    """Passes messages on, from a unix socket to a receiver's, until the end of a ``with`` statement."""

    def __init__(self, path: Path, receiver: str) -> None:
        self.endpoint = f"unix:{path}"
        self.happened = threading.Event()
        self._receiver = receiver.removeprefix("unix:")
        self._kind = self._left = 0
        self._fault: Callable[[], bool]
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._threads: list[threading.Thread] = []
        self._listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(path))
        self._listener.listen()

    def arm(self, kind: int, nth: int, fault: Callable[[], bool]) -> threading.Event:
        """Call `fault` just before message number `nth` (from 1, counted from now) of a kind is passed on.

        When it gives False, the connection is cut instead. What comes after that, new connections too, is
        passed on as ever. Gives the event that it has happened.
        """
        with self._lock:
            self.happened.clear()
            self._kind, self._left, self._fault = kind, nth, fault
        return self.happened

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                for end in (near, far):
                    self._stack.callback(end.close)
                    self._stack.callback(_shut, end)
                try:
                    far.connect(self._receiver)
                except OSError:
                    _shut(near)
                    continue
                self._start(self._pass_on, near, far)
                self._start(self._pass_on, far, near)

    def _start(self, function: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=function, args=args)
        self._threads.append(thread)
        thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source.makefile("rb") as stream:
            while header := stream.read(HEADER_LENGTH):
                if len(header) < HEADER_LENGTH:
                    break
                parsed = Header(header)
                body = stream.read(parsed.length)
                if self._is_due(parsed.kind):
                    passed = self._fault()
                    self.happened.set()
                    if not passed:
                        break
                target.sendall(header + body)
        _shut(source)
        _shut(target)

    def _is_due(self, kind: int) -> bool:
        with self._lock:
            self._left -= kind == self._kind
            return kind == self._kind and self._left == 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        _shut(self._listener)
        self._stack.close()
        for thread in self._threads:
            thread.join()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
