"""TCP from the client: noted, translated for each guest, and kept until both have acknowledged it."""

from mypy_extensions import i64

from colo_compare.core.counters import C_BLOCKED, C_TABLE_FULL, TABLE_FULL
from colo_compare.core.flow_table import FlowTable
from colo_compare.core.holes import report_hole
from colo_compare.core.ledger import Ledger
from colo_compare.core.mirror import Mirror, translate_to_guest
from colo_compare.core.stream import NOWHERE
from colo_compare.core.tcp_flow import HALF_OPEN, TcpFlow
from colo_compare.core.tcp_release import TcpRelease
from colo_compare.wire.checksum import TCP_PROTOCOL
from colo_compare.wire.frame import ACK, FIN, RST, SYN, Frame
from colo_compare.wire.handshake import handshake_options
from colo_compare.wire.icmp import quoted_transport
from colo_compare.wire.rewrite import shift_embedded_tcp
from colo_compare.wire.seq import unwrap


class TcpClient:
    """The client's half of all TCP flows."""

    def __init__(self, ledger: Ledger, table: FlowTable, mirror: Mirror, release: TcpRelease) -> None:
        self.ledger = ledger
        self.table = table
        self.mirror = mirror
        self.release = release

    def from_client(self, frame: Frame) -> None:
        """Take a frame of the client: note what it says, translate it, give it to both guests."""
        flow = self.table.find(frame)
        if flow is None:
            flow = self._open_from_client(frame)
            if flow is None:
                return
        flags = frame.flags
        if flow.cut and not flags & SYN:
            self.ledger.counters.client_discarded[C_BLOCKED] += 1
            return
        heard = not flow.alone
        if flags & SYN:
            before = flow.client_syn
            # It may begin the next connection of these ports, which both guests will have.
            heard = heard or (not flags & ACK and (before is None or before.seq != frame.seq))
            self._client_syn(flow, frame)
        start = unwrap(frame.seq, flow.client_end if flow.client_end != NOWHERE else frame.seq)
        # Exactly there, or the guests do not believe it either (RFC 5961, section 3.2).
        flow.client_reset = flags & RST != 0 and start == flow.client_end
        end = start + frame.end - frame.payload
        if flags & (SYN | FIN):
            end += 1
            if flags & FIN:
                flow.client_fin = end - 1
        in_order = not flags & SYN or flow.client_end == NOWHERE or flow.state == HALF_OPEN
        # No window reaches further than 2^30 (RFC 7323, section 2.3): what claims to is no part of it.
        in_reach = flow.primary.ack == NOWHERE or end - flow.primary.ack <= 1 << 30
        if in_order and in_reach and end > flow.client_end:
            flow.client_end = end
        ack: i64 = NOWHERE
        if flags & ACK:  # in one expression with an else it would be made a Python number
            ack = self._client_ack(flow, frame)
        self.ledger.send_primary(translate_to_guest(self.ledger, flow.primary, frame, ack))
        if heard and self.ledger.has_secondary():
            self.mirror.send(flow, frame, ack)
            if flow.stream.secondary is not None:
                report_hole(self.ledger, flow)
            if end > start and in_order:
                self.mirror.keep(flow, start, end, frame)
        if flags & RST:
            self.mirror.drop(flow)
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
            pick_up(self.ledger, flow)
        return flow

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

    def _client_ack(self, flow: TcpFlow, frame: Frame) -> i64:
        near = flow.stream.matched
        ack = frame.ack if near == NOWHERE else unwrap(frame.ack, near)
        if ack >= flow.client_ack:
            flow.client_ack = ack
            flow.client_window = frame.window
            flow.client_tsval = frame.tsval
        if flow.guessed and near != NOWHERE and near < ack <= flow.primary.end:
            # Picked up in mid-stream: what the client acknowledges had gone out before.
            flow.stream.skip_to(ack)
            self.release.pump(flow)
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
        if protocol == TCP_PROTOCOL and transport + 8 <= frame.end:
            addresses = frame.payload + (12 if frame.version == 4 else 8)
            width = 8 if frame.version == 4 else 32
            data = frame.data
            vlans = frame.key[width + 4 : -1]
            flow = self.table.find_key(
                data[addresses : addresses + width] + data[transport : transport + 4] + vlans
            )
            if flow is not None:
                primary = shift_embedded_tcp(frame, -flow.primary.seq_offset)
                secondary = shift_embedded_tcp(frame, -flow.secondary.seq_offset)
        ledger.send_primary(primary)
        if ledger.has_secondary():
            ledger.send_secondary(secondary)


def pick_up(ledger: Ledger, flow: TcpFlow) -> None:
    """Begin a flow in mid-stream. Equal guests need no offset; others need a checkpoint first."""
    flow.alone = ledger.newcomer
    flow.guessed = True
    flow.primary.placed = True
    flow.secondary.placed = ledger.known_equal or not ledger.settings.rewrite
