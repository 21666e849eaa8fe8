"""The one entry object of the core: what comes in goes where it belongs, and what follows is done in order.

The account of frames is the ledger's, the life of a checkpoint that of `Epochs`, and what counts as equal is
decided in `tcp` and `datagrams`. Here is what concerns all of them: modes, checkpoints, deaths, timers.
"""

from dataclasses import replace
from typing import Final

from colo_compare.core.actions import (
    Actions,
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointRequest,
    CheckpointRequested,
    ModeChanged,
    Promoted,
    SideLost,
)
from colo_compare.core.counters import (
    BACKEND,
    C_OVERFLOW,
    COVERED,
    FAILOVER,
    NOT_COMPARED,
    OBSERVED,
    PERIODIC,
    S_FLUSHED,
    S_NOT_COMPARED,
    S_UNPROTECTED,
    S_VOID,
    STARTUP,
    TABLE_FULL,
    UNPROTECTED,
    UNREWRITABLE,
    UNUSABLE,
    Counters,
)
from colo_compare.core.datagrams import DatagramComparer, DatagramFlow
from colo_compare.core.epochs import COMPARING, PAUSED, REQUESTED
from colo_compare.core.fragments import Reassembly
from colo_compare.core.hold import Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.neighbours import Neighbours
from colo_compare.core.settings import BLOCK, OBSERVE, PROTECT, SOLO, Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.core.tcp import TcpComparer
from colo_compare.core.tcp_flow import TcpFlow
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
_TCP_PROTOCOL: Final = 6
_AGE_INTERVAL: Final = 1.0  # seconds between two looks at what has grown old


