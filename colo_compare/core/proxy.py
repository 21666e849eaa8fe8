"""The one entry object of the core."""

from colo_compare.core.actions import Actions
from colo_compare.core.settings import Settings
from colo_compare.wire.frame import Frame


class Proxy:
    """Frames and times in, actions out. Deterministic: it reads no clock and does no I/O.

    Times are seconds of one monotonic clock, never going back. After each call take the actions.
    """

    mode: str  # protect, observe, solo, block, bypass
    epoch: int  # 0 before the first commit
    checkpoint_state: str  # comparing, requested, paused
    protected: bool  # mode protect, and a commit since the pair began

    def __init__(self, settings: Settings, now: float) -> None:
        raise NotImplementedError

    def start(self, now: float) -> None:
        """Begin: in protect mode this requests the first checkpoint (reason startup)."""
        raise NotImplementedError

    def receive(self, side: int, frames: list[Frame], now: float) -> None:
        """Take frames that one side sent, in the order in which its port gave them."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`. Safe to call at any time."""
        raise NotImplementedError

    def next_timer(self) -> float:
        """Give the time at which handle_timer must be called next, math.inf if none."""
        raise NotImplementedError

    def take_actions(self) -> Actions:
        """Give what is to be done since the last call, and forget it."""
        raise NotImplementedError

    def wants(self, side: int) -> bool:
        """Say whether the shell should read this side's port now (back-pressure)."""
        raise NotImplementedError

    def request_checkpoint(self, reason: str, now: float) -> None:
        """Ask for a checkpoint (an operator, a periodic one, a backend that begins by itself)."""
        raise NotImplementedError

    def begun(self, now: float) -> int:
        """Note that the backend started a checkpoint by itself; gives the epoch that it will begin."""
        raise NotImplementedError

    def paused(self, epoch: int, now: float) -> None:
        """Note that the primary stopped. Everything that it sent before must have been received."""
        raise NotImplementedError

    def loaded(self, epoch: int, now: float) -> None:
        """Note that the secondary has the new state (if the backend can tell): what it sends from now on
        belongs to the new epoch. Everything that it sent before must have been received."""
        raise NotImplementedError

    def committed(self, epoch: int, now: float) -> None:
        """Note that the secondary runs from the new state: release, discard, align, next epoch."""
        raise NotImplementedError

    def failed(self, epoch: int, detail: str, secondary_intact: bool, now: float) -> None:
        """Note that the checkpoint failed. A secondary that is not intact is lost."""
        raise NotImplementedError

    def lose_secondary(self, now: float) -> None:
        """Note that the secondary is gone, fenced: release what is held (solo) or hold on (block)."""
        raise NotImplementedError

    def promote(self, now: float) -> None:
        """Note that the primary is gone, fenced: discard what it left, and let the secondary take over.

        From the return of this call on, frames of that guest are received as PRIMARY.
        """
        raise NotImplementedError

    def protect(self, now: float) -> None:
        """Note that there is a secondary (again): request a checkpoint (reason startup), then compare."""
        raise NotImplementedError

    def set_mode(self, mode: str, now: float) -> None:
        """Change the mode by an operator's decision: protect, observe or bypass."""
        raise NotImplementedError

    def apply(self, settings: Settings, now: float) -> None:
        """Take new settings at run time (all but mirror, rewrite, copies_state, reports_pause and mode)."""
        raise NotImplementedError
