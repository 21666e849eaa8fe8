"""What a checkpointer can do with a guest, and the guest that is reached through its control socket."""

import os
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import trio

from colo_compare.checkpoint.local_process import LocalProcess
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
    pack_load,
    parse_attached,
    parse_header,
)
from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region
from colo_compare.checkpoint.memory.tracker import Tracker
from colo_compare.checkpoint.memory.tracker_compare import CompareTracker
from colo_compare.checkpoint.memory.tracker_pagemap import PagemapTracker
from colo_compare.errors import CheckpointerError

AUTO: Final = "auto"

_DESCRIPTOR: Final = struct.Struct("i")


class GuestControl(ABC):
    """A guest on this machine.

    Each method raises CheckpointerError when the guest does not do in time what it is told.
    """

    region: Region
    address: str  # where others could attach to it, once this one has let go of it

    @abstractmethod
    async def pause(self) -> bytes:
        """Stop it, and give its device state. It changes nothing any more until `resume`."""

    @abstractmethod
    async def resume(self) -> None:
        """Let it run on."""

    @abstractmethod
    async def lend_cache(self, cache: Region) -> None:
        """Give it the memory that `load` copies from."""

    @abstractmethod
    async def load(self, runs: list[Run], device_state: bytes, zeros: Sequence[Run] = ()) -> None:
        """Have it copy these pages from the cache, make those zero, and take this device state.

        It stays stopped.

        It does the copying, as it alone cannot die in the middle of it and still be there. When this raises,
        the guest has no complete state any more.
        """

    @abstractmethod
    def track(self, choice: str, cache: Region | None) -> Tracker:
        """Make a tracker of its written pages: "auto", "pagemap" or "compare".

        `cache`: what the secondary is to be compared with; None for a primary, which gets a copy of its own.
        Raises CheckpointerError where this one is impossible.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Return when it has shown that it lives."""

    @abstractmethod
    async def wait_gone(self) -> None:
        """Wait until its process has ended."""

    @abstractmethod
    async def kill(self) -> None:
        """End its process, and return when it is dead."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of it. If it stands still, it runs on."""


