"""`dgram+unix:///PATH?peer=PATH`: QEMU's ``-netdev dgram`` over unix sockets, one frame in each datagram.

QEMU binds the path that is `peer` here (its ``local.path``) and sends to ours (its ``remote.path``). See
QEMU's net/dgram.c.
"""

import errno
import os
import socket
from typing import Final

import trio

from colo_compare.ports.counting import count_received, count_sent
from colo_compare.ports.descriptor import DescriptorPort
from colo_compare.ports.unix_path import UnixPath

LONGEST: Final = 4096 + 65536  # of a datagram: NET_BUFSIZE in QEMU's net/net.h
_BUFFER: Final = 4 << 20  # bytes asked of the kernel, so that a frame of 64 KiB fits more than once

# The peer's path does not exist, nobody is bound to it any more, or whoever is does not want our datagrams.
_NO_PEER: Final = frozenset(
    (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPERM, errno.EACCES, errno.EPROTOTYPE)
)


class DgramPort(DescriptorPort):
    """A unix datagram socket.

    Pushes back: the kernel keeps 11 datagrams (net.unix.max_dgram_qlen + 1), then the sender must wait. A
    peer that is not there is waited for: what is sent to it meanwhile is dropped and counted.
    """

    _socket: socket.socket  # from `open` on
    _bound: UnixPath

    def __init__(self, url: str, path: str, peer: str) -> None:
        super().__init__(url, pushes_back=True)
        self.path: Final = path
        self.peer: Final = peer
        self._probe: socket.socket | None = None  # connected to the peer while waiting for room in its queue

    async def open(self) -> None:
        """Open it. Raises PortUnavailable."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._bound = UnixPath(sock, self.path, self.url)
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._socket = sock
        self._attach(sock.fileno())
        self.connected = False  # until the peer is heard of, or takes something
        await trio.lowlevel.checkpoint()

    def _read(self, limit: int) -> list[bytes]:
        frames: list[bytes] = []
        fd = self._fd
        try:
            while len(frames) < limit:
                frame = os.read(fd, LONGEST + 1)
                if 0 < len(frame) <= LONGEST:
                    frames.append(frame)
                else:
                    self.counters.dropped_receive += 1  # empty, or cut off
        except BlockingIOError:
            pass
        if frames:
            self.connected = True
            count_received(self.counters, frames, self.header_len)
        return frames

    def _write(self, messages: list[bytes]) -> int:
        # Not connected to the peer, as a peer that comes back under the same path is another socket, and one
        # that we were not connected to would not be allowed to send to us.
        taken = 0
        sent: list[bytes] = []
        for message in messages:
            try:
                self._socket.sendto(message, self.peer)
            except BlockingIOError:
                break
            except OSError as error:  # EMSGSIZE: larger than the send buffer
                if error.errno in _NO_PEER:
                    self.connected = False
                self.counters.dropped_send += 1
            else:
                self.connected = True
                sent.append(message)
            taken += 1
        count_sent(self.counters, sent, 0, len(sent), self.header_len)
        return taken

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame."""
        await super().wait_writable()  # until our own send buffer has room
        # Only a socket connected to the peer learns of room in the peer's queue.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(self.peer)
            except OSError:
                # Nobody is there to wait for. Or the peer is connected to us (EPERM): then its queue has no
                # limit but our own send buffer, which has room by now.
                return
            self._probe = probe
            try:
                await trio.lowlevel.wait_writable(probe)
            except trio.ClosedResourceError:
                self._raise_if_gone()
                raise
            finally:
                self._probe = None

    def _wake_waiters(self) -> None:
        super()._wake_waiters()
        if self._probe is not None:
            trio.lowlevel.notify_closing(self._probe)

    def _close(self, fd: int) -> None:
        self._bound.remove()
        self._socket.close()
