"""TCP: what both guests said is released, by position in the stream (rules 1 and 2).

A primary frame goes when
- everything in it (SYN, payload, FIN) lies below the position up to which both streams agree,
- the secondary has acknowledged as much client data as it does,
- and no frame of its flow waits before it.
A RST goes when the secondary has sent one too.
"""

from typing import Final

from colo_compare.core.counters import (
    C_TABLE_FULL,
    HANDSHAKE,
    MATCHED,
    OBSERVED,
    PAYLOAD,
    RESET,
    S_AGED_OUT,
    S_OVERFLOW,
    S_UNPLACED,
    S_UNPROTECTED,
    SIGNED,
    STREAM_END,
    SUPERSEDED,
    TABLE_FULL,
    UNKNOWN_FLOW,
    UNPROTECTED,
)
from colo_compare.core.flow_table import FlowTable
from colo_compare.core.hold import Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.mirror import Mirror, translate_to_guest
from colo_compare.core.settings import OBSERVE, PROTECT
from colo_compare.core.stream import NOWHERE, StreamComparer
from colo_compare.core.tcp_flow import CLOSED, HALF_OPEN, UNKNOWN_SHIFT, Guest, TcpFlow
from colo_compare.wire.frame import ACK, FIN, RST, SYN, Frame
from colo_compare.wire.handshake import handshake_options
from colo_compare.wire.icmp import quoted_transport
from colo_compare.wire.rewrite import pure_ack, rewrite_tcp, shift_embedded_tcp
from colo_compare.wire.seq import diff, unwrap, wrap

_MASK: Final = 0xFFFFFFFF
_TCP_PROTOCOL: Final = 6
_WORTH_AN_UPDATE: Final = (
    2920  # bytes by which a window must grow for an acknowledgement of our own: two segments
)


