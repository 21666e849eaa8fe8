"""The key-value store: values and counters by name, in a hash table with open addressing."""

from typing import Final
from zlib import crc32

from colo_compare.guest.http_request import LONGEST_HEAD
from colo_compare.guest.layout import ENTRY_BYTES
from colo_compare.guest.records import Raw, Record, Word
from colo_compare.guest.turn import Turn

FREE: Final = 0
VALUE: Final = 1
COUNTER: Final = 2
DELETED: Final = 3  # was used: a search goes on behind it

NAME_BYTES: Final = 80


class Entry(Record):
    """One entry."""

    __slots__ = ("index",)

    kind = Word(0)
    size = Word(1)  # of the value
    count = Word(2)  # of the counter
    changes = Word(3)  # how often it was written
    name_size = Word(4)
    name = Raw(5, NAME_BYTES)  # filled up with zeros

    def __init__(self, turn: Turn, index: int) -> None:
        super().__init__(turn.memory, turn.geometry.entries_at + index * ENTRY_BYTES)
        self.index = index


def find(turn: Turn, kind: int, name: bytes) -> Entry | None:
    """Give the entry of that kind and name."""
    entry, found = _search(turn, kind, name)
    return entry if found else None


def make(turn: Turn, kind: int, name: bytes) -> Entry | None:
    """Give the entry of that kind and name, a new one where there is none yet; None: the store is full."""
    entry, found = _search(turn, kind, name)
    if entry is not None and not found:
        entry.kind = kind
        entry.size = entry.count = entry.changes = 0
        entry.name_size = len(name)
        entry.name = name.ljust(NAME_BYTES, b"\0")
    return entry


def _search(turn: Turn, kind: int, name: bytes) -> tuple[Entry | None, bool]:
    """Give the entry and True, or else the first place for it and False."""
    entries = turn.geometry.entries
    start = crc32(name, kind)
    place: Entry | None = None
    for step in range(entries):
        entry = Entry(turn, (start + step) % entries)
        used = entry.kind
        if used == kind and entry.name_size == len(name) and entry.name[: len(name)] == name:
            return entry, True
        if used in (FREE, DELETED) and place is None:
            place = entry
        if used == FREE:
            break
    return place, False


def remove(entry: Entry) -> None:
    """Delete an entry."""
    entry.kind = DELETED


def value(turn: Turn, entry: Entry) -> bytes:
    """Give the value of an entry."""
    start = turn.geometry.values_at + entry.index * turn.geometry.value_bytes
    return bytes(turn.memory.raw[start : start + entry.size])


def set_value(turn: Turn, entry: Entry, new: bytes) -> None:
    """Replace the value of an entry; it has at most `geometry.value_bytes` bytes."""
    start = turn.geometry.values_at + entry.index * turn.geometry.value_bytes
    turn.memory.raw[start : start + len(new)] = new
    entry.size = len(new)
    entry.changes += 1


def longest_value(turn: Turn) -> int:
    """Give how long a value may be: it must fit into its place, and with its head into both buffers."""
    geometry = turn.geometry
    return min(geometry.value_bytes, geometry.receive_bytes - LONGEST_HEAD, geometry.send_bytes - 1024)
