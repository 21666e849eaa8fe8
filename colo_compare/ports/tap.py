"""`tap:IFNAME`: the program's end of a tap interface, through /dev/net/tun.

A persistent tap is attached, a missing one created (which needs CAP_NET_ADMIN). A tap that belongs to the
user that runs the proxy needs no capability at all. Kernel side: drivers/net/tun.c, linux/if_tun.h.
"""

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from colo_compare.errors import PortUnavailable
from colo_compare.ports import batch
from colo_compare.ports.counting import count_received, count_sent
from colo_compare.ports.descriptor import RECEIVE_LIMIT, DescriptorPort
from colo_compare.ports.interface import IFF_UP, interface_flags, set_up
from colo_compare.wire.frame import VNET_HEADER_LEN

DEVICE: Final = "/dev/net/tun"

TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
TUNGETFEATURES: Final = 0x800454CF
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
TUNSETVNETLE: Final = 0x400454DC

IFF_TAP: Final = 0x0002
IFF_MULTI_QUEUE: Final = 0x0100
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_USO4: Final = 0x20  # Linux 6.2
TUN_F_USO6: Final = 0x40
_OFFLOADS: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN

_LONGEST: Final = 0x11000  # of a read: 64 KiB of GSO payload and its headers
_COUNTERS: Final = "/proc/thread-self/net/dev"
_TRANSMIT_DROPS: Final = 11  # its column there, the first being 0
_REQUEST: Final = struct.Struct("16sH22x")  # struct ifreq


