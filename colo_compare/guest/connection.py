"""The connection table: one record for each TCP connection, found by its addresses and ports.

Sequence numbers are *positions* (`wire.seq`): plain integers that only grow, of which the low 32 bits stand
on the wire. Byte n of a stream lies at n modulo the size of its ring, so no other pointer is needed.
"""

from typing import Final
from zlib import crc32

from colo_compare.guest.layout import CONNECTION_BYTES, Geometry
from colo_compare.guest.records import Memory, Raw, Record, Word

# States (RFC 9293, 3.3.2); LISTEN has no record: the applications' ports listen always.
CLOSED: Final = 0
SYN_SENT: Final = 1
SYN_RECEIVED: Final = 2
ESTABLISHED: Final = 3
FIN_WAIT_1: Final = 4
FIN_WAIT_2: Final = 5
CLOSE_WAIT: Final = 6
CLOSING: Final = 7
LAST_ACK: Final = 8
TIME_WAIT: Final = 9

# What `deadline` is for
NO_TIMER: Final = 0
RETRANSMIT: Final = 1  # RFC 6298
PERSIST: Final = 2  # zero-window probes (RFC 9293, 3.8.6.1)
LINGER: Final = 3  # the end of TIME_WAIT, or of a FIN_WAIT_2 that nobody waits for

KEY_BYTES: Final = 36
UNKNOWN: Final = -1  # a position that is not known


class Connection(Record):
    """One connection. Times are microseconds, sizes bytes, positions as above."""

    __slots__ = ("index", "receive_at", "receive_size", "send_at", "send_size")

    state = Word(0)
    next = Word(1)  # in its bucket: index + 1, or 0
    key = Raw(2, KEY_BYTES)  # own address (16), the other's (16), own port, the other's
    version = Word(7)  # of IP: 4 or 6

    # Sending (RFC 9293, 3.3.1; RFC 5681; RFC 6582)
    iss = Word(8)
    snd_una = Word(9)
    snd_nxt = Word(10)
    snd_max = Word(11)  # the highest snd_nxt ever: after a time-out snd_nxt goes back
    snd_end = Word(12)  # behind the last byte that the application has written
    snd_wnd = Word(13)
    snd_wl1 = Word(14)
    snd_wl2 = Word(15)
    snd_scale = Word(16)
    snd_wnd_max = Word(17)
    mss = Word(18)  # payload of the largest segment, timestamps already taken off
    cwnd = Word(19)
    ssthresh = Word(20)
    repeats = Word(21)  # duplicate acknowledgements in a row
    recover = Word(22)  # fast recovery ends there; UNKNOWN outside of it
    closing = Word(23)  # 1: the application will write no more
    resent_to = Word(24)  # in recovery: up to where lost bytes were sent again
    resent_at = Word(25)  # when that was, or when one of them was acknowledged
    sacks = Word(26)  # how many runs of bytes beyond snd_una the other end has
    sacked_index: Final = 96  # MAX_RUNS pairs of words: their starts and ends, ascending

    # Receiving
    irs = Word(32)
    rcv_nxt = Word(33)
    rcv_read = Word(34)  # up to where the application has read
    rcv_edge = Word(35)  # the right edge of the window that was offered; never goes back
    rcv_scale = Word(36)
    rcv_fin = Word(37)  # where the other end's FIN lies; UNKNOWN before it came
    gaps = Word(38)  # how many runs below are used
    ack_due = Word(39)  # 1: an acknowledgement must be sent, with or without data
    runs_index: Final = 41  # MAX_RUNS pairs of words: starts and ends of what came out of order, ascending
    latest_run = Word(57)  # start of the run that grew last: goes first in the SACK option (RFC 2018, 4)

    # Options and times
    timestamps = Word(60)  # 1: agreed on
    sack = Word(61)
    ts_recent = Word(62)
    ts_offset = Word(63)  # of this connection's timestamp clock (RFC 7323, 5.4)
    last_ack_sent = Word(64)
    srtt = Word(65)  # 0 before the first sample
    rttvar = Word(66)
    rto = Word(67)
    timed = Word(68)  # the position whose acknowledgement is waited for, UNKNOWN for none
    timed_at = Word(69)
    retries = Word(70)
    timer_index: Final = 71
    timer = Word(timer_index)
    deadline_index: Final = 72
    deadline = Word(deadline_index)
    heard_at = Word(73)
    progress = Word(74)  # 1: the other end has acknowledged something new: it is reachable (RFC 4861, 7.3.1)

    # The application
    app = Word(80)
    phase = Word(81)
    left = Word(82)  # bytes of a body that are still to come or to go
    offset = Word(83)  # how far the body has come
    keep = Word(84)  # 1: the connection stays open after this answer
    continued = Word(85)  # 1: "100 Continue" was said to the head that waits for its body
    digest = Word(86)  # CRC-32 of the body so far
    served = Word(87)  # requests on this connection

    def __init__(self, memory: Memory, geometry: Geometry, index: int) -> None:
        super().__init__(memory, geometry.connections_at + index * CONNECTION_BYTES)
        self.index = index
        self.send_size = geometry.send_bytes
        self.receive_size = geometry.receive_bytes
        self.send_at = geometry.send_at + index * geometry.send_bytes
        self.receive_at = geometry.receive_at + index * geometry.receive_bytes

    def runs(self) -> list[int]:
        """Give start and end of each run of bytes that came out of order, one after the other."""
        start = self.at + self.runs_index
        return self.words[start : start + 2 * self.gaps].tolist()

    def set_runs(self, bounds: list[int]) -> None:
        """Replace the runs; at most MAX_RUNS of them."""
        self.gaps = len(bounds) // 2
        start = self.at + self.runs_index
        for index, bound in enumerate(bounds, start):
            self.words[index] = bound

    def sacked(self) -> list[int]:
        """Give start and end of each run of bytes beyond snd_una that the other end has."""
        start = self.at + self.sacked_index
        return self.words[start : start + 2 * self.sacks].tolist()

    def set_sacked(self, bounds: list[int]) -> None:
        """Replace those runs; at most MAX_RUNS of them."""
        self.sacks = len(bounds) // 2
        start = self.at + self.sacked_index
        for index, bound in enumerate(bounds, start):
            self.words[index] = bound