class TcpComparer:
    """All TCP flows."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.table = FlowTable(ledger)
        self.mirror = Mirror(ledger)
        self.ahead: dict[TcpFlow, None] = {}  # flows whose secondary has said what the primary has not
        self.protected = False  # a checkpoint stands behind this pair

    # The client

    def from_client(self, frame: Frame) -> None:
        """Take a frame of the client: note what it says, translate it, give it to both guests."""
        flow = self.table.find(frame.key)
        if flow is None:
            flow = self._open_from_client(frame)
            if flow is None:
                return
        flags = frame.flags
        if flags & SYN:
            self._client_syn(flow, frame)
        start = unwrap(frame.seq, flow.client_end if flow.client_end != NOWHERE else frame.seq)
        end = start + frame.end - frame.payload
        if flags & (SYN | FIN):
            end += 1
            if flags & FIN:
                flow.client_fin = end - 1
        in_order = not flags & SYN or flow.client_end == NOWHERE or flow.state == HALF_OPEN
        # No window reaches further than 2^30 (RFC 7323, section 2.3): what claims to is of another connection.
        in_reach = flow.primary.ack == NOWHERE or end - flow.primary.ack <= 1 << 30
        if in_order and in_reach and end > flow.client_end:
            flow.client_end = end
        ack = self._client_ack(flow, frame) if flags & ACK else NOWHERE
        self.ledger.send_primary(translate_to_guest(self.ledger, flow.primary, frame, ack))
        if self.ledger.has_secondary():
            self.mirror.send(flow, frame, ack)
            if end > start and in_order:
                self.mirror.keep(flow, start, end, frame)
        if flags & RST:
            self.table.close(flow)

    def _open_from_client(self, frame: Frame) -> "TcpFlow | None":
        ledger = self.ledger
        opening = frame.flags & (SYN | RST) == SYN
        if not ledger.has_secondary() or frame.flags & RST:
            ledger.send_primary(frame)
            if ledger.has_secondary():
                ledger.send_secondary(frame)
            return None
        if not self.table.has_room():
            ledger.want_checkpoint(TABLE_FULL, "")
            if opening:
                ledger.counters.client_discarded[C_TABLE_FULL] += 1
                return None
        flow = self.table.add(frame.key)
        if not opening:
            self._pick_up(flow)
        return flow

    def _pick_up(self, flow: TcpFlow) -> None:
        """Begin a flow in mid-stream. Equal guests need no offset; others need a checkpoint first."""
        flow.guessed = True
        flow.primary.placed = True
        flow.secondary.placed = self.ledger.known_equal or not self.ledger.settings.rewrite

    def _client_syn(self, flow: TcpFlow, frame: Frame) -> None:
        if flow.client_syn is not None and flow.client_syn.seq == frame.seq:
            return
        flow.client_syn = frame
        if flow.isn == NOWHERE:
            flow.primary.reset = False
            flow.secondary.reset = False
            if not flow.guessed and not frame.flags & ACK:
                flow.client_end = frame.seq
        elif frame.flags & ACK and handshake_options(frame).window_scale < 0:
            flow.shift = 0  # the answer to the guests' own SYN: scaling needs the option on both sides

    def _client_ack(self, flow: TcpFlow, frame: Frame) -> int:
        near = flow.stream.matched
        ack = frame.ack if near == NOWHERE else unwrap(frame.ack, near)
        if ack > flow.client_ack:
            flow.client_ack = ack
        if flow.guessed and near != NOWHERE and near < ack <= flow.primary.end:
            # Picked up in mid-stream: what the client acknowledges had gone out before.
            flow.stream.skip_to(ack)
            self._pump(flow)
        if flow.state == HALF_OPEN and flow.isn != NOWHERE and ack > flow.isn and flow.secondary.placed:
            self.table.established(flow)
            flow.client_syn = None
        if flow.primary.fin != NOWHERE and ack > flow.primary.fin and flow.client_fin != NOWHERE:
            self.table.close(flow)
        return ack

    def quoted_by_client(self, frame: Frame) -> None:
        """Take an ICMP error of the client's side: what it quotes gets each guest's own sequence number.

        A guest looks the number up before it believes the error (RFC 5927, section 4.1), so that path MTU
        discovery of the secondary needs the translation, too.
        """
        ledger = self.ledger
        primary = secondary = frame
        protocol, transport = quoted_transport(frame)
        if protocol == _TCP_PROTOCOL and transport + 8 <= frame.end:
            addresses = frame.payload + (12 if frame.version == 4 else 8)
            width = 8 if frame.version == 4 else 32
            data = frame.data
            vlans = frame.key[width + 4 : -1]
            flow = self.table.find(
                data[addresses : addresses + width] + data[transport : transport + 4] + vlans
            )
            if flow is not None:
                primary = shift_embedded_tcp(frame, -flow.primary.seq_offset)
                secondary = shift_embedded_tcp(frame, -flow.secondary.seq_offset)
        ledger.send_primary(primary)
        if ledger.has_secondary():
            ledger.send_secondary(secondary)

    # The primary

    def from_primary(self, frame: Frame) -> None:
        """Take a frame of the primary: release it, or hold it until the secondary has said the same."""
        ledger = self.ledger
        flow = self.table.find(frame.key)
        if flow is None:
            if not ledger.has_secondary() and not ledger.holding():
                ledger.send_client(frame, UNPROTECTED)
                return
            flow = self._open_from_guest(frame)
        flags = frame.flags
        guest = flow.primary
        if flags & SYN:
            if not flow.guessed and flow.isn == NOWHERE:
                self._begin_stream(flow, frame)
            elif not flow.is_repetition(guest, frame):
                flow = self._reopen(flow, frame)
                guest = flow.primary
        elif not guest.placed and not flags & RST:
            guest.placed = True
            flow.guessed = True
        if flow.guessed and guest.end == NOWHERE and not flags & RST:
            self._guess(flow, frame)

        start = flow.place(guest, frame)
        data_start = start + 1 if flags & SYN else start
        end = data_start + frame.end - frame.payload
        if flags & FIN:
            guest.fin = end
            end += 1
        ack = flow.place_ack(frame) if flags & ACK else NOWHERE
        if flags & RST:
            guest.reset = True
        else:
            guest.note(frame, end, ack, flow.scaled(frame))
        if not ledger.has_secondary() and not ledger.holding():
            self._send(flow, frame, end, ack, UNPROTECTED)
            return

        if flags & SYN:
            self._pair(flow)
        if frame.end > frame.payload:
            counted = flow.stream.offer(
                True, data_start, frame.data, frame.payload, frame.end, None, ledger.now
            )
            ledger.counters.compared_bytes += counted
        self._settle(flow)
        if flow.queue is None and self._may_go(flow, flags, end, ack):
            self._send(flow, frame, end, ack, OBSERVED if ledger.mode == OBSERVE else MATCHED)
        else:
            self._hold(flow, frame, end, ack)

    def _open_from_guest(self, frame: Frame) -> TcpFlow:
        if not self.table.has_room():
            # Its frames have to wait for something: the table grows beyond its limit rather than lose them.
            self.ledger.want_checkpoint(TABLE_FULL, "")
        flow = self.table.add(frame.key)
        if not frame.flags & (SYN | RST):
            self._pick_up(flow)
        return flow

    def _begin_stream(self, flow: TcpFlow, frame: Frame) -> None:
        guest = flow.primary
        guest.placed = True
        guest.syn = frame
        flow.isn = (frame.seq + guest.seq_offset) & _MASK
        flow.stream = StreamComparer(flow.isn)
        scale = handshake_options(frame).window_scale
        flow.shift = scale if scale > 0 else 0
        client_syn = flow.client_syn if frame.flags & ACK else None
        if client_syn is not None and handshake_options(client_syn).window_scale < 0:
            flow.shift = 0
        if not self.ledger.settings.rewrite:
            flow.secondary.placed = True

    def _reopen(self, old: TcpFlow, frame: Frame) -> TcpFlow:
        """Begin a new connection of the same addresses and ports.

        Decided by the primary's SYN, not by the client's: a guest answers a SYN in the middle of a live
        connection with a challenge acknowledgement (RFC 5961, section 4), and nothing has changed.
        """
        if old.queue is not None:
            for held in old.queue:
                self.ledger.discard(held, SUPERSEDED)
            old.queue = None
        flow = self.table.add(old.key)
        client_syn = old.client_syn
        if client_syn is not None and frame.flags & ACK:
            flow.client_syn = client_syn
            flow.client_end = (client_syn.seq + 1) & _MASK
            if self.ledger.has_secondary():
                self.mirror.keep(flow, flow.client_end - 1, flow.client_end, client_syn)
        syn = old.secondary.syn
        self.mirror.in_flight.pop(old, None)
        self.mirror.lagging.pop(old, None)
        self.ahead.pop(old, None)
        self._begin_stream(flow, frame)
        if syn is not None:
            self.from_secondary(syn)
        return flow

    def _guess(self, flow: TcpFlow, frame: Frame) -> None:
        """Say where a stream stands that was picked up in the middle: at what the primary says first."""
        position = flow.place(flow.primary, frame)
        matched = flow.stream.matched
        if matched == NOWHERE or position < matched:
            flow.stream.matched = position
        else:
            flow.stream.skip_to(position)
        if not flow.secondary.placed and self.protected and self.ledger.mode == PROTECT:
            self.ledger.diverged(flow.key, UNKNOWN_FLOW, 0, b"", b"")

    # The secondary

    def from_secondary(self, frame: Frame) -> None:
        """Take a frame of the secondary: it lets out what the primary said, and never leaves itself."""
        ledger = self.ledger
        if not ledger.has_secondary():
            ledger.counters.secondary[S_UNPROTECTED] += 1
            return
        flow = self.table.find(frame.key)
        if flow is None:
            flow = self._open_from_guest(frame)
        flags = frame.flags
        guest = flow.secondary
        if flags & SYN and not flow.is_repetition(guest, frame):
            self._secondary_syn(flow, frame)
            return
        ack = flow.place_ack(frame) if flags & ACK else NOWHERE
        before = guest.ack
        if flags & RST:
            guest.reset = True
            self._keep_loose(flow, frame)
        elif not guest.placed:
            guest.note(frame, NOWHERE, ack, flow.scaled(frame))
            ledger.counters.secondary[S_UNPLACED] += 1
        else:
            self._place_secondary(flow, frame, ack)
        self._settle(flow)
        self.mirror.settle(flow)
        self._pump(flow)
        if frame.sack_at and guest.ack == before and flow.primary.ack > guest.ack:
            self.mirror.lost(flow)
        if flow.clamped is not None:
            self._open_window(flow)
        if flow.short_ack is not None:
            self.mirror.say_again(flow)

    def _place_secondary(self, flow: TcpFlow, frame: Frame, ack: int) -> None:
        ledger = self.ledger
        guest = flow.secondary
        stream = flow.stream
        start = flow.place(guest, frame)
        if stream.matched == NOWHERE:
            stream.matched = start
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
            ledger.counters.compared_bytes += counted
            if stream.secondary is not None:
                self.ahead[flow] = None
        if ack > flow.released_ack:
            flow.ack_frame = frame

    def _secondary_syn(self, flow: TcpFlow, frame: Frame) -> None:
        """Take the secondary's SYN: of this connection, or of one that the primary still has to begin."""
        guest = flow.secondary
        guest.syn = frame
        self._keep_loose(flow, frame)
        if flow.primary.syn is None:
            return
        guest.note(frame, NOWHERE, flow.place_ack(frame) if frame.flags & ACK else NOWHERE, frame.window)
        self._pair(flow)
        self._settle(flow)
        self.mirror.settle(flow)
        self._pump(flow)

    def _keep_loose(self, flow: TcpFlow, frame: Frame) -> None:
        if flow.loose is None:
            flow.loose = []
            flow.loose_since = self.ledger.now
            self.ahead[flow] = None
        if len(flow.loose) < 8:
            flow.loose.append(frame)

    # Both

    def _pair(self, flow: TcpFlow) -> None:
        """Put the two handshakes side by side: they give the offsets, or show that there can be none."""
        ours = flow.primary.syn
        theirs = flow.secondary.syn
        if ours is None or theirs is None or flow.blocked:
            return
        primary = flow.primary
        secondary = flow.secondary
        if handshake_options(ours) != handshake_options(theirs):
            self._handshake_differs(flow, HANDSHAKE, ours, theirs)
            return
        if self.ledger.settings.rewrite:
            if ours.unrewritable or theirs.unrewritable:
                self._handshake_differs(flow, SIGNED, ours, theirs)
                return
            secondary.seq_offset = (ours.seq + primary.seq_offset - theirs.seq) & _MASK
            if ours.tsval_at and theirs.tsval_at:
                secondary.ts_offset = (ours.tsval + primary.ts_offset - theirs.tsval) & _MASK
        secondary.placed = True
        primary.syn = None
        secondary.syn = None
        flow.loose = None
        secondary.note(
            theirs,
            flow.isn + 1 + theirs.end - theirs.payload,
            flow.place_ack(theirs) if theirs.flags & ACK else NOWHERE,
            theirs.window,
        )
        flow.stream.skip_to(flow.isn + 1)
        if theirs.end > theirs.payload:
            flow.stream.offer(
                False, flow.isn + 1, theirs.data, theirs.payload, theirs.end, theirs, self.ledger.now
            )
        self.mirror.place(flow)

    def _handshake_differs(self, flow: TcpFlow, reason: str, ours: Frame, theirs: Frame) -> None:
        flow.blocked = True
        self.ledger.diverged(
            flow.key,
            reason,
            0,
            ours.data[ours.l4 : ours.payload][:64],
            theirs.data[theirs.l4 : theirs.payload][:64],
        )
        if self.ledger.mode == OBSERVE:
            flow.realign()

    def _settle(self, flow: TcpFlow) -> None:
        """Draw the conclusions from where the two streams stand: FINs agree, or something differs."""
        stream = flow.stream
        if flow.blocked:
            return
        reason = ""
        primary = flow.primary
        secondary = flow.secondary
        if stream.mismatch != NOWHERE:
            reason = PAYLOAD
        elif primary.fin != NOWHERE or secondary.fin != NOWHERE:
            matched = stream.matched
            if primary.fin == secondary.fin:
                if matched == primary.fin:
                    stream.skip_to(matched + 1)
                    flow.loose = None
            elif (matched == secondary.fin and secondary.placed and primary.end > matched) or (
                matched == primary.fin and secondary.end > matched
            ):
                reason = STREAM_END
        gave_up = secondary.reset and secondary.placed and secondary.end <= stream.matched
        if not reason and gave_up and not primary.reset and primary.end > stream.matched:
            reason = RESET
        if reason:
            flow.blocked = True
            position = stream.matched if stream.mismatch == NOWHERE else stream.mismatch
            offset = position - flow.isn - 1 if flow.isn != NOWHERE else 0
            self.ledger.diverged(flow.key, reason, offset, stream.excerpt(True), stream.excerpt(False))
            if self.ledger.mode == OBSERVE:
                # Nothing will make the two equal: count it, and compare what follows.
                flow.realign()

    def _may_go(self, flow: TcpFlow, flags: int, end: int, ack: int) -> bool:
        if flow.blocked or not (self.protected or self.ledger.mode == OBSERVE):
            return False
        if flags & RST:
            return flow.secondary.reset
        secondary = flow.secondary
        return secondary.placed and end <= flow.stream.matched and ack <= secondary.ack

    def _hold(self, flow: TcpFlow, frame: Frame, end: int, ack: int) -> None:
        ledger = self.ledger
        if ledger.mode == OBSERVE and not flow.secondary.placed and flow.guessed:
            # Picked up in mid-stream, its offsets unknown and no checkpoint to come: nothing to compare.
            self._send(flow, frame, end, ack, OBSERVED)
            return
        held = Held(flow, frame, None, ledger.now)
        if ledger.mode == OBSERVE:
            self._send(flow, frame, end, ack, OBSERVED)
            held.passed = True
        held.end = end
        held.ack = ack
        flow.enqueue(held)
        ledger.hold(held)
        if ack > flow.secondary.ack:
            self.mirror.lags(flow)

    def _pump(self, flow: TcpFlow) -> None:
        """Release what may go, in arrival order."""
        queue = flow.queue
        if queue is None:
            return
        ledger = self.ledger
        while queue:
            held = queue[0]
            if not self._may_go(flow, held.frame.flags, held.end, held.ack):
                if held.ack > flow.secondary.ack:
                    self.mirror.lags(flow)
                return
            queue.popleft()
            if held.done:
                continue
            wait = ledger.now - held.at
            self.mirror.lag += (wait - self.mirror.lag) * 0.125
            if held.passed:
                ledger.released(held, held.frame, MATCHED)
            else:
                ledger.released(held, self._outgoing(flow, held.frame, held.end, held.ack, True), MATCHED)
        flow.queue = None

    def _send(self, flow: TcpFlow, frame: Frame, end: int, ack: int, kind: str) -> None:
        self.ledger.send_client(self._outgoing(flow, frame, end, ack, kind == MATCHED), kind)

    def _outgoing(self, flow: TcpFlow, frame: Frame, end: int, ack: int, clamp: bool) -> Frame:
        """Turn a primary frame into what the client gets, and note what it has got then."""
        guest = flow.primary
        flags = frame.flags
        window = self._clamped_window(flow, frame, ack) if clamp and not flags & RST else frame.window
        tsval = frame.tsval
        if frame.tsval_at:
            tsval = (tsval + guest.ts_offset) & _MASK
            if flow.out_tsval < 0 or diff(tsval, flow.out_tsval) >= 0:
                flow.out_tsval = tsval
                if flow.monotonic and not flow.rewritten():
                    flow.monotonic = False  # one clock, and it has caught up
            elif flow.monotonic:
                tsval = flow.out_tsval
        if end > flow.released_end:
            flow.released_end = end
        if ack > flow.released_ack:
            flow.released_ack = ack
        if flow.ack_frame is not None and ack >= flow.secondary.ack:
            flow.ack_frame = None
        if flow.state == HALF_OPEN and not flags & (SYN | RST):
            self.table.established(flow)
        elif flags & RST and flow.state != CLOSED:
            flow.loose = None
            self.table.close(flow)
        if flow.in_flight is not None and not self.ledger.has_secondary():
            self.mirror.settle(flow)
        out = frame
        if guest.seq_offset or window != frame.window or tsval != frame.tsval:
            out = rewrite_tcp(
                frame, (frame.seq + guest.seq_offset) & _MASK, frame.ack, window, tsval, frame.tsecr, 0
            )
            if guest.seq_offset or tsval != frame.tsval:
                self.ledger.counters.rewritten += 1
        flow.clamped = None
        if window != frame.window and ack != NOWHERE and not flags & SYN:
            self.ledger.counters.clamped += 1
            flow.clamped = out
            flow.clamped_ack = ack
            flow.clamped_window = window
        return out

    def _clamped_window(self, flow: TcpFlow, frame: Frame, ack: int) -> int:
        """Give the window of a frame, never reaching beyond what the secondary offers (rule 2)."""
        secondary = flow.secondary
        shift = flow.shift if flow.shift > 0 and not frame.flags & SYN else 0
        room = secondary.window
        if flow.shift != UNKNOWN_SHIFT and ack != NOWHERE:
            room += secondary.ack - ack
        if frame.window << shift <= room:
            return frame.window
        return room >> shift if room > 0 else 0

    def _open_window(self, flow: TcpFlow) -> None:
        """Tell the client that a window is larger again which it knows clamped.

        The secondary's own update cannot go out, and the primary has no reason to send one: without this a
        window clamped to zero would wait for the client's persist timer.
        """
        clamped = flow.clamped
        if clamped is None or flow.queue is not None or not self.ledger.holding():
            return
        shift = flow.shift if flow.shift > 0 else 0
        primary = flow.primary
        secondary = flow.secondary
        edge = primary.ack + primary.window
        if secondary.ack + secondary.window < edge:
            edge = secondary.ack + secondary.window
        window = (edge - flow.clamped_ack) >> shift
        full = (primary.ack + primary.window - flow.clamped_ack) >> shift
        gain = (window - flow.clamped_window) << shift
        if gain <= 0 or (gain < _WORTH_AN_UPDATE and window < full and flow.clamped_window << shift > gain):
            return
        window = min(window, 0xFFFF)
        self.ledger.counters.window_updates += 1
        self.ledger.send_own(pure_ack(clamped, wrap(flow.released_end), wrap(flow.clamped_ack), window))
        flow.clamped_window = window
        if window >= full:
            flow.clamped = None

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
        for flow in list(self.ahead):
            stream = flow.stream.secondary
            if stream is None and flow.loose is None:
                del self.ahead[flow]
            elif not flow.blocked and (
                (stream is not None and stream.segments[0].seen <= limit)
                or (flow.loose is not None and flow.loose_since <= limit)
            ):
                self.ledger.counters.secondary[S_AGED_OUT] += flow.drop_secondary_output()
                del self.ahead[flow]

    def promote(self) -> tuple[list[Frame], int, int]:
        """Let the secondary's end of every flow be the primary's.

        Gives its frames that nobody has seen, ready for the client, and how many flows live on, and how many
        of these keep a rewriter.
        """
        flushed: list[Frame] = []
        rewritten = 0
        for flow in self.table.flows.values():
            if flow.generation != self.ledger.generation:
                flow.catch_up(self.ledger.generation)
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
            self._begin_stream(flow, frame)
            guest.syn = None
        ack = flow.place_ack(frame) if frame.flags & ACK else NOWHERE
        return self._outgoing(flow, frame, guest.end, ack, False)

    def let_go(self, flow: TcpFlow, held: Held, kind: str) -> None:
        """Release a held frame uncompared: a checkpoint covers it, or there is nobody to compare with."""
        flow.queue = None
        flow.blocked = False
        self.ledger.released(held, self._outgoing(flow, held.frame, held.end, held.ack, False), kind)

    def lose_secondary(self) -> None:
        """Forget everything about the secondary."""
        self.mirror.forget()
        self.ahead = {}
        for flow in self.table.flows.values():
            flow.catch_up(self.ledger.generation)
            flow.secondary = Guest()
            flow.waiting = None
            flow.short_ack = None

    def realign(self) -> None:
        """After a commit that copied nothing: every flow goes on from where its primary is."""
        for flow in self.table.flows.values():
            flow.realign()