class TapPort(DescriptorPort):
    """A tap.

    Does not push back: the kernel drops what does not fit into the interface's queue (txqueuelen frames,
    usually 1,000) while the proxy does not read, and counts it; that is added to `dropped_receive`.
    """

    def __init__(self, url: str, interface: str, vnet_hdr: str = "auto", multi_queue: str = "auto") -> None:
        super().__init__(url, pushes_back=False)
        self.interface: Final = interface
        self._vnet_hdr = vnet_hdr
        self._multi_queue = multi_queue
        self._reader = batch.MessageReader(_LONGEST)
        self._kernel_drops = 0  # of the interface, when last looked at

    async def open(self) -> None:
        """Open it. Raises PortUnavailable."""
        fd = self._open_device()
        try:
            self._attach_interface(fd)
        except BaseException:
            os.close(fd)
            raise
        self._kernel_drops = self._read_kernel_drops()
        self._attach(fd)

    def _open_device(self) -> int:
        try:
            return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PortUnavailable(
                f"{self.url}: there is no {DEVICE}: `modprobe tun`, or give the container that device"
            ) from None
        except PermissionError:
            raise PortUnavailable(
                f"{self.url}: uid {os.geteuid()} may not open {DEVICE}: `chmod 0666 {DEVICE}` (a tap still "
                "needs its owner), or give the container that device"
            ) from None
        except OSError as error:
            raise PortUnavailable(
                f"{self.url}: {DEVICE}: {error.strerror}: is the tun module loaded?"
            ) from None

    def _attach_interface(self, fd: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                up = interface_flags(sock, self.interface) & IFF_UP != 0
                exists = True
            except OSError:
                up = exists = False
            header = self._wants_header(fd)
            self._set_interface(fd, IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if header else 0), exists)
            if exists and not up:
                raise PortUnavailable(
                    f"{self.url}: interface {self.interface} is down: `ip link set dev {self.interface} up`"
                )
            if not exists:
                set_up(sock, self.interface)
        if header:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_LEN))
            fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))
            self.header_len = VNET_HEADER_LEN
            self._offer_offloads(fd)

    def _wants_header(self, fd: int) -> bool:
        if self._vnet_hdr == "no":
            return False
        features: int = struct.unpack("I", fcntl.ioctl(fd, TUNGETFEATURES, bytes(4)))[0]
        if not features & IFF_VNET_HDR and self._vnet_hdr == "yes":
            raise PortUnavailable(f"{self.url}: taps of this kernel have no virtio-net header: vnet_hdr=no")
        return features & IFF_VNET_HDR != 0

    def _set_interface(self, fd: int, flags: int, exists: bool) -> None:
        """Attach to the interface, or create it."""
        name = self.interface.encode()
        try:
            if self._multi_queue != "auto":
                queues = IFF_MULTI_QUEUE if self._multi_queue == "yes" else 0
                fcntl.ioctl(fd, TUNSETIFF, _REQUEST.pack(name, flags | queues))
                return
            try:
                fcntl.ioctl(fd, TUNSETIFF, _REQUEST.pack(name, flags))
            except OSError as error:
                if error.errno != errno.EINVAL or not exists:
                    raise
                # A multi-queue tap says no more than this. (sysfs knows, but only of the namespace in which
                # it was mounted.)
                fcntl.ioctl(fd, TUNSETIFF, _REQUEST.pack(name, flags | IFF_MULTI_QUEUE))
        except OSError as error:
            raise PortUnavailable(f"{self.url}: {self._explain(error, exists)}") from None

    def _explain(self, error: OSError, exists: bool) -> str:
        name = self.interface
        uid = os.geteuid()
        if error.errno == errno.EPERM and exists:
            return (
                f"tap {name} does not belong to uid {uid}: `ip tuntap add dev {name} mode tap user {uid}` or "
                "`colo-tap-setup create` makes one that does; else the capability CAP_NET_ADMIN is needed"
            )
        if error.errno == errno.EPERM:
            return (
                f"there is no tap {name}, and uid {uid} may not create one: `colo-tap-setup create` does, or "
                "give the process the capability CAP_NET_ADMIN"
            )
        if error.errno == errno.EBUSY:
            return f"tap {name} is in use by another process: end it, or make the tap multi-queue"
        if error.errno == errno.EINVAL and exists:
            queues = self._multi_queue
            return f"{name} is no tap, or not one with multi_queue={queues}: see `ip -d link show dev {name}`"
        return f"tap {name} cannot be attached: {error.strerror}"

    def _offer_offloads(self, fd: int) -> None:
        """Let the kernel give large frames and partial checksums, as far as it knows how to."""
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, _OFFLOADS | TUN_F_USO4 | TUN_F_USO6)
        except OSError:
            fcntl.ioctl(fd, TUNSETOFFLOAD, _OFFLOADS)

    def _read(self, limit: int) -> list[bytes]:
        frames: list[bytes] = []
        while (why := self._reader.read(self._fd, frames, limit)) == errno.EINVAL:
            # A large frame of a kind that no virtio-net header can express.
            self.counters.dropped_receive += 1
        if why not in (0, errno.EAGAIN):
            gone = self._break(self._why_gone(why))
            if not frames:
                raise gone
        count_received(self.counters, frames, self.header_len)
        if len(frames) == RECEIVE_LIMIT:  # the queue overflows only while much waits in it
            drops = self._read_kernel_drops()
            self.counters.dropped_receive += max(0, drops - self._kernel_drops)
            self._kernel_drops = drops
        return frames

    def _read_kernel_drops(self) -> int:
        """Give how many frames the kernel could not put into the interface's queue."""
        with Path(_COUNTERS).open() as lines:
            for line in lines:
                name, _, numbers = line.partition(":")
                if name.strip() == self.interface:
                    return int(numbers.split()[_TRANSMIT_DROPS])
        return self._kernel_drops

    def _write(self, messages: list[bytes]) -> int:
        total = len(messages)
        taken = 0
        while taken < total:
            try:
                sent = batch.write_messages(self._fd, messages, taken)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in {errno.EIO, errno.EBADFD}:
                    raise self._break(self._why_gone(error.errno)) from None
                # EINVAL: shorter than Ethernet's header, or a header without sense.
                self.counters.dropped_send += 1
                taken += 1
                continue
            count_sent(self.counters, messages, taken, taken + sent, self.header_len)
            taken += sent
        return taken

    def _why_gone(self, error: int) -> str:
        if error == errno.EBADFD:
            return f"interface {self.interface} was removed"
        if error == errno.EIO:
            return f"interface {self.interface} was set down"
        return f"cannot be used any more: {os.strerror(error)}"
