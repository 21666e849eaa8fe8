"""Named network namespaces: entering, making, removing them."""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from tap_setup.host import Host
from tap_setup.netlink import enter_namespace, name_namespace, unname_namespace
from tap_setup.record import MARK
from tap_setup.refusal import attempting

T = TypeVar("T")

NAMES: Final = Path("/run/netns")  # where `ip netns` keeps them
CLONE_NEWNET: Final = 0x40000000  # include/uapi/linux/sched.h

# What the kernel itself puts into every new namespace: the loopback, and a fallback link for each tunnel
# module that is loaded (net.core.fb_tunnels_only_for_init_net).
KERNELS_OWN: Final = frozenset(
    ("lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0")
)


def namespace_path(namespace: str) -> Path:
    """Give the file of a namespace: a name's below /run/netns, or the path as it is."""
    return NAMES / namespace  # joining an absolute path gives that path


def namespace_exists(namespace: str) -> bool:
    """Whether there is such a namespace."""
    return namespace_path(namespace).exists()


def inside(namespace: str | None, device: Path, work: Callable[[Host], T]) -> T:
    """Do something in a namespace; None is the one where the caller is.

    A thread of its own enters the namespace and ends with the work: setns(2) moves one thread only, so that
    the caller stays where it is and nothing has to be undone. Raises SetupError, and what the work raises.
    """

    def enter() -> T:
        if namespace is not None:
            with attempting(f"enter the namespace {namespace}"):
                descriptor = os.open(namespace_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    enter_namespace(descriptor)
                finally:
                    os.close(descriptor)
        with Host(device) as host:
            return work(host)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace") as thread:
        return thread.submit(enter).result()


def make_namespace(name: str, device: Path) -> None:
    """Make a named namespace, marked.

    The mark is the alias of its loopback: like a link's it lives and dies with the namespace, and whoever
    makes another one of the same name makes it without. It is set before the namespace has a name.
    """

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)  # os.unshare comes with Python 3.12
        with attempting(f"make the namespace {name}"):
            if libc.unshare(CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        with Host(device) as host:
            loopback = host.read("lo")
            assert loopback is not None
            host.set_alias(loopback, MARK)
        with attempting(f"name the namespace {name}"):
            try:
                name_namespace(name, threading.get_native_id())
            except FileExistsError:
                raise
            except OSError:
                # The file that it is mounted on was made first; left alone it would look like a namespace.
                namespace_path(name).unlink(missing_ok=True)
                raise

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace") as thread:
        thread.submit(make).result()


def others_in(host: Host) -> list[str]:
    """Give the links in a namespace that did not come with it."""
    return [name for name in host.names() if name not in KERNELS_OWN]


def made_here(host: Host) -> bool:
    """Whether this program made the namespace."""
    loopback = host.read("lo")
    return loopback is not None and loopback.made_here


def remove_namespace(name: str) -> None:
    """Take the name away. The kernel removes the namespace when no process is left in it."""
    with attempting(f"remove the namespace {name}"):
        unname_namespace(name)
