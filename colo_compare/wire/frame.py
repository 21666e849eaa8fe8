"""The one value that runs through the whole program: a parsed frame.

`parse_frame` looks at a frame once, at the edge; after it, every field that a kind promises can be read
without another check. It never raises: what cannot be understood is an opaque frame with a reason.
"""

from typing import Final

from librt.strings import read_i32_be, read_i64_be
from mypy_extensions import i64, mypyc_attr, u8

from colo_compare.wire import ethernet
from colo_compare.wire.ethernet import ETHERNET_LEN, VLAN_TAG_LEN, network_start
from colo_compare.wire.flow_key import (
    NO_PORTS,
    PLAIN_KEY_LEN,
    plain_addresses,
    plain_key,
    plain_ports,
    turned_addresses,
    turned_ports,
)
from colo_compare.wire.ipv6 import MALFORMED, skip_extension_headers

# Kinds. Plain integers, as the hot path compares them for each frame (an Enum member costs a dict look-up
# in plain CPython and a generic attribute access under mypyc).
TCP: Final = 0
UDP: Final = 1
ICMP: Final = 2  # ICMP and ICMPv6, except neighbour discovery and MLD
OTHER_IP: Final = 3  # any other IP protocol
FRAGMENT: Final = 4  # one fragment of an IP datagram
OPAQUE: Final = 5  # not IP, or not to be understood: see `reason`

KIND_NAMES: Final = ("tcp", "udp", "icmp", "other_ip", "fragment", "opaque")

# Why a frame is opaque. The first group is never compared (rule 4); the second claims to be IP and is not
# well-formed, and is compared whole.
NOT_OPAQUE: Final = 0
ARP: Final = 1
NDP: Final = 2  # IPv6 neighbour discovery (RFC 4861): ICMPv6 types 133 to 137
MLD: Final = 3  # multicast listener discovery (RFC 2710, RFC 3810): types 130 to 132 and 143
LINK_CONTROL: Final = 4  # LLDP, STP and other 802.3 frames with a length instead of a type
NON_IP: Final = 5  # any other EtherType
RUNT: Final = 6  # shorter than an Ethernet header (after its VLAN tags)
TRUNCATED: Final = 7  # a length field promises more than the frame holds
BAD_IP_HEADER: Final = 8
BAD_TRANSPORT_HEADER: Final = 9
BAD_VNET_HEADER: Final = 10  # shorter than the port's virtio-net header

OPAQUE_REASONS: Final = (
    "", "arp", "ndp", "mld", "link_control", "non_ip", "runt", "truncated", "bad_ip_header",
    "bad_transport_header", "bad_vnet_header",
)  # fmt: skip

# TCP flags (RFC 9293, section 3.1).
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20

VNET_HEADER_LEN: Final = 12  # struct virtio_net_hdr_v1 (linux/virtio_net.h): the one form used inside


