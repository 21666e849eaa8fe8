"""Client data on its way to the secondary: translated, and mirrored again where it got lost.

The client repeats only what the *primary's* acknowledgement leaves out, and that is held until the secondary
has acknowledged as much (rule 2). So a frame that only the secondary lost would stall the connection for the
client's retransmission time-out. The proxy has seen the data; it repeats them itself.
"""

import math
from typing import Final

from mypy_extensions import i64

from colo_compare.core.counters import C_BLOCKED
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import OBSERVE
from colo_compare.core.stream import NOWHERE
from colo_compare.core.tcp_flow import ClientSegment, Guest, InFlight, TcpFlow
from colo_compare.wire.frame import ACK, Frame
from colo_compare.wire.rewrite import rewrite_tcp
from colo_compare.wire.seq import diff, wrap

_BURST: Final = 32  # segments mirrored again at once: about one initial window of a fast sender
_WAITING: Final = 64  # client frames kept for a secondary whose handshake is not seen yet
_MAX_BACKOFF: Final = 5  # doublings of the retry interval


def translate_to_guest(ledger: Ledger, guest: Guest, frame: Frame, ack: i64) -> Frame:
    """Turn a client frame into one that this guest's own numbers fit: ack, SACK blocks and TSecr.

    `ack` is the position to acknowledge. Until a guest has said more than its SYN, the echo is the newest
    that it has sent: a listener in SYN_RECV rejects one that it did not send itself (Linux: TSEcrRejected),
    and the offset of the clocks is not exact, as each guest repeats its SYN-ACK at a time of its own.
    """
    if not frame.flags & ACK:
        return frame
    seq_offset = guest.seq_offset
    tsecr = frame.tsecr
    if tsecr:
        tsecr = (tsecr - guest.ts_offset) & 0xFFFFFFFF
        inexact = guest.ts_offset != 0 or diff(tsecr, guest.tsval) > 0
        if not guest.settled and guest.tsval >= 0 and inexact:
            tsecr = guest.tsval
    new_ack = (wrap(ack) - seq_offset) & 0xFFFFFFFF
    if new_ack == frame.ack and tsecr == frame.tsecr and seq_offset == 0:
        return frame
    ledger.counters.rewritten += 1
    return rewrite_tcp(frame, frame.seq, new_ack, frame.window, frame.tsval, tsecr, -seq_offset)


