"""`packet:IFNAME`: frames of an existing interface (a tap, a veth, a NIC) through an AF_PACKET socket.

It copies frames, it does not take them away: whatever else listens on the interface (a bridge, the host's own
stack) sees them too. Kernel side: net/packet/af_packet.c, linux/if_packet.h, packet(7).
"""

import errno
import logging
import os
import socket
import struct
import sys
from typing import Final

import trio

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports import batch
from colo_compare.ports.descriptor import DescriptorPort
from colo_compare.ports.interface import IFF_UP, interface_flags, known_interfaces, why_down
from colo_compare.ports.packet_batch import RUN, PacketBatches
from colo_compare.wire.frame import VNET_HEADER_LEN, parse_frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.vnet import EMPTY_VNET_HEADER, NEEDS_CSUM

logger: Final = logging.getLogger(__name__)

ETH_P_ALL: Final = 3  # linux/if_ether.h

SOL_PACKET: Final = 263  # linux/socket.h; the options are linux/if_packet.h's
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_STATISTICS: Final = 6
PACKET_AUXDATA: Final = 8
PACKET_VNET_HDR: Final = 15
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_VNET_HDR_SZ: Final = 24  # Linux 6.5
PACKET_MR_PROMISC: Final = 1

SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h
SO_RCVBUFFORCE: Final = 33

_STATISTICS: Final = struct.Struct("II")  # struct tpacket_stats: packets, drops

_BUFFER: Final = 64 << 20  # bytes asked of the kernel for each direction
_ENOUGH: Final = 16 << 20  # bytes; with 4 MiB, 50 downloads at once lost frames in each of ten runs
SLOT: Final = 0x11000  # of a received frame: 64 KiB of GSO payload, its headers, and room to see more
_HEADER_GAP: Final = (10, 12)  # where a kernel before 6.5 leaves out num_buffers
_QUEUE_PAUSE: Final = 0.001  # seconds

# Errors of one frame that say that the interface, not the frame, is the matter.
_INTERFACE_ERRORS: Final = frozenset((errno.ENETDOWN, errno.ENXIO, errno.ENODEV))


