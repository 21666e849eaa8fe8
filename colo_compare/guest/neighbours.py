"""The neighbour cache: which MAC address is behind an address. ARP (RFC 826), discovery (RFC 4861, 7).

A place in the table is found by the address's CRC-32 and WAYS - 1 places after it; the entry that was
confirmed longest ago makes room. An entry that waits for its answer keeps one frame (RFC 4861, 7.2.2), the
newest.
"""

from typing import Final
from zlib import crc32

from colo_compare.guest import solicit
from colo_compare.guest.layout import NEIGHBOUR_BYTES, NEIGHBOURS, PARCEL_BYTES
from colo_compare.guest.records import Raw, Record, Word
from colo_compare.guest.turn import Turn

FREE: Final = 0
INCOMPLETE: Final = 1  # asked for, not answered yet
KNOWN: Final = 2
PROBED: Final = 3  # known once, and asked whether it still is there

WAYS: Final = 8
REACHABLE_TIME: Final = 30_000_000  # microseconds (RFC 4861, section 10), as all times here
DELAY_TIME: Final = 5_000_000  # what an entry that was learned by the way is good for, unless confirmed
RETRANS_TIME: Final = 1_000_000
MAX_SOLICITS: Final = 3


class Neighbour(Record):
    """One entry."""

    __slots__ = ("index",)

    state = Word(0)
    address = Raw(1, 16)
    mac = Raw(3, 6)
    confirmed = Word(4)  # when it was known to be there
    deadline = Word(5)  # of the next question
    asked = Word(6)  # how often, unanswered
    parcel = Word(7)  # bytes of the frame that waits

    def __init__(self, turn: Turn, index: int) -> None:
        super().__init__(turn.memory, turn.geometry.neighbours_at + index * NEIGHBOUR_BYTES)
        self.index = index


def find(turn: Turn, address: bytes) -> Neighbour | None:
    """Give the entry of an address."""
    start = crc32(address)
    for way in range(WAYS):
        entry = Neighbour(turn, (start + way) % NEIGHBOURS)
        if entry.state != FREE and entry.address == address:
            return entry
    return None


def _make(turn: Turn, address: bytes) -> Neighbour:
    start = crc32(address)
    places = [Neighbour(turn, (start + way) % NEIGHBOURS) for way in range(WAYS)]
    entry = min(places, key=_worth)
    entry.state = INCOMPLETE
    entry.address = address
    entry.asked = 0
    entry.parcel = 0
    entry.confirmed = 0
    return entry


def _worth(entry: Neighbour) -> int:
    return -1 if entry.state == FREE else entry.confirmed


def learn(turn: Turn, address: bytes, mac: bytes, *, solicited: bool, create: bool) -> None:
    """Note what a neighbour said of itself; `solicited`: in answer to a question (RFC 4861, 7.2.3, 7.2.5)."""
    entry = find(turn, address)
    if entry is None:
        if not create:
            return
        entry = _make(turn, address)
    entry.mac = mac
    if solicited:
        entry.confirmed = turn.now
    elif entry.state == INCOMPLETE:
        entry.confirmed = turn.now - REACHABLE_TIME + DELAY_TIME
    if solicited or entry.state == INCOMPLETE:
        entry.state = KNOWN
        entry.asked = 0
    if entry.parcel:
        start = turn.geometry.parcels_at + entry.index * PARCEL_BYTES
        frame = bytes(turn.memory.raw[start : start + entry.parcel])
        entry.parcel = 0
        turn.out.append(mac + frame[6:])


def resolve(turn: Turn, address: bytes, *, confirmed: bool = False) -> bytes:
    """Give the MAC address of a neighbour, b"" while it is not known; asks for it where that is due.

    `confirmed`: a connection has just made progress through it (RFC 4861, 7.3.1).
    """
    entry = find(turn, address)
    if entry is None:
        entry = _make(turn, address)
        _ask(turn, entry)
        return b""
    if entry.state == INCOMPLETE:
        return b""
    if confirmed:
        entry.confirmed = turn.now
        entry.state = KNOWN
        entry.asked = 0
    elif entry.state == KNOWN and turn.now - entry.confirmed >= REACHABLE_TIME:
        entry.state = PROBED
        entry.asked = 0
        _ask(turn, entry)
    return entry.mac


def send(turn: Turn, address: bytes, frame: bytes) -> None:
    """Send a frame to a neighbour, now or when its MAC address is known. The frame has none yet."""
    mac = resolve(turn, address)
    if mac:
        turn.out.append(mac + frame[6:])
        return
    entry = find(turn, address)
    if entry is not None and len(frame) <= PARCEL_BYTES:
        if entry.parcel:
            turn.header.parcels_lost += 1
        start = turn.geometry.parcels_at + entry.index * PARCEL_BYTES
        turn.memory.raw[start : start + len(frame)] = frame
        entry.parcel = len(frame)


def _ask(turn: Turn, entry: Neighbour) -> None:
    """Ask all for an address that is not known, and who had it last for one that was."""
    turn.out.append(solicit.question(turn.header, entry.address, entry.mac if entry.state == PROBED else b""))
    entry.asked += 1
    entry.deadline = turn.now + RETRANS_TIME
    turn.arm(entry.deadline)


def handle_timer(turn: Turn) -> None:
    """Ask again where no answer came, and give up after MAX_SOLICITS."""
    for index in range(NEIGHBOURS):
        entry = Neighbour(turn, index)
        if entry.state not in (INCOMPLETE, PROBED):
            continue
        if turn.now < entry.deadline:
            turn.arm(entry.deadline)
        elif entry.asked < MAX_SOLICITS:
            _ask(turn, entry)
        else:
            entry.state = FREE
            if entry.parcel:
                turn.header.parcels_lost += 1
                entry.parcel = 0
