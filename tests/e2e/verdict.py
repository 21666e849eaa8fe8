"""What the proxy's own counters must say after a test."""

import time
from typing import Any

from colo_compare.demo.lab import Network

SETTLED = 5.0  # seconds; longer than compare_timeout, so that a frame that is never matched is seen


def settled(lab: Network) -> dict[str, Any]:
    """Wait until the proxy holds nothing, and give its counters. Fails when they do not add up."""
    end = time.monotonic() + SETTLED
    while True:
        status = lab.proxy.status()
        assert_conserved(status)
        if status["held"]["frames"] == 0 or time.monotonic() > end:
            counters: dict[str, Any] = status["counters"]
            return counters
        time.sleep(0.01)


def assert_conserved(status: dict[str, Any]) -> None:
    """Check rule 10: what the primary sent was released, is held, or was discarded for a reason."""
    counters = status["counters"]
    accounted = (
        sum(counters["released"].values()) + sum(counters["discarded"].values()) + status["held"]["frames"]
    )
    assert counters["received"]["primary"] == accounted


def assert_quiet(lab: Network, *, compared: int) -> None:
    """Check that nothing diverged, no checkpoint but the first was asked for, and so much was compared."""
    counters = settled(lab)
    assert not any(counters["divergences"].values()), counters["divergences"]
    assert {reason: n for reason, n in counters["requests"].items() if n} == {"startup": 1}
    assert counters["compared_bytes"] >= compared
    assert counters["promotions"] == counters["secondaries_lost"] == 0
