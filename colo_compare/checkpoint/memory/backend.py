"""The checkpointer for a primary on this machine and a secondary anywhere: docs/memory-checkpointer.md."""

import logging
import os
from collections.abc import Mapping
from typing import Final

import msgspec
import trio

from colo_compare.checkpoint.contract import Capabilities, Checkpointer, CheckpointHandlers, NewSecondary
from colo_compare.checkpoint.memory.attempt import Attempt
from colo_compare.checkpoint.memory.backlog import Backlog
from colo_compare.checkpoint.memory.guest_control import AUTO, SocketGuest
from colo_compare.checkpoint.memory.options import MemoryOptions, endpoint_of
from colo_compare.checkpoint.memory.outgoing import Outgoing
from colo_compare.checkpoint.memory.page_map import Run, count_pages
from colo_compare.checkpoint.memory.region import PAGE_SIZE
from colo_compare.checkpoint.memory.sender import Sender, open_channels
from colo_compare.checkpoint.memory.speaker import Delivery
from colo_compare.checkpoint.memory.states import AT_BROKEN, AT_ENDED, AT_IDLE
from colo_compare.checkpoint.memory.tracker import Tracker
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import (
    CheckpointerError,
    CheckpointFailed,
    PromotionFailed,
    ProtectionFailed,
)

logger: Final = logging.getLogger(__name__)

_RECONNECT_INTERVAL: Final = 0.1  # seconds
_PINGS: Final = 3  # of the primary, in each time-out
_ROUNDS: Final = 8  # over the memory, at most, before a new pair's first checkpoint
_REST: Final = 256  # pages left by a round that are few enough for the pause


