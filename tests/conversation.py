"""Scripted ends of a conversation: packets with all that only their maker knows about them.

TCP numbers are relative to the sender's initial sequence number, as Wireshark shows them: the SYN is 0, the
first byte 1. So one number means the same place in the stream of either guest, whatever stands on the wire.
"""

import itertools
import struct
from dataclasses import dataclass, replace

from tests import frames
from tests.frames import ACK, FIN, PSH, RST, SYN, URG, Dissected

DEFAULT_WINDOW = 500  # on the wire; 64,000 bytes at scale 7
SYN_WINDOW = 64240


@dataclass(frozen=True, eq=False)
class Packet:
    """One frame, and what it means. Equal only to itself."""

    data: bytes
    tag: int
    maker: "Endpoint"
    kind: str  # tcp, datagram, fragment, opaque
    at: int = 0  # relative sequence number
    ack: int | None = None  # relative acknowledgement
    flags: int = 0
    window: int = 0
    edge: int = 0  # relative sequence number that the offered window ends at
    tsval: int | None = None
    payload: bytes = b""
    header_len: int = 0
    whole: bytes = b""  # of a fragment: what its datagram is
    pieces: int = 1  # in how many fragments
    segment: int = 0  # of UDP segmentation offload: the size of each datagram in it

    @property
    def span(self) -> int:
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def end(self) -> int:
        return self.at + self.span

    def places(self) -> list[tuple[int, int]]:
        """What stands at each place of the stream that it occupies; SYN is 256 and FIN 257."""
        start = self.at
        placed = []
        if self.flags & SYN:
            placed.append((start, 256))
            start += 1
        placed += [(start + index, byte) for index, byte in enumerate(self.payload)]
        if self.flags & FIN:
            placed.append((self.end - 1, 257))
        return placed

    def __repr__(self) -> str:
        if self.kind != "tcp":
            return f"<{self.maker.name} {self.kind} {self.payload[:16]!r} #{self.tag}>"
        names = "".join(n for bit, n in ((SYN, "S"), (FIN, "F"), (RST, "R"), (URG, "U")) if self.flags & bit)
        return (
            f"<{self.maker.name} {names}{self.at}+{self.span} ack {self.ack} win {self.window} #{self.tag}>"
        )


