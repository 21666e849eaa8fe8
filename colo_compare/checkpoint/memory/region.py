"""Memory that several processes share: a memfd, and this process's mapping of it."""

import ctypes
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from colo_compare.errors import CheckpointerError

PAGE_SIZE: Final = mmap.PAGESIZE

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

    def close(self) -> None:
        """Let go of it. The memory lives on where another process has it."""
        self.view.release()
        with suppress(BufferError):  # a slice of it is still in use: the mapping goes with the last one
            self._mapping.close()
        os.close(self.descriptor)