def _bucket(memory: Memory, geometry: Geometry, key: bytes) -> int:
    """Give the word that begins the key's chain."""
    return (geometry.buckets_at >> 3) + (crc32(key) & (geometry.buckets - 1))


def find(memory: Memory, geometry: Geometry, key: bytes) -> Connection | None:
    """Give the connection with this key."""
    number = memory.words[_bucket(memory, geometry, key)]
    while number:
        found = Connection(memory, geometry, number - 1)
        if found.key == key:
            return found
        number = found.next
    return None


def add(memory: Memory, geometry: Geometry, key: bytes) -> Connection | None:
    """Take a free record for a connection with this key, all zero but for it. None: there is no room."""
    words = memory.words
    first = geometry.connections_at >> 3
    step = CONNECTION_BYTES >> 3
    states = words[first : first + geometry.connections * step : step].tolist()
    try:
        index = states.index(CLOSED)
    except ValueError:
        index = _oldest_lingering(memory, geometry, states)
        if index < 0:
            return None
        remove(memory, geometry, Connection(memory, geometry, index))
    fresh = Connection(memory, geometry, index)
    start = geometry.connections_at + index * CONNECTION_BYTES
    memory.raw[start : start + CONNECTION_BYTES] = bytes(CONNECTION_BYTES)
    fresh.key = key
    head = _bucket(memory, geometry, key)
    fresh.next = words[head]
    words[head] = index + 1
    return fresh


def _oldest_lingering(memory: Memory, geometry: Geometry, states: list[int]) -> int:
    """Give the index of the connection that has been in TIME_WAIT for the longest time, -1 if none is."""
    best = -1
    earliest = 0
    for index, state in enumerate(states):
        if state == TIME_WAIT:
            deadline = Connection(memory, geometry, index).deadline
            if best < 0 or deadline < earliest:
                best = index
                earliest = deadline
    return best


def remove(memory: Memory, geometry: Geometry, gone: Connection) -> None:
    """Take a connection out of the table; its record is free."""
    at = _bucket(memory, geometry, gone.key)
    number = gone.index + 1
    while memory.words[at] != number:
        at = Connection(memory, geometry, memory.words[at] - 1).at + 1
    memory.words[at] = gone.next
    gone.state = CLOSED
    gone.timer = NO_TIMER
