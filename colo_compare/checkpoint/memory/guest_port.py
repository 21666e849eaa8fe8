"""The guest's side of its control socket, for a guest process of any kind: no trio, no thread of its own.

::

    region = Region.create(64 << 20)
    port = GuestPort("/run/guests/a.sock", region, machine)
    selector.register(port, EVENT_READ)     # when it is readable: port.handle()

A guest that runs in one thread stands still because `handle` does not return before it may run on. One with
more threads stops them in `Machine.save`, and starts them again in `Machine.resume`.
"""

import array
import os
import select
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from colo_compare.checkpoint.memory.guest_protocol import (
    ATTACHED,
    CACHE,
    DONE,
    ERROR,
    HEADER_LENGTH,
    LOAD,
    PAUSE,
    PAUSED,
    PING,
    RESUME,
    encode,
    pack_attached,
    parse_header,
    parse_load,
)
from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region
from colo_compare.checkpoint.memory.tracker_pagemap import WriteProtection
from colo_compare.errors import CheckpointerError


class Machine(Protocol):
    """What the guest is, apart from its memory."""

    def save(self) -> bytes:
        """Stop, and give all state that is not in the memory. Until `resume` nothing changes any more."""

    def load(self, device_state: bytes) -> None:
        """Take such state of another guest; the memory is that one's already. Still stopped."""

    def resume(self) -> None:
        """Run on."""


class GuestPort:
    """Serves one controller at a time; others wait until it goes away."""

    def __init__(self, path: str, region: Region, machine: Machine, *, protect: bool = True) -> None:
        """Listen on `path` (which must not exist) for who controls this guest.

        `protect`: let the kernel track written pages where it can; else the controller compares.
        Raises OSError where the path cannot be had.
        """
        self._region = region
        self._machine = machine
        self._cache: Region | None = None
        self._controller: socket.socket | None = None
        self._protection: WriteProtection | None = None
        self.untracked = "" if protect else "switched off"
        """Why the kernel does not track written pages ("" if it does)."""
        if protect:
            try:
                self._protection = WriteProtection(region)
            except CheckpointerError as error:
                self.untracked = str(error)
        self._path: Final = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """Give a descriptor that is readable when there is something to `handle`."""
        return self._poll.fileno()

    def handle(self) -> None:
        """Do what the controller wants; while the guest is to stand still, this does not return.

        Raises CheckpointerError when a state could not be loaded: the guest has half of it and must end.
        """
        if not self._poll.poll(0):
            return
        if self._controller is None:
            self._attach()
            return
        try:
            self._serve(self._controller)
        except OSError:
            self._detach()

    def close(self) -> None:
        """Let go of the controller, and of the socket's path."""
        if self._controller is not None:
            self._detach()
        self._poll.close()
        self._listener.close()
        with suppress(FileNotFoundError):
            Path(self._path).unlink()
        if self._protection is not None:
            self._protection.close()
        if self._cache is not None:
            self._cache.close()

    def _attach(self) -> None:
        self._controller, _ = self._listener.accept()
        self._poll.modify(self._listener, 0)
        self._poll.register(self._controller, select.EPOLLIN)
        descriptors = [self._region.descriptor]
        if self._protection is not None:
            descriptors.append(self._protection.pagemap)
        region = self._region
        message = encode(ATTACHED, pack_attached(region.size, region.address, PAGE_SIZE))
        with suppress(OSError):  # it is gone again: the next read tells
            socket.send_fds(self._controller, [message], descriptors)

    def _detach(self) -> None:
        assert self._controller is not None
        self._poll.unregister(self._controller)
        self._controller.close()
        self._controller = None
        self._poll.modify(self._listener, select.EPOLLIN)

    def _serve(self, controller: socket.socket) -> None:
        """Serve one message, and all that follow until the guest may run on. Raises OSError."""
        kind, _, descriptors = _receive(controller)
        if kind == CACHE and descriptors:
            if self._cache is not None:
                self._cache.close()
            self._cache = Region(descriptors[0], self._region.size)
            controller.sendall(encode(DONE))
        elif kind == PING:
            controller.sendall(encode(DONE))
        elif kind == PAUSE:
            state = self._machine.save()
            try:
                controller.sendall(encode(PAUSED, state))
                self._stand_still(controller)
            except OSError:
                self._machine.resume()  # from a complete state: nothing else lets a controller go away
                raise
            self._machine.resume()
        else:
            controller.sendall(encode(ERROR, f"message {kind} has no meaning while the guest runs".encode()))

    def _stand_still(self, controller: socket.socket) -> None:
        while True:
            kind, body, _ = _receive(controller)
            if kind == RESUME:
                controller.sendall(encode(DONE))
                return
            if kind == PING:
                controller.sendall(encode(DONE))
                continue
            if kind != LOAD or self._cache is None:
                controller.sendall(encode(ERROR, f"message {kind} has no meaning now".encode()))
                continue
            self._load(controller, body, self._cache)

    def _load(self, controller: socket.socket, body: bytes, cache: Region) -> None:
        runs, zeros, state = parse_load(body)
        memory, pages = self._region.view, cache.view
        try:
            for first, count in runs:
                part = slice(first * PAGE_SIZE, (first + count) * PAGE_SIZE)
                memory[part] = pages[part]
            for first, count in zeros:
                self._region.clear(first, count)
            self._machine.load(state)
        except Exception as error:
            with suppress(OSError):
                controller.sendall(encode(ERROR, f"{type(error).__name__}: {error}".encode()))
            raise CheckpointerError(f"the guest could not load a state and must end: {error}") from error
        controller.sendall(encode(DONE))


def _receive(controller: socket.socket) -> tuple[int, bytes, list[int]]:
    """Wait for a whole message. Raises OSError when the controller is gone or makes no sense."""
    header, ancillary, _, _ = controller.recvmsg(HEADER_LENGTH, socket.CMSG_SPACE(4 * 2))
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % 4])
    header += _receive_exactly(controller, HEADER_LENGTH - len(header)) if header else b""
    try:
        if len(header) < HEADER_LENGTH:
            raise ConnectionResetError("the controller is gone")
        kind, length = parse_header(header)
        return kind, _receive_exactly(controller, length), list(descriptors)
    except (OSError, CheckpointerError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ConnectionResetError(str(error)) from None


def _receive_exactly(controller: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = controller.recv_into(view)
        if not count:
            raise ConnectionResetError("the controller is gone")
        view = view[count:]
    return bytes(data)
