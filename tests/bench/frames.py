"""Frames of many TCP flows, as both guests send them: made by the thousand, as one array of bytes.

Each carries a number in the first 8 bytes of its payload, by which whatever comes out is recognised.
"""

import socket
import struct

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_L3 = 4 + 14  # behind QEMU's length and the Ethernet header
_SOURCE_PORT, _DEST_PORT, _DEST_ADDRESS = _L3 + 20, _L3 + 22, _L3 + 16
_SEQ = _L3 + 24
_FLAGS = _L3 + 33
HEADERS = 14 + 20 + 32  # Ethernet, IPv4, TCP with timestamps
_STRIDE = 618_033_989
NUMBER_AT = 4 + HEADERS
SYN, SYN_ACK, ACK, ACK_PSH = 0x02, 0x12, 0x10, 0x18


def _template(payload: int, flags: int) -> Bytes:
    """Give one frame with its length in front (QEMU's stream framing)."""
    ethernet = bytes.fromhex("020000000001020000000002") + b"\x08\x00"
    addresses = socket.inet_aton("10.0.0.2") + bytes(4)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + 32 + payload, 0, 0x4000, 64, 6, 0) + addresses
    tcp = struct.pack("!HHIIBBHHH", 80, 0, 0, 1, 8 << 4, flags, 65535, 0, 0)
    tcp += struct.pack("!BBBBII", 1, 1, 8, 10, 1000, 2000)
    data = ethernet + ip + tcp + bytes(index * 7 & 0xFF for index in range(payload))
    return np.frombuffer(struct.pack("!I", len(data)) + data, np.uint8)


def _put(frames: Bytes, at: int, dtype: str, values: NDArray[np.int64]) -> None:
    """Write a big-endian field of each frame."""
    column = np.ascontiguousarray(values.astype(dtype)).view(np.uint8).reshape(len(frames), -1)
    frames[:, at : at + column.shape[1]] = column


def _frames(flows: NDArray[np.int64], sequence: NDArray[np.int64], payload: int, flags: int) -> Bytes:
    frames: Bytes = np.tile(_template(payload, flags), (len(flows), 1))
    _put(frames, _DEST_ADDRESS, ">u4", 0x0B000000 + (flows >> 14))
    _put(frames, _DEST_PORT, ">u2", 1024 + (flows & 0x3FFF))
    _put(frames, _SEQ, ">u4", sequence)
    return frames


def openings(first: int, count: int) -> Bytes:
    """Give one SYN+ACK for each of the flows first, first + 1, ..."""
    flows = np.arange(first, first + count)
    return _frames(flows, np.zeros(count, np.int64), 0, SYN_ACK)


def firsts(first: int, count: int, payload: int) -> Bytes:
    """Give the first data frame of each of the flows first, first + 1, ..."""
    return _frames(np.arange(first, first + count), np.ones(count, np.int64), payload, ACK_PSH)


def data(numbers: NDArray[np.int64], flows: int, payload: int) -> Bytes:
    """Give data frames by their numbers.

    As n goes through `flows` numbers in a row, each flow says its next segment, in no order that a cache
    would like. `flows` is no multiple of _STRIDE.
    """
    frames = _frames(numbers * _STRIDE % flows, 1 + (numbers // flows) * payload, payload, ACK_PSH)
    _put(frames, NUMBER_AT, ">u8", numbers)
    return frames


def handshakes(count: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Give what opens flows 0, 1, ...: the client's SYNs, the guests' SYN+ACKs, the client's ACKs, bare."""
    answers = openings(0, count)
    return (
        _from_client(answers, SYN, 0),
        [frame[4:].tobytes() for frame in answers],
        _from_client(answers, ACK, 1),
    )


def _from_client(frames: Bytes, flags: int, sequence: int) -> list[bytes]:
    """Turn frames of a guest round: addresses and ports change places."""
    turned = frames.copy()
    for at, size in ((4, 6), (_DEST_ADDRESS - 4, 4), (_SOURCE_PORT, 2)):
        turned[:, at : at + size] = frames[:, at + size : at + 2 * size]
        turned[:, at + size : at + 2 * size] = frames[:, at : at + size]
    _put(turned, _SEQ, ">u4", np.full(len(frames), sequence))
    _put(turned, _SEQ + 4, ">u4", np.full(len(frames), sequence))
    turned[:, _FLAGS] = flags
    return [frame[4:].tobytes() for frame in turned]


class Arrived:
    """What came out of a comparer, against what was put in."""

    def __init__(self, stream: memoryview, flows: int, opened: int, sent: Bytes) -> None:
        """Judge a stream of frames. `opened` of the frames sent were SYN+ACKs, the rest `sent`."""
        numbers: list[int] = []
        opening = 0
        at = 0
        self.frames = 0
        self.altered = 0
        size = sent.shape[1]
        raw = memoryview(sent.tobytes())
        while at + 4 <= len(stream):
            end = at + 4 + int.from_bytes(stream[at : at + 4], "big")
            if end > len(stream):
                break
            self.frames += 1
            if end - at == size:
                number = int.from_bytes(stream[at + NUMBER_AT : at + NUMBER_AT + 8], "big")
                numbers.append(number)
                self.altered += stream[at:end] != raw[number * size : (number + 1) * size]
            else:
                opening += 1
            at = end
        found = np.array(numbers, np.int64)
        unique = len(np.unique(found))
        self.duplicated = len(found) - unique + max(opening - opened, 0)
        self.lost = len(sent) - unique + max(opened - opening, 0)
        order = np.argsort(found % flows, kind="stable")
        flow, inside = (found % flows)[order], found[order]
        self.reordered = int(np.count_nonzero((np.diff(inside) < 0) & (np.diff(flow) == 0)))
