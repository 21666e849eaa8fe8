"""A capture file that is written beside the loop: nothing waits for the disk."""

import logging
from pathlib import Path
from typing import BinaryIO, Final

import trio

from colo_compare.errors import PortUnavailable
from colo_compare.ports.pcap import CaptureEncoder

logger: Final = logging.getLogger(__name__)

CAPACITY: Final = 32 << 20  # bytes that may wait to be written


class CaptureSink:
    """Takes frames at once; a task of its own writes them, in a thread."""

    def __init__(self, url: str, path: Path, interfaces: list[str]) -> None:
        self.failure = ""  # why nothing is written any more
        self._url = url
        self._path = path
        self._encoder = CaptureEncoder(path, interfaces)
        self._file: BinaryIO | None = None
        self._blocks: list[bytes] = []
        self._size = 0  # of these
        self._closing = False
        self._wake = trio.Event()  # for the task
        self._idle = trio.Event()  # set once the task has ended
        self._room = trio.lowlevel.ParkingLot()

    async def open(self) -> None:
        """Create the file. Raises PortUnavailable."""
        try:
            self._file = await trio.to_thread.run_sync(self._path.open, "wb")
        except OSError as error:
            raise PortUnavailable(f"{self._url}: {self._path} cannot be written: {error.strerror}") from None
        self._blocks.append(self._encoder.header())
        trio.lowlevel.spawn_system_task(self._write, self._file, name=f"capture {self._path}")

    @property
    def full(self) -> bool:
        """Whether the disk is so far behind that frames must wait, or go unwritten."""
        return self._size >= CAPACITY

    def put(self, interface: str, at: int, data: bytes) -> None:
        """Take a frame, also when it is full; after a failure, nothing. `at`: nanoseconds since 1970."""
        if self.failure:
            return
        block = self._encoder.frame(interface, at, data)
        self._blocks.append(block)
        self._size += len(block)
        self._wake.set()

    async def wait_room(self) -> None:
        """Wait until it is not full, or has failed."""
        await trio.lowlevel.checkpoint()
        while self.full and not self.failure:
            await self._room.park()

    async def aclose(self) -> None:
        """Write what is left, and close the file. Takes as long as the disk takes, cancelled or not."""
        if self._file is None:
            return
        self._closing = True
        self._wake.set()
        with trio.CancelScope(shield=True):
            await self._idle.wait()
        self._file = None
        await trio.lowlevel.checkpoint()

    async def _write(self, file: BinaryIO) -> None:
        try:
            with file:
                while True:
                    blocks, self._blocks = self._blocks, []
                    if blocks:
                        await trio.to_thread.run_sync(_write_out, file, blocks)
                        self._size = sum(map(len, self._blocks))
                        self._room.unpark_all()
                    elif self._closing:
                        break
                    else:
                        self._wake = trio.Event()
                        await self._wake.wait()
        except OSError as error:
            self.failure = f"{self._path} cannot be written: {error.strerror}"
            logger.warning("%s: %s", self._url, self.failure)
            self._blocks = []
            self._room.unpark_all()
        finally:
            self._idle.set()


def _write_out(file: BinaryIO, blocks: list[bytes]) -> None:
    file.write(b"".join(blocks))
    file.flush()
