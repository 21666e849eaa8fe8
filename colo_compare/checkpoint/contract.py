r"""What a checkpointer is to the proxy, and the proxy to a checkpointer.

A backend is a class registered under the entry-point group ``colo_compare.checkpointers``. The proxy asks
it (`request`, `promote`) and it reports (`CheckpointHandlers`). The order of reports in one checkpoint::

    request(r) or begun() -> [paused] -> [loaded] -> committed
                                \__________\______-> failed

Each handler is awaited: when `paused` returns, the proxy has drained the primary's port, so a backend that
holds the guests resumes them only then. A backend that cannot tell when the primary stopped leaves `paused`
out (capability ``reports_pause = False``): the proxy then holds everything from the request on.

The life of the pair, seen from the proxy::

    run() -> checkpoints -> promote() or abandon() -> one guest alone -> protect() -> checkpoints -> ...
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import msgspec

from colo_compare.core.actions import CheckpointRequest
from colo_compare.errors import ProtectionFailed


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. The proxy asks nothing that is not stated here."""

    reports_pause: bool  # calls `paused` when the primary has stopped
    reports_load: bool  # calls `loaded` when the secondary has the new state
    copies_state: bool  # a commit makes the secondary equal to the primary; `null` copies nothing
    can_promote: bool  # `promote` does something; else the operator, or a cluster, makes the guest take over
    can_fence: bool  # `promote` and `abandon` make sure that the other guest is dead or cut off first
    starts_by_itself: bool  # calls `begun` for checkpoints that nobody requested
    can_protect: bool = False  # `protect` makes a pair of the guest that runs alone and a new secondary


@dataclass(frozen=True)
class Figures:
    """What a checkpoint cost; None where the backend does not know."""

    pause: float | None = None  # seconds that the primary stood still
    bytes: int | None = None  # sent while it did
    pages: int | None = None
    detail: Mapping[str, int | float | str] | None = None  # more, by the backend's own names


Connect = Callable[[], Awaitable[None]]


async def _no_client() -> None:
    raise ProtectionFailed("the client's port cannot be connected again")


@dataclass(frozen=True)
class NewSecondary:
    """The guest that shall be the secondary of the one that runs alone."""

    port: str  # the name in the configuration of the port that it is behind: "primary" or "secondary"
    url: str  # of that port now
    options: msgspec.Struct  # an instance of the backend's `Options`: those in force from now on

    # For a backend that `releases_by_port`, to await when the guest that is left listens for the client's
    # port: what is released goes out there from the return on. What that guest says must be taken from it
    # only then. Raises ProtectionFailed, PortError.
    connect_client: Connect = _no_client


class CheckpointHandlers(Protocol):
    """What a backend reports. `side` is core.sides.PRIMARY or SECONDARY (the role at that time)."""

    async def begun(self) -> int:
        """Report a checkpoint that the backend started by itself; gives the epoch that it will begin."""

    async def paused(self, epoch: int) -> None:
        """Report that the primary no longer runs. Returns when its port is drained."""

    async def loaded(self, epoch: int) -> None:
        """Report that the secondary has the new state, not yet running. Returns when its port is drained."""

    async def committed(self, epoch: int, figures: Figures) -> None:
        """Report that the secondary can take over from the new state."""

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        """Report that nothing was committed. `secondary_intact`: it still has its old, complete state."""

    async def guest_lost(self, side: int, detail: str) -> None:
        """Report that a guest is gone (and fenced, if the backend can fence)."""


class Checkpointer(ABC):
    """A backend: a class with a name in the entry-point group ``colo_compare.checkpointers``."""

    # What its configuration table may hold besides `backend`; declared with forbid_unknown_fields=True.
    # Durations and sizes: colo_compare.quantities.
    Options: ClassVar[type[msgspec.Struct]]

    capabilities: Capabilities

    # Those in force, where it can protect again: a new pair starts from them. So `promote` changes what they
    # say of the primary.
    options: msgspec.Struct

    # From `promote` on: whether what is sent to the port of the guest that was promoted goes out to clients.
    # Where the client's port went with the old primary, that is the only way left, until `protect` has made
    # another one (`NewSecondary.connect_client`).
    releases_by_port: bool = False

    def __init__(self, options: msgspec.Struct) -> None:
        """Take the options, an instance of `Options`. Opens and starts nothing.

        Raises ConfigError (paths below ``$.checkpointer``) for what the types of `Options` cannot refuse.
        """
        self.options = options

    def check_mode(self, mode: str) -> None:  # noqa: B027 - most backends serve every mode
        """Raise ConfigError when this backend, with its options, must not serve that mode.

        Asked when the configuration is read, and before an operator changes the mode.
        """

    @abstractmethod
    async def run(self, handlers: CheckpointHandlers) -> None:
        """Connect, and serve until cancelled. Raises CheckpointerError when it cannot go on.

        Called once, before any other method. `ready` turns true when requests can be served.
        """

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether it is connected to what it needs."""

    @abstractmethod
    async def request(self, request: CheckpointRequest) -> None:
        """Make a checkpoint. May return before it is made: the result comes through the handlers.

        One request is under way at a time. Cancelled when the proxy stops or gives up waiting; it then
        reports nothing more. Raises CheckpointerError when it is not running.
        """

    @abstractmethod
    async def promote(self, side: int) -> None:
        """Make the guest on this side take over, the other one fenced first. Raises PromotionFailed."""

    @abstractmethod
    async def abandon(self, side: int) -> None:
        """Go on without the guest on this side, fenced first; the other one keeps running alone.

        Raises CheckpointerError.
        """

    async def protect(self, new: NewSecondary) -> None:
        """Make a pair of the guest that runs alone and a new secondary; `ready` is true when it returns.

        Asked for after `promote` or `abandon` has ended, as often as guests are lost. The guest that runs
        alone is the primary, whatever it was before; it serves clients all the time. After the return the
        proxy asks for a checkpoint, and the pair is protected when that commits.

        Raises ProtectionFailed, or ConfigError for options that it must refuse. The guest then runs alone as
        before, and this can be asked for again. The same holds when it is cancelled: because the proxy
        stops, the guest is lost, the new one was reported lost, or nobody wants to wait any longer.
        """
        raise ProtectionFailed("this checkpointer cannot take a new secondary: restart the proxy with one")

    def advised_interval(self) -> float:
        """Give how long a pair should go without a checkpoint at most, in seconds; `math.inf`: no advice.

        Asked after each commit. The proxy takes the shorter of this and the operator's `max_interval`.
        """
        return math.inf

    def figures(self) -> Mapping[str, int | float | str | bool]:
        """Give the backend's own state for `status`, by its own names."""
        return {}
