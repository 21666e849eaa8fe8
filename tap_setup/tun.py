"""Taps by ioctl: drivers/net/tun.c, include/uapi/linux/if_tun.h.

pyroute2 can make persistent taps too, with the right flags. It cannot mark one before it is made to last,
nor give an existing one another owner.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tap_setup.refusal import attempting

# The numbers of x86 and Arm; _IOW('T', n, int). Where the direction bits differ (MIPS, PowerPC) the kernel
# answers ENOTTY, which is shown.
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOWNER: Final = 0x400454CC
TUNSETGROUP: Final = 0x400454CE

IFF_TAP: Final = 0x0002
IFF_MULTI_QUEUE: Final = 0x0100
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000  # fail if there is such a link already

_IFREQ: Final = struct.Struct("16sH22x")  # struct ifreq: ifr_name, ifr_flags

_NO_DEVICE: Final = dict.fromkeys(
    (errno.ENOENT, errno.ENXIO, errno.ENODEV),
    "load the tun module (modprobe tun), and let the container have the device",
)
_IN_USE: Final = {errno.EBUSY: "a process has it open: stop that process first"}
_NOT_MAPPED: Final = {errno.EINVAL: "this user namespace does not map that id"}


@dataclass(frozen=True)
class TapShape:
    """What TUNSETIFF, TUNSETOWNER and TUNSETGROUP set. `group` None: no group is asked of who attaches."""

    owner: int
    group: int | None
    multi_queue: bool
    vnet_hdr: bool

    def flags(self) -> int:
        """Give the IFF_* flags of TUNSETIFF."""
        return (
            IFF_TAP
            | IFF_NO_PI
            | (IFF_MULTI_QUEUE if self.multi_queue else 0)
            | (IFF_VNET_HDR if self.vnet_hdr else 0)
        )


def make_tap(device: Path, name: str, shape: TapShape, mark: Callable[[], None]) -> None:
    """Make a persistent tap in the calling thread's network namespace.

    `mark` is called while the tap still goes away with this process: one that lasts is always marked, even
    if the program dies in between.
    """
    with _attached(device, name, shape.flags() | IFF_TUN_EXCL) as descriptor:
        _own(descriptor, name, shape)
        mark()
        with attempting(f"make the tap {name} persistent"):
            fcntl.ioctl(descriptor, TUNSETPERSIST, 1)


def reshape_tap(device: Path, name: str, shape: TapShape) -> None:
    """Give an existing tap another owner, group or vnet header. It must have as many queues as it has."""
    with _attached(device, name, shape.flags()) as descriptor:
        _own(descriptor, name, shape)


def try_tap(device: Path, name: str, *, multi_queue: bool) -> None:
    """Attach to a tap and leave it. Raises SetupError if a process has its only queue open."""
    with _attached(device, name, IFF_TAP | IFF_NO_PI | (IFF_MULTI_QUEUE if multi_queue else 0)):
        pass


@contextmanager
def _attached(device: Path, name: str, flags: int) -> Iterator[int]:
    with attempting(f"open {device}", _NO_DEVICE):
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        with attempting(f"attach the tap {name}", _IN_USE):
            fcntl.ioctl(descriptor, TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        yield descriptor
    finally:
        os.close(descriptor)


def _own(descriptor: int, name: str, shape: TapShape) -> None:
    with attempting(f"give the tap {name} to uid {shape.owner}", _NOT_MAPPED):
        fcntl.ioctl(descriptor, TUNSETOWNER, _int(shape.owner))
    if shape.group is not None:
        with attempting(f"give the tap {name} to gid {shape.group}", _NOT_MAPPED):
            fcntl.ioctl(descriptor, TUNSETGROUP, _int(shape.group))


def _int(number: int) -> int:
    """Give an id of 32 bits as the signed int that fcntl.ioctl takes."""
    return number - (1 << 32) if number >= 1 << 31 else number