@mypyc_attr(acyclic=True)
class Frame:
    """One Ethernet frame, parsed, with its virtio-net header where the port that gave it has one.

    All offsets count from the start of `data`. Fields below a heading are meaningful for that kind only, and
    zero otherwise.

    Compiled, numbers are C's, the small ones in one word, and frames, which refer to nothing that could refer
    to them, are not known to the garbage collector (`acyclic`): to parse one takes 35 ns instead of 85. So
    that they stay small, what only few frames have is looked up in `data` when it is asked for.
    """

    # Any frame
    data: bytes  # header_len bytes of virtio-net header (v1, little-endian), then the Ethernet frame
    header_len: i64  # 0 or VNET_HEADER_LEN
    kind: u8
    reason: u8  # why it is opaque; NOT_OPAQUE otherwise

    # IP (every kind but OPAQUE)
    version: u8  # 4 or 6
    protocol: u8  # of the payload, behind all extension headers
    flags: u8  # TCP
    options: bool  # TCP: has any option besides timestamps, NOP and EOL
    unrewritable: bool  # TCP: carries MD5 (19), AO (29) or MPTCP (30): sequence numbers that are signed
    more_fragments: bool  # FRAGMENT
    long_key: bytes  # of a flow that is not plain TCP in IPv4: else it has `addresses` and `ports`
    l3: i64  # start of the IP header
    l4: i64  # start of the transport header (FRAGMENT: of the fragment's data)
    payload: i64  # start of the transport payload (OTHER_IP, FRAGMENT: the same as l4)
    end: i64  # end of the IP datagram, without Ethernet padding

    # TCP
    addresses: i64  # both ends of a plain flow: see `flow_key`
    ports: i64  # likewise; NO_PORTS for every other frame
    seq: i64
    ack: i64
    window: i64  # as on the wire, unscaled
    tsval_at: i64  # offset of TSval in data; TSecr follows at + 4; 0 where there is no timestamp option
    tsval: i64
    tsecr: i64
    sack_at: i64  # offset of the first SACK block in data, 0 where there is none

    def __init__(self, data: bytes, header_len: i64) -> None:
        self.data = data
        self.header_len = header_len
        self.kind = OPAQUE
        self.reason = NOT_OPAQUE
        self.version = 0
        self.protocol = 0
        self.l3 = 0
        self.l4 = 0
        self.payload = 0
        self.end = 0
        self.flags = 0
        self.options = False
        self.unrewritable = False
        self.addresses = 0
        self.ports = NO_PORTS
        self.seq = 0
        self.ack = 0
        self.window = 0
        self.tsval_at = 0
        self.tsval = 0
        self.tsecr = 0
        self.sack_at = 0
        self.more_fragments = False
        self.long_key = b""

    @property
    def key(self) -> bytes:
        """The flow: addresses, ports, VLAN ids, protocol; see `parse_frame`."""
        return self.long_key if self.ports < 0 else plain_key(self.addresses, self.ports)

    def join(self, key: bytes) -> None:
        """Belong to the flow of this key."""
        if len(key) == PLAIN_KEY_LEN:
            self.addresses = plain_addresses(key)
            self.ports = plain_ports(key)
        else:
            self.long_key = key

    def join_flow_of(self, other: "Frame") -> None:
        """Belong to the same flow as another frame."""
        self.addresses = other.addresses
        self.ports = other.ports
        self.long_key = other.long_key

    @property
    def sack_blocks(self) -> int:
        """TCP: the number of SACK blocks (RFC 2018, section 3: the option's length stands before them)."""
        return self.data[self.sack_at - 1] >> 3 if self.sack_at else 0

    @property
    def fragment_id(self) -> int:
        """FRAGMENT: the identification (RFC 791, section 3.1; RFC 8200, section 4.5)."""
        data = self.data
        if self.version == 4:
            return (data[self.l3 + 4] << 8) | data[self.l3 + 5]
        return int.from_bytes(data[self.l4 - 4 : self.l4], "big")

    @property
    def fragment_offset(self) -> int:
        """FRAGMENT: where its data belong in the datagram, in bytes."""
        data = self.data
        if self.version == 4:
            return ((data[self.l3 + 6] & 0x1F) << 11) | (data[self.l3 + 7] << 3)
        return (data[self.l4 - 6] << 8) | (data[self.l4 - 5] & 0xF8)


FRAGMENT_MARK: Final = 0xFF  # in a key: no VLAN id begins so

_ZERO_PORTS: Final = b"\x00\x00\x00\x00"
_MAX_DATAGRAM: Final = 0xFFFF


def parse_frame(data: bytes, header_len: i64, inbound: bool) -> Frame:
    """Parse one frame.

    `data` is header_len (0 or 12) bytes of virtio-net header and the Ethernet frame. `inbound` says that it
    comes from the client side, and only turns the flow key round, so that both directions of a connection
    have the same key.

    The key is one bytes object, unique over all protocols by its length and contents: the guest's address
    and the other end's as the guest sends them (source, destination), the two ports (ICMP echo: the
    identifier twice; no ports: zeros), then two bytes for each VLAN id, then one byte of protocol unless that
    is TCP. An untagged IPv4 TCP frame that a guest sent therefore has for its key one slice of the frame.
    A FRAGMENT's key has zero ports, and ends with FRAGMENT_MARK and the protocol, also for TCP.

    Of the virtio-net header only gso_size is looked at: a GSO frame (Linux: BIG TCP) may have a zero where
    the IP length is, and any UDP length. A GSO type that nobody knows so never loses a frame; what it means
    is asked of `vnet` by those who segment.

    Never raises. Whatever is no well-formed IP gives kind OPAQUE and a reason.
    """
    frame = Frame(data, header_len)
    size: i64 = len(data)
    l3 = header_len + ETHERNET_LEN
    # The common case at once: untagged, IPv4 without options, TCP, not a fragment. Two reads tell: EtherType,
    # version, header length and (16 bits up) total length; then flags, fragment offset and protocol.
    if size >= l3 + 40:
        first = read_i64_be(data, l3 - 2)
        end = l3 + ((first >> 16) & 0xFFFF)
        if (
            (first >> 40) & 0xFFFFFF == 0x080045
            and read_i32_be(data, l3 + 6) & 0x3FFF00FF == 6
            and l3 + 40 <= end <= size
            and _parse_tcp(frame, l3 + 20, end)
        ):
            frame.version = 4
            frame.l3 = l3
            addresses = read_i64_be(data, l3 + 12)
            ports = read_i64_be(data, l3 + 16) & 0xFFFFFFFF
            frame.addresses = turned_addresses(addresses) if inbound else addresses
            frame.ports = turned_ports(ports) if inbound else ports
            return frame
    reason = _parse_ethernet(frame, inbound)
    if reason != NOT_OPAQUE:
        frame = Frame(data, header_len)  # what was understood before it failed must not be left behind
        frame.reason = reason
    return frame


