"""A small TCP, strict where it is a witness: what no honest network and no right proxy can bring raises.

Numbers are relative to the initial sequence numbers: SYN at 0, first byte at 1. It does what Linux does where
that matters to a proxy: it rejects an echo that it never sent (SYN_RECV), acknowledgements and SACK blocks
of what it never sent, old timestamps (PAWS, RFC 7323, section 5), and a reset that is not exactly in place.
All times are of its host's clock.
"""

import math
import random
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Self

from colo_compare.simulate.packets import ACK, FIN, PSH, RST, SYN, Seen

FIRST_RTO: Final = 0.2
LAST_RTO: Final = 1.6
DELAYED_ACK: Final = 0.04
KEEP_ALIVE: Final = 5.0
BURST: Final = 8  # segments in flight

_HALF: Final = 0x80000000
_MASK: Final = 0xFFFFFFFF


class Contradiction(AssertionError):
    """Somebody heard what must never be said."""


@dataclass(slots=True)
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
    return near + ((value - base - near + _HALF) & _MASK) - _HALF


class Socket:
    """One end of a connection. All of it is plain data: a checkpoint copies it."""

    FIELDS: Final = (
        "local", "remote", "isn", "clock", "scale", "room", "times", "sack", "active", "mss", "keep_alive",
        "witness", "peer_isn", "peer_scale", "established", "was_reset", "aborting", "out", "out_base",
        "closing", "una", "nxt", "top", "edge", "rcv", "got", "got_base", "read", "early", "peer_fin",
        "promised", "ts_recent", "first_syn", "last_syn", "rto", "timer", "ack_due", "duplicates", "dirty",
    )  # fmt: skip
    __slots__ = FIELDS

    def __init__(
        self, local: int, remote: int, isn: int, clock: int, scale: int, room: int, *,
        times: bool, active: bool, mss: int, witness: bool,
    ) -> None:  # fmt: skip
        self.local = local
        self.remote = remote
        self.isn = isn
        self.clock = clock  # TSval at the host's time 0
        self.scale = scale
        self.room = room  # receive buffer, bytes
        self.times = times
        self.sack = True
        self.active = active
        self.mss = mss
        self.keep_alive = False  # ask a silent peer whether it is still there
        self.witness = witness  # the client's: keeps all that it heard, and checks what it is told
        self.peer_isn: int | None = None
        self.peer_scale = 0
        self.established = False
        self.was_reset = False
        self.aborting = False
        self.out = bytearray()
        self.out_base = 1  # place of its first byte
        self.closing = False
        self.una = 0
        self.nxt = 0
        self.top = 0  # highest sent
        self.edge = 1
        self.rcv = 0
        self.got = bytearray()
        self.got_base = 1  # place of its first byte
        self.read = 1  # place of the first byte that the application has not taken
        self.early: list[tuple[int, bytes]] = []  # what came beyond a hole, disjoint, in order
        self.peer_fin: int | None = None
        self.promised = 0  # right edge that was offered
        self.ts_recent: int | None = None
        self.first_syn: int | None = None  # TSvals of the first and the last SYN sent
        self.last_syn = 0
        self.rto = FIRST_RTO
        self.timer = math.inf
        self.ack_due = math.inf
        self.duplicates = 0
        self.dirty = True  # something has happened since `poll`

    # As plain data

    def pack(self) -> tuple[Any, ...]:
        """Give all of it."""
        fields: tuple[Any, ...] = _FIELDS_OF(self)
        return fields

    @classmethod
    def unpack(cls, fields: tuple[Any, ...]) -> Self:
        """Make one of what `pack` gave."""
        socket = cls.__new__(cls)
        for name, value in zip(cls.FIELDS, fields, strict=True):
            setattr(socket, name, value)
        socket.out = bytearray(socket.out)
        socket.got = bytearray(socket.got)
        socket.early = list(socket.early)
        return socket

    # The application's side

    def write(self, data: bytes) -> None:
        """Send data."""
        self.out += data
        self.dirty = True

    def close(self) -> None:
        """Send nothing more."""
        self.closing = True
        self.dirty = True

    def abort(self) -> None:
        """Reset the connection."""
        self.aborting = True
        self.dirty = True

    def waiting(self) -> int:
        """Give the number of bytes that the application has not taken."""
        return self.got_base + len(self.got) - self.read

    def peek(self, length: int) -> bytes:
        """Give the next bytes, as many as there are."""
        start = self.read - self.got_base
        return bytes(self.got[start : start + length])

    def consume(self, length: int) -> None:
        """Take the next bytes."""
        self.read += length
        if not self.witness:
            del self.got[: self.read - self.got_base]
            self.got_base = self.read

    @property
    def ended(self) -> bool:
        """The peer has sent its FIN, and all before."""
        return self.peer_fin is not None and self.rcv > self.peer_fin

    @property
    def finished(self) -> bool:
        """Both FINs are acknowledged or received."""
        return self.ended and self.closing and self.una == self.stream_end

    @property
    def data_end(self) -> int:
        """The place behind the last byte written."""
        return self.out_base + len(self.out)

    @property
    def stream_end(self) -> int:
        """The place behind all that is to be sent."""
        return self.out_base + len(self.out) + self.closing

    def _window(self) -> int:
        """Give what to offer, never taking back what was offered before."""
        free = self.room - self.waiting()
        edge = max(self.rcv + max(free, 0), self.promised)
        offer = min((edge - self.rcv) >> self.scale, 0xFFFF)
        self.promised = max(self.promised, self.rcv + (offer << self.scale))
        return offer

    # What goes out

    def next_timer(self) -> float:
        """Give when `poll` must be called."""
        return math.inf if self.was_reset else min(self.timer, self.ack_due)

    def poll(self, now: float, host_ms: int, chance: random.Random) -> list[Segment]:
        """Give what is to be sent now."""
        self.dirty = False
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
        end = self.stream_end
        limit = min(end, self.edge, self.una + BURST * self.mss)
        while self.nxt < limit:
            size = min(limit - self.nxt, chance.randint(self.mss // 2 or 1, self.mss))
            sent.append(self._make(self.nxt, size, host_ms))
            self.nxt += size
            if self.nxt > self.top:
                self.top = self.nxt
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
        if self.una == self.stream_end:
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
        self.last_syn = (self.clock + host_ms) & _MASK
        if self.first_syn is None:
            self.first_syn = self.last_syn
        passive = self.peer_isn is not None
        window = min(self.room, 0xFFFF)
        self.promised = max(self.promised, self.rcv + window)
        return Segment(
            SYN | ACK if passive else SYN, 0, self.rcv if passive else None, window, b"",
            self.last_syn if self.times else None, (self.ts_recent or 0) if passive else 0, (),
        )  # fmt: skip

    def _make(self, at: int, size: int, host_ms: int) -> Segment:
        base = self.out_base
        data_end = base + len(self.out)
        payload = bytes(self.out[max(at, 1) - base : at - base + size]) if size and at + size > base else b""
        flags = ACK
        if payload:
            flags |= PSH
        if self.closing and size and at + size > data_end:
            flags |= FIN
        return Segment(
            flags, at, self.rcv, self._window(), payload, self.clock + host_ms if self.times else None,
            self.ts_recent or 0, self._blocks() if self.early and self.sack else (),
        )  # fmt: skip

    def _blocks(self) -> tuple[tuple[int, int], ...]:
        blocks: list[tuple[int, int]] = []
        for place, piece in self.early:
            if blocks and blocks[-1][1] == place:
                blocks[-1] = (blocks[-1][0], place + len(piece))
            else:
                blocks.append((place, place + len(piece)))
        return tuple(blocks[:3])

    # What comes in

    def receive(self, seen: Seen, now: float) -> None:
        """Take a segment. Raises Contradiction."""
        if self.was_reset:
            return
        self.dirty = True
        if self.peer_isn is None:
            if not seen.flags & SYN:
                return
            self._meet(seen)
        assert self.peer_isn is not None
        at = unwrap(seen.seq, self.peer_isn, self.rcv)
        if seen.flags & RST:
            if at == self.rcv:
                self.was_reset = True
            return
        if seen.times is not None:
            if self.ts_recent is not None and (seen.times[0] - self.ts_recent) & _HALF:
                self.ack_due = now  # PAWS
                return
            if self.ts_recent is None or at <= self.rcv:
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
            self._data(seen, at + (seen.flags & SYN > 0))
            due = now + DELAYED_ACK if at == self.rcv and not self.early else now
            self.ack_due = min(self.ack_due, due)
            if self.early or at < self.rcv:
                self.ack_due = now
        elif at < self.rcv and not seen.flags & SYN:
            self.ack_due = now  # a probe

    def _meet(self, seen: Seen) -> None:
        self.peer_isn = seen.seq
        self.rcv = 1
        self.peer_scale = max(seen.scale, 0)
        self.times = self.times and seen.times is not None
        self.sack = self.sack and seen.sack

    def _check_ack(self, seen: Seen) -> int:
        """Give the relative acknowledgement; it can only be of what was sent."""
        ack = unwrap(seen.ack, self.isn, self.una)
        if ack > self.top:
            raise Contradiction(f"port {self.local}: acknowledges {ack}, only {self.top} was sent")
        for left, right in seen.blocks:
            first, last = unwrap(left, self.isn, self.una), unwrap(right, self.isn, self.una)
            if not 0 < first < last <= self.top:
                raise Contradiction(f"port {self.local}: SACK {first}-{last}, only {self.top} was sent")
        return ack

    def _acknowledged(self, seen: Seen, now: float) -> None:
        ack = self._check_ack(seen)
        if not self.established:
            if ack < 1:
                return
            if not self.active and seen.times is not None and seen.times[1] and self.first_syn is not None:
                first, last = self.first_syn, self.last_syn
                if (seen.times[1] - first) & _MASK > (last - first) & _MASK:
                    raise Contradiction(f"port {self.local}: TSecr {seen.times[1]} not {first}..{last}")
            self.established = True
            self.ack_due = now if self.active else self.ack_due
        scale = 0 if seen.flags & SYN else self.peer_scale
        if ack > self.una:
            self.una = ack
            self.nxt = max(self.nxt, ack)
            self.rto = FIRST_RTO
            self.timer = now + self.rto if ack < self.stream_end else math.inf
            self.duplicates = 0
            if not self.witness:
                cut = min(ack, self.data_end) - self.out_base
                if cut > 0:
                    del self.out[:cut]
                    self.out_base += cut
        elif ack == self.una < self.top and not seen.payload:
            self.duplicates += 1
            if self.duplicates == 3:
                self.timer = now
        self.edge = max(self.edge, ack + (seen.window << scale))

    def _data(self, seen: Seen, at: int) -> None:
        payload = seen.payload
        end = at + len(payload)
        limit = max(self.promised, self.rcv)
        if seen.flags & FIN:
            if self.witness and self.peer_fin is not None and self.peer_fin != end:
                raise Contradiction(f"port {self.local}: FIN at {end}, before at {self.peer_fin}")
            if end < limit + 1:
                self.peer_fin = end
        if payload:
            if self.witness and len(payload) > 1 and at < self.rcv:
                self._compare(at, payload)
            new = payload[max(self.rcv - at, 0) : limit - at] if limit > at else b""
            if new:
                self._weave(max(at, self.rcv), new)
        if self.peer_fin is not None and self.rcv == self.peer_fin:
            self.rcv += 1

    def _compare(self, at: int, payload: bytes) -> None:
        """Hold what came again against what came before. (One byte may be a keep-alive's.)"""
        first = max(at, self.got_base)
        known = self.got[first - self.got_base : at + len(payload) - self.got_base]
        if known != payload[first - at : first - at + len(known)]:
            raise Contradiction(f"port {self.local}: bytes from {first} on were others before")

    def _weave(self, at: int, new: bytes) -> None:
        """Put new bytes, none of them below `rcv`, where they belong."""
        if not self.early:
            if at == self.rcv:
                self.got += new
                self.rcv += len(new)
            else:
                self.early.append((at, new))
            return
        for start, piece in list(self.early):
            low, high = max(start, at), min(start + len(piece), at + len(new))
            if low < high and self.witness and piece[low - start : high - start] != new[low - at : high - at]:
                raise Contradiction(f"port {self.local}: bytes from {low} on were others before")
        self.early.append((at, new))
        self.early.sort(key=lambda entry: entry[0])
        merged: list[tuple[int, bytes]] = []
        for start, piece in self.early:
            reach = merged[-1][0] + len(merged[-1][1]) if merged else self.rcv
            if start + len(piece) <= reach:
                continue
            if start < reach:
                piece = piece[reach - start :]
                start = reach
            if start == self.rcv and not merged:
                self.got += piece
                self.rcv += len(piece)
            else:
                merged.append((start, piece))
        self.early = merged


_FIELDS_OF: Final = attrgetter(*Socket.FIELDS)