class SocketGuest(GuestControl):
    """A guest process that has a `guest_port.GuestPort`, or speaks `guest_protocol` by other means."""

    def __init__(
        self,
        path: str,
        stream: trio.SocketStream,
        region: Region,
        process: LocalProcess,
        pagemap: tuple[int, int] | None,
        timeout: float,
    ) -> None:
        self.address = os.path.abspath(path)  # noqa: PTH100 - others hear of it, and work elsewhere
        self._stream = stream
        self.region = region
        self._process = process
        self._pagemap = pagemap  # descriptor, address in the guest
        self._timeout = timeout
        self._broken = ""
        self._talking = trio.Lock()  # one question at a time

    @classmethod
    async def attach(cls, path: str, *, patience: float) -> "SocketGuest":
        """Connect to a guest. Raises CheckpointerError. `patience` (s) holds for each answer from now on."""
        try:
            with trio.fail_after(patience):
                stream = await trio.open_unix_socket(path)
                try:
                    return await cls._introduce(path, stream, patience)
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except trio.TooSlowError:
            raise CheckpointerError(
                f"{path}: the guest does not introduce itself within {patience:g} s: "
                "does it hang, or does another checkpointer control it?"
            ) from None
        except OSError as error:
            raise CheckpointerError(
                f"{path}: no guest listens there ({error.strerror or error}): start the guest first"
            ) from None

    @classmethod
    async def _introduce(cls, path: str, stream: trio.SocketStream, patience: float) -> "SocketGuest":
        process = LocalProcess.behind(stream.socket)
        if process is None:
            raise CheckpointerError(
                f"{path}: the guest's process cannot be seen from here, so it could not be fenced: "
                "run both in the same pid namespace"
            )
        header, ancillary, _, _ = await stream.socket.recvmsg(HEADER_LENGTH, socket.CMSG_SPACE(4 * 2))
        descriptors = [number for _, _, data in ancillary for (number,) in _DESCRIPTOR.iter_unpack(data)]
        try:
            kind, length = parse_header(header.ljust(HEADER_LENGTH, b"\0"))
            size, address, page_size = parse_attached(await _receive_exactly(stream, length))
            _check_attached(path, kind, len(descriptors), page_size)
        except BaseException:
            process.close()
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        region = Region(descriptors[0], size)
        pagemap = (descriptors[1], address) if len(descriptors) > 1 else None
        return cls(path, stream, region, process, pagemap, patience)

    async def pause(self) -> bytes:
        """Stop it, and give its device state."""
        return await self._call(PAUSE, b"", PAUSED, "stop")

    async def resume(self) -> None:
        """Let it run on."""
        await self._call(RESUME, b"", DONE, "run on")

    async def load(self, runs: list[Run], device_state: bytes, zeros: Sequence[Run] = ()) -> None:
        """Have it copy these pages from the cache, make those zero, and take this device state."""
        await self._call(LOAD, pack_load(runs, list(zeros), device_state), DONE, "load a state")

    async def lend_cache(self, cache: Region) -> None:
        """Give it the memory that `load` copies from."""
        await self._call(CACHE, b"", DONE, "map the cache", cache.descriptor)

    def track(self, choice: str, cache: Region | None) -> Tracker:
        """Make a tracker of its written pages."""
        if choice != CompareTracker.name:
            try:
                return self._track_pagemap()
            except CheckpointerError:
                if choice != AUTO:
                    raise
        if cache is not None:
            return CompareTracker(self.region, cache, follow=False)
        return CompareTracker(self.region, Region.create(self.region.size, "colo-copy"), follow=True)

    def _track_pagemap(self) -> Tracker:
        if self._pagemap is None:
            raise CheckpointerError(
                f'{self.address}: the guest does not protect its pages: use tracker "compare"'
            )
        descriptor, address = self._pagemap
        return PagemapTracker(os.dup(descriptor), address, self.region.size)

    async def ping(self) -> None:
        """Return when it has shown that it lives."""
        await self._call(PING, b"", DONE, "answer")

    async def wait_gone(self) -> None:
        """Wait until its process has ended."""
        await self._process.wait()

    async def kill(self) -> None:
        """End its process, and return when it is dead."""
        try:
            self._process.kill()
        except PermissionError:
            raise CheckpointerError(
                f"{self.address}: process {self._process.pid} belongs to another user and cannot be killed: "
                "run the proxy as that user or as root"
            ) from None
        with trio.move_on_after(self._timeout):
            await self._process.wait()
        if not self._process.dead:
            raise CheckpointerError(
                f"{self.address}: process {self._process.pid} did not die "
                f"within {self._timeout:g} s of SIGKILL"
            )

    async def aclose(self) -> None:
        """Let go of it. If it stands still, it runs on."""
        await trio.aclose_forcefully(self._stream)
        self._process.close()
        if self._pagemap is not None:
            os.close(self._pagemap[0])
            self._pagemap = None
        self.region.close()

    async def _call(
        self, kind: int, body: bytes, expected: int, what: str, descriptor: int | None = None
    ) -> bytes:
        """Ask, and wait for the answer.

        Not to be cancelled in the middle: the next answer would be taken for this one's.
        """
        with trio.CancelScope(shield=True):
            try:
                # To wait for one's turn is bounded, too: by the time-out of the question before.
                async with self._talking:
                    with trio.fail_after(self._timeout):
                        return await self._exchange(encode(kind, body), expected, what, descriptor)
            except trio.TooSlowError:
                self._broken = f"it did not {what} within {self._timeout:g} s"
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = (
                    self._broken or f"it is gone, or has closed its control socket (asked to {what})"
                )
            await trio.aclose_forcefully(self._stream)
        raise CheckpointerError(f"{self.address}: the guest does not do as it is told: {self._broken}")

    async def _exchange(self, message: bytes, expected: int, what: str, descriptor: int | None) -> bytes:
        if descriptor is None:
            await self._stream.send_all(message)
        else:
            # One descriptor in one message: it goes with the first byte, and 16 bytes are never cut.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
            await self._stream.socket.sendmsg([message], [rights])
        kind, length = parse_header(await _receive_exactly(self._stream, HEADER_LENGTH))
        body = await _receive_exactly(self._stream, length)
        if kind == expected:
            return body
        said = body.decode(errors="replace") if kind == ERROR else f"message {kind}"
        raise CheckpointerError(f"{self.address}: the guest was asked to {what}, and answers: {said}")


def _check_attached(path: str, kind: int, descriptors: int, page_size: int) -> None:
    if kind != ATTACHED or not descriptors or page_size != PAGE_SIZE:
        raise CheckpointerError(
            f"{path}: it does not introduce itself as a guest with pages of {PAGE_SIZE} bytes and a memfd"
        )


async def _receive_exactly(stream: trio.SocketStream, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = await stream.receive_some(min(length - len(data), 1 << 20))
        if not part:
            raise trio.BrokenResourceError("the guest is gone")
        data += part
    return bytes(data)
