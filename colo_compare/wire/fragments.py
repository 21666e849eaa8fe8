"""Fragments made whole (RFC 791, 3.2; RFC 815; RFC 8200, 4.5; RFC 5722)."""

from typing import Final

from colo_compare.wire import frame as frames
from colo_compare.wire.checksum import internet_checksum
from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.ipv6 import FRAGMENT as FRAGMENT_HEADER
from colo_compare.wire.ipv6 import FRAGMENT_HEADER_LEN
from colo_compare.wire.ipv6 import HEADER_LEN as IPV6_HEADER_LEN

_MAX_LENGTH: Final = 0xFFFF  # of what an IP length field can tell


def join_fragments(fragments: list[Frame], inbound: bool) -> Frame | None:
    """Give the datagram that these fragments make up, as one whole frame; None while it is incomplete.

    All are kind FRAGMENT, of one key and identification, in any order; `inbound` is as for `parse_frame`. The
    frame has the Ethernet and IP headers of the first fragment, corrected, an empty virtio-net header where
    the fragments have one, and may exceed any MTU.

    Fragments that repeat bytes are accepted as long as they agree. Where they do not, or do not fit one
    length, no two receivers agree about the datagram either (RFC 5722 has it dropped): the result is one
    opaque frame, BAD_IP_HEADER, of all fragments' bytes.
    """
    total = -1
    held = 0
    for fragment in fragments:
        length = fragment.end - fragment.l4
        held += length
        if not fragment.more_fragments:
            end = fragment.fragment_offset + length
            if total not in (-1, end):
                return _disagreement(fragments)
            total = end
    if total == -1 or held < total:
        return None  # without sorting: this is asked once for each fragment
    ordered = sorted(fragments, key=_offset)
    payload = bytearray()
    for fragment in ordered:
        part = fragment.data[fragment.l4 : fragment.end]
        start = fragment.fragment_offset
        known = payload[start : start + len(part)]
        if start + len(part) > total or known != part[: len(known)]:
            return _disagreement(ordered)
        if start > len(payload):
            return None
        payload += part[len(known) :]
    first = ordered[0]
    header = _whole_header(first, total)
    if header == b"":
        return _disagreement(ordered)
    data = bytes(first.header_len) + header + bytes(payload)
    return parse_frame(data, first.header_len, inbound)


def _offset(fragment: Frame) -> int:
    return fragment.fragment_offset


def _disagreement(fragments: list[Frame]) -> Frame:
    """Give an opaque frame of everything that the fragments hold."""
    data = b"".join([fragment.data for fragment in fragments])
    frame = Frame(data, fragments[0].header_len)
    frame.reason = frames.BAD_IP_HEADER
    return frame


def _whole_header(first: Frame, length: int) -> bytes:
    """Give the Ethernet and IP headers for `length` bytes of whole payload, nothing if that is too long."""
    l3 = first.l3 - first.header_len
    header = bytearray(first.data[first.header_len : first.l4])
    if first.version == 4:
        length += len(header) - l3
        header[l3 + 2 : l3 + 4] = min(length, _MAX_LENGTH).to_bytes(2, "big")
        header[l3 + 6] &= 0x40  # keep Don't Fragment
        header[l3 + 7] = 0
        header[l3 + 10 : l3 + 12] = bytes(2)
        checksum = internet_checksum(bytes(header), l3, len(header))
        header[l3 + 10 : l3 + 12] = checksum.to_bytes(2, "big")
    else:
        del header[-FRAGMENT_HEADER_LEN:]
        length += len(header) - l3 - IPV6_HEADER_LEN
        header[l3 + 4 : l3 + 6] = min(length, _MAX_LENGTH).to_bytes(2, "big")
        header[_last_next_header(bytes(header), l3)] = first.protocol
    return bytes(header) if length <= _MAX_LENGTH else b""


def _last_next_header(header: bytes, l3: int) -> int:
    """Give where the Next Header field of the last header is."""
    field = l3 + 6
    at = l3 + IPV6_HEADER_LEN
    while at < len(header):
        extra = 0 if header[field] == FRAGMENT_HEADER else header[at + 1] * 8
        field = at
        at += 8 + extra
    return field
