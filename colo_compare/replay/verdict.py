"""What the proxy would have said about a timeline: the real core, in observe mode, on recorded time."""

import math
from dataclasses import dataclass
from typing import Final

from colo_compare.core.actions import Divergence
from colo_compare.core.counters import OBSERVED, S_NOT_COMPARED, S_UNPLACED, Counters
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import OBSERVE, Settings
from colo_compare.core.sides import CLIENT, SECONDARY, SIDE_NAMES
from colo_compare.errors import CaptureError
from colo_compare.replay.timeline import Timeline
from colo_compare.wire.frame import parse_frame

# The core looks round every second. Between two captures whose clocks are decades apart it would do so for
# hours; after this many looks all that could still be due is due, and the rest of a gap is jumped over.
_TIMERS_IN_A_GAP: Final = 10_000


# Nothing is left out for want of memory: what waits is as much as fits into compare_timeout.
_NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True)
class Waits:
    """How long primary frames would have waited, seconds; percentiles are over all frames."""

    frames: int
    waited: int  # those that would not have gone at once
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, waits: list[float], frames: int) -> "Waits":
        """Summarize the waits of those that waited, out of so many frames (percentiles: nearest rank)."""
        ordered = sorted(waits)
        at_once = max(frames - len(ordered), 0)

        def percentile(share: float) -> float:
            rank = math.ceil((at_once + len(ordered)) * share) - 1 - at_once
            return ordered[rank] if rank >= 0 else 0.0

        return cls(at_once + len(ordered), len(ordered), percentile(0.50), percentile(0.99), percentile(1.0))


@dataclass(frozen=True)
class Verdict:
    """The outcome of one replay. Times of divergences are seconds from the timeline's start."""

    timeline: Timeline
    counters: Counters
    divergences: list[Divergence]
    waits: Waits

    def frames(self) -> dict[str, int]:
        """Give the number of frames by side."""
        return dict(zip(SIDE_NAMES, self.counters.received, strict=True))

    @property
    def unplaced(self) -> int:
        """Frames of the secondary in connections whose beginning was not captured: never compared."""
        return self.counters.secondary[S_UNPLACED]

    @property
    def not_compared(self) -> int:
        """Frames of the secondary that nothing was compared with, these and what is never compared."""
        return self.unplaced + self.counters.secondary[S_NOT_COMPARED]

    @property
    def equal(self) -> bool:
        """Whether the secondary said all that the primary said."""
        return not self.divergences


def judge(timeline: Timeline, compare_timeout: float) -> Verdict:
    """Run a timeline through the core. Raises CaptureError if a file breaks off."""
    settings = Settings(
        mode=OBSERVE,
        compare_timeout=compare_timeout,
        max_held_frames=_NO_LIMIT,
        max_held_bytes=_NO_LIMIT,
        max_flow_bytes=_NO_LIMIT,
    )
    proxy = Proxy(settings, 0.0)
    proxy.start(0.0)
    divergences: list[Divergence] = []
    waits: list[float] = []
    now = 0.0
    for at, side, data in timeline:
        # A file may be a little out of order (several queues, one writer); the core's time never goes back.
        now = max(now, at)
        _run_timers(proxy, now, divergences, waits)
        proxy.receive(side, [parse_frame(data, 0, inbound=side == CLIENT)], now)
        _collect(proxy, divergences, waits)
    # What never got its counterpart shows by its age.
    _run_timers(proxy, now + compare_timeout * 2, divergences, waits)
    counters = proxy.counters
    verdict = Verdict(timeline, counters, divergences, Waits.of(waits, counters.released[OBSERVED]))
    if verdict.equal and verdict.not_compared == counters.received[SECONDARY]:
        raise CaptureError(
            f"{timeline.secondary.path}: no connection of {timeline.guests} begins in both captures, "
            "so there is nothing to compare: start both before the connections"
        )
    return verdict


def _run_timers(proxy: Proxy, now: float, divergences: list[Divergence], waits: list[float]) -> None:
    """Let the core do what was due up to `now`, each at its own time."""
    for _ in range(_TIMERS_IN_A_GAP):
        if (due := proxy.next_timer()) > now:
            return
        proxy.handle_timer(due)
        _collect(proxy, divergences, waits)
    proxy.handle_timer(now)
    _collect(proxy, divergences, waits)


def _collect(proxy: Proxy, divergences: list[Divergence], waits: list[float]) -> None:
    """Keep what the core has to tell; the frames that it would send have gone out long ago."""
    actions = proxy.take_actions()
    divergences.extend(event for event in actions.events if isinstance(event, Divergence))
    waits.extend(actions.waits)