class Clock:
    """The time of one playbook, and its next tag."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.tag = 0

    def next_tag(self) -> int:
        self.tag += 1
        return self.tag


class Conversation:
    """One flow: its addresses, and its three ends."""

    def __init__(
        self, clock: Clock, version: int = 4, vlans: tuple[int, ...] = (), client_port: int = 40000,
        guest_port: int = 80, scale: int = 7, times: bool = True, header_len: int = 0,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.version = version
        self.vlans = vlans
        self.client_port = client_port
        self.guest_port = guest_port
        self.scale = scale  # of both directions
        self.times = times
        self.header_len = header_len  # 12: the guest sends partial checksums
        self.view_isn = 0  # the guest's initial sequence number as the client knows it
        self.client = Endpoint(self, "client")
        self.primary = Endpoint(self, "primary")
        self.secondary = Endpoint(self, "secondary")

    def addresses(self, from_client: bool) -> tuple[bytes, bytes]:
        client, guest = (
            (frames.CLIENT_IP4, frames.GUEST_IP4)
            if self.version == 4
            else (frames.CLIENT_IP6, frames.GUEST_IP6)
        )
        return (client, guest) if from_client else (guest, client)


class Endpoint:
    """One end: makes packets, and keeps the numbers that a live end would have."""

    def __init__(self, conversation: Conversation, name: str) -> None:
        self.conversation = conversation
        self.name = name
        self.isn = 0
        self.clock = 0  # TSval at time 0
        self.nxt = 0  # relative: the next sequence number to send
        self.rcv = 0  # relative: the next one expected
        self.echo: int | None = None  # TSecr to send
        self.syn_times: list[int] = []  # TSvals of its SYNs

    def become(self, other: "Endpoint") -> None:
        """Take the other's whole state over, as a checkpoint does."""
        self.isn, self.clock, self.nxt, self.rcv = other.isn, other.clock, other.nxt, other.rcv
        self.echo, self.syn_times = other.echo, list(other.syn_times)

    def hear(self, packet: Packet, seen: Dissected) -> None:
        """Note what arrived, as `seen` on the wire."""
        if packet.kind == "tcp" and packet.at <= self.rcv:
            self.rcv = max(self.rcv, packet.end)
            if seen.times is not None and (
                self.echo is None or (seen.times[0] - self.echo) & 0x80000000 == 0
            ):
                self.echo = seen.times[0]

    # TCP

    def segment(
        self, flags: int, payload: bytes = b"", *, at: int | None = None, ack: int | None = None,
        window: int | None = None, blocks: tuple[tuple[int, int], ...] = (), urgent: int = 0,
        tsval: int | None = None, tsecr: int | None = None, mss: int = 1460, scale: int | None = None,
        sack_permitted: bool = True, other: bytes = b"", tos: int = 0, ttl: int = 64, pad: bool = False,
        without_scale: bool = False,
    ) -> Packet:  # fmt: skip
        """Make a segment; what is not given is what a live end would put there."""
        talk = self.conversation
        syn = bool(flags & SYN)
        at = self.nxt if at is None else at
        if flags & ACK:
            ack = self.rcv if ack is None else ack
        else:
            ack = None
        if window is None:
            window = SYN_WINDOW if syn else DEFAULT_WINDOW
        if talk.times and tsval is None:
            tsval = self.clock + int(talk.clock.now * 1000)
        if tsecr is None:
            tsecr = (self.echo or 0) if flags & ACK else 0
        peer_isn = talk.view_isn if self is talk.client else talk.client.isn
        times = (tsval, tsecr) if tsval is not None else None
        block_isn = peer_isn
        options = frames.tcp_options(
            mss=mss if syn else None,
            sack_permitted=syn and sack_permitted,
            scale=(talk.scale if scale is None else scale) if syn and not without_scale else None,
            times=times,
            blocks=tuple((block_isn + left, block_isn + right) for left, right in blocks),
            other=other,
        )
        source, target = talk.addresses(self is talk.client)
        ports = (
            (talk.client_port, talk.guest_port)
            if self is talk.client
            else (talk.guest_port, talk.client_port)
        )
        body = frames.tcp_segment(
            source, target, *ports, self.isn + at, 0 if ack is None else peer_isn + ack, flags, window,
            options, payload, urgent, partial_checksum=talk.header_len != 0,
        )  # fmt: skip
        packet = self._packet(
            body, frames.TCP, "tcp", payload, tos=tos, ttl=ttl, pad=pad, at=at, ack=ack, flags=flags,
            window=window, edge=(ack or 0) + (window if syn else window << talk.scale), tsval=tsval,
        )  # fmt: skip
        self.nxt = max(self.nxt, packet.end)
        if syn and tsval is not None:
            self.syn_times.append(tsval)
        return packet

    def syn(
        self, *, window: int | None = None, mss: int = 1460, scale: int | None = None,
        sack_permitted: bool = True, other: bytes = b"", payload: bytes = b"",
    ) -> Packet:  # fmt: skip
        return self.segment(
            SYN,
            payload,
            at=0,
            window=window,
            mss=mss,
            scale=scale,
            sack_permitted=sack_permitted,
            other=other,
        )

    def syn_ack(
        self, *, ack: int | None = None, window: int | None = None, mss: int = 1460, scale: int | None = None,
        sack_permitted: bool = True, other: bytes = b"",
    ) -> Packet:  # fmt: skip
        return self.segment(
            SYN | ACK,
            at=0,
            ack=ack,
            window=window,
            mss=mss,
            scale=scale,
            sack_permitted=sack_permitted,
            other=other,
        )

    def ack(
        self, ack: int | None = None, *, at: int | None = None, window: int | None = None,
        blocks: tuple[tuple[int, int], ...] = (),
    ) -> Packet:  # fmt: skip
        return self.segment(ACK, at=at, ack=ack, window=window, blocks=blocks)

    def data(
        self, payload: bytes, *, at: int | None = None, ack: int | None = None, window: int | None = None
    ) -> Packet:
        return self.segment(PSH | ACK, payload, at=at, ack=ack, window=window)

    def fin(self, payload: bytes = b"", *, at: int | None = None, ack: int | None = None) -> Packet:
        return self.segment(FIN | ACK, payload, at=at, ack=ack)

    def rst(self, *, at: int | None = None, ack: int | None = None) -> Packet:
        return self.segment(RST | ACK, at=at, ack=ack)

    # Everything else

    def datagram(
        self, payload: bytes, *, tos: int = 0, ttl: int = 64, with_checksum: bool = True, pad: bool = False
    ) -> Packet:
        """A UDP datagram."""
        talk = self.conversation
        source, target = talk.addresses(self is talk.client)
        ports = (
            (talk.client_port, talk.guest_port)
            if self is talk.client
            else (talk.guest_port, talk.client_port)
        )
        body = frames.udp_datagram(source, target, *ports, payload, with_checksum)
        return self._packet(body, frames.UDP, "datagram", payload, tos=tos, ttl=ttl, pad=pad)

    def segmented_datagram(self, payload: bytes, segment: int) -> Packet:
        """Several UDP datagrams in one frame, cut by whoever sends it on (VIRTIO_NET_HDR_GSO_UDP_L4)."""
        plain = self.datagram(payload)
        start = 14 + 4 * len(self.conversation.vlans) + (20 if self.conversation.version == 4 else 40)
        vnet = struct.pack("<BBHHHHH", frames.VNET_NEEDS_CSUM, 5, start + 8, segment, start, 6, 0)
        return replace(plain, data=vnet + plain.data, header_len=len(vnet), segment=segment)

    def icmp(
        self, kind: int, payload: bytes, *, code: int = 0, identifier: int = 7, sequence: int = 1
    ) -> Packet:
        """An ICMP or, over IPv6, ICMPv6 message."""
        talk = self.conversation
        source, target = talk.addresses(self is talk.client)
        rest = struct.pack(">HH", identifier, sequence)
        body = frames.icmp_message(source, target, kind, code, rest, payload)
        protocol = frames.ICMP if talk.version == 4 else frames.ICMP6
        return self._packet(body, protocol, "datagram", bytes((kind, code)) + rest + payload)

    def other_ip(self, protocol: int, payload: bytes) -> Packet:
        return self._packet(payload, protocol, "datagram", payload)

    def fragments(self, payload: bytes, identification: int, cuts: tuple[int, ...]) -> list[Packet]:
        """One UDP datagram as IP fragments, cut at these multiples of 8 of its UDP header and payload."""
        talk = self.conversation
        source, target = talk.addresses(self is talk.client)
        ports = (
            (talk.client_port, talk.guest_port)
            if self is talk.client
            else (talk.guest_port, talk.client_port)
        )
        whole = frames.udp_datagram(source, target, *ports, payload)
        borders = [0, *cuts, len(whole)]
        return [
            replace(
                self.fragment(whole[start:stop], identification, start, stop < len(whole)),
                whole=payload, pieces=len(borders) - 1, at=start,
            )
            for start, stop in itertools.pairwise(borders)
        ]  # fmt: skip

    def fragment(
        self, piece: bytes, identification: int, offset: int, more: bool, protocol: int = frames.UDP
    ) -> Packet:
        """One IP fragment. Its tag is unique even in IPv4, where the identification is shared."""
        talk = self.conversation
        source, target = talk.addresses(self is talk.client)
        if talk.version == 4:
            packet = frames.ipv4(piece, protocol, source, target, identification, offset, more)
            return self._framed(packet, identification << 16 | offset, "fragment", piece)
        tag = talk.clock.next_tag()
        packet = frames.ipv6(piece, protocol, source, target, tag, (offset, identification, more))
        return self._framed(packet, tag, "fragment", piece)

    def opaque(self, ethertype: int, payload: bytes) -> Packet:
        """A frame that is not IP; its tag is its last four bytes."""
        tag = self.conversation.clock.next_tag() | 0x40000000
        body = payload + struct.pack(">I", tag)
        source, target = self._macs()
        data = frames.ethernet(body, ethertype, source, target, self.conversation.vlans)
        return Packet(data, tag, self, "opaque", payload=payload)

    def arp(self) -> Packet:
        """A guest's own ARP request. Its tag is its last four bytes: the address asked for."""
        source, _ = self._macs()
        mine, other = self.conversation.addresses(self is self.conversation.client)
        body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + source + mine + bytes(6) + other
        data = frames.ethernet(body, 0x0806, source, b"\xff" * 6, self.conversation.vlans)
        return Packet(data, int.from_bytes(other, "big"), self, "opaque", payload=body)

    def advertisement(self) -> Packet:
        """A guest's own neighbour advertisement (RFC 4861, section 4.4)."""
        source, target = self.conversation.addresses(self is self.conversation.client)
        mac, _ = self._macs()
        body = bytes((0x20, 0, 0, 0)) + source + b"\x02\x01" + mac
        message = frames.icmp_message(source, target, 136, 0, body[:4], body[4:])
        return self._packet(message, frames.ICMP6, "opaque", body, ttl=255)

    def raw_ip(self, packet: bytes, tag: int) -> Packet:
        """A packet with an IP header of the test's own making (malformed, perhaps)."""
        return self._framed(packet, tag, "opaque", packet)

    def _macs(self) -> tuple[bytes, bytes]:
        if self is self.conversation.client:
            return frames.CLIENT_MAC, frames.GUEST_MAC
        return frames.GUEST_MAC, frames.CLIENT_MAC

    def _packet(
        self, body: bytes, protocol: int, kind: str, payload: bytes, *, tos: int = 0, ttl: int = 64,
        pad: bool = False, at: int = 0, ack: int | None = None, flags: int = 0, window: int = 0,
        edge: int = 0, tsval: int | None = None,
    ) -> Packet:  # fmt: skip
        talk = self.conversation
        tag = talk.clock.next_tag()
        source, target = talk.addresses(self is talk.client)
        if talk.version == 4:
            packet = frames.ipv4(body, protocol, source, target, tag, tos=tos, ttl=ttl)
        else:
            packet = frames.ipv6(body, protocol, source, target, tag, tos=tos, ttl=ttl)
        return self._framed(
            packet,
            tag,
            kind,
            payload,
            pad=pad,
            at=at,
            ack=ack,
            flags=flags,
            window=window,
            edge=edge,
            tsval=tsval,
        )

    def _framed(
        self, packet: bytes, tag: int, kind: str, payload: bytes, *, pad: bool = False, at: int = 0,
        ack: int | None = None, flags: int = 0, window: int = 0, edge: int = 0, tsval: int | None = None,
    ) -> Packet:  # fmt: skip
        talk = self.conversation
        source, target = self._macs()
        ethertype = 0x0800 if talk.version == 4 else 0x86DD
        data = frames.ethernet(packet, ethertype, source, target, talk.vlans, pad)
        vnet = b""
        if talk.header_len:
            start = 14 + 4 * len(talk.vlans) + (20 if talk.version == 4 else 40)
            partial = kind == "tcp"
            vnet = struct.pack(
                "<BBHHHHH", frames.VNET_NEEDS_CSUM if partial else 0, 0, 0, 0, start if partial else 0,
                16 if partial else 0, 0,
            )  # fmt: skip
        return Packet(
            vnet + data, tag, self, kind, at, ack, flags, window, edge, tsval, payload, talk.header_len
        )  # fmt: skip
