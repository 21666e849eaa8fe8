"""Many messages in one call: recvmmsg(2) and sendmmsg(2), which Python's socket module does not have.

This is the plain form, which runs where there was no C compiler; `_batch.c` has the same names for the same
things. A port takes them from `ports.batch`. Messages are ``bytes``, and each is one frame.

Measured for each frame of 64 bytes on AF_PACKET between two veths, the kernel's own work included:

====================================  =======  ====================================  =======
recvmmsg, 64 at a time, with auxdata  0.81 us  sendmmsg, 64 at a time                1.54 us
recv_into in a loop, no auxdata       1.07 us  send in a loop                        2.01 us
recvmsg_into in a loop, auxdata       2.57 us  sendmsg of header and frame           2.45 us
====================================  =======  ====================================  =======

(`recvmsg` asks the kernel for the interface's name each time, to build an address that nobody reads.)
"""

import ctypes
import mmap
import os
import select
import struct
from typing import Final

MSG_DONTWAIT: Final = 0x40
_FD_SETSIZE: Final = 1024

TP_STATUS_VLAN_VALID: Final = 1 << 4  # linux/if_packet.h
TP_STATUS_VLAN_TPID_VALID: Final = 1 << 6
_CONTROL: Final = 40  # CMSG_SPACE(sizeof(struct tpacket_auxdata)): a header of 16 bytes, 20, padding
_STATUS_AT: Final = 16  # tp_status in there
_TAG_AT: Final = 32  # tp_vlan_tci, tp_vlan_tpid in there
_TAG: Final = struct.Struct("HH")


class _ReceiveVector(ctypes.Structure):
    """struct iovec (sys/uio.h), for buffers of our own."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _SendVector(ctypes.Structure):
    """struct iovec, for bytes objects: setting `base` to one keeps it alive, without a copy."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    """struct msghdr (sys/socket.h) followed by what makes it a struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MultiMessageHeader(ctypes.Structure):
    """struct mmsghdr (sys/socket.h)."""

    _fields_ = (("header", _MessageHeader), ("length", ctypes.c_uint))


_libc: Final = ctypes.CDLL(None, use_errno=True)
_recvmmsg: Final = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg: Final = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

_HEADER_SIZE: Final = ctypes.sizeof(_MultiMessageHeader)


