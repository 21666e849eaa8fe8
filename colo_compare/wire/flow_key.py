"""The key of a plain TCP flow, untagged IPv4, as two numbers.

To make a bytes object for each frame, to hash it and to look it up takes 60 ns; numbers are compared where
they stand. A key of any other flow is longer, and has no numbers.
"""

from typing import Final

from librt.strings import read_i64_be
from mypy_extensions import i64

PLAIN_KEY_LEN: Final = 12  # two addresses and two ports: see `wire.frame.parse_frame`
NO_PORTS: Final = -1  # in place of the ports of a flow that is not plain


def plain_addresses(key: bytes) -> i64:
    """Give the guest's address (upper half) and the other end's, as one signed number."""
    return read_i64_be(key, 0)


def plain_ports(key: bytes) -> i64:
    """Give the guest's port (upper half) and the other end's, as one number that is not negative."""
    return read_i64_be(key, 4) & 0xFFFFFFFF


def plain_key(addresses: int, ports: int) -> bytes:
    """Give the key of which these are the numbers."""
    return (addresses & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big") + ports.to_bytes(4, "big")


def turned_addresses(addresses: i64) -> i64:
    """Exchange the two addresses, as a frame of the client's side has them the other way round."""
    lower = ((addresses + 0x80000000) & 0xFFFFFFFF) - 0x80000000  # signed, as the result is
    return (lower << 32) | ((addresses >> 32) & 0xFFFFFFFF)


def turned_ports(ports: i64) -> i64:
    """Exchange the two ports."""
    return ((ports & 0xFFFF) << 16) | (ports >> 16)
