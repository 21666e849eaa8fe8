"""When a primary frame of a TCP flow goes, and what it looks like then (rule 2).

A frame goes when
- everything in it (SYN, payload, FIN) lies below the position up to which both streams agree,
- the secondary has acknowledged as much client data as it does,
- and no frame of its flow waits before it.
A RST goes when the secondary has sent one too. The client sees the client-space numbers of a promoted guest,
and never a window larger than the secondary's.
"""

import math
from typing import Final

from mypy_extensions import i64

from colo_compare.core.counters import MATCHED, OBSERVED, PAYLOAD, RESET, STREAM_END
from colo_compare.core.flow_table import FlowTable
from colo_compare.core.hold import Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.mirror import Mirror
from colo_compare.core.settings import OBSERVE
from colo_compare.core.stream import NOWHERE
from colo_compare.core.tcp_flow import CLOSED, HALF_OPEN, UNKNOWN_SHIFT, Clamp, TcpFlow
from colo_compare.wire.frame import FIN, RST, SYN, Frame
from colo_compare.wire.rewrite import pure_ack, rewrite_tcp
from colo_compare.wire.seq import diff, wrap
from colo_compare.wire.split import can_split, split_tcp

_MASK: Final = 0xFFFFFFFF
_PART_DELAY: Final = 0.002  # seconds that a frame whose first part is matched waits for the rest
_WORTH_AN_UPDATE: Final = 2920  # bytes that a window must grow by for an ACK of our own: two segments


