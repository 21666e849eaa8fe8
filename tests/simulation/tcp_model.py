"""A small TCP, strict where it is a witness: what no honest network and no right proxy can bring raises.

Numbers are relative to the initial sequence numbers: SYN at 0, first byte at 1. It does what Linux does where
that matters to a proxy: it rejects an echo that it never sent (SYN_RECV), acknowledgements and SACK blocks
of what it never sent, old timestamps (PAWS, RFC 7323, section 5), and a reset that is not exactly in place.
"""

import math
import random
from dataclasses import dataclass, field

from tests.frames import ACK, FIN, PSH, RST, SYN, Dissected

FIRST_RTO = 0.2
LAST_RTO = 1.6
DELAYED_ACK = 0.04
KEEP_ALIVE = 5.0
BURST = 8  # segments in flight


class Contradiction(AssertionError):
    """Somebody heard what must never be said."""


@dataclass
class Segment:
    """What a socket wants sent."""

    flags: int
    at: int
    ack: int | None
    window: int  # on the wire
    payload: bytes
    tsval: int | None
    tsecr: int
    blocks: tuple[tuple[int, int], ...]


def unwrap(value: int, base: int, near: int) -> int:
    """Give the relative number that `value` stands for, nearest to the relative number `near`."""
    return near + ((value - base - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@dataclass
class Socket:
    """One end of a connection. All of it is plain data: a checkpoint copies it."""

    local_port: int
    remote_port: int
    isn: int
    clock: int  # TSval at the host's time 0
    scale: int
    room: int  # receive buffer, bytes
    times: bool = True
    sack: bool = True
    active: bool = False
    mss: int = 100
    keep_alive: bool = False  # ask a silent peer whether it is still there

    peer_isn: int | None = None
    peer_scale: int = 0
    established: bool = False
    was_reset: bool = False
    aborting: bool = False
    out: bytearray = field(default_factory=bytearray)
    closing: bool = False
    una: int = 0
    nxt: int = 0
    top: int = 0  # highest sent
    edge: int = 1
    rcv: int = 0
    got: bytearray = field(default_factory=bytearray)  # the whole stream so far
    read: int = 0  # how much of it the application has taken
    early: dict[int, int] = field(default_factory=dict)
    peer_fin: int | None = None
    promised: int = 0  # right edge that was offered
    ts_recent: int | None = None
    syn_times: list[int] = field(default_factory=list)
    rto: float = FIRST_RTO
    timer: float = math.inf
    ack_due: float = math.inf
    duplicates: int = 0

    # The application's side

    def write(self, data: bytes) -> None:
        self.out += data

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborting = True

    @property
    def ended(self) -> bool:
        """The peer has sent its FIN, and all before."""
        return self.peer_fin is not None and self.rcv > self.peer_fin

    @property
    def finished(self) -> bool:
        """Both FINs are acknowledged or received."""
        return self.ended and self.closing and self.una == self._stream_end()

    def _stream_end(self) -> int:
        return 1 + len(self.out) + self.closing

    def _window(self) -> int:
        """What to offer, never taking back what was offered before."""
        free = max(0, self.room - (len(self.got) - self.read))
        edge = max(self.rcv + free, self.promised)
        offer = (edge - self.rcv) >> self.scale
        self.promised = self.rcv + (offer << self.scale)
        return offer

    # What goes out

    def poll(self, now: float, host_ms: int, chance: random.Random) -> list[Segment]:
        """Give what is to be sent now."""
        sent: list[Segment] = []
        if self.was_reset:
            return sent
        if self.aborting:
            self.was_reset = True
            flags, ack = (RST | ACK, self.rcv) if self.established else (RST, None)
            return [Segment(flags, self.nxt, ack, 0, b"", None, 0, ())]
        if not self.established:
            self.ack_due = math.inf
            if now >= self.timer or self.nxt == 0:
                sent.append(self._make_syn(host_ms))
                self._arm(now, back_off=self.top > 1)
            return sent
        if now >= self.timer:
            self._retransmit(now, host_ms, chance, sent)
        end = self._stream_end()
        limit = min(end, self.edge, self.una + BURST * self.mss)
        while self.nxt < limit:
            size = min(limit - self.nxt, chance.randint(max(1, self.mss // 2), self.mss))
            sent.append(self._make(self.nxt, size, host_ms))
            self.nxt += size
            self.top = max(self.top, self.nxt)
        if self.una < end and self.timer == math.inf:
            self._arm(now, back_off=False)
        if self.keep_alive and self.timer == math.inf and not self.finished:
            self.timer = now + KEEP_ALIVE
        if now >= self.ack_due and not sent:
            sent.append(self._make(self.nxt, 0, host_ms))
        if sent:
            self.ack_due = math.inf
        return sent

    def _retransmit(self, now: float, host_ms: int, chance: random.Random, sent: list[Segment]) -> None:
        if self.una == self._stream_end():
            self.timer = math.inf
            if self.keep_alive and not self.finished:
                sent.append(self._make(self.una - 1, 0, host_ms))
            return
        if self.una < self.top:
            size = min(self.top - self.una, chance.randint(1, 2 * self.mss))
            sent.append(self._make(self.una, size, host_ms))
        elif self.edge <= self.nxt:
            sent.append(self._make(self.una - 1, 0, host_ms))  # a window probe, as Linux sends it
        self._arm(now, back_off=True)

    def _arm(self, now: float, back_off: bool) -> None:
        if back_off:
            self.rto = min(LAST_RTO, 2 * self.rto)
        self.timer = now + self.rto

    def _make_syn(self, host_ms: int) -> Segment:
        self.nxt = self.top = max(self.top, 1)
        tsval = self.clock + host_ms
        self.syn_times.append(tsval)
        passive = self.peer_isn is not None
        window = min(self.room, 0xFFFF)
        self.promised = max(self.promised, self.rcv + window)
        return Segment(
            SYN | ACK if passive else SYN, 0, self.rcv if passive else None, window, b"",
            tsval if self.times else None, (self.ts_recent or 0) if passive else 0, (),
        )  # fmt: skip

    def _make(self, at: int, size: int, host_ms: int) -> Segment:
        data_end = 1 + len(self.out)
        payload = bytes(self.out[max(at, 1) - 1 : at - 1 + size]) if at >= 1 else b""
        flags = ACK
        if payload:
            flags |= PSH
        if self.closing and size and at + size > data_end:
            flags |= FIN
        return Segment(
            flags, at, self.rcv, self._window(), payload, self.clock + host_ms if self.times else None,
            self.ts_recent or 0, self._blocks() if self.sack else (),
        )  # fmt: skip

    def _blocks(self) -> tuple[tuple[int, int], ...]:
        blocks: list[tuple[int, int]] = []
        for place in sorted(self.early):
            if blocks and blocks[-1][1] == place:
                blocks[-1] = (blocks[-1][0], place + 1)
            else:
                blocks.append((place, place + 1))
        return tuple(blocks[:3])

    # What comes in

    def receive(self, seen: Dissected, now: float, witness: bool) -> None:
        """Take a segment. `witness`: this is the client, which checks what it is told for contradictions."""
        if self.was_reset:
            return
        if self.peer_isn is None:
            if not seen.flags & SYN:
                return
            self._meet(seen)
        at = unwrap(seen.seq, self._peer(), self.rcv)
        if seen.flags & RST:
            if at == self.rcv:
                self.was_reset = True
            return
        if seen.times is not None and self.ts_recent is not None:
            if (seen.times[0] - self.ts_recent) & 0x80000000:
                self.ack_due = now  # PAWS
                return
            if at <= self.rcv:
                self.ts_recent = seen.times[0]
        elif seen.times is not None:
            self.ts_recent = seen.times[0]
        if seen.flags & SYN:
            if self.established:
                self.ack_due = now
            elif self.active and seen.flags & ACK:
                self._check_ack(seen)
            elif not self.active:
                self.timer = now  # a repeated SYN gets its SYN-ACK again
        if seen.flags & ACK:
            self._acknowledged(seen, now)
        if seen.payload or seen.flags & FIN:
            self._data(seen, at + bool(seen.flags & SYN), witness)
            self.ack_due = min(self.ack_due, now + DELAYED_ACK if at == self.rcv else now)
            if self.early or at < self.rcv:
                self.ack_due = now
        elif at < self.rcv and not seen.flags & SYN:
            self.ack_due = now  # a probe

    def _peer(self) -> int:
        assert self.peer_isn is not None
        return self.peer_isn

    def _meet(self, seen: Dissected) -> None:
        self.peer_isn = seen.seq
        self.rcv = 1
        self.peer_scale = seen.scale or 0
        self.times = self.times and seen.times is not None
        self.sack = self.sack and seen.sack_permitted

    def _check_ack(self, seen: Dissected) -> int:
        """Give the relative acknowledgement; it can only be of what was sent."""
        ack = unwrap(seen.ack, self.isn, self.una)
        if ack > self.top:
            raise Contradiction(f"port {self.local_port}: acknowledges {ack}, only {self.top} was sent")
        for left, right in seen.blocks:
            first, last = unwrap(left, self.isn, self.una), unwrap(right, self.isn, self.una)
            if not 0 < first < last <= self.top:
                raise Contradiction(f"port {self.local_port}: SACK {first}-{last}, only {self.top} was sent")
        return ack

    def _acknowledged(self, seen: Dissected, now: float) -> None:
        ack = self._check_ack(seen)
        if not self.established:
            if ack < 1:
                return
            if not self.active and seen.times is not None and seen.times[1]:
                first, last = self.syn_times[0] & 0xFFFFFFFF, self.syn_times[-1] & 0xFFFFFFFF
                if (seen.times[1] - first) & 0xFFFFFFFF > (last - first) & 0xFFFFFFFF:
                    raise Contradiction(f"port {self.local_port}: TSecr {seen.times[1]} not {first}..{last}")
            self.established = True
            self.ack_due = now if self.active else self.ack_due
        scale = 0 if seen.flags & SYN else self.peer_scale
        if ack > self.una:
            self.una = ack
            self.nxt = max(self.nxt, ack)
            self.rto = FIRST_RTO
            self.timer = now + self.rto if ack < self._stream_end() else math.inf
            self.duplicates = 0
        elif ack == self.una < self.top and not seen.payload:
            self.duplicates += 1
            if self.duplicates == 3:
                self.timer = now
        self.edge = max(self.edge, ack + (seen.window << scale))

    def _data(self, seen: Dissected, at: int, witness: bool) -> None:
        for offset, byte in enumerate(seen.payload):
            place = at + offset
            if place < self.rcv:
                if witness and place >= 1 and self.got[place - 1] != byte and len(seen.payload) > 1:
                    raise Contradiction(f"port {self.local_port}: byte {place} was another one before")
            elif place < max(self.promised, self.rcv):
                known = self.early.setdefault(place, byte)
                if witness and known != byte:
                    raise Contradiction(f"port {self.local_port}: byte {place} was another one before")
        if seen.flags & FIN:
            end = at + len(seen.payload)
            if witness and self.peer_fin is not None and self.peer_fin != end:
                raise Contradiction(f"port {self.local_port}: FIN at {end}, before at {self.peer_fin}")
            if end < max(self.promised, self.rcv) + 1:
                self.peer_fin = end
        while self.rcv in self.early:
            self.got.append(self.early.pop(self.rcv))
            self.rcv += 1
        if self.peer_fin is not None and self.rcv == self.peer_fin:
            self.rcv += 1
