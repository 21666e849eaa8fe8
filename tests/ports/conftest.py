"""A network namespace of its own for each test that needs one, and what stands in it."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000  # linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def ip(arguments: str) -> None:
    """Run ip(8) in the namespace of this thread."""
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def quiet(interface: str, *, up: bool = True) -> None:
    """Keep the host's own stack from saying anything on an interface."""
    Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")
    ip(f"link set dev {interface} arp off")
    if up:
        ip(f"link set dev {interface} up")


@pytest.fixture
def namespace() -> Iterator[None]:
    """Put this thread into a new network namespace, which goes away with all that is in it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())} (run as root)")
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


@pytest.fixture
def veth(namespace: None) -> tuple[str, str]:
    """Make a cable: two interfaces that take frames of up to 65,549 bytes."""
    ip("link add left mtu 65535 type veth peer name right mtu 65535")
    quiet("left")
    quiet("right")
    return "left", "right"


@pytest.fixture
def tap(namespace: None) -> str:
    """Make a persistent tap."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun: modprobe tun")
    ip("tuntap add dev tap0 mode tap")
    quiet("tap0")
    return "tap0"


@pytest.fixture
def unused_port() -> int:
    """Find a TCP port of the loopback address that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