class Proxy:
    """Frames and times in, actions out. Deterministic: it reads no clock and does no I/O.

    Times are seconds of one monotonic clock, never going back. After each call take the actions.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self._ledger = Ledger(settings, now)
        self._tcp = TcpComparer(self._ledger)
        self._datagrams = DatagramComparer(self._ledger)
        self._fragments = Reassembly(self._ledger, True)
        self._secondary_fragments = Reassembly(self._ledger, False)
        self._neighbours = Neighbours()
        self._client_waiting: list[Frame] = []  # client frames from the request to the commit
        self._client_waiting_bytes = 0
        self._primary_waiting: list[Frame] = []  # what the primary sent after it paused: of the next epoch
        self._primary_waiting_bytes = 0
        self._secondary_waiting: list[Frame] = []  # what the secondary sent from its new state
        self._next_age = now + _AGE_INTERVAL
        self._rewriting = False  # some flows of a promoted guest keep their rewriter

    # What it is

    @property
    def mode(self) -> str:
        """Protect, observe, solo, block or bypass."""
        return self._ledger.mode

    @property
    def epoch(self) -> int:
        """The epoch that runs; 0 before the first commit."""
        return self._ledger.epochs.number

    @property
    def checkpoint_state(self) -> str:
        """Comparing, requested or paused."""
        return self._ledger.epochs.state

    @property
    def protected(self) -> bool:
        """Mode protect, and a committed checkpoint since the pair began."""
        return self._ledger.mode == PROTECT and self._tcp.protected

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self._ledger.counters

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._ledger.settings

    @property
    def held_frames(self) -> int:
        """Primary frames that have been received, and neither released nor discarded."""
        if self._ledger.mode == OBSERVE:
            return 0
        return self._ledger.holds.frames + len(self._primary_waiting)

    @property
    def held_bytes(self) -> int:
        """The bytes of the held frames."""
        if self._ledger.mode == OBSERVE:
            return 0
        return self._ledger.holds.bytes + self._primary_waiting_bytes

    def oldest_held(self, now: float) -> float:
        """Give the age in seconds of the oldest held frame, 0 if there is none."""
        oldest = self._ledger.holds.oldest()
        return 0.0 if oldest is None or self._ledger.mode == OBSERVE else now - oldest.at

    def flows(self) -> dict[str, int]:
        """Give the number of flows by kind and state."""
        counts = self._tcp.table.counts()
        counts["datagram"] = len(self._datagrams.flows)
        return counts

    @property
    def client_waiting(self) -> int:
        """Client frames that wait for a checkpoint to be over."""
        return len(self._client_waiting)

    def wants(self, side: int) -> bool:
        """Say whether the shell should read this side's port now (back-pressure, rule 6)."""
        settings = self._ledger.settings
        if side == PRIMARY:
            return self.held_frames < settings.max_held_frames and self.held_bytes < settings.max_held_bytes
        if side == CLIENT:
            return (
                len(self._client_waiting) < settings.max_held_frames
                and self._client_waiting_bytes < settings.max_held_bytes
            )
        return True

    def take_actions(self) -> Actions:
        """Give what is to be done since the last call, and forget it."""
        return self._ledger.take()

    # Frames

    def start(self, now: float) -> None:
        """Begin: in protect mode this requests the first checkpoint (reason startup)."""
        self._ledger.now = now
        if self._ledger.mode == PROTECT:
            self._ledger.want_checkpoint(STARTUP, "")
            self._request_if_due()

    def receive(self, side: int, frames: list[Frame], now: float) -> None:
        """Take frames that one side sent, in the order in which its port gave them."""
        ledger = self._ledger
        ledger.now = now
        counters = ledger.counters
        counters.received[side] += len(frames)
        for frame in frames:
            counters.received_bytes[side] += len(frame.data)
            counters.kinds[frame.kind] += 1
            if frame.kind == OPAQUE:
                counters.opaque[frame.reason] += 1
        epochs = ledger.epochs
        if side == PRIMARY:
            for frame in frames:
                if epochs.state == PAUSED:
                    self._primary_waiting.append(frame)
                    self._primary_waiting_bytes += len(frame.data)
                else:
                    self._from_primary(frame)
        elif side == SECONDARY:
            for frame in frames:
                if epochs.state == PAUSED:
                    self._secondary_waiting.append(frame)
                else:
                    self._from_secondary(frame)
        else:
            for frame in frames:
                if epochs.state != COMPARING:
                    self._hold_client(frame)
                else:
                    self._from_client(frame)
        self._request_if_due()

    def _hold_client(self, frame: Frame) -> None:
        settings = self._ledger.settings
        limit = 2 * settings.max_held_bytes  # `wants` turned false at half of it
        if self._client_waiting_bytes >= limit or len(self._client_waiting) >= 2 * settings.max_held_frames:
            self._ledger.counters.client_discarded[C_OVERFLOW] += 1
            return
        self._client_waiting.append(frame)
        self._client_waiting_bytes += len(frame.data)

    def _from_client(self, frame: Frame) -> None:
        ledger = self._ledger
        if not ledger.settings.mirror:
            return
        if frame.kind == TCP:
            self._tcp.from_client(frame)
        elif frame.kind == ICMP and is_icmp_error(frame):
            self._tcp.quoted_by_client(frame)
        elif frame.reason != BAD_VNET_HEADER:
            ledger.send_primary(frame)
            if ledger.has_secondary():
                ledger.send_secondary(frame)

    def _from_primary(self, frame: Frame) -> None:
        ledger = self._ledger
        kind = frame.kind
        if kind == TCP:
            self._tcp.from_primary(frame)
        elif kind == FRAGMENT:
            self._primary_fragment(frame)
        elif kind == OPAQUE and frame.reason == BAD_VNET_HEADER:
            ledger.counters.discarded[UNUSABLE] += 1
        elif _is_compared(frame):
            self._datagrams.from_primary(frame, frame, None)
        else:
            self._neighbours.learn(frame)
            ledger.send_client(frame, NOT_COMPARED)

    def _primary_fragment(self, frame: Frame) -> None:
        ledger = self._ledger
        if frame.protocol == _TCP_PROTOCOL and self._rewriting:
            # Its sequence number stands in one fragment and its checksum counts all of them. As it is, it
            # would put bytes into the wrong place of the client's stream.
            ledger.counters.discarded[UNREWRITABLE] += 1
        elif ledger.holding() or ledger.mode == OBSERVE:
            whole = self._fragments.add(frame)
            if whole is not None:
                self._datagrams.from_primary(whole.datagram, whole.frame, whole.more)
        else:
            ledger.send_client(frame, UNPROTECTED)

    def _from_secondary(self, frame: Frame) -> None:
        ledger = self._ledger
        if not ledger.has_secondary():
            ledger.counters.secondary[S_UNPROTECTED] += 1
        elif frame.kind == TCP:
            self._tcp.from_secondary(frame)
        elif frame.kind == FRAGMENT:
            whole = self._secondary_fragments.add(frame)
            if whole is not None:
                self._datagrams.from_secondary(whole.datagram, whole.frame, whole.more)
        elif _is_compared(frame):
            self._datagrams.from_secondary(frame, frame, None)
        else:
            ledger.counters.secondary[S_NOT_COMPARED] += 1

    # Time

    def next_timer(self) -> float:
        """Give the time at which handle_timer must be called next, math.inf if none."""
        epochs = self._ledger.epochs
        due = min(epochs.timeout_at(), self._next_age, self._tcp.mirror.retry_due)
        if self._ledger.mode == PROTECT:
            due = min(due, epochs.due_at())
        if epochs.state == COMPARING and self._ledger.has_secondary():
            due = min(due, self._datagrams.next_check())
            oldest = self._ledger.holds.oldest()
            if oldest is not None and not oldest.late:
                due = min(due, oldest.at + self._ledger.settings.compare_timeout)
        return due

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`. Safe to call at any time."""
        ledger = self._ledger
        ledger.now = now
        epochs = ledger.epochs
        if epochs.timeout_at() <= now:
            limit = ledger.settings.checkpoint_timeout
            self._abort(f"no commit within {limit:g} s of the request", "timed_out", False)
        if epochs.state == COMPARING and ledger.has_secondary():
            self._check_age_of_held(now)
            self._datagrams.check()
        self._tcp.mirror.retry()
        if self._next_age <= now:
            self._next_age = now + _AGE_INTERVAL
            self._tcp.age()
            self._datagrams.age()
            self._secondary_fragments.age()
        self._request_if_due()

    def _check_age_of_held(self, now: float) -> None:
        ledger = self._ledger
        oldest = ledger.holds.oldest()
        while oldest is not None and not oldest.late and oldest.at + ledger.settings.compare_timeout <= now:
            ledger.overdue(oldest)
            if oldest.passed:
                # Observe mode: nobody waits for it, and nothing will make the two guests equal.
                self._let_go(oldest, OBSERVED)
                oldest = ledger.holds.oldest()

    # Checkpoints

    def _request_if_due(self) -> None:
        ledger = self._ledger
        epochs = ledger.epochs
        if ledger.mode != PROTECT or epochs.due_at() > ledger.now:
            return
        if not epochs.wanted:
            ledger.want_checkpoint(PERIODIC, "")
        self._begin()
        request = CheckpointRequest(epochs.number + 1, tuple(epochs.running), epochs.running_flow)
        ledger.request(request)
        ledger.tell(CheckpointRequested(ledger.now, request))

    def _begin(self) -> None:
        self._ledger.epochs.begin(self._ledger.now)
        if not self._ledger.settings.reports_pause:
            # Nobody will say when the primary stops: all that it sends from now on may belong to either
            # epoch, and waits for the commit, to be compared after it.
            self._ledger.epochs.pause()

    def request_checkpoint(self, reason: str, now: float) -> None:
        """Ask for a checkpoint (an operator, a periodic one, a backend that begins by itself)."""
        self._ledger.now = now
        self._ledger.want_checkpoint(reason, "")
        self._request_if_due()

    def begun(self, now: float) -> int:
        """Note that the backend started a checkpoint by itself; gives the epoch that it will begin."""
        ledger = self._ledger
        ledger.now = now
        if ledger.mode == PROTECT and ledger.epochs.state == COMPARING:
            ledger.want_checkpoint(BACKEND, "")
            self._begin()
        return ledger.epochs.number + 1

    def paused(self, epoch: int, now: float) -> None:
        """Note that the primary stopped. Everything that it sent before must have been received."""
        self._ledger.now = now
        if self._is_current(epoch) and self._ledger.epochs.state == REQUESTED:
            self._ledger.epochs.pause()

    def loaded(self, epoch: int, now: float) -> None:
        """Note that the secondary has the new state (if the backend can tell): what it sends from now on
        belongs to the new epoch. Everything that it sent before must have been received.
        """
        self._ledger.now = now
        if self._is_current(epoch):
            self._ledger.epochs.pause()
            self._ledger.epochs.loaded = True
            self._void_waiting()

    def _is_current(self, epoch: int) -> bool:
        epochs = self._ledger.epochs
        return self._ledger.mode == PROTECT and epochs.state != COMPARING and epoch == epochs.number + 1

    def _void_waiting(self) -> None:
        self._ledger.counters.secondary[S_VOID] += len(self._secondary_waiting)
        self._secondary_waiting = []

    def committed(self, epoch: int, now: float) -> None:
        """Note that the secondary runs from the new state: release, discard, align, next epoch."""
        self._ledger.now = now
        if self._is_current(epoch):
            self._commit()
            self._deliver_waiting()
            self._request_if_due()

    def _commit(self) -> None:
        ledger = self._ledger
        epochs = ledger.epochs
        if not epochs.loaded:
            self._void_waiting()  # of which state it came nobody knows
        before = ledger.counters.secondary[S_VOID]
        released = ledger.holds.frames
        for held in ledger.holds.entries():
            self._let_go(held, COVERED)
        self._fragments.clear()
        if ledger.settings.copies_state:
            void = (
                self._tcp.void_secondary()
                + self._datagrams.void_secondary()
                + self._secondary_fragments.clear()
            )
            ledger.counters.secondary[S_VOID] += void
            ledger.generation += 1
        else:
            self._tcp.realign()
            self._datagrams.void_secondary()
        ledger.known_equal = True
        self._tcp.protected = True
        self._datagrams.protected = True
        waited = ledger.now - epochs.requested_at
        reasons = tuple(epochs.running)
        epochs.commit(ledger.now)
        ledger.counters.checkpoints["committed"] += 1
        void = ledger.counters.secondary[S_VOID] - before
        ledger.tell(CheckpointCommitted(ledger.now, epochs.number, reasons, waited, released, void))
        if TABLE_FULL in reasons:
            self._tcp.table.make_room()
        if ledger.settings.copies_state:
            self._tcp.mirror.resend_unacknowledged()

    def _let_go(self, held: Held, kind: str) -> None:
        flow = held.flow
        if isinstance(flow, TcpFlow):
            self._tcp.let_go(flow, held, kind)
        elif isinstance(flow, DatagramFlow):
            self._datagrams.let_go(flow, held, kind)
        else:
            self._ledger.released(held, held.frame, kind)

    def _deliver_waiting(self) -> None:
        """Take what had to wait for the end of a checkpoint: guests first, the client's new frames last."""
        secondary = self._secondary_waiting
        primary = self._primary_waiting
        client = self._client_waiting
        self._secondary_waiting = []
        self._primary_waiting = []
        self._primary_waiting_bytes = 0
        self._client_waiting = []
        self._client_waiting_bytes = 0
        for frame in secondary:
            self._from_secondary(frame)
        for frame in primary:
            self._from_primary(frame)
        for frame in client:
            self._from_client(frame)

    def failed(self, epoch: int, detail: str, secondary_intact: bool, now: float) -> None:
        """Note that the checkpoint failed. A secondary that is not intact is lost."""
        self._ledger.now = now
        if self._is_current(epoch):
            self._abort(detail, "failed", secondary_intact)

    def _abort(self, detail: str, outcome: str, secondary_intact: bool) -> None:
        ledger = self._ledger
        epochs = ledger.epochs
        ledger.counters.checkpoints[outcome] += 1
        ledger.tell(CheckpointAborted(ledger.now, epochs.number + 1, detail))
        epochs.abort(ledger.now)
        if not secondary_intact or epochs.failures >= ledger.settings.max_failures:
            self._lose_secondary()
        else:
            self._deliver_waiting()

    # Deaths and modes

    def lose_secondary(self, now: float) -> None:
        """Note that the secondary is gone, fenced: release what is held (solo) or hold on (block)."""
        self._ledger.now = now
        if self._ledger.has_secondary():
            self._lose_secondary()

    def _lose_secondary(self) -> None:
        ledger = self._ledger
        ledger.counters.secondaries_lost += 1
        block = ledger.mode == PROTECT and ledger.settings.on_secondary_loss == BLOCK
        released = 0 if block else self.held_frames
        ledger.counters.secondary[S_UNPROTECTED] += len(self._secondary_waiting)
        self._secondary_waiting = []
        self._end_pair(BLOCK if block else SOLO, "the secondary is lost")
        ledger.tell(SideLost(ledger.now, SECONDARY, released, 0))

    def _end_pair(self, mode: str, why: str) -> None:
        """Go on without a comparison; what is held goes out, unless the new mode holds."""
        ledger = self._ledger
        old = ledger.mode
        ledger.epochs.forget()
        self._tcp.protected = False
        self._datagrams.protected = False
        ledger.known_equal = False
        ledger.mode = mode
        if not ledger.holding():
            for held in ledger.holds.entries():
                self._let_go(held, OBSERVED if mode == OBSERVE else UNPROTECTED)
            self._fragments.clear()
        self._tcp.lose_secondary()
        self._datagrams.lose_secondary()
        self._secondary_fragments.clear()
        if old != mode:
            ledger.tell(ModeChanged(ledger.now, old, mode, why))
        self._deliver_waiting()

    def promote(self, now: float) -> None:
        """Note that the primary is gone, fenced: discard what it left, and let the secondary take over.

        From the return of this call on, frames of that guest are received as PRIMARY.
        """
        ledger = self._ledger
        ledger.now = now
        epochs = ledger.epochs
        if epochs.state == PAUSED and epochs.loaded:
            # The new state is the only one that the secondary has: the commit happened, unheard.
            self._commit()
        discarded = ledger.discard_all() + len(self._primary_waiting)
        ledger.counters.discarded[FAILOVER] += len(self._primary_waiting)
        self._primary_waiting = []
        self._primary_waiting_bytes = 0
        self._fragments.clear()
        epochs.forget()
        for frame in self._secondary_waiting:
            self._from_secondary(frame)
        self._secondary_waiting = []
        flushed, flows, rewritten = self._tcp.promote()
        flushed += self._datagrams.promote()
        flushed += self._secondary_fragments.frames()
        self._secondary_fragments.clear()
        old = ledger.mode
        ledger.mode = SOLO
        self._tcp.protected = False
        self._datagrams.protected = False
        ledger.known_equal = False
        self._rewriting = rewritten > 0
        ledger.counters.promotions += 1
        ledger.counters.secondary[S_FLUSHED] += len(flushed)
        if ledger.settings.announce:
            for frame in self._neighbours.announcements():
                ledger.send_own(frame)
        for frame in flushed:
            ledger.send_own(frame)
        ledger.tell(Promoted(now, discarded, len(flushed), flows, rewritten))
        ledger.tell(ModeChanged(now, old, SOLO, "the primary is lost"))
        self._deliver_waiting()

    def protect(self, now: float) -> None:
        """Note that there is a secondary (again): request a checkpoint (reason startup), then compare."""
        ledger = self._ledger
        ledger.now = now
        old = ledger.mode
        if old == OBSERVE:
            for held in ledger.holds.entries():
                self._let_go(held, OBSERVED)
        ledger.epochs.forget()
        self._tcp.protected = False
        self._datagrams.protected = False
        ledger.known_equal = False
        self._tcp.lose_secondary()
        self._datagrams.lose_secondary()
        ledger.mode = PROTECT
        if old != PROTECT:
            ledger.tell(ModeChanged(now, old, PROTECT, "there is a secondary"))
        ledger.want_checkpoint(STARTUP, "")
        self._request_if_due()

    def set_mode(self, mode: str, now: float) -> None:
        """Change the mode by an operator's decision: protect, observe or bypass."""
        self._ledger.now = now
        if mode == self._ledger.mode:
            return
        if mode == PROTECT:
            self.protect(now)
        else:
            self._end_pair(mode, "an operator's decision")

    def apply(self, settings: Settings, now: float) -> None:
        """Take new settings at run time (all but mirror, rewrite, copies_state, reports_pause and mode)."""
        ledger = self._ledger
        ledger.now = now
        old = ledger.settings
        ledger.settings = replace(
            settings,
            mode=old.mode,
            mirror=old.mirror,
            rewrite=old.rewrite,
            copies_state=old.copies_state,
            reports_pause=old.reports_pause,
        )
        ledger.epochs.settings = ledger.settings
        self._request_if_due()


def _is_compared(frame: Frame) -> bool:
    """Whether a frame that is neither TCP nor a fragment is compared (rule 4).

    IGMP is not, though it is IP: its reports come after a random delay (RFC 3376, section 5.2), as MLD's do.
    What claims to be IP and is not well-formed is compared whole.
    """
    if frame.kind == OPAQUE:
        return (
            frame.reason == TRUNCATED or frame.reason == BAD_IP_HEADER or frame.reason == BAD_TRANSPORT_HEADER
        )
    return not (frame.kind == OTHER_IP and frame.protocol == _IGMP)
