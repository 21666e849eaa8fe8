"""What the core wants done, and what it has to tell.

`Proxy.take_actions()` gives one `Actions`: frames to send for each side, in order, checkpoint requests for
the backend, and events for people. The shell performs all of it before it feeds the core again.
"""

from dataclasses import dataclass
from typing import Final

from colo_compare.wire.frame import Frame


@dataclass(frozen=True)
class CheckpointRequest:
    """Ask the checkpointer for the checkpoint that will start `epoch`."""

    epoch: int  # the epoch that begins with its commit
    reasons: tuple[str, ...]  # every reason that shares this checkpoint, first first, each once
    flow: str  # the flow that asked first, readable ("" where none did)


@dataclass(frozen=True)
class Event:
    """Something that a person or a log wants to know."""

    at: float  # the core's time, seconds


@dataclass(frozen=True)
class Evidence:
    """The frame in which one side said what the other one did not. A reference, no copy."""

    data: bytes  # as its port gave it; b"" where this side said nothing
    at: int  # index in `data` of the first byte that differs
    seen: float  # when it came; -1 where that is not known


NOTHING: Final = Evidence(b"", 0, -1.0)


@dataclass(frozen=True)
class Divergence(Event):
    """The secondary said something else."""

    id: int  # counts from 1
    epoch: int
    flow: str
    reason: str  # one of counters.REQUEST_REASONS
    offset: int  # bytes from the start of the guest's stream (as far as known), or of the datagram
    primary: bytes  # what each side said there, at most 64 bytes
    secondary: bytes
    ours: Evidence = NOTHING  # the primary's frame
    theirs: Evidence = NOTHING  # the secondary's frame


@dataclass(frozen=True)
class CheckpointRequested(Event):
    """A checkpoint was asked of the backend."""

    request: CheckpointRequest


@dataclass(frozen=True)
class CheckpointCommitted(Event):
    """An epoch began."""

    epoch: int
    reasons: tuple[str, ...]
    request_to_commit: float  # seconds
    released: int  # primary frames that it covered
    discarded: int  # secondary frames that it made void


@dataclass(frozen=True)
class CheckpointAborted(Event):
    """A checkpoint failed or timed out."""

    epoch: int
    detail: str


@dataclass(frozen=True)
class ModeChanged(Event):
    """The mode is another one now."""

    old: str
    new: str
    why: str


@dataclass(frozen=True)
class SideLost(Event):
    """A guest is gone."""

    side: int
    released: int  # held frames that went out
    discarded: int  # held frames that nobody will see


@dataclass(frozen=True)
class Promoted(Event):
    """The secondary is the primary now."""

    discarded: int  # held frames of the old primary
    flushed: int  # frames of the new one that went out at once
    flows: int  # flows that live on
    rewritten: int  # of these, flows that keep their rewriter


@dataclass(frozen=True)
class SecondaryJoined(Event):
    """The guest that ran alone has a new secondary, not yet equal to it. (The shell tells it.)"""

    port: str  # its name in the configuration
    url: str


@dataclass(init=False)  # a generated one is never compiled, and took 400 ns of each batch
class Actions:
    """What to do now."""

    to_client: list[Frame]
    to_primary: list[Frame]
    to_secondary: list[Frame]
    requests: list[CheckpointRequest]
    events: list[Event]
    waits: list[float]  # seconds, of each primary frame that waits no longer

    def __init__(self) -> None:
        self.to_client = []
        self.to_primary = []
        self.to_secondary = []
        self.requests = []
        self.events = []
        self.waits = []
