"""What happens when a side is lost, and when an operator moves the service to the other guest (rule 8).

Losses come from anywhere: a port that breaks in any task, a backend that reports one, a core that gives the
secondary up. They are queued here and handled one by one by one task, as fencing a guest may take seconds.

Fencing has two parts. The proxy is the only way from a guest to the client network, so closing its own port
cuts the guest off, whatever that guest does afterwards: this never fails and always comes first. The
checkpointer's part (`promote` and `abandon`: kill the guest, release the other one from the pair) follows
where it can do it.
"""

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from colo_compare.checkpoint.contract import Checkpointer
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import CheckpointerError, PortClosed, PromotionFailed
from colo_compare.link import Link

if TYPE_CHECKING:
    from colo_compare.loop import Loop

logger: Final = logging.getLogger(__name__)

# A backend has limits of its own, which know what it waits for (a power switch may take half a minute). This
# one only ends what would otherwise hang for ever.
FENCING_LIMIT: Final = 120.0  # seconds


class Failover:
    """Handles lost sides and promotions, one at a time."""

    def __init__(self, loop: "Loop", checkpointer: Checkpointer) -> None:
        self._loop = loop
        self._checkpointer = checkpointer
        self._lost: deque[tuple[Link, str, float]] = deque()  # what, why, since when
        self._reported = trio.Event()
        self._promotion: trio.Event | None = None  # set when the promotion under way ends
        self._at_work = 0  # losses, promotions and farewells that have not come to their end
        self._settled = trio.Event()  # set, and replaced, when one of them has
        self.reason = ""  # of the promotion that succeeded

    def report(self, link: Link, why: str) -> None:
        """Note that a link is lost; what follows is done by `run`. Only the first report of a link counts."""
        if link.failure:
            return
        link.failure = why
        if link.role == CLIENT:
            self._loop.end(
                PortClosed(
                    f"the client port {link.port.url} is gone ({why}): nobody can be served; "
                    "bring the interface or peer back and start again"
                )
            )
            return
        self._lost.append((link, why, trio.current_time()))
        self._reported.set()

    def report_guest(self, side: int, why: str) -> None:
        """Note that the backend says that the guest on a side (its role now) is gone."""
        link = self._loop.secondary if side == SECONDARY else self._loop.primary
        if link is None and self._loop.protection.pairing:
            self._loop.protection.give_up(f"the checkpointer reports that the new guest is gone: {why}")
        elif link is None:
            logger.info(
                "the checkpointer reports that the %s is gone, which was known: %s", SIDE_NAMES[side], why
            )
        else:
            self.report(link, f"the checkpointer reports: {why}")

    async def run(self) -> None:
        """Handle losses until cancelled."""
        while True:
            await self._reported.wait()
            # A promotion by the operator finishes first: its end decides which role a lost link has.
            await self.while_promoting()
            link, why, since = self._lost.popleft()
            if not self._lost:
                self._reported = trio.Event()
            self._at_work += 1
            if link.role == SECONDARY:
                await self._lose_secondary(link, why)
            elif link.role == PRIMARY:
                await self._lose_primary(link, why, since)
            self._finish_work()

    async def while_promoting(self) -> None:
        """Wait for the end of the promotion that is under way, if one is.

        The timers and the requests for checkpoints wait here. Else a core that hears nothing from a dead
        primary's checkpoint could give the secondary up while the backend is about to promote it.
        """
        while self._promotion is not None:
            await self._promotion.wait()

    async def settled(self) -> None:
        """Wait until every loss that is known has been dealt with, by the backend too."""
        while self._lost or self._at_work:
            await self._settled.wait()

    def _finish_work(self) -> None:
        self._at_work -= 1
        self._settled.set()
        self._settled = trio.Event()

    # Loss of the secondary

    async def _lose_secondary(self, link: Link, why: str) -> None:
        logger.error("the secondary (port %s) is lost: %s", link.port.url, why)
        link.fence(why)
        self._loop.secondary = None
        # It is cut off now, which is all that the client needs: what is held can go at once. (The core may
        # have given the secondary up by itself: then this call changes nothing.) Waiting for the backend
        # would stop the service for as long as a power switch takes.
        with self._loop.core():
            self._loop.proxy.lose_secondary(trio.current_time())
            self._loop.perform()
        await link.port.aclose()
        # In a task of its own, as the next loss must not wait for it either.
        self._at_work += 1
        self._loop.start_soon(self._abandon)

    async def _abandon(self) -> None:
        """Let the backend do its part: above all, a primary that stands still in a checkpoint must run on."""
        try:
            with trio.fail_after(FENCING_LIMIT):
                await self._loop.checkpointing.settle()
                await self._checkpointer.abandon(SECONDARY)
        except Exception:  # a third party's code
            logger.exception("the checkpointer could not abandon the secondary")
        self._finish_work()

    # Loss of the primary, and promotion

    async def _lose_primary(self, link: Link, why: str, since: float) -> None:
        logger.critical("the primary (port %s) is lost: %s", link.port.url, why)
        gone = f"the primary (port {link.port.url}) is gone ({why})"
        obstacle = self._obstacle()
        if obstacle:
            self._loop.end(PortClosed(f"{gone}, and nothing can take over: {obstacle}"))
            return
        try:
            await self._promote(f"the primary is lost: {why}", since)
        except CheckpointerError as error:
            # Not promoted all the same: the backend could not fence, so the old primary might still run.
            self._loop.end(PromotionFailed(f"{gone}, and the secondary could not take over: {error}"))

    async def promote(self, why: str) -> None:
        """Move the service to the secondary by an operator's decision.

        Raises PromotionFailed when there is nothing that could take over, or the backend refuses; the
        primary then serves on.
        """
        obstacle = self._obstacle()
        if obstacle:
            raise PromotionFailed(f"nothing can take over: {obstacle}")
        if self._promotion is not None:
            raise PromotionFailed("a promotion is under way already")
        await self._promote(why, trio.current_time())

    async def _promote(self, why: str, since: float) -> None:
        self._at_work += 1
        try:
            old = await self._move(why, since)
            self.reason = why
            logger.warning("the guest on port %s is the primary now: %s", self._loop.primary.port.url, why)
            await old.port.aclose()
        finally:
            self._finish_work()

    async def _move(self, why: str, since: float) -> Link:
        """Move the service, and give the old primary's link."""
        self._promotion = trio.Event()
        try:
            # The secondary takes over from the old state or from the new one, and which one it is must be
            # known first: nothing in between exists.
            if not await self._loop.checkpointing.conclude():
                raise PromotionFailed(
                    "the checkpoint under way came to no result: the secondary's state is unknown"
                )
            await self._fence_and_take_over()
            obstacle = self._obstacle()
            if obstacle:
                raise PromotionFailed(f"nothing can take over any more: {obstacle}")
            # Nothing waits in here: frames are received in the old roles before it, in the new ones after it.
            with self._loop.core():
                self._loop.proxy.promote(trio.current_time())
                old = self._loop.swap()
                old.fence(old.failure or why)
                self._loop.checkpointing.forget()
                if self._checkpointer.releases_by_port:
                    self._loop.redirect()
                self._loop.perform()
            self._loop.measures.failover.observe(trio.current_time() - since)
            return old
        finally:
            self._promotion.set()
            self._promotion = None

    async def _fence_and_take_over(self) -> None:
        """Let the backend do its part. Raises PromotionFailed."""
        if not self._checkpointer.capabilities.can_promote:
            logger.warning(
                "the checkpointer cannot promote: the proxy only cuts the old primary off from the network; "
                "that this guest is dead, and the other one runs, is for others to see to"
            )
            return
        try:
            with trio.fail_after(FENCING_LIMIT):
                await self._checkpointer.promote(SECONDARY)
        except Exception as error:  # a third party's code
            raise PromotionFailed(describe(error)) from error

    def _obstacle(self) -> str:
        """Say why the secondary cannot take over now ("" if it can)."""
        loop = self._loop
        if loop.secondary is None:
            return f"there is no secondary (mode {loop.proxy.mode})"
        if loop.secondary.failure:
            return f"the secondary is lost: {loop.secondary.failure}"
        if not loop.proxy.protected:
            return (
                f"the secondary is not equal to the primary (mode {loop.proxy.mode}, no committed checkpoint)"
            )
        return ""


def describe(error: Exception) -> str:
    """Give one line about a backend's error: its words, with the type where it is not one of ours."""
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    text = str(error).replace("\n", " ")
    return text if isinstance(error, CheckpointerError) else f"{type(error).__name__}: {text}"
