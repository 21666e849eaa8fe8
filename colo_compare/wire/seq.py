"""TCP sequence numbers and their wrap-aware order (RFC 9293, section 3.4).

`Seq` is what stands on the wire: 32 bits that wrap. The core never orders those. It unwraps each one to a
*position*, a plain integer that only grows, next to one that it knows already; positions have the ordinary
``<``, ``min()`` and ``max()``. The wrap so lives in this file alone.
"""

from typing import Final, NewType

from mypy_extensions import i64

Seq = NewType("Seq", int)
"""A 32-bit sequence number (or TCP timestamp, RFC 7323, section 5.2: the same arithmetic) as on the wire."""

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000


def wrap(position: i64) -> Seq:
    """Give the 32 bits that stand for a position on the wire."""
    return Seq(position & _MASK)


def unwrap(seq: i64, near: i64) -> i64:
    """Give the position with these 32 bits that is nearest to the position `near` (within 2^31)."""
    return near + ((seq - near + _HALF) & _MASK) - _HALF


def diff(a: i64, b: i64) -> i64:
    """Give a - b as a signed distance in -2^31 .. 2^31 - 1."""
    return ((a - b + _HALF) & _MASK) - _HALF
