"""Memory that several processes share: a memfd, and this process's mapping of it."""

import ctypes
import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.errors import CheckpointerError

PAGE_SIZE: Final = mmap.PAGESIZE

# include/uapi/linux/falloc.h
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

_WORTH_A_HOLE: Final = 16
"""Pages: a shorter run is sooner written over than given back."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Region:
    """A guest's memory, or the cache that mirrors another guest's."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Map `size` bytes of a memfd, which from now on belongs to the region.

        Raises CheckpointerError for a size that is not made of pages, or that the memfd does not have.
        """
        self.descriptor: Final = descriptor
        self.size: Final = size
        self.pages: Final = size // PAGE_SIZE
        if size <= 0 or size % PAGE_SIZE or os.fstat(descriptor).st_size < size:
            os.close(descriptor)
            raise CheckpointerError(
                f"{size} bytes of memory cannot be shared: it must be whole pages of {PAGE_SIZE} bytes, "
                "and the memfd as large"
            )
        self._mapping: Final = mmap.mmap(descriptor, size)
        self.view: Final = memoryview(self._mapping)
        self.address: Final = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        """Where it is in this process."""

    @classmethod
    def create(cls, size: int, name: str = "guest") -> Self:
        """Make a new one, all zero. `name` is what /proc/PID/maps shows."""
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        return cls(descriptor, size)

    @property
    def identity(self) -> str:
        """What tells this memory from all others, on whatever machine: equal for all who share it."""
        status = os.fstat(self.descriptor)
        return f"{_BOOT.read_text().strip()} {status.st_dev} {status.st_ino}"

    def holes(self) -> list[Run]:
        """Give the pages that have no memory behind them yet, as nobody has written them.

        They are zeros, and must not be read: reading a hole of a shared mapping makes memory of it, and a
        sparse guest would be a full one after its first checkpoint. Looks at everything: some 35 us for each
        MiB of memory. (mincore(2) is no way out: it takes pages that were swapped out for holes.)
        """
        found: list[Run] = []
        at = 0
        while at < self.size:
            begin = self._next_data(at)
            if begin > at:
                found.append((at // PAGE_SIZE, (begin - at) // PAGE_SIZE))
            at = os.lseek(self.descriptor, begin, os.SEEK_HOLE) if begin < self.size else begin
        return found

    def _next_data(self, at: int) -> int:
        """Give where memory is next, from `at` on (bytes); the end if there is none; lseek(2)."""
        try:
            return min(os.lseek(self.descriptor, at, os.SEEK_DATA), self.size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size
            raise

    def clear(self, first: int, count: int) -> None:
        """Make pages zero, in a way that keeps holes, and makes one of what is long."""
        at, end = first * PAGE_SIZE, (first + count) * PAGE_SIZE
        if count >= _WORTH_A_HOLE and not _fallocate(self.descriptor, _KEEP_SIZE | _PUNCH_HOLE, at, end - at):
            return
        at = min(self._next_data(at), end)
        self.view[at:end] = bytes(end - at)

    def close(self) -> None:
        """Let go of it. The memory lives on where another process has it."""
        self.view.release()
        with suppress(BufferError):  # a slice of it is still in use: the mapping goes with the last one
            self._mapping.close()
        os.close(self.descriptor)
