"""What a stream port does for each batch: read and decode, encode and write. It never waits, and is compiled.

In plain Python this was a quarter of the cost of a frame of 1,448 bytes, of which a read holds 43.
"""

import socket
from typing import Final

from colo_compare.errors import FramingError
from colo_compare.ports.batch import size_of
from colo_compare.ports.counting import count_received
from colo_compare.ports.port import PortCounters
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame
from colo_compare.wire.stream_framing import StreamDecoder, bytes_in, encode, run_end

# Bytes read at a time, and so the bound of a batch: a thousand of the smallest frames. Larger ones would be
# given back to the kernel and taken again each time: malloc maps what is longer than 128 KiB.
READ: Final = 64 << 10
_RUN: Final = 64 << 10  # bytes of frames converted at a time, so that a full port does not convert all
_IOV_MAX: Final = 1024  # linux/uio.h, UIO_MAXIOV


class StreamBatches:
    """The state of a connection between two batches, and what was read and not taken yet."""

    failure: str
    """Why the connection broke; nothing while it has not."""

    def __init__(self, vnet: bool, counters: PortCounters) -> None:
        self.failure = ""
        self.decoded: list[bytes] = []  # frames that were read, and not taken yet
        self._vnet = vnet
        self._header_len = VNET_HEADER_LEN if vnet else 0
        self._counters = counters
        self._decoder = StreamDecoder(vnet)
        self._tail: list[bytes] = []  # what is left of a frame that was partly written
        self._tail_of: Frame | None = None

    def begin(self) -> None:
        """Begin with a new connection. What was read from the one before is still there."""
        self.failure = ""
        self._decoder = StreamDecoder(self._vnet)
        self._tail = []
        self._tail_of = None

    # Receiving

    def read(self, sock: socket.socket) -> bool:
        """Read once, and decode it. False: there was nothing, or the connection broke (`failure`)."""
        try:
            # Not into a buffer that is kept: what was read would be copied out of it once more.
            data = sock.recv(READ)
            if not data:
                self.failure = "the other end closed it"
                return False
            frames = self._decoder.feed(data)
        except BlockingIOError:
            return False
        except OSError as error:
            self.failure = error.strerror or str(error)
            return False
        except FramingError as error:
            self.failure = str(error)
            return False
        if self.decoded:
            self.decoded += frames
        else:
            self.decoded = frames
        return True

    def take(self) -> list[bytes]:
        """Give, and count, what was read."""
        frames = self.decoded
        self.decoded = []
        count_received(self._counters, frames, self._header_len)
        return frames

    # Sending

    def send(self, sock: socket.socket, frames: list[Frame], start: int) -> int:
        """Send frames[start:]; give the index of the first one not taken.

        Less than len(frames): there is no room, or the connection broke (`failure`). A frame that was only
        partly written is not taken. Its rest stays here and is written first next time, whatever comes then,
        as the stream would have no meaning without it.
        """
        total = len(frames)
        if self._tail:
            unfinished = self._tail_of
            if self._flush_tail(sock) and start < total and frames[start] is unfinished:
                start += 1
        while start < total and not self._tail and not self.failure:
            end = run_end(frames, start, _RUN)
            if end == start:
                self._counters.dropped_send += 1
                start += 1
                continue
            start = self._send_run(sock, frames, start, end)
            if start < end:
                break
        return start

    def _send_run(self, sock: socket.socket, frames: list[Frame], start: int, end: int) -> int:
        """Send frames[start:end]; gives the index of the first one not wholly written, and keeps its rest."""
        chunks = self._encode(frames, start, end)
        rest = self._write(sock, chunks)
        taken = end
        if rest < size_of(chunks, 0, len(chunks)):
            # Rare: a socket is full once for thousands of frames. So where each frame ends is not noted
            # before, but found out now.
            taken = start
            chunks = self._encode(frames, taken, taken + 1)
            while rest >= (size := size_of(chunks, 0, len(chunks))):
                rest -= size
                taken += 1
                chunks = self._encode(frames, taken, taken + 1)
            if rest and not self.failure:
                self._tail = _after(chunks, rest)
                self._tail_of = frames[taken]
        self._count_sent(frames, start, taken)
        return taken

    def _encode(self, frames: list[Frame], start: int, end: int) -> list[bytes]:
        return encode(frames, self._vnet, self._decoder.peer_header_len, start, end)

    def _flush_tail(self, sock: socket.socket) -> bool:
        """Write the rest of a frame that was partly written; gives whether that is done now."""
        self._tail = _after(self._tail, self._write(sock, self._tail))
        if self._tail or self.failure:
            return False
        if self._tail_of is not None:
            self._count_sent([self._tail_of], 0, 1)
            self._tail_of = None
        return True

    def _write(self, sock: socket.socket, chunks: list[bytes]) -> int:
        """Write chunks; gives how many bytes were written."""
        written = 0
        for at in range(0, len(chunks), _IOV_MAX):
            part = chunks[at : at + _IOV_MAX]
            try:
                size = sock.sendmsg(part)
            except BlockingIOError:
                break
            except OSError as error:
                self.failure = error.strerror or str(error)
                break
            written += size
            if size < size_of(part, 0, len(part)):
                break
        return written

    def _count_sent(self, frames: list[Frame], start: int, end: int) -> None:
        self._counters.sent_frames += end - start
        self._counters.sent_bytes += bytes_in(frames, start, end)


def _after(chunks: list[bytes], size: int) -> list[bytes]:
    """Give what follows the first `size` bytes of chunks."""
    for index, chunk in enumerate(chunks):
        if size < len(chunk):
            return [chunk[size:], *chunks[index + 1 :]]
        size -= len(chunk)
    return []
