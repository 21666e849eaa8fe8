"""Frames with other TCP numbers: translated ones, lone acknowledgements, and quotes in ICMP errors.

Checksums are corrected by difference (RFC 1624), so that one which was wrong stays wrong, and the receiver
still sees what the wire did to the frame. A partial checksum (virtio-net NEEDS_CSUM) covers the pseudo-header
only and stays.
"""

from typing import Final

from librt.strings import BytesWriter, read_i32_be, write_i32_be

from colo_compare.wire import frame as frames
from colo_compare.wire.checksum import TCP_PROTOCOL, adjust, internet_checksum, pseudo_header_sum
from colo_compare.wire.frame import ACK, Frame
from colo_compare.wire.icmp import is_icmp_error, quoted_transport
from colo_compare.wire.ipv6 import HEADER_LEN as IPV6_HEADER_LEN
from colo_compare.wire.vnet import needs_csum

_MASK: Final = 0xFFFFFFFF
_TCP_HEADER_LEN: Final = 20
_SHORT_PAYLOAD: Final = 4096  # up to here two copies cost less than a memoryview and join (0.2 us)
_TIMESTAMPS: Final = b"\x01\x01\x08\x0a"  # NOP, NOP, kind, length (RFC 7323, appendix A)


def rewrite_tcp(
    frame: Frame, seq: int, ack: int, window: int, tsval: int, tsecr: int, sack_shift: int
) -> Frame:
    """Give the frame with these numbers in its TCP header.

    All but `sack_shift` are the values to stand on the wire; pass the frame's own to keep them. `tsval` and
    `tsecr` count only where there is a timestamp option. `sack_shift` is added to both edges of every SACK
    block (D-SACK, RFC 2883, included), modulo 2^32. Gives `frame` itself where nothing changes.
    """
    stamped = frame.tsval_at != 0 and (tsval != frame.tsval or tsecr != frame.tsecr)
    shifted = frame.sack_at != 0 and sack_shift & _MASK != 0
    if not (stamped or shifted or seq != frame.seq or ack != frame.ack or window != frame.window):
        return frame
    data = frame.data
    l4 = frame.l4
    difference = seq - frame.seq + ack - frame.ack + window - frame.window
    header = BytesWriter()
    header.write(data[: l4 + 4])
    write_i32_be(header, _signed32(seq))
    write_i32_be(header, _signed32(ack))
    header.write(data[l4 + 12 : l4 + 14])
    header.append(window >> 8)
    header.append(window & 0xFF)
    header.write(data[l4 + 16 : frame.payload])
    if stamped:
        at = frame.tsval_at
        _put32(header, at, tsval)
        _put32(header, at + 4, tsecr)
        change = tsval - frame.tsval + tsecr - frame.tsecr
        difference += change << 8 if (at - l4) & 1 else change
    if shifted:
        change = 0
        for at in range(frame.sack_at, frame.sack_at + 8 * frame.sack_blocks, 4):
            edge: int = read_i32_be(data, at)
            old = edge & _MASK
            new = (old + sack_shift) & _MASK
            _put32(header, at, new)
            change += new - old
        difference += change << 8 if (frame.sack_at - l4) & 1 else change
    if not needs_csum(frame):
        checksum = adjust((data[l4 + 16] << 8) | data[l4 + 17], difference)
        header[l4 + 16] = checksum >> 8
        header[l4 + 17] = checksum & 0xFF
    rewritten = _with_data(frame, _join(header.getvalue(), data, frame.payload))
    rewritten.seq = seq
    rewritten.ack = ack
    rewritten.window = window
    if stamped:
        rewritten.tsval = tsval
        rewritten.tsecr = tsecr
    return rewritten


def _signed32(value: int) -> int:
    """Give 32 bits as the signed number that librt's writers take."""
    return value - 0x100000000 if value > 0x7FFFFFFF else value


def _put32(header: BytesWriter, at: int, value: int) -> None:
    """Overwrite 32 bits, aligned or not."""
    header[at] = value >> 24
    header[at + 1] = (value >> 16) & 0xFF
    header[at + 2] = (value >> 8) & 0xFF
    header[at + 3] = value & 0xFF


def _join(header: bytes, data: bytes, payload: int) -> bytes:
    """Give header + data[payload:], a long payload copied once and not twice."""
    if len(data) - payload <= _SHORT_PAYLOAD:
        return header + data[payload:]
    return b"".join((header, memoryview(data)[payload:]))


def _with_data(frame: Frame, data: bytes) -> Frame:
    """Give a TCP frame's twin with other bytes in the same places."""
    twin = Frame(data, frame.header_len)
    twin.kind = frame.kind
    twin.join_flow_of(frame)
    twin.version = frame.version
    twin.protocol = frame.protocol
    twin.l3 = frame.l3
    twin.l4 = frame.l4
    twin.payload = frame.payload
    twin.end = frame.end
    twin.seq = frame.seq
    twin.ack = frame.ack
    twin.flags = frame.flags
    twin.window = frame.window
    twin.options = frame.options
    twin.tsval_at = frame.tsval_at
    twin.tsval = frame.tsval
    twin.tsecr = frame.tsecr
    twin.sack_at = frame.sack_at
    twin.unrewritable = frame.unrewritable
    return twin


def pure_ack(template: Frame, seq: int, ack: int, window: int) -> Frame:
    """Give a lone acknowledgement from the sender of `template`, an earlier TCP frame of that direction.

    It has the template's Ethernet and IP headers, its timestamps if it has any, no other option, no payload,
    and no congestion mark (RFC 3168, 6.1.4: a pure ACK is not ECN-capable). Not a GSO frame.
    """
    data = template.data
    at = template.tsval_at
    options = _TIMESTAMPS + data[at : at + 8] if at else b""
    l4 = template.l4
    lone = _acknowledgement(template, bytearray(data[:l4]), data[l4 : l4 + 4], seq, ack, window, options)
    if at:
        lone.tsval_at = l4 + _TCP_HEADER_LEN + len(_TIMESTAMPS)
        lone.tsval = template.tsval
        lone.tsecr = template.tsecr
    return lone


