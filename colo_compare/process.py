"""How the daemon's process is set up before it handles frames: CPUs, memory, the garbage collector."""

import ctypes
import gc
import os
from typing import Final

from colo_compare.config import ProcessTable
from colo_compare.errors import ConfigError

# Objects made beyond those freed until the young ones are looked through; how often that until the
# middle-aged ones are, too; how often that until all are. Measured with 200,000 flows, compiled: the first
# takes 0.03 ms, the second 0.2 ms, a full collection 75 ms, in which every frame waits, and in which nothing
# was found after all flows had come and gone. So it is left for what the shell may lose in months.
THRESHOLDS: Final = (2000, 5, 10_000)

# glibc's malloc gives what is free at the end of its heap back to the kernel, from 128 KiB on, and blocks of
# that size at once: two frames of 64 KiB. The page faults took 2 % of the CPU time of a bulk transfer.
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
KEPT_FREE: Final = 16 << 20  # bytes at the end of the heap
_LARGE: Final = 1 << 20  # bytes from which a block is mapped by itself


def prepare_process(settings: ProcessTable) -> None:
    """Set up this process. Raises ConfigError where it may not use one of the CPUs that it should."""
    gc.set_threshold(*THRESHOLDS)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_FREE)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
    if not settings.cpus:
        return
    allowed = os.sched_getaffinity(0)
    missing = sorted(set(settings.cpus) - allowed)
    if missing:
        raise ConfigError(
            "$.process.cpus",
            f"this process may not use CPU {_listing(missing)}: "
            f"it may use {_listing(sorted(allowed))} (see `taskset -p`, or the container's cpuset)",
        )
    os.sched_setaffinity(0, settings.cpus)


def _listing(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
