"""TCP: what both guests said, by position in the stream (rule 1).

The parts: `tcp_handshake` places the two guests' numbers, `stream` compares, `tcp_release` decides what goes
and how it looks, `tcp_client` and `mirror` are the way in. Here frames of the two guests are taken, and what
happens to all flows at once: a commit, a promotion, the loss of the secondary.
"""

from typing import Final

from mypy_extensions import i64

from colo_compare.core.counters import (
    FAILOVER,
    MATCHED,
    OBSERVED,
    S_AGED_OUT,
    S_OVERFLOW,
    S_UNPLACED,
    SUPERSEDED,
    TABLE_FULL,
    UNKNOWN_FLOW,
    UNPROTECTED,
)
from colo_compare.core.flow_table import FlowTable
from colo_compare.core.hold import Held
from colo_compare.core.holes import report_hole
from colo_compare.core.ledger import Ledger
from colo_compare.core.mirror import Mirror
from colo_compare.core.settings import OBSERVE, PROTECT
from colo_compare.core.stream import NOWHERE
from colo_compare.core.tcp_client import TcpClient, pick_up
from colo_compare.core.tcp_flow import Guest, TcpFlow
from colo_compare.core.tcp_handshake import begin_stream, pair
from colo_compare.core.tcp_release import TcpRelease
from colo_compare.core.tcp_steady import Steady
from colo_compare.wire.describe import describe_flow
from colo_compare.wire.frame import ACK, FIN, RST, SYN, Frame

_MASK: Final = 0xFFFFFFFF


