"""A guest and who talks with it: `tests.frames` makes the frames and takes them apart, not the guest."""

import struct
from dataclasses import dataclass, field

from colo_compare.guest import Geometry, Identity, Machine, Noise, boot
from tests.frames import (
    ACK,
    CLIENT_IP4,
    CLIENT_IP6,
    CLIENT_MAC,
    FIN,
    GUEST_IP4,
    GUEST_IP6,
    GUEST_MAC,
    SYN,
    TCP,
    Dissected,
    dissect,
    ethernet,
    icmp_message,
    ipv4,
    ipv6,
    tcp_options,
    tcp_segment,
)

GROUP = bytes.fromhex("ff0200000000000000000001ff000002")
SMALL = Geometry(connections=4, send_bytes=8192, receive_bytes=8192, entries=8, value_bytes=4096)
IDENTITY = Identity(mac="02:50:00:00:00:02", address4="10.0.0.2/24", address6="fd00::2/64", secret="test")


def new_memory(geometry: Geometry = SMALL, identity: Identity = IDENTITY) -> memoryview:
    raw = memoryview(bytearray(geometry.size))
    boot(raw, geometry, identity)
    return raw


def new_machine(geometry: Geometry = SMALL, noise: Noise | None = None) -> Machine:
    return Machine(new_memory(geometry), noise)


def packet(protocol: int, payload: bytes, version: int = 4) -> bytes:
    """A packet of the client to the guest."""
    if version == 4:
        return ethernet(ipv4(payload, protocol, CLIENT_IP4, GUEST_IP4, 1), 0x0800, CLIENT_MAC, GUEST_MAC)
    return ethernet(ipv6(payload, protocol, CLIENT_IP6, GUEST_IP6, 1), 0x86DD, CLIENT_MAC, GUEST_MAC)


def arp_message(operation: int, target_ip: bytes = GUEST_IP4, sender_ip: bytes = CLIENT_IP4) -> bytes:
    """An ARP request of the client to all, or its reply to the guest."""
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + CLIENT_MAC + sender_ip
    body += (bytes(6) if operation == 1 else GUEST_MAC) + target_ip
    return ethernet(body, 0x0806, CLIENT_MAC, b"\xff" * 6 if operation == 1 else GUEST_MAC)


def solicit(
    sender: bytes = CLIENT_IP6, target: bytes = GUEST_IP6, ttl: int = 255, option: bool = True
) -> bytes:
    body = icmp_message(
        sender, GROUP, 135, 0, bytes(4), target + (b"\x01\x01" + CLIENT_MAC if option else b"")
    )
    mac = b"\x33\x33" + GROUP[12:]
    return ethernet(ipv6(body, 58, sender, GROUP, 0, ttl=ttl), 0x86DD, CLIENT_MAC, mac)


def take_apart(frames: list[bytes]) -> list[Dissected]:
    """What the guest said, every checksum right."""
    found = [dissect(frame) for frame in frames]
    for one in found:
        assert not one.problems
    return found


@dataclass
class Peer:
    """The client's end of one TCP connection, which does only what a test says.

    `seq` is the next byte that it sends; `got` what the guest has sent in order, `nxt` where that ends.
    """

    machine: Machine
    port: int = 80
    own_port: int = 40000
    version: int = 4
    now: float = 1.0
    seq: int = 5000
    nxt: int = 0
    window: int = 8000
    scale: int | None = None
    times: bool = True
    sack: bool = True
    mss: int | None = 1000
    clock: int = 100  # of its timestamps
    echo: int = 0  # the guest's latest TSval
    got: bytes = b""
    ended: bool = False
    seen: list[Dissected] = field(default_factory=list)

    def __post_init__(self) -> None:
        for known in (arp_message(2),) if self.version == 4 else ():
            self.machine.receive([known], self.now)

    def frame(
        self, flags: int, payload: bytes = b"", seq: int | None = None, ack: int | None = None,
        window: int | None = None, options: bytes | None = None,
    ) -> bytes:  # fmt: skip
        if options is None:
            options = tcp_options(times=(self.clock, self.echo)) if self.times else b""
        source, target = (CLIENT_IP4, GUEST_IP4) if self.version == 4 else (CLIENT_IP6, GUEST_IP6)
        segment = tcp_segment(
            source, target, self.own_port, self.port,
            self.seq if seq is None else seq, self.nxt if ack is None else ack,
            flags, self.window if window is None else window, options, payload,
        )  # fmt: skip
        return packet(TCP, segment, self.version)

    def say(self, flags: int, payload: bytes = b"", **how: int | bytes | None) -> list[Dissected]:
        """Send a segment at `seq` (which it does not move), and give the guest's answers."""
        return self.hear(self.machine.receive([self.frame(flags, payload, **how)], self.now))  # type: ignore[arg-type]  # each test names the fields of `frame`

    def hear(self, frames: list[bytes]) -> list[Dissected]:
        """Note what the guest said."""
        if any(frame[12:14] == b"\x08\x06" and frame[21] == 1 for frame in frames):
            frames = frames + self.machine.receive([arp_message(2)], self.now)
        found = [
            one for one in take_apart(frames) if one.protocol == TCP and one.target_port == self.own_port
        ]
        self.seen += found
        for one in found:
            if one.times is not None:
                self.echo = one.times[0]
            if one.flags & SYN:
                self.nxt = (one.seq + 1) & 0xFFFFFFFF
            elif one.seq == self.nxt:
                self.got += one.payload
                self.nxt = (self.nxt + len(one.payload)) & 0xFFFFFFFF
                if one.flags & FIN and not self.ended:
                    self.nxt = (self.nxt + 1) & 0xFFFFFFFF
                    self.ended = True
        return found

    def syn(self) -> list[Dissected]:
        """Send a SYN."""
        options = tcp_options(
            mss=self.mss,
            sack_permitted=self.sack,
            scale=self.scale,
            times=(self.clock, 0) if self.times else None,
        )
        return self.say(SYN, ack=0, options=options)

    def open(self) -> "Peer":
        """Shake hands."""
        (answer,) = self.syn()
        assert answer.flags == SYN | ACK
        self.seq += 1
        assert self.say(ACK) == []
        return self

    def send(self, payload: bytes, flags: int = ACK) -> list[Dissected]:
        """Send bytes in order."""
        answers = self.say(flags, payload)
        self.seq += len(payload) + bool(flags & FIN)
        return answers

    def acknowledge(self) -> list[Dissected]:
        """Acknowledge what came in order."""
        return self.say(ACK)

    def download(self, request: bytes, limit: int = 2000) -> bytes:
        """Send a request and acknowledge until nothing more comes; give what came."""
        before = len(self.got)
        self.send(request)
        for _ in range(limit):
            if not self.acknowledge():
                break
        return self.got[before:]

    def tick(self, until: float) -> list[Dissected]:
        """Let time go by, and hear what timers say."""
        found = []
        while (due := self.machine.next_timer()) <= until:
            self.now = max(self.now, due)
            found += self.hear(self.machine.handle_timer(self.now))
        self.now = until
        return found
