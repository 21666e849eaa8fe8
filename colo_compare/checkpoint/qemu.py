"""The checkpointer for a pair of QEMU guests in COLO: docs/qemu.md.

The pair's life is in `qemu_sequence`, what a guest can be told in `qemu_guest`, how it is killed in
`qemu_fence`. Here they meet: one task for each monitor, one that performs steps in order, one for time.
"""

import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
import trio

from colo_compare.checkpoint.contract import Capabilities, Checkpointer, CheckpointHandlers, Figures
from colo_compare.checkpoint.pace import Pace
from colo_compare.checkpoint.qemu_blame import LIVES, blame, is_well
from colo_compare.checkpoint.qemu_disks import Disks
from colo_compare.checkpoint.qemu_guest import QemuGuest
from colo_compare.checkpoint.qemu_pair import form_pair
from colo_compare.checkpoint.qemu_sequence import (
    COPYING,
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
from colo_compare.checkpoint.qmp_address import TLS, MonitorAddress
from colo_compare.checkpoint.qmp_protocol import MonitorEvent
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.counters import BACKEND, OPERATOR, PERIODIC, STARTUP
from colo_compare.core.sides import PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import CheckpointerError, ConfigError, MonitorError, MonitorRefused, PromotionFailed
from colo_compare.quantities import Duration

logger: Final = logging.getLogger(__name__)


# Reasons for a checkpoint that say nothing of how often guests differ.
UNFORCED: Final = frozenset((STARTUP, PERIODIC, OPERATOR, BACKEND))


class QemuOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the `qemu` backend. Monitors: ``unix:PATH``, ``tcp:HOST:PORT``, ``tls:HOST:PORT``."""

    primary: Annotated[str, msgspec.Meta(min_length=1)]
    secondary: Annotated[str, msgspec.Meta(min_length=1)]
    migrate_uri: str = ""  # where the secondary waits for the primary's state; "": they are a pair already
    migrate_timeout: Duration = Duration(300)  # until they are
    checkpoint_timeout: Duration = Duration(1)  # beyond what the longest of the last checkpoints took, twice
    heartbeat_interval: Duration = Duration(0.5)
    heartbeat_timeout: Duration = Duration(3)  # of each answer of a monitor
    adaptive_interval: bool = True  # regular checkpoints as often as costs least
    fence: tuple[str, ...] = ()  # a program that kills a guest; a local QEMU process is killed without one
    fence_timeout: Duration = Duration(30)
    secondary_filters: tuple[str, ...] = ()  # objects that a secondary must lose when it takes over
    disks: dict[str, str] = {}  # quorum of the primary = what the secondary offers for it
    nbd: str = ""  # where the secondary offers its images of them
    copy_disks: bool = True  # before they are a pair; else the images are the same already
    tls_dir: str = ""  # with ca-cert.pem, client-cert.pem and client-key.pem


class QemuCheckpointer(Checkpointer):
    """Drives the COLO of two QEMU processes through their monitors."""

    Options = QemuOptions
    capabilities = Capabilities(
        reports_pause=True,
        reports_load=True,
        copies_state=True,
        can_promote=True,
        can_fence=True,
        starts_by_itself=True,
    )

    def __init__(self, options: QemuOptions) -> None:
        for key in ("migrate_timeout", "checkpoint_timeout", "heartbeat_interval", "heartbeat_timeout"):
            if not getattr(options, key):
                raise ConfigError(f"$.checkpointer.{key}", "must be longer than 0s")
        for key in ("primary", "secondary"):
            _check_address(key, getattr(options, key), options)
        if options.primary == options.secondary:
            raise ConfigError("$.checkpointer.secondary", "is the primary's: name its own monitor")
        self._options = options
        self._disks = _disks(options)
        self._guests: dict[int, QemuGuest] = {}  # by role
        self._lost: set[QemuGuest] = set()
        self._handlers: CheckpointHandlers
        self._nursery: trio.Nursery
        self._sequence: Sequence | None = None
        self._steps: deque[Step] = deque()
        self._changed = trio.Event()  # set when there are steps to perform, or the deadline is another one
        self._examining = False
        self._epoch = 0  # that the checkpoint under way will begin
        self._over = trio.Event()  # set when its result is reported
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
        self._handlers = handlers
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
            self._sequence = None
            with trio.CancelScope(shield=True):
                for guest in self._guests.values():
                    await guest.aclose()
        if failure is not None:
            raise failure

    async def _connect(self) -> None:
        options = self._options
        for side, address in ((PRIMARY, options.primary), (SECONDARY, options.secondary)):
            guest = QemuGuest(address, self._on_event, timeout=options.heartbeat_timeout)
            self._guests[side] = guest
            await guest.connect(options.tls_dir, options.fence, options.fence_timeout)

    async def _serve(self) -> None:
        primary, secondary = guests = self._guests[PRIMARY], self._guests[SECONDARY]
        for guest in guests:
            self._nursery.start_soon(_read, guest)
        await form_pair(
            primary, secondary, self._options.migrate_uri, self._options.migrate_timeout, self._disks
        )
        logger.info("%s and %s are a pair", primary.address, secondary.address)
        self._sequence = Sequence(self._options.checkpoint_timeout)
        for guest in guests:
            self._nursery.start_soon(self._watch, guest)
        self._nursery.start_soon(self._watch_time, self._sequence)
        await self._perform_steps()

    @property
    def ready(self) -> bool:
        """Whether there is a pair."""
        return self._sequence is not None and self._sequence.state != OVER

    def figures(self) -> Mapping[str, int | float | str | bool]:
        """Give the state of the pair, and what its checkpoints cost."""
        figures: dict[str, int | float | str | bool] = {
            "state": "connecting" if self._sequence is None else self._sequence.state,
            "committed": self._committed,
            "failed": self._failed,
            "last_pause_seconds": self._last_pause,
            "advised_interval_seconds": self.advised_interval(),
        }
        for side, guest in self._guests.items():
            figures[SIDE_NAMES[side]] = guest.address
        return figures

    # Events

    def _on_event(self, guest: QemuGuest, event: MonitorEvent) -> None:
        sequence = self._sequence
        side = self._side_of(guest)
        if sequence is None or side is None:
            return
        logger.debug("%s: %s", SIDE_NAMES[side], event.name)
        now = trio.current_time()
        if event.name == "STOP":
            self._add(sequence.stopped(side, event.at, now))
        elif event.name == "RESUME":
            self._add(sequence.resumed(side, event.at, now))
        elif event.name == "COLO_EXIT":
            self._add(sequence.left_colo(side))

    def _side_of(self, guest: QemuGuest) -> int | None:
        return next((side for side, each in self._guests.items() if each is guest), None)

    def _add(self, steps: list[Step]) -> None:
        self._steps += steps
        self._changed.set()
        self._changed = trio.Event()

    async def _watch_time(self, sequence: Sequence) -> None:
        while True:
            changed = self._changed
            with trio.move_on_at(sequence.deadline):
                await changed.wait()
            if steps := sequence.handle_timer(trio.current_time()):
                self._add(steps)

    # Steps

    async def _perform_steps(self) -> None:
        while True:
            while self._steps:
                await self._perform(self._steps.popleft())
            await self._changed.wait()

    async def _perform(self, step: Step) -> None:
        assert self._sequence is not None
        handlers = self._handlers
        if isinstance(step, StopPrimary | ContinuePrimary | Trigger):
            await self._command(step)
        elif isinstance(step, ReportBegun):
            self._epoch = await handlers.begun()
        elif isinstance(step, ReportPaused):
            await handlers.paused(self._epoch)
            self._add(self._sequence.drained(trio.current_time()))
        elif isinstance(step, ReportLoaded):
            await handlers.loaded(self._epoch)
        elif isinstance(step, ReportCommitted):
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
            self._nursery.start_soon(self._examine, step.detail, SECONDARY)

    def _note_pace(self, pause: float | None) -> None:
        if self._options.adaptive_interval:
            now = trio.current_time()
            self._pace = self._pace or Pace(now)
            self._pace.committed(now, pause, diverged=self._diverged)
        self._diverged = False

    def advised_interval(self) -> float:
        """Give the interval that costs least, from what the last checkpoints cost."""
        return math.inf if self._pace is None else self._pace.interval(trio.current_time())

    async def _command(self, step: StopPrimary | ContinuePrimary | Trigger) -> None:
        assert self._sequence is not None
        primary = self._guests[PRIMARY]
        try:
            if isinstance(step, StopPrimary):
                await primary.stop()
            elif isinstance(step, ContinuePrimary):
                await primary.cont()
            else:
                await primary.trigger()
        except MonitorRefused as error:
            self._add(self._sequence.refused(str(error), trio.current_time()))
        except MonitorError as error:
            # Hung or dead: who watches the guest finds out which.
            logger.warning("the primary does not do as it is told: %s", error)

    # Life and death

    async def _watch(self, guest: QemuGuest) -> None:
        """Look whether a guest lives, until it does not."""
        while not self._is_lost(guest):
            with trio.move_on_after(self._options.heartbeat_interval):
                await guest.wait_until_gone()
            if guest.dead:
                await self._lose(guest, "")
            elif not self.ready:
                if guest.monitor.gone.is_set():
                    logger.error("nothing is known any more of the only guest left: %s", guest.address)
                    return
            elif guest.monitor.gone.is_set() or not is_well(await guest.vitality(), copying=self._copying):
                await self._examine("its monitor does not answer", None)
                await trio.sleep(self._options.heartbeat_interval)

    @property
    def _copying(self) -> bool:
        return self._sequence is not None and self._sequence.state == COPYING

    def _is_lost(self, guest: QemuGuest) -> bool:
        return guest in self._lost or self._side_of(guest) is None

    async def _examine(self, detail: str, guilty: int | None) -> None:
        """Find out which guest does not work, and lose it.

        `guilty`: the side to lose when both answer, for the pair does not work all the same.
        """
        if self._examining or not self.ready:
            return
        self._examining = True
        try:
            side = await self._find_guilty(guilty)
            if side is not None:
                await self._lose(self._guests[side], detail)
        finally:
            self._examining = False

    async def _find_guilty(self, otherwise: int | None) -> int | None:
        guests = dict(self._guests)
        for side, guest in guests.items():
            if guest.dead:
                return side
        answers: dict[int, str] = {}

        async def ask(side: int) -> None:
            answers[side] = await guests[side].vitality()
            if side == PRIMARY and answers[side] == LIVES and otherwise == SECONDARY:
                nursery.cancel_scope.cancel()  # whatever the secondary says

        async with trio.open_nursery() as nursery:
            for side in guests:
                nursery.start_soon(ask, side)
        for side, guest in guests.items():
            if guest.dead:
                return side
        if answers[PRIMARY] == answers.get(SECONDARY, LIVES) == LIVES:
            return otherwise
        side_to_blame = blame(answers[PRIMARY], answers[SECONDARY], copying=self._copying)
        if side_to_blame is None:
            # The machine, or the way to it, may be what hangs. Whoever comes back first shows it.
            logger.error(
                "no monitor answers (the primary %s, the secondary %s): nothing is done before one does",
                answers[PRIMARY],
                answers[SECONDARY],
            )
            return None
        if side_to_blame == SECONDARY or self._committed:
            return side_to_blame
        logger.error("the primary's monitor does not answer, and the secondary could not take over yet")
        return None

    async def _lose(self, guest: QemuGuest, detail: str) -> None:
        """Make sure that a guest is dead, then say so."""
        side = self._side_of(guest)
        if side is None or guest in self._lost:
            return
        self._lost.add(guest)
        why = f"{guest.address}: {'its process has ended' if guest.dead else detail}"
        if self._sequence is None or not self.ready:
            await self._handlers.guest_lost(side, why)  # the last one: nobody takes its place
            return
        try:
            await guest.fence.fence(side)
        except CheckpointerError:
            logger.exception("the %s (%s) cannot be fenced", SIDE_NAMES[side], why)
            if side == PRIMARY:
                self._lost.discard(guest)  # it may still come back; until then nothing may take its place
                return
            # The proxy can still cut it off from the clients, and the primary can serve them.
        self._add(self._sequence.lost(side, why, trio.current_time()))

    # What the proxy asks for

    async def request(self, request: CheckpointRequest) -> None:
        """Make a checkpoint, and wait for its end. Raises CheckpointerError when there is no pair."""
        if self._sequence is None or not self.ready:
            raise CheckpointerError("checkpointer qemu has no pair of guests in COLO")
        if request.epoch <= self._last_epoch:
            return  # QEMU has made it by itself, between this request and its arrival here
        self._epoch = request.epoch
        self._diverged = not UNFORCED.issuperset(request.reasons)
        self._over = over = trio.Event()
        self._add(self._sequence.request(trio.current_time()))
        try:
            await over.wait()
        except trio.Cancelled:
            self._add(self._sequence.cancel(trio.current_time()))
            raise

    async def promote(self, side: int) -> None:
        """Fence the other guest, and let this one run alone. Raises PromotionFailed."""
        try:
            await self._dissolve(side)
        except CheckpointerError as error:
            raise PromotionFailed(f"the {SIDE_NAMES[side]} was not promoted: {error}") from None

    async def abandon(self, side: int) -> None:
        """Fence this guest, and let the other one run alone. Raises CheckpointerError."""
        survivor = self._guests.get(PRIMARY if side == SECONDARY else SECONDARY)
        if survivor is not None:
            # First of all, as a primary that stands still in a checkpoint serves nobody. It leaves the
            # pair only when the other guest is dead.
            await survivor.cont()
        await self._dissolve(PRIMARY if side == SECONDARY else SECONDARY)

    async def _dissolve(self, side: int) -> None:
        if self._sequence is None:
            raise CheckpointerError("checkpointer qemu is not running")
        survivor = self._guests.get(side)
        other_side = PRIMARY if side == SECONDARY else SECONDARY
        other = self._guests.get(other_side)
        if survivor is None or other is None:
            raise CheckpointerError("there is no pair any more")
        fenced = await other.fence.fence(other_side)
        self._sequence.end()
        self._guests = {PRIMARY: survivor}
        if side == SECONDARY:
            await self._disks.unplug_secondary(survivor)
        else:
            await self._disks.unplug_primary(survivor)
        await survivor.run_alone(fenced, self._options.fence_timeout)
        if side == SECONDARY:
            for name in self._options.secondary_filters:
                await survivor.delete_object(name)
        await other.aclose()


def _disks(options: QemuOptions) -> Disks:
    """Give the pair's disks. Raises ConfigError."""
    if options.disks and not options.nbd:
        raise ConfigError("$.checkpointer.nbd", "is missing: where does the secondary offer its images?")
    try:
        return Disks(options.disks, options.nbd, copy=options.copy_disks)
    except ValueError as error:
        raise ConfigError("$.checkpointer.nbd", str(error)) from None


async def _read(guest: QemuGuest) -> None:
    try:
        await guest.monitor.run()
    except MonitorError as error:
        logger.info("%s", error)


def _check_address(key: str, text: str, options: QemuOptions) -> None:
    """Raise ConfigError for a monitor that cannot be meant."""
    path = f"$.checkpointer.{key}"
    try:
        address = MonitorAddress.parse(text)
    except ValueError as error:
        raise ConfigError(path, str(error)) from None
    if address.kind == TLS and not options.tls_dir:
        raise ConfigError("$.checkpointer.tls_dir", f"is missing, and {key} is a monitor behind TLS")
    if address.kind != "unix" and not options.fence:
        raise ConfigError(
            "$.checkpointer.fence",
            f"is missing: {key} is reached over the network, so only a program of yours can kill that guest",
        )