class PacketPort(DescriptorPort):
    """An AF_PACKET socket on one interface.

    Does not push back: what the proxy does not read in time is lost, and counted in `dropped_receive`.
    """

    _socket: socket.socket  # these from `open` on
    _batches: PacketBatches

    def __init__(self, url: str, interface: str, vnet_hdr: str = "auto") -> None:
        super().__init__(url, pushes_back=False)
        self.interface: Final = interface
        self._vnet_hdr = vnet_hdr
        self._kernel_header_len = 0
        self._index = 0
        self._queue_full = False  # the last frame was refused by the interface's queue

    async def open(self) -> None:
        """Open it. Raises PortUnavailable."""
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError:
            raise PortUnavailable(
                f"{self.url}: uid {os.geteuid()} may not open packet sockets: give the process the "
                "capability CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_RAW), or use a tap: port on a "
                "tap that this user owns"
            ) from None
        except OSError as error:
            raise PortUnavailable(f"{self.url}: no packet sockets here: {error.strerror}") from None
        try:
            self._set_up(sock)
        except BaseException:
            sock.close()
            raise
        self._attach(sock.fileno())

    def _set_up(self, sock: socket.socket) -> None:
        name = self.interface
        self._socket = sock
        try:
            flags = interface_flags(sock, name)
        except OSError as error:
            raise PortUnavailable(
                f"{self.url}: interface {name}: {error.strerror}; {known_interfaces()}"
            ) from None
        if not flags & IFF_UP:
            raise PortUnavailable(f"{self.url}: interface {name} is down: `ip link set dev {name} up`")
        try:
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        except OSError as error:
            raise PortUnavailable(
                f"{self.url}: this kernel is too old (Linux 4.20 is needed): {error.strerror}"
            ) from None
        gap = self._ask_for_headers(sock)
        receiver = batch.MessageReceiver(RUN, SLOT, gap)
        sender = batch.MessageSender(RUN, gap)
        self._batches = PacketBatches(self.counters, receiver, sender, self._kernel_header_len)
        for forced, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
            except PermissionError:  # without CAP_NET_ADMIN: as much as net.core.[rw]mem_max allows
                sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
        # What the kernel gives is twice what was asked for, the half of it for its own accounts: socket(7).
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        if granted < _ENOUGH:
            logger.warning(
                "%s: a receive buffer of %d KiB only, bursts will be lost: `sysctl -w net.core.rmem_max=%d`, "
                "or run the proxy with CAP_NET_ADMIN",
                self.url,
                granted >> 10,
                _BUFFER,
            )
        # PACKET_QDISC_BYPASS is left alone: it drops where the queue would have held a frame for a moment,
        # and it drops GSO frames for an interface that cannot segment them.
        sock.bind((name, ETH_P_ALL))
        self._index = socket.if_nametoindex(name)
        sock.setsockopt(
            SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("iHH8x", self._index, PACKET_MR_PROMISC, 0)
        )

    def _ask_for_headers(self, sock: socket.socket) -> tuple[int, int] | None:
        """Switch virtio-net headers on; gives the gap in them if the kernel only knows 10 bytes.

        With vnet_hdr=no as well: only its header tells that a frame is many in one, or that its checksum is
        not there yet. Without headers, such frames would leave the proxy broken.
        """
        if sys.byteorder != "little":
            return None  # the kernel writes its own byte order, and inside all headers are little-endian
        gap: tuple[int, int] | None = None
        try:
            try:
                sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR_SZ, VNET_HEADER_LEN)
            except OSError:
                sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
                gap = _HEADER_GAP
        except OSError as error:
            if self._vnet_hdr == "yes":
                raise PortUnavailable(
                    f"{self.url}: this kernel gives no virtio-net headers ({error.strerror}): use vnet_hdr=no"
                ) from None
            return None
        self._kernel_header_len = VNET_HEADER_LEN
        self.header_len = 0 if self._vnet_hdr == "no" else VNET_HEADER_LEN
        return gap

    def _read(self, limit: int) -> list[bytes]:
        batches = self._batches
        frames = batches.read(self._fd, limit)
        gone: PortClosed | None = None
        refused = 0
        while (error := batches.error) is not None:
            why = why_down(self._socket, self._index)
            if not why and refused < limit:
                # ENETDOWN: down and up again, which changes nothing. EINVAL: a large frame of a kind that
                # this kernel's virtio-net header cannot express (UDP before Linux 6.2); the kernel has thrown
                # it away.
                refused += 1
                self.counters.dropped_receive += error.errno == errno.EINVAL
            elif gone is None:
                # The kernel tells of the end once, and first; what came before it can still be read.
                gone = self._break(why or f"cannot be read: {error.strerror}")
            else:
                break
            frames += batches.read(self._fd, max(1, limit - len(frames)))
        if gone is not None and not frames:
            raise gone
        if frames:
            if self.header_len != self._kernel_header_len:
                frames = without_headers(frames)
            if batches.count(frames, self.header_len):
                self._count_kernel_drops()
        return frames

    def _count_kernel_drops(self) -> None:
        """Add what the kernel dropped since the last time: its counter starts anew with each look."""
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
        self.counters.dropped_receive += _STATISTICS.unpack(statistics)[1]

    def _write(self, messages: list[bytes]) -> int:
        given = messages
        if self.header_len != self._kernel_header_len:
            given = [EMPTY_VNET_HEADER + message for message in messages]
        taken = self._batches.write(self._fd, given, 0)
        while (error := self._batches.error) is not None:
            if error.errno == errno.ENOBUFS:
                self._queue_full = True
                break
            if error.errno in _INTERFACE_ERRORS:
                why = why_down(self._socket, self._index)
                if why:
                    raise self._break(why) from None
            # EMSGSIZE: longer than the MTU. EINVAL: a virtio-net header that the kernel does not believe.
            # ENETDOWN with the interface up: no carrier. Sending it again would change nothing.
            self.counters.dropped_send += 1
            taken = self._batches.write(self._fd, given, taken + 1)
        return taken

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""
        if self._queue_full:
            # The interface's queue is full, not the socket's buffer: the socket stays writable, and the
            # kernel gives no sign when the queue has room (packet(7), ENOBUFS). So look again after a moment.
            self._queue_full = False
            self._raise_if_gone()
            await trio.sleep(_QUEUE_PAUSE)
        await super().wait_writable()

    def _close(self, fd: int) -> None:
        self._socket.close()


def without_headers(frames: list[bytes]) -> list[bytes]:
    """Take the virtio-net headers away, and do what they ask for."""
    bare: list[bytes] = []
    for frame in frames:
        if frame[0] & NEEDS_CSUM or frame[1]:
            bare += materialise(parse_frame(frame, VNET_HEADER_LEN, False))
        else:
            bare.append(frame[VNET_HEADER_LEN:])
    return bare
