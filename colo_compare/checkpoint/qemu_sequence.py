"""What happens in a QEMU COLO pair, without I/O: events, losses and times in, steps out.

One checkpoint::

    idle --request--> stopping --primary stopped--> draining --drained--> copying
      ^                                                                      |
      +--primary resumed-- loaded <--secondary resumed-----------------------+

Two decisions are made here.

**The primary is stopped first**, by a command of our own, and the checkpoint is triggered only when what the
primary had sent is drained. QEMU's checkpoint would stop it as well, but starts it again by itself, after as
little as 3 ms: a proxy that is late by that much (its CPU is taken away for a moment) would find frames from
before the stop and from after the restart in one queue, and would release some that were never compared. As
it is, nothing can be sent between the stop and the restart, however late anybody is. It costs one exchange
with the monitor.

**Who is to blame** when the two no longer work together is never concluded from silence in the pair alone:
the step `Examine` asks both monitors. A side counts as lost when the shell says so, and the shell says so
only of a guest that is dead.

A checkpoint whose primary dies after the trigger has one of two results, and only the secondary knows which:
it resumes from the new state, or leaves COLO without having resumed. State `verdict` waits for that.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from colo_compare.core.sides import PRIMARY, SECONDARY

IDLE: Final = "idle"
STOPPING: Final = "stopping"  # the primary was told to stop
DRAINING: Final = "draining"  # it stands still, and the proxy reads what it had sent
COPYING: Final = "copying"  # the checkpoint was triggered
LOADED: Final = "loaded"  # the secondary runs from the new state
VERDICT: Final = "verdict"  # the primary died while copying
RESUMING: Final = "resuming"  # the checkpoint was given up before the trigger
OVER: Final = "over"  # there is no pair any more

_TOO_SHORT: Final = "somebody else made a checkpoint, too short for the proxy to follow"

REMEMBERED_PAUSES: Final = 16
SLOWER: Final = 2.0  # times the longest pause remembered, which the next one may take


@dataclass(frozen=True)
class StopPrimary:
    """Stop the primary's vCPUs."""


@dataclass(frozen=True)
class ContinuePrimary:
    """Let the primary's vCPUs run."""


@dataclass(frozen=True)
class Trigger:
    """Let QEMU make the checkpoint."""


@dataclass(frozen=True)
class ReportBegun:
    """Tell that QEMU began a checkpoint by itself."""


@dataclass(frozen=True)
class ReportPaused:
    """Tell that the primary stands still; then call `drained`."""


@dataclass(frozen=True)
class ReportLoaded:
    """Tell that the secondary has the new state."""


@dataclass(frozen=True)
class ReportCommitted:
    """Tell that the checkpoint is complete."""

    pause: float | None  # seconds that the primary stood still; None if it never resumed


@dataclass(frozen=True)
class ReportFailed:
    """Tell that nothing was committed."""

    detail: str
    secondary_intact: bool


@dataclass(frozen=True)
class ReportLost:
    """Tell that a guest is dead."""

    side: int
    detail: str


@dataclass(frozen=True)
class Examine:
    """Find out which guest does not work, and make sure that it is dead; then call `lost`."""

    detail: str


Step = (
    StopPrimary
    | ContinuePrimary
    | Trigger
    | ReportBegun
    | ReportPaused
    | ReportLoaded
    | ReportCommitted
    | ReportFailed
    | ReportLost
    | Examine
)


