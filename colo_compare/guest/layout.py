"""How the guest's memory is divided.

All tables are arrays of 8-byte words, signed, in the byte order of the host (so the memory goes from a host
to another one of the same byte order only; the magic number shows a wrong one). From the start::

    header        4,096 bytes                     `header.Header`
    neighbours    NEIGHBOURS x 128 bytes          `neighbours.Neighbour`
    parcels       NEIGHBOURS x 2,048 bytes        frames that wait for a neighbour's address
    buckets       BUCKETS x 8 bytes               connections by the CRC-32 of their key: index + 1, or 0
    connections   connections x 1,024 bytes       `connection.Connection`
    entries       entries x 128 bytes             `store.Entry`: the key-value store
    values        entries x value_bytes
    send          connections x send_bytes        rings: byte n of the stream lies at n modulo the size
    receive       connections x receive_bytes

Each part begins on a page, so that a connection's buffers share no page with another part.
"""

from dataclasses import dataclass
from typing import Final

PAGE: Final = 4096
WORD: Final = 8
NEIGHBOURS: Final = 64
NEIGHBOUR_BYTES: Final = 128
PARCEL_BYTES: Final = 2048
CONNECTION_BYTES: Final = 1024
ENTRY_BYTES: Final = 128


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


@dataclass(frozen=True)
class Geometry:
    """How many of everything. Buffers and values are whole pages; `connections` at most 4,096."""

    connections: int = 128
    send_bytes: int = 256 * 1024
    receive_bytes: int = 256 * 1024
    entries: int = 256
    value_bytes: int = 16 * 1024

    def __post_init__(self) -> None:
        if not (1 <= self.connections <= 4096 and 1 <= self.entries <= 65536):
            raise ValueError("a guest has 1 to 4,096 connections and 1 to 65,536 entries")
        for size in (self.send_bytes, self.receive_bytes, self.value_bytes):
            if not PAGE <= size <= 1 << 26 or size % PAGE:
                raise ValueError(f"{size} bytes: buffers and values are whole pages, 64 MiB at most")

    @property
    def buckets(self) -> int:
        """Twice as many buckets as connections, rounded up to a power of two."""
        return 1 << (2 * self.connections - 1).bit_length()

    @property
    def neighbours_at(self) -> int:
        """Where the neighbours begin, in bytes, as for all that follows."""
        return PAGE

    @property
    def parcels_at(self) -> int:
        """Where the waiting frames begin."""
        return self.neighbours_at + _pages(NEIGHBOURS * NEIGHBOUR_BYTES)

    @property
    def buckets_at(self) -> int:
        """Where the buckets begin."""
        return self.parcels_at + NEIGHBOURS * PARCEL_BYTES

    @property
    def connections_at(self) -> int:
        """Where the connections begin."""
        return self.buckets_at + _pages(self.buckets * WORD)

    @property
    def entries_at(self) -> int:
        """Where the entries of the store begin."""
        return self.connections_at + _pages(self.connections * CONNECTION_BYTES)

    @property
    def values_at(self) -> int:
        """Where their values begin."""
        return self.entries_at + _pages(self.entries * ENTRY_BYTES)

    @property
    def send_at(self) -> int:
        """Where the send buffers begin."""
        return self.values_at + self.entries * self.value_bytes

    @property
    def receive_at(self) -> int:
        """Where the receive buffers begin."""
        return self.send_at + self.connections * self.send_bytes

    @property
    def size(self) -> int:
        """How many bytes the whole memory has: a multiple of the page size."""
        return self.receive_at + self.connections * self.receive_bytes