class Mirror:
    """Sends client segments of all flows to the secondary, and again when it has not acknowledged them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.in_flight: dict[TcpFlow, None] = {}  # flows with client data that a guest has not acknowledged
        self.lagging: dict[TcpFlow, None] = {}  # of these, flows whose primary is held for it
        self.retry_due = math.inf  # when retry has something to do, or earlier
        self.lag = 0.0  # how long the secondary usually takes, seconds, smoothed

    def send(self, flow: TcpFlow, frame: Frame, ack: i64) -> None:
        """Mirror one client frame, now or when the secondary's numbers are known."""
        secondary = flow.secondary
        if secondary.placed or not frame.flags & ACK:
            if self.ledger.mode == OBSERVE and secondary.placed and ack > secondary.end != NOWHERE:
                # Only the primary was there first; a guest drops what acknowledges more than it has sent.
                flow.short_ack = frame
                ack = secondary.end
            self.ledger.send_secondary(translate_to_guest(self.ledger, secondary, frame, ack))
        elif flow.guessed:
            # Of a connection that nobody knows the numbers of. A guest that has it answers with a challenge
            # acknowledgement (RFC 5961, section 5), one that has not with a reset, as the other one does.
            self.ledger.send_secondary(frame)
        elif flow.waiting is None:
            flow.waiting = [frame]
        elif len(flow.waiting) < _WAITING:
            flow.waiting.append(frame)
        else:
            self.ledger.counters.client_discarded[C_BLOCKED] += 1

    def keep(self, flow: TcpFlow, start: i64, end: i64, frame: Frame) -> None:
        """Remember a client segment until both guests have acknowledged it."""
        kept = flow.in_flight
        if kept is None:
            kept = flow.in_flight = InFlight()
            self.in_flight[flow] = None
        if kept.bytes < self.ledger.settings.max_flow_bytes:
            kept.segments.append(ClientSegment(start, end, frame))
            kept.bytes += len(frame.data)

    def settle(self, flow: TcpFlow) -> None:
        """Forget segments that both guests have acknowledged."""
        kept = flow.in_flight
        if kept is None:
            return
        segments = kept.segments
        ack = flow.primary.ack if flow.primary.ack < flow.secondary.ack else flow.secondary.ack
        while segments and segments[0].end <= ack:
            kept.bytes -= len(segments.popleft().frame.data)
        if not segments:
            flow.in_flight = None
            self.in_flight.pop(flow, None)
        if self.lagging and (flow.in_flight is None or flow.primary.ack <= flow.secondary.ack):
            self.lagging.pop(flow, None)  # the next waiting has a time of its own

    def place(self, flow: TcpFlow) -> None:
        """Send what waited for the secondary's numbers."""
        waiting = flow.waiting
        if waiting is not None:
            flow.waiting = None
            for frame in waiting:
                self.send(flow, frame, self._ack_of(flow, frame))

    def say_again(self, flow: TcpFlow, frame: Frame) -> None:
        """Repeat an acknowledgement that had to be cut, now that the secondary has sent more."""
        flow.short_ack = None
        self.send(flow, frame, self._ack_of(flow, frame))

    def _ack_of(self, flow: TcpFlow, frame: Frame) -> i64:
        near = flow.stream.matched
        return frame.ack if near == NOWHERE else near + diff(frame.ack, near)

    # What the secondary has not acknowledged

    def lags(self, flow: TcpFlow) -> None:
        """Note that the primary's next frame waits for an acknowledgement of the secondary."""
        kept = flow.in_flight
        if kept is not None and flow not in self.lagging:
            kept.retries = 0
            kept.retry_at = self.ledger.now + max(self.ledger.settings.mirror_retry, 4 * self.lag)
            self.lagging[flow] = None
            if kept.retry_at < self.retry_due:
                self.retry_due = kept.retry_at

    def lost(self, flow: TcpFlow) -> None:
        """Take the secondary's word (a SACK block, RFC 2018) that a segment is missing, and repeat it."""
        kept = flow.in_flight
        if kept is not None and kept.retries == 0 and flow in self.lagging:
            self._repeat(flow, kept, self.ledger.now)

    def retry(self) -> None:
        """Repeat what has been waited for long enough."""
        now = self.ledger.now
        self.retry_due = math.inf
        for flow in list(self.lagging):
            kept = flow.in_flight
            if flow.holds_nothing() or kept is None or flow.primary.ack <= flow.secondary.ack:
                del self.lagging[flow]
                continue
            if kept.retry_at <= now:
                self._repeat(flow, kept, now)
            self.retry_due = min(self.retry_due, kept.retry_at)

    def _repeat(self, flow: TcpFlow, kept: InFlight, now: float) -> None:
        backoff = kept.retries if kept.retries < _MAX_BACKOFF else _MAX_BACKOFF
        kept.retries += 1
        kept.retry_at = now + max(self.ledger.settings.mirror_retry, 4 * self.lag) * (2 << backoff)
        self._send_from(flow, kept, flow.secondary.ack, flow.primary.ack)

    def resend_unacknowledged(self) -> None:
        """After a commit: mirror what the primary's covered frames do not acknowledge (rule 7).

        The old secondary may have consumed it, and the new one never saw it.
        """
        for flow in list(self.in_flight):
            flow.catch_up(self.ledger.generation)
            flow.waiting = None
            self.settle(flow)
            kept = flow.in_flight
            if kept is not None:
                self._send_from(flow, kept, flow.primary.ack, -NOWHERE)

    def _send_from(self, flow: TcpFlow, kept: InFlight, start: i64, end: i64) -> None:
        sent = 0
        for segment in kept.segments:
            if segment.end <= start:
                continue
            if segment.start >= end or sent >= _BURST:
                break
            frame = segment.frame
            if flow.secondary.placed or not frame.flags & ACK:
                ack = self._ack_of(flow, frame)
                self.ledger.send_secondary(translate_to_guest(self.ledger, flow.secondary, frame, ack))
                self.ledger.counters.mirrored_again += 1
                sent += 1

    def drop(self, flow: TcpFlow) -> None:
        """Keep nothing of a flow that is over."""
        flow.in_flight = None
        self.in_flight.pop(flow, None)
        self.lagging.pop(flow, None)

    def forget(self) -> None:
        """Keep nothing: there is no secondary."""
        for flow in self.in_flight:
            flow.in_flight = None
            flow.waiting = None
        self.in_flight = {}
        self.lagging = {}
        self.retry_due = math.inf
