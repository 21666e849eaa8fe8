"""The first page of the guest's memory: who it is, its clock, and what it has counted."""

from typing import Final

from colo_compare.guest.layout import Geometry
from colo_compare.guest.records import Memory, Raw, Record, Word

MAGIC: Final = 0x434F4C4F47554553  # "COLOGUES"
VERSION: Final = 1
NEVER: Final = (1 << 62) - 1
"""A time that never comes, in microseconds."""


class Header(Record):
    """The header. Times are microseconds of the guest's own clock."""

    magic = Word(0)
    version = Word(1)
    connections = Word(2)  # the geometry
    send_bytes = Word(3)
    receive_bytes = Word(4)
    entries = Word(5)
    value_bytes = Word(6)

    mtu = Word(8)
    mac = Raw(9, 6)
    address4 = Raw(10, 16)  # IPv4-mapped (RFC 4291, 2.5.5.2), as all IPv4 addresses in this memory
    prefix4 = Word(12)  # bits of the mapped address: 96 more than one writes
    gateway4 = Raw(13, 16)  # zeros: none
    address6 = Raw(15, 16)
    prefix6 = Word(17)
    gateway6 = Raw(18, 16)
    link_local = Raw(20, 16)
    secret = Raw(22, 32)  # of initial sequence numbers and timestamp offsets (RFC 6528; RFC 7323, 5.4)

    clock = Word(32)  # the latest time that the guest has seen
    next_due = Word(33)  # no timer is due before it
    challenge_second = Word(34)  # the second in which challenge_left is counted (RFC 5961, 7)
    challenge_left = Word(35)
    unreachable_left = Word(36)  # ICMP errors that may still be sent in that second
    next_port = Word(37)  # the next source port for connections that the guest opens

    # What it has counted
    frames_in = Word(64)
    frames_out = Word(65)
    foreign = Word(66)  # frames for someone else, or of a kind that it does not know
    damaged = Word(67)  # a wrong checksum, or not well-formed
    opened = Word(68)  # connections that were established
    refused = Word(69)  # SYNs that found no room
    resets_in = Word(70)
    resets_out = Word(71)
    segments_retransmitted = Word(72)
    timeouts = Word(73)
    fast_retransmits = Word(74)
    out_of_order = Word(75)
    challenges = Word(76)
    parcels_lost = Word(77)  # frames for a neighbour that never answered

    # The applications'
    requests = Word(96)  # HTTP
    datagrams = Word(97)  # UDP, echoed
    bytes_served = Word(98)
    calls = Word(99)  # connections that the guest has opened itself
    call_state = Word(100)  # of the latest of them: see `caller`
    call_answer = Word(101)  # bytes that came back
    call_digest = Word(102)  # CRC-32 of them


def open_memory(raw: memoryview) -> tuple[Memory, Header, Geometry]:
    """Look at a guest's memory. Raises ValueError, saying what it is not."""
    if raw.nbytes < 4096 or raw.nbytes % 4096:
        raise ValueError(f"{raw.nbytes} bytes: a guest's memory has whole pages")
    memory = Memory(raw)
    header = Header(memory, 0)
    if header.magic != MAGIC:
        raise ValueError("no guest was booted in this memory, or one on a host of the other byte order")
    if header.version != VERSION:
        raise ValueError(f"the guest's memory has layout {header.version}, this program {VERSION}")
    geometry = Geometry(
        header.connections, header.send_bytes, header.receive_bytes, header.entries, header.value_bytes
    )
    if raw.nbytes < geometry.size:
        raise ValueError(f"the guest's memory needs {geometry.size} bytes, and has {raw.nbytes}")
    return memory, header, geometry
