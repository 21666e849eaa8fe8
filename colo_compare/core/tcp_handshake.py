"""The beginning of a TCP connection: two handshakes side by side, and the offsets that they give."""

from typing import Final

from colo_compare.core.actions import Evidence
from colo_compare.core.counters import HANDSHAKE, SIGNED
from colo_compare.core.ledger import Ledger
from colo_compare.core.mirror import Mirror
from colo_compare.core.settings import OBSERVE
from colo_compare.core.stream import StreamComparer
from colo_compare.core.tcp_flow import TcpFlow
from colo_compare.wire.frame import ACK, Frame
from colo_compare.wire.handshake import handshake_options

_MASK: Final = 0xFFFFFFFF


def begin_stream(ledger: Ledger, flow: TcpFlow, frame: Frame) -> None:
    """Take the primary's SYN: from here its stream is counted."""
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
    if not ledger.settings.rewrite:
        flow.secondary.placed = True


def pair(ledger: Ledger, mirror: Mirror, flow: TcpFlow) -> None:
    """Put the two handshakes side by side: they give the offsets, or show that there can be none."""
    ours = flow.primary.syn
    theirs = flow.secondary.syn
    if ours is None or theirs is None or flow.blocked:
        return
    primary = flow.primary
    secondary = flow.secondary
    if not handshake_options(ours).agree(handshake_options(theirs)):
        _differ(ledger, flow, HANDSHAKE, ours, theirs)
        return
    if ledger.settings.rewrite:
        if ours.unrewritable or theirs.unrewritable:
            _differ(ledger, flow, SIGNED, ours, theirs)
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
        flow.ack_of(theirs),
        theirs.window,
    )
    flow.stream.skip_to(flow.isn + 1)
    if theirs.end > theirs.payload:
        flow.stream.offer(False, flow.isn + 1, theirs.data, theirs.payload, theirs.end, theirs, ledger.now)
    mirror.place(flow)


def _differ(ledger: Ledger, flow: TcpFlow, reason: str, ours: Frame, theirs: Frame) -> None:
    flow.blocked = True
    ledger.diverged(
        flow.key,
        reason,
        0,
        ours.data[ours.l4 : ours.payload][:64],
        theirs.data[theirs.l4 : theirs.payload][:64],
        Evidence(ours.data, ours.l4, -1.0),
        Evidence(theirs.data, theirs.l4, -1.0),
    )
    if ledger.mode == OBSERVE:
        flow.realign()
