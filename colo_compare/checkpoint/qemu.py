"""The checkpointer for a pair of QEMU guests in COLO: docs/qemu.md.

The pair's life is in `qemu_sequence`, what a guest can be told in `qemu_guest`, how it is killed in
`qemu_fence`. Here they meet: one task for each monitor, one that performs steps in order, one for time.
"""

import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec
import trio

from colo_compare.checkpoint.contract import (
    Capabilities,
    Checkpointer,
    CheckpointHandlers,
    Connect,
    Figures,
    NewSecondary,
)
from colo_compare.checkpoint.pace import Pace
from colo_compare.checkpoint.qemu_filters import Filters
from colo_compare.checkpoint.qemu_guest import QemuGuest
from colo_compare.checkpoint.qemu_options import QemuOptions, check_options, disks_of
from colo_compare.checkpoint.qemu_pair import check_pair, form_pair, make_pair, part
from colo_compare.checkpoint.qemu_sequence import (
    OVER,
    ContinuePrimary,
    Examine,
    ReportBegun,
    ReportCommitted,
    ReportFailed,
    ReportLoaded,
    ReportLost,
    ReportPaused,
    Sequence,
    Step,
    StopPrimary,
    Trigger,
)
from colo_compare.checkpoint.qemu_watch import Watch
from colo_compare.checkpoint.qmp_protocol import MonitorEvent
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.counters import BACKEND, OPERATOR, PERIODIC, STARTUP
from colo_compare.core.sides import PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import (
    CheckpointerError,
    ConfigError,
    MonitorError,
    MonitorRefused,
    PromotionFailed,
    ProtectionFailed,
)

logger: Final = logging.getLogger(__name__)


# Reasons for a checkpoint that say nothing of how often guests differ.
UNFORCED: Final = frozenset((STARTUP, PERIODIC, OPERATOR, BACKEND))


