"""What a process costs: its CPU time and its memory, as the kernel counts them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import colo_compare

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(colo_compare.__file__).resolve().parents[1]  # where Python finds what is measured
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Give the CPU time of a process, user and system, of all its threads.

    The process's CPU clock is the sum of utime and stime in /proc/PID/stat, which counts in steps of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED, kernel/time/posix-cpu-timers.c


def resident_bytes(pid: int) -> int:
    """Give the memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def wait_until(
    condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait for something that a process of ours must do, up to 20 s. Raises RuntimeError."""
    end = time.monotonic() + 20
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within 20 s")
        time.sleep(0.01)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and wait until it is gone."""
    process.kill()
    process.wait()
