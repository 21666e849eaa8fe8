"""Non-determinism on purpose: what makes two guests with equal memories say different things.

It lives outside the guest's memory, as its source does in a real machine: a checkpoint does not copy it, so
the two guests go on to differ after each one.
"""

from dataclasses import dataclass, field
from random import Random


@dataclass
class Noise:
    """Which sources of non-determinism are on. Two guests with different seeds differ."""

    seed: int = 0
    random_every: int = 0  # each so many HTTP requests are answered with a random header; 0: none
    random_isn: bool = False  # initial sequence numbers are random, not computed (RFC 6528)
    clock_jitter: float = 0.0  # seconds; each call sees a clock that is fast by up to so much
    random: Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def token(self) -> int:
        """Give 64 random bits."""
        return self.random.getrandbits(64)

    def jitter(self) -> int:
        """Give by how many microseconds the clock is fast now."""
        return int(self.random.random() * self.clock_jitter * 1e6) if self.clock_jitter else 0
