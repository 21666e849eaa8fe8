"""The loop's side of the checkpointer contract: passes requests on, and takes reports.

Whatever a backend does (raise, hang, end, report nonsense) ends as a failed checkpoint or a lost
secondary, in the log; it never ends the loop. An error of the *core* that surfaces in a backend's call to a
handler does, as the backend must not be able to swallow it.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from colo_compare.checkpoint.contract import Checkpointer, Figures
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.epochs import PAUSED
from colo_compare.core.settings import PROTECT
from colo_compare.core.sides import SECONDARY, SIDE_NAMES
from colo_compare.errors import CheckpointerError
from colo_compare.failover import describe

if TYPE_CHECKING:
    from colo_compare.link import Link
    from colo_compare.loop import Loop

logger: Final = logging.getLogger(__name__)

READY_INTERVAL: Final = 0.02  # seconds between looks at `ready`, which has no event, before a request


class Checkpointing:
    """Serves the core's requests one at a time; an implementation of CheckpointHandlers for the backend."""

    def __init__(self, loop: "Loop", checkpointer: Checkpointer) -> None:
        self._loop = loop
        self.checkpointer: Final = checkpointer
        self.last_figures: Figures | None = None
        self.ended = ""  # why the backend runs no more
        self._started = trio.Event()
        self._was_ready = False
        self._asked = trio.Event()
        self._next: CheckpointRequest | None = None  # not yet passed on
        self._epoch: int | None = None  # of the checkpoint under way, until its result is known
        self._serving = trio.CancelScope()  # of the request that the backend serves now
        self._busy = False  # whether it serves one
        self._passed_on = False  # whether the backend knows of the checkpoint under way
        self._suspension = trio.Lock()  # held while requests are not passed on
        self._changed = trio.Event()  # set when one of these has changed

    # Requests

    def ask(self, request: CheckpointRequest) -> None:
        """Pass a request on as soon as the backend has returned from the one before."""
        self._next = request
        self._epoch = request.epoch
        self._asked.set()

    def forget(self) -> None:
        """Cancel what is asked for: nobody waits for it any more."""
        self._next = None
        self._finish()
        self._serving.cancel()

    async def settle(self) -> None:
        """Cancel what is asked for, and wait until the backend has let go of it."""
        self.forget()
        while self._busy:
            await self._changed.wait()

    async def conclude(self) -> bool:
        """Bring the checkpoint under way to its end, before a promotion; say whether its result is known.

        One that cannot have touched the secondary yet is cancelled. Any other one has until the time-out that
        the core, too, allows it: where the primary is dead, the backend finds that out much sooner.
        """
        with trio.move_on_after(self._loop.settings.checkpoint_timeout):
            while self._epoch is not None and not self._intact():
                await self._changed.wait()
        if self._epoch is not None and self._intact():
            self._fail(self._epoch, "cancelled by a promotion", secondary_intact=True)
        known = self._epoch is None
        await self.settle()
        return known

    def replaces_state_of(self, link: "Link") -> bool:
        """Whether the guest behind a link may be loaded any moment, unknown to us until it is reported.

        What waits for its port has the numbers of the state that it has now, and must not reach the next one.
        """
        return link.role == SECONDARY and self._passed_on and self.checkpointer.capabilities.copies_state

    async def concluded(self) -> None:
        """Wait until the backend makes no checkpoint."""
        while self._passed_on:
            await self._changed.wait()

    @asynccontextmanager
    async def suspended(self) -> AsyncIterator[None]:
        """Pass no request on. What is under way ends first.

        For a change of mode: the core forgets the checkpoint then, and a result that came for it afterwards
        would be taken for that of the next one.
        """
        async with self._suspension:
            await self.concluded()
            yield

    async def serve_requests(self) -> None:
        """Pass requests on until cancelled."""
        await self._started.wait()
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self._loop.failover.while_promoting()
            async with self._suspension:
                pass
            request, self._next = self._next, None
            if request is None:
                continue  # forgotten meanwhile
            if self.ended:
                self._fail(request.epoch, f"the checkpointer has ended: {self.ended}", secondary_intact=True)
                continue
            self._busy = True
            with trio.CancelScope() as self._serving:
                await self._serve(request)
            self._busy = False
            self._note_change()

    async def _serve(self, request: CheckpointRequest) -> None:
        try:
            while not self.checkpointer.ready:  # the contract has no event for it
                # To form a pair may take a whole migration. A backend that gives up says so by itself.
                self._loop.proxy.postpone(request.epoch, trio.current_time())
                await trio.sleep(READY_INTERVAL)
            self._was_ready = True
            self._passed_on = True
            await self.checkpointer.request(request)
        except Exception as error:  # a third party's code
            logger.exception("the checkpointer failed at the request for epoch %d", request.epoch)
            self._fail(request.epoch, describe(error), secondary_intact=self._intact())

    async def run_backend(self) -> None:
        """Run the backend until cancelled."""
        # run() goes on at once to its first await, so it has begun before any request is passed on.
        self._started.set()
        try:
            await self.checkpointer.run(self)
            self.ended = "its run() returned"
        except Exception as error:  # a third party's code
            self.ended = describe(error)
        if not self._was_ready and self._loop.proxy.mode == PROTECT:
            # A mistake in the configuration or the set-up: better seen at once than as a pair that was never
            # protected. One that worked before, and breaks, must not stop the service.
            self._loop.end(CheckpointerError(f"the checkpointer ended before it was ready: {self.ended}"))
            return
        logger.critical("the checkpointer has ended, no checkpoint can be made any more: %s", self.ended)
        epoch, intact = self._epoch, self._intact()
        self._serving.cancel()
        if epoch is not None and self._next is None:
            self._fail(epoch, f"the checkpointer has ended: {self.ended}", secondary_intact=intact)

    def _intact(self) -> bool:
        """Say whether the secondary surely has its old state, when the backend cannot tell any more.

        Surely means: the primary had not stopped, so nothing can have been loaded. Holding for a while in
        vain is the safe mistake; going on with offsets that the secondary no longer has is the other one.
        """
        if self._next is not None:
            return True  # the backend has not even been asked
        return self.checkpointer.capabilities.reports_pause and self._loop.proxy.checkpoint_state != PAUSED

    def _finish(self) -> None:
        self._epoch = None
        self._passed_on = False
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _fail(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        if not self._expects(epoch, "failed"):
            return
        self._finish()
        self._loop.proxy.failed(epoch, detail, secondary_intact, trio.current_time())
        self._loop.perform()

    # Reports

    async def begun(self) -> int:
        """Take the report of a checkpoint that the backend started by itself."""
        with self._loop.core():
            epoch = self._loop.proxy.begun(trio.current_time())
            self._epoch = epoch
            self._passed_on = True
            self._loop.perform()
        return epoch

    async def paused(self, epoch: int) -> None:
        """Take the report that the primary stopped: everything it sent before belongs to the checkpoint."""
        if self._expects(epoch, "paused"):
            with self._loop.core():
                self._loop.measures.note_paused(trio.current_time())
                self._loop.drain(self._loop.primary)
                self._loop.proxy.paused(epoch, trio.current_time())
                self._loop.perform()

    async def loaded(self, epoch: int) -> None:
        """Take the report that the secondary was loaded: everything it sent before is void."""
        if self._expects(epoch, "loaded"):
            with self._loop.core():
                self._drain_secondary()
                self._loop.proxy.loaded(epoch, trio.current_time())
                self._loop.perform()

    async def committed(self, epoch: int, figures: Figures) -> None:
        """Take the report that the secondary can take over from the new state."""
        if self._expects(epoch, "committed"):
            self._finish()
            self.last_figures = figures
            self._loop.measures.note_figures(figures, trio.current_time())
            with self._loop.core():
                if not self.checkpointer.capabilities.reports_load:
                    # The next best moment. What the secondary sent before it was loaded would otherwise be
                    # read later and be taken, with the wrong offsets, for its new self's words.
                    self._drain_secondary()
                self._loop.proxy.committed(epoch, trio.current_time())
                self._loop.perform()
            self._loop.pace(self.checkpointer.advised_interval())

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        """Take the report that nothing was committed."""
        with self._loop.core():
            self._fail(epoch, detail, secondary_intact=secondary_intact)

    async def guest_lost(self, side: int, detail: str) -> None:
        """Take the report that a guest is gone. Returns at once.

        What follows calls the backend (`promote`, `abandon`), which may still be in the middle of this call.
        """
        logger.error("the checkpointer reports that the %s is gone: %s", SIDE_NAMES[side], detail)
        self._loop.failover.report_guest(side, detail)

    def _drain_secondary(self) -> None:
        """Take what the old state said; what its port has not taken has that one's numbers, and is void."""
        secondary = self._loop.secondary
        if secondary is not None:
            self._loop.drain(secondary)
            if self.checkpointer.capabilities.copies_state:
                secondary.void_backlog()

    def _expects(self, epoch: int, report: str) -> bool:
        if epoch == self._epoch:
            return True
        logger.warning(
            "the checkpointer's report %s for epoch %d is ignored: %s",
            report,
            epoch,
            "no checkpoint is under way" if self._epoch is None else f"epoch {self._epoch} is under way",
        )
        return False
