"""What is measured round the core: how long checkpoints and failovers took, and how late the loop is.

The core counts frames and decisions; what takes seconds, or needs a clock of this world, is kept here.
"""

import time
from collections.abc import Callable
from typing import Final

import trio

from colo_compare.checkpoint.contract import Figures
from colo_compare.core.actions import (
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointRequested,
    Divergence,
    Event,
    ModeChanged,
    SecondaryJoined,
)
from colo_compare.core.histogram import Histogram

LAG_INTERVAL: Final = 0.1  # seconds between two looks at how late the loop is


class Measures:
    """Histograms and the last moments of one loop. Times are trio's, but for those that say "Unix time"."""

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self.request_to_commit: Final = Histogram(0.0005, 16)  # up to 16.384 s
        self.pause: Final = Histogram(0.0005, 16)
        self.failover: Final = Histogram(0.001, 18)  # up to 131 s: a power switch takes its time
        self.lag: Final = Histogram(0.0005, 15)  # up to 8.192 s
        self.pages = 0  # that the checkpointer says it has copied
        self.bytes = 0
        self.joined = 0  # new secondaries
        self.last_commit: float | None = None  # Unix time
        self.last_checkpoint: CheckpointCommitted | None = None
        self.last_divergences: dict[str, tuple[int, float]] = {}  # reason: id and Unix time of the last one
        self._requested_at: float | None = None  # of the checkpoint under way
        self._paused_at: float | None = None

    def note(self, event: Event) -> None:
        """Take what the core has to tell."""
        if isinstance(event, CheckpointRequested):
            self._requested_at = event.at
            self._paused_at = None
        elif isinstance(event, CheckpointCommitted):
            self._requested_at = None
            self.last_commit = self._unix_time()
            self.last_checkpoint = event
            self.request_to_commit.observe(event.request_to_commit)
        elif isinstance(event, CheckpointAborted | ModeChanged):
            # A pair that is no more, or a new one, has no checkpoint under way.
            self._requested_at = None
        elif isinstance(event, Divergence):
            self.last_divergences[event.reason] = (event.id, self._unix_time())
        elif isinstance(event, SecondaryJoined):
            self.joined += 1

    def note_paused(self, now: float) -> None:
        """Note that the checkpointer says that the primary has stopped."""
        self._paused_at = now

    def note_figures(self, figures: Figures, now: float) -> None:
        """Note what a checkpoint cost that is committed now.

        The pause is the checkpointer's own figure. One that gives none, but said when the primary stopped, is
        taken to have let it go on at the commit.
        """
        pause = figures.pause
        if pause is None and self._paused_at is not None:
            pause = now - self._paused_at
        if pause is not None:
            self.pause.observe(pause)
        self.pages += figures.pages or 0
        self.bytes += figures.bytes or 0

    def checkpoint_running(self, now: float) -> float:
        """Give how long ago the checkpoint under way was requested, in seconds; 0 if there is none."""
        return 0.0 if self._requested_at is None else now - self._requested_at

    async def watch_loop(self) -> None:
        """Measure until cancelled how much later than it should this task gets its turn."""
        while True:
            due = trio.current_time() + LAG_INTERVAL
            await trio.sleep_until(due)
            self.lag.observe(max(trio.current_time() - due, 0.0))