class TcpComparer:
    """All TCP flows."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.mirror = Mirror(ledger)
        self.table = FlowTable(ledger, self.mirror)
        # Flows whose secondary has said what the primary has not, and since when it is in `loose`
        self.ahead: dict[TcpFlow, float] = {}
        self.release = TcpRelease(ledger, self.table, self.mirror)
        self.steady = Steady(ledger, self.mirror, self.release)
        self.client = TcpClient(ledger, self.table, self.mirror, self.release)

    # The primary

    def from_primary(self, frame: Frame) -> None:
        """Take a frame of the primary: release it, or hold it until the secondary has said the same."""
        ledger = self.ledger
        flow = self.table.find(frame)
        if flow is None:
            if not ledger.has_secondary() and not ledger.holding():
                ledger.send_client(frame, UNPROTECTED)
                return
            flow = self._open_from_guest(frame)
        if self.steady.take(flow, frame):
            return
        flags = frame.flags
        if frame.end > frame.payload or flags & (SYN | FIN | RST):
            flow.spell_out()
        guest = flow.primary
        unheard = False  # its SYN, which passed while nobody listened
        if flags & SYN:
            if not flow.guessed and flow.isn == NOWHERE:
                begin_stream(self.ledger, flow, frame)
            elif not flow.is_repetition(guest, frame) and flow.begins_anew(frame):
                flow = self._reopen(flow, frame)
                guest = flow.primary
        elif not guest.placed and not flags & RST:
            guest.placed = True
            flow.guessed = True
            if not ledger.settings.rewrite:
                unheard = flow.secondary.syn is not None
                flow.secondary.placed = True  # no offset to wait for
                flow.secondary.syn = None

        if flow.cut:
            # A promotion without a checkpoint that had copied this connection. Its bytes would go to wrong
            # places of the client's stream: silence, and the client's own time-out, is the lesser harm.
            ledger.counters.discarded[FAILOVER] += 1
            return
        start = flow.place(guest, frame)
        if (flow.guessed or not flow.secondary.placed) and flow.isn == NOWHERE and not flags & (RST | SYN):
            self._guess(flow, start)
        data_start = start + 1 if flags & SYN else start
        end = data_start + frame.end - frame.payload
        if flags & FIN:
            guest.fin = end
            end += 1
        ack = flow.ack_of(frame)
        before = guest.end
        if flags & RST:
            guest.reset = True
        else:
            guest.note(frame, end, ack, flow.scaled(frame))
        if flow.alone or (not ledger.has_secondary() and not ledger.holding()):
            if guest.end > flow.stream.matched:
                # Positions are found near this one (`place`): left behind by 2 GiB it would find wrong ones.
                flow.stream.skip_to(guest.end)
            self.release.send(flow, frame, end, ack, UNPROTECTED)
            return

        if flags & SYN:
            self._pair(flow)
        elif unheard and flow.loose is not None:
            early = flow.loose
            flow.loose = None
            self._compare_early(flow, early)
        if frame.end > frame.payload:
            counted = flow.stream.offer(
                True, data_start, frame.data, frame.payload, frame.end, None, ledger.now
            )
            ledger.compared(counted)
        self.release.settle(flow)
        lone_ack = end == start and not flags & RST
        waiting = flow.acks if lone_ack else flow.queue
        if (waiting is None or start < end <= before) and self.release.may_go(flow, frame, end, ack):
            # Of TCP's frames, only new payload keeps its order. An acknowledgement never waits for payload
            # that may not come (rule 2); and a repetition of what has gone out must not wait behind what has
            # not: the secondary may say that only when the client has acknowledged this.
            if flow.queue is not None:
                flow.monotonic = True
                ledger.counters.overtaking += 1
            self.release.send(flow, frame, end, ack, OBSERVED if ledger.mode == OBSERVE else MATCHED)
        else:
            self.release.hold(flow, frame, end, ack, lone_ack)

    def _open_from_guest(self, frame: Frame) -> TcpFlow:
        if not self.table.has_room():
            # Its frames have to wait for something: the table grows beyond its limit rather than lose them.
            self.ledger.want_checkpoint(TABLE_FULL, "")
        flow = self.table.add(frame.key)
        if not frame.flags & (SYN | RST):
            pick_up(self.ledger, flow)
        return flow

    def _reopen(self, old: TcpFlow, frame: Frame) -> TcpFlow:
        """Begin a new connection of the same addresses and ports.

        Decided by the primary's SYN, not by the client's: a guest answers a SYN in the middle of a live
        connection with a challenge acknowledgement (RFC 5961, section 4), and nothing has changed.
        """
        for held in old.take_held():
            self.ledger.discard(held, SUPERSEDED)
        flow = self.table.add(old.key)
        client_syn = old.client_syn
        if client_syn is not None and frame.flags & ACK:
            flow.client_syn = client_syn
            flow.client_end = (client_syn.seq + 1) & _MASK
            if self.ledger.has_secondary():
                self.mirror.keep(flow, flow.client_end - 1, flow.client_end, client_syn)
        syn = old.secondary.syn
        self.mirror.drop(old)
        self.ahead.pop(old, None)
        begin_stream(self.ledger, flow, frame)
        if syn is not None:
            self.from_secondary(syn)
        return flow

    def _pair(self, flow: TcpFlow) -> None:
        """Place the two handshakes, and then what the secondary said before the primary's had come."""
        early = flow.loose
        pair(self.ledger, self.mirror, flow)
        if early is not None and flow.loose is None:
            self._compare_early(flow, early)

    def _compare_early(self, flow: TcpFlow, early: list[Frame]) -> None:
        for frame in early:
            if not frame.flags & (SYN | RST):
                self._compare_secondary(flow, frame)

    def _guess(self, flow: TcpFlow, position: i64) -> None:
        first = flow.primary.end == NOWHERE
        flow.guess(position)
        unknown = not flow.secondary.placed and not flow.alone
        if unknown and self.ledger.protected and self.ledger.mode == PROTECT:
            if first:
                self.ledger.diverged(flow.key, UNKNOWN_FLOW, 0, b"", b"")
            else:
                # The checkpoint copied nothing, so that only the next one lets this out again.
                self.ledger.want_checkpoint(UNKNOWN_FLOW, describe_flow(flow.key))

    # The secondary

    def from_secondary(self, frame: Frame) -> None:
        """Take a frame of the secondary: it lets out what the primary said, and never leaves itself."""
        flow = self.table.find(frame)
        if flow is None:
            flow = self._open_from_guest(frame)
        flags = frame.flags
        guest = flow.secondary
        before = guest.ack
        if not self.steady.match(flow, frame):
            if frame.end > frame.payload or flags & (SYN | FIN | RST):
                flow.spell_out()
            if flags & SYN and not flow.is_repetition(guest, frame):
                self._secondary_syn(flow, frame)
                return
            if flow.alone:
                self.ledger.counters.secondary[S_UNPLACED] += 1
                return
            self._compare_secondary(flow, frame)
        if frame.sack_at and guest.ack == before and flow.primary.ack > guest.ack:
            self.mirror.lost(flow)
        if flow.clamped is not None:
            self.release.open_window(flow)
        if flow.short_ack is not None:
            self.mirror.say_again(flow, flow.short_ack)

    def _compare_secondary(self, flow: TcpFlow, frame: Frame) -> None:
        flags = frame.flags
        guest = flow.secondary
        ack = flow.ack_of(frame)
        if flags & RST:
            guest.reset = True
            self._keep_loose(flow, frame)
        elif not guest.placed:
            guest.note(frame, NOWHERE, ack, flow.scaled(frame))
            if guest.syn is not None and (frame.end > frame.payload or flags & FIN):
                self._keep_loose(flow, frame)  # the primary's SYN will say where it belongs
            else:
                self.ledger.counters.secondary[S_UNPLACED] += 1
        else:
            self._place_secondary(flow, frame, ack)
        self.release.settle(flow)
        self.mirror.settle(flow)
        self.release.pump(flow)

    def _place_secondary(self, flow: TcpFlow, frame: Frame, ack: i64) -> None:
        ledger = self.ledger
        guest = flow.secondary
        stream = flow.stream
        if flow.cut:
            ledger.counters.secondary[S_UNPLACED] += 1
            return
        start = flow.place(guest, frame)
        if flow.guessed:
            flow.guess(start)
        if frame.flags & SYN:
            start += 1
        end = start + frame.end - frame.payload
        if frame.flags & FIN:
            guest.fin = end
            if end >= stream.matched:
                self._keep_loose(flow, frame)
            end += 1
        guest.note(frame, end, ack, flow.scaled(frame))
        if frame.end > frame.payload and end > stream.matched:
            if stream.secondary is not None and stream.secondary.bytes >= ledger.settings.max_flow_bytes:
                ledger.counters.secondary[S_OVERFLOW] += 1
                return
            counted = stream.offer(False, start, frame.data, frame.payload, frame.end, frame, ledger.now)
            ledger.compared(counted)
            if stream.secondary is not None:
                if flow not in self.ahead:
                    self.ahead[flow] = ledger.now
                report_hole(ledger, flow)
        if ack > flow.released_ack:
            flow.ack_frame = frame

    def _secondary_syn(self, flow: TcpFlow, frame: Frame) -> None:
        """Take the secondary's SYN: of this connection, or of one that the primary still has to begin."""
        guest = flow.secondary
        guest.syn = frame
        self._keep_loose(flow, frame)
        if flow.primary.syn is None:
            return
        guest.note(frame, NOWHERE, flow.ack_of(frame), frame.window)
        self._pair(flow)
        self.release.settle(flow)
        self.mirror.settle(flow)
        self.release.pump(flow)

    def _keep_loose(self, flow: TcpFlow, frame: Frame) -> None:
        if flow.loose is None:
            flow.loose = []
            self.ahead[flow] = self.ledger.now
        if len(flow.loose) < 8:
            flow.loose.append(frame)

    # What happens to all flows

    def void_secondary(self) -> int:
        """Make void what the secondary had said: it has another state now. Gives the number of frames."""
        void = 0
        for flow in self.ahead:
            void += flow.drop_secondary_output()
        self.ahead = {}
        return void

    def age(self) -> None:
        """Forget what the secondary said too long ago, and flows that are over."""
        self.table.age()
        limit = self.ledger.now - self.ledger.settings.compare_timeout
        for flow, loose_since in list(self.ahead.items()):
            stream = flow.stream.secondary
            if stream is None and flow.loose is None:
                del self.ahead[flow]
            elif not flow.blocked and (
                (stream is not None and stream.first is not None and stream.first.seen <= limit)
                or (flow.loose is not None and loose_since <= limit)
            ):
                self.ledger.counters.secondary[S_AGED_OUT] += flow.drop_secondary_output()
                del self.ahead[flow]

    def release_said(self) -> None:
        """Release what both guests have said, whatever the primary's frames acknowledge: it is dead."""
        if self.ledger.mode == PROTECT and self.ledger.protected:
            for held in self.ledger.holds.entries():
                if isinstance(held.flow, TcpFlow):
                    self.release.release_said(held.flow)

    def promote(self) -> tuple[list[Frame], int, int]:
        """Let the secondary's end of every flow be the primary's.

        Gives its frames that nobody has seen, ready for the client, and how many flows live on, and how many
        of these keep a rewriter.
        """
        flushed: list[Frame] = []
        rewritten = 0
        for flow in [flow for flow in self.table.flows.values() if flow.alone]:
            # The guest that takes over has never heard of it, and says so (RST) when the client speaks.
            self.table.evict(flow)
        for flow in self.table.flows.values():
            self.table.catch_up(flow)
            unmatched = flow.unmatched_output()
            flow.promote()
            for frame in unmatched:
                flushed.append(self._flush(flow, frame))
            if flow.rewritten():
                rewritten += 1
        self.ahead = {}
        self.mirror.forget()
        return flushed, len(self.table.flows), rewritten

    def _flush(self, flow: TcpFlow, frame: Frame) -> Frame:
        guest = flow.primary
        if frame.flags & SYN and not guest.placed:
            begin_stream(self.ledger, flow, frame)
            guest.syn = None
        ack = flow.ack_of(frame)
        return self.release.outgoing(flow, frame, guest.end, ack, False)

    def let_go(self, flow: TcpFlow, held: Held, kind: str) -> None:
        """Release a held frame uncompared: a checkpoint covers it, or there is nobody to compare with."""
        flow.drop_held()
        flow.blocked = False
        self.ledger.released(held, self.release.outgoing(flow, held.frame, held.end, held.ack, False), kind)

    def lose_secondary(self) -> None:
        """Forget everything about the secondary."""
        self.mirror.forget()
        self.ahead = {}
        for flow in self.table.flows.values():
            self.release.open_window(flow)
            flow.catch_up(self.ledger.generation)
            flow.secondary = Guest()
            flow.waiting = None
            flow.short_ack = None
            flow.alone = False

    def forget(self) -> None:
        """Forget all flows."""
        for flow in list(self.table.flows.values()):
            self.table.evict(flow)
        self.ahead = {}

    def leave_alone(self) -> None:
        """Let every flow be one that the new secondary has never heard of."""
        for flow in self.table.flows.values():
            flow.alone = True

    def realign(self) -> None:
        """After a commit that copied nothing: every flow goes on from where its primary is."""
        for flow in self.table.flows.values():
            flow.realign()
