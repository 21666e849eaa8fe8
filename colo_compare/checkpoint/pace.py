r"""How long a pair should go without a checkpoint, from what checkpoints cost: no I/O, no clock.

A checkpoint copies what the primary has written since the last one, so its pause grows with its age `t`:
about ``a + b*t``. Somebody always waits for it. Made regularly every `T` seconds, the primary stands still
for ``(a + b*T) / T`` of the time. Made because the guests differ, `r` times a second, at an age that is `T/2`
on average, the client waits ``r * (a + b*T/2)`` seconds a second. The sum of both is the share of time that
is lost, and it is least at

    ``T = sqrt(2*a / (r*b))``

So a pair whose pauses do not grow, or whose guests never differ, makes hardly any regular checkpoints; one
that writes much and differs seldom makes them often enough that the rare ones that somebody waits for are
short. Where the guests differ more often than every `T` seconds, no regular one is ever due.

`a` and `b` are the line through the last checkpoints (least squares; neither is negative). `r` is counted
with a memory that fades. (A target for the pause was the alternative: it would need a number that nobody
knows, and would be missed in vain where `a` alone is above it.)
"""

import math
from collections import deque
from typing import Final

SHORTEST: Final = 1.0  # seconds
LONGEST: Final = 60.0
SHARE: Final = 0.05  # of the time that regular checkpoints may take at most
REMEMBERED: Final = 32  # checkpoints
FADES: Final = 300.0  # seconds after which a divergence counts for 1/e


class Pace:
    """Watches checkpoints, and gives the interval. Times are seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._last: float | None = None  # commit
        self._costs: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # age, pause
        self._divergences = 0.0  # faded
        self._counted_at = now

    def committed(self, now: float, pause: float | None, *, diverged: bool) -> None:
        """Note a commit: how long the primary stood still (None: unknown), and whether guests differed."""
        self._divergences = self._faded(now) + diverged
        self._counted_at = now
        if self._last is not None and pause is not None:
            self._costs.append((now - self._last, pause))
        self._last = now

    def _faded(self, now: float) -> float:
        return self._divergences * math.exp(-(now - self._counted_at) / FADES)

    def rate(self, now: float) -> float:
        """Give how often guests differ, per second."""
        # As much as a constant rate of 1 would have counted since the beginning.
        counted = FADES * -math.expm1(-max(now - self._began, 1.0) / FADES)
        return self._faded(now) / counted

    def cost(self) -> tuple[float, float]:
        """Give `a` (seconds) and `b` (seconds for each second of age) of the pause."""
        number = len(self._costs)
        if not number:
            return 0.0, 0.0
        age = sum(age for age, _ in self._costs) / number
        pause = sum(pause for _, pause in self._costs) / number
        spread = sum((each - age) ** 2 for each, _ in self._costs)
        slope = sum((each - age) * (its - pause) for each, its in self._costs) / spread if spread else 0.0
        slope = min(max(slope, 0.0), pause / age if age else 0.0)  # at age 0 no pause is below 0
        return max(pause - slope * age, 0.0), slope

    def interval(self, now: float) -> float:
        """Give how long to wait for the next checkpoint at most, seconds from the last."""
        fixed, growth = self.cost()
        lost = self.rate(now) * growth
        best = math.sqrt(2.0 * fixed / lost) if lost else LONGEST
        longest = max((pause for _, pause in self._costs), default=0.0)
        return min(max(best, longest / SHARE, SHORTEST), LONGEST)
