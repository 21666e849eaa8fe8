"""What the other end has, by its SACK blocks, and what to send again (RFC 2018; RFC 6675).

Bytes below the highest one that it has, which it has not, and which were not sent again, count as lost. A
retransmission that is lost too is found out by time (the idea of RFC 8985): when acknowledgements go on to
come for longer than a round trip should take, everything missing is sent once more.
"""

import struct
from typing import Final

from colo_compare.guest import runs
from colo_compare.guest.connection import UNKNOWN, Connection
from colo_compare.wire.frame import Frame
from colo_compare.wire.seq import unwrap

_BLOCK: Final = struct.Struct(">II")
_SLACK: Final = 2_000  # microseconds: the other end and the network may take so much longer than usual


def take_blocks(connection: Connection, frame: Frame) -> None:
    """Note the blocks of a segment. Those below snd_una (RFC 2883) and impossible ones say nothing."""
    una = connection.snd_una
    bounds = connection.sacked()
    for number in range(frame.sack_blocks):
        left, right = _BLOCK.unpack_from(frame.data, frame.sack_at + number * _BLOCK.size)
        start, end = unwrap(left, una), unwrap(right, una)
        if una < start < end <= connection.snd_max:
            runs.insert(bounds, start, end)
    connection.set_sacked(bounds)


def advance(connection: Connection) -> None:
    """Forget what snd_una has passed."""
    if connection.sacks:
        bounds = connection.sacked()
        runs.drop_below(bounds, connection.snd_una)
        connection.set_sacked(bounds)


def shows_loss(connection: Connection) -> bool:
    """Say whether so much beyond snd_una has arrived that the first segment must be lost (RFC 6675)."""
    return connection.sacks > 0 and runs.length(connection.sacked()) >= 3 * connection.mss


def in_flight(connection: Connection) -> int:
    """Give how many bytes are under way in recovery (RFC 6675, section 4, SetPipe)."""
    bounds = connection.sacked()
    highest = bounds[-1] if bounds else connection.snd_una
    resent = runs.holes(bounds, connection.snd_una, min(connection.resent_to, highest))
    return connection.snd_max - highest + resent


def next_hole(connection: Connection) -> tuple[int, int] | None:
    """Give start and end of the first bytes that are lost and were not sent again."""
    position = max(connection.resent_to, connection.snd_una)
    bounds = connection.sacked()
    for at in range(0, len(bounds), 2):
        if position < bounds[at]:
            return position, bounds[at]
        position = max(position, bounds[at + 1])
    return None


def check_resent(connection: Connection, now: int) -> None:
    """Send everything missing once more if what was sent again should have arrived by now."""
    if connection.recover == UNKNOWN or connection.snd_una >= connection.resent_to:
        return
    patience = connection.srtt + 4 * connection.rttvar + _SLACK
    if now - connection.resent_at > patience:
        connection.resent_to = connection.snd_una
