"""Dirty pages from the page table: asynchronous write protection and PAGEMAP_SCAN (Linux 6.7 and later).

Page tables belong to processes, and a guest writes through its own. So the guest itself registers its mapping
(`WriteProtection`), and hands out its /proc/self/pagemap, opened; with that descriptor any other process may
scan, and protect again in the same step (`PagemapTracker`). The kernel resolves the faults by itself: a guest
that writes to a protected page loses about a microsecond, once, and nobody has to serve it.

A write through another mapping of the same memfd is not seen: it is not the guest's. Children that a guest
forks have page tables of their own: they must not write to its memory.

Constants and layouts: include/uapi/linux/userfaultfd.h, include/uapi/linux/fs.h (struct pm_scan_arg).
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import ClassVar, Final

from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region
from colo_compare.checkpoint.memory.tracker import Tracker
from colo_compare.errors import CheckpointerError

_SYSCALLS: Final = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
# Lets users without privilege in. Faults of the kernel itself (a read() into guest memory) are resolved all
# the same, as asynchronous protection asks nobody.
_USER_MODE_ONLY: Final = 1

_API: Final = 0xAA
_FEATURE_WP_SHMEM: Final = 1 << 12
_FEATURE_WP_UNPOPULATED: Final = 1 << 13
_FEATURE_WP_ASYNC: Final = 1 << 15
_REGISTER_WP: Final = 1 << 1
_WRITEPROTECT_WP: Final = 1 << 0

_UFFDIO_API: Final = 0xC018AA3F
_UFFDIO_REGISTER: Final = 0xC020AA00
_UFFDIO_WRITEPROTECT: Final = 0xC018AA06
_THREE: Final = struct.Struct("QQQ")
_FOUR: Final = struct.Struct("QQQQ")

_PAGEMAP_SCAN: Final = 0xC0606610
_SCAN: Final = struct.Struct("12Q")
_SCAN_WP_MATCHING: Final = 1 << 0
_SCAN_CHECK_WPASYNC: Final = 1 << 1
_PAGE_IS_WRITTEN: Final = 1 << 1
_WALK_END: Final = 4  # index in pm_scan_arg
_REGIONS: Final = 4096  # struct page_region (start, end, categories) in one scan: 96 KiB


_REASONS: Final = {
    errno.EPERM: "its memory is not protected",
    errno.ESRCH: "its process has ended",
    errno.ENOTTY: "Linux 6.7 or later is needed",
}


class WriteProtection:
    """The guest's part: its own mapping, protected. It lasts as long as this object is open."""

    def __init__(self, region: Region) -> None:
        """Protect all of a region's mapping in this process. Raises CheckpointerError."""
        self._fault_descriptor = _open_userfaultfd()
        try:
            features = _FEATURE_WP_SHMEM | _FEATURE_WP_UNPOPULATED | _FEATURE_WP_ASYNC
            self._ioctl(_UFFDIO_API, _THREE.pack(_API, features, 0))
            self._ioctl(_UFFDIO_REGISTER, _FOUR.pack(region.address, region.size, _REGISTER_WP, 0))
            self._ioctl(_UFFDIO_WRITEPROTECT, _THREE.pack(region.address, region.size, _WRITEPROTECT_WP))
            self.pagemap: Final = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self._fault_descriptor)
            raise CheckpointerError(
                f"written pages cannot be tracked by write protection ({error.strerror}): "
                "Linux 6.7 or later is needed"
            ) from None
        self.address: Final = region.address

    def _ioctl(self, request: int, argument: bytes) -> None:
        fcntl.ioctl(self._fault_descriptor, request, bytearray(argument), True)

    def close(self) -> None:
        """End the protection."""
        os.close(self.pagemap)
        os.close(self._fault_descriptor)


def _open_userfaultfd() -> int:
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise CheckpointerError(f"write protection is not known on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    if descriptor < 0:
        reason = os.strerror(ctypes.get_errno())
        raise CheckpointerError(f"userfaultfd is not to be had: {reason}; a container may forbid it")
    return descriptor


class PagemapTracker(Tracker):
    """Scans a guest's page table."""

    name: ClassVar[str] = "pagemap"

    def __init__(self, pagemap: int, address: int, size: int) -> None:
        """Take the guest's opened pagemap (which belongs to the tracker), and where its memory is *there*.

        Looks once, so that what was written before does not count. Raises CheckpointerError where this kernel
        cannot scan, or the memory there is not protected.
        """
        self._pagemap = pagemap
        self._start = address
        self._end = address + size
        self._regions = (ctypes.c_uint64 * (3 * _REGIONS))()
        try:
            self.look()
        except CheckpointerError:
            os.close(pagemap)
            raise

    def look(self) -> list[Run]:
        """Give what was written, and protect it again, in one step for each page."""
        try:
            return self._scan()
        except OSError as error:
            why = _REASONS.get(error.errno or 0) or error.strerror
            raise CheckpointerError(f"the guest's page table cannot be scanned: {why}") from None

    def _scan(self) -> list[Run]:
        runs: list[Run] = []
        at = self._start
        while at < self._end:
            argument = bytearray(
                _SCAN.pack(
                    _SCAN.size,
                    _SCAN_WP_MATCHING | _SCAN_CHECK_WPASYNC,
                    at,
                    self._end,
                    0,
                    ctypes.addressof(self._regions),
                    _REGIONS,
                    0,
                    0,
                    _PAGE_IS_WRITTEN,
                    0,
                    _PAGE_IS_WRITTEN,
                )
            )
            found = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, argument, True)
            for start, end in zip(
                self._regions[0 : 3 * found : 3], self._regions[1 : 3 * found : 3], strict=True
            ):
                runs.append(((start - self._start) // PAGE_SIZE, (end - start) // PAGE_SIZE))
            at = _SCAN.unpack(argument)[_WALK_END]
        return runs

    def close(self) -> None:
        """Let go of the guest's pagemap."""
        os.close(self._pagemap)