def parse_frames(batch: list[bytes], header_len: i64, inbound: bool) -> list[Frame]:
    """Parse the frames of one batch, as `parse_frame` does each (a call from plain Python costs 60 ns)."""
    return [parse_frame(data, header_len, inbound) for data in batch]


def _parse_ethernet(frame: Frame, inbound: bool) -> int:
    """Parse any frame behind its virtio-net header; gives the reason for which it is opaque."""
    data = frame.data
    if len(data) < frame.header_len:
        return BAD_VNET_HEADER
    l3 = network_start(data, frame.header_len)
    if l3 == 0:
        return RUNT
    vlans = b""
    for tag in range(frame.header_len + ETHERNET_LEN, l3, VLAN_TAG_LEN):
        vlans += bytes((data[tag] & 0x0F, data[tag + 1]))
    frame.l3 = l3
    ethertype = (data[l3 - 2] << 8) | data[l3 - 1]
    if ethertype == ethernet.IPV4:
        return _parse_ipv4(frame, vlans, inbound)
    if ethertype == ethernet.IPV6:
        return _parse_ipv6(frame, vlans, inbound)
    if ethertype == ethernet.ARP:
        return ARP
    if ethertype == ethernet.LLDP or ethertype < ethernet.MIN_ETHERTYPE:
        return LINK_CONTROL
    return NON_IP


def _is_gso(frame: Frame) -> bool:
    """Say whether the virtio-net header gives a gso_size."""
    return frame.header_len != 0 and (frame.data[4] | frame.data[5]) != 0


def _parse_ipv4(frame: Frame, vlans: bytes, inbound: bool) -> int:
    """Parse IPv4 (RFC 791)."""
    data = frame.data
    size = len(data)
    l3 = frame.l3
    if size < l3 + 20:
        return TRUNCATED
    if data[l3] >> 4 != 4:
        return BAD_IP_HEADER
    l4 = l3 + (data[l3] & 0x0F) * 4
    end = l3 + ((data[l3 + 2] << 8) | data[l3 + 3])
    if end == l3 and _is_gso(frame):
        end = size
    if l4 < l3 + 20 or end < l4:
        return BAD_IP_HEADER
    if end > size:
        return TRUNCATED
    frame.version = 4
    frame.protocol = data[l3 + 9]
    frame.l4 = l4
    frame.end = end
    word = (data[l3 + 6] << 8) | data[l3 + 7]
    if word & 0x3FFF:
        frame.more_fragments = word & 0x2000 != 0
        return _parse_fragment(frame, vlans, inbound)
    return _parse_transport(frame, vlans, inbound)


def _parse_ipv6(frame: Frame, vlans: bytes, inbound: bool) -> int:
    """Parse IPv6 and its extension headers (RFC 8200); jumbograms (RFC 2675) only as GSO frames."""
    data = frame.data
    size = len(data)
    l3 = frame.l3
    if size < l3 + 40:
        return TRUNCATED
    if data[l3] >> 4 != 6:
        return BAD_IP_HEADER
    l4 = l3 + 40
    end = l4 + ((data[l3 + 4] << 8) | data[l3 + 5])
    if end == l4 and _is_gso(frame):
        end = size
    if end > size:
        return TRUNCATED
    frame.version = 6
    frame.end = end
    protocol, l4, fragment = skip_extension_headers(data, l4, end, data[l3 + 6])
    if protocol == MALFORMED:
        return BAD_IP_HEADER
    frame.protocol = protocol
    frame.l4 = l4
    if fragment == 0:
        return _parse_transport(frame, vlans, inbound)
    frame.more_fragments = data[fragment + 3] & 1 != 0
    return _parse_fragment(frame, vlans, inbound)


def _parse_fragment(frame: Frame, vlans: bytes, inbound: bool) -> int:
    """Take a fragment. Refuses what no receiver joins: without data, too long, or ragged before the last."""
    length = frame.end - frame.l4
    if length == 0 or (frame.more_fragments and length & 7) or frame.fragment_offset + length > _MAX_DATAGRAM:
        return BAD_IP_HEADER
    frame.kind = FRAGMENT
    frame.payload = frame.l4
    frame.join(_flow_key(frame, _ZERO_PORTS, vlans + bytes((FRAGMENT_MARK, frame.protocol)), inbound))
    return NOT_OPAQUE