class QemuCheckpointer(Checkpointer):
    """Drives the COLO of two QEMU processes through their monitors."""

    Options = QemuOptions
    options: QemuOptions
    capabilities = Capabilities(
        reports_pause=True,
        reports_load=True,
        copies_state=True,
        can_promote=True,
        can_fence=True,
        starts_by_itself=True,
        can_protect=True,
    )

    def __init__(self, options: QemuOptions) -> None:
        super().__init__(options)
        check_options(options)
        self._disks = disks_of(options)
        self._filters = Filters()  # of the guest that took over
        self._watch: Final = Watch(self)
        self.guests: dict[int, QemuGuest] = {}  # by role
        self.handlers: CheckpointHandlers
        self._nursery: trio.Nursery
        self.sequence: Sequence | None = None
        self._steps: deque[Step] = deque()
        self._changed = trio.Event()  # set when there are steps to perform, or the deadline is another one
        self._epoch = 0  # that the checkpoint under way will begin
        self._over = trio.Event()  # set when its result is reported
        self.can_take_over = False  # the secondary: a checkpoint of this pair was committed
        self._committed = 0
        self._failed = 0
        self._last_epoch = 0  # that was committed
        self._last_pause = 0.0
        self._pace: Pace | None = None  # from the first commit on
        self._diverged = False  # the checkpoint under way is made because the guests differ

    # Running

    async def run(self, handlers: CheckpointHandlers) -> None:
        """Connect to both monitors, make the pair or join it, and serve until cancelled.

        Raises CheckpointerError when that cannot be done.
        """
        self.handlers = handlers
        failure: Exception | None = None
        try:
            await self._connect()
            async with trio.open_nursery() as self._nursery:
                try:
                    await self._serve()
                except Exception as error:
                    failure = error  # raised below: the nursery would make a group of it
                self._nursery.cancel_scope.cancel()
        finally:
            self.sequence = None
            with trio.CancelScope(shield=True):
                for guest in self.guests.values():
                    await guest.aclose()
        if failure is not None:
            raise failure

    async def _connect(self) -> None:
        options = self.options
        for side, address in ((PRIMARY, options.primary), (SECONDARY, options.secondary)):
            guest = QemuGuest(address, self._on_event, timeout=options.heartbeat_timeout)
            self.guests[side] = guest
            await guest.connect(options.tls_dir, options.fence, options.fence_timeout)

    async def _serve(self) -> None:
        primary, secondary = guests = self.guests[PRIMARY], self.guests[SECONDARY]
        for guest in guests:
            self.read(guest)
        options = self.options
        filters = await Filters.of(primary)  # which it had lost before this process began
        await filters.check(options, secondary)
        async with filters.restoring(primary, options):  # the client's port is being connected already
            await form_pair(primary, secondary, options.migrate_uri, options.migrate_timeout, self._disks)
            await filters.restore(primary, secondary, trio.lowlevel.checkpoint)
        self._begin(primary, secondary)
        self._nursery.start_soon(self._watch.over, primary)
        await self._perform_steps()

    def _begin(self, primary: QemuGuest, secondary: QemuGuest) -> None:
        """Begin the life of a pair; the primary is watched already, or will be."""
        logger.info("%s and %s are a pair", primary.address, secondary.address)
        self.can_take_over = False
        self._pace = None  # what lies between two pairs is no age of a checkpoint
        self._steps.clear()
        self.sequence = Sequence(self.options.checkpoint_timeout)
        self._nursery.start_soon(self._watch.over, secondary)
        self._nursery.start_soon(self._watch_time, self.sequence)

    def read(self, guest: QemuGuest) -> None:
        """Let a guest's monitor be read, until its connection ends."""
        self._nursery.start_soon(_read, guest)

    @property
    def ready(self) -> bool:
        """Whether there is a pair."""
        return self.sequence is not None and self.sequence.state != OVER

    def figures(self) -> Mapping[str, int | float | str | bool]:
        """Give the state of the pair, and what its checkpoints cost."""
        figures: dict[str, int | float | str | bool] = {
            "state": "connecting" if self.sequence is None else self.sequence.state,
            "committed": self._committed,
            "failed": self._failed,
            "last_pause_seconds": self._last_pause,
            "advised_interval_seconds": self.advised_interval(),
        }
        for side, guest in self.guests.items():
            figures[SIDE_NAMES[side]] = guest.address
        return figures

    # Events

    def _on_event(self, guest: QemuGuest, event: MonitorEvent) -> None:
        sequence = self.sequence
        side = self.side_of(guest)
        if sequence is None or side is None:
            return
        logger.debug("%s: %s", SIDE_NAMES[side], event.name)
        now = trio.current_time()
        if event.name == "STOP":
            self.add(sequence.stopped(side, event.at, now))
        elif event.name == "RESUME":
            self.add(sequence.resumed(side, event.at, now))
        elif event.name == "COLO_EXIT":
            self.add(sequence.left_colo(side))

    def side_of(self, guest: QemuGuest) -> int | None:
        """Give a guest's role, None for one that is no part of the pair."""
        return next((side for side, each in self.guests.items() if each is guest), None)

    def add(self, steps: list[Step]) -> None:
        """Let steps be performed after those that wait already."""
        self._steps += steps
        self._changed.set()
        self._changed = trio.Event()

    async def _watch_time(self, sequence: Sequence) -> None:
        while sequence.state != OVER:
            changed = self._changed
            with trio.move_on_at(sequence.deadline):
                await changed.wait()
            if steps := sequence.handle_timer(trio.current_time()):
                self.add(steps)

    # Steps

    async def _perform_steps(self) -> None:
        while True:
            while self._steps:
                await self._perform(self._steps.popleft())
            await self._changed.wait()

    async def _perform(self, step: Step) -> None:
        assert self.sequence is not None
        handlers = self.handlers
        if isinstance(step, StopPrimary | ContinuePrimary | Trigger):
            await self._command(step)
        elif isinstance(step, ReportBegun):
            self._epoch = await handlers.begun()
        elif isinstance(step, ReportPaused):
            await handlers.paused(self._epoch)
            self.add(self.sequence.drained(trio.current_time()))
        elif isinstance(step, ReportLoaded):
            await handlers.loaded(self._epoch)
        elif isinstance(step, ReportCommitted):
            self.can_take_over = True
            self._committed += 1
            self._last_epoch = self._epoch
            self._last_pause = step.pause or 0.0
            self._note_pace(step.pause)
            await handlers.committed(self._epoch, Figures(pause=step.pause))
            self._over.set()
        elif isinstance(step, ReportFailed):
            self._failed += 1
            await handlers.failed(self._epoch, step.detail, secondary_intact=step.secondary_intact)
            self._over.set()
        elif isinstance(step, ReportLost):
            await handlers.guest_lost(step.side, step.detail)
        elif isinstance(step, Examine):
            # Beside the steps: while it is found out who is to blame, events still mean something.
            self._nursery.start_soon(self._watch.examine, step.detail, SECONDARY)

    def _note_pace(self, pause: float | None) -> None:
        if self.options.adaptive_interval:
            now = trio.current_time()
            self._pace = self._pace or Pace(now)
            self._pace.committed(now, pause, diverged=self._diverged)
        self._diverged = False

    def advised_interval(self) -> float:
        """Give the interval that costs least, from what the last checkpoints cost."""
        return math.inf if self._pace is None else self._pace.interval(trio.current_time())

    async def _command(self, step: StopPrimary | ContinuePrimary | Trigger) -> None:
        assert self.sequence is not None
        primary = self.guests[PRIMARY]
        try:
            if isinstance(step, StopPrimary):
                await primary.stop()
            elif isinstance(step, ContinuePrimary):
                await primary.cont()
            else:
                await primary.trigger()
        except MonitorRefused as error:
            self.add(self.sequence.refused(str(error), trio.current_time()))
        except MonitorError as error:
            # Hung or dead: who watches the guest finds out which.
            logger.warning("the primary does not do as it is told: %s", error)

    # What the proxy asks for

    async def request(self, request: CheckpointRequest) -> None:
        """Make a checkpoint, and wait for its end. Raises CheckpointerError when there is no pair."""
        if self.sequence is None or not self.ready:
            raise CheckpointerError("checkpointer qemu has no pair of guests in COLO")
        if request.epoch <= self._last_epoch:
            return  # QEMU has made it by itself, between this request and its arrival here
        self._epoch = request.epoch
        self._diverged = not UNFORCED.issuperset(request.reasons)
        self._over = over = trio.Event()
        self.add(self.sequence.request(trio.current_time()))
        try:
            await over.wait()
        except trio.Cancelled:
            self.add(self.sequence.cancel(trio.current_time()))
            raise

    async def promote(self, side: int) -> None:
        """Fence the other guest, and let this one run alone. Raises PromotionFailed."""
        try:
            await self._dissolve(side)
        except CheckpointerError as error:
            raise PromotionFailed(f"the {SIDE_NAMES[side]} was not promoted: {error}") from None

    async def abandon(self, side: int) -> None:
        """Fence this guest, and let the other one run alone. Raises CheckpointerError."""
        survivor = self.guests.get(PRIMARY if side == SECONDARY else SECONDARY)
        stands = False
        if survivor is not None:
            # First of all, as a primary that stands still in a checkpoint serves nobody. It leaves the
            # pair only when the other guest is dead.
            try:
                await survivor.cont()
            except MonitorError as error:
                # Its main loop may be locked while it sends a state that the other one does not take.
                logger.warning("it does not run on before the other guest is dead: %s", error)
                stands = True
        await self._dissolve(PRIMARY if side == SECONDARY else SECONDARY, stands=stands)

    async def _dissolve(self, side: int, *, stands: bool = False) -> None:
        if self.sequence is None:
            raise CheckpointerError("checkpointer qemu is not running")
        survivor = self.guests.get(side)
        other_side = PRIMARY if side == SECONDARY else SECONDARY
        other = self.guests.get(other_side)
        if survivor is None or other is None:
            raise CheckpointerError("there is no pair any more")
        fenced = await other.fence.fence(other_side)
        self.sequence.end()
        self.guests = {PRIMARY: survivor}
        if side == SECONDARY:
            await self._disks.unplug_secondary(survivor)
        else:
            await self._disks.unplug_primary(survivor)
        if stands:
            await survivor.cont()
        await survivor.run_alone(fenced, self.options.fence_timeout)
        if side == SECONDARY:
            self._filters = Filters()
            self.releases_by_port = await self._filters.drop(survivor, self.options.secondary_filters)
        await other.aclose()
        if side == SECONDARY:
            # The monitor that is gone may be where the next guest's will be.
            swapped = {"primary": survivor.address, "secondary": other.address}
            self.options = msgspec.structs.replace(self.options, **swapped)

    async def protect(self, new: NewSecondary) -> None:
        """Make a pair of the guest that runs alone and one that waits with -incoming.

        Raises ProtectionFailed, or ConfigError.
        """
        options = new.options
        assert isinstance(options, QemuOptions)
        check_options(options)
        if options.primary != self.options.primary:
            raise ConfigError("$.checkpointer.primary", "is the monitor of the guest that is left: leave it")
        try:
            await self._protect(options, new.connect_client)
        except CheckpointerError as error:
            raise ProtectionFailed(str(error)) from None

    async def _protect(self, options: QemuOptions, connect_client: Connect) -> None:
        if SECONDARY in self.guests:
            await self.abandon(SECONDARY)  # once more, as this failed
        survivor = self.guests.get(PRIMARY)
        if survivor is None or survivor.monitor.gone.is_set():
            raise CheckpointerError(
                f"nothing is known any more of the guest that runs alone ({options.primary}), as its monitor "
                "was lost; start the proxy again"
            )
        guest = QemuGuest(options.secondary, self._on_event, timeout=options.heartbeat_timeout)
        try:
            await guest.connect(options.tls_dir, options.fence, options.fence_timeout)
            self.read(guest)
            await self._filters.check(options, guest)
            await check_pair(survivor, guest, options.migrate_uri)
            async with self._filters.restoring(survivor, options):
                await self._make_pair(survivor, guest, options, connect_client)
        except BaseException:
            if SECONDARY not in self.guests:  # else it still has to be fenced, by what it was connected with
                with trio.CancelScope(shield=True):
                    await guest.aclose()
            raise
        self.options = options
        self._filters = Filters()
        self.releases_by_port = False
        self._begin(survivor, guest)

    async def _make_pair(
        self, survivor: QemuGuest, guest: QemuGuest, options: QemuOptions, connect_client: Connect
    ) -> None:
        disks = disks_of(options)
        self.guests[SECONDARY] = guest
        try:
            await make_pair(survivor, guest, options.migrate_uri, options.migrate_timeout, disks)
            await self._filters.restore(survivor, guest, connect_client)
        except BaseException:
            with trio.CancelScope(shield=True):
                await part(survivor, guest, options.fence_timeout)
                del self.guests[SECONDARY]
            raise
        self._disks = disks


async def _read(guest: QemuGuest) -> None:
    try:
        await guest.monitor.run()
    except MonitorError as error:
        logger.info("%s", error)
