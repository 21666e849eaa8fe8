"""The pair of guests: checkpoints, deaths, and what the modes make of them (rules 5 to 9)."""

from colo_compare.core.actions import (
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointRequest,
    CheckpointRequested,
    ModeChanged,
    Promoted,
    SideLost,
)
from colo_compare.core.counters import (
    C_OVERFLOW,
    COVERED,
    FAILOVER,
    OBSERVED,
    PERIODIC,
    S_FLUSHED,
    S_OVERFLOW,
    S_UNPROTECTED,
    S_VOID,
    STARTUP,
    TABLE_FULL,
    UNPROTECTED,
)
from colo_compare.core.dispatch import Dispatch, is_compared
from colo_compare.core.epochs import COMPARING, PAUSED
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import BLOCK, OBSERVE, PROTECT, SOLO
from colo_compare.core.sides import SECONDARY
from colo_compare.wire.frame import Frame


class Pair:
    """What happens to the pair, and the frames that have to wait while it does."""

    def __init__(self, ledger: Ledger, dispatch: Dispatch) -> None:
        self.ledger = ledger
        self.dispatch = dispatch
        self.client_waiting: list[Frame] = []  # client frames from the request to the commit
        self.client_waiting_bytes = 0
        self.primary_waiting: list[Frame] = []  # what the primary sent after it paused: of the next epoch
        self.primary_waiting_bytes = 0
        self.secondary_waiting: list[Frame] = []  # what the secondary sent since then
        self.secondary_waiting_bytes = 0

    def held_frames(self) -> int:
        """Give the number of primary frames that have been neither released nor discarded."""
        if self.ledger.mode == OBSERVE:
            return 0
        return self.ledger.holds.frames + len(self.primary_waiting)

    def unmatched_frames(self) -> int:
        """Give the number of secondary frames that have been neither matched nor discarded."""
        return self.dispatch.unmatched_frames() + len(self.secondary_waiting)

    # Frames

    def from_primary(self, frames: list[Frame]) -> None:
        """Take frames of the primary, now or after the commit."""
        paused = self.ledger.epochs.state == PAUSED
        self.dispatch.tcp.table.warm(frames)
        for frame in frames:
            if paused and is_compared(frame):
                self.primary_waiting.append(frame)
                self.primary_waiting_bytes += len(frame.data)
            else:
                self.dispatch.from_primary(frame)

    def from_secondary(self, frames: list[Frame]) -> None:
        """Take frames of the secondary, now or when it is known which state they came from."""
        paused = self.ledger.epochs.state == PAUSED
        self.dispatch.tcp.table.warm(frames)
        for frame in frames:
            if paused:
                self._hold_secondary(frame)
            else:
                self.dispatch.from_secondary(frame)

    def _hold_secondary(self, frame: Frame) -> None:
        settings = self.ledger.settings
        full = len(self.secondary_waiting) >= settings.max_held_frames
        if full or self.secondary_waiting_bytes >= settings.max_held_bytes:
            self.ledger.counters.secondary[S_OVERFLOW] += 1
        else:
            self.secondary_waiting.append(frame)
            self.secondary_waiting_bytes += len(frame.data)

    def from_client(self, frames: list[Frame]) -> None:
        """Take frames of the client, now or after the commit: not with old offsets to a new state."""
        comparing = self.ledger.epochs.state == COMPARING
        for frame in frames:
            if comparing:
                self.dispatch.from_client(frame)
            else:
                self._hold_client(frame)

    def _hold_client(self, frame: Frame) -> None:
        settings = self.ledger.settings
        limit = 2 * settings.max_held_bytes  # `wants` turned false at half of it
        if self.client_waiting_bytes >= limit or len(self.client_waiting) >= 2 * settings.max_held_frames:
            self.ledger.counters.client_discarded[C_OVERFLOW] += 1
            return
        self.client_waiting.append(frame)
        self.client_waiting_bytes += len(frame.data)

    def deliver_waiting(self) -> None:
        """Take what had to wait for the end of a checkpoint: guests first, the client's new frames last."""
        secondary = self.secondary_waiting
        primary = self.primary_waiting
        client = self.client_waiting
        self.secondary_waiting = []
        self.secondary_waiting_bytes = 0
        self.primary_waiting = []
        self.primary_waiting_bytes = 0
        self.client_waiting = []
        self.client_waiting_bytes = 0
        for frame in secondary:
            self.dispatch.from_secondary(frame)
        for frame in primary:
            self.dispatch.from_primary(frame)
        for frame in client:
            self.dispatch.from_client(frame)

    # Checkpoints

    def request_if_due(self) -> None:
        """Ask the backend for a checkpoint, if one is wanted and due."""
        ledger = self.ledger
        epochs = ledger.epochs
        if ledger.mode != PROTECT or epochs.due_at() > ledger.now:
            return
        if not epochs.wanted:
            ledger.want_checkpoint(PERIODIC, "")
        self.begin()
        request = CheckpointRequest(epochs.number + 1, tuple(epochs.running), epochs.running_flow)
        ledger.request(request)
        ledger.tell(CheckpointRequested(ledger.now, request))

    def begin(self) -> None:
        """Let a checkpoint begin."""
        self.ledger.epochs.begin(self.ledger.now)
        if not self.ledger.settings.reports_pause:
            # Nobody will say when the primary stops: all that it sends from now on may belong to either
            # epoch, and waits for the commit, to be compared after it.
            self.ledger.epochs.pause()

    def is_current(self, epoch: int) -> bool:
        """Whether a report is about the checkpoint that runs."""
        epochs = self.ledger.epochs
        return self.ledger.mode == PROTECT and epochs.state != COMPARING and epoch == epochs.number + 1

    def void_waiting(self) -> None:
        """Make void what the secondary sent from a state that it no longer has."""
        self.ledger.counters.secondary[S_VOID] += len(self.secondary_waiting)
        self.secondary_waiting = []
        self.secondary_waiting_bytes = 0

    def commit(self) -> None:
        """Release what is covered, make void what the secondary had said, start the next epoch (rule 7)."""
        ledger = self.ledger
        epochs = ledger.epochs
        if not epochs.loaded and ledger.settings.copies_state:
            self.void_waiting()  # of which state it came nobody knows
        before = ledger.counters.secondary[S_VOID]
        released = ledger.holds.frames
        for held in ledger.holds.entries():
            self.dispatch.let_go(held, COVERED)
        self.dispatch.fragments.clear()
        if ledger.settings.copies_state:
            void = (
                self.dispatch.tcp.void_secondary()
                + self.dispatch.datagrams.void_secondary()
                + self.dispatch.secondary_fragments.clear()
            )
            ledger.counters.secondary[S_VOID] += void
            ledger.generation += 1
        else:
            self.dispatch.tcp.realign()
            self.dispatch.datagrams.void_secondary()
        ledger.known_equal = ledger.settings.copies_state
        self.ledger.protected = True
        waited = ledger.now - epochs.requested_at
        reasons = tuple(epochs.running)
        epochs.commit(ledger.now)
        ledger.counters.checkpoints["committed"] += 1
        void = ledger.counters.secondary[S_VOID] - before
        ledger.tell(CheckpointCommitted(ledger.now, epochs.number, reasons, waited, released, void))
        if TABLE_FULL in reasons:
            self.dispatch.tcp.table.make_room()
        if ledger.settings.copies_state:
            self.dispatch.tcp.mirror.resend_unacknowledged()

    def abort(self, detail: str, outcome: str, secondary_intact: bool) -> None:
        """Give a checkpoint up; without an intact secondary, give that up, too."""
        ledger = self.ledger
        epochs = ledger.epochs
        ledger.counters.checkpoints[outcome] += 1
        ledger.tell(CheckpointAborted(ledger.now, epochs.number + 1, detail))
        epochs.abort(ledger.now)
        if not secondary_intact or epochs.failures >= ledger.settings.max_failures:
            self.lose_secondary()
        else:
            self.deliver_waiting()

    # Deaths and modes

    def lose_secondary(self) -> None:
        """Go on without the secondary: solo, or blocked (rule 8)."""
        ledger = self.ledger
        ledger.counters.secondaries_lost += 1
        block = ledger.mode == PROTECT and ledger.settings.on_secondary_loss == BLOCK
        released = 0 if block else self.held_frames()
        ledger.counters.secondary[S_UNPROTECTED] += len(self.secondary_waiting)
        self.secondary_waiting = []
        self.secondary_waiting_bytes = 0
        self.end_pair(BLOCK if block else SOLO, "the secondary is lost")
        ledger.tell(SideLost(ledger.now, SECONDARY, released, 0))

    def end_pair(self, mode: str, why: str) -> None:
        """Go on without a comparison; what is held goes out, unless the new mode holds."""
        ledger = self.ledger
        old = ledger.mode
        ledger.epochs.forget()
        self.ledger.protected = False
        ledger.known_equal = False
        ledger.newcomer = False
        ledger.mode = mode
        if not ledger.holding():
            for held in ledger.holds.entries():
                self.dispatch.let_go(held, OBSERVED if mode == OBSERVE else UNPROTECTED)
            self.dispatch.fragments.clear()
        if mode == OBSERVE:
            self.dispatch.tcp.realign()
        else:
            self.dispatch.tcp.lose_secondary()
        self.dispatch.datagrams.lose_secondary()
        self.dispatch.secondary_fragments.clear()
        ledger.tell(ModeChanged(ledger.now, old, mode, why))
        self.deliver_waiting()

    def promote(self) -> None:
        """Discard what the primary left, and let the secondary take over (rule 8), if there is one."""
        ledger = self.ledger
        if not ledger.has_secondary():
            return
        epochs = ledger.epochs
        if epochs.state == PAUSED and epochs.loaded:
            # The new state is the only one that the secondary has: the commit happened, unheard. What it
            # mirrors once more is for the guest that is the primary from now on.
            self.commit()
            ledger.turn_to_primary()
        self.dispatch.tcp.release_said()
        discarded = ledger.discard_all() + len(self.primary_waiting)
        ledger.counters.discarded[FAILOVER] += len(self.primary_waiting)
        self.primary_waiting = []
        self.primary_waiting_bytes = 0
        self.dispatch.fragments.clear()
        epochs.forget()
        for frame in self.secondary_waiting:
            self.dispatch.from_secondary(frame)
        self.secondary_waiting = []
        self.secondary_waiting_bytes = 0
        flushed, flows, rewritten = self.dispatch.tcp.promote()
        flushed += self.dispatch.datagrams.promote()
        flushed += self.dispatch.secondary_fragments.frames()
        self.dispatch.secondary_fragments.clear()
        old = ledger.mode
        ledger.mode = SOLO
        self.ledger.protected = False
        ledger.known_equal = False
        ledger.newcomer = False
        self.dispatch.rewriting = rewritten > 0
        ledger.counters.promotions += 1
        ledger.counters.secondary[S_FLUSHED] += len(flushed)
        if ledger.settings.announce:
            for frame in self.dispatch.neighbours.announcements():
                ledger.send_own(frame)
        for frame in flushed:
            ledger.send_own(frame)
        ledger.tell(Promoted(ledger.now, discarded, len(flushed), flows, rewritten))
        ledger.tell(ModeChanged(ledger.now, old, SOLO, "the primary is lost"))
        self.deliver_waiting()

    def protect(self, new: bool) -> None:
        """Take a secondary (again): unprotected until the checkpoint that this requests (rule 9).

        `new`: it is another guest than the last one. A guest that has not heard all that the client said on
        a connection can only get it by a checkpoint. Where that copies nothing, the connection stays the
        primary's alone, and is not compared. (To hold it was the alternative: a slower way to end it.)
        """
        ledger = self.ledger
        old = ledger.mode
        alone = not ledger.settings.copies_state and (new or not ledger.has_secondary())
        if old == OBSERVE:
            for held in ledger.holds.entries():
                self.dispatch.let_go(held, OBSERVED)
            self.dispatch.fragments.clear()
        ledger.epochs.forget()
        self.ledger.protected = False
        ledger.known_equal = False
        ledger.newcomer = False
        if old != OBSERVE or new or ledger.settings.copies_state:
            # Else it has been followed all the time, and no checkpoint gives back what is known of it.
            self.dispatch.tcp.lose_secondary()
        self.dispatch.datagrams.lose_secondary()
        if alone:
            ledger.newcomer = True
            self.dispatch.tcp.leave_alone()
        ledger.mode = PROTECT
        if old != PROTECT:
            ledger.tell(ModeChanged(ledger.now, old, PROTECT, "there is a secondary"))
        ledger.want_checkpoint(STARTUP, "")
        self.request_if_due()
