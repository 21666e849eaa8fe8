"""The account of every primary frame: received = released + held + discarded (rule 10).

All parts of the core share one ledger. Frames leave through it only, so that the account cannot be wrong in
one part and right in another.
"""

from mypy_extensions import i64

from colo_compare.core.actions import NOTHING, Actions, CheckpointRequest, Divergence, Event, Evidence
from colo_compare.core.counters import (
    FAILOVER,
    MATCHED,
    PRESSURE,
    TIMEOUT,
    Counters,
)
from colo_compare.core.epochs import Epochs
from colo_compare.core.hold import Held, HoldQueue
from colo_compare.core.settings import BLOCK, OBSERVE, PROTECT, Settings
from colo_compare.wire.describe import describe_flow
from colo_compare.wire.frame import Frame


class Ledger:
    """What the parts of the core share: settings, time, mode, held frames, epochs, counters, outbox."""

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        self.now = now
        self.mode = settings.mode
        self.counters = Counters()
        self.holds = HoldQueue()
        self.epochs = Epochs(settings, now)
        self.generation: i64 = 0  # grows with each commit that copied state: flows catch up when touched
        self.newcomer = False  # the secondary has not the connections that the primary had when it came
        self.known_equal = False  # flows that are not in the table are the same in both guests
        self.protected = False  # a checkpoint stands behind this pair
        self.divergences = 0
        self._actions = Actions()
        self._to_client = self._actions.to_client
        # Releases, and waits of the same length, since `settle_counts`.
        self._kind = MATCHED
        self._released: i64 = 0
        self._released_bytes: i64 = 0
        self._compared: i64 = 0
        self._wait = 0.0
        self._waits: i64 = 0

    # What the mode means. Asked once per frame or less, so plain comparisons of interned strings do.

    def has_secondary(self) -> bool:
        """Whether there is a secondary whose output counts."""
        return self.mode == PROTECT or self.mode == OBSERVE

    def holding(self) -> bool:
        """Whether primary frames must wait for something."""
        return self.mode == PROTECT or self.mode == BLOCK

    # Frames out

    def send_client(self, frame: Frame, kind: str) -> None:
        """Release a frame that was never held."""
        if kind is not self._kind:  # one constant for each: to compare the texts would cost 5 ns
            self.settle_counts()
            self._kind = kind
        self._released += 1
        self._released_bytes += len(frame.data)
        self._to_client.append(frame)

    def compared(self, size: i64) -> None:
        """Count bytes that both guests have said."""
        self._compared += size

    def settle_counts(self) -> None:
        """Enter what was counted on the side: frames go in runs of one kind, and a dict costs 60 ns each."""
        counters = self.counters
        counters.released[self._kind] += self._released
        counters.released_bytes += self._released_bytes
        counters.compared_bytes += self._compared
        self._released = 0
        self._released_bytes = 0
        self._compared = 0
        if self._waits:
            counters.hold_time.observe(self._wait, self._waits)
            self._actions.waits += [self._wait] * self._waits
            self._waits = 0

    def send_own(self, frame: Frame) -> None:
        """Send the client a frame of the proxy's own making, which is not part of the account."""
        self._to_client.append(frame)

    def send_primary(self, frame: Frame) -> None:
        """Send a client frame to the primary."""
        self._actions.to_primary.append(frame)

    def send_secondary(self, frame: Frame) -> None:
        """Mirror a client frame to the secondary."""
        self.counters.mirrored += 1
        self._actions.to_secondary.append(frame)

    def turn_to_primary(self) -> None:
        """Give the guest that is promoted what was to go to it as the secondary."""
        self._actions.to_primary += self._actions.to_secondary
        self._actions.to_secondary = []

    def hold(self, held: Held) -> None:
        """Keep a frame until the secondary has said the same."""
        self.holds.add(held)
        settings = self.settings
        if self.holds.frames >= settings.max_held_frames or self.holds.bytes >= settings.max_held_bytes:
            if self.mode == OBSERVE:
                self._drop_comparison(held)
            else:
                self.want_checkpoint(PRESSURE, "")

    def _drop_comparison(self, newest: Held) -> None:
        """Compare the oldest frame no more: it has gone out, and only costs memory."""
        self.holds.remove(self.holds.oldest() or newest)

    def released(self, held: Held, frame: Frame, kind: str) -> None:
        """Let a held frame go, as `frame`, which may be a rewritten one."""
        self.holds.remove(held)
        self.note_wait(held)
        if held.passed:
            return
        self.send_client(frame, kind)
        if held.more is not None:
            for fragment in held.more:
                self.send_client(fragment, kind)

    def note_wait(self, held: Held) -> None:
        """Count how long a frame had to wait."""
        wait = self.now - held.at
        if wait != self._wait:  # frames of one batch that the secondary repeats in one have waited as long
            self.settle_counts()
            self._wait = wait
        self._waits += 1

    def discard(self, held: Held, reason: str) -> None:
        """Drop a held frame for ever."""
        self.holds.remove(held)
        if not held.passed:
            self.counters.discarded[reason] += held.count()

    def discard_all(self) -> int:
        """Drop every held frame: its guest is dead, and nobody saw them. Gives their number."""
        count = 0
        for held in self.holds.entries():
            if not held.passed:
                count += held.count()
        self.counters.discarded[FAILOVER] += count
        self.holds.clear()
        return count

    # Checkpoints and events

    def want_checkpoint(self, reason: str, flow: str) -> None:
        """Ask for a checkpoint, in protect mode; requests coalesce."""
        if self.mode == PROTECT and self.epochs.want(reason, flow, self.now):
            self.counters.requests[reason] += 1

    def diverged(self, key: bytes, reason: str, offset: int, primary: bytes, secondary: bytes,
                 ours: Evidence = NOTHING, theirs: Evidence = NOTHING) -> None:  # fmt: skip
        """Note that the secondary said something else, and ask for a checkpoint."""
        flow = describe_flow(key)
        self.divergences += 1
        self.counters.divergences[reason] += 1
        number = self.divergences
        epoch = self.epochs.number
        self.tell(Divergence(self.now, number, epoch, flow, reason, offset, primary, secondary, ours, theirs))
        self.want_checkpoint(reason, flow)

    def overdue(self, held: Held) -> None:
        """Note that a frame has waited too long."""
        held.late = True
        frame = held.frame
        ours = Evidence(frame.data, frame.payload, held.at)
        self.diverged(held.flow.key, TIMEOUT, 0, frame.data[frame.payload : frame.end][:64], b"", ours)

    def request(self, request: CheckpointRequest) -> None:
        """Hand a request to the backend."""
        self._actions.requests.append(request)

    def tell(self, event: Event) -> None:
        """Tell the people."""
        self._actions.events.append(event)

    def take(self) -> Actions:
        """Give what is to be done, and forget it."""
        self.settle_counts()
        actions = self._actions
        self._actions = Actions()
        self._to_client = self._actions.to_client
        return actions