class MessageReceiver:
    """Receives up to `count` messages of less than `slot` bytes in one call.

    With a gap (start, end), the kernel's bytes from `start` on stand in the message from `end` on, with zeros
    between.
    """

    tags: tuple[tuple[int, int, int], ...]
    """Of the messages of the last call that the kernel took a VLAN tag out of, for packet sockets with
    PACKET_AUXDATA: index in the list, TPID (0 where the kernel does not say), TCI."""

    def __init__(self, count: int, slot: int, gap: tuple[int, int] | None = None) -> None:
        self.tags = ()
        self._count = count
        self._slot = slot
        self._gap_start, self._gap_end = gap or (0, 0)
        buffer = mmap.mmap(-1, count * slot)  # unlike a bytearray's, pages that no frame reaches cost nothing
        control = bytearray(count * _CONTROL)
        headers = bytearray(count * _HEADER_SIZE)
        pieces = [(0, self._gap_start), (self._gap_end, slot)]
        self._vectors = (_ReceiveVector * (count * len(pieces)))()
        array = (_MultiMessageHeader * count).from_buffer(headers)
        buffer_at = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        control_at = ctypes.addressof(ctypes.c_char.from_buffer(control))
        self._headers_at = ctypes.addressof(array)
        for i in range(count):
            header = array[i].header
            header.vectors = ctypes.addressof(self._vectors[i * len(pieces)])
            header.vector_count = len(pieces)
            header.control = control_at + i * _CONTROL
            header.control_length = _CONTROL
            for j, (start, end) in enumerate(pieces):
                vector = self._vectors[i * len(pieces) + j]
                vector.base = buffer_at + i * slot + start
                vector.length = end - start
        # The kernel overwrites lengths and flags: one copy of all headers puts them back.
        self._fresh = bytes(headers)
        self._headers = memoryview(headers)
        self._data = memoryview(buffer)
        self._control = memoryview(control)
        self._statuses = self._control.cast("I")[_STATUS_AT // 4 :: _CONTROL // 4]
        words = self._headers.cast("I")
        self._lengths = words[_MultiMessageHeader.length.offset // 4 :: _HEADER_SIZE // 4]

    def receive(self, fd: int, messages: list[bytes]) -> int:
        """Receive what is there behind `messages`; give how many messages the kernel gave.

        Those that fill a slot are too long, and left out. Raises OSError, BlockingIOError if there are none.
        """
        self._headers[:] = self._fresh
        got: int = _recvmmsg(fd, self._headers_at, self._count, MSG_DONTWAIT, None)
        if got < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        tags: list[tuple[int, int, int]] = []
        slot = self._slot
        data = self._data
        statuses = self._statuses[:got].tolist()
        at = 0
        for i, length in enumerate(self._lengths[:got].tolist()):
            if length > self._gap_start:
                length += self._gap_end - self._gap_start
            if length < slot:
                if statuses[i] & TP_STATUS_VLAN_VALID:
                    tags.append((len(messages), *self._tag(i)))
                messages.append(data[at : at + length].tobytes())
            at += slot
        self.tags = tuple(tags)
        return got

    def _tag(self, i: int) -> tuple[int, int]:
        """Give TPID and TCI of the tag that the kernel took out of message i."""
        tci, tpid = _TAG.unpack_from(self._control, i * _CONTROL + _TAG_AT)
        return tpid if self._statuses[i] & TP_STATUS_VLAN_TPID_VALID else 0, tci


class MessageSender:
    """Sends up to `count` messages in one call.

    With a gap (start, end), those bytes of each message are left out, where it is longer than the gap.
    """

    def __init__(self, count: int, gap: tuple[int, int] | None = None) -> None:
        self._count = count
        self._gap = gap
        pieces = 1 if gap is None else 2
        vectors = (_SendVector * (count * pieces))()
        headers = (_MultiMessageHeader * count)()
        for i in range(count):
            headers[i].header.vectors = ctypes.addressof(vectors[i * pieces])
            headers[i].header.vector_count = pieces
        self._headers = headers
        self._headers_at = ctypes.addressof(headers)
        self._vectors = list(vectors)  # indexing the array makes a new object each time

    def send(self, fd: int, messages: list[bytes], start: int) -> int:
        """Send messages[start:]; gives how many were sent, at least one.

        Raises OSError for what is wrong with the first of them, BlockingIOError if there is no room.
        """
        vectors = self._vectors
        count = min(len(messages) - start, self._count)
        if self._gap is None:
            for i in range(count):
                message = messages[start + i]
                vector = vectors[i]
                vector.base = message
                vector.length = len(message)
        else:
            gap_start, gap_end = self._gap
            for i in range(count):
                message = messages[start + i]
                behind = len(message) - gap_end
                vector = vectors[2 * i]
                vector.base = message
                vector.length = gap_start if behind > 0 else len(message)
                vector = vectors[2 * i + 1]
                vector.base = message[gap_end:]
                vector.length = max(behind, 0)
        sent: int = _sendmmsg(fd, self._headers_at, count, MSG_DONTWAIT)
        if sent < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return sent


class MessageReader:
    """Reads messages of up to `slot` bytes from a descriptor on which each read is one."""

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def read(self, fd: int, messages: list[bytes], limit: int) -> int:
        """Read behind `messages` until there are `limit`; give the error number that ended it, or 0."""
        read = os.read  # into a reused buffer, and out of it again, is no faster (1.1 us a frame, both)
        slot = self._slot
        try:
            while len(messages) < limit:
                messages.append(read(fd, slot))
        except OSError as error:
            return error.errno or 0
        return 0


def write_messages(fd: int, messages: list[bytes], start: int) -> int:
    """Write messages[start:], one call each; give how many were written, at least one.

    Raises OSError for what is wrong with the first of them, BlockingIOError if there is no room.
    """
    at = start
    try:
        while at < len(messages):
            os.write(fd, messages[at])
            at += 1
    except OSError:
        if at == start:
            raise
    return at - start


def size_of(messages: list[bytes], start: int, end: int) -> int:
    """Give the bytes of messages[start:end]."""
    return sum(map(len, messages[start:end]))


def readable(descriptors: list[int], seconds: float) -> list[int]:
    """Give which descriptors are readable, as soon as one is; none after so many seconds."""
    # Not poll: its shortest time is a millisecond, as is epoll's.
    # What does not fit into a set of it is not seen: it comes through trio, later.
    known = [descriptor for descriptor in descriptors if descriptor < _FD_SETSIZE]
    return select.select(known, (), (), seconds)[0] if known else []
