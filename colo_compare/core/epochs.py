"""The life of a checkpoint: comparing -> requested -> paused -> committed, which is comparing again.

Requests coalesce: one that comes while a checkpoint is on its way and the primary has not paused yet is
covered by that checkpoint, and only its reason is added; one that comes later waits for the next.
"""

import math
from typing import Final

from colo_compare.core.counters import STARTUP
from colo_compare.core.settings import Settings

COMPARING: Final = "comparing"
REQUESTED: Final = "requested"
PAUSED: Final = "paused"


class Epochs:
    """Which epoch it is, what the next checkpoint is wanted for, and when it is due."""

    number: int  # the epoch that runs; 0 before the first commit
    state: str
    wanted: list[str]  # reasons for the next checkpoint, each once, first first
    wanted_flow: str
    running: list[str]  # reasons of the one on its way
    running_flow: str
    requested_at: float
    committed_at: float
    loaded: bool  # the secondary has the new state already
    failures: int  # in a row

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        self.number = 0
        self.state = COMPARING
        self.wanted = []
        self.wanted_flow = ""
        self.wanted_at = now
        self.running = []
        self.running_flow = ""
        self.requested_at = now
        self.committed_at = -math.inf
        self.not_before = -math.inf
        self.loaded = False
        self.failures = 0

    def want(self, reason: str, flow: str, now: float) -> bool:
        """Note a reason; give whether it is a new one for that checkpoint."""
        if self.state == REQUESTED:
            if reason in self.running:
                return False
            self.running.append(reason)
            return True
        if reason in self.wanted:
            return False
        if not self.wanted:
            self.wanted_at = now
            self.wanted_flow = flow
        self.wanted.append(reason)
        return True

    def due_at(self) -> float:
        """Give the time at which the next checkpoint is to be requested, math.inf if none."""
        if self.state != COMPARING:
            return math.inf
        due = math.inf
        if self.number:
            due = self.committed_at + self.settings.max_interval
        if self.wanted:
            # Nothing diverges before the first checkpoint that others could share.
            coalesce = 0.0 if STARTUP in self.wanted else self.settings.coalesce
            due = min(due, self.wanted_at + coalesce)
        return max(due, self.not_before, self.committed_at + self.settings.min_interval)

    def timeout_at(self) -> float:
        """Give the time at which the running checkpoint has taken too long, math.inf if none runs."""
        if self.state == COMPARING:
            return math.inf
        return self.requested_at + self.settings.checkpoint_timeout

    def begin(self, now: float) -> None:
        """Turn what is wanted into a running checkpoint."""
        self.state = REQUESTED
        self.running = self.wanted
        self.running_flow = self.wanted_flow
        self.wanted = []
        self.wanted_flow = ""
        self.requested_at = now
        self.loaded = False

    def pause(self) -> None:
        """Note that the primary stands still."""
        self.state = PAUSED

    def commit(self, now: float) -> None:
        """Start the next epoch."""
        self.state = COMPARING
        self.number += 1
        self.committed_at = now
        self.not_before = -math.inf
        self.failures = 0
        self.loaded = False

    def abort(self, now: float) -> None:
        """Give the running checkpoint up; what it was wanted for is still wanted, after a while."""
        self.state = COMPARING
        self.wanted = self.running + [reason for reason in self.wanted if reason not in self.running]
        self.wanted_flow = self.running_flow
        self.wanted_at = now
        self.running = []
        self.not_before = now + self.settings.retry_interval
        self.failures += 1
        self.loaded = False

    def forget(self) -> None:
        """Want nothing more, and run nothing: the pair is no more."""
        self.state = COMPARING
        self.wanted = []
        self.wanted_flow = ""
        self.running = []
        self.not_before = -math.inf
        self.failures = 0
        self.loaded = False
