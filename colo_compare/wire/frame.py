"""The one value that runs through the whole program: a parsed frame.

`parse_frame` looks at a frame once, at the edge; after it, every field that a kind promises can be read
without another check. It never raises: what cannot be understood is an opaque frame with a reason.
"""

from typing import Final

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


class Frame:
    """One Ethernet frame, parsed, with its virtio-net header where the port that gave it has one.

    All offsets count from the start of `data`. Fields below a heading are meaningful for that kind only, and
    zero otherwise.
    """

    # Any frame
    data: bytes  # header_len bytes of virtio-net header (v1, little-endian), then the Ethernet frame
    header_len: int  # 0 or VNET_HEADER_LEN
    kind: int
    reason: int  # why it is opaque; NOT_OPAQUE otherwise

    # IP (every kind but OPAQUE)
    key: bytes  # the flow: VLAN ids, remote address, local address, ports, protocol; see `parse_frame`
    version: int  # 4 or 6
    protocol: int  # of the payload, behind all extension headers
    l3: int  # start of the IP header
    l4: int  # start of the transport header (FRAGMENT: of the fragment's data)
    payload: int  # start of the transport payload (OTHER_IP, FRAGMENT: the same as l4)
    end: int  # end of the IP datagram, without Ethernet padding

    # TCP
    seq: int
    ack: int
    flags: int
    window: int  # as on the wire, unscaled
    options: bool  # has any option besides timestamps, NOP and EOL
    tsval_at: int  # offset of TSval in data; TSecr follows at + 4; 0 where there is no timestamp option
    tsval: int
    tsecr: int
    sack_at: int  # offset of the first SACK block in data, 0 where there is none
    sack_blocks: int
    unrewritable: bool  # carries TCP-MD5 (19), TCP-AO (29) or MPTCP (30): sequence numbers that are signed

    # FRAGMENT
    fragment_id: int
    fragment_offset: int  # in bytes
    more_fragments: bool

    def __init__(self, data: bytes, header_len: int) -> None:
        self.data = data
        self.header_len = header_len
        self.kind = OPAQUE
        self.reason = NOT_OPAQUE
        self.key = b""
        self.version = 0
        self.protocol = 0
        self.l3 = 0
        self.l4 = 0
        self.payload = 0
        self.end = 0
        self.seq = 0
        self.ack = 0
        self.flags = 0
        self.window = 0
        self.options = False
        self.tsval_at = 0
        self.tsval = 0
        self.tsecr = 0
        self.sack_at = 0
        self.sack_blocks = 0
        self.unrewritable = False
        self.fragment_id = 0
        self.fragment_offset = 0
        self.more_fragments = False


def parse_frame(data: bytes, header_len: int, inbound: bool) -> Frame:
    """Parse one frame.

    `data` is header_len (0 or 12) bytes of virtio-net header and the Ethernet frame. `inbound` says that it
    comes from the client side, and only turns the flow key round, so that both directions of a connection
    have the same key.

    The key is one bytes object, unique over all protocols by its length and contents: the guest's address
    and the other end's as the guest sends them (source, destination), the two ports (ICMP echo: the
    identifier twice; no ports: zeros), then two bytes for each VLAN id, then one byte of protocol unless that
    is TCP. An untagged IPv4 TCP frame that a guest sent therefore has for its key one slice of the frame.
    A FRAGMENT's key has zero ports.

    Never raises. Whatever is no well-formed IP gives kind OPAQUE and a reason.
    """
    raise NotImplementedError
