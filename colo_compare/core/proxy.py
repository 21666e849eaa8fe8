"""The one entry object of the core: what comes in goes where it belongs, and what follows is done in order.

The account of frames is the ledger's, the life of a checkpoint that of `Epochs`, and what counts as equal is
decided in `tcp` and `datagrams`. Here is what concerns all of them: modes, checkpoints, deaths, timers.
"""

from dataclasses import replace
from typing import Final

from mypy_extensions import i64

from colo_compare.core.actions import Actions
from colo_compare.core.counters import BACKEND, S_COMPARED, STARTUP, Counters
from colo_compare.core.dispatch import Dispatch
from colo_compare.core.epochs import COMPARING, REQUESTED
from colo_compare.core.ledger import Ledger
from colo_compare.core.pair import Pair
from colo_compare.core.settings import OBSERVE, PROTECT, Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.wire.frame import OPAQUE, TCP, Frame

_AGE_INTERVAL: Final = 1.0  # seconds between two looks at what has grown old


class Proxy:
    """Frames and times in, actions out. Deterministic: it reads no clock and does no I/O.

    Times are seconds of one monotonic clock, never going back. After each call take the actions.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self._ledger = Ledger(settings, now)
        self._dispatch = Dispatch(self._ledger)
        self._pair = Pair(self._ledger, self._dispatch)
        self._next_age = now + _AGE_INTERVAL

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
        return self._ledger.mode == PROTECT and self._ledger.protected

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        self._ledger.settle_counts()
        counters = self._ledger.counters
        secondary = counters.secondary
        # The rest of them: to note for each frame when its last byte was matched would cost more than this.
        others = sum(secondary.values()) - secondary[S_COMPARED] + self._pair.unmatched_frames()
        secondary[S_COMPARED] = counters.received[SECONDARY] - others
        return counters

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._ledger.settings

    @property
    def held_frames(self) -> int:
        """Primary frames that have been received, and neither released nor discarded."""
        return self._pair.held_frames()

    @property
    def held_bytes(self) -> int:
        """The bytes of the held frames."""
        if self._ledger.mode == OBSERVE:
            return 0
        return self._ledger.holds.bytes + self._pair.primary_waiting_bytes

    def oldest_held(self, now: float) -> float:
        """Give the age in seconds of the oldest held frame, 0 if there is none."""
        oldest = self._ledger.holds.oldest()
        return 0.0 if oldest is None or self._ledger.mode == OBSERVE else now - oldest.at

    def flows(self) -> dict[str, int]:
        """Give the number of flows by kind and state."""
        counts = self._dispatch.tcp.table.counts()
        counts["datagram"] = len(self._dispatch.datagrams.flows)
        return counts

    @property
    def flow_count(self) -> int:
        """Flows in the tables."""
        return len(self._dispatch.tcp.table.flows) + len(self._dispatch.datagrams.flows)

    @property
    def client_waiting(self) -> int:
        """Client frames that wait for a checkpoint to be over."""
        return len(self._pair.client_waiting)

    def wants(self, side: int) -> bool:
        """Say whether the shell should read this side's port now (back-pressure, rule 6)."""
        settings = self._ledger.settings
        if side == PRIMARY:
            return self.held_frames < settings.max_held_frames and self.held_bytes < settings.max_held_bytes
        if side == CLIENT:
            return (
                len(self._pair.client_waiting) < settings.max_held_frames
                and self._pair.client_waiting_bytes < settings.max_held_bytes
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
            self._pair.request_if_due()

    def receive(self, side: int, frames: list[Frame], now: float) -> None:
        """Take frames that one side sent, in the order in which its port gave them."""
        ledger = self._ledger
        ledger.now = now
        counters = ledger.counters
        counters.received[side] += len(frames)
        size: i64 = 0
        tcp: i64 = 0
        for frame in frames:
            size += len(frame.data)
            if frame.kind == TCP:
                tcp += 1  # by itself: to count in a list makes a Python number each time
            else:
                counters.kinds[frame.kind] += 1
                if frame.kind == OPAQUE:
                    counters.opaque[frame.reason] += 1
        counters.received_bytes[side] += size
        counters.kinds[TCP] += tcp
        if side == PRIMARY:
            self._pair.from_primary(frames)
        elif side == SECONDARY:
            self._pair.from_secondary(frames)
        else:
            self._pair.from_client(frames)
        self._pair.request_if_due()

    # Time

    def next_timer(self) -> float:
        """Give the time at which handle_timer must be called next, math.inf if none."""
        epochs = self._ledger.epochs
        due = _earlier(epochs.timeout_at(), self._next_age)
        if self._ledger.mode == PROTECT:
            due = _earlier(due, epochs.due_at())
        if epochs.state == COMPARING and self._ledger.has_secondary():
            tcp = self._dispatch.tcp
            due = _earlier(due, self._dispatch.datagrams.check_due)
            due = _earlier(due, _earlier(tcp.mirror.retry_due, tcp.release.parts_due))
            oldest = self._ledger.holds.oldest()
            if oldest is not None and not oldest.late:
                due = _earlier(due, oldest.at + self._ledger.settings.compare_timeout)
        return due

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`. Safe to call at any time."""
        ledger = self._ledger
        ledger.now = now
        epochs = ledger.epochs
        if epochs.timeout_at() <= now:
            limit = ledger.settings.checkpoint_timeout
            self._pair.abort(f"no commit within {limit:g} s of the request", "timed_out", False)
        if epochs.state == COMPARING and ledger.has_secondary():
            self._check_age_of_held(now)
            self._dispatch.datagrams.check()
            # Not during a checkpoint: what is translated with an old offset must not reach a new state.
            self._dispatch.tcp.mirror.retry()
            self._dispatch.tcp.release.release_parts()
        if self._next_age <= now:
            self._next_age = now + _AGE_INTERVAL
            self._dispatch.tcp.age()
            self._dispatch.datagrams.age()
            self._dispatch.fragments.age()
            self._dispatch.secondary_fragments.age()
        self._pair.request_if_due()

    def _check_age_of_held(self, now: float) -> None:
        ledger = self._ledger
        oldest = ledger.holds.oldest()
        while oldest is not None and not oldest.late and oldest.at + ledger.settings.compare_timeout <= now:
            if self._dispatch.drop_reset(oldest):
                oldest = ledger.holds.oldest()
                continue
            ledger.overdue(oldest)
            if oldest.passed:
                # Observe mode: nobody waits for it, and nothing will make the two guests equal.
                self._dispatch.give_up(oldest)
                oldest = ledger.holds.oldest()

    # Checkpoints

    def request_checkpoint(self, reason: str, now: float) -> None:
        """Ask for a checkpoint (an operator, a periodic one, a backend that begins by itself)."""
        self._ledger.now = now
        self._ledger.want_checkpoint(reason, "")
        self._pair.request_if_due()

    def postpone(self, epoch: int, now: float) -> None:
        """Note that the backend cannot begin yet: the time for this checkpoint counts from now."""
        self._ledger.now = now
        if self._pair.is_current(epoch):
            self._ledger.epochs.requested_at = now

    def begun(self, now: float) -> int:
        """Note that the backend started a checkpoint by itself; gives the epoch that it will begin."""
        ledger = self._ledger
        ledger.now = now
        if ledger.mode == PROTECT and ledger.epochs.state == COMPARING:
            ledger.want_checkpoint(BACKEND, "")
            self._pair.begin()
        return ledger.epochs.number + 1

    def paused(self, epoch: int, now: float) -> None:
        """Note that the primary stopped. Everything that it sent before must have been received."""
        self._ledger.now = now
        if self._pair.is_current(epoch) and self._ledger.epochs.state == REQUESTED:
            self._ledger.epochs.pause()

    def loaded(self, epoch: int, now: float) -> None:
        """Note that the secondary has the new state (if the backend can tell): what it sends from now on
        belongs to the new epoch. Everything that it sent before must have been received.
        """
        self._ledger.now = now
        if self._pair.is_current(epoch):
            self._ledger.epochs.pause()
            self._ledger.epochs.loaded = True
            self._pair.void_waiting()

    def committed(self, epoch: int, now: float) -> None:
        """Note that the secondary runs from the new state: release, discard, align, next epoch."""
        self._ledger.now = now
        if self._pair.is_current(epoch):
            self._pair.commit()
            self._pair.deliver_waiting()
            self._pair.request_if_due()

    def failed(self, epoch: int, detail: str, secondary_intact: bool, now: float) -> None:
        """Note that the checkpoint failed. A secondary that is not intact is lost."""
        self._ledger.now = now
        if self._pair.is_current(epoch):
            self._pair.abort(detail, "failed", secondary_intact)

    # Deaths and modes

    def lose_secondary(self, now: float) -> None:
        """Note that the secondary is gone, fenced: release what is held (solo) or hold on (block)."""
        self._ledger.now = now
        if self._ledger.has_secondary():
            self._pair.lose_secondary()

    def promote(self, now: float) -> None:
        """Note that the primary is gone, fenced: discard what it left, and let the secondary take over.

        From the return of this call on, frames of that guest are received as PRIMARY.
        """
        self._ledger.now = now
        self._pair.promote()

    def forget_flows(self, now: float) -> None:
        """Note that the only guest has gone on unheard: its TCP flows are picked up again in mid-stream.

        Else what it said meanwhile would be a hole in them, and what it says from now on wait for that.
        """
        self._ledger.now = now
        self._dispatch.tcp.forget()

    def protect(self, now: float) -> None:
        """Note that there is a new secondary: request a checkpoint (reason startup), then compare."""
        self._ledger.now = now
        self._pair.protect(True)

    def set_mode(self, mode: str, now: float) -> None:
        """Change the mode by an operator's decision: protect, observe or bypass."""
        self._ledger.now = now
        if mode == self._ledger.mode:
            return
        if mode == PROTECT:
            self._pair.protect(False)
        else:
            self._pair.end_pair(mode, "an operator's decision")

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
        self._dispatch.datagrams.check_due = now  # the window may be another one
        self._pair.request_if_due()


def _earlier(a: float, b: float) -> float:
    """Give the earlier time. (`min` makes objects of them, and a tuple: 1 us for each batch.)"""
    return a if a <= b else b