class TcpRelease:
    """Holds and releases the primary's frames of all TCP flows."""

    def __init__(self, ledger: Ledger, table: FlowTable, mirror: Mirror) -> None:
        self.ledger = ledger
        self.table = table
        self.mirror = mirror
        self._parts: dict[
            TcpFlow, float
        ] = {}  # flows with a frame of which a part is matched, and since when
        self.parts_due = math.inf  # when release_parts has something to do, or earlier

    def settle(self, flow: TcpFlow) -> None:
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
            elif (matched == secondary.fin and secondary.placed and stream.goes_on(True)) or (
                matched == primary.fin and stream.goes_on(False)
            ):
                # A byte where the other one ends. That a number lies beyond that place says nothing: it
                # may be that of an acknowledgement behind a FIN which was lost on its way here.
                reason = STREAM_END
        gave_up = secondary.reset and secondary.placed and secondary.end <= stream.matched
        if not reason and gave_up and not primary.reset and primary.end > stream.matched:
            reason = RESET
        if reason:
            flow.blocked = True
            position = stream.matched if stream.mismatch == NOWHERE else stream.mismatch
            offset = position - flow.isn - 1 if flow.isn != NOWHERE else 0
            self.ledger.diverged(
                flow.key,
                reason,
                offset,
                stream.excerpt(True),
                stream.excerpt(False),
                stream.evidence(True),
                stream.evidence(False),
            )
            if self.ledger.mode == OBSERVE:
                # Nothing will make the two equal: count it, and compare what follows.
                self.give_up(flow)

    def may_go(self, flow: TcpFlow, frame: Frame, end: i64, ack: i64) -> bool:
        """Whether the secondary stands behind everything that a frame says."""
        if flow.blocked or not (self.ledger.protected or self.ledger.mode == OBSERVE):
            return False
        if frame.flags & RST:
            return flow.secondary.reset
        secondary = flow.secondary
        if not secondary.placed or ack > secondary.ack:
            return False
        if frame.end == frame.payload and not frame.flags & (SYN | FIN):
            return True  # it occupies nothing, and a client takes it at any number of its window
        if flow.guessed and end - (frame.end - frame.payload) < flow.base and end > flow.client_ack:
            return False
        return end <= flow.stream.matched or self._agrees(flow, frame, end)

    def _agrees(self, flow: TcpFlow, frame: Frame, end: i64) -> bool:
        """Whether the secondary has said all of a frame that lies beyond a hole in the primary's stream."""
        stream = flow.stream
        if frame.flags & SYN:
            return False
        if frame.flags & FIN:
            end -= 1
            if flow.secondary.fin != end:
                return False
        return stream.agrees(end)

    def hold(self, flow: TcpFlow, frame: Frame, end: i64, ack: i64, lone_ack: bool) -> None:
        """Keep a frame until the secondary has said the same; in observe mode let it pass, and compare."""
        ledger = self.ledger
        if ledger.mode == OBSERVE and not flow.secondary.placed and flow.isn == NOWHERE:
            # Picked up in mid-stream, its offsets unknown and no checkpoint to come: nothing to compare.
            self.send(flow, frame, end, ack, OBSERVED)
            return
        held = Held(flow, frame, None, ledger.now)
        if ledger.mode == OBSERVE:
            self.send(flow, frame, end, ack, OBSERVED)
            held.passed = True
        held.end = end
        held.ack = ack
        flow.enqueue(held, lone_ack)
        ledger.hold(held)
        if ack > flow.secondary.ack:
            self.mirror.lags(flow)
        elif flow.queue is held:
            self._watch(flow, held)

    def pump(self, flow: TcpFlow) -> None:
        """Release what may go: payload in arrival order, and lone acknowledgements in theirs."""
        while not flow.holds_nothing():
            first = flow.first_in_queue()
            second = flow.first_ack()
            if first is None or (second is not None and second.number < first.number):
                first, second = second, first
            if first is not None and self._goes(flow, first):
                continue
            if second is None or not self._goes(flow, second):
                return

    def _goes(self, flow: TcpFlow, held: Held) -> bool:
        """Release the first frame of one of a flow's queues if it may go."""
        if not self.may_go(flow, held.frame, held.end, held.ack):
            if held.ack > flow.secondary.ack:
                self.mirror.lags(flow)
            else:
                self._watch(flow, held)
            return False
        self.let_out(flow, held)
        return True

    def let_out(self, flow: TcpFlow, held: Held) -> None:
        """Release the first frame of one of a flow's queues."""
        flow.take_first(held)
        ledger = self.ledger
        wait = ledger.now - held.at
        self.mirror.lag += (wait - self.mirror.lag) * 0.125
        if held.passed:
            ledger.released(held, held.frame, MATCHED)
        else:
            ledger.released(held, self.outgoing(flow, held.frame, held.end, held.ack, True), MATCHED)

    # Frames of which a part is matched

    def _watch(self, flow: TcpFlow, held: Held) -> None:
        """Note that the first part of the frame that waits longest has been matched, if so."""
        if flow not in self._parts and not held.passed and self._matched_part(flow, held) > 0:
            due = self.ledger.now + _PART_DELAY
            self._parts[flow] = due
            if due < self.parts_due:
                self.parts_due = due

    def _matched_part(self, flow: TcpFlow, held: Held) -> i64:
        """Give how many bytes at the beginning of a frame could go without the rest."""
        frame = held.frame
        length = frame.end - frame.payload
        start = held.end - length - (1 if frame.flags & FIN else 0)
        matched = flow.stream.matched - start
        if flow.blocked or flow.guessed or not 0 < matched < length or not can_split(frame):
            return 0
        return matched if self.may_go(flow, frame, start + matched, held.ack) else 0

    def release_parts(self) -> None:
        """Release the matched first parts of frames whose rest has not been matched for a while.

        Rule 1 is about bytes. A secondary whose congestion window is the smaller one says no more until the
        client has acknowledged what it said, and that may end in the middle of a frame: a GSO frame of the
        primary is up to 64 KiB long. Not at once, as a rule the rest is on its way, and two frames cost more.
        """
        now = self.ledger.now
        if now < self.parts_due:
            return
        self.parts_due = math.inf
        for flow, due in list(self._parts.items()):
            if due > now:
                self.parts_due = min(self.parts_due, due)
                continue
            del self._parts[flow]
            held = flow.queue
            if held is not None and not held.done:
                self._release_part(flow, held)

    def _release_part(self, flow: TcpFlow, held: Held) -> None:
        length = self._matched_part(flow, held)
        if length > 0:
            first, rest = split_tcp(held.frame, length)
            end = flow.stream.matched
            self.ledger.counters.split += 1
            self.ledger.holds.shrink(held, rest)
            self.ledger.send_own(self.outgoing(flow, first, end, held.ack, True))

    # A dead primary

    def release_said(self, flow: TcpFlow) -> None:
        """Release, of a dead primary's frames, what waits only for an acknowledgement of the secondary.

        They acknowledge what the secondary has, which says the rest when it has got more. Its own copy of the
        payload was compared, and is gone: without this the client would wait for its retransmission time-out.
        """
        acked = flow.secondary.ack
        if flow.blocked or flow.guessed or not flow.secondary.placed or acked == NOWHERE:
            return
        held = flow.first_in_queue()
        while held is not None and held.end <= flow.stream.matched and not held.frame.flags & (SYN | RST):
            _lower(held, acked)
            self.let_out(flow, held)
            held = flow.first_in_queue()
        if held is not None:
            _lower(held, acked)
            self._release_part(flow, held)

    def give_up(self, flow: TcpFlow) -> None:
        """In observe mode, go on comparing from where the primary is."""
        for held in flow.take_held():
            self.ledger.released(held, held.frame, OBSERVED)
        flow.realign()

    def send(self, flow: TcpFlow, frame: Frame, end: i64, ack: i64, kind: str) -> None:
        """Release a frame that was never held."""
        self.ledger.send_client(self.outgoing(flow, frame, end, ack, kind == MATCHED), kind)

    def outgoing(self, flow: TcpFlow, frame: Frame, end: i64, ack: i64, clamp: bool) -> Frame:
        """Turn a primary frame into what the client gets, and note what it has got then."""
        guest = flow.primary
        flags = frame.flags
        window = self._clamped_window(flow, frame, ack) if clamp and not flags & RST else frame.window
        tsval = frame.tsval
        if frame.tsval_at:
            tsval = (tsval + guest.ts_offset) & _MASK
            if flow.out_tsval < 0 or diff(tsval, flow.out_tsval) >= 0:
                flow.out_tsval = tsval
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
            flow.clamped = Clamp(out, ack, window)
        return out

    def _clamped_window(self, flow: TcpFlow, frame: Frame, ack: i64) -> i64:
        """Give the window of a frame, never reaching beyond what the secondary offers (rule 2)."""
        secondary = flow.secondary
        shift = flow.shift if flow.shift > 0 and not frame.flags & SYN else 0
        room = secondary.window
        if flow.shift != UNKNOWN_SHIFT and ack != NOWHERE:
            room += secondary.ack - ack
        if frame.window << shift <= room:
            return frame.window
        return room >> shift if room > 0 else 0

    def open_window(self, flow: TcpFlow) -> None:
        """Tell the client that a window is larger again which it knows clamped.

        The secondary's own update cannot go out, and the primary has no reason to send one: without this a
        window clamped to zero would wait for the client's persist timer.
        """
        clamped = flow.clamped
        if clamped is None or not flow.holds_nothing():
            return
        shift = flow.shift if flow.shift > 0 else 0
        # A window of unknown scale cannot be added to a position. Both guests have acknowledged this much, so
        # the smaller window, counted from there, reaches beyond neither edge.
        known = flow.shift != UNKNOWN_SHIFT
        primary = flow.primary
        secondary = flow.secondary
        room = primary.window + (primary.ack - clamped.ack if known else 0)
        full = room >> shift
        if self.ledger.has_secondary():
            room = min(room, secondary.window + (secondary.ack - clamped.ack if known else 0))
        window = room >> shift
        gain = (window - clamped.window) << shift
        if gain <= 0 or (gain < _WORTH_AN_UPDATE and window < full and clamped.window << shift > gain):
            return
        window = min(window, 0xFFFF)
        self.ledger.counters.window_updates += 1
        self.ledger.send_own(pure_ack(clamped.frame, wrap(flow.released_end), wrap(clamped.ack), window))
        clamped.window = window
        if window >= full:
            flow.clamped = None


def _lower(held: Held, acked: i64) -> None:
    """Let a frame acknowledge no more than that."""
    if held.ack > acked:
        frame = held.frame
        held.ack = acked
        held.frame = rewrite_tcp(frame, frame.seq, wrap(acked), frame.window, frame.tsval, frame.tsecr, 0)
