"""The checkpointer that copies nothing: every request is committed at once.

For two guests that are known to behave alike (a unit under test, a stateless service with fixed sequence
numbers), and for the modes observe and bypass, which never ask for a checkpoint.
"""

import msgspec
import trio

from colo_compare.checkpoint.contract import (
    Capabilities,
    Checkpointer,
    CheckpointHandlers,
    Figures,
    NewSecondary,
)
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.settings import PROTECT
from colo_compare.core.sides import SIDE_NAMES
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed, ProtectionFailed


class NullOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the `null` backend."""

    assume_deterministic: bool = False  # the operator knows that the guests stay equal without copies


class NullCheckpointer(Checkpointer):
    """Commits at once and copies nothing.

    Its commit claims that the secondary equals the primary. Where that is not so, the client's connections
    break at the next failover: therefore it refuses to protect unless `assume_deterministic` is set.
    """

    Options = NullOptions
    capabilities = Capabilities(
        reports_pause=False,
        reports_load=False,
        copies_state=False,
        can_promote=False,
        can_fence=False,
        starts_by_itself=False,
        can_protect=True,
    )
    options: NullOptions

    def __init__(self, options: NullOptions) -> None:
        super().__init__(options)
        self._handlers: CheckpointHandlers | None = None

    def check_mode(self, mode: str) -> None:
        """Refuse `protect` unless the guests are known to be deterministic."""
        if mode == PROTECT and not self.options.assume_deterministic:
            raise ConfigError(
                "$.checkpointer.backend",
                '"null" copies no state, so a secondary that diverges could not take over: name a backend '
                "that does, use mode observe, or set assume_deterministic = true for guests that cannot",
            )

    async def run(self, handlers: CheckpointHandlers) -> None:
        """Serve until cancelled."""
        self._handlers = handlers
        try:
            await trio.sleep_forever()
        finally:
            self._handlers = None

    @property
    def ready(self) -> bool:
        """Whether `run` was called."""
        return self._handlers is not None

    async def request(self, request: CheckpointRequest) -> None:
        """Commit at once. Raises CheckpointerError before `run`."""
        if self._handlers is None:
            raise CheckpointerError("checkpointer null is not running: call run() first")
        await trio.lowlevel.checkpoint()
        await self._handlers.committed(request.epoch, Figures(pause=0.0, bytes=0, pages=0))

    async def promote(self, side: int) -> None:
        """Raise PromotionFailed: it knows no guest."""
        await trio.lowlevel.checkpoint()
        raise PromotionFailed(
            f"checkpointer null cannot promote the {SIDE_NAMES[side]}: it controls no guest"
        )

    async def protect(self, new: NewSecondary) -> None:
        """Take the operator's word that the new secondary will be the primary's like."""
        await trio.lowlevel.checkpoint()
        if self._handlers is None:
            raise ProtectionFailed("checkpointer null is not running")
        assert isinstance(new.options, NullOptions)
        self.options = new.options

    async def abandon(self, side: int) -> None:
        """Do nothing: it holds nothing of the guest."""
        await trio.lowlevel.checkpoint()
