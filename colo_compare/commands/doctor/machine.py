"""The doctor's look at the machine and the program: kernel, clock, limits, places to write to."""

import ctypes
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from colo_compare.build import is_compiled
from colo_compare.commands.doctor.account import CAP_NET_ADMIN, Account
from colo_compare.commands.doctor.finding import Finding, bad, doubtful, good
from colo_compare.config import Config
from colo_compare.http import parse_listen

OLDEST_KERNEL: Final = (4, 20)  # AF_PACKET's PACKET_IGNORE_OUTGOING, linux/if_packet.h
WANTED_BUFFER: Final = 16 << 20  # bytes of a packet socket: with 4 MiB, 50 downloads at once lost frames
_GOOD_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")
_CLOCK: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES: Final = 208  # sizeof(struct timex) on 64-bit Linux


def look_at_machine(account: Account, *, has_packet_ports: bool) -> Iterator[Finding]:
    """Give the findings about kernel, clock and limits."""
    yield _kernel(platform.release())
    yield _clock_source(_CLOCK)
    yield _synchronized(_adjtimex())
    if has_packet_ports and not account.may(CAP_NET_ADMIN):
        yield _buffers(Path("/proc/sys/net/core/rmem_max"))
    if is_compiled():
        yield good("program", f"compiled, Python {platform.python_version()}")
    else:
        fix = "install a C compiler, then pip install --force-reinstall colo-compare"
        yield doubtful("program", "the core runs as plain Python, much slower than compiled", fix)
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        yield doubtful("CPU", "one core for the proxy and everything else here", "give it a core of its own")
    else:
        yield good("CPU", f"{cores} cores")


def _kernel(release: str) -> Finding:
    words = release.split(".")
    version = (int(words[0]), int("".join(c for c in words[1] if c.isdigit()) or "0"))
    if version < OLDEST_KERNEL:
        return bad("kernel", f"Linux {release} is too old", "use Linux 4.20 or newer")
    return good("kernel", f"Linux {release}")


def _clock_source(path: Path) -> Finding:
    try:
        source = path.read_text().strip()
    except OSError:
        return good("clock source", "not known here")
    if source in _GOOD_CLOCKS:
        return good("clock source", source)
    fix = f"echo tsc > {path}, where the machine offers it; see available_clocksource beside it"
    return doubtful("clock source", f"{source}: each look at the time is slow", fix)


def _adjtimex() -> int:
    """Give the state of the kernel's clock, -1 where it cannot be asked: adjtimex(2), changing nothing."""
    libc = ctypes.CDLL(None)
    result: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return result


def _synchronized(state: int) -> Finding:
    if state == _TIME_ERROR:
        text = "not synchronized: times in logs and captures of several machines do not fit together"
        return doubtful("clock", text, "run chrony or systemd-timesyncd")
    return good("clock", "synchronized" if state >= 0 else "not known here")


def _buffers(path: Path) -> Finding:
    try:
        limit = int(path.read_text())
    except (OSError, ValueError):  # not a setting of this network namespace
        return good("buffers", "net.core.rmem_max is not to be seen here")
    if limit < WANTED_BUFFER:
        text = f"net.core.rmem_max is {limit}: packet sockets may lose frames in bursts"
        return doubtful("buffers", text, f"sysctl -w net.core.rmem_max={WANTED_BUFFER}, or CAP_NET_ADMIN")
    return good("buffers", f"net.core.rmem_max is {limit}")


def look_at_places(config: Config, account: Account, *, running: bool) -> Iterator[Finding]:
    """Give the findings about the control socket, HTTP and captures."""
    if config.control.socket != "off":
        yield _control(Path(config.control.socket), account, running=running)
    if config.http.listen != "off" and not running:
        yield _listen(config.http.listen)
    if config.capture.directory != "off":
        yield _captures(Path(config.capture.directory), config.capture.max_bytes, account)


def _control(path: Path, account: Account, *, running: bool) -> Finding:
    about = "control socket"
    if running:
        return good(about, f"a proxy answers on {path}")
    return _writable(about, path.parent, account) or good(about, f"{path} can be made")


def _captures(directory: Path, limit: int, account: Account) -> Finding:
    trouble = _writable("captures", directory, account)
    if trouble is not None:
        return trouble
    free = shutil.disk_usage(directory).free
    if free < limit:
        text = f"{directory} has {free >> 20} MiB free, and captures may take {limit >> 20}"
        return doubtful("captures", text, "make room, or lower [capture] max_bytes")
    return good("captures", f"{directory} has {free >> 20} MiB free")


def _writable(about: str, directory: Path, account: Account) -> Finding | None:
    if not directory.is_dir():
        fix = f"install -d -o {account.name} -m 0750 {directory}"
        return bad(about, f"there is no directory {directory}", fix)
    if not account.can_write(directory):
        return bad(about, f"{account.name} may not write to {directory}", f"chown {account.name} {directory}")
    return None


def _listen(text: str) -> Finding:
    host, port = parse_listen(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return bad("HTTP", f"{text}: {error.strerror}", "free that port, or change [http] listen")
    return good("HTTP", f"{text} is free")