def _parse_transport(frame: Frame, vlans: bytes, inbound: bool) -> int:
    """Parse what a whole datagram carries."""
    data = frame.data
    l4 = frame.l4
    length = frame.end - l4
    protocol = frame.protocol
    if protocol == 6:
        if not _parse_tcp(frame, l4, frame.end):
            return BAD_TRANSPORT_HEADER
        frame.join(_flow_key(frame, data[l4 : l4 + 4], vlans, inbound))
        return NOT_OPAQUE
    ports = _ZERO_PORTS
    frame.kind = OTHER_IP
    frame.payload = l4
    if protocol == 17:
        if length < 8:
            return BAD_TRANSPORT_HEADER
        claimed = (data[l4 + 4] << 8) | data[l4 + 5]  # less than the length: UDP options (RFC 9868) follow
        if not 8 <= claimed <= length and not _is_gso(frame):
            return BAD_TRANSPORT_HEADER if claimed < 8 else TRUNCATED
        ports = data[l4 : l4 + 4]
        frame.kind = UDP
        frame.payload = l4 + 8
    elif protocol == (1 if frame.version == 4 else 58):
        if length < 8:
            return BAD_TRANSPORT_HEADER
        message = data[l4]
        if protocol == 58 and 133 <= message <= 137:
            return NDP
        if protocol == 58 and (130 <= message <= 132 or message == 143):
            return MLD
        if message in ((0, 8) if protocol == 1 else (128, 129)):
            ports = data[l4 + 4 : l4 + 6] * 2
        frame.kind = ICMP
        frame.payload = l4 + 8
    frame.join(_flow_key(frame, ports, vlans + bytes((protocol,)), inbound))
    return NOT_OPAQUE


def _flow_key(frame: Frame, ports: bytes, tail: bytes, inbound: bool) -> bytes:
    """Build a key in the guest's direction; `tail` is what follows the ports."""
    data = frame.data
    if frame.version == 4:
        source = frame.l3 + 12
        destination = source + 4
    else:
        source = frame.l3 + 8
        destination = source + 16
    end = destination + destination - source
    if inbound:
        return data[destination:end] + data[source:destination] + ports[2:] + ports[:2] + tail
    return data[source:end] + ports + tail


def _parse_tcp(frame: Frame, l4: i64, end: i64) -> bool:
    """Parse a TCP header (RFC 9293, 3.1): fills the frame from l4 on. False: it fills nothing.

    Eight bytes are read at once: each read less saves a check of the length, compiled, and a call, plain.
    """
    data = frame.data
    if end - l4 < 20:
        return False
    word = read_i64_be(data, l4 + 12)  # data offset, flags, window, checksum, urgent pointer
    payload = l4 + ((word >> 58) & 0x3C)
    if payload < l4 + 20 or payload > end:
        return False
    frame.kind = TCP
    frame.protocol = 6
    frame.l4 = l4
    frame.payload = payload
    frame.end = end
    numbers = read_i64_be(data, l4 + 4)
    frame.seq = (numbers >> 32) & 0xFFFFFFFF
    frame.ack = numbers & 0xFFFFFFFF
    frame.flags = data[l4 + 13]
    frame.window = (word >> 32) & 0xFFFF
    if payload != l4 + 20:
        if payload == l4 + 32 and read_i32_be(data, l4 + 20) == 0x0101080A:  # NOP, NOP, timestamps
            _take_timestamps(frame, l4 + 24)
        else:
            _parse_options(frame)
    return True


def _take_timestamps(frame: Frame, at: i64) -> None:
    """Take TSval and TSecr (RFC 7323, 3.2), which begin at an offset."""
    stamps = read_i64_be(frame.data, at)
    frame.tsval_at = at
    frame.tsval = (stamps >> 32) & 0xFFFFFFFF
    frame.tsecr = stamps & 0xFFFFFFFF


def _parse_options(frame: Frame) -> None:
    """Parse TCP options (RFC 9293, 3.1; RFC 7323, 3.2; RFC 2018, 3; RFC 2385; RFC 5925; RFC 8684).

    As Linux does: a malformed length ends the options, an option of a known kind and a wrong length is an
    unknown one, and of two equal kinds the last counts.
    """
    data = frame.data
    at = frame.l4 + 20
    end = frame.payload
    while at < end:
        option = data[at]
        if option == 1:
            at += 1
            continue
        if option == 0:
            return
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            frame.options = True
            return
        if option == 8 and length == 10:
            _take_timestamps(frame, at + 2)
        else:
            frame.options = True
            if option == 5 and length >= 10 and length & 7 == 2:
                frame.sack_at = at + 2
            elif option in (19, 29, 30):
                frame.unrewritable = True
        at += length
