"""What the doctor has to say of one thing."""

from dataclasses import dataclass
from typing import Final

GOOD: Final = "ok"
DOUBTFUL: Final = "warn"  # it works, and not as well as it could
BAD: Final = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: str  # GOOD, DOUBTFUL or BAD
    about: str  # what was looked at: "client port"
    text: str  # how it is
    fix: str = ""  # a command, or what to do; never empty where the state is not GOOD


def good(about: str, text: str) -> Finding:
    """Give a finding that is well."""
    return Finding(GOOD, about, text)


def doubtful(about: str, text: str, fix: str) -> Finding:
    """Give a finding that could be better."""
    return Finding(DOUBTFUL, about, text, fix)


def bad(about: str, text: str, fix: str) -> Finding:
    """Give a finding that keeps the proxy from working."""
    return Finding(BAD, about, text, fix)
