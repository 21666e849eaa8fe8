"""Which part of the core a frame belongs to, by its kind (rules 3 and 4)."""

from typing import Final

from colo_compare.core.counters import (
    CLIENT_RESET,
    NOT_COMPARED,
    OBSERVED,
    S_NOT_COMPARED,
    S_UNPROTECTED,
    UNPROTECTED,
    UNREWRITABLE,
    UNUSABLE,
)
from colo_compare.core.datagrams import DatagramComparer, DatagramFlow
from colo_compare.core.fragments import Reassembly
from colo_compare.core.hold import Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.neighbours import Neighbours
from colo_compare.core.settings import OBSERVE
from colo_compare.core.tcp import TcpComparer
from colo_compare.core.tcp_flow import TcpFlow
from colo_compare.wire.checksum import TCP_PROTOCOL
from colo_compare.wire.frame import (
    BAD_IP_HEADER,
    BAD_TRANSPORT_HEADER,
    BAD_VNET_HEADER,
    FRAGMENT,
    ICMP,
    OPAQUE,
    OTHER_IP,
    TCP,
    TRUNCATED,
    Frame,
)
from colo_compare.wire.icmp import is_icmp_error

_IGMP: Final = 2


class Dispatch:
    """Sends each frame to the comparer that understands it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.tcp = TcpComparer(ledger)
        self.datagrams = DatagramComparer(ledger)
        self.fragments = Reassembly(ledger, True)
        self.secondary_fragments = Reassembly(ledger, False)
        self.neighbours = Neighbours()
        self.rewriting = False  # some flows of a promoted guest keep their rewriter

    def from_client(self, frame: Frame) -> None:
        """Mirror a client frame to the guests."""
        ledger = self.ledger
        if not ledger.settings.mirror:
            return
        if frame.kind == TCP:
            self.tcp.client.from_client(frame)
        elif frame.kind == ICMP and is_icmp_error(frame):
            self.tcp.client.quoted_by_client(frame)
        elif frame.reason != BAD_VNET_HEADER:
            if frame.kind == OPAQUE:
                self.neighbours.learn_client(frame)
            ledger.send_primary(frame)
            if ledger.has_secondary():
                ledger.send_secondary(frame)

    def from_primary(self, frame: Frame) -> None:
        """Release or hold a frame of the primary."""
        ledger = self.ledger
        kind = frame.kind
        if kind == TCP:
            self.tcp.from_primary(frame)
        elif kind == FRAGMENT:
            self._primary_fragment(frame)
        elif kind == OPAQUE and frame.reason == BAD_VNET_HEADER:
            ledger.counters.discarded[UNUSABLE] += 1
        elif is_compared(frame):
            self.datagrams.from_primary(frame, frame, None, False)
        else:
            self.neighbours.learn_guest(frame)
            ledger.send_client(frame, NOT_COMPARED)

    def _primary_fragment(self, frame: Frame) -> None:
        ledger = self.ledger
        if frame.protocol == TCP_PROTOCOL and self.rewriting:
            # Its sequence number stands in one fragment and its checksum counts all of them. As it is, it
            # would put bytes into the wrong place of the client's stream.
            ledger.counters.discarded[UNREWRITABLE] += 1
        elif ledger.holding() or ledger.mode == OBSERVE:
            passed = ledger.mode == OBSERVE
            if passed:
                ledger.send_client(frame, OBSERVED)
            whole = self.fragments.add(frame)
            if whole is not None:
                self.datagrams.from_primary(whole.datagram, whole.frame, whole.more, passed)
        else:
            ledger.send_client(frame, UNPROTECTED)

    def from_secondary(self, frame: Frame) -> None:
        """Compare with a frame of the secondary."""
        ledger = self.ledger
        if not ledger.has_secondary():
            ledger.counters.secondary[S_UNPROTECTED] += 1
        elif frame.kind == TCP:
            self.tcp.from_secondary(frame)
        elif frame.kind == FRAGMENT:
            whole = self.secondary_fragments.add(frame)
            if whole is not None:
                self.datagrams.from_secondary(whole.datagram, whole.frame, whole.more)
        elif is_compared(frame):
            self.datagrams.from_secondary(frame, frame, None)
        else:
            ledger.counters.secondary[S_NOT_COMPARED] += 1
            self._answer(frame)

    def _answer(self, frame: Frame) -> None:
        ledger = self.ledger
        if ledger.settings.mirror:
            answer = self.neighbours.answer(frame)
            if answer is not None:
                ledger.counters.neighbour_answers += 1
                ledger.send_secondary(answer)

    def unmatched_frames(self) -> int:
        """Give the number of secondary frames that the primary has not matched yet."""
        tcp = sum([len(flow.unmatched_output()) for flow in self.tcp.ahead])
        datagrams = sum([flow.unmatched() for flow in self.datagrams.ahead])
        return tcp + datagrams + len(self.secondary_fragments.frames())

    def drop_reset(self, held: Held) -> bool:
        """Discard what waits in a connection that the client has reset; say whether it has.

        Each guest stops where the reset found it, so one may have said a frame more than the other ever will.
        """
        flow = held.flow
        if not isinstance(flow, TcpFlow) or not flow.client_reset:
            return False
        for each in flow.take_held():
            self.ledger.discard(each, CLIENT_RESET)
        self.tcp.table.evict(flow)
        return True

    def give_up(self, held: Held) -> None:
        """In observe mode, compare a flow no more up to here: what waits in it has gone out already."""
        flow = held.flow
        if isinstance(flow, TcpFlow):
            self.tcp.release.give_up(flow)
        else:
            assert isinstance(flow, DatagramFlow)  # no fragment is held in observe mode
            self.datagrams.realign_flow(flow)

    def let_go(self, held: Held, kind: str) -> None:
        """Release a held frame uncompared: a checkpoint covers it, or there is nobody to compare with."""
        flow = held.flow
        if isinstance(flow, TcpFlow):
            self.tcp.let_go(flow, held, kind)
        elif isinstance(flow, DatagramFlow):
            self.datagrams.let_go(flow, held, kind)
        else:
            self.ledger.released(held, held.frame, kind)


def is_compared(frame: Frame) -> bool:
    """Whether the secondary has to say the same as this frame (rule 4).

    IGMP is not, though it is IP: its reports come after a random delay (RFC 3376, section 5.2), as MLD's do.
    What claims to be IP and is not well-formed is compared whole.
    """
    if frame.kind == OPAQUE:
        return (
            frame.reason == TRUNCATED or frame.reason == BAD_IP_HEADER or frame.reason == BAD_TRANSPORT_HEADER
        )
    return not (frame.kind == OTHER_IP and frame.protocol == _IGMP)
