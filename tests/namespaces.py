"""Network namespaces, users and devices for tests that talk to the real kernel."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000  # linux/sched.h
NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def ip(arguments: str) -> None:
    """Run ip(8) in the namespace of this thread."""
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def quiet(interface: str) -> None:
    """Set an interface up on which the host's own stack says nothing."""
    Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")
    ip(f"link set dev {interface} up arp off")


def settle(*interfaces: str) -> None:
    """Wait until the kernel has noticed that interfaces have a carrier.

    It does so in the background; until then it throws away, without a word, what is sent there.
    """
    for interface in interfaces:
        for _ in range(1000):
            shown = subprocess.run(
                ["ip", "-oneline", "link", "show", "dev", interface],
                check=True,
                capture_output=True,
                text=True,
            )
            if "LOWER_UP" in shown.stdout and "state DOWN" not in shown.stdout:
                break
        else:
            pytest.fail(f"{interface} got no carrier")
        ip(f"link set dev {interface} up")  # takes the lock that is held while the queues are switched on


@contextmanager
def new_namespace() -> Iterator[None]:
    """Put this thread into a new network namespace, which goes away with all that is in it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())} (run as root)")
        try:
            yield
        finally:
            if _libc.setns(before, CLONE_NEWNET) != 0:
                pytest.exit("the test's network namespace cannot be left")
    finally:
        os.close(before)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user with no capability at all for a while."""
    os.seteuid(NOBODY)  # and with it go all effective capabilities: capabilities(7)
    try:
        status = Path("/proc/thread-self/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        yield
    finally:
        os.seteuid(0)
