"""What a packet port does for each batch: receive, send and count. It never waits, and is compiled.

What an error means is for the port to decide: it comes back in `PacketBatches.error`, as most meet none.
"""

import struct
from typing import Final

from colo_compare.ports.batch import MessageReceiver, MessageSender
from colo_compare.ports.counting import count_received, count_sent
from colo_compare.ports.port import PortCounters
from colo_compare.wire.ethernet import VLAN
from colo_compare.wire.vnet import NEEDS_CSUM, parse_vnet

RUN: Final = 64  # messages for one system call
_MANY: Final = 32  # frames in one read, or
_MUCH: Final = 32 << 10  # bytes: less of it fills no buffer that a port asks for


class PacketBatches:
    """Messages of one packet socket, in and out."""

    error: "OSError | None"
    """What ended the last `read` or `write`; None where that was only that there is no more, or no room."""

    def __init__(
        self,
        counters: PortCounters,
        receiver: MessageReceiver,
        sender: MessageSender,
        header_len: int,
    ) -> None:
        """`header_len`: bytes of virtio-net header in each message."""
        self.error = None
        self._counters = counters
        self.receiver = receiver
        self._sender = sender
        self._header_len = header_len

    def read(self, fd: int, limit: int) -> list[bytes]:
        """Give the messages that are there, about `limit` at most; an error takes none of them back."""
        frames: list[bytes] = []
        self.error = None
        receiver = self.receiver
        while True:
            before = len(frames)
            try:
                got = receiver.receive(fd, frames)
            except BlockingIOError:
                break
            except OSError as error:
                self.error = error
                break
            if receiver.tags:
                self._put_tags_back(frames)
            came = len(frames) - before
            if came < got:
                self._counters.dropped_receive += got - came  # too long for a slot
            if got < RUN or before + came >= limit:
                break
        return frames

    def _put_tags_back(self, frames: list[bytes]) -> None:
        """Put back the VLAN tags that the kernel took out."""
        for index, tpid, tci in self.receiver.tags:
            tag = struct.pack("!HH", tpid or VLAN, tci)
            frames[index] = insert_tag(frames[index], self._header_len, tag)

    def count(self, frames: list[bytes], header_len: int) -> bool:
        """Count what the port gives; say whether it is so much that the kernel may have dropped some.

        The receive buffer only overflows while much waits in it.
        """
        size = count_received(self._counters, frames, header_len)
        return len(frames) >= _MANY or size >= _MUCH

    def write(self, fd: int, messages: list[bytes], start: int) -> int:
        """Send messages[start:], and count them; give the index of the first one not sent."""
        self.error = None
        taken = start
        while taken < len(messages):
            try:
                sent = self._sender.send(fd, messages, taken)
            except BlockingIOError:
                break
            except OSError as error:
                self.error = error
                break
            count_sent(self._counters, messages, taken, taken + sent, self._header_len)
            taken += sent
        return taken


def insert_tag(frame: bytes, header_len: int, tag: bytes) -> bytes:
    """Put a VLAN tag of 4 bytes behind the MAC addresses; the virtio-net header's offsets move with it."""
    at = header_len + 12
    if not header_len:
        return frame[:at] + tag + frame[at:]
    header = parse_vnet(frame)
    if header.flags & NEEDS_CSUM:
        header.csum_start += 4
    if header.hdr_len:
        header.hdr_len += 4
    return header.pack() + frame[header_len:at] + tag + frame[at:]