class MemoryCheckpointer(Checkpointer):
    """Copies a primary's memory and device state to a secondary."""

    Options = MemoryOptions
    capabilities = Capabilities(
        reports_pause=True,
        reports_load=True,
        copies_state=True,
        can_promote=True,
        can_fence=True,
        starts_by_itself=False,
        can_protect=True,
    )
    options: MemoryOptions

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__(options)
        self._endpoint = endpoint_of(options)
        self.handlers: CheckpointHandlers
        self.guest: SocketGuest
        self.tracker: Tracker
        self.backlog: Backlog
        self.sender: Sender | None = None
        self._nursery: trio.Nursery | None = None  # while it runs
        self._pair: trio.Nursery  # of the tasks that serve the pair
        self._pair_over = trio.Event()  # set when they have ended
        self._memory = ""  # of the guest that serves: only that can be the primary of the next pair
        self._formed = False  # requests can be served
        self._reconnected = trio.Event()  # set, and replaced, with each new session
        self.lost = ""  # why there is no pair any more
        self.busy = False  # a checkpoint is under way: nothing else is sent
        self.committed = 0
        self._committed_before = 0  # this pair was made
        self.failed = 0
        self.presented: list[tuple[int, int]] = []  # pages and bytes sent before the pause, by channel
        self.last: dict[str, int | float] = {}  # what the last checkpoint cost

    # Running

    async def run(self, handlers: CheckpointHandlers) -> None:
        """Attach to the primary, connect to the secondary's end, and serve until cancelled.

        Raises CheckpointerError when one of them is not there.
        """
        self.handlers = handlers
        failure: Exception | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                await self._nursery.start(self._serve_pair)
                await trio.sleep_forever()
            except Exception as error:
                failure = error  # raised below: the nursery would make a group of it
            self._nursery.cancel_scope.cancel()
        self._nursery = None
        if failure is not None:
            raise failure

    async def _serve_pair(self, task_status: trio.TaskStatus[None]) -> None:
        """Attach to both ends, and serve the pair until there is another one. Started when it is a pair.

        Raises CheckpointerError when it cannot be made.
        """
        self._pair_over = over = trio.Event()
        failure: Exception | None = None
        try:
            self.guest = await SocketGuest.attach(self.options.primary, patience=self.options.timeout)
            try:
                self._check_survivor()
                self.tracker = self.guest.track(self.options.tracker, None)
                try:
                    async with trio.open_nursery() as self._pair:
                        try:
                            await self._make_pair(task_status)
                            await self._keep_connected()
                        except Exception as error:
                            failure = error  # raised below: the nursery would make a group of it
                        self._pair.cancel_scope.cancel()
                finally:
                    self.tracker.close()
            finally:
                self._formed = False
                self.sender = None
                with trio.CancelScope(shield=True):
                    await self.guest.aclose()
        finally:
            over.set()
        if failure is not None:
            raise failure

    def _check_survivor(self) -> None:
        """Raise CheckpointerError for a guest that is not the one that serves: its state is nobody's."""
        memory = self.guest.region.identity
        if self._memory and memory != self._memory:
            raise CheckpointerError(
                f"{self.options.primary}: this is not the guest that serves the clients now: "
                "name that one's control socket in $.checkpointer.primary"
            )
        self._memory = memory

    async def _make_pair(self, task_status: trio.TaskStatus[None]) -> None:
        await self._connect()
        await self._send_ahead()
        self.lost = ""
        self._committed_before = self.committed
        self._formed = True
        self._pair.start_soon(self._watch_primary)
        self._pair.start_soon(self._feel_pulse)
        self._pair.start_soon(self._presend)
        task_status.started()

    async def _send_ahead(self) -> None:
        """Send the memory while the guest runs, so that the first pause carries only what is left of it.

        Not at `presend_rate`: that is for a pair that is protected while it sends.
        """
        sender = self.sender
        assert sender is not None
        for _ in range(_ROUNDS):
            self.backlog.note(self.tracker.look())
            runs = self.backlog.take_all()
            self._count_ahead(await self.transfer(sender, runs, copy=True))
            if count_pages(runs) <= _REST:
                return

    async def _connect(self) -> None:
        """Open a session. Raises CheckpointerError."""
        options = self.options
        with trio.move_on_after(options.timeout):
            channels = await open_channels(self._endpoint, options.channels)
            outgoing = Outgoing(
                os.urandom(16),
                channels=options.channels,
                page_size=PAGE_SIZE,
                size=self.guest.region.size,
                timeout=options.timeout,
                now=trio.current_time(),
            )
            sender = Sender(
                channels,
                outgoing,
                checksums=self._endpoint.unguarded
                if options.page_checksums == AUTO
                else options.page_checksums,
                compression=options.compression,
            )
            self._pair.start_soon(sender.run)
            await sender.until(AT_IDLE)
            # In a thread: the proxy goes on. What is written meanwhile is in the tracker's next look.
            holes = await trio.to_thread.run_sync(self.guest.region.holes)
            self.backlog = Backlog(self.guest.region.pages, holes)
            self.presented = [(0, 0)] * options.channels
            self.sender = sender
            self._reconnected.set()
            self._reconnected = trio.Event()
            return
        raise CheckpointerError(f"{self._endpoint}: no session within {options.timeout:g} s")

    async def _keep_connected(self) -> None:
        while True:
            sender = self.sender
            assert sender is not None
            await self._watch_session(sender)
            if self.lost:
                await trio.sleep_forever()
            logger.warning("%s: the session broke: %s", self._endpoint, sender.outgoing.failure)
            await self._reconnect(sender.outgoing.failure)

    async def _watch_session(self, sender: Sender) -> None:
        outgoing = sender.outgoing
        while outgoing.state not in (AT_BROKEN, AT_ENDED):
            if outgoing.guest_lost and not self.lost:
                await self._lose_secondary(outgoing.guest_lost)
            await sender.changed()

    async def _reconnect(self, why: str) -> None:
        with trio.move_on_after(self.options.reconnect_timeout):
            while True:
                try:
                    await self._connect()
                except CheckpointerError as error:
                    why = str(error)
                    await trio.sleep(_RECONNECT_INTERVAL)
                else:
                    return
        await self._lose_secondary(why)
        await trio.sleep_forever()

    async def _lose_secondary(self, why: str) -> None:
        if not self.lost:
            self.lost = why
            await self.handlers.guest_lost(SECONDARY, why)

    async def _watch_primary(self) -> None:
        await self.guest.wait_gone()
        if not self.lost:
            await self.handlers.guest_lost(PRIMARY, f"{self.options.primary}: its process has ended")

    async def _feel_pulse(self) -> None:
        """Find out when the primary hangs. Who says nothing diverges in nothing, so no checkpoint would."""
        while not self.lost:
            await trio.sleep(self.options.timeout / _PINGS)
            if self.busy:
                continue
            try:
                await self.guest.ping()
            except CheckpointerError as error:
                if not self.lost:
                    await self.lose_primary(str(error))
                return

    @property
    def ready(self) -> bool:
        """Whether there is a pair."""
        sender = self.sender
        broken = sender is None or sender.outgoing.state in (AT_BROKEN, AT_ENDED)
        return self._formed and not self.lost and not broken

    async def session(self) -> Sender:
        """Give the session, or wait for the next one. Raises CheckpointFailed."""
        return await self.session_after(None)

    async def session_after(self, broken: Sender | None) -> Sender:
        """Wait for a session that works and is not this one. Raises CheckpointFailed."""
        with trio.move_on_after(self.options.reconnect_timeout):
            while True:
                sender = self.sender
                if sender is not None and sender is not broken and sender.outgoing.state != AT_BROKEN:
                    return sender
                await self._reconnected.wait()
        raise CheckpointFailed(f"{self._endpoint}: no connection to the secondary's end")

    # Between checkpoints

    async def _presend(self) -> None:
        options = self.options
        pages = int(options.presend_rate * options.presend_interval) // PAGE_SIZE
        while options.presend_rate:
            await trio.sleep(options.presend_interval)
            sender = self.sender
            if self.busy or sender is None or sender.outgoing.state != AT_IDLE:
                continue
            try:
                self.backlog.note(self.tracker.look())
                runs = self.backlog.take_quiet(max(pages, 1))
                deliveries = await self.transfer(sender, runs, copy=True)
            except CheckpointerError:
                continue  # a new session begins with all pages; a primary that is gone is noticed elsewhere
            self._count_ahead(deliveries)

    async def transfer(self, sender: Sender, runs: list[Run], *, copy: bool) -> list[Delivery]:
        """Send pages of the primary. Raises CheckpointFailed."""
        memory, holes = self.backlog.divide(runs)
        return await sender.transfer(memory, self.guest.region.view, copy=copy, holes=holes)

    def _count_ahead(self, deliveries: list[Delivery]) -> None:
        self.presented = [
            (pages + delivery.pages, size + delivery.bytes)
            for (pages, size), delivery in zip(self.presented, deliveries, strict=True)
        ]

    # What the proxy asks for

    async def request(self, request: CheckpointRequest) -> None:
        """Make a checkpoint, and wait for its end. Raises CheckpointerError when there is no pair."""
        if self.sender is None or self.lost:
            raise CheckpointerError(f"checkpointer memory has no pair of guests: {self.lost or 'call run()'}")
        self.busy = True
        try:
            await Attempt(self, request.epoch).run()
        finally:
            self.busy = False

    async def lose_primary(self, why: str) -> None:
        """Kill a primary that does not do as it is told, where the secondary can take over."""
        if self.committed == self._committed_before:
            logger.error("the primary does not work, and the secondary could not take over yet: %s", why)
            return
        try:
            await self.guest.kill()  # `_watch_primary` reports it
        except CheckpointerError:
            logger.exception("the primary does not work (%s), and cannot be fenced", why)

    async def promote(self, side: int) -> None:
        """Fence the other guest, and let this one run alone. Raises PromotionFailed."""
        if self.sender is None:
            raise PromotionFailed("checkpointer memory is not running")
        if side != SECONDARY:
            raise PromotionFailed("the primary is the primary: abandon the secondary instead")
        try:
            await self._dissolve(PRIMARY)
        except CheckpointerError as error:
            raise PromotionFailed(f"the {SIDE_NAMES[side]} was not promoted: {error}") from None

    async def abandon(self, side: int) -> None:
        """Fence this guest, and let the other one run alone. Raises CheckpointerError."""
        if self.sender is None:
            raise CheckpointerError("checkpointer memory is not running")
        await self._dissolve(side)

    async def _dissolve(self, side: int) -> None:
        """Kill the guest on a side, and end the session. Raises CheckpointerError."""
        before, self.lost = self.lost, f"the {SIDE_NAMES[side]} was fenced"  # its death is no news now
        try:
            if side == PRIMARY:
                await self.guest.kill()
            sender = await self.session()
            outgoing, now = sender.outgoing, trio.current_time()
            sender.say(outgoing.promote(now) if side == PRIMARY else outgoing.fence(now))
            await sender.until(AT_ENDED)
        except CheckpointerError:
            # A secondary that is given up stays so, dead or not. To report it lost later would be taken for a
            # report of the next one, which may be there by then.
            if side == PRIMARY:
                self.lost = before
            raise
        if outgoing.fenced is False:
            raise CheckpointerError(f"the secondary could not be fenced: {outgoing.failure}")
        if side == PRIMARY:
            self._memory = outgoing.secondary.memory
            self.options = msgspec.structs.replace(self.options, primary=outgoing.secondary.address)

    async def protect(self, new: NewSecondary) -> None:
        """Let the guest that is left be the primary of a new pair, whose secondary's end listens already.

        Raises ProtectionFailed, or ConfigError.
        """
        assert isinstance(new.options, MemoryOptions)
        endpoint = endpoint_of(new.options)
        if self._nursery is None:
            raise ProtectionFailed("checkpointer memory is not running")
        self._pair.cancel_scope.cancel()
        await self._pair_over.wait()
        before = self.options, self._endpoint
        self.options, self._endpoint = new.options, endpoint
        try:
            await self._nursery.start(self._serve_pair)
        except BaseException as error:
            self.options, self._endpoint = before
            self.lost = self.lost or "no pair could be made"
            if isinstance(error, CheckpointerError):
                raise ProtectionFailed(str(error)) from None
            raise

    def figures(self) -> Mapping[str, int | float | str | bool]:
        """Give the state of the session, and what the last checkpoint cost."""
        sender = self.sender
        figures: dict[str, int | float | str | bool] = {
            "state": self.lost or ("connecting" if sender is None else sender.outgoing.state),
            "committed": self.committed,
            "failed": self.failed,
        }
        if sender is not None:
            figures["primary_tracker"] = self.tracker.name
            figures["secondary_tracker"] = sender.outgoing.secondary.tracker
            figures["backlog_pages"] = len(self.backlog)
        return {**figures, **self.last}