def selective_ack(received: Frame, ack: int, window: int, tsval: int, blocks: list[tuple[int, int]]) -> Frame:
    """Give an acknowledgement from the receiver of a TCP frame, with SACK blocks (RFC 2018; 1 to 3 of them).

    All numbers are in the space of the frame's sender; edges of blocks are sequence numbers, the right one
    exclusive. Its own sequence number is the one that the sender waits for. `tsval` counts where the frame
    has timestamps; it must be the receiver's newest, or the sender drops this as old (PAWS, RFC 7323, 5).
    """
    data = received.data
    l3 = received.l3
    l4 = received.l4
    headers = bytearray(data[:l4])
    link = received.header_len
    headers[link : link + 12] = data[link + 6 : link + 12] + data[link : link + 6]
    first, length = (l3 + 12, 4) if received.version == 4 else (l3 + 8, 16)
    second = first + length
    headers[first:second] = data[second : second + length]
    headers[second : second + length] = data[first:second]
    ports = data[l4 + 2 : l4 + 4] + data[l4 : l4 + 2]
    options = b""
    at = received.tsval_at
    if at:
        options = _TIMESTAMPS + tsval.to_bytes(4, "big") + data[at : at + 4]
    options += bytes((1, 1, 5, 2 + 8 * len(blocks)))
    for start, end in blocks:
        options += (start & _MASK).to_bytes(4, "big") + (end & _MASK).to_bytes(4, "big")
    lone = _acknowledgement(received, headers, ports, received.ack, ack, window, options)
    if at:
        lone.tsval_at = l4 + _TCP_HEADER_LEN + len(_TIMESTAMPS)
        lone.tsval = tsval
        lone.tsecr = received.tsval
    lone.sack_at = lone.end - 8 * len(blocks)
    lone.options = True
    return lone


def _acknowledgement(
    like: Frame, packet: bytearray, ports: bytes, seq: int, ack: int, window: int, options: bytes
) -> Frame:
    """Make one of the headers before TCP's, the ports, and what stands in TCP's header."""
    l3: int = like.l3  # not i64, which has no to_bytes
    l4: int = like.l4
    tcp_len = _TCP_HEADER_LEN + len(options)
    packet[: like.header_len] = bytes(like.header_len)
    if like.version == 4:
        packet[l3 + 1] &= 0xFC
        packet[l3 + 2 : l3 + 4] = (l4 - l3 + tcp_len).to_bytes(2, "big")
        packet[l3 + 10 : l3 + 12] = bytes(2)
        packet[l3 + 10 : l3 + 12] = internet_checksum(bytes(packet), l3, l4).to_bytes(2, "big")
    else:
        packet[l3 + 1] &= 0xCF
        packet[l3 + 4 : l3 + 6] = (l4 - l3 - IPV6_HEADER_LEN + tcp_len).to_bytes(2, "big")
    packet += ports
    packet += seq.to_bytes(4, "big")
    packet += ack.to_bytes(4, "big")
    packet += bytes((tcp_len << 2, ACK))
    packet += window.to_bytes(2, "big")
    packet += bytes(4)  # checksum, urgent pointer
    packet += options
    initial = pseudo_header_sum(bytes(packet), like.version, l3, TCP_PROTOCOL, tcp_len)
    checksum = internet_checksum(bytes(packet), l4, l4 + tcp_len, initial)
    packet[l4 + 16 : l4 + 18] = checksum.to_bytes(2, "big")
    lone = Frame(bytes(packet), like.header_len)
    lone.kind = frames.TCP
    lone.join_flow_of(like)
    lone.version = like.version
    lone.protocol = TCP_PROTOCOL
    lone.l3 = l3
    lone.l4 = l4
    lone.payload = l4 + tcp_len
    lone.end = l4 + tcp_len
    lone.seq = seq
    lone.ack = ack
    lone.flags = ACK
    lone.window = window
    return lone


def shift_embedded_tcp(frame: Frame, seq_shift: int) -> Frame:
    """Give an ICMP or ICMPv6 error with `seq_shift` added to the TCP sequence number that it quotes.

    An error from the client side (RFC 792, RFC 4443) quotes what the guest is said to have sent; a guest
    ignores one whose sequence number is not in its window (RFC 5927, 4). Only that number and the ICMP
    checksum change. Gives `frame` itself where it is no error, or quotes no TCP segment as far as its number.
    """
    at = _quoted_sequence(frame)
    if at == 0 or seq_shift & _MASK == 0:
        return frame
    data = frame.data
    old = int.from_bytes(data[at : at + 4], "big")
    new = (old + seq_shift) & _MASK
    changed = bytearray(data)
    changed[at : at + 4] = new.to_bytes(4, "big")
    if not needs_csum(frame):
        field = frame.l4 + 2
        checksum = adjust((data[field] << 8) | data[field + 1], new - old)
        changed[field : field + 2] = checksum.to_bytes(2, "big")
    return _with_data(frame, bytes(changed))


def _quoted_sequence(frame: Frame) -> int:
    """Give where the sequence number of a quoted TCP segment is, 0 where there is none."""
    if frame.kind != frames.ICMP or not is_icmp_error(frame):
        return 0
    protocol, transport = quoted_transport(frame)
    if protocol != TCP_PROTOCOL or transport + 8 > frame.end:
        return 0
    return transport + 4