class Sequence:
    """A pair that is in COLO. Every method gives the steps to perform now, in order.

    Times `now` are seconds of a monotonic clock, times `at` seconds of the primary's own.
    """

    def __init__(self, patience: float) -> None:
        """Begin with both guests running. Take how many seconds a checkpoint may take beyond others."""
        self.state = IDLE
        self.deadline = math.inf  # when to call `handle_timer`
        self._patience = patience
        self._primary_runs = True
        self._secondary_runs = True
        self._secondary_left = False  # it is in COLO no more
        self._has_loaded = False  # in this checkpoint the secondary has stopped and resumed
        self._primary_early = False  # the primary's resumption was seen before the secondary's
        self._unseen: set[int] = set()  # sides whose events do not reach us now
        self._doubtful = False  # in this checkpoint the secondary's events may have been missed
        self._missed = False  # while one side was unseen, the other one took part in a checkpoint not ours
        self._idle_pauses: set[int] = set()  # sides that stopped and resumed though nobody had asked for it
        self._silent = False  # nobody waits for the result
        self._foreign = False  # QEMU began this one by itself
        self._wanted = False  # one more was asked for
        self._detail = ""  # why a guest is lost
        self._stopped_at = 0.0
        self._pause = 0.0
        self._pauses: deque[float] = deque([0.0], maxlen=REMEMBERED_PAUSES)

    @property
    def limit(self) -> float:
        """How long the next checkpoint may take, seconds."""
        return self._patience + SLOWER * max(self._pauses)

    # What the proxy wants

    def request(self, now: float) -> list[Step]:
        """Ask for a checkpoint.

        One that QEMU has just begun by itself serves as well; any other one is followed by this.
        """
        if self.state == IDLE:
            return self._begin(now)
        self._wanted = self.state != OVER and (self._silent or not self._foreign)
        return []

    def _begin(self, now: float) -> list[Step]:
        self._reset(foreign=False)
        if not self._primary_runs:  # somebody else has stopped it
            self._set(DRAINING, math.inf)
            return [ReportPaused()]
        self._set(STOPPING, now + self.limit)
        return [StopPrimary()]

    def cancel(self, now: float) -> list[Step]:
        """Report nothing more of a checkpoint. One that is triggered still runs to its end."""
        self._wanted = False
        if self.state in (STOPPING, DRAINING) and not self._foreign:
            self._set(RESUMING, now + self.limit)
            return [ContinuePrimary()]
        self._silent = True
        return []

    def drained(self, now: float) -> list[Step]:
        """Note that everything the primary had sent was read."""
        if self.state != DRAINING:
            return []
        if self._primary_runs:
            # Not by us. Of what was read, some may have been sent after it resumed.
            return self._fail(_TOO_SHORT, False)
        if self._has_loaded:
            return self._loaded(now)
        self._set(COPYING, now + self.limit)
        # With the secondary stopped a checkpoint is under way already, whoever began it.
        return [Trigger()] if self._secondary_runs else []

    def refused(self, detail: str, now: float) -> list[Step]:
        """Note that the primary's monitor refused what it was told in this checkpoint: nothing happened."""
        if self.state not in (STOPPING, COPYING):
            return []
        steps = self._fail(detail, True)
        if not self._primary_runs:
            self._set(RESUMING, now + self.limit)
            steps.append(ContinuePrimary())
        return steps

    # What QEMU tells

    def stopped(self, side: int, at: float, now: float) -> list[Step]:
        """Take the event STOP of a guest."""
        if side == SECONDARY:
            self._secondary_runs = False
        else:
            self._primary_runs = False
            self._stopped_at = at
            if self.state == STOPPING:
                self._set(DRAINING, math.inf)
                return [ReportPaused()]
        if self.state == IDLE and self._unseen - {side}:
            self._missed = True
        elif self.state == IDLE and not self._primary_runs and not self._secondary_runs:
            # Both, and not by us: a checkpoint. (The primary alone: somebody's `stop`.)
            self._reset(foreign=True)
            self._set(DRAINING, math.inf)
            return [ReportBegun(), ReportPaused()]
        return []

    def resumed(self, side: int, at: float, now: float) -> list[Step]:
        """Take the event RESUME of a guest."""
        if side == SECONDARY:
            return self._secondary_resumed(now)
        stood = not self._primary_runs
        self._primary_runs = True
        self._pause = max(at - self._stopped_at, 0.0)
        if self.state == LOADED:
            return self._commit(now)
        if self.state == COPYING and (self._doubtful or SECONDARY in self._unseen):
            self._primary_early = True
            return self._loaded(now)  # without it the primary would not have resumed
        if self.state == COPYING:
            # The secondary's came before it, on another connection. It will be here in a moment.
            self._primary_early = True
        elif self.state == RESUMING:
            return self._settle(now)
        elif self.state == IDLE and stood:
            return self._paused_while_idle(PRIMARY)
        return []

    def _paused_while_idle(self, side: int) -> list[Step]:
        """Note that a guest stopped and resumed; where both did, that was a checkpoint.

        Their events come on two connections. Where one was read to the end before the other, they were never
        seen to stand still together, and what was sent before the checkpoint cannot be told any more.
        """
        self._idle_pauses.add(side)
        if len(self._idle_pauses) == 1:
            return []
        self._idle_pauses.clear()
        return [ReportBegun(), ReportFailed(_TOO_SHORT, False)]

    def _secondary_resumed(self, now: float) -> list[Step]:
        if self._secondary_runs:
            return []
        self._secondary_runs = True
        self._has_loaded = True
        if self.state == VERDICT:
            return self._reports(ReportLoaded(), ReportCommitted(None)) + self._end()
        if self.state == COPYING:
            return self._loaded(now)
        if self.state == IDLE:
            return self._paused_while_idle(SECONDARY)
        return []

    def left_colo(self, side: int) -> list[Step]:
        """Take the event COLO_EXIT of a guest."""
        if self.state == OVER:
            return []
        if side == PRIMARY:
            return [Examine("the primary has left COLO: its connection to the secondary broke")]
        self._secondary_left = True
        if self.state == VERDICT:
            return (
                self._reports(ReportFailed("the primary died before the secondary had it all", True))
                + self._end()
            )
        return [Examine("the secondary has left COLO: its connection to the primary broke")]

    # What QEMU could not tell

    def lost_sight(self, side: int) -> None:
        """Note that a guest's events do not reach us from now on, though it may live."""
        self._unseen.add(side)

    def returned(self, side: int, runs: bool, at: float, now: float) -> list[Step]:
        """Note that they do again; `runs`: whether its vCPUs run now."""
        self._unseen.discard(side)
        if self.state == IDLE and self._missed:
            return [Examine("a checkpoint was made that the proxy could not follow")]
        if side == SECONDARY:
            self._secondary_runs = runs
            if self.state == COPYING and self._primary_early:
                return self._loaded(now)  # its word of it, which was waited for, was lost
            self._doubtful = self.state == COPYING
            return []
        if runs != self._primary_runs:
            told = self.resumed if runs else self.stopped
            return told(PRIMARY, at, now)
        return self._say_again()

    def _say_again(self) -> list[Step]:
        """Repeat what the primary may not have heard; it does no harm if it did."""
        if self.state == STOPPING:
            return [StopPrimary()]
        if self.state == COPYING and self._secondary_runs and not self._has_loaded:
            return [Trigger()]
        if self.state == RESUMING and not self._primary_runs:
            return [ContinuePrimary()]
        return []

    # What the shell found out

    def lost(self, side: int, detail: str, now: float) -> list[Step]:
        """Note that a guest is dead."""
        if self.state == OVER:
            return []
        if self.state == VERDICT:
            return self._reports(ReportFailed(detail, False)) + self._end()
        self._detail = detail
        if side == SECONDARY:
            steps = [] if self.state in (IDLE, RESUMING) else self._reports(ReportFailed(detail, False))
            self._set(OVER, math.inf)
            return [*steps, ReportLost(SECONDARY, detail)]
        if self.state == COPYING and not self._secondary_left:
            self._set(VERDICT, now + self.limit)
            return []
        if self.state == LOADED:
            return self._reports(ReportCommitted(None)) + self._end()
        steps = [] if self.state in (IDLE, RESUMING) else self._reports(ReportFailed(detail, True))
        return steps + self._end()

    def handle_timer(self, now: float) -> list[Step]:
        """Do what is due."""
        if now < self.deadline:
            return []
        if self.state == VERDICT:
            detail = f"{self._detail}, and the secondary does not say which state it has"
            return self._reports(ReportFailed(detail, False)) + self._end()
        if self.state == RESUMING and self._primary_runs:
            return self._settle(now)  # it had not even stopped
        self.deadline = now + self.limit  # look again, if nobody is found guilty
        return [Examine(f"the checkpoint has not got past {self.state} within {self.limit:.1f} s")]

    def end(self) -> None:
        """Note that there is no pair any more: nothing means anything from now on."""
        self._set(OVER, math.inf)

    # Transitions

    def _set(self, state: str, deadline: float) -> None:
        self.state = state
        self.deadline = deadline

    def _reset(self, *, foreign: bool) -> None:
        self._foreign = foreign
        self._idle_pauses.clear()
        self._silent = self._has_loaded = self._primary_early = self._doubtful = False

    def _loaded(self, now: float) -> list[Step]:
        self._set(LOADED, now + self.limit)
        steps = self._reports(ReportLoaded())
        return steps + self._commit(now) if self._primary_early else steps

    def _commit(self, now: float) -> list[Step]:
        self._pauses.append(self._pause)
        return self._reports(ReportCommitted(self._pause)) + self._settle(now)

    def _fail(self, detail: str, intact: bool) -> list[Step]:
        steps = self._reports(ReportFailed(detail, intact))
        self._set(IDLE, math.inf)
        return steps

    def _settle(self, now: float) -> list[Step]:
        """Be idle, unless another checkpoint is asked for."""
        self._set(IDLE, math.inf)
        if not self._wanted:
            return []
        self._wanted = False
        return self._begin(now)

    def _end(self) -> list[Step]:
        self._set(OVER, math.inf)
        return [ReportLost(PRIMARY, self._detail)]

    def _reports(self, *reports: Step) -> list[Step]:
        return [] if self._silent else list(reports)
